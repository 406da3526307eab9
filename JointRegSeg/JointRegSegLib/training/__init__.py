"""Training of the joint network: configuration, data, the loop with its checkpoints and log, and validation."""
