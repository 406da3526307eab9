"""CONFIG.json of data sets and trainings: what to simulate, what to learn, for how long.

``cestquant optimize-schedule`` reads the same files; what only it uses is read in :mod:`schedules.config`.
"""

from __future__ import annotations

import contextlib
import functools
import math
import os
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from NeuroCESTLib.core.checked_json import check_keys, number, read_json, whole_number
from NeuroCESTLib.core.progress import Progress, silent

from ..formats.presets import FOLDER
from ..formats.protocol_files import read_protocol
from ..formats.protocol_json import protocol_from_dict
from ..physics.engines import engine_named
from ..physics.protocol import Protocol
from ..physics.r1rho.regime import regime_warnings
from ..preprocessing.normalization import spectrum_protocol
from ..preprocessing.reference import m0_measurements, with_m0_named
from ..tissue.distributions import TissueDistribution
from ..tissue.engine_error import EXACT_ENGINE, simulation_error
from .architecture import NetworkOptions, ReconstructionNetwork, network_options
from .dataset import NOISE_SD, DataSet, signals_of, simulate_dataset
from .settings import TrainingSettings, output_weights
from .targets import new_network, outputs_of, require_targets

NOISE_INJECTION_SD = 0.002
"""Default standard deviation of the noise that a training adds to samples without noise."""
SAMPLES = 100_000
"""Default number of samples."""
FALSE_ALARM_RATE = 0.05
"""Default share of the voxels that the tissue model explains and that the reliability map may reject nevertheless."""
CONFIG_KEYS = (
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
    "patience",
    "false_alarm_rate",
    "dataset",
    "noise_injection_sd",
    "trainable",
    "limits",
    "objective",
    "target_weights",
    "schedule_learning_rate",
    "head_start",
    "crlb",
    "held_out",
)
"""Keys of a CONFIG.json. Every command accepts all of them, so that one file serves all commands."""
M0_AT_EQUILIBRIUM = 0.98
"""Share of the equilibrium signal from which an M0 measurement serves as one without a warning."""
_M0_SAMPLES = 20
_COMPARED_SAMPLES = 20
_PRESETS = ("larginine", "autocest")
"""Beginnings of the names of bundled configurations; other bundled files are protocols and pool descriptions."""


@dataclass(frozen=True)
class TrainingConfig:
    """A checked configuration of a data set or a training.

    Attributes:
        protocol: Protocol of the spectra that are simulated and learned; it has no M0 measurements that signals are
            divided by.
        tissue: Distribution of the tissues, as in the file.
        targets: Paths of the wanted parameters, such as ``amine.k_Hz``.
        noise_sd: Lowest and highest standard deviation of the white noise, relative to the equilibrium signal and
            before any L2 normalisation; a training draws new noise for every batch.
        samples: Number of spectra to simulate.
        engine: ``r1rho`` or ``bloch-mcconnell``.
        network: Options of the network.
        settings: How to train.
        false_alarm_rate: Share of the voxels that the tissue model does explain and that the reliability map may reject
            nevertheless.
        dataset: Folder of a data set on disk to train on; None simulates ``samples`` new spectra.
        noise_injection_sd: Standard deviation of white noise that the training adds to that of the samples; by default
            ``NOISE_INJECTION_SD`` where the samples have none, and otherwise 0.
        acquisition: Protocol of a whole scan, with the M0 measurements; None where it is the same.
    """

    protocol: Protocol
    tissue: dict[str, Any]
    targets: tuple[str, ...]
    noise_sd: tuple[float, float] = NOISE_SD
    samples: int = SAMPLES
    engine: str = "r1rho"
    network: NetworkOptions = field(default_factory=NetworkOptions)
    settings: TrainingSettings = field(default_factory=TrainingSettings)
    false_alarm_rate: float = FALSE_ALARM_RATE
    dataset: Path | None = None
    noise_injection_sd: float = 0.0
    acquisition: Protocol | None = None

    @property
    def training_noise_sd(self) -> tuple[float, float]:
        """Lowest and highest standard deviation of all noise that the network learns to expect."""
        low, high = self.noise_sd
        return math.hypot(low, self.noise_injection_sd), math.hypot(high, self.noise_injection_sd)

    @functools.cached_property
    def distribution(self) -> TissueDistribution:
        """Distribution of the tissues."""
        return TissueDistribution.from_dict(self.tissue, "tissue")

    @property
    def outputs(self) -> tuple[str, ...]:
        """Paths of the network's outputs: the targets, then all other varied entries, for the reliability map."""
        return outputs_of(self.targets, self.distribution)

    def weighted_settings(self) -> TrainingSettings:
        """Return the settings of a training in which outputs that are no targets count less."""
        return replace(self.settings, weights=output_weights(self.outputs, self.targets))

    def simulate(self, samples: int | None = None, threads: int | None = None, progress: Progress = silent) -> DataSet:
        """Simulate spectra.

        Args:
            samples: Number of spectra; by default that of the configuration.
            threads: Threads that share the simulation; by default as many as torch uses.
            progress: Called after every block; may raise to cancel.

        Raises:
            ValueError: A tissue is impossible under the protocol.
        """
        return simulate_dataset(
            self.distribution,
            self.protocol,
            self.samples if samples is None else samples,
            noise_sd=self.noise_sd,
            seed=self.settings.seed,
            engine=self.engine,
            threads=threads,
            progress=progress,
        )

    def new_network(self) -> ReconstructionNetwork:
        """Return an untrained network for this configuration."""
        return new_network(
            self.protocol.measurement_count, self.outputs, self.distribution, self.network, self.settings.seed
        )


def config_names() -> list[str]:
    """Return the names of the bundled configurations."""
    return sorted(path.stem for path in FOLDER.glob("*.json") if path.stem.startswith(_PRESETS))


def config_file(path: str | Path) -> Path:
    """Return the file of a configuration.

    Args:
        path: A file, or the name of a bundled configuration.

    Raises:
        ValueError: There is no such file.
    """
    if str(path) in config_names():
        return FOLDER / f"{path}.json"
    if not Path(path).exists():
        raise ValueError(f"{path}: no such file; give a CONFIG.json or one of {', '.join(config_names())}")
    return Path(path)


def read_config(path: str | Path) -> TrainingConfig:
    """Read the configuration of a data set or a training.

    Args:
        path: A file, or the name of a bundled configuration.

    Raises:
        ValueError: The file cannot be used; the message names it and the key.
    """
    path = config_file(path)
    return config_from_dict(read_json(path), str(path), path.parent)


def files_of_config(path: str | Path) -> list[Path]:
    """Return the files that a configuration takes its protocol from.

    Args:
        path: A file, or the name of a bundled configuration.

    Raises:
        ValueError: The file cannot be read.
    """
    path = config_file(path)
    values = read_json(path)
    protocol = values.get("protocol") if isinstance(values, dict) else None
    file = None if protocol is None else protocol_file(protocol, path.parent)
    # The reader of the configuration names what no file can be called.
    return [] if file is None or not os.path.isfile(file) else [file]


def config_from_dict(values: Any, source: str = "config", folder: Path | None = None) -> TrainingConfig:
    """Check the values of a CONFIG.json for a data set or a training.

    Args:
        values: Object as read from JSON, see ``CONFIG_KEYS``; ``protocol`` and ``tissue`` are required.
        source: Name that opens every message.
        folder: Folder that paths in the configuration are relative to; by default the current one.

    Raises:
        ValueError: A key is unknown, is missing or has an unusable value; the message names it.
    """
    folder = folder or Path()
    values = check_config_keys(values, source, ("protocol", "tissue"))
    with errors_naming(source):
        acquisition = config_protocol(values["protocol"], source, folder)
        protocol = spectrum_protocol(acquisition)
        if not bool((protocol.saturation_time_s > 0).any()):
            raise ValueError("the protocol has no saturation; give b1_uT and saturation_time_s")
        distribution = TissueDistribution.from_dict(values["tissue"], f"{source}: tissue")
        for warning in m0_warnings(acquisition, distribution, values.get("engine", "r1rho")):
            warnings.warn(f"{source}: {warning}", stacklevel=2)
        for warning in engine_warnings(protocol, distribution, values.get("engine", "r1rho")):
            warnings.warn(f"{source}: {warning}", stacklevel=2)
        targets = names(values.get("targets") or distribution.varied)
        require_targets(targets, distribution)
        noise_sd = noise_limits(values.get("noise_sd", NOISE_SD))
        dataset, engine = values.get("dataset"), values.get("engine", "r1rho")
        engine_named(engine)
        return TrainingConfig(
            protocol=protocol,
            tissue=values["tissue"],
            targets=targets,
            noise_sd=noise_sd,
            samples=whole_number(values.get("samples", SAMPLES), "samples", 1),
            engine=engine,
            network=network_options(values.get("network") or {}),
            settings=TrainingSettings.from_config(values),
            false_alarm_rate=false_alarm_rate(values.get("false_alarm_rate", FALSE_ALARM_RATE)),
            dataset=folder / dataset if dataset else None,
            noise_injection_sd=_noise_injection(values.get("noise_injection_sd"), noise_sd),
            acquisition=acquisition,
        )


def check_config_keys(values: Any, source: str, required: Sequence[str]) -> dict[str, Any]:
    """Check that a configuration has only known keys and all the required ones.

    Raises:
        ValueError: A key is unknown or missing; the message names ``source`` and the key.
    """
    values = check_keys(values, CONFIG_KEYS, source, also=("note",))
    for key in required:
        if key not in values:
            raise ValueError(f"{source}: the key '{key}' is missing")
    return values


@contextlib.contextmanager
def errors_naming(source: str) -> Iterator[None]:
    """Turn errors about the values of a configuration into ValueError with a message that ``source`` opens."""
    try:
        yield
    except (TypeError, AttributeError, KeyError):
        raise ValueError(
            f"{source}: a value has the wrong type (such as a text, a list or null in place of a number)"
        ) from None
    except ValueError as error:
        raise ValueError(str(error) if str(error).startswith(source) else f"{source}: {error}") from None


def config_protocol(value: Any, source: str, folder: Path) -> Protocol:
    """Read the protocol of a configuration.

    It names its M0 measurements. Where the configuration does not, those without RF are named, with a warning. What
    there is to warn of about M0 measurements in a scan is told too.

    Args:
        value: The protocol itself, the name of a sampling strategy (``strategy 1``), or a file relative to ``folder``.
        source: Name of the configuration.
        folder: Folder of the configuration.

    Raises:
        ValueError: The protocol cannot be used, or does not say everything that the saturation is simulated from.
    """
    file = protocol_file(value, folder)
    read = protocol_from_dict(value, f"{source}: protocol") if file is None else read_protocol(file)
    read.require_known("a simulation")
    protocol = with_m0_named(read)
    if protocol.m0_measurements != read.m0_measurements:
        noun, verb = ("measurement", "is") if len(protocol.m0_measurements) == 1 else ("measurements", "are")
        listed = " and ".join(str(number) for number in protocol.m0_measurements)
        warnings.warn(
            f"{source}: the protocol names no m0_measurements, and {noun} {listed}, far off resonance and without RF, "
            f"{verb} taken for M0, as in a scan without an M0 image: name the M0 measurements",
            stacklevel=3,
        )
    if protocol.signal_normalisation == "m0" and protocol.m0_measurements:
        for warning in m0_measurements(read).warnings:
            warnings.warn(f"{source}: {warning}", stacklevel=3)
    return protocol


def m0_warnings(acquisition: Protocol, distribution: TissueDistribution, engine: str) -> list[str]:
    """Return a sentence for the user where M0 measurements are simulated far below the equilibrium, otherwise nothing.

    Signals are divided by them, while spectra are simulated relative to the equilibrium.

    Args:
        acquisition: Protocol of a whole scan that names its M0 measurements.
        distribution: Distribution of the tissues.
        engine: ``r1rho`` or ``bloch-mcconnell``.
    """
    m0 = [number - 1 for number in acquisition.m0_measurements]
    if acquisition.signal_normalisation != "m0" or not m0:
        return []
    # Without carried-over magnetisation, a measurement does not depend on those before it.
    played = list(range(max(m0) + 1)) if acquisition.magnetisation_carried_over else m0
    scan = acquisition.select(torch.tensor(played))
    reached = simulate_dataset(distribution, scan, _M0_SAMPLES, engine=engine).clean.mean(0)
    low = {index + 1: float(reached[played.index(index)]) for index in m0}
    low = {number: share for number, share in low.items() if share < M0_AT_EQUILIBRIUM}
    if not low:
        return []
    which = f"M0 measurement {next(iter(low))} reaches" if len(low) == 1 else f"{len(low)} M0 measurements reach"
    return [
        f"{which} only {min(low.values()):.2g} of the equilibrium in these tissues, relative to which the spectra are "
        "simulated, while those of a scan are divided by M0: let the measurement before M0 recover for longer, place "
        "M0 farther off resonance, or give an M0 image for the scan and leave these measurements out of the protocol"
    ]


def engine_warnings(protocol: Protocol, distribution: TissueDistribution, engine: str) -> tuple[str, ...]:
    """Return sentences for the user where an engine is off in these tissues, and why; otherwise nothing.

    Args:
        protocol: Protocol of the spectra.
        distribution: Distribution of the tissues, of which some are simulated with the Bloch-McConnell equations too.
        engine: ``r1rho`` or ``bloch-mcconnell``.
    """
    if engine == EXACT_ENGINE:
        return ()
    drawn = distribution.sample(_COMPARED_SAMPLES, torch.Generator().manual_seed(0))
    signal, exact = (signals_of(distribution, drawn, protocol, engine=name) for name in (engine, EXACT_ENGINE))
    error = simulation_error(signal, exact, protocol, engine)
    if error is None:
        return ()
    reasons = regime_warnings(protocol, distribution.entries["water.T2_s"].range[1]) if engine == "r1rho" else ()
    return (*reasons, f'among {_COMPARED_SAMPLES} drawn tissues {error}: set "engine" to "{EXACT_ENGINE}"')


def protocol_file(value: Any, folder: Path) -> Path | None:
    """Return the file that the protocol of a configuration is read from; None where it is inline.

    Args:
        value: Value of the key ``protocol``, see :func:`config_protocol`.
        folder: Folder of the configuration.
    """
    if isinstance(value, dict):
        return None
    preset = FOLDER / f"{str(value).replace(' ', '_')}.json"
    if str(value).startswith("strategy ") and preset.exists():
        return preset
    return folder / str(value)


def names(value: Any) -> tuple[str, ...]:
    """Return one or several names as a tuple of texts."""
    return (value,) if isinstance(value, str) else tuple(str(name) for name in value)


def noise_limits(value: Any) -> tuple[float, float]:
    """Return the lowest and the highest standard deviation of the noise, from a number or a pair of numbers.

    Raises:
        ValueError: The numbers do not lie between 0 and 1, the lower first.
    """
    low, high = value if isinstance(value, list | tuple) and len(value) == 2 else (value, value)
    low, high = number(low, "noise_sd"), number(high, "noise_sd")
    if not 0 <= low <= high < 1:
        raise ValueError(f"noise_sd is [{low:g}, {high:g}]; give a number or [low, high] between 0 and 1")
    return low, high


def false_alarm_rate(value: Any) -> float:
    """Return the share of explained voxels that the reliability map may reject.

    Raises:
        ValueError: It does not lie between 0 and 1.
    """
    rate = number(value, "false_alarm_rate")
    if not 0 < rate < 1:
        raise ValueError(f"false_alarm_rate is {rate:g} but must lie between 0 and 1")
    return rate


def _noise_injection(value: Any, noise_sd: tuple[float, float]) -> float:
    if value is None:
        return 0.0 if noise_sd[1] else NOISE_INJECTION_SD
    injected = number(value, "noise_injection_sd")
    if not 0 <= injected < 1:
        raise ValueError(f"noise_injection_sd is {injected:g} but must lie between 0 and 1")
    return injected
