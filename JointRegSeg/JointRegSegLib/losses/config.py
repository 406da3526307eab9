"""Configuration of the loss: its terms and their weights, as plain values for a JSON file."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, fields
from typing import Any

from NeuroCESTLib.core.checked_json import settings_from_json

from ..registration.similarity import find_similarity

_CHOICES = {
    "segmentation": ("dice_cross_entropy", "cross_entropy", "dice"),
    "dice_over": ("regions", "classes"),
}

MEDIAN_FREQUENCY = "median_frequency"
"""Name of the class weights that are computed from the training labels; see ``training.data.open_data``."""


@dataclass(frozen=True)
class LossConfig:
    """Terms and weights of the loss, ``segmentation + registration_weight * registration``.

    Attributes:
        segmentation: 'cross_entropy', 'dice' (soft Dice), or their sum 'dice_cross_entropy'.
        class_weights: Weights of the classes in the cross-entropy; empty for equal weights. 'median_frequency' gives
            each class the median frequency of all classes in the brains of the training data, divided by its own.
        focal_gamma: Exponent of the focal factor ``(1 - p)^gamma`` of the cross-entropy; 0 for none.
        dice_over: What the soft Dice is averaged over: 'regions' (whole tumour, tumour core, enhancing tumour) or
            'classes' (all but the background).
        auxiliary_weight: Weight of the first lower level in deep supervision, halved from level to level.
        registration_weight: Weight beta of the registration term (Estienne et al. 2020).
        similarity: Name of the similarity measure; see ``similarity.SIMILARITIES``. Estienne et al. used 'mse'.
        window: Edge of the neighbourhoods of local similarities, in voxels of the image; an odd number.
        relaxed: Whether the tumour of the fixed and of the warped moving study is left out of the similarity.
        mask_labels: Whether the tumour of the relaxed similarity is taken from the given labels. If false, or for
            studies without labels, it is the predicted one.
        symmetric: Whether both directions of the registration are averaged, which needs a deformation with an inverse.
        phi_weight: Weight alpha of the L1 norm of the difference between the gradients of a cumulative deformation and
            those of the identity: a sum over the grid and the components, averaged over the batch. The gradients are
            half gradients in (0, 1), as published.
        smoothness_weight: Weight of the mean squared first differences of the velocity or, if there is none, of the
            displacement.
        jacobian_weight: Weight of the mean of ``max(0, -det J)``, which is zero for a map that does not fold.
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
        find_similarity(self.similarity)
        for entry in fields(self):
            value = getattr(self, entry.name)
            if isinstance(entry.default, float) and not _is_amount(value):
                raise ValueError(f"{entry.name} is {value!r} but must be a number of at least 0")
            if isinstance(entry.default, bool) and not isinstance(value, bool):
                raise ValueError(f"{entry.name} is {value!r} but must be true or false")
        if not isinstance(self.window, int) or self.window < 3 or self.window % 2 == 0:
            raise ValueError(f"window is {self.window!r} but must be an odd number of at least 3")

    def _check_class_weights(self) -> None:
        weights = self.class_weights
        if weights == MEDIAN_FREQUENCY:
            return
        if not isinstance(weights, list | tuple) or not all(map(_is_amount, weights)) or (weights and not any(weights)):
            raise ValueError(
                f"class_weights is {weights!r} but must be numbers of at least 0 and not all 0, or '{MEDIAN_FREQUENCY}'"
            )
        object.__setattr__(self, "class_weights", tuple(float(weight) for weight in weights))

    def to_dict(self) -> dict[str, Any]:
        """Return the configuration as plain values for a JSON file."""
        weights = self.class_weights
        return asdict(self) | {"class_weights": weights if isinstance(weights, str) else list(weights)}

    @classmethod
    def from_dict(cls, values: Any, where: str = "loss") -> LossConfig:
        """Build a configuration from plain values; missing ones take their defaults.

        Args:
            values: Object as read from JSON.
            where: File and section, with which the message of an error begins.

        Raises:
            ValueError: A key is unknown or a value cannot be used; the message names it.
        """
        return settings_from_json(cls, values, where)


def _is_amount(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value) and value >= 0
