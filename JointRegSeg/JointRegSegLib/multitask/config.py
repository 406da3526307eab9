"""Configuration of a training of tasks on single studies, read from JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from NeuroCESTLib.core.checked_json import check_keys, read_json, settings_from_json

from ..augmentation.config import AugmentationConfig
from ..cohort.preparation import PreparationConfig
from ..images.preprocessing.config import LEARN
from ..network.configuration import NetworkConfig, load_network_config
from ..network.shipped import default_weights_path
from ..tasks.registry import study_task_from_dict
from ..tasks.study_task import StudyTask
from ..training.settings import TrainingSettings
from .network import key_of
from .shipped import SHIPPED, weights_file

RECIPES = Path(__file__).resolve().parents[1] / "configurations" / "recipes"
"""Folder of the configurations that come with the module."""
KEYS = ("network", "tasks", "data", "training", "initialise", "note")
DATA_PATHS = ("memory", "cache", "on_the_fly")
_TRAINING = {"optimiser": "adamw", "learning_rate": 1e-3, "schedule": "cosine", "batch_size": 4, "patience": 0}
"""Settings of the training that differ from those of the joint task."""
_NO_REGISTRATION = {"registration": False, "registration_level": 0, "stride": 1}
_ANYWHERE = {"anywhere": 1.0}
_AUGMENTATION: dict[str, Any] = {"shared": {"flip": [0.0, 0.0, 0.5]}, "dropout_probability": 0.0}
"""Default augmentation: mirroring and intensities. Scaling would change what sizes and volumes tell."""
_IMAGE_AUGMENTATION: dict[str, Any] = _AUGMENTATION | {
    f"{name}_probability": 0.0 for name in ("anisotropy", "blur", "noise", "bias")
}
"""Default where every target is an image, which blur and noise would spoil."""


@dataclass(frozen=True)
class StudyData:
    """Where the studies come from.

    Attributes:
        path: ``memory``, ``cache`` or ``on_the_fly``, as for the joint task.
        cache: Folder of the cache, relative to the output folder unless absolute.
        validation_studies: Most studies of the split ``val`` that validate the training.
        preprocessing: Settings of ``cohort.preparation.PreparationConfig``.
        augmentation: Settings of ``augmentation.config.AugmentationConfig``, of which ``shared`` is the geometry; None
            (null) for none.
    """

    path: str = "memory"
    cache: str = "cache"
    validation_studies: int = 64
    preprocessing: Mapping[str, Any] = field(default_factory=dict)
    augmentation: Mapping[str, Any] | None = field(default_factory=lambda: dict(_AUGMENTATION))

    def __post_init__(self) -> None:
        if self.path not in DATA_PATHS:
            raise ValueError(f"path is {self.path!r} but must be one of {', '.join(DATA_PATHS)}")
        count = self.validation_studies
        if isinstance(count, bool) or not isinstance(count, int) or count < 0:
            raise ValueError(f"validation_studies is {count!r} but must be a whole number of at least 0")

    def preparation(self) -> PreparationConfig:
        """Return the settings of the preparation."""
        return PreparationConfig.from_dict(self.preprocessing, "data: preprocessing")

    def augment(self) -> AugmentationConfig | None:
        """Return the settings of the augmentation, with patches from anywhere in the brain."""
        if self.augmentation is None:
            return None
        return AugmentationConfig.from_dict({**self.augmentation, "patch_proportions": _ANYWHERE})


@dataclass(frozen=True)
class MultiTaskConfig:
    """A checked configuration.

    Attributes:
        network: Encoder, and the design of decoders; it works on the grid of the preprocessing.
        tasks: Tasks over the encoder.
        data: Where the studies come from.
        training: Settings of the training loop; ``encoder_rate`` is of use with ``initialise``.
        initial_weights: Weights file whose weights the network starts with where they fit; empty for none. In a
            configuration the key is ``initialise``.
        note: Free text.
    """

    network: NetworkConfig
    tasks: tuple[StudyTask, ...]
    data: StudyData = field(default_factory=StudyData)
    training: TrainingSettings = field(default_factory=TrainingSettings)
    initial_weights: str = ""
    note: str = ""

    def __post_init__(self) -> None:
        names = [task.name for task in self.tasks]
        if twice := [name for name in names if names.count(name) > 1]:
            raise ValueError(f"two tasks have the name '{twice[0]}': give each column one task")
        for number, task in enumerate(self.tasks):
            for other in self.tasks[:number]:
                if key_of(task) == key_of(other):
                    raise ValueError(
                        f"the tasks '{other.name}' and '{task.name}' have the same name '{key_of(task)}' among the "
                        "weights: rename one of these columns"
                    )
        if not names:
            raise ValueError("tasks is empty: name at least one task")
        if self.training.monitor != "loss":
            raise ValueError("monitor is 'dice', which belongs to the joint task; use 'loss'")
        pooling = [task.name for task in self.tasks if task.pools_codes]
        if pooling and self.training.ema_decay:
            raise ValueError(
                f"ema_decay averages weights, but the task '{pooling[0]}' standardises pooled codes by moments of the "
                "weights before the average: set ema_decay to 0"
            )
        self._check_grid()
        if self.training.accumulation > 1 and self.network.normalisation == "batch":
            raise ValueError("accumulation divides the batches whose statistics the network uses; set it to 1")

    def _check_grid(self) -> None:
        """Check that network and tasks can work on the grid of the studies, or on the patches of them."""
        augmentation, multiple = self.data.augment(), self.network.multiple
        grid = self.data.preparation().shape if augmentation is None or not augmentation.patch else augmentation.patch
        if min(grid) < multiple:
            raise ValueError(
                f"the grid of {' x '.join(map(str, grid[::-1]))} voxels is smaller than the network "
                f"'{self.network.name}' with its {self.network.levels} levels needs ({multiple} along each axis): use "
                "a smaller spacing_mm, a larger extent_mm or patch, or fewer levels"
            )
        d, h, w = (-(-n // multiple) * multiple for n in grid)
        for task in self.tasks:
            if problem := task.grid_problem((d, h, w), self.network):
                raise ValueError(problem)

    @property
    def targets(self) -> dict[str, str]:
        """Columns of the manifest that the tasks need, and their kinds."""
        return {column: kind for task in self.tasks for column, kind in task.columns.items()}

    def with_tasks(self, tasks: tuple[StudyTask, ...]) -> MultiTaskConfig:
        """Return the configuration with other tasks."""
        return replace(self, tasks=tasks)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return {
            "network": self.network.to_dict(),
            "tasks": [task.to_dict() for task in self.tasks],
            "data": _plain(asdict(self.data)),
            "training": _plain(asdict(self.training)),
            "initialise": self.initial_weights,
            "note": self.note,
        }

    def trajectory(self) -> dict[str, Any]:
        """Return everything that decides the weights, which a resumed training shares with the one it continues."""
        values = self.to_dict() | {"task": "single studies"}
        for name in TrainingSettings.FREE_ON_RESUME:
            values["training"].pop(name)
        values.pop("note")
        values["data"].pop("cache")
        return values


def recipe_names() -> list[str]:
    """Return the names of the configurations that come with the module."""
    return sorted(path.stem for path in RECIPES.glob("*.json"))


def is_multitask(name_or_path: str | Path) -> bool:
    """Whether a configuration is one for tasks on single studies: its ``tasks`` is a list."""
    if str(name_or_path) in recipe_names():
        return True
    path = Path(name_or_path)
    if not path.is_file():
        return False
    values = read_json(path)
    return isinstance(values, Mapping) and isinstance(values.get("tasks"), list)


def read_multitask(name_or_path: str | Path) -> MultiTaskConfig:
    """Read a configuration from a JSON file, or one that comes with the module by its name.

    Raises:
        ValueError: The file or a value in it cannot be used; the message names the file and the key.
    """
    recipe = str(name_or_path) in recipe_names()
    path = RECIPES / f"{name_or_path}.json" if recipe else Path(name_or_path)
    return multitask_from_dict(read_json(path), str(path), path.parent)


def multitask_from_dict(values: Any, source: str = "configuration", folder: Path | None = None) -> MultiTaskConfig:
    """Build a configuration from plain values.

    Args:
        values: Object as read from JSON.
        source: File; it opens every message.
        folder: Folder that paths are relative to; None for the present one.

    Raises:
        ValueError: A key is unknown or a value cannot be used; the message names ``source``, section and key.
    """
    values = check_keys(values, KEYS, source)
    tasks = values.get("tasks")
    if not isinstance(tasks, list):
        raise ValueError(f'{source}: tasks must be a list of tasks, such as [{{"task": "tissue"}}]')
    network = study_network(values.get("network", "neurocest"), source, folder or Path())
    where = f"{source}: data"
    data = settings_from_json(StudyData, values.get("data") or {}, where)
    found = [study_task_from_dict(task, f"{source}: tasks[{i}]") for i, task in enumerate(tasks)]
    if "augmentation" not in (values.get("data") or {}) and all(task.from_image for task in found):
        data = replace(data, augmentation=dict(_IMAGE_AUGMENTATION))
    training = settings_from_json(
        TrainingSettings, {**_TRAINING, **(values.get("training") or {})}, f"{source}: training"
    )
    _check_data(data, where)
    start = values.get("initialise") or ""
    if not isinstance(start, str):
        raise ValueError(f"{source}: initialise is {start!r} but must be the path of a weights file")
    if start:
        start = str(_start_file(start, folder or Path()))
    try:
        return MultiTaskConfig(
            network,
            tuple(found),
            data,
            training,
            start,
            str(values.get("note", "")),
        )
    except ValueError as error:
        if str(error).startswith(source):
            raise
        raise ValueError(f"{source}: {error}") from None


def study_network(value: Any, source: str, folder: Path = Path()) -> NetworkConfig:
    """Build the configuration of a network for single studies, by name, file or values (which may change a ``base``).

    Raises:
        ValueError: The network or one of its keys cannot be used; the message names it.
    """
    if isinstance(value, Mapping):
        base = {} if value.get("base") is None else study_network(value["base"], source, folder).to_dict()
        changes = {key: item for key, item in value.items() if key != "base"}
        values = {**_NO_REGISTRATION, **base, **changes}
        if "auxiliary" not in changes and isinstance(channels := values.get("channels"), list) and channels:
            values["auxiliary"] = min(values.get("auxiliary", 2), max(len(channels) - 2, 0))
        found = NetworkConfig.from_dict(values, f"{source}: network")
    else:
        file = folder / str(value)
        try:
            found = load_network_config(file if str(value).endswith(".json") and file.is_file() else str(value))
        except ValueError as error:
            raise ValueError(f"{source}: network: {error}") from None
    return replace(found, segmentation=True, registration=False, stride=1)


def _check_data(data: StudyData, where: str) -> None:
    """Check the settings of the data's parts, which are built when the data are opened."""
    if isinstance(data.preprocessing, Mapping) and data.preprocessing.get("histogram_landmarks") == LEARN:
        raise ValueError(f"{where}: histogram_landmarks 'learn' belongs to the joint task; give the landmarks")
    PreparationConfig.from_dict(data.preprocessing, f"{where}: preprocessing")
    if data.augmentation is not None:
        if "patch_proportions" in data.augmentation:
            raise ValueError(f"{where}: augmentation: patch_proportions belongs to the joint task; leave it out")
        AugmentationConfig.from_dict(data.augmentation, f"{where}: augmentation")


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value


def _start_file(given: str, folder: Path) -> Path:
    """Return the file of initial weights that are given by a name of the package or by a path."""
    if given == default_weights_path().stem:
        return default_weights_path()
    return weights_file(given) if given in SHIPPED else folder / given
