"""Quality of a deformation: folding, local volume change and consistency with its inverse."""

from __future__ import annotations

import numpy as np
import SimpleITK as sitk


def jacobian_statistics(determinant: np.ndarray, mask: np.ndarray | None = None) -> dict[str, float]:
    """Summarise a map of Jacobian determinants.

    Args:
        determinant: Jacobian determinants (D, H, W).
        mask: Voxels that count (D, H, W) bool; None for all.

    Returns:
        ``folded_fraction``, the fraction of voxels whose determinant is not positive or not finite, and
        ``sd_log_jacobian``, the standard deviation of the logarithm over the other voxels; NaN for an empty mask.
    """
    values = np.asarray(determinant, float)
    values = values[np.asarray(mask, bool)] if mask is not None else values.ravel()
    if not values.size:
        return {"folded_fraction": float("nan"), "sd_log_jacobian": float("nan")}
    good = values > 0
    good &= np.isfinite(values)
    spread = float(np.log(values[good]).std()) if good.any() else float("nan")
    return {"folded_fraction": float(1 - good.mean()), "sd_log_jacobian": spread}


def inverse_consistency(
    forward: sitk.Transform, inverse: sitk.Transform, reference: sitk.Image, mask: np.ndarray, count: int = 5000
) -> dict[str, float]:
    """Measure how far points end from where they started after a transform and its inverse.

    Args:
        forward: Transform of points in the space of ``reference`` (LPS mm).
        inverse: Its inverse.
        reference: Image whose voxel centres are the points.
        mask: Voxels to take points from (D, H, W) bool.
        count: Largest number of points; they are spread evenly over the mask.

    Returns:
        Mean and maximum of ``|inverse(forward(x)) - x|`` in mm, as ``inverse_error_mean_mm`` and
        ``inverse_error_max_mm``; NaN for an empty mask. Points that leave the field of view count too.
    """
    indices = np.argwhere(np.asarray(mask, bool))[:, ::-1]
    if not len(indices):
        return {"inverse_error_mean_mm": float("nan"), "inverse_error_max_mm": float("nan")}
    indices = indices[np.linspace(0, len(indices) - 1, min(count, len(indices))).round().astype(int)]
    points = [reference.TransformIndexToPhysicalPoint([int(i) for i in index]) for index in indices]
    returned = np.array([inverse.TransformPoint(forward.TransformPoint(point)) for point in points])
    error = np.linalg.norm(returned - np.array(points), axis=1)
    return {"inverse_error_mean_mm": float(error.mean()), "inverse_error_max_mm": float(error.max())}
