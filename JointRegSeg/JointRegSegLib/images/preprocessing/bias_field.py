"""Correction of the bias field of an image."""

from __future__ import annotations

import numpy as np
import SimpleITK as sitk

from ..grid import WorkingGrid


def correct_bias(values: np.ndarray, mask: np.ndarray, grid: WorkingGrid) -> np.ndarray:
    """Correct the bias field by N4 (Tustison et al. 2010), with the field estimated on voxels of about 4 mm.

    Args:
        values: Intensities (D, H, W).
        mask: Voxels from which the field is estimated (D, H, W), boolean.
        grid: Their working grid.

    Returns:
        Corrected intensities (D, H, W), float32.
    """
    image = grid.to_sitk(values - min(float(values[mask].min()), 0.0) + 1e-3)
    shrink = max(1, round(4 / grid.spacing_mm))
    small = sitk.Shrink(image, [shrink] * 3)
    small_mask = sitk.Shrink(grid.to_sitk(mask.astype(np.uint8)), [shrink] * 3)
    if not sitk.GetArrayViewFromImage(small_mask).any():
        return values
    n4 = sitk.N4BiasFieldCorrectionImageFilter()
    n4.SetMaximumNumberOfIterations([30, 20, 10])
    n4.Execute(small, small_mask)
    field = np.exp(sitk.GetArrayFromImage(n4.GetLogBiasFieldAsImage(image)))
    return (values / np.maximum(field, 1e-3)).astype(np.float32)
