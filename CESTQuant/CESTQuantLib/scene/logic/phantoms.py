"""Simulated acquisitions for the scene."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from NeuroCESTLib.core.messages.input_errors import InputError
from NeuroCESTLib.core.progress import Progress, silent

from ..patient_phantom import PatientNodes, Slab, add_patient_phantom
from ..phantom import add_phantom


class PhantomsLogic:
    """The digital phantom, and the phantom of a patient."""

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
