"""CONFIG.json of a training: which network, from what data, with which loss, how long."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from NeuroCESTLib.core.checked_json import read_json

from ..losses.config import LossConfig
from ..network.configuration import NetworkConfig, load_network_config, network_config_names
from ..tasks.registry import find_task
from .settings import TrainingSettings

DATA_PATHS = ("memory", "cache", "on_the_fly", "synthetic")
TASKS = ("both", "segmentation", "registration")


@dataclass(frozen=True)
class DataConfig:
    """Where the pairs come from.

    path: 'memory' (all preprocessed studies), 'cache' (preprocessed on disk, memory-mapped), 'on_the_fly' (read and
    preprocessed each time by workers), or 'synthetic' (patients generated as they are needed; no manifest).
    length: synthetic pairs an epoch. seed: of the synthetic patients; validation takes the next one.
    validation_pairs: held out, fixed ones; with a manifest at most so many of its split 'val'.
    cache: folder of the cache, relative to the run unless absolute.
    synthetic, preprocessing, pairing, sampling, augmentation: settings of these, see their own documentation; an
    ``augmentation`` of null switches it off. In the preprocessing, histogram_landmarks may be 'learn': they are then
    those of the split 'train', whose studies are prepared once more for it.
    """

    path: str = "memory"
    length: int = 1000
    seed: int = 0
    validation_pairs: int = 8
    cache: str = "cache"
    synthetic: Mapping[str, Any] = field(default_factory=dict)
    preprocessing: Mapping[str, Any] = field(default_factory=dict)
    pairing: Any = None
    sampling: Mapping[str, Any] | None = None
    augmentation: Mapping[str, Any] | None = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.path not in DATA_PATHS:
            raise ValueError(f"path is {self.path!r} but must be one of {', '.join(DATA_PATHS)}")
        for name, least in (("length", 1), ("validation_pairs", 0), ("seed", 0)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise ValueError(f"{name} is {value!r} but must be a whole number of at least {least}")
        for name in ("synthetic", "preprocessing"):
            if not isinstance(getattr(self, name), Mapping):
                raise ValueError(f"{name} is an object with settings")


@dataclass(frozen=True)
class TrainingConfig:
    """A checked configuration.

    stride: of the network during training; 1 where the data lie on the grid that the network works on. task: name of
    the task, see ``tasks.registry``. tasks: which parts of the joint task are trained. registration_every: the
    registration takes part in every n-th step only. initial_weights: file to start from. note: free text.
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
        for name in ("stride", "registration_every"):
            value = getattr(self, name)
            if value is None and name == "stride":
                continue
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ValueError(f"{name} is {value!r} but must be a whole number of at least 1")
        for task, has in (("segmentation", self.network.segmentation), ("registration", self.network.registration)):
            if self.tasks == task and not has:
                raise ValueError(f"tasks is '{task}' but the network '{self.network.name}' has no head for it")
        if self.training.monitor == "dice" and not (self.segments and self.data.validation_pairs):
            raise ValueError("monitor 'dice' needs a segmentation that is trained, and validation_pairs")

    @property
    def segments(self) -> bool:
        """Whether the segmentation is trained."""
        return self.network.segmentation and self.tasks != "registration"

    @property
    def registers(self) -> bool:
        """Whether the registration is trained."""
        return self.network.registration and self.tasks != "segmentation"

    def to_dict(self) -> dict[str, Any]:
        """Plain values, which ``config_from_dict`` reads again."""
        values = {name: getattr(self, name) for name in _OWN}
        return {
            "network": self.network.to_dict(),
            "loss": self.loss.to_dict(),
            "data": _plain(asdict(self.data)),
            "training": _plain(asdict(self.training)),
            **values,
        }

    def trajectory(self) -> dict[str, Any]:
        """What a resumed training must have in common with the one it continues: all that decides the weights."""
        values = self.to_dict()
        for name in TrainingSettings.FREE_ON_RESUME:
            values["training"].pop(name)
        for name in ("note", "initial_weights"):
            values.pop(name)
        values["data"].pop("cache")
        return values


_OWN = ("stride", "task", "tasks", "registration_every", "initial_weights", "note")
_KEYS = ("network", "loss", "data", "training", *_OWN)


def read_config(path: str | Path) -> TrainingConfig:
    """Configuration of a JSON file; paths in it are relative to its folder. ValueError names the file and the key."""
    path = Path(path)
    values = read_json(path)
    return config_from_dict(values, str(path), path.parent)


def config_by_name(name_or_path: str | Path) -> TrainingConfig:
    """Configuration of a JSON file, or the defaults of a network that comes with the module."""
    if str(name_or_path) in network_config_names():
        return config_from_dict({"network": str(name_or_path)}, str(name_or_path))
    return read_config(name_or_path)


def config_from_dict(values: Any, source: str = "configuration", folder: Path | None = None) -> TrainingConfig:
    """Checked configuration from plain values; the ValueError names ``source`` and the key."""
    if not isinstance(values, Mapping):
        raise ValueError(f"{source}: a training configuration is an object with keys such as network and data")
    if unknown := sorted(set(values) - set(_KEYS)):
        raise ValueError(f"{source}: unknown keys {', '.join(unknown)}; use {', '.join(_KEYS)}")
    folder = folder or Path()
    try:
        network = _network(values.get("network", "neurocest"), folder)
        loss = LossConfig.from_dict({**network.loss.to_dict(), **_section(values, "loss")})
        data = from_mapping(DataConfig, _section(values, "data"), "data")
        training = from_mapping(TrainingSettings, {**network.training, **_section(values, "training")}, "training")
        _check_data(data)
        own = {name: values[name] for name in _OWN if name in values}
        config = TrainingConfig(network, loss, data, training, **own)
    except (TypeError, AttributeError, KeyError) as error:
        raise ValueError(f"{source}: a value has the wrong type ({error})") from None
    except ValueError as error:
        raise ValueError(str(error) if str(error).startswith(source) else f"{source}: {error}") from None
    if config.initial_weights is not None:
        config = replace(config, initial_weights=str(folder / str(config.initial_weights)))
    return config


def _check_data(data: DataConfig) -> None:
    """ValueError that names the section and the key where settings of the data cannot be used."""
    from ..augmentation.config import AugmentationConfig
    from ..cohort.pairing import Pairing, StudySampling
    from ..cohort.preparation import PreparationConfig
    from ..images.preprocessing import LEARN
    from ..synthesis.source import SyntheticConfig

    preparation = dict(data.preprocessing)
    known = list(PreparationConfig().to_dict())
    if unknown := sorted(set(preparation) - set(known)):
        raise ValueError(f"data: preprocessing: unknown keys {', '.join(unknown)}; use {', '.join(known)}")
    if preparation.get("histogram_landmarks") == LEARN:
        preparation.pop("histogram_landmarks")
        if preparation.get("normalisation") != "histogram" or data.path == "synthetic":
            raise ValueError(
                f"data: preprocessing: histogram_landmarks '{LEARN}' needs the normalisation 'histogram' and a cohort"
            )
    checks: dict[str, Callable[[], Any]] = {
        "preprocessing: ": lambda: PreparationConfig.from_dict(preparation),
        "synthetic: ": lambda: SyntheticConfig.from_dict(dict(data.synthetic)),
        "augmentation: ": lambda: AugmentationConfig.from_dict(data.augmentation or {}, "augmentation"),
        "pairing: ": lambda: Pairing.of(data.pairing),
        "sampling: ": lambda: StudySampling.of(data.sampling),
    }
    for section, check in checks.items():
        try:
            check()
        except ValueError as error:
            raise ValueError(f"data: {'' if str(error).startswith(section) else section}{error}") from None


def from_mapping(kind: type, values: Mapping[str, Any], where: str) -> Any:
    """A dataclass from plain values; the ValueError names ``where`` and the key."""
    known = [entry.name for entry in fields(kind)]
    if unknown := sorted(set(values) - set(known)):
        raise ValueError(f"{where}: unknown keys {', '.join(unknown)}; use {', '.join(known)}")
    try:
        return kind(**values)
    except (ValueError, TypeError) as error:
        raise ValueError(f"{where}: {error}") from None


def _section(values: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    section = values.get(name) or {}
    if not isinstance(section, Mapping):
        raise ValueError(f"{name} is an object, not {section!r}")
    return section


def _network(value: Any, folder: Path) -> NetworkConfig:
    if isinstance(value, Mapping):
        base = value.get("base")  # a named network with some values changed
        values = {} if base is None else _network(base, folder).to_dict()
        return NetworkConfig.from_dict({**values, **{k: v for k, v in value.items() if k != "base"}}, "network")
    beside = folder / str(value)
    return load_network_config(beside if str(value).endswith(".json") and beside.is_file() else str(value))


def _plain(value: Any) -> Any:
    """Tuples as lists, as JSON has them."""
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value
