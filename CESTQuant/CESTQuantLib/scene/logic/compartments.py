"""Numbers of the compartments of a tumour, from maps and segmentations in the scene."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from NeuroCESTLib.core.progress import Progress, silent
from NeuroCESTLib.scene.messages import names_inputs

from ...compartments.inputs import Settings
from ..compartments.inputs import CompartmentVisit
from ..compartments.nodes import CompartmentsResult
from ..compartments.visits import analyze_visits

_names_transform = names_inputs("", {"between": "between"})


class CompartmentsLogic:
    """The analysis of the compartments of a tumour, and its report."""

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
        settings = Settings(
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
        return analyze_visits(first, second, between, settings, folder, report)

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

        from ..patient_report.material import material_of
        from ..patient_report.page import patient_page

        return write_page(patient_page(material_of(result, label, fits, registration or {})), path)
