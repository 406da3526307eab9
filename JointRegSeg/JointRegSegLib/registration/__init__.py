"""Registration: alignment, deformations, similarity measures, transforms and instance optimization."""

AFFINE_KINDS = ("none", "rigid", "affine")
"""Linear alignments that precede the deformation."""
