"""File formats: protocols, pulseq sequences, pool files, simulation scenarios and the bundled presets."""
