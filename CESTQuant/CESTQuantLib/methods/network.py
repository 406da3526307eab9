"""Methods that use simulated data: reconstruction by a trained network, and dictionary matching."""

from __future__ import annotations

import time
from collections.abc import Mapping

import torch
from torch import Tensor

from ..fitting.marquardt import Status
from ..networks.architecture import normalise_input
from ..networks.config import read_config
from ..networks.dictionary import match_dictionary
from ..networks.files import check_protocol, load_network
from ..networks.reconstruction import in_training_range, reconstruct
from ..networks.reliability import back_project
from ..physics.units import concentration_mM
from ..tissue.fit import physical_names
from .registry import Quantification, Task

_MAP_OF_PATH = {"b0_shift_ppm": "b0_shift_ppm", "b1_relative": "b1_relative", "water.T1_s": "t1_s"}


def network_method(task: Task) -> Quantification:
    """Reconstruction by the network of ``settings.network``, with uncertainties and a reliability map.

    ``rmse`` is the difference between the signal and the physics of the reconstructed parameters (see
    :mod:`reliability`), ``rmse_expected`` what the network takes the noise for, ``misfit`` how unusual the difference
    is (about 1 where the model holds), ``reliable`` 1 where that is below the calibrated threshold and 0 elsewhere.
    Given B0, B1 and T1 maps replace the network's own values in the physics.

    Raises ValueError without a network and for a signal of another protocol than the network's.
    """
    if not task.settings.network:
        raise ValueError("the method network needs a network file (--network NETWORK.pt)")
    file = load_network(task.settings.network)
    check_protocol(file.protocol, task.protocol)
    signal = _cpu_signal(task)
    known = _known(task, file.distribution.entries)
    clock = time.perf_counter()
    found = reconstruct(file.network, signal)
    seconds = time.perf_counter() - clock
    clock = time.perf_counter()
    back = back_project(file, signal, found, known=known, progress=task.progress)
    summary = {
        "reconstruction_s": seconds,
        "reliability_s": time.perf_counter() - clock,
        "trained_samples": file.training.get("samples"),
        "median_rmse": float(back.rmse.nanmedian()),
    }
    means = {path: found.mean[:, i] for i, path in enumerate(file.outputs) if path in file.targets}
    sds = {path: found.sd[:, i] for i, path in enumerate(file.outputs) if path in file.targets}
    quantities = named_quantities(means, sds, file.distribution.structure.protons)
    usable = torch.isfinite(back.rmse)
    quantities |= {"rmse": back.rmse, "rmse_expected": found.expected_rmse}
    warnings = in_training_range(file, known)
    if file.calibration is not None:
        threshold = file.calibration.threshold
        quantities["misfit"] = file.calibration.misfit(signal - back.signal, found.expected_rmse)
        quantities["reliable"] = torch.where(usable, (quantities["misfit"] <= threshold).double(), torch.nan)
        summary |= {
            "misfit_threshold": threshold,
            "false_alarm_rate": file.calibration.false_alarm_rate,
            "share_reliable": float(quantities["reliable"].nanmean()),
        }
    else:
        warnings.append("the network file has no calibration: there is no map of reliable voxels")
    quantities = {name: torch.where(usable, value.double(), torch.nan) for name, value in quantities.items()}
    return Quantification(
        quantities, _status(usable), signal, task.protocol, lambda index: back.signal[index], summary, tuple(warnings)
    )


def dictionary_method(task: Task) -> Quantification:
    """Dictionary matching by the largest dot product over the simulated data of ``settings.config``."""
    if not task.settings.config:
        raise ValueError("the method dictionary needs a configuration (--config CONFIG.json)")
    config = read_config(task.settings.config)
    check_protocol(config.protocol, task.protocol)
    signal = _cpu_signal(task)
    clock = time.perf_counter()
    match = match_dictionary(signal, config, progress=task.progress)
    values = {path: match.values[path] for path in config.targets}
    quantities = named_quantities(values, {}, config.distribution.structure.protons)
    quantities |= {"rmse": match.rmse, "dot_product": match.dot_product}
    usable = torch.isfinite(match.rmse)
    quantities = {name: torch.where(usable, value.double(), torch.nan) for name, value in quantities.items()}
    summary = {"dictionary_entries": config.samples, "matching_s": time.perf_counter() - clock}
    return Quantification(
        quantities, _status(usable), signal, task.protocol, lambda index: match.signal[index], summary, ()
    )


def named_quantities(
    values: Mapping[str, Tensor], sds: Mapping[str, Tensor], protons: Mapping[str, float]
) -> dict[str, Tensor]:
    """Maps by their names in files; T2 as R2 = 1/T2 (1/s), fractions also as concentrations (mM)."""
    maps: dict[str, Tensor] = {}
    for path, value in values.items():
        name, sd = physical_names(path), sds.get(path)
        if path.endswith("T2_s"):
            value, sd = 1 / value, None if sd is None else sd / value.square()
        entries = [(name, value, sd)]
        owner = path.rpartition(".")[0]
        if path.endswith(".fraction") and owner in protons:
            scaled = [None if v is None else concentration_mM(v, protons[owner]) for v in (value, sd)]
            entries.append((f"{owner}_concentration_mM", *scaled))
        for label, mean, error in entries:
            maps[label] = mean
            if error is not None:
                maps[f"{label}_sd"] = error
    return maps


def _cpu_signal(task: Task) -> Tensor:
    return normalise_input(task.signal.cpu().float(), task.protocol.signal_normalisation)


def _known(task: Task, entries: Mapping) -> dict[str, Tensor]:
    """The given maps (voxel,) by path of the tissue."""
    given = {path: getattr(task, name) for path, name in _MAP_OF_PATH.items() if path in entries}
    return {path: value.cpu().float() for path, value in given.items() if value is not None}


def _status(usable: Tensor) -> Tensor:
    return torch.where(usable, int(Status.CONVERGED), int(Status.INVALID_DATA)).to(torch.uint8)
