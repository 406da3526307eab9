"""Maps from acquisitions in the scene."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from NeuroCESTLib.core.background import in_background
from NeuroCESTLib.core.device import choose_device
from NeuroCESTLib.core.progress import Progress, part, silent
from NeuroCESTLib.scene.messages import names_inputs
from NeuroCESTLib.scene.segmentations import masks_on

from ...methods.base import Settings
from ...methods.registry import FIELD_METHODS, map_fields, method_named, quantify, require_spatial
from ..acquired import Preparation, acquired
from ..compartments.visits import FILES_OF_METHODS
from ..maps import MapNodes
from ..posterior import region_posteriors, require_posterior, with_posterior
from ..results import CESTQuantResult, failure_warnings, into_scene, region_warnings, require_result
from ..settings import method_settings
from ..study import Study

_names_inputs = names_inputs("signalNode", FILES_OF_METHODS)


class MapsLogic:
    """Maps of methods, and of the fields."""

    settings = staticmethod(method_settings)

    @_names_inputs
    def fit(
        self,
        signalNode: Any,
        protocol: Any,
        *,
        method: str = "lorentzian",
        model: Any = None,
        reference: Any = None,
        mask: Any = None,
        b0: Any = None,
        b1: Any = None,
        t1: Any = None,
        segmentation: Any = None,
        folderName: str = "",
        asymmetryOffset_ppm: float | tuple[float, ...] = 3.5,
        lorentzianPreset: str | dict | None = None,
        power_uT: float | None = None,
        network: str | None = None,
        config: str | None = None,
        calibration: str | None = None,
        signalNormalisation: str | None = None,
        m0OverTime: str = "interpolated",
        fieldStrength_T: float | None = None,
        motionCorrection: bool = False,
        denoising: bool = False,
        smoothing_ppm: float | None = None,
        quass: str | None = None,
        noise_sd: float | None = None,
        posterior: bool = False,
        spatialPrior: bool = False,
        dictionaryEntries: int | None = None,
        threads: int | None = None,
        device: str = "auto",
        slice_RAS: tuple[float, float, float] | None = None,
        progress: Progress | None = None,
    ) -> CESTQuantResult:
        """Quantify an acquisition; the scene gains one folder of maps, or nothing at all after an error or cancel.

        Args:
            signalNode: Sequence node with one volume per measurement.
            protocol: Path (``.json``, ``.seq`` or text file of offsets in ppm), dictionary or ``Protocol``. None takes
                what the sequence carries: a protocol, or else its offsets in ppm.
            method: Name of a method, see ``CESTQuantLib.METHODS``.
            model: Path or dictionary of a tissue model.
            reference: M0 volume or sequence.
            mask: Volume, label map or segmentation on the grid of the signal.
            b0: Volume of the B0 shift in ppm, resampled to the signal; so are ``b1`` and ``t1``.
            b1: Volume of the actual over the nominal B1.
            t1: Volume of the water T1 in s.
            segmentation: Regions of the table.
            folderName: Name of the folder; by default the names of signal and method.
            asymmetryOffset_ppm: One or several offsets of a contrast in ppm.
            lorentzianPreset: ``3T``, ``7T``, ``preclinical``, ``3T_two_step``, ``plof_3T``, or path or dictionary of a
                pool description; None for the preset of the method.
            power_uT: B1 in uT of the spectrum that a contrast uses, where several powers were acquired.
            network: Network file (method ``network``).
            config: Configuration of the simulated data, a file or the name of a preset (method ``dictionary``).
            calibration: File of the calibration of the pH (method ``ph``).
            signalNormalisation: ``m0``, ``l2`` or ``none`` instead of what the protocol says.
            m0OverTime: How several M0 references act: ``interpolated`` at the time of every measurement (drift), or
                their ``mean``.
            fieldStrength_T: Static field in T where the protocol gives only offsets; it converts offsets and B0 maps in
                Hz.
            motionCorrection: Whether to bring all measurements, and M0 images, into the position of one of them
                (rigid); what did not move measurably stays as it is.
            denoising: Whether to remove noise that neighbouring spectra do not share (MP-PCA); adds a map of the noise.
            smoothing_ppm: Width in ppm over which spectra are smoothed along their offsets; None not to.
            quass: Corrects the spectra for finite saturation time and recovery, with the T1 map: ``equilibrium`` for a
                fully relaxed M0, ``same-delay`` for one with the timing of the saturated measurements; None not to.
            noise_sd: Standard deviation of a normalised signal, from which fits tell noise from misfit and contrasts
                have standard errors; None to estimate it from repeated measurements, where there are any.
            posterior: Whether to sample the posterior of every region's mean spectrum (model fits with regions): a
                table of medians and 95 % intervals that holds where the likelihood is skewed or leans on a bound.
            spatialPrior: Whether to fit all voxels together, under the prior that neighbours within the mask are alike
                except across edges (Lorentzian and model fits): less noise, and standard deviations of the posterior.
            dictionaryEntries: Number of simulated spectra of a dictionary; None for that of its configuration.
            threads: Number of processor threads; None for as many as torch uses.
            device: ``auto`` (CUDA if there is one), ``cpu`` or ``cuda``.
            slice_RAS: Place in world coordinates, in mm, through which the only slice goes that is quantified; outside
                of the acquisition, the nearest slice. None for all slices.
            progress: Called with the fraction done and a message; may raise to cancel.

        Returns:
            Nodes, folder, table and report.

        Raises:
            ValueError: Something is missing or unusable; one sentence that names the node or file.
        """
        from NeuroCESTLib.core.threads import torch_threads

        from ...preprocessing.repeats import smoothing_warnings
        from ...preprocessing.water_line import water_warnings

        report = progress or silent
        report(0.0, "reading")
        chosen = method_named(method)
        if spatialPrior:
            require_spatial(chosen)
        study = Study.of(
            signalNode,
            protocol,
            reference,
            mask,
            signalNormalisation,
            m0_over_time=m0OverTime,
            field_strength_T=fieldStrength_T,
        )
        if slice_RAS is not None:
            study = study.at_slice(slice_RAS)
        settings = method_settings(
            model=model,
            asymmetryOffset_ppm=asymmetryOffset_ppm,
            lorentzianPreset=lorentzianPreset,
            power_uT=power_uT,
            network=network,
            config=config,
            calibration=calibration,
            noise_sd=noise_sd,
            dictionaryEntries=dictionaryEntries,
        )
        wanted = Preparation(motionCorrection, denoising, smoothing_ppm, quass)
        ready = acquired(study, MapNodes(b0, b1, t1), settings.model, model, wanted, report)
        study, spectra = ready.prepared.study, ready.spectra
        warnings = (*ready.warnings, *water_warnings(spectra))
        if settings.noise_sd is None:
            warnings = (*warnings, *smoothing_warnings(spectra))
        if spatialPrior:
            settings = replace(settings, neighbors=study.neighbors())
        regions = masks_on(segmentation, study.geometry) if segmentation is not None else {}
        if posterior:
            require_posterior(method, regions)
        maps_end = 0.6 if posterior else 0.95
        with torch_threads(threads):
            result = in_background(
                lambda report: quantify(
                    spectra, method, settings, device=choose_device(device), progress=part(report, 0.05, maps_end)
                ),
                report,
            )
        if quass:
            result = replace(result, summary={**result.summary, "quass": quass})
        if chosen.pool_presets and not lorentzianPreset:
            result = replace(result, summary={**result.summary, "lorentzian": chosen.pool_presets[0]})
        require_result(study, result)
        result = replace(result, quantities={**result.quantities, **ready.prepared.maps})
        intervals = None
        if posterior:
            with torch_threads(threads):
                intervals, rough = in_background(
                    lambda report: region_posteriors(
                        study, spectra, regions, method, settings, part(report, maps_end, 0.95)
                    ),
                    report,
                )
            warnings = (*warnings, *rough)
        made = into_scene(
            study,
            chosen,
            result,
            warnings=(*warnings, *result.warnings, *failure_warnings(study, result), *region_warnings(study, regions)),
            regions=regions,
            folder=folderName or f"{study.name} {method}",
            progress=part(report, 0.95, 1.0),
        )
        made.report.update({"preparation": ready.prepared.record} if ready.prepared.record else {})
        return made if intervals is None else with_posterior(made, intervals)

    @_names_inputs
    def fieldMaps(
        self,
        signalNode: Any,
        protocol: Any,
        *,
        method: str = "wasabi",
        reference: Any = None,
        mask: Any = None,
        folderName: str = "",
        signalNormalisation: str | None = None,
        m0OverTime: str = "interpolated",
        fieldStrength_T: float | None = None,
        motionCorrection: bool = False,
        denoising: bool = False,
        smoothing_ppm: float | None = None,
        b0Limits_ppm: tuple[float, float] | None = None,
        b1Limits: tuple[float, float] | None = None,
        progress: Progress | None = None,
    ) -> CESTQuantResult:
        """Map B0, and with ``wasabi`` relative B1, from an acquisition for that purpose.

        Args:
            signalNode: Sequence node with one volume per measurement.
            protocol: As in :meth:`fit`.
            method: ``wasabi`` or ``wassr``.
            reference: M0 volume or sequence.
            mask: Volume, label map or segmentation on the grid of the signal.
            folderName: Name of the folder; by default the names of signal and method.
            signalNormalisation: ``m0``, ``l2`` or ``none`` instead of what the protocol says.
            m0OverTime: How several M0 references act: ``interpolated`` at the time of every measurement (drift), or
                their ``mean``.
            fieldStrength_T: Static field in T where the protocol gives only offsets; it converts offsets and B0 maps in
                Hz.
            motionCorrection: Whether to bring all measurements, and M0 images, into the position of one of them
                (rigid).
            denoising: Whether to remove noise that neighbouring spectra do not share (MP-PCA); adds a map of the noise.
            smoothing_ppm: Width in ppm over which spectra are smoothed along their offsets; None not to.
            b0Limits_ppm: Lowest and highest B0 shift in ppm; by default the range of the offsets.
            b1Limits: Lowest and highest relative B1; by default 0.3 and 1.8.
            progress: Called with the fraction done and a message; may raise to cancel.

        Returns:
            Nodes, folder and report.

        Raises:
            ValueError: Something is missing or unusable; one sentence that names the node or file.
        """
        report = progress or silent
        report(0.0, "reading")
        chosen = method_named(method, FIELD_METHODS)
        study = Study.of(
            signalNode,
            protocol,
            reference,
            mask,
            signalNormalisation,
            m0_over_time=m0OverTime,
            field_strength_T=fieldStrength_T,
        )
        ready = acquired(study, preparation=Preparation(motionCorrection, denoising, smoothing_ppm), progress=report)
        study = ready.prepared.study
        limits = Settings(b0_limits_ppm=b0Limits_ppm, b1_limits=b1Limits)
        result = in_background(
            lambda report: map_fields(ready.spectra, method, limits, progress=part(report, 0.05, 0.95)), report
        )
        require_result(study, result)
        result = replace(result, quantities={**result.quantities, **ready.prepared.maps})
        made = into_scene(
            study,
            chosen,
            result,
            warnings=(*ready.warnings, *result.warnings, *failure_warnings(study, result)),
            regions={},
            folder=folderName or f"{study.name} {method}",
            progress=part(report, 0.95, 1.0),
        )
        made.report.update({"preparation": ready.prepared.record} if ready.prepared.record else {})
        return made
