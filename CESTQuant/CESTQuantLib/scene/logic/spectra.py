"""Spectra at places of an acquisition in the scene."""

from __future__ import annotations

from typing import Any

from NeuroCESTLib.scene.messages import names_inputs, names_of

from ..acquired import Preparation, acquired
from ..compartments.visits import FILES_OF_METHODS
from ..maps import MapNodes
from ..settings import method_settings, tissue_model
from ..spectrum import PlacedSpectrum, SpectraOfPlaces
from ..study import Study

_names_inputs = names_inputs("signalNode", FILES_OF_METHODS)


class SpectraLogic:
    """Spectra of single voxels and regions, with their fits."""

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
            protocol: As in :meth:`.MapsLogic.fit`, and so are all other arguments.
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
            protocol: As in :meth:`.MapsLogic.fit`.
            position_RAS: Place in world coordinates, in mm.
            method: Name of the method that fits the spectrum; empty for the measured points alone.
            model: Path or dictionary of a tissue model.
            asymmetryOffset_ppm: One or several offsets of a contrast in ppm.
            lorentzianPreset: As in :meth:`.MapsLogic.fit`.
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
        settings = method_settings(
            model=model,
            asymmetryOffset_ppm=asymmetryOffset_ppm,
            lorentzianPreset=lorentzianPreset,
            power_uT=power_uT,
            network=network,
            config=config,
            calibration=calibration,
        )
        return spectra.at(position_RAS, method, settings)
