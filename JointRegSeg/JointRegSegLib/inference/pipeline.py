"""Two visits in; segmentations, the transform between them and everything on native grids out."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import SimpleITK as sitk
import torch
from torch import Tensor

from NeuroCESTLib.core.progress import Progress

from ..images.brain_mask import estimate_brain_mask
from ..images.compartments import title_of
from ..images.grid import WorkingGrid, labels_to_native, to_native
from ..images.labels import CLASSES, to_classes
from ..images.modalities import MODALITIES, TITLES
from ..images.preprocessing import (
    PreparedStudy,
    PreprocessingConfig,
    brain_grid,
    labels_on_grid,
    prepare_checked,
)
from ..images.study import StudyImages, checked_study, same_grid
from ..network.weights import LoadedWeights
from ..registration.affine import AffineResult, Brain, align
from ..registration.deformation import Deformation, identity_displacement
from ..registration.instance_optimization import RefinementSettings, refine
from ..registration.transforms import jacobian_image, pair_transform, warp_image, warp_label_image
from .network_pass import NetworkResult, run_network
from .region_volumes import SHOWN_BY, guessed_regions, region_volumes, volume_changes, without_islands
from .settings import InferenceSettings, JointResult, RegionVolume, VolumeChange
from .summary import registration_summary
from .uncertainty import Segmentation, entropy

__all__ = ["InferenceSettings", "JointResult", "RegionVolume", "StudyImages", "VolumeChange", "process_pair"]


def process_pair(
    fixed: StudyImages,
    moving: StudyImages,
    weights: LoadedWeights | None = None,
    settings: InferenceSettings | None = None,
    progress: Progress | None = None,
) -> JointResult:
    """Segment two visits and find the transform between them.

    weights: None registers without segmenting; one modality common to both visits is enough. Given tumour labels
    replace the network's, as result and as what the registration leaves out. ``progress(fraction, message)`` may raise
    to cancel.

    Raises:
        ValueError: one sentence that names the study and image, and the remedy.
    """
    settings = settings or InferenceSettings()
    try:
        return _Pair(fixed, moving, weights, settings, progress or (lambda fraction, message: None)).process()
    except (MemoryError, torch.OutOfMemoryError):
        raise ValueError(
            "there is not enough memory for this pair (about 6 GB for a brain at 1 mm): close other programs, choose "
            "the device 'cpu' if it was a GPU, or use weights with a larger spacing_mm"
        ) from None


@dataclass
class _Pair:
    """One run; each step leaves its results in the attributes for the next."""

    fixed: StudyImages
    moving: StudyImages
    weights: LoadedWeights | None
    settings: InferenceSettings
    report: Progress
    warnings: list[str] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)
    guessed: set[str] = field(default_factory=set)

    def process(self) -> JointResult:
        with self._timed("checks and masks"):
            self.report(0.0, "checking the images")
            self._check()
            self.report(0.02, "finding the brains")
            self.masks = [self._mask(study) for study in (self.fixed, self.moving)]
        with self._timed("affine"):
            self.alignment = self._align(self._part(0.05, 0.15))
        with self._timed("preprocessing"):
            self.report(0.15, "resampling")
            self._prepare()
        with self._timed("network"):
            self.network = self._run_network(self._part(0.2, 0.4))
        with self._timed("refinement"):
            self.deformation = self._refine(self._part(0.4, 0.85))
        with self._timed("results"):
            return self._results(self._part(0.85, 1.0))

    @contextmanager
    def _timed(self, step: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self.seconds[step] = round(time.perf_counter() - start, 3)

    def _part(self, start: float, end: float) -> Progress:
        return lambda fraction, message="": self.report(start + (end - start) * min(max(fraction, 0), 1), message)

    def _check(self) -> None:
        self.fixed, notes = checked_study(self.fixed)
        self.moving, more = checked_study(self.moving)
        self.warnings += notes + more
        self.common = tuple(m for m in self.fixed.present if m in self.moving.present)
        if not self.common:
            raise ValueError(
                f"the {self.fixed.name} study ({', '.join(self.fixed.present)}) and the {self.moving.name} study "
                f"({', '.join(self.moving.present)}) have no modality in common: give one that both have"
            )
        wanted = self.settings.registration_modalities
        missing = [m for m in wanted or () if m not in self.common]
        if missing:
            raise ValueError(f"the registration is to use {', '.join(missing)}, which not both studies have")
        self.driving = tuple(wanted or self.common)
        self.given = [
            None if study.tumor_labels is None else _class_image(study) for study in (self.fixed, self.moving)
        ]
        if self.weights is None:
            self.config = PreprocessingConfig(spacing_mm=self.settings.spacing_mm)
            return
        self.config = PreprocessingConfig.from_dict(self.weights.metadata.get("preprocessing", {}))
        known = self.weights.config.modalities
        for study in (self.fixed, self.moving):
            self.weights.check_modalities([m for m in study.present if m in known])
            ignored = [m for m in study.present if m not in known]
            if ignored:
                self.warnings.append(f"the network does not use {', '.join(ignored)} of the {study.name} study")
        self._warn_of_guesses()
        network = self.weights.config
        multiple = math.lcm(self.config.multiple_of, network.multiple * network.stride)
        self.config = replace(self.config, multiple_of=multiple)

    def _warn_of_guesses(self) -> None:
        for study, given in zip((self.fixed, self.moving), self.given, strict=True):
            guessed = () if given is not None else guessed_regions(study.present)
            self.guessed.update(guessed)
            for modalities in dict.fromkeys(SHOWN_BY[region] for region in guessed):
                names = [title_of(region).lower() for region in guessed if SHOWN_BY[region] == modalities]
                self.warnings.append(
                    f"the {study.name} study has no {' or '.join(TITLES[m] for m in modalities)}: its "
                    f"{', '.join(names)} are guesses of the network, and their changes are left out"
                )

    def _mask(self, study: StudyImages) -> sitk.Image:
        if study.brain_mask is None:
            found = estimate_brain_mask(study)
            self.warnings += found.warnings
            return found.mask
        mask = sitk.Cast(sitk.Cast(study.brain_mask, sitk.sitkFloat32) != 0, sitk.sitkUInt8)
        if same_grid(mask, study.reference):
            mask.CopyInformation(study.reference)
            return mask
        return sitk.Resample(mask, study.reference, sitk.Transform(3, sitk.sitkIdentity), sitk.sitkNearestNeighbor)

    def _align(self, progress: Progress) -> AffineResult:
        modality = next(m for m in MODALITIES if m in self.driving)
        sides = [
            Brain(study.images[modality], mask, study.tumor_labels, study.name)
            for study, mask in zip((self.fixed, self.moving), self.masks, strict=True)
        ]
        return align(sides[0], sides[1], self.settings.affine, progress)

    def _prepare(self) -> None:
        affine = self.alignment.transform
        anchor = self.fixed.reference
        self.grid: WorkingGrid = brain_grid([(self.masks[0], None), (self.masks[1], affine)], self.config, anchor)
        self.prepared: list[PreparedStudy] = [
            prepare_checked(self.fixed, self.masks[0], self.config, self.grid),
            prepare_checked(self.moving, self.masks[1], self.config, self.grid, affine),
        ]

    def _run_network(self, progress: Progress) -> NetworkResult:
        if self.weights is None:
            return NetworkResult(None, None, None)
        device = torch.device(self.settings.device or ("cuda" if torch.cuda.is_available() else "cpu"))
        background = self.config.background
        flips = self.settings.test_time_flips
        return run_network(self.weights, *self.prepared, background, flips, device, progress)

    def _tumors(self) -> list[Tensor | None]:
        """Where the tumours are on the working grid, (1, 1, D, H, W) bool; None where that is not known."""
        masks: list[Tensor | None] = []
        transforms = (None, self.alignment.transform)
        for given, found, transform in zip(
            self.given, (self.network.fixed, self.network.moving), transforms, strict=True
        ):
            if given is not None:
                masks.append((labels_on_grid(given, self.grid, transform) > 0)[None, None])
            else:
                masks.append(None if found is None else (found.labels > 0)[None, None])
        return masks

    def _refine(self, progress: Progress) -> Deformation:
        start = self.network.deformation
        if self.settings.refine_iterations == 0:
            return start or Deformation(identity_displacement(self.grid.shape))
        channels = [MODALITIES.index(m) for m in self.driving]
        first, second = (study.images[None, channels] for study in self.prepared)
        settings = self.settings
        values = {
            "iterations": settings.refine_iterations,
            "time_limit_s": settings.time_limit_s,
            "regulariser": settings.regulariser,
            "regularisation": settings.regularisation,
        }
        options = replace(
            RefinementSettings().for_spacing(self.grid.spacing_mm),
            **{name: value for name, value in values.items() if value is not None},
        )
        return refine(first, second, start, *self._tumors(), options, progress)

    def _results(self, progress: Progress) -> JointResult:
        progress(0.0, "results on the native grids")
        transform = pair_transform(self.deformation, self.grid, self.alignment.transform)
        back = self.alignment.transform.GetInverse()
        ways = (None, back)  # native points to points of the working grid
        found = (self.network.fixed, self.network.moving)
        studies = (self.fixed, self.moving)
        labels = [
            given if given is not None else self._native_labels(segmentation, study, way)
            for given, segmentation, study, way in zip(self.given, found, studies, ways, strict=True)
        ]
        entropies = [
            None
            if segmentation is None or given is not None
            else to_native(entropy(segmentation.probabilities), self.grid, study.reference, way)
            for given, segmentation, study, way in zip(self.given, found, studies, ways, strict=True)
        ]
        progress(0.3, "warping the moving images")
        there = transform.moving_to_fixed
        native = self.fixed.reference
        warped = {m: warp_image(self.moving.images[m], native, there) for m in self.moving.present}
        warped_labels = None if labels[1] is None else warp_label_image(labels[1], native, there)
        jacobian = jacobian_image(transform, native)
        progress(0.8, "volumes")
        voxel_scale = [
            None if segmentation is None or given is not None else segmentation.counts
            for given, segmentation in zip(self.given, found, strict=True)
        ]
        volumes = [
            () if image is None else region_volumes(image, name, counts)
            for image, name, counts in zip(labels, ("fixed", "moving"), voxel_scale, strict=True)
        ]
        summary = registration_summary(
            *self.prepared, self.deformation, transform, self.alignment, self.driving, self._tumors()[0]
        )
        summary["registration_modalities"] = list(self.driving)
        summary["seconds"] = self.seconds
        result = JointResult(
            labels[0],
            labels[1],
            entropies[0],
            entropies[1],
            self.masks[0],
            self.masks[1],
            there,
            transform.fixed_to_moving,
            self.alignment.transform,
            warped,
            warped_labels,
            jacobian,
            volumes[0] + volumes[1],
            volume_changes(*volumes, labels[0], warped_labels, jacobian, self.guessed),
            summary,
            tuple(self.warnings),
            self._probabilities(found, studies, ways),
        )
        progress(1.0, "done")
        return result

    def _native_labels(
        self, segmentation: Segmentation | None, study: StudyImages, way: sitk.Transform | None
    ) -> sitk.Image | None:
        if segmentation is None:
            return None
        labels = labels_to_native(segmentation.probabilities, self.grid, study.reference, way)
        return without_islands(labels, self.settings.smallest_island_ml)

    def _probabilities(self, found: tuple, studies: tuple, ways: tuple) -> dict[str, dict[str, sitk.Image]]:
        if not self.settings.keep_probabilities:
            return {}
        return {
            which: {
                name: to_native(shares, self.grid, study.reference, way, float(name == CLASSES[0]))
                for name, shares in zip(CLASSES, segmentation.probabilities, strict=True)
            }
            for which, segmentation, study, way in zip(("fixed", "moving"), found, studies, ways, strict=True)
            if segmentation is not None
        }


def _class_image(study: StudyImages) -> sitk.Image:
    """The given segmentation as classes on the grid of the study's first image."""
    labels = study.tumor_labels
    assert labels is not None
    classes = sitk.GetImageFromArray(
        to_classes(sitk.GetArrayViewFromImage(labels), f"tumour segmentation of the {study.name} study")
    )
    classes.CopyInformation(labels)
    if same_grid(classes, study.reference):
        classes.CopyInformation(study.reference)
        return classes
    return warp_label_image(classes, study.reference, sitk.Transform(3, sitk.sitkIdentity))
