"""Network files: weights with the protocol they were trained for. Loading one executes no code from it."""

from __future__ import annotations

import contextlib
import errno
import io
import math
import os
import pickle
import tempfile
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .distributions import TissueDistribution
from .network import ReconstructionNetwork
from .protocol import Protocol, protocol_from_dict, protocol_to_dict

KIND = "neurocest reconstruction network"
FORMAT = 2
_TOLERANCE = 1e-4


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
    """Write a network file, whole or not at all; ValueError where it cannot be written."""
    calibration = file.calibration
    values = {
        "kind": KIND, "format": FORMAT, "options": file.network.options, "state": file.network.state_dict(),
        "protocol": protocol_to_dict(file.protocol), "tissue": file.tissue, "targets": list(file.targets),
        "outputs": list(file.outputs), "ranges": {p: list(file.distribution.ranges()[p]) for p in file.outputs},
        "units": file.units, "engine": file.engine, "noise_sd": list(file.noise_sd), "training": file.training,
        "calibration": None if calibration is None else vars(calibration) | {},
        "versions": {"torch": str(torch.__version__), "format": FORMAT},
    }  # fmt: skip
    return save_tensors(values, path)


def load_network(path: str | Path) -> NetworkFile:
    """Read a network file; ValueError with one sentence for a damaged, foreign or malicious file."""
    values = load_tensors(path)
    if values.get("kind") != KIND:
        raise ValueError(f"{path}: not a reconstruction network; make one with 'cestquant train'")
    if values.get("format") != FORMAT:
        raise ValueError(f"{path}: written in format {values.get('format')}, this version reads format {FORMAT}")
    try:
        network = ReconstructionNetwork(**values["options"])
        network.load_state_dict(values["state"])
        calibration = values["calibration"]
        file = NetworkFile(
            network.eval(), protocol_from_dict(values["protocol"], str(path)), values["tissue"],
            tuple(values["targets"]), tuple(values["outputs"]), values["engine"], tuple(values["noise_sd"]),
            None if calibration is None else _calibration(calibration, values["options"]["inputs"]), values["training"],
        )  # fmt: skip
        consistent = len(file.outputs) == network.options["outputs"] and set(file.targets) <= set(file.outputs)
        inputs = network.options["inputs"] == file.protocol.measurement_count
        known = set(file.outputs) <= set(file.distribution.entries)
    except (KeyError, TypeError, AttributeError, RuntimeError) as error:
        raise ValueError(f"{path}: a damaged network file ({type(error).__name__} in its contents)") from None
    if not (consistent and inputs and known):
        raise ValueError(f"{path}: a damaged network file (its parts do not fit each other)")
    numbers = [*network.state_dict().values(), *([] if file.calibration is None else [file.calibration.whitening])]
    if not all(bool(torch.isfinite(value).all()) for value in numbers):
        raise ValueError(f"{path}: a damaged network file (weights that are not finite)")
    return file


def _calibration(values: dict, measurements: int) -> Calibration:
    calibration = Calibration(**{**values, "expected_rmse": tuple(values["expected_rmse"])})
    if calibration.whitening.shape != (measurements, measurements):
        raise TypeError("whitening of another size")
    return calibration


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


def save_tensors(values: dict, path: str | Path) -> Path:
    """``torch.save`` to a temporary name, then renamed; ValueError naming the file where it cannot be written."""
    path = Path(path)
    buffer = io.BytesIO()  # torch's own writer does not say why it fails
    torch.save(values, buffer)
    with whole_file(path) as temporary:
        temporary.write_bytes(buffer.getbuffer())
    return path


def load_tensors(path: str | Path) -> dict[str, Any]:
    """``torch.load`` of tensors and plain values only; ValueError with one sentence for any other file."""
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"{path}: no such network file")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of foreign files, which are refused below
            values = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        raise ValueError(f"{path}: holds more than tensors and plain values, or is damaged: not loaded") from None
    except (RuntimeError, EOFError, OSError, ValueError, KeyError, IndexError, AttributeError, TypeError,
            zipfile.BadZipFile):  # fmt: skip
        raise ValueError(f"{path}: damaged, or not a network file") from None
    if not isinstance(values, dict):
        raise ValueError(f"{path}: not a network file")
    return values


@contextlib.contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """A temporary path beside ``path`` that is renamed to it when the block ends without error."""
    try:
        handle, name = tempfile.mkstemp(prefix=f".{path.name}-", dir=path.parent)
        os.close(handle)
    except OSError as error:
        raise ValueError(f"cannot write '{path}': {_reason(error)}") from None
    try:
        yield Path(name)
        mask = os.umask(0)
        os.umask(mask)
        os.chmod(name, 0o666 & ~mask)  # mkstemp made it private
        os.replace(name, path)
    except OSError as error:
        raise ValueError(f"cannot write '{path}': {_reason(error)}") from None
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name)


def _reason(error: OSError) -> str:
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return "the disk is full or its quota used up, free some space"
    return error.strerror or str(error)
