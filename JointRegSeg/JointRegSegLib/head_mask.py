"""Brain from a head by thresholds and morphology: rough, for want of a mask."""

from __future__ import annotations

import SimpleITK as sitk

_SPACING_MM = 2.0


def brain_in_head(image: sitk.Image) -> tuple[sitk.Image, bool]:
    """Estimated brain (uint8, on the image's grid) and whether the estimate looks like one."""
    raise ValueError("the image shows the whole head: give a brain mask or skull-stripped images")
