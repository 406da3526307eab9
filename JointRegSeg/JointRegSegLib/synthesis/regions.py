"""What each voxel of a synthetic head holds, as one label map on which other contrasts can be simulated."""

from __future__ import annotations

import torch
from torch import Tensor

from .templates import CSF, GM, WM
from .tumor import TumorFields

REGIONS = {
    1: "white matter",
    2: "grey matter",
    3: "cerebrospinal fluid",
    4: "oedema",
    5: "enhancing tumour",
    6: "necrotic core",
}
"""Region by its value in the label map; 0 is air. A resection cavity is filled with cerebrospinal fluid."""

_OF_TISSUE = {CSF: 3, GM: 2, WM: 1}
_OF_CLASS = {1: 6, 2: 4, 3: 5}  # necrotic core, oedema, enhancing tumour as in the segmentation


def region_labels(tissues: Tensor, tumor: TumorFields, classes: Tensor, mask: Tensor) -> Tensor:
    """Combine healthy anatomy and tumour.

    Args:
        tissues: Probabilities (3, D, H, W) of CSF, grey and white matter.
        tumor: Soft fields of the tumour.
        classes: Segmentation (D, H, W): 1 necrotic core, 2 oedema, 3 enhancing tumour.
        mask: Brain (D, H, W).

    Returns:
        Label map (D, H, W) uint8 with the values of ``REGIONS``.
    """
    of_tissue = torch.tensor([_OF_TISSUE[channel] for channel in range(len(tissues))], dtype=torch.uint8)
    regions = of_tissue[tissues.argmax(0)]
    for value, region in _OF_CLASS.items():
        regions[classes == value] = region
    regions[tumor.cavity > 0.5] = _OF_TISSUE[CSF]
    return regions * mask
