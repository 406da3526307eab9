"""Network files: a trained network with everything that its use depends on. Loading one executes no code of it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from NeuroCESTLib.core.messages.input_errors import InputError
from NeuroCESTLib.core.stored_values import check_stored, check_weights
from NeuroCESTLib.core.tensor_files import load_tensors, save_tensors

from ..formats.protocol_difference import protocol_difference
from ..formats.protocol_json import protocol_from_dict, protocol_to_dict
from ..physics.engines import engine_named
from ..physics.protocol import Protocol
from ..preprocessing.normalization import spectrum_protocol
from ..preprocessing.reference import FAR_OFF_RESONANCE_PPM, m0_measurements
from ..tissue.distributions import TissueDistribution
from .architecture import ReconstructionNetwork

KIND = "neurocest reconstruction network"
FORMAT = 2
_FORM: dict[str, Any] = {"options": {}, "state": {}, "tissue": {}, "protocol": {}, "calibration": ({}, None)}
"""Form of a network file, see ``stored_values``; the values themselves are checked one by one."""
_LARGEST = 100_000
"""Width or number of inputs or outputs from which a file is rejected: the network would fill the memory."""
_UNITS = ("Hz", "s", "ppm")
"""Units that paths end in."""


@dataclass(frozen=True)
class Calibration:
    """Distribution of the residuals of voxels that the tissue model explains.

    Attributes:
        threshold: Misfit above which a voxel is called unreliable.
        false_alarm_rate: Share of the voxels that the model explains whose misfit exceeds the threshold.
        voxels: Number of simulated voxels that these numbers come from.
        whitening: Matrix (measurement, measurement) that gives their residuals, in units of the expected RMSE, unit
            variance and no correlation.
        expected_rmse: Lowest and highest RMSE that the network expected of them.
    """

    threshold: float
    false_alarm_rate: float
    voxels: int
    whitening: Tensor
    expected_rmse: tuple[float, float]

    def misfit(self, residual: Tensor, expected_rmse: Tensor) -> Tensor:
        """Return the Mahalanobis distance of residuals, about 1 where the tissue model holds.

        It weighs a residual by how unusual it is: a residual that neither noise nor the fit of an explained voxel
        would leave counts more than noise of the same RMSE.

        Args:
            residual: Measured minus back-projected signal, (voxel, measurement), normalised.
            expected_rmse: RMSE that the network expects, (voxel,).

        Returns:
            Misfit of shape (voxel,).
        """
        # Clamped, so that a strange signal cannot excuse itself by strange noise.
        scale = expected_rmse.clamp(*self.expected_rmse)
        return (residual / scale[:, None] @ self.whitening).square().mean(1).sqrt()


@dataclass(frozen=True)
class NetworkFile:
    """A trained network and everything that its use depends on.

    Attributes:
        network: Trained network.
        protocol: Acquisition protocol that it was trained for.
        tissue: Distribution of the tissues that it was trained on, as in the configuration.
        targets: Paths of the wanted parameters.
        outputs: Paths of all outputs: the targets, then the other varied entries, which the reliability map needs.
        engine: Engine that simulated the training samples.
        noise_sd: Lowest and highest standard deviation of the noise in training, relative to the equilibrium signal.
        calibration: Calibration of the reliability map; None gives no such map.
        training: Summary of the training: losses, samples, timings in s and so on.
    """

    network: ReconstructionNetwork
    protocol: Protocol
    tissue: dict[str, Any]
    targets: tuple[str, ...]
    outputs: tuple[str, ...]
    engine: str
    noise_sd: tuple[float, float]
    calibration: Calibration | None = None
    training: dict[str, Any] = field(default_factory=dict)

    @property
    def distribution(self) -> TissueDistribution:
        """Distribution of the tissues that the network was trained on."""
        return TissueDistribution.from_dict(self.tissue, "the network file's tissue")

    @property
    def units(self) -> dict[str, str]:
        """Unit of every output by path; empty for fractions and relative values."""
        endings = {path: path.rpartition("_")[2] for path in self.outputs}
        return {path: ending if ending in _UNITS else "" for path, ending in endings.items()}


def save_network(file: NetworkFile, path: str | Path) -> Path:
    """Write a network file, whole or not at all.

    Args:
        file: Network and what belongs to it.
        path: File to write.

    Returns:
        ``path``.

    Raises:
        ValueError: The file cannot be written, or :func:`load_network` would refuse it.
    """
    calibration = file.calibration
    ranges = file.distribution.ranges()
    values = {
        "kind": KIND,
        "format": FORMAT,
        "options": file.network.options,
        "state": file.network.state_dict(),
        "protocol": protocol_to_dict(file.protocol),
        "tissue": file.tissue,
        "targets": list(file.targets),
        "outputs": list(file.outputs),
        "ranges": {path: list(ranges[path]) for path in file.outputs},
        "units": file.units,
        "engine": file.engine,
        "noise_sd": list(file.noise_sd),
        "training": file.training,
        "calibration": None
        if calibration is None
        else {f.name: getattr(calibration, f.name) for f in fields(calibration)},
        "versions": {"torch": str(torch.__version__), "format": FORMAT},
    }
    try:
        _checked(values, "the network")
    except ValueError as error:
        raise ValueError(f"cannot write '{path}': {error}") from None
    return save_tensors(values, path)


def load_network(path: str | Path) -> NetworkFile:
    """Read a network file.

    Raises:
        ValueError: The file is missing, damaged, of another kind or malicious; the message names it.
    """
    values = load_tensors(path, "network file")
    if values.get("kind") != KIND:
        raise ValueError(f"{path}: not a reconstruction network; make one with 'cestquant train'")
    if values.get("format") != FORMAT:
        raise ValueError(f"{path}: written in format {values.get('format')}, this version reads format {FORMAT}")
    return _checked(values, str(path))


def check_protocol(trained: Protocol, measured: Protocol, role: str = "network") -> None:
    """Check that a signal was measured under the protocol that a network was trained for.

    Args:
        trained: Protocol of the network, or of the data that a dictionary is simulated from.
        measured: Protocol of the signal.
        role: Which input says the protocol: ``network`` or ``config``.

    Raises:
        ValueError: The protocols differ; the message names the first difference.
    """
    what = "the network was trained for" if role == "network" else "the data are simulated for"
    if trained.measurement_count != measured.measurement_count:
        _require_no_m0_as_signal(trained, measured, role, what)
        raise InputError(
            role, f"{what} {trained.measurement_count} measurements, the signal has {measured.measurement_count}"
        )
    started = replace(
        measured, initial_magnetisation=trained.initial_magnetisation, initial_recovery_s=trained.initial_recovery_s
    )
    if protocol_difference(trained, measured) and not protocol_difference(trained, started):
        start = abs(round(measured.initial_magnetisation, 3))  # without the rounding of a cosine
        raise InputError(
            role,
            f"{what} a first measurement that starts from {trained.initial_magnetisation:g} of the equilibrium, but "
            f"here it starts from {start:g}, as the M0 measurement before it leaves it, and recovers for "
            f"{float(measured.initial_recovery_s[0]):g} s: put both into the protocol (initial_magnetisation, "
            "initial_recovery_s) and train or simulate again",
        )
    if difference := protocol_difference(trained, measured):
        raise InputError(role, f"{what} another protocol: {difference}")


def _require_no_m0_as_signal(trained: Protocol, measured: Protocol, role: str, what: str) -> None:
    """Refuse a network for which M0 measurements are signals, where these are all that the spectra are without."""
    distance = trained.offsets_ppm.abs()
    if trained.signal_normalisation != "m0" or not (trained.m0_measurements or distance.max() >= FAR_OFF_RESONANCE_PPM):
        return
    numbers = tuple(index + 1 for index in m0_measurements(trained).index.tolist())
    if protocol_difference(spectrum_protocol(replace(trained, m0_measurements=numbers)), measured):
        return
    if len(numbers) == 1:
        which, them = f"number {numbers[0]} is an M0 measurement", "it"
    else:
        which, them = f"numbers {', '.join(map(str, numbers))} are M0 measurements", "them"
    named = "" if trained.m0_measurements else f" with {them} named as m0_measurements in the protocol"
    raise InputError(
        role,
        f"{what} {trained.measurement_count} measurements, of which {which} that the spectra of this scan are without: "
        f"train or simulate again{named}, or, if the scan has {them}, give an M0 image (--reference)",
    )


def _checked(values: Mapping[str, Any], source: str) -> NetworkFile:
    """Contents of a network file, with every value checked; a ValueError names ``source``."""
    try:
        check_stored(values, _FORM, "its content")
        network = _network(values["options"], values["state"])
        file = NetworkFile(
            network=network.eval(),
            protocol=protocol_from_dict(values["protocol"], "protocol", measured=False),
            tissue=values["tissue"],
            targets=_paths(values["targets"], "targets"),
            outputs=_paths(values["outputs"], "outputs"),
            engine=values["engine"],
            noise_sd=_pair(values["noise_sd"], "noise_sd"),
            training=_training(values["training"]),
        )
        engine_named(file.engine)
        if not 0 <= file.noise_sd[0] <= file.noise_sd[1] < 1:
            raise ValueError("noise_sd must lie between 0 and 1")
        _require_matching_parts(file)
        if values["calibration"] is not None:
            file = replace(file, calibration=_calibration(values["calibration"], file.protocol.measurement_count))
    except ValueError as error:
        raise ValueError(f"{source}: a damaged network file ({error})") from None
    except KeyError as error:
        raise ValueError(f"{source}: a damaged network file ({error} is missing)") from None
    except (TypeError, AttributeError, RuntimeError, IndexError, ArithmeticError, RecursionError, MemoryError):
        raise ValueError(f"{source}: a damaged network file (a value is of another kind)") from None
    return file


def _network(options: Any, state: Any) -> ReconstructionNetwork:
    """Network of a file, whose weights are finite numbers of the types that the network has."""
    if not all(
        isinstance(options[key], int) and not isinstance(options[key], bool) and options[key] < _LARGEST
        for key in ("inputs", "outputs", "width", "depth")
    ):
        raise ValueError("the size of the network is not usable")
    network = ReconstructionNetwork(**options)
    for name, initial in network.state_dict().items():
        value = state.get(name)
        if not isinstance(value, Tensor) or value.dtype != initial.dtype or value.shape != initial.shape:
            raise ValueError(f"the weights {name} have another type or size")
    check_weights(state, network.state_dict(), "its weights")
    network.load_state_dict(state)
    if not bool((network.target_low < network.target_high).all()):
        raise ValueError("the range of an output is empty")
    return network


def _require_matching_parts(file: NetworkFile) -> None:
    """Check that network, protocol, tissue and names fit each other."""
    distribution = TissueDistribution.from_dict(file.tissue, "tissue")
    fits = (
        len(file.outputs) == file.network.outputs
        and file.network.inputs == file.protocol.measurement_count
        and set(file.targets) <= set(file.outputs) <= set(distribution.entries)
        and set(distribution.varied) <= set(file.outputs)
    )
    if not fits:
        raise ValueError("its parts do not fit each other")


def _calibration(values: Mapping[str, Any], measurements: int) -> Calibration:
    calibration = Calibration(**{**values, "expected_rmse": _pair(values["expected_rmse"], "expected_rmse")})
    whitening = calibration.whitening
    if not isinstance(whitening, Tensor) or not whitening.is_floating_point():
        raise ValueError("the calibration has another type")
    if whitening.shape != (measurements, measurements) or not bool(torch.isfinite(whitening).all()):
        raise ValueError("the calibration has another size or is not finite")
    _number(calibration.voxels, "the calibration's number of voxels")
    if not _number(calibration.threshold, "the calibration's threshold") > 0:
        raise ValueError("the calibration's threshold is not positive")
    if not 0 < _number(calibration.false_alarm_rate, "the calibration's false_alarm_rate") < 1:
        raise ValueError("the calibration's false_alarm_rate must lie between 0 and 1")
    if not 0 < calibration.expected_rmse[0] <= calibration.expected_rmse[1]:
        raise ValueError("the calibration's expected_rmse is not a range")
    return calibration


def _training(values: Any) -> dict[str, Any]:
    """Summary of the training; of its numbers only the mean norm is used again."""
    if not isinstance(values, dict) or not all(isinstance(key, str) for key in values):
        raise ValueError("the summary of the training is not an object")
    if "mean_norm" in values and not _number(values["mean_norm"], "mean_norm") > 0:
        raise ValueError("mean_norm is not positive")
    return values


def _paths(values: Any, name: str) -> tuple[str, ...]:
    if not isinstance(values, list | tuple) or not all(isinstance(value, str) for value in values):
        raise ValueError(f"{name} is not a list of names")
    if not values or len(set(values)) != len(values):
        raise ValueError(f"{name} is empty or holds a name twice")
    return tuple(values)


def _pair(values: Any, name: str) -> tuple[float, float]:
    if not isinstance(values, list | tuple) or len(values) != 2:
        raise ValueError(f"{name} must be two numbers")
    return _number(values[0], name), _number(values[1], name)


def _number(value: Any, name: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"{name} is not a finite number")
    return value
