"""Which loss: the terms and their weights, as JSON-able values."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

_CHOICES = {
    "segmentation": ("dice_cross_entropy", "cross_entropy", "dice"),
    "dice_over": ("regions", "classes"),
    "similarity": ("lncc", "mse"),
}

MEDIAN_FREQUENCY = "median_frequency"
"""Class weights that are computed from the labels of the training data; see ``training_data.open_data``."""


@dataclass(frozen=True)
class LossConfig:
    """Total = segmentation + registration_weight * registration.

    Attributes:
        segmentation: 'cross_entropy', 'dice' (soft), or their sum.
        class_weights: of the cross-entropy, one a class; empty for equal ones; or 'median_frequency', for the median
            frequency of all classes in the brains that are trained on, divided by the class's own.
        focal_gamma: exponent of the focal weighting (1 - p)^gamma of the cross-entropy; 0 for none.
        dice_over: soft Dice of the 'regions' whole tumour, core and enhancing, or of the 'classes' but background.
        auxiliary_weight: weight of the first lower level's outputs in deep supervision, halved from level to level.
        registration_weight: beta of the paper.
        similarity: 'mse' (the paper's) or 'lncc' (local normalised cross-correlation).
        window: edge of the LNCC window in voxels of the image.
        relaxed: leave out of the similarity where either study, the moving one warped, is tumour.
        mask_labels: the tumour of the relaxed similarity is the given labels' where there are any, else (or if
            False) the predicted one's.
        symmetric: mean of both directions; needs a deformation with its inverse.
        phi_weight: alpha, of the L1 norm of the cumulative deformation's gradients from identity (as a sum over the
            grid and the components, mean over the batch; of the half gradients in (0, 1), as published).
        smoothness_weight: of the mean squared first differences of the velocity (or displacement).
        jacobian_weight: of the mean of max(0, -det J), which is zero without folding.
    """

    segmentation: str = "dice_cross_entropy"
    class_weights: tuple[float, ...] | str = ()
    focal_gamma: float = 0.0
    dice_over: str = "regions"
    auxiliary_weight: float = 0.5
    registration_weight: float = 1.0
    similarity: str = "lncc"
    window: int = 9
    relaxed: bool = True
    mask_labels: bool = True
    symmetric: bool = True
    phi_weight: float = 0.0
    smoothness_weight: float = 0.5
    jacobian_weight: float = 0.0

    def __post_init__(self) -> None:
        self._check_class_weights()
        for key, choices in _CHOICES.items():
            if getattr(self, key) not in choices:
                raise ValueError(f"{key} is '{getattr(self, key)}' but must be one of {', '.join(choices)}")
        for entry in fields(self):
            value = getattr(self, entry.name)
            if isinstance(entry.default, float) and not _is_amount(value):
                raise ValueError(f"{entry.name} is {value!r} but must be a number of at least 0")
            if isinstance(entry.default, bool) and not isinstance(value, bool):
                raise ValueError(f"{entry.name} is {value!r} but must be true or false")
        if not isinstance(self.window, int) or self.window < 3 or self.window % 2 == 0:
            raise ValueError(f"window is {self.window!r} but must be an odd number of at least 3")

    def _check_class_weights(self) -> None:
        given = self.class_weights
        if given == MEDIAN_FREQUENCY:
            return
        if not isinstance(given, list | tuple) or not all(map(_is_amount, given)) or (given and not any(given)):
            raise ValueError(
                f"class_weights are {given!r} but must be numbers of at least 0 and not all 0, or '{MEDIAN_FREQUENCY}'"
            )
        object.__setattr__(self, "class_weights", tuple(float(v) for v in given))

    def to_dict(self) -> dict[str, Any]:
        given = self.class_weights
        return asdict(self) | {"class_weights": given if isinstance(given, str) else list(given)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> LossConfig:
        """Checked; the ValueError names the key."""
        if not isinstance(values, Mapping):
            raise ValueError("loss is an object with keys such as similarity")
        known = [entry.name for entry in fields(cls)]
        if unknown := sorted(set(values) - set(known)):
            raise ValueError(f"loss: unknown keys {', '.join(unknown)}; use {', '.join(known)}")
        try:
            return cls(**values)
        except ValueError as error:
            raise ValueError(f"loss: {error}") from None
        except TypeError as error:
            raise ValueError(f"loss: a value has the wrong type ({error})") from None


def _is_amount(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value) and value >= 0
