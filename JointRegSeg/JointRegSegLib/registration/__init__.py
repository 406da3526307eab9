"""Registration: alignment, deformations, similarity measures, transforms and instance optimisation."""

AFFINE_KINDS = ("none", "rigid", "affine")
"""Linear alignments that precede the deformation."""
