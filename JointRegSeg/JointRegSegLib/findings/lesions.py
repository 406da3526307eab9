"""Changes of the single lesions between two visits: new, growing, stable, shrinking, vanished and resected ones.

Lesions are connected parts of a region, measured on the grid of their own visit. Those of the two visits belong
together where they overlap after the registration. A lesion that vanished or shrank is called resected or partly
resected where a resection cavity took its place. A total volume hides a new nodule beside a lesion that was resected
or responds; the table of lesions does not.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import SimpleITK as sitk

from ..images.grid import mask_corners
from ..images.labels import CAVITY
from .lesion_status import COVERED_IN_PART, LESION_REGIONS, NOISE_ML, SMALLEST_ML, judged
from .region_volumes import VOLUME_REGIONS, voxel_ml
from .result import LesionChange, Point

_RESECTED = {"vanished": "resected", "shrinking": "partly resected"}
"""What a lesion is called of which less is left, where a cavity has taken its place."""
_RESECTED_SHARE = 0.5
"""Volume of the cavity in the lesion, relative to the volume that the lesion lost, from which it counts as resected."""
_JOINED_MM = 2.0
"""Parts that are no farther apart than this are one lesion."""
_TOLERANCE_MM = 2.0
"""Distance that the registration may misplace a lesion."""
_BESIDE_MM = 4.0
"""Distance from the former extent of a lesion from which tumour counts as a lesion of its own, unless the rest of the
lesion has not shrunk: then the lesion grew to one side."""
_MARGIN_MM = 15.0
"""Margin around all lesions of both visits within which they are compared."""
_LEAST_SHARE = 0.25
"""Share of a lesion that must lie on one of the other visit for the two to belong together."""
_NEAR_MM = 2.0
"""Distance from a place that is not shown at which a lesion reaches it; one voxel at least."""
_LEAST_UNSEEN_ML = 0.02
"""Smallest volume of a lesion that lies where the other visit shows nothing; the grids never agree to the voxel."""


def lesion_changes(
    fixed_labels: sitk.Image | None,
    moving_labels: sitk.Image | None,
    moving_to_fixed: sitk.Transform,
    fixed_to_moving: sitk.Transform,
    guessed: Collection[str] = (),
    hidden: tuple[Mapping[str, sitk.Image], Mapping[str, sitk.Image]] = ({}, {}),
    fields: tuple[sitk.Image, sitk.Image] | None = None,
    given: tuple[bool, bool] = (False, False),
    cut_off: tuple[Collection[str], Collection[str]] = ((), ()),
) -> tuple[LesionChange, ...]:
    """List the lesions of both visits with their changes, where the fixed study is the earlier one.

    Args:
        fixed_labels: Classes (uint8) of the fixed study on its own grid; None if it was not segmented.
        moving_labels: Classes of the moving study on its own grid.
        moving_to_fixed: Map of points of the fixed space to points of the moving space (LPS mm).
        fixed_to_moving: Its inverse.
        guessed: Regions that could only be guessed in one of the studies, or of which their segmentations have
            different compartments; they have no lesions.
        hidden: Voxels (non-zero) of the fixed and of the moving study in which no image shows a region, by region.
        fields: Images whose grids are the fields of view of the fixed and of the moving study; what lies within them
            and beyond the classes is background. None for the grids of the classes.
        given: Whether the classes of the fixed and of the moving study came with it. Predicted ones count for nothing
            where they are hidden.
        cut_off: Regions of which the fixed and of which the moving study shows only a part, see ``region_coverage``.

    Returns:
        The lesions of each region, largest first; none unless both studies are segmented.
    """
    if fixed_labels is None or moving_labels is None:
        return ()
    fields = fields or (fixed_labels, moving_labels)
    here, there = (_corners(labels) for labels in (fixed_labels, moving_labels))
    fixed_labels = _cropped(fixed_labels, [*here, *(fixed_to_moving.TransformPoint(p) for p in there)])
    moving_labels = _cropped(moving_labels, [*there, *(moving_to_fixed.TransformPoint(p) for p in here)])
    found: list[LesionChange] = []
    for region in LESION_REGIONS:
        if region not in guessed:
            unseen = hidden[0].get(region), hidden[1].get(region)
            labels = fixed_labels, moving_labels
            cut = region in cut_off[0], region in cut_off[1]
            pair = _LesionPair(region, labels, fields, unseen, given, cut, moving_to_fixed, fixed_to_moving)
            found += pair.changes()
    return tuple(found)


def exchanged(lesions: Sequence[LesionChange], to_other: sitk.Transform) -> tuple[LesionChange, ...]:
    """Return lesions with the roles of the fixed and the moving study exchanged; their status stays.

    Args:
        lesions: Lesions of both visits.
        to_other: Map of points of the former fixed space to points of the new one (LPS mm).
    """
    return tuple(
        replace(
            row,
            fixed_ml=row.moving_ml,
            moving_ml=row.fixed_ml,
            fixed_parts=row.moving_parts,
            moving_parts=row.fixed_parts,
            center_ras_mm=_mirrored(to_other.TransformPoint(_mirrored(row.center_ras_mm))),
            fixed_unseen_ml=row.moving_unseen_ml,
            moving_unseen_ml=row.fixed_unseen_ml,
            fixed_cut_off=row.moving_cut_off,
            moving_cut_off=row.fixed_cut_off,
        )
        for row in lesions
    )


@dataclass(frozen=True)
class _Parts:
    """Connected parts of a region on the grid of one visit, numbered from 1.

    Attributes:
        image: Number of the part of each voxel, 0 elsewhere.
        volumes_ml: Volume of each part.
    """

    image: sitk.Image
    volumes_ml: dict[int, float]

    @classmethod
    def of(cls, mask: np.ndarray, like: sitk.Image) -> _Parts:
        """Number the parts (K, J, I); those closer than 2 mm are one, and those below 0.05 ml are left out."""
        image = sitk.GetImageFromArray(mask.astype(np.uint8))
        image.CopyInformation(like)
        joined = sitk.ConnectedComponent(_grown(image, _JOINED_MM / 2), True)
        numbers = np.where(mask, sitk.GetArrayFromImage(joined), 0)
        volumes = np.bincount(numbers.ravel()) * voxel_ml(like)
        kept = [n for n in range(1, len(volumes)) if volumes[n] >= NOISE_ML]
        kept.sort(key=lambda n: -volumes[n])
        table = np.zeros(max(len(volumes), 1), dtype=np.uint16)
        table[kept] = np.arange(1, len(kept) + 1)
        numbered = sitk.GetImageFromArray(table[numbers])
        numbered.CopyInformation(like)
        return cls(numbered, {new: float(volumes[old]) for new, old in enumerate(kept, 1)})

    def center(self, number: int) -> Point:
        """Return the centre of a part in LPS mm."""
        index = np.argwhere(sitk.GetArrayViewFromImage(self.image) == number).mean(axis=0)[::-1]
        return self.image.TransformContinuousIndexToPhysicalPoint(index.tolist())


class _LesionPair:
    """The lesions of one region in both visits."""

    def __init__(
        self,
        region: str,
        labels: tuple[sitk.Image, sitk.Image],
        fields: tuple[sitk.Image, sitk.Image],
        hidden: tuple[sitk.Image | None, sitk.Image | None],
        given: tuple[bool, bool],
        cut_off: tuple[bool, bool],
        to_moving: sitk.Transform,
        to_fixed: sitk.Transform,
    ) -> None:
        self.region, self.to_fixed = region, to_fixed
        classes = VOLUME_REGIONS[region]
        self.fixed, self.moving = (
            _Parts.of(np.isin(_array(of_study), classes) & ~_at_voxels(None if known else unseen, of_study), of_study)
            for of_study, unseen, known in zip(labels, hidden, given, strict=True)
        )
        # Each visit's parts as seen from the other one.
        self.moving_there, self.fixed_there, self.cavity_there = (
            _array(sitk.Resample(image, onto.image, transform, sitk.sitkNearestNeighbor))
            for image, onto, transform in (
                (self.moving.image, self.fixed, to_moving),
                (self.fixed.image, self.moving, to_fixed),
                (sitk.Cast(labels[1] == CAVITY, sitk.sitkUInt8), self.fixed, to_moving),
            )
        )
        # Voxels of the one visit where the other one shows nothing; what was drawn there all the same is known.
        self.unseen_by_moving = _unseen(fields[1], hidden[1], self.fixed.image, to_moving) & (self.moving_there == 0)
        self.unseen_by_fixed = _unseen(fields[0], hidden[0], self.moving.image, to_fixed) & (self.fixed_there == 0)
        # Voxels of each visit beside a place that neither of them shows.
        self.fixed_end, self.moving_end = (
            _beside_unseen(fields, hidden, parts.image, transforms)
            if cut
            else np.zeros_like(_array(parts.image), dtype=bool)
            for parts, transforms, cut in (
                (self.fixed, (sitk.Transform(), to_moving), cut_off[0]),
                (self.moving, (to_fixed, sitk.Transform()), cut_off[1]),
            )
        )

    def changes(self) -> list[LesionChange]:
        """Return the lesions, largest first."""
        links = _links(_array(self.fixed.image), self.moving_there, self.fixed.image)
        links |= {(f, m) for m, f in _links(_array(self.moving.image), self.fixed_there, self.moving.image)}
        rows = []
        for fixed_parts, moving_parts in _groups(set(self.fixed.volumes_ml), set(self.moving.volumes_ml), links):
            row = self._row(fixed_parts, moving_parts)
            beside = self._beside(moving_parts) if fixed_parts and moving_parts else []
            rest = self._less(row, beside)
            if rest.status in ("shrinking", "vanished", COVERED_IN_PART):
                rows += [self._or_resected(rest, fixed_parts), *beside]
            else:
                rows.append(row)
        rows = [row for row in rows if max(row.fixed_ml, row.moving_ml) >= SMALLEST_ML]
        rows.sort(key=lambda row: -max(row.fixed_ml, row.moving_ml))
        return [replace(row, number=number) for number, row in enumerate(rows, 1)]

    def _row(self, fixed_parts: list[int], moving_parts: list[int]) -> LesionChange:
        before = sum(self.fixed.volumes_ml[part] for part in fixed_parts)
        after = sum(self.moving.volumes_ml[part] for part in moving_parts)
        if fixed_parts:
            center = self.fixed.center(max(fixed_parts, key=self.fixed.volumes_ml.__getitem__))
        else:
            there = self.moving.center(max(moving_parts, key=self.moving.volumes_ml.__getitem__))
            center = self.to_fixed.TransformPoint(there)
        row = LesionChange(self.region, 0, "", before, after, len(fixed_parts), len(moving_parts), _mirrored(center))
        return judged(
            replace(
                row,
                fixed_unseen_ml=_unseen_ml(self.moving, moving_parts, self.unseen_by_fixed),
                moving_unseen_ml=_unseen_ml(self.fixed, fixed_parts, self.unseen_by_moving),
                fixed_cut_off=_unseen_ml(self.fixed, fixed_parts, self.fixed_end) > 0,
                moving_cut_off=_unseen_ml(self.moving, moving_parts, self.moving_end) > 0,
            )
        )

    def _beside(self, moving_parts: list[int]) -> list[LesionChange]:
        """Return as lesions of their own what lies well outside the former extent of a lesion and is surely new."""
        former = sitk.GetImageFromArray((self.fixed_there > 0).astype(np.uint8))
        former.CopyInformation(self.moving.image)
        outside = np.isin(_array(self.moving.image), moving_parts) & (_array(_grown(former, _BESIDE_MM)) == 0)
        parts = _Parts.of(outside, self.moving.image)
        rows = []
        for number, volume in parts.volumes_ml.items():
            unseen_ml = _unseen_ml(parts, [number], self.unseen_by_fixed)
            center = _mirrored(self.to_fixed.TransformPoint(parts.center(number)))
            row = LesionChange(self.region, 0, "", 0.0, volume, 0, 1, center, fixed_unseen_ml=unseen_ml)
            row = judged(replace(row, moving_cut_off=_unseen_ml(parts, [number], self.moving_end) > 0))
            if volume - unseen_ml >= SMALLEST_ML and row.status in ("new", "growing"):
                rows.append(row)  # any other is too small, or may have been there before
        return rows

    def _or_resected(self, row: LesionChange, fixed_parts: list[int]) -> LesionChange:
        """Return the row of a lesion of which less is left; where a cavity has taken its place, it was resected."""
        if row.status not in _RESECTED:
            return row
        lost = self.cavity_there[np.isin(_array(self.fixed.image), fixed_parts)] > 0
        lost_ml = float(lost.sum()) * voxel_ml(self.fixed.image)
        cut = lost_ml >= _RESECTED_SHARE * (row.fixed_ml - row.moving_ml)
        return replace(row, status=_RESECTED[row.status]) if cut else row

    @staticmethod
    def _less(row: LesionChange, beside: Sequence[LesionChange]) -> LesionChange:
        """Return the row of a lesion without the volume of the new ones beside it."""
        if not beside:
            return row
        after = max(0.0, row.moving_ml - sum(new.moving_ml for new in beside))
        unseen = row.fixed_unseen_ml - sum(new.fixed_unseen_ml for new in beside)
        return judged(replace(row, moving_ml=after, fixed_unseen_ml=max(0.0, unseen)))


def _beside_unseen(
    fields: tuple[sitk.Image, sitk.Image],
    hidden: tuple[sitk.Image | None, sitk.Image | None],
    onto: sitk.Image,
    transforms: tuple[sitk.Transform, sitk.Transform],
) -> np.ndarray:
    """Voxels (K, J, I), bool, of the grid of one visit beside a place that neither visit shows."""
    beside = np.ones(tuple(reversed(onto.GetSize())), dtype=bool)
    for field, unseen, transform in zip(fields, hidden, transforms, strict=True):
        layers = [
            min(max(1, int(_NEAR_MM / spacing + 0.5)), (size - 1) // 2)
            for spacing, size in zip(field.GetSpacing(), field.GetSize(), strict=True)
        ]
        grown = None if unseen is None else sitk.BinaryDilate(unseen, layers)
        beside &= _unseen(sitk.Crop(field, layers, layers), grown, onto, transform)
    return beside


def _unseen(field: sitk.Image, hidden: sitk.Image | None, onto: sitk.Image, transform: sitk.Transform) -> np.ndarray:
    """Voxels (K, J, I) of one visit, bool, where the other one lies beyond its field or its images show nothing."""
    everywhere = sitk.Image(field.GetSize(), sitk.sitkUInt8) + 1
    everywhere.CopyInformation(field)
    unseen = _array(sitk.Resample(everywhere, onto, transform, sitk.sitkNearestNeighbor)) == 0
    if hidden is not None:
        unseen |= _array(sitk.Resample(hidden, onto, transform, sitk.sitkNearestNeighbor)) > 0
    return unseen


def _unseen_ml(parts: _Parts, numbers: Collection[int], unseen: np.ndarray) -> float:
    """Volume of some parts that lies in unseen voxels; 0 where it is too little to count."""
    volume = float((np.isin(_array(parts.image), list(numbers)) & unseen).sum()) * voxel_ml(parts.image)
    return volume if volume >= _LEAST_UNSEEN_ML else 0.0


def _links(parts: np.ndarray, others: np.ndarray, like: sitk.Image) -> set[tuple[int, int]]:
    """Return (part, other) where a sufficient share of a part lies within 2 mm of one of the other visit."""
    links = set()
    for other in np.unique(others[others > 0]):
        mask = sitk.GetImageFromArray((others == other).astype(np.uint8))
        mask.CopyInformation(like)
        inside = parts[_array(_grown(mask, _TOLERANCE_MM)) > 0]
        for part, count in zip(*np.unique(inside[inside > 0], return_counts=True), strict=True):
            if count >= _LEAST_SHARE * (parts == part).sum():
                links.add((int(part), int(other)))
    return links


def _groups(fixed: set[int], moving: set[int], links: set[tuple[int, int]]) -> list[tuple[list[int], list[int]]]:
    """Return the groups of parts of both visits that are linked, directly or through others."""
    nodes = {("fixed", n) for n in fixed} | {("moving", n) for n in moving}
    groups = []
    while nodes:
        group, open_nodes = set(), [min(nodes)]
        while open_nodes:
            node = open_nodes.pop()
            if node in group:
                continue
            group.add(node)
            open_nodes += [("moving", m) for f, m in links if node == ("fixed", f)]
            open_nodes += [("fixed", f) for f, m in links if node == ("moving", m)]
        nodes -= group
        groups.append((sorted(n for k, n in group if k == "fixed"), sorted(n for k, n in group if k == "moving")))
    return groups


def _corners(labels: sitk.Image) -> list[Point]:
    """Return the corners in LPS mm of the box around all lesions; none without lesions."""
    mask = labels != 0
    return [tuple(c.tolist()) for c in mask_corners(mask)] if _array(mask).any() else []


def _cropped(labels: sitk.Image, points_mm: Sequence[Point]) -> sitk.Image:
    """Crop labels to the box around points, with a margin that the deformation may need; at least to one voxel."""
    size = np.array(labels.GetSize())
    if not points_mm:
        return sitk.RegionOfInterest(labels, [1, 1, 1], [0, 0, 0])
    index = np.array([labels.TransformPhysicalPointToContinuousIndex(point) for point in points_mm])
    margin = _MARGIN_MM / np.array(labels.GetSpacing())
    low = np.clip(np.floor(index.min(axis=0) - margin).astype(int), 0, size - 1)
    high = np.clip(np.ceil(index.max(axis=0) + margin).astype(int) + 1, low + 1, size)
    return sitk.RegionOfInterest(labels, (high - low).tolist(), low.tolist())


def _grown(mask: sitk.Image, distance_mm: float) -> sitk.Image:
    """Grow a mask (uint8) by a distance, along each axis by whole voxels of at most that length."""
    radius = [int(distance_mm / spacing + 0.5) for spacing in mask.GetSpacing()]
    return sitk.BinaryDilate(mask, radius) if max(radius) else mask


def _at_voxels(mask: sitk.Image | None, image: sitk.Image) -> np.ndarray:
    """A mask (K, J, I) at the voxels of an image, bool; nothing without a mask."""
    if mask is None:
        return np.zeros(tuple(reversed(image.GetSize())), dtype=bool)
    return _array(sitk.Resample(mask, image, sitk.Transform(), sitk.sitkNearestNeighbor)) > 0


def _mirrored(point: Sequence[float]) -> Point:
    """A point from LPS to RAS, or back."""
    left, back, up = point
    return (-left, -back, up)


def _array(image: sitk.Image) -> np.ndarray:
    return sitk.GetArrayFromImage(image)  # not a view: some of the images are temporary
