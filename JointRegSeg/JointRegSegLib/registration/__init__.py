"""Registration: alignment, deformations, similarity measures, transforms and instance optimization."""
