"""CONFIG.json of data sets and trainings: what to simulate, what to learn, how long."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from NeuroCESTLib.core.checked_json import read_json

from ..formats.presets import FOLDER
from ..formats.protocol_files import read_protocol
from ..formats.protocol_json import protocol_from_dict
from ..physics.protocol import Protocol
from ..physics.simulation import ENGINES
from ..tissue.distributions import TissueDistribution
from .architecture import DEPTHS, ReconstructionNetwork
from .training import TrainingSettings

NOISE_SD = (0.002, 0.006)
NOISE_INJECTION_SD = 0.002
_SCHEDULE_KEYS = {"trainable", "limits", "objective", "target_weights", "head_start", "crlb", "held_out"}
"""Of configurations that serve ``cestquant optimize-schedule`` too."""
_KNOWN = {
    "protocol",
    "tissue",
    "targets",
    "noise_sd",
    "samples",
    "epochs",
    "seed",
    "network",
    "engine",
    "batch_size",
    "learning_rate",
    "schedule_learning_rate",
    "patience",
    "false_alarm_rate",
    "dataset",
    "noise_injection_sd",
    "note",
}
_NETWORK_KEYS = {"width", "depth", "dropout", "activation"}


@dataclass(frozen=True)
class TrainingConfig:
    """A checked configuration.

    noise_sd: lowest and highest standard deviation of the white noise, relative to the equilibrium signal (before an
    L2 normalisation); training draws it anew for every batch. network: width, depth, dropout, activation.
    false_alarm_rate: share of modelled voxels that the reliability map may reject. dataset: folder of a data set on
    disk to train on instead of ``samples`` new spectra. noise_injection_sd: of white noise that the training adds to
    that of the data; by default NOISE_INJECTION_SD where the data have none, and otherwise 0.
    """

    protocol: Protocol
    tissue: dict
    targets: tuple[str, ...]
    noise_sd: tuple[float, float] = NOISE_SD
    samples: int = 100_000
    engine: str = "r1rho"
    network: dict[str, Any] = field(default_factory=dict)
    settings: TrainingSettings = field(default_factory=TrainingSettings)
    false_alarm_rate: float = 0.05
    dataset: Path | None = None
    noise_injection_sd: float = 0.0

    @property
    def training_noise_sd(self) -> tuple[float, float]:
        """Lowest and highest standard deviation of all noise that the network learns to expect."""
        return tuple(math.hypot(sd, self.noise_injection_sd) for sd in self.noise_sd)

    @property
    def distribution(self) -> TissueDistribution:
        return TissueDistribution.from_dict(self.tissue, "tissue")

    @property
    def outputs(self) -> tuple[str, ...]:
        """What the network predicts: the targets, then every other entry that varies (for the reliability map)."""
        return (*self.targets, *(path for path in self.distribution.varied if path not in self.targets))

    def weighted_settings(self, nuisance_weight: float) -> TrainingSettings:
        """Settings whose loss weighs the outputs that are no targets less."""
        others = len(self.outputs) - len(self.targets)
        return replace(self.settings, weights=(1.0,) * len(self.targets) + (nuisance_weight,) * others)

    def new_network(self) -> ReconstructionNetwork:
        """An untrained network with the ranges of the outputs; weights from the seed."""
        import torch

        distribution, outputs = self.distribution, self.outputs
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.settings.seed)
            network = ReconstructionNetwork(self.protocol.measurement_count, len(outputs), **self.network)
        ranges = distribution.ranges()
        logarithmic = [path for path in outputs if distribution.is_logarithmic(path)]
        network.set_targets({path: ranges[path] for path in outputs}, logarithmic)
        return network


def config_names() -> list[str]:
    """Names of the configurations that come with the module."""
    return sorted(p.stem for p in FOLDER.glob("*.json") if p.stem.startswith(("larginine", "autocest")))


def config_file(path: str | Path) -> Path:
    """The file of a configuration that is given by its path, or by the name of one that comes with the module.

    Raises ValueError where there is no such file.
    """
    if str(path) in config_names():
        return FOLDER / f"{path}.json"
    if not Path(path).exists():
        raise ValueError(f"{path}: no such file; give a CONFIG.json or one of {', '.join(config_names())}")
    return Path(path)


def read_config(path: str | Path) -> TrainingConfig:
    """Configuration from a JSON file, or by the name of one that comes with the module."""
    path = config_file(path)
    return config_from_dict(read_json(path), str(path), path.parent)


def config_from_dict(values: dict, source: str = "config", folder: Path | None = None) -> TrainingConfig:
    """Checked configuration; paths in it are relative to ``folder``. ValueError names ``source`` and the key."""
    if not isinstance(values, dict):
        raise ValueError(f"{source}: a configuration is an object with the keys protocol, tissue and targets")
    unknown = sorted(set(values) - _KNOWN - _SCHEDULE_KEYS)
    if unknown:
        warnings.warn(f"{source}: unknown keys are ignored: {', '.join(unknown)}", stacklevel=2)
    for key in ("protocol", "tissue"):
        if key not in values:
            raise ValueError(f"{source}: the key '{key}' is missing")
    try:
        return _checked(values, source, folder or Path())
    except (TypeError, AttributeError, KeyError) as error:
        raise ValueError(f"{source}: a value has the wrong type ({error})") from None
    except ValueError as error:
        raise ValueError(str(error) if str(error).startswith(source) else f"{source}: {error}") from None


def _checked(values: dict, source: str, folder: Path) -> TrainingConfig:
    protocol = config_protocol(values["protocol"], source, folder)
    if not bool((protocol.saturation_time_s > 0).any()):
        raise ValueError("the protocol has no saturation; give b1_uT and saturation_time_s")
    distribution = TissueDistribution.from_dict(values["tissue"], f"{source}: tissue")
    targets = tuple(values.get("targets") or distribution.varied)
    for target in targets:
        if target not in distribution.entries:
            raise ValueError(f"the target '{target}' is no entry of the tissue; use {', '.join(distribution.varied)}")
        if not distribution.entries[target].varies:
            raise ValueError(f"the target '{target}' is a fixed number, so there is nothing to learn; give it a range")
    if not targets or len(set(targets)) != len(targets):
        raise ValueError("the targets must name different entries of the tissue that vary")
    engine = values.get("engine", "r1rho")
    if engine not in ENGINES:
        raise ValueError(f"engine '{engine}' is unknown; use one of {', '.join(ENGINES)}")
    rate = float(values.get("false_alarm_rate", 0.05))
    if not 0 < rate < 1:
        raise ValueError(f"false_alarm_rate is {rate:g} but must lie between 0 and 1")
    defaults = TrainingSettings()
    settings = TrainingSettings(
        epochs=_count(values, "epochs", 100),
        batch_size=_count(values, "batch_size", 256),
        learning_rate=float(values.get("learning_rate", defaults.learning_rate)),
        schedule_rate=float(values.get("schedule_learning_rate", defaults.schedule_rate)),
        patience=int(values.get("patience", defaults.patience)),
        seed=int(values.get("seed", 0)),
    )
    noise = _noise(values.get("noise_sd", NOISE_SD))
    injection = float(values.get("noise_injection_sd", 0.0 if noise[1] else NOISE_INJECTION_SD))
    if not 0 <= injection < 1:
        raise ValueError(f"noise_injection_sd is {injection:g} but must lie between 0 and 1")
    return TrainingConfig(
        protocol,
        values["tissue"],
        targets,
        noise,
        _count(values, "samples", 100_000),
        engine,
        _network(values.get("network") or {}),
        settings,
        rate,
        folder / values["dataset"] if values.get("dataset") else None,
        injection,
    )


def config_protocol(value: dict | str, source: str, folder: Path) -> Protocol:
    """A configuration's protocol: inline, a sampling strategy by name ('strategy 1'), or a file in ``folder``."""
    if isinstance(value, dict):
        return protocol_from_dict(value, f"{source}: protocol")
    preset = FOLDER / f"{str(value).replace(' ', '_')}.json"
    if str(value).startswith("strategy ") and preset.exists():
        return read_protocol(preset)
    return read_protocol(folder / str(value))


def _noise(value: float | list) -> tuple[float, float]:
    low, high = (value, value) if isinstance(value, int | float) else (float(v) for v in value)
    if not 0 <= low <= high < 1:
        raise ValueError(f"noise_sd is [{low:g}, {high:g}]; give a number or [low, high] between 0 and 1")
    return float(low), float(high)


def _count(values: dict, key: str, default: int) -> int:
    number = values.get(key, default)
    if isinstance(number, bool) or not isinstance(number, int) or number < 1:
        raise ValueError(f"{key} is {number!r} but must be a whole number of at least 1")
    return number


def _network(values: dict) -> dict:
    unknown = sorted(set(values) - _NETWORK_KEYS)
    if unknown:
        raise ValueError(f"network: unknown keys {', '.join(unknown)}; use {', '.join(sorted(_NETWORK_KEYS))}")
    if values.get("depth", 2) not in DEPTHS:
        raise ValueError(f"network: depth is {values['depth']} but must be {DEPTHS[0]} to {DEPTHS[-1]}")
    ReconstructionNetwork(1, 1, **values)  # checks the rest
    return dict(values)
