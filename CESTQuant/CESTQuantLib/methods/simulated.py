"""Methods that use simulated data: reconstruction by a trained network, and dictionary matching."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from .base import Input, Method, Quantification, Settings
from .quantities import B0_SHIFT, B1_RELATIVE, POOL_QUANTITIES, RMSE, Quantity

if TYPE_CHECKING:
    from torch import Tensor

    from NeuroCESTLib.core.progress import Progress

    from ..networks.files import NetworkFile
    from ..physics.protocol import Protocol
    from ..tissue.spectra import ZSpectra

_MAP_OF_PATH = {"b0_shift_ppm": "b0_shift_ppm", "b1_relative": "b1_relative", "water.T1_s": "t1_s"}
"""Map of the spectra by the path of the tissue entry that it gives."""


def reconstruct_by_network(spectra: ZSpectra, settings: Settings, progress: Progress) -> Quantification:
    """Reconstruct the parameters with a network, with their uncertainties and a reliability map.

    Maps of B0, B1 and T1 that are given replace the network's own values in the physics, but change no estimate. For
    them, and for the noise of M0, which all measurements of a voxel share, the reliability map is calibrated anew, once
    for a network, the maps that are given and the number of M0 images. A single spectrum is not worth that: with such
    maps it gets neither ``misfit`` nor ``reliable``. Besides the parameters there are four maps (see
    ``networks/reliability.py``):

    - ``rmse``: root mean square difference between the signal and the physics of the reconstructed parameters,
    - ``rmse_expected``: the difference that the network expects from the noise,
    - ``misfit``: how unusual the difference is, about 1 where the model holds,
    - ``reliable``: 1 where the misfit is below the calibrated threshold, 0 elsewhere. It says that a tissue of the
      training explains the signal. A constant that the training holds fixed at a wrong value is not found, because
      other parameters then explain the signal as well; the report names these constants.

    Raises:
        ValueError: The network file is unusable, or the signal has another protocol than the network.
    """
    import torch

    from NeuroCESTLib.core.checksum import sha256
    from NeuroCESTLib.core.progress import part

    from ..networks.files import check_protocol, load_network
    from ..networks.reconstruction import out_of_range_warnings, reconstruct, weak_output_warnings
    from ..networks.reliability import back_project, calibration_of_scan, replaced_outputs

    assert settings.network is not None  # Method.needs
    file = load_network(settings.network)
    spectra = as_simulated(spectra, file.protocol)
    check_protocol(file.protocol, spectra.protocol)
    signal = _cpu_signal(spectra)
    known = _known(spectra, file.distribution.entries)
    clock = time.perf_counter()
    found = reconstruct(file.network, signal, reference_noise=spectra.reference_noise)
    seconds = time.perf_counter() - clock
    clock = time.perf_counter()
    back = back_project(file, signal, found, known=known, progress=part(progress, 0.0, 0.8))
    replaced = replaced_outputs(file, known)
    is_single = spectra.voxel_count == 1
    calibration = None
    if file.calibration is not None and not (replaced and is_single):
        calibration = calibration_of_scan(
            file,
            known,
            0.0 if is_single else spectra.reference_noise,
            checksum=sha256(settings.network),
            progress=part(progress, 0.8, 1.0, "calibrating the reliability for this scan: "),
        )
    summary: dict[str, float | int | str | None] = {
        "reconstruction_s": seconds,
        "reliability_s": time.perf_counter() - clock,
        "trained_samples": file.training.get("samples"),
        "median_rmse": float(back.rmse.nanmedian()),
    }
    quantities = _parameters(file, found.mean, found.sd)
    quantities |= {"rmse": back.rmse, "rmse_expected": found.expected_rmse}
    usable = torch.isfinite(back.rmse)
    warnings = [*out_of_range_warnings(file, known), *weak_output_warnings(file.training.get("held_out", {}))]
    if known:
        warnings.append(
            f"the given maps of {', '.join(known)} change no estimate of the network, which sees the signal alone, but "
            "only the reliability"
        )
    if calibration is not None and is_single and spectra.reference_noise:
        warnings.append("the reliability of a single spectrum does not count the noise of M0: map several voxels")
    if calibration is not None:
        threshold = calibration.threshold
        misfit = calibration.misfit(signal - back.signal, found.expected_rmse)
        reliable = torch.where(usable, (misfit <= threshold).double(), torch.nan)
        quantities |= {"misfit": misfit, "reliable": reliable}
        summary |= {
            "misfit_threshold": threshold,
            "false_alarm_rate": calibration.false_alarm_rate,
            "share_reliable": float(reliable.nanmean()),
            "reliable_does_not_test": ", ".join(_constants(file, known)) or None,
        }
    elif file.calibration is not None:
        names = ", ".join(replaced)
        warnings.append(
            f"the reliability of a single spectrum is not judged where {names} is given: map several voxels"
        )
    else:
        warnings.append("the network file has no calibration: there is no map of reliable voxels")
    return _result(spectra, signal, quantities, back.signal, usable, summary, tuple(warnings))


def match_by_dictionary(spectra: ZSpectra, settings: Settings, progress: Progress) -> Quantification:
    """Take the parameters of the simulated spectrum with the largest dot product.

    Raises:
        ValueError: The configuration is unusable, or the signal has another protocol than the configuration.
    """
    import torch

    from ..networks.config import read_config
    from ..networks.dictionary import match_dictionary
    from ..networks.files import check_protocol
    from ..tissue.quantities import named_quantities

    assert settings.config is not None  # Method.needs
    config = read_config(settings.config)
    if settings.dictionary_entries is not None:
        config = replace(config, samples=settings.dictionary_entries)
    spectra = as_simulated(spectra, config.protocol)
    check_protocol(config.protocol, spectra.protocol, "config")
    signal = _cpu_signal(spectra)
    clock = time.perf_counter()
    match = match_dictionary(signal, config, progress=progress)
    values = {path: match.values[path] for path in config.targets}
    quantities = named_quantities(values, {}, config.distribution.structure.protons)
    quantities |= {"rmse": match.rmse, "dot_product": match.dot_product}
    usable = torch.isfinite(match.rmse)
    summary = {"dictionary_entries": config.samples, "matching_s": time.perf_counter() - clock}
    return _result(spectra, signal, quantities, match.signal, usable, summary)


def _parameters(file: NetworkFile, mean: Tensor, sd: Tensor) -> dict[str, Tensor]:
    """Maps of the network's targets by name, from its outputs (voxel, output)."""
    from ..tissue.quantities import named_quantities

    means = {path: mean[:, i] for i, path in enumerate(file.outputs) if path in file.targets}
    sds = {path: sd[:, i] for i, path in enumerate(file.outputs) if path in file.targets}
    return named_quantities(means, sds, file.distribution.structure.protons)


def _constants(file: NetworkFile, known: Mapping[str, Tensor]) -> list[str]:
    """Return the entries of the tissue that the training holds fixed and no map gives."""
    return [path for path, entry in file.distribution.entries.items() if not entry.varies and path not in known]


def as_simulated(spectra: ZSpectra, simulated: Protocol) -> ZSpectra:
    """Leave out the M0 measurements of a scan that an M0 image is given for, as the simulated spectra do.

    Args:
        spectra: Spectra of the scan.
        simulated: Protocol of the simulated spectra.
    """
    import torch

    from ..preprocessing.normalization import spectrum_protocol
    from ..preprocessing.reference import with_m0_named

    whole = with_m0_named(spectra.protocol)
    if simulated.measurement_count != whole.measurement_count - len(whole.m0_measurements):
        return spectra
    protocol = spectrum_protocol(whole)
    if protocol is whole:
        return spectra
    kept = [place for place in range(whole.measurement_count) if place + 1 not in whole.m0_measurements]
    return replace(spectra.select(torch.tensor(kept)), protocol=protocol)


def _cpu_signal(spectra: ZSpectra) -> Tensor:
    from ..networks.architecture import normalize_input

    return normalize_input(spectra.signal.cpu().float(), spectra.protocol.signal_normalisation)


def _known(spectra: ZSpectra, entries: Mapping[str, object]) -> dict[str, Tensor]:
    """Return the maps (voxel,) that are given, by the path of the tissue entry."""
    given = {path: getattr(spectra, name) for path, name in _MAP_OF_PATH.items() if path in entries}
    return {path: value.cpu().float() for path, value in given.items() if value is not None}


def _result(
    spectra: ZSpectra,
    signal: Tensor,
    quantities: Mapping[str, Tensor],
    fitted: Tensor,
    usable: Tensor,
    summary: Mapping[str, float | int | str | None],
    warnings: tuple[str, ...] = (),
) -> Quantification:
    """Return maps (voxel,) that are NaN where the voxel is not usable, and the fitted signals (voxel, measurement)."""
    import torch

    from ..fitting.marquardt import Status

    maps = {name: torch.where(usable, values.double(), torch.nan) for name, values in quantities.items()}
    status = torch.where(usable, int(Status.CONVERGED), int(Status.INVALID_DATA)).to(torch.uint8)
    return Quantification(maps, status, signal, spectra.protocol, lambda index: fitted[index], summary, warnings)


_POOLS_AND_FIELDS = (*POOL_QUANTITIES, B0_SHIFT, B1_RELATIVE, RMSE)

METHODS = (
    Method(
        "network",
        "Trained network, with reliability",
        "Parameters reconstructed by a network that was trained for the protocol, with uncertainty and reliability.",
        reconstruct_by_network,
        needs=(Input.NETWORK,),
        takes=(Input.B0, Input.B1, Input.T1),
        physical=True,
        quantities=(
            *_POOLS_AND_FIELDS,
            Quantity("misfit", color_map="inferno", rank=4, quality=True),
            Quantity("reliable", color_map="grey", rank=3, window=(0.0, 1.0), quality=True),
        ),
        publications=("Perlman et al., Magn Reson Med 2022;87:2792",),
    ),
    Method(
        "dictionary",
        "Dictionary matching",
        "Parameters of the simulated spectrum that is most similar to the measured one.",
        match_by_dictionary,
        needs=(Input.CONFIG,),
        physical=True,
        quantities=(*_POOLS_AND_FIELDS, Quantity("dot_product", rank=4, quality=True)),
        publications=("Cohen et al., Magn Reson Med 2018;80:2449",),
    ),
)
