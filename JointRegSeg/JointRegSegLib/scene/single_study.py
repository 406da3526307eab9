"""Results of the segmentation of one visit put into the scene."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from NeuroCESTLib.scene import display, hierarchy
from NeuroCESTLib.scene.tables import add_table
from NeuroCESTLib.scene.transaction import scene_unchanged_on_error

from .results import add_image, add_tumor, volume_columns

if TYPE_CHECKING:
    from ..findings.result import StudyResult
    from ..images.study import StudyImages


@dataclass
class SegmentationResult:
    """Nodes of the segmentation of one visit, and the subject-hierarchy folder that holds them.

    Attributes:
        found: The same results as images.
        study: Images that were segmented.
        segmentation: Segmentation on the grid of the reference of the study.
        uncertainty: Entropy of the predicted classes, 0 to 1.
        volumes: Table of the volumes.
        folderItemID: Subject-hierarchy item of the folder.
        report: Numbers for the report.
        warnings: Sentences for the user.
    """

    found: StudyResult
    study: StudyImages
    segmentation: Any = None
    uncertainty: Any = None
    volumes: Any = None
    folderItemID: int = 0
    report: dict[str, Any] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)

    @property
    def nodes(self) -> list[Any]:
        """All nodes, in the order of the folder."""
        return [n for n in (self.segmentation, self.uncertainty, self.volumes) if n is not None]


def segmentation_into_scene(found: StudyResult, study: StudyImages, folder: str) -> SegmentationResult:
    """Add the segmentation of one visit to the scene in one folder; after an error the scene is as it was.

    Args:
        found: Results to add.
        study: Images of the visit.
        folder: Name of the subject-hierarchy folder.
    """
    with scene_unchanged_on_error():
        result = SegmentationResult(found, found.positioned or study)
        result.segmentation = add_tumor(found.labels, "segmentation")
        if found.uncertainty is not None:
            result.uncertainty = add_image(found.uncertainty, "uncertainty")
            display.show_map(result.uncertainty, "", "inferno", (0.0, 1.0))
        result.volumes = add_table(volume_columns(found.volumes), "volumes")
        result.warnings = list(found.warnings)
        result.report = dict(found.summary)
        result.folderItemID = hierarchy.make_folder(folder)
        hierarchy.put(result.nodes, result.folderItemID)
        return result
