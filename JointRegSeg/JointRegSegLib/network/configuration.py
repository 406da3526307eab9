"""Configurations of networks, which can be stored as JSON; those that have a name lie in ``configurations``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from NeuroCESTLib.core.checked_json import read_json, settings_from_json

from ..images.modalities import MODALITIES
from ..losses.config import LossConfig
from .convolutions import CONVOLUTIONS

FOLDER = Path(__file__).resolve().parents[1] / "configurations"
_CHOICES = {  # values of the keys that are names
    "normalisation": ("none", "instance", "brain"),
    "activation": ("relu", "leaky_relu"),
    "convolution": CONVOLUTIONS,
    "down": ("strided", "average", "max", "unit"),
    "up": ("transposed", "trilinear"),
    "merge": ("subtract", "add", "concatenate"),
    "deformation": ("cumulative", "displacement", "velocity"),
}
_LISTS = ("channels", "encoder_convolutions", "decoder_convolutions", "modalities")


@dataclass(frozen=True)
class NetworkConfig:
    """Everything that determines the layers of a network, and the loss with which it is trained by default.

    Attributes:
        name: Name of the network in files and messages.
        modalities: Input channels, in this order.
        classes: Number of segmentation classes, including the background.
        channels: Feature channels from the finest to the coarsest level; sizes halve from level to level.
        encoder_convolutions: Number of 3 x 3 x 3 convolutions in each block of the encoder, finest first.
        decoder_convolutions: The same for the decoders, which have one block fewer than there are levels.
        stem: Whether a linear 1 x 1 x 1 convolution precedes the first block.
        residual: Whether blocks add their input to the output of their last convolution; a block of a decoder adds its
            input from the next coarser level.
        normalisation: 'none', 'instance' (statistics of each study over the whole grid) or 'brain' (over its brain,
            so that the background around it has no influence).
        activation: 'relu' or 'leaky_relu'.
        residual_units: Whether every two convolutions of a block form a residual unit, whose input is added before its
            last activation, as in a ResNet.
        convolution: 3 x 3 x 3 convolution of the blocks: 'full', 'separable' (depthwise and pointwise) or 'dynamic'
            (each study mixes its kernel from several).
        context_attention: Whether each block of the encoder below the finest level weights its features by their
            context at several scales.
        dropout: Probability in training that a block drops each of its channels.
        down: Step to the next coarser level: 'strided' convolution, 'average' or 'max', or 'unit', where the first
            convolution of the coarser block is strided, as in a ResNet.
        up: Step to the next finer level: 'transposed' convolution or 'trilinear' interpolation.
        segmentation: Whether there is a segmentation head.
        registration: Whether there is a registration head.
        merge: How the codes of the two studies are joined for the registration: 'subtract', 'add' or 'concatenate';
            the last doubles the number of channels.
        deformation: What the registration head predicts: spatial gradients in (0, 2) that are summed ('cumulative'), a
            'displacement' in voxels, or a stationary 'velocity' that is integrated by scaling and squaring.
        registration_level: Level at which the deformation is predicted; 0 is the finest.
        antisymmetric: Whether the velocity is ``r(F, M) - r(M, F)``, where r is the output of the head, so that
            exchanging the studies F and M gives the exact inverse.
        integration_steps: Number of squarings in the integration of a velocity.
        zero_output: Whether the untrained network predicts the identity as its deformation.
        auxiliary: Number of coarser levels with a segmentation output of their own, for deep supervision in training.
        stride: Edge in voxels of the blocks over which the input is averaged; the outputs are interpolated back.
        loss: Default loss of the training.
        training: Default training settings; their keys are checked where a training is configured.
        note: Free text.
    """

    name: str = "neurocest"
    modalities: tuple[str, ...] = MODALITIES
    classes: int = 4
    channels: tuple[int, ...] = (16, 32, 64, 96, 128)
    encoder_convolutions: tuple[int, ...] = (2, 2, 2, 2, 2)
    decoder_convolutions: tuple[int, ...] = (2, 2, 2, 2)
    stem: bool = False
    residual: bool = False
    residual_units: bool = False
    convolution: str = "full"
    context_attention: bool = False
    dropout: float = 0.0
    normalisation: str = "instance"
    activation: str = "leaky_relu"
    down: str = "strided"
    up: str = "transposed"
    segmentation: bool = True
    registration: bool = True
    merge: str = "subtract"
    deformation: str = "velocity"
    registration_level: int = 1
    antisymmetric: bool = True
    integration_steps: int = 6
    zero_output: bool = True
    auxiliary: int = 2
    stride: int = 2
    loss: LossConfig = field(default_factory=LossConfig)
    training: Mapping[str, Any] = field(default_factory=dict)
    note: str = ""

    def __post_init__(self) -> None:
        for key in _LISTS:
            object.__setattr__(self, key, tuple(getattr(self, key)))
        if isinstance(self.loss, Mapping):
            object.__setattr__(self, "loss", LossConfig.from_dict(self.loss))
        for key, choices in _CHOICES.items():
            if getattr(self, key) not in choices:
                raise ValueError(f"{key} is '{getattr(self, key)}' but must be one of {', '.join(choices)}")
        self._check_numbers()
        self._check_heads()

    def _check_numbers(self) -> None:
        for key in ("channels", "encoder_convolutions", "decoder_convolutions"):
            if not all(_whole(v) and 1 <= v <= 4096 for v in getattr(self, key)):
                raise ValueError(f"{key} is {list(getattr(self, key))} but must be whole numbers of at least 1")
        if not 2 <= self.levels <= 7:
            raise ValueError(f"channels has {self.levels} levels but a network has 2 to 7")
        for key, count in (("encoder_convolutions", self.levels), ("decoder_convolutions", self.levels - 1)):
            if len(getattr(self, key)) != count:
                raise ValueError(f"{key} has {len(getattr(self, key))} numbers but {self.levels} levels need {count}")
        unknown = [m for m in self.modalities if m not in MODALITIES]
        if unknown or not self.modalities or len(set(self.modalities)) != len(self.modalities):
            raise ValueError(
                f"modalities are {list(self.modalities)} but must be different ones from {list(MODALITIES)}"
            )
        limits = {
            "classes": (2, 64),
            "registration_level": (0, self.levels - 2),
            "integration_steps": (1, 12),
            "auxiliary": (0, self.levels - 2),
            "stride": (1, 8),
        }
        for key, (low, high) in limits.items():
            value = getattr(self, key)
            if not _whole(value) or not low <= value <= high:
                raise ValueError(f"{key} is {value!r} but must be a whole number from {low} to {high}")
        rate = self.dropout
        if isinstance(rate, bool) or not isinstance(rate, int | float) or not 0 <= rate < 1:
            raise ValueError(f"dropout is {rate!r} but must be a probability below 1")
        if self.residual and self.down == "unit":
            raise ValueError(
                "residual adds the input of a block, whose size the down 'unit' halves; use residual_units"
            )
        for key in (
            "stem",
            "residual",
            "residual_units",
            "context_attention",
            "segmentation",
            "registration",
            "antisymmetric",
            "zero_output",
        ):
            if not isinstance(getattr(self, key), bool):
                raise ValueError(f"{key} is {getattr(self, key)!r} but must be true or false")

    def _check_heads(self) -> None:
        if not (self.segmentation or self.registration):
            raise ValueError("a network needs at least one head: set segmentation or registration to true")
        if self.registration and self.antisymmetric and (self.deformation != "velocity" or self.merge == "add"):
            raise ValueError(
                "antisymmetric needs the deformation 'velocity' and the merge 'subtract' or 'concatenate'; "
                f"here they are '{self.deformation}' and '{self.merge}'"
            )
        if self.registration and self.deformation == "cumulative" and self.registration_level:
            raise ValueError("the deformation 'cumulative' is summed at the finest level; set registration_level to 0")

    @property
    def levels(self) -> int:
        """Number of resolution levels."""
        return len(self.channels)

    @property
    def multiple(self) -> int:
        """Number of which each size of the input, after averaging over the stride, must be a multiple."""
        return 2 ** (self.levels - 1)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        values = asdict(self)
        return {key: list(value) if isinstance(value, tuple) else value for key, value in values.items()}

    @classmethod
    def from_dict(cls, values: Any, source: str = "network configuration") -> NetworkConfig:
        """Build a configuration from plain values; missing keys have their default values.

        Args:
            values: Object as read from a JSON file.
            source: File and section, with which the message of an error starts.

        Raises:
            ValueError: A key is unknown or a value is not allowed; the message names it.
        """
        return settings_from_json(cls, values, source)


def _whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def network_config_names() -> list[str]:
    """Return the names of the configurations that are part of the package."""
    return sorted(path.stem for path in FOLDER.glob("*.json"))


def load_network_config(name_or_path: str | Path = "neurocest") -> NetworkConfig:
    """Read a configuration that is part of the package, or a JSON file.

    Args:
        name_or_path: Name of a configuration, see ``network_config_names``, or path of a JSON file.

    Raises:
        ValueError: There is no such configuration or file, it is not JSON, or a value is not allowed; the message names
            the file.
    """
    names = network_config_names()
    path = FOLDER / f"{name_or_path}.json" if str(name_or_path) in names else Path(name_or_path)
    values = read_json(path, f"give a JSON file or one of {', '.join(names)}")
    return NetworkConfig.from_dict(values, str(path))
