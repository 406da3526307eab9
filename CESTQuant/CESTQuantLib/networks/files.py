"""Network files: weights with the protocol they were trained for. Loading one executes no code from it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from NeuroCESTLib.core.tensor_files import load_tensors, save_tensors

from ..formats.protocol_json import protocol_from_dict, protocol_to_dict
from ..physics.protocol import Protocol
from ..physics.simulation import ENGINES
from ..tissue.distributions import TissueDistribution
from .architecture import ReconstructionNetwork

KIND = "neurocest reconstruction network"
FORMAT = 2
_TOLERANCE = 1e-4
_LARGEST = 100_000
"""Width, inputs or outputs beyond which a file is not believed: it would fill the memory."""


@dataclass(frozen=True)
class Calibration:
    """How residuals of modelled voxels are distributed, and the misfit above which a voxel is called unreliable.

    threshold: of the misfit, which ``false_alarm_rate`` of the modelled voxels exceed. voxels: that were simulated.
    whitening: (measurement, measurement), makes their residuals, in units of the expected RMSE, white with unit
    variance. expected_rmse: the lowest and the highest that the network expected of them.
    """

    threshold: float
    false_alarm_rate: float
    voxels: int
    whitening: Tensor
    expected_rmse: tuple[float, float]

    def misfit(self, residual: Tensor, expected_rmse: Tensor) -> Tensor:
        """Mahalanobis distance (voxel,) of residuals (voxel, measurement), about 1 where the model holds.

        It weighs a residual by how unusual it is: what the noise does not make, and what the fit of a modelled voxel
        does not leave, counts more than an equal RMSE that is nothing but noise.
        """
        scale = expected_rmse.clamp(*self.expected_rmse)  # a strange signal does not excuse itself by strange noise
        return (residual / scale[:, None] @ self.whitening).square().mean(1).sqrt()


@dataclass(frozen=True)
class NetworkFile:
    """A trained network and all that its use depends on.

    targets: paths of the wanted parameters. outputs: paths of all outputs of the network: the targets, then the other
    varied entries of the tissue, which the reliability map needs. tissue: the distribution as in the configuration.
    noise_sd: lowest and highest standard deviation in training. training: summary (losses, samples, versions, ...).
    """

    network: ReconstructionNetwork
    protocol: Protocol
    tissue: dict
    targets: tuple[str, ...]
    outputs: tuple[str, ...]
    engine: str = "r1rho"
    noise_sd: tuple[float, float] = (0.002, 0.006)
    calibration: Calibration | None = None
    training: dict[str, Any] = field(default_factory=dict)

    @property
    def distribution(self) -> TissueDistribution:
        return TissueDistribution.from_dict(self.tissue, "the network file's tissue")

    @property
    def units(self) -> dict[str, str]:
        """Unit of every output by path."""
        endings = {"Hz": "Hz", "s": "s", "ppm": "ppm"}
        return {path: endings.get(path.rpartition("_")[2], "") for path in self.outputs}


def save_network(file: NetworkFile, path: str | Path) -> Path:
    """Write a network file, whole or not at all.

    Raises ValueError where it cannot be written, and for a network that :func:`load_network` would refuse.
    """
    calibration = file.calibration
    values = {
        "kind": KIND,
        "format": FORMAT,
        "options": file.network.options,
        "state": file.network.state_dict(),
        "protocol": protocol_to_dict(file.protocol),
        "tissue": file.tissue,
        "targets": list(file.targets),
        "outputs": list(file.outputs),
        "ranges": {p: list(file.distribution.ranges()[p]) for p in file.outputs},
        "units": file.units,
        "engine": file.engine,
        "noise_sd": list(file.noise_sd),
        "training": file.training,
        "calibration": None if calibration is None else vars(calibration) | {},
        "versions": {"torch": str(torch.__version__), "format": FORMAT},
    }
    try:
        _file_of(values, "the network")
    except ValueError as error:
        raise ValueError(f"cannot write '{path}': {error}") from None
    return save_tensors(values, path)


def load_network(path: str | Path) -> NetworkFile:
    """Read a network file; ValueError with one sentence for a damaged, foreign or malicious file."""
    values = load_tensors(path, "network file")
    if values.get("kind") != KIND:
        raise ValueError(f"{path}: not a reconstruction network; make one with 'cestquant train'")
    if values.get("format") != FORMAT:
        raise ValueError(f"{path}: written in format {values.get('format')}, this version reads format {FORMAT}")
    return _file_of(values, str(path))


def _file_of(values: dict, source: str) -> NetworkFile:
    """The contents of a network file, every value checked; ValueError naming ``source`` for what cannot be used."""
    try:
        network = _network(values["options"], values["state"])
        file = NetworkFile(
            network.eval(),
            protocol_from_dict(values["protocol"], "protocol"),
            values["tissue"],
            _paths(values["targets"], "targets"),
            _paths(values["outputs"], "outputs"),
            values["engine"],
            _pair(values["noise_sd"], "noise_sd"),
            None,
            _training(values["training"]),
        )
        if file.engine not in ENGINES:
            raise ValueError(f"engine {file.engine!r} is unknown")
        if not 0 <= file.noise_sd[0] <= file.noise_sd[1] < 1:
            raise ValueError("noise_sd must lie between 0 and 1")
        _check_parts(file)
        if values["calibration"] is not None:
            calibration = _calibration(values["calibration"], file.protocol.measurement_count)
            file = NetworkFile(**{**vars(file), "calibration": calibration})
    except ValueError as error:
        raise ValueError(f"{source}: a damaged network file ({error})") from None
    except (KeyError, TypeError, AttributeError, RuntimeError, IndexError, ArithmeticError) as error:
        raise ValueError(f"{source}: a damaged network file ({type(error).__name__} in its contents)") from None
    return file


def _network(options: Any, state: Any) -> ReconstructionNetwork:
    """The network of a file; its weights are finite numbers of the type that the network has."""
    if not all(
        isinstance(options[key], int) and not isinstance(options[key], bool) and options[key] < _LARGEST
        for key in ("inputs", "outputs", "width", "depth")
    ):
        raise ValueError("the size of the network is no usable number")
    network = ReconstructionNetwork(**options)
    for name, own in network.state_dict().items():
        value = state[name]
        if not isinstance(value, Tensor) or value.dtype != own.dtype or value.shape != own.shape:
            raise ValueError(f"the weights {name} are of another kind or size")
        if not bool(torch.isfinite(value).all()):
            raise ValueError(f"the weights {name} are not finite")
    network.load_state_dict(state)
    if not bool((network.target_low < network.target_high).all()):
        raise ValueError("the range of an output is empty")
    return network


def _check_parts(file: NetworkFile) -> None:
    """Whether network, protocol, tissue and names fit each other."""
    options, distribution = file.network.options, TissueDistribution.from_dict(file.tissue, "tissue")
    fits = (
        len(file.outputs) == options["outputs"]
        and options["inputs"] == file.protocol.measurement_count
        and set(file.targets) <= set(file.outputs) <= set(distribution.entries)
        and set(distribution.varied) <= set(file.outputs)
    )
    if not fits:
        raise ValueError("its parts do not fit each other")


def _calibration(values: dict, measurements: int) -> Calibration:
    calibration = Calibration(**{**values, "expected_rmse": _pair(values["expected_rmse"], "expected_rmse")})
    whitening = calibration.whitening
    if not isinstance(whitening, Tensor) or not whitening.is_floating_point():
        raise ValueError("the calibration is of another kind")
    if whitening.shape != (measurements, measurements) or not bool(torch.isfinite(whitening).all()):
        raise ValueError("the calibration is of another size or not finite")
    _number(calibration.voxels, "the calibration's number of voxels")
    if not _number(calibration.threshold, "the calibration's threshold") > 0:
        raise ValueError("the calibration's threshold is not positive")
    if not 0 < _number(calibration.false_alarm_rate, "the calibration's false_alarm_rate") < 1:
        raise ValueError("the calibration's false_alarm_rate must lie between 0 and 1")
    if not 0 < calibration.expected_rmse[0] <= calibration.expected_rmse[1]:
        raise ValueError("the calibration's expected_rmse is no range")
    return calibration


def _training(values: Any) -> dict[str, Any]:
    """The summary of the training; of its numbers only the mean norm is used again."""
    if not isinstance(values, dict) or not all(isinstance(key, str) for key in values):
        raise ValueError("the summary of the training is no object")
    if "mean_norm" in values and not _number(values["mean_norm"], "mean_norm") > 0:
        raise ValueError("mean_norm is not positive")
    return values


def _paths(values: Any, name: str) -> tuple[str, ...]:
    if not isinstance(values, list | tuple) or not all(isinstance(value, str) for value in values):
        raise ValueError(f"{name} are no names")
    if not values or len(set(values)) != len(values):
        raise ValueError(f"{name} are none, or the same twice")
    return tuple(values)


def _pair(values: Any, name: str) -> tuple[float, float]:
    if not isinstance(values, list | tuple) or len(values) != 2:
        raise ValueError(f"{name} must be two numbers")
    return _number(values[0], name), _number(values[1], name)


def _number(value: Any, name: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"{name} is not a finite number")
    return value


def check_protocol(trained: Protocol, measured: Protocol) -> None:
    """Refuse a signal of another protocol than the network's; the ValueError names the first difference."""
    if trained.measurement_count != measured.measurement_count:
        raise ValueError(
            f"the network was trained for {trained.measurement_count} measurements, the signal has "
            f"{measured.measurement_count}"
        )
    if difference := protocol_difference(trained, measured):
        raise ValueError(f"the network was trained for another protocol: {difference}")


def protocol_difference(ours: Protocol, theirs: Protocol) -> str:
    """The first difference of two protocols, as 'saturation_time_s is 2, here 1'; empty where there is none."""
    first, second = protocol_to_dict(ours), protocol_to_dict(theirs)
    for key in dict.fromkeys((*first, *second)):
        if key not in ("note", "solute") and (difference := _difference(first.get(key), second.get(key))):
            return f"{key} {difference}"
    return ""


def _difference(ours: Any, theirs: Any) -> str:
    """In words, what differs; empty where nothing does. A number stands for a list of equal ones."""
    if isinstance(ours, Mapping) and isinstance(theirs, Mapping):
        for key in dict.fromkeys((*ours, *theirs)):
            if difference := _difference(ours.get(key), theirs.get(key)):
                return f"{key} {difference}"
        return ""
    if isinstance(ours, list) or isinstance(theirs, list):
        length = len(ours) if isinstance(ours, list) else len(theirs) if isinstance(theirs, list) else 1
        first = ours if isinstance(ours, list) else [ours] * length
        second = theirs if isinstance(theirs, list) else [theirs] * length
        if len(first) != len(second):
            return f"has {len(first)} values, here {len(second)}"
        for number, (a, b) in enumerate(zip(first, second, strict=True), start=1):
            if difference := _difference(a, b):
                return f"of measurement {number} {difference}"
        return ""
    numbers = all(isinstance(v, int | float) and not isinstance(v, bool) for v in (ours, theirs))
    same = math.isclose(ours, theirs, rel_tol=_TOLERANCE, abs_tol=_TOLERANCE) if numbers else ours == theirs
    return "" if same else f"is {_shown(ours)}, here {_shown(theirs)}"


def _shown(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else "not given" if value is None else str(value)
