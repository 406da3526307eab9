"""Results of a run on two visits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import SimpleITK as sitk
from torch import Tensor

from ..images.study import StudyImages


@dataclass(frozen=True)
class RegionCoverage:
    """How much of a region a visit shows.

    Attributes:
        share: Share of the brain, 0 to 1, in which an image shows the region.
        cut_off: Whether the region touches a part of the brain that no such image shows, or lies in one.
        hidden: That part (D, H, W), boolean, on the working grid; None if there is none or no image shows the region.
    """

    share: float = 1.0
    cut_off: bool = False
    hidden: Tensor | None = None


Point = tuple[float, float, float]


@dataclass(frozen=True)
class RegionVolume:
    """Volume of one tumour region in one study.

    Attributes:
        study: 'fixed' or 'moving'.
        region: A class such as ``edema`` or a union of classes such as ``whole_tumor``.
        volume_ml: Volume in ml.
        low_ml: Lower end of an interval for the volume a network found, in ml, see ``region_volumes``; None without it.
            The interval is meant to hold the true volume in 90 % of cases, so that its width is 3.29 standard errors.
        high_ml: Upper end of the interval, in ml; None without it.
        at_least: Whether the volume is only the least one, because the images do not show all of the region.
        seen_share: Share of the brain, 0 to 1, in which an image shows the region; 0 for a guess.
        classes: Numbers of the classes that were measured: those of the region which the segmentation can have.
    """

    study: str
    region: str
    volume_ml: float
    low_ml: float | None = None
    high_ml: float | None = None
    at_least: bool = False
    seen_share: float = 1.0
    classes: tuple[int, ...] = ()


@dataclass(frozen=True)
class VolumeChange:
    """Change of one region from the fixed to the moving study.

    A volume is None where its study was not segmented. The change is also None where a network segmented a study that
    lacks the modality in which the region is visible, because the volume is then a guess, where the images of one
    of the studies do not show all of the region, and where the segmentations of the studies have different compartments
    of it.

    Attributes:
        region: A class or a union of classes, as in ``RegionVolume``.
        fixed_ml: Volume in the fixed study, in ml; None also where its segmentation does not have the compartment.
        moving_ml: Volume in the moving study, in ml; None as for ``fixed_ml``.
        change_ml: Moving minus fixed volume, in ml.
        change_percent: The change in percent of the fixed volume; None where that is zero.
        low_ml: Lower end of the interval of ``change_ml``; None without intervals of both volumes.
        high_ml: Upper end of that interval.
        moving_warped_ml: Volume of the moving study's region after it was warped onto the fixed grid, in ml; None
            where one of the studies does not show all of the region.
        fixed_deformed_ml: Volume that the fixed study's region takes up in the moving study according to the
            deformation, in ml: the sum of the Jacobian determinants over the region; None as for ``moving_warped_ml``.
        fixed_at_least: Whether the images of the fixed study do not show all of the region.
        moving_at_least: The same for the moving study.
    """

    region: str
    fixed_ml: float | None
    moving_ml: float | None
    change_ml: float | None
    change_percent: float | None
    low_ml: float | None
    high_ml: float | None
    moving_warped_ml: float | None
    fixed_deformed_ml: float | None
    fixed_at_least: bool = False
    moving_at_least: bool = False


@dataclass(frozen=True)
class StudyResult:
    """Results of ``process_study``, on the native grid of the visit, see ``JointResult``.

    Attributes:
        labels: Classes (uint8).
        uncertainty: Entropy of the predicted classes, 0 (certain) to 1.
        mask: Brain mask that was used.
        volumes: Volumes of all regions.
        summary: Numbers for the report.
        warnings: Sentences for the user.
        probabilities: Class probabilities by class name; empty unless kept.
        positioned: The visit with its images in one position; None if it is not known.
        positions: Rigid map of points of the native space to points of an image, by modality, for the images that lay
            apart and were aligned (LPS mm).
    """

    labels: sitk.Image
    uncertainty: sitk.Image | None
    mask: sitk.Image
    volumes: tuple[RegionVolume, ...]
    summary: Mapping[str, Any]
    warnings: tuple[str, ...]
    probabilities: Mapping[str, sitk.Image] = field(default_factory=dict)
    positioned: StudyImages | None = None
    positions: Mapping[str, sitk.Transform] = field(default_factory=dict)


@dataclass(frozen=True)
class LesionChange:
    """A lesion in both visits, or in one of them.

    Attributes:
        region: 'enhancing_tumor' or 'whole_tumor'.
        number: Number within the region, from 1; the largest lesion comes first.
        status: What became of it from the earlier to the later visit: 'new', 'growing', 'stable', 'shrinking' or
            'vanished'; 'partly resected' or 'resected' where a resection cavity took the place of what was lost; 'not
            covered' where the other visit does not show the place, and 'covered in part' where it shows too little of
            it to tell one of these, or neither study shows all of it.
        fixed_ml: Volume in the fixed study, in ml; 0 where it has none.
        moving_ml: Volume in the moving study, in ml; 0 where it has none.
        fixed_parts: Connected parts in the fixed study that belong to the lesion.
        moving_parts: Connected parts in the moving study.
        center_ras_mm: Centre in the fixed space, RAS mm.
        fixed_unseen_ml: Volume of the lesion in the moving study that lies where the fixed study shows nothing, in ml;
            ``fixed_ml`` is then only the least volume.
        moving_unseen_ml: The same with the studies exchanged.
        fixed_cut_off: Whether the lesion reaches a place in the fixed study that neither study shows; ``fixed_ml`` is
            then only the least volume as well.
        moving_cut_off: The same for the moving study.
    """

    region: str
    number: int
    status: str
    fixed_ml: float
    moving_ml: float
    fixed_parts: int
    moving_parts: int
    center_ras_mm: Point
    fixed_unseen_ml: float = 0.0
    moving_unseen_ml: float = 0.0
    fixed_cut_off: bool = False
    moving_cut_off: bool = False

    @property
    def fixed_at_least(self) -> bool:
        """Whether ``fixed_ml`` is only the least volume."""
        return self.fixed_unseen_ml > 0 or self.fixed_cut_off

    @property
    def moving_at_least(self) -> bool:
        """Whether ``moving_ml`` is only the least volume."""
        return self.moving_unseen_ml > 0 or self.moving_cut_off

    @property
    def change_ml(self) -> float | None:
        """Moving minus fixed volume in ml; None where one of the studies does not show all of the lesion."""
        return None if self.fixed_at_least or self.moving_at_least else self.moving_ml - self.fixed_ml

    @property
    def change_percent(self) -> float | None:
        """Change in percent of the fixed volume; None for a new lesion, and where there is no ``change_ml``."""
        change = self.change_ml
        return 100 * change / self.fixed_ml if self.fixed_ml and change is not None else None


@dataclass(frozen=True)
class JointResult:
    """Results of ``process_pair``.

    The native grid of a study is that of its first image or, where that shows only a part of the brain, of the first
    one that shows all of it, see ``images.brain_mask.brain_of``. Physical points are LPS in mm.

    Attributes:
        fixed_labels: Classes (uint8) on the native grid of the fixed study; None if it was not segmented and came
            without a segmentation.
        moving_labels: The same for the moving study.
        fixed_uncertainty: Entropy of the predicted classes, 0 (certain) to 1, on the native grid; None unless a network
            segmented the study.
        moving_uncertainty: The same for the moving study.
        fixed_mask: Brain mask that was used, on the native grid.
        moving_mask: The same for the moving study.
        moving_to_fixed: Maps points of the fixed space to the moving space, so that
            ``sitk.Resample(moving, fixed, moving_to_fixed)`` is the warped image. For an image with a transform in
            ``positions``, it is ``sitk.Resample(moving, fixed, sitk.CompositeTransform([position, moving_to_fixed]))``.
        fixed_to_moving: Inverse of ``moving_to_fixed``.
        affine: Linear part of ``moving_to_fixed``.
        warped: Images of the moving study on the grid of the fixed one, by modality.
        warped_labels: Classes of the moving study on the grid of the fixed one.
        jacobian: Jacobian determinant of ``moving_to_fixed`` on the grid of the fixed study.
        volumes: Volumes of all regions of both studies.
        changes: Changes of all regions; empty if neither study has a segmentation.
        lesions: Lesions of both visits with their changes; empty unless both studies have a segmentation.
        summary: Numbers for the report, with the times of the steps in seconds under 'seconds'.
        warnings: Sentences for the user.
        probabilities: Class probabilities by study ('fixed', 'moving') and class name; empty unless kept.
        positioned: Studies by role, each with its images in one position; empty if they are not known.
        positions: By role and modality, rigid map of points of the study's native space to points of an image, for the
            images that lay apart and were aligned.
    """

    fixed_labels: sitk.Image | None
    moving_labels: sitk.Image | None
    fixed_uncertainty: sitk.Image | None
    moving_uncertainty: sitk.Image | None
    fixed_mask: sitk.Image
    moving_mask: sitk.Image
    moving_to_fixed: sitk.Transform
    fixed_to_moving: sitk.Transform
    affine: sitk.AffineTransform
    warped: Mapping[str, sitk.Image]
    warped_labels: sitk.Image | None
    jacobian: sitk.Image
    volumes: tuple[RegionVolume, ...]
    changes: tuple[VolumeChange, ...]
    summary: Mapping[str, Any]
    warnings: tuple[str, ...]
    probabilities: Mapping[str, Mapping[str, sitk.Image]] = field(default_factory=dict)
    lesions: tuple[LesionChange, ...] = ()
    positioned: Mapping[str, StudyImages] = field(default_factory=dict)
    positions: Mapping[str, Mapping[str, sitk.Transform]] = field(default_factory=dict)
