"""Configuration of a training: which network, from what data, with which loss, how long."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from ..images.labels import CLASSES, LABELS
from ..images.modalities import MODALITIES
from ..losses.config import LossConfig
from ..network.configuration import NetworkConfig
from ..tasks.registry import find_task
from .settings import LARGEST_SEED, TrainingSettings

DATA_PATHS = ("memory", "cache", "on_the_fly", "synthetic")
TASKS = ("both", "segmentation", "registration")
OWN_KEYS = ("stride", "task", "tasks", "registration_every", "initial_weights", "note")
"""Keys of a configuration besides its sections."""


@dataclass(frozen=True)
class DataConfig:
    """Where the pairs of studies come from.

    Attributes:
        path: ``memory`` (all preprocessed studies), ``cache`` (preprocessed on disk, memory-mapped), ``on_the_fly``
            (read and preprocessed each time by workers), or ``synthetic`` (patients generated as they are needed,
            without a manifest).
        length: Pairs per epoch where some of them are synthetic.
        synthetic_share: Share of synthetic pairs among those of a cohort; 0 for none.
        seed: Seed of synthetic patients and of pairs; the validation has patients of another seed.
        validation_pairs: Number of fixed held-out pairs; with a manifest at most so many of its split ``val``.
        cache: Folder of the cache, relative to the output folder unless absolute.
        synthetic: Settings of ``synthesis.source.SyntheticConfig``. Among pairs of a cohort, synthetic patients have
            the voxel size of the cohort; where all training pairs are synthetic, held-out studies have that of the
            patients.
        preprocessing: Settings of ``cohort.preparation.PreparationConfig``; synthetic patients are always z-scored and
            need ``normalisation`` 'zscore'. ``histogram_landmarks`` may be ``learn``:
            they are then those of the split ``train``, whose studies are prepared once more for it.
        pairing: Kind or settings of ``cohort.pairing.Pairing``. Held-out studies are paired by ``auto`` instead of
            ``same`` where the registration is trained.
        sampling: Settings of ``cohort.pairing.StudySampling``; None (null) for none.
        transplants: Settings of ``augmentation.transplant.TransplantConfig``, by which the tumours of a cohort are put
            into other brains; None (null) for none.
        augmentation: Settings of ``augmentation.config.AugmentationConfig``; None (null) for none.
    """

    path: str = "memory"
    length: int = 1000
    synthetic_share: float = 0.0
    seed: int = 0
    validation_pairs: int = 8
    cache: str = "cache"
    synthetic: Mapping[str, Any] = field(default_factory=dict)
    preprocessing: Mapping[str, Any] = field(default_factory=dict)
    pairing: Any = None
    sampling: Mapping[str, Any] | None = None
    transplants: Mapping[str, Any] | None = None
    augmentation: Mapping[str, Any] | None = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.path not in DATA_PATHS:
            raise ValueError(f"path is {self.path!r} but must be one of {', '.join(DATA_PATHS)}")
        for name, least in (("length", 1), ("validation_pairs", 0), ("seed", 0)):
            _check_whole(name, getattr(self, name), least)
        if self.seed > LARGEST_SEED:
            raise ValueError(f"seed is {self.seed} but must be at most {LARGEST_SEED}")
        share = self.synthetic_share
        if isinstance(share, bool) or not isinstance(share, int | float) or not 0 <= share < 1:
            raise ValueError(f"synthetic_share is {share!r} but must be a number from 0 to below 1")
        if self.path == "synthetic" and (share or self.transplants is not None):
            raise ValueError("synthetic_share and transplants need a cohort: choose another path than 'synthetic'")

    @property
    def has_synthetic(self) -> bool:
        """Whether some of the pairs are synthetic."""
        return self.path == "synthetic" or self.synthetic_share > 0

    def synthetic_settings(self, spacing_mm: float) -> dict[str, Any]:
        """Return ``synthetic`` with the voxel size of the cohort where its pairs are mixed with synthetic ones.

        Args:
            spacing_mm: Voxel size of the cohort in mm, by ``preprocessing``.
        """
        return ({} if self.path == "synthetic" else {"spacing_mm": spacing_mm}) | dict(self.synthetic)


@dataclass(frozen=True)
class TrainingConfig:
    """A checked configuration.

    Attributes:
        network: Network to train.
        loss: Loss to minimise.
        data: Where the pairs come from.
        training: Settings of the training loop.
        stride: Stride of the network during training; 1 where the data are on the grid that the network works on; None
            for the network's own.
        task: Name of the task, see ``tasks.registry``.
        tasks: Which parts of the joint task are trained: ``both``, ``segmentation`` or ``registration``.
        registration_every: The registration takes part in every n-th step only; 1 where it is trained alone.
        initial_weights: File with weights to start from, or a name of ``network.shipped`` such as ``default``; None for
            none. Classes that they do not know start as copies of the necrotic core.
        note: Free text.
    """

    network: NetworkConfig
    loss: LossConfig
    data: DataConfig = field(default_factory=DataConfig)
    training: TrainingSettings = field(default_factory=TrainingSettings)
    stride: int | None = None
    task: str = "joint"
    tasks: str = "both"
    registration_every: int = 1
    initial_weights: str | None = None
    note: str = ""

    def __post_init__(self) -> None:
        find_task(self.task)
        if self.tasks not in TASKS:
            raise ValueError(f"tasks is {self.tasks!r} but must be one of {', '.join(TASKS)}")
        if self.stride is not None:
            _check_whole("stride", self.stride, 1)
        _check_whole("registration_every", self.registration_every, 1)
        for task, has_head in (
            ("segmentation", self.network.segmentation),
            ("registration", self.network.registration),
        ):
            if self.tasks == task and not has_head:
                raise ValueError(f"tasks is '{task}' but the network '{self.network.name}' has no head for it")
        if self.registration_every > 1 and self.registers and not self.segments:
            raise ValueError(
                f"registration_every is {self.registration_every}, but the registration alone is trained and nothing "
                "would be left for the other steps: set it to 1"
            )
        if self.segments:
            self._check_segmentation()
        if self.registers:
            self._check_registration()
        self._check_synthetic_modalities()
        if self.training.monitor == "dice" and not (self.segments and self.data.validation_pairs):
            raise ValueError("monitor 'dice' needs a segmentation that is trained, and validation_pairs")

    def _check_segmentation(self) -> None:
        """Check that the classes of the network are those of the labels, and the weights of the loss theirs."""
        classes, weights = self.network.classes, self.loss.class_weights
        if classes not in (len(CLASSES), len(LABELS)):
            raise ValueError(
                f"network: classes is {classes}, but a segmentation is trained with {len(CLASSES)} classes "
                f"({', '.join(CLASSES)}), or with {len(LABELS)}, where the last one is the resection cavity"
            )
        if not isinstance(weights, str) and weights and len(weights) != classes:
            raise ValueError(
                f"loss: class_weights has {len(weights)} numbers, but the network '{self.network.name}' has {classes} "
                "classes: give one for each, or leave it out"
            )

    def _check_registration(self) -> None:
        """Check that the deformation of the network has what the loss of the registration needs."""
        deformation = self.network.deformation
        if self.loss.symmetric and deformation != "velocity":
            raise ValueError(
                f"loss: symmetric needs a deformation with an inverse, the 'velocity', but that of the network "
                f"'{self.network.name}' is '{deformation}': set symmetric to false"
            )
        if self.loss.phi_weight and deformation != "cumulative":
            raise ValueError(
                f"loss: phi_weight is for the deformation 'cumulative', but that of the network "
                f"'{self.network.name}' is '{deformation}': set phi_weight to 0"
            )

    def _check_synthetic_modalities(self) -> None:
        """Check that the channels of synthetic patients can be told apart, see ``step.network_inputs``."""
        data, wanted = self.data, self.network.modalities
        names = data.synthetic.get("modalities", MODALITIES)
        if not (data.path == "synthetic" or data.synthetic_share) or not isinstance(names, list | tuple):
            return
        if tuple(names) == MODALITIES or (tuple(names) == wanted and len(wanted) < len(MODALITIES)):
            return
        if all(name in MODALITIES for name in names):
            raise ValueError(
                f"data: synthetic: modalities are {', '.join(names)} but those of the network '{self.network.name}' "
                f"are {', '.join(wanted)}: leave the key out, from which the network takes its own"
            )

    @property
    def segments(self) -> bool:
        """Whether the segmentation is trained."""
        return self.network.segmentation and self.tasks != "registration"

    @property
    def registers(self) -> bool:
        """Whether the registration is trained."""
        return self.network.registration and self.tasks != "segmentation"

    @property
    def training_stride(self) -> int:
        """Stride of the network during training."""
        return self.stride or self.network.stride

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, which ``config_files.config_from_dict`` reads again."""
        return {
            "network": self.network.to_dict(),
            "loss": self.loss.to_dict(),
            "data": _plain(asdict(self.data)),
            "training": _plain(asdict(self.training)),
            **{name: getattr(self, name) for name in OWN_KEYS},
        }

    def trajectory(self) -> dict[str, Any]:
        """Return everything that decides the weights, which a resumed training shares with the one it continues."""
        values = self.to_dict()
        for name in TrainingSettings.FREE_ON_RESUME:
            values["training"].pop(name)
        for name in ("note", "initial_weights"):
            values.pop(name)
        values["data"].pop("cache")
        return values


def _check_whole(name: str, value: object, least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ValueError(f"{name} is {value!r} but must be a whole number of at least {least}")


def _plain(value: Any) -> Any:
    """Tuples as lists, as JSON has them."""
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value
