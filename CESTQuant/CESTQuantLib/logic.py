"""Scene layer of CESTQuant: MRML nodes in, MRML nodes out; the same for panel, console and batch commands."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from NeuroCESTLib.core.background import in_background
from NeuroCESTLib.core.device import choose_device
from NeuroCESTLib.core.messages.input_errors import InputError
from NeuroCESTLib.core.progress import Progress, part, silent
from NeuroCESTLib.scene.messages import called, names_inputs, names_of
from NeuroCESTLib.scene.segmentations import masks_on

from .compartments.inputs import Settings as CompartmentSettings
from .methods.base import Settings
from .methods.registry import FIELD_METHODS, map_fields, method_named, quantify, require_spatial
from .scene.acquired import Preparation, acquired
from .scene.compartments.inputs import CompartmentVisit
from .scene.compartments.nodes import CompartmentsResult
from .scene.compartments.visits import FILES_OF_METHODS, analyze_visits
from .scene.maps import MapNodes
from .scene.patient_phantom import PatientNodes, Slab, add_patient_phantom
from .scene.phantom import add_phantom
from .scene.posterior import region_posteriors, require_posterior, with_posterior
from .scene.relaxation import RelaxationMaps, map_relaxation
from .scene.results import CESTQuantResult, failure_warnings, into_scene, region_warnings, require_result
from .scene.scanner import ImportedScan, import_scan, keep_protocol, kept_protocol
from .scene.settings import lorentzian_model, tissue_model
from .scene.spectrum import PlacedSpectrum, SpectraOfPlaces
from .scene.study import Study, carried_protocol, carry_protocol, knows_its_offsets, offsets_of_index

_names_inputs = names_inputs("signalNode", FILES_OF_METHODS)
_names_transform = names_inputs("", {"between": "between"})


class CESTQuantLogic:
    """Quantitative maps from nodes."""

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
        settings = self.settings(
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
        study, spectra, warnings = ready.prepared.study, ready.spectra, ready.warnings
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

    @_names_inputs
    def spectra(
        self,
        signalNode: Any,
        protocol: Any,
        *,
        reference: Any = None,
        mask: Any = None,
        b0: Any = None,
        b1: Any = None,
        t1: Any = None,
        model: Any = None,
        signalNormalisation: str | None = None,
        m0OverTime: str = "interpolated",
        fieldStrength_T: float | None = None,
        smoothing_ppm: float | None = None,
        quass: str | None = None,
    ) -> SpectraOfPlaces:
        """Prepare an acquisition for looking at single spectra, many a second.

        Args:
            signalNode: Sequence node with one volume per measurement.
            protocol: As in :meth:`fit`, and so are all other arguments.
            reference: M0 volume or sequence.
            mask: Volume, label map or segmentation; None for spectra everywhere.
            b0: Volume of the B0 shift in ppm.
            b1: Volume of the actual over the nominal B1.
            t1: Volume of the water T1 in s.
            model: Tissue model, for the maps that it names.
            signalNormalisation: ``m0``, ``l2`` or ``none``.
            m0OverTime: ``interpolated`` or ``mean``.
            fieldStrength_T: Static field in T.
            smoothing_ppm: Width in ppm over which spectra are smoothed.
            quass: Correction for finite saturation time and recovery.

        Returns:
            An object whose ``at(position_RAS, method, settings)`` is the spectrum of a voxel, and whose ``over`` is
            that of a region.

        Raises:
            ValueError: Something is missing or unusable; one sentence that names the node or file.
        """
        study = Study.of(
            signalNode,
            protocol,
            reference,
            mask,
            signalNormalisation,
            m0_over_time=m0OverTime,
            field_strength_T=fieldStrength_T,
        )
        wanted = Preparation(smoothing_ppm=smoothing_ppm, quass=quass)
        ready = acquired(study, MapNodes(b0, b1, t1), tissue_model(model), model, wanted)
        given = {
            "protocol": protocol,
            "reference": reference,
            "mask": mask,
            "b0": b0,
            "b1": b1,
            "t1": t1,
            "model": model,
        }
        return SpectraOfPlaces(ready.prepared.study, ready.spectra, names_of(given, FILES_OF_METHODS))

    @_names_inputs
    def spectrumAt(
        self,
        signalNode: Any,
        protocol: Any,
        position_RAS: tuple[float, float, float],
        *,
        method: str = "",
        model: Any = None,
        asymmetryOffset_ppm: float | tuple[float, ...] = 3.5,
        lorentzianPreset: str | dict | None = None,
        power_uT: float | None = None,
        network: str | None = None,
        config: str | None = None,
        calibration: str | None = None,
        **acquisition: Any,
    ) -> PlacedSpectrum:
        """Return the spectrum at a place, with its fit: ``spectrumAt(sequence, None, (10, 20, 0), method="r1rho")``.

        For many places of one acquisition, call :meth:`spectra` once and ask its result.

        Args:
            signalNode: Sequence node with one volume per measurement.
            protocol: As in :meth:`fit`.
            position_RAS: Place in world coordinates, in mm.
            method: Name of the method that fits the spectrum; empty for the measured points alone.
            model: Path or dictionary of a tissue model.
            asymmetryOffset_ppm: One or several offsets of a contrast in ppm.
            lorentzianPreset: As in :meth:`fit`.
            power_uT: B1 in uT of the spectrum that a contrast uses, where several powers were acquired.
            network: Network file (method ``network``).
            config: Configuration of the simulated data (method ``dictionary``).
            calibration: File of the calibration of the pH (method ``ph``).
            acquisition: Reference, maps and further arguments of :meth:`spectra`.

        Returns:
            Offsets, powers, signal, fit, residual and single pools, and the values with their standard errors.

        Raises:
            ValueError: Something is missing or unusable, or the place has no usable signal.
        """
        spectra = self.spectra(signalNode, protocol, model=model, **acquisition)
        settings = self.settings(
            model=model,
            asymmetryOffset_ppm=asymmetryOffset_ppm,
            lorentzianPreset=lorentzianPreset,
            power_uT=power_uT,
            network=network,
            config=config,
            calibration=calibration,
        )
        return spectra.at(position_RAS, method, settings)

    def settings(
        self,
        *,
        model: Any = None,
        asymmetryOffset_ppm: float | tuple[float, ...] = 3.5,
        lorentzianPreset: str | dict | None = None,
        power_uT: float | None = None,
        network: str | None = None,
        config: str | None = None,
        calibration: str | None = None,
        noise_sd: float | None = None,
        dictionaryEntries: int | None = None,
    ) -> Settings:
        """Return the settings of a method; the arguments are those of :meth:`fit`.

        Raises:
            ValueError: A file cannot be used, or a preset is unknown.
        """
        if noise_sd is not None and not 0 < noise_sd < float("inf"):
            raise InputError(
                "noise-sd", f"the noise of a normalised signal must be a positive number, not {noise_sd:g}"
            )
        if dictionaryEntries is not None and dictionaryEntries < 1:
            raise InputError("dictionary-entries", f"a dictionary needs at least one entry, not {dictionaryEntries}")
        offsets = asymmetryOffset_ppm if isinstance(asymmetryOffset_ppm, tuple | list) else (asymmetryOffset_ppm,)
        return Settings(
            model=tissue_model(model),
            lorentzian=lorentzian_model(lorentzianPreset),
            asymmetry_offsets_ppm=tuple(float(offset) for offset in offsets),
            power_uT=power_uT,
            network=network,
            config=config,
            calibration=calibration,
            noise_sd=noise_sd,
            dictionary_entries=dictionaryEntries,
        )

    @_names_transform
    def compartments(
        self,
        first: CompartmentVisit,
        second: CompartmentVisit | None = None,
        *,
        between: Any = None,
        rim_mm: float = 5.0,
        level: float = 0.95,
        draws: int = 500,
        perturbations: int = 12,
        alignmentError_mm: float = 0.5,
        segmentationError_mm: float = 0.5,
        seed: int = 1,
        fitSpectra: bool = True,
        folderName: str = "",
        progress: Progress | None = None,
    ) -> CompartmentsResult:
        """Give the CEST numbers of each compartment of a tumour at one or two visits, and their change.

        The maps stay on their own grid: the segmentation is brought to them as partial volumes.

        Args:
            first: The earlier visit, as nodes: maps, segmentation, anatomy and how the CEST images lie on it.
            second: The later visit, or None.
            between: Transform node or file that moves the second visit onto the first one (``moving_to_fixed.h5`` of
                ``jointregseg apply --fixed FIRST --moving SECOND``), for change maps, growth and Jacobian.
            rim_mm: Width of the rim around the enhancing tumour in mm; 0 for none.
            level: Level of the confidence intervals.
            draws: Number of bootstrap samples.
            perturbations: Number of disturbed alignments; 0 leaves the error of the alignment out.
            alignmentError_mm: Standard deviation of the alignment in mm along each axis.
            segmentationError_mm: Standard deviation in mm by which the outline of a region may lie too far outside or
                inside, for the intervals of the volume changes.
            seed: Seed of the random draws.
            fitSpectra: Whether to fit the mean spectrum of each region, where the acquisition is known.
            folderName: Name of the folder.
            progress: Called with the fraction done and a message; may raise to cancel.

        Returns:
            The analysis, and its tables, segmentations and change maps in the scene.

        Raises:
            ValueError: Something is missing or unusable, or the CEST images are not those of the anatomy; one sentence
                that names the visit and the remedy.
        """
        report = progress or silent
        report(0.0, "reading")
        settings = CompartmentSettings(
            rim_mm=rim_mm,
            level=level,
            draws=draws,
            perturbations=perturbations,
            alignment_error_mm=alignmentError_mm,
            segmentation_error_mm=segmentationError_mm,
            seed=seed,
            fit_spectra=fitSpectra,
        )
        folder = folderName or "Compartments"
        return analyze_visits(first, second, between, settings, self.settings, folder, report)

    def compartmentReport(
        self,
        result: CompartmentsResult,
        path: str | Path,
        *,
        label: str = "",
        fits: Sequence[Mapping[str, Any]] = (),
        registration: Mapping[str, Any] | None = None,
    ) -> Path:
        """Write the report on the compartments of a patient: one HTML file with pictures, tables, checks and methods.

        It holds no names of files or nodes, which may name the patient.

        Args:
            result: Result of :meth:`compartments`.
            path: File to write (``.html``).
            label: Pseudonym of the patient, for the headline.
            fits: Content of the ``report.json`` of each visit's maps; the report then also says how they were made.
            registration: Content of the ``report.json`` of ``jointregseg apply``.

        Returns:
            The path of the file.

        Raises:
            ValueError: The file cannot be written; the message names it.
        """
        from NeuroCESTLib.report.page import write_page

        from .scene.patient_report.material import material_of
        from .scene.patient_report.page import patient_page

        return write_page(patient_page(material_of(result, label, fits, registration or {})), path)

    @_names_inputs
    def relaxation(
        self,
        signalNode: Any,
        kind: str,
        values: Sequence[float],
        *,
        repetitionTime_s: float | None = None,
        b1: Any = None,
        mask: Any = None,
        folderName: str = "",
        progress: Progress | None = None,
    ) -> RelaxationMaps:
        """Map T1 or T2 with standard errors; a T1 map is usable at once as ``t1`` of :meth:`fit`.

        Args:
            signalNode: Sequence node with one volume per measurement.
            kind: ``inversion-recovery``, ``saturation-recovery``, ``variable-flip-angle`` or ``multi-echo``.
            values: Inversion, recovery or echo times in s, or flip angles in degrees, one for each measurement.
            repetitionTime_s: Time between excitations in s, for flip angles.
            b1: Volume of the relative B1, which scales flip angles.
            mask: Volume or label map on the grid of the signal; None for all voxels that have a signal.
            folderName: Name of the folder; by default the names of signal and kind.
            progress: Called with the fraction done and a message; may raise to cancel.

        Returns:
            Nodes ``t1_s`` or ``t2_s``, its standard error, ``rmse`` and ``status``, their folder and the report.

        Raises:
            ValueError: An argument is missing, does not belong to the kind, or does not fit the signal.
        """
        return map_relaxation(
            signalNode,
            kind,
            values,
            repetition_time_s=repetitionTime_s,
            b1=b1,
            mask=mask,
            folder=folderName,
            progress=progress or silent,
        )

    def importScan(
        self,
        source: str | Path,
        *,
        scan: str | int | None = None,
        offsets: Any = None,
        name: str = "",
        progress: Progress | None = None,
    ) -> ImportedScan:
        """Read scanner files into the scene: a sequence with geometry and offsets that carries its protocol.

        Args:
            source: Folder of a Bruker ParaVision study, of a scan, or of a reconstruction (``pdata/N``); folder or
                file of DICOM images; or a NIfTI file with its JSON file, or a folder with such files.
            scan: Number of the scan or series, or name of the NIfTI file; None for the only one, or the only one with
                saturation offsets.
            offsets: Offsets in ppm (a list, a text file or, for DICOM, a pulseq ``.seq``), of all measurements or of
                one repetition, instead of those that the files say.
            name: Name of the node; by default that of the scan.
            progress: Called with the fraction done and a message; may raise to cancel.

        Returns:
            The node, the protocol with None for what the files do not say, and what is to be filled in.

        Raises:
            ValueError: There is no such scan, or a file is missing, damaged or contradicts another one; one sentence
                that names it.
        """
        return import_scan(source, scan, offsets, name, progress or silent)

    def openValues(self, signalNode: Any) -> dict[str, str]:
        """Return what the protocol of an imported scan does not say: the heading of every such value, by its key."""
        from .tables.protocols import open_keys, title_of

        protocol = kept_protocol(signalNode)
        return {} if protocol is None else {key: title_of(key) for key in open_keys(protocol)}

    def fillIn(self, signalNode: Any, key: str, text: str) -> None:
        """Give a value that the files of an imported scan do not say; it is kept with the acquisition.

        Args:
            signalNode: Sequence node of :meth:`importScan`.
            key: Key of the protocol, one of :meth:`openValues`.
            text: The value as a user types it; offsets as numbers and ranges, such as ``-300, -6:0.25:6``.

        Raises:
            ValueError: The node has no such value to fill in, or the text cannot be used for it.
        """
        from .tables.protocols import filled_in

        protocol = kept_protocol(signalNode)
        if protocol is None or key not in self.openValues(signalNode):
            raise ValueError(f"{called(signalNode)} has no value {key} that is to be filled in")
        keep_protocol(signalNode, filled_in(protocol, key, text, signalNode.GetNumberOfDataNodes()))

    def hasProtocol(self, signalNode: Any) -> bool:
        """Whether the acquisition says how it was made: by its protocol, as the sample data, or by offsets in ppm."""
        return signalNode is not None and knows_its_offsets(signalNode)

    def protocolOf(self, signalNode: Any) -> dict[str, Any] | None:
        """Return the protocol that an acquisition carries, as the keys of a ``protocol.json``; None without one.

        Raises:
            ValueError: What it carries is no JSON.
        """
        return carried_protocol(signalNode)

    def offsetsOf(self, signalNode: Any) -> list[float] | None:
        """Return the offsets in ppm that are the index of an acquisition; None where its index is something else."""
        return offsets_of_index(signalNode)

    def setProtocol(self, signalNode: Any, protocol: Any) -> None:
        """Let an acquisition carry a protocol, which is saved with the scene and used where none is given.

        Args:
            signalNode: Sequence node.
            protocol: Path, dictionary or ``Protocol``.

        Raises:
            ValueError: The protocol cannot be used, or is that of another number of measurements.
        """
        carry_protocol(signalNode, protocol)

    def addPhantom(self, *, seed: int = 1, noise_sd: float = 0.002, progress: Progress | None = None) -> dict[str, Any]:
        """Simulate the digital brain phantom and add it to the scene; returns its nodes by name.

        Args:
            seed: Seed of the noise and of the biological spread.
            noise_sd: Standard deviation of the noise relative to M0 of white matter.
            progress: Called with the fraction done and a message; may raise to cancel.
        """
        _require_noise(noise_sd)
        return add_phantom(seed, noise_sd, progress or silent)

    def addPatientPhantom(
        self,
        regions: Any,
        *,
        values: Mapping[str, Any] | None = None,
        slab: Slab | None = None,
        seed: int = 1,
        noise_sd: float = 0.002,
        progress: Progress | None = None,
    ) -> PatientNodes:
        """Simulate the CEST acquisition of an anatomy and add it to the scene.

        Args:
            regions: Volume node with a label map: 0 air, 1 white matter, 2 grey matter, 3 cerebrospinal fluid, 4
                oedema, 5 enhancing tumour, 6 necrotic core.
            values: Tissue values that replace the usual ones, such as
                ``{"enhancing_tumor": {"amide.fraction": 0.002}}``.
            slab: Voxels, slices and misalignment of the acquisition.
            seed: Seed of the noise, of the biological spread and of the direction of the misalignment.
            noise_sd: Standard deviation of the noise relative to M0 of white matter.
            progress: Called with the fraction done and a message; may raise to cancel.

        Returns:
            The nodes by name, the true values of every region, and the true alignment.

        Raises:
            ValueError: The label map has other values, or a tissue value is unknown.
        """
        _require_noise(noise_sd)
        return add_patient_phantom(regions, values, slab or Slab(), seed, noise_sd, progress or silent)


def _require_noise(noise_sd: float) -> None:
    """Check the standard deviation of simulated noise."""
    if not 0 <= noise_sd < float("inf"):
        raise InputError("noise", f"the standard deviation of the noise is {noise_sd:g}, but must be 0 or more")
