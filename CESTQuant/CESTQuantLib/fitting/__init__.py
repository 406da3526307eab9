"""Batched least-squares fits: Levenberg-Marquardt over many voxels at once, its linear algebra and its statistics."""
