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

from ..images.compartments import title_of
from ..images.grid import mask_corners
from ..images.labels import CAVITY
from .region_volumes import VOLUME_REGIONS, voxel_ml
from .result import LesionChange, Point

SMALLEST_ML = 0.1
"""Smallest volume that a lesion has at one of the visits; smaller ones are not listed."""
_NOISE_ML = SMALLEST_ML / 2
"""Volume below which a part is taken for noise: it neither makes a lesion an old one nor is left of it."""
CHANGED_SHARE = 0.25
"""Change of the volume, relative to that in the fixed study, from which a lesion counts as growing or shrinking."""
_RESECTED = {"vanished": "resected", "shrinking": "partly resected"}
"""What a lesion is called of which less is left, where a cavity has taken its place."""
_RESECTED_SHARE = 0.5
"""Volume of the cavity in the lesion, relative to the volume that the lesion lost, from which it counts as resected."""
LESION_REGIONS = ("enhancing_tumor", "whole_tumor")
"""Regions whose lesions are listed."""
_JOINED_MM = 2.0
"""Parts that are no farther apart than this are one lesion."""
_TOLERANCE_MM = 2.0
"""Distance that the registration may misplace a lesion."""
_BESIDE_MM = 4.0
"""Distance from the former extent of a shrinking lesion from which enhancement counts as a lesion of its own."""
_MARGIN_MM = 15.0
"""Margin around all lesions of both visits within which they are compared."""
_LEAST_SHARE = 0.25
"""Share of a lesion that must lie on one of the other visit for the two to belong together."""


def lesion_changes(
    fixed_labels: sitk.Image | None,
    moving_labels: sitk.Image | None,
    moving_to_fixed: sitk.Transform,
    fixed_to_moving: sitk.Transform,
    guessed: Collection[str] = (),
    hidden: tuple[Mapping[str, sitk.Image], Mapping[str, sitk.Image]] = ({}, {}),
    fields: tuple[sitk.Image, sitk.Image] | None = None,
    given: tuple[bool, bool] = (False, False),
) -> tuple[LesionChange, ...]:
    """List the lesions of both visits with their changes.

    Args:
        fixed_labels: Classes (uint8) of the fixed study on its own grid; None if it was not segmented.
        moving_labels: Classes of the moving study on its own grid.
        moving_to_fixed: Map of points of the fixed space to points of the moving space (LPS mm).
        fixed_to_moving: Its inverse.
        guessed: Regions that could only be guessed in one of the studies; they have no lesions.
        hidden: Voxels (non-zero) of the fixed and of the moving study in which no image shows a region, by region.
        fields: Images whose grids are the fields of view of the fixed and of the moving study; what lies within them
            and beyond the classes is background. None for the grids of the classes.
        given: Whether the classes of the fixed and of the moving study came with it. Predicted ones count for nothing
            where they are hidden.

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
            pair = _LesionPair(region, labels, fields, unseen, given, moving_to_fixed, fixed_to_moving)
            found += pair.changes()
    return tuple(found)


def lesion_warnings(lesions: Sequence[LesionChange]) -> tuple[str, ...]:
    """Return a sentence for each region in which new lesions contradict a total volume that falls.

    Args:
        lesions: Lesions as ``lesion_changes`` lists them.
    """
    warnings = []
    for region in LESION_REGIONS:
        rows = [row for row in lesions if row.region == region]
        new = [row for row in rows if row.status == "new"]
        growing = [row for row in rows if row.status == "growing"]
        before, after = sum(row.fixed_ml for row in rows), sum(row.moving_ml for row in rows)
        if not before or after >= before or not (new or growing):
            continue
        percent = 100 * (before - after) / before
        parts = [_counted(len(new), "new", sum(row.moving_ml for row in new))] if new else []
        parts += [_counted(len(growing), "growing", sum(row.moving_ml for row in growing))] if growing else []
        warnings.append(
            f"the {title_of(region).lower()} shrank by {percent:.0f} % in total, but there "
            f"{'is' if len(new) + len(growing) == 1 else 'are'} {' and '.join(parts)}: see the table of lesions"
        )
    return tuple(warnings)


def _counted(count: int, kind: str, volume_ml: float) -> str:
    return f"{count} {kind} lesion{'s' if count > 1 else ''} ({volume_ml:.1f} ml)"


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
        kept = [n for n in range(1, len(volumes)) if volumes[n] >= _NOISE_ML]
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
        to_moving: sitk.Transform,
        to_fixed: sitk.Transform,
    ) -> None:
        self.region, self.fields, self.hidden = region, fields, hidden
        self.to_moving, self.to_fixed = to_moving, to_fixed
        self.cavity = sitk.Cast(labels[1] == CAVITY, sitk.sitkUInt8)
        classes = VOLUME_REGIONS[region]
        self.fixed, self.moving = (
            _Parts.of(np.isin(_array(of_study), classes) & ~_at_voxels(None if known else unseen, of_study), of_study)
            for of_study, unseen, known in zip(labels, hidden, given, strict=True)
        )

    def changes(self) -> list[LesionChange]:
        """Return the lesions, largest first."""
        # Each visit's parts as seen from the other one, grown by what the registration may be wrong.
        moving_there = _array(
            sitk.Resample(self.moving.image, self.fixed.image, self.to_moving, sitk.sitkNearestNeighbor)
        )
        fixed_there = _array(
            sitk.Resample(self.fixed.image, self.moving.image, self.to_fixed, sitk.sitkNearestNeighbor)
        )
        links = _links(_array(self.fixed.image), moving_there, self.fixed.image)
        links |= {(f, m) for m, f in _links(_array(self.moving.image), fixed_there, self.moving.image)}
        cavity_there = _array(sitk.Resample(self.cavity, self.fixed.image, self.to_moving, sitk.sitkNearestNeighbor))
        rows = []
        for fixed_parts, moving_parts in _groups(set(self.fixed.volumes_ml), set(self.moving.volumes_ml), links):
            row = self._row(fixed_parts, moving_parts)
            beside = self._beside(moving_parts, fixed_there) if row.status in ("shrinking", "stable") else []
            rows += [self._or_resected(self._less(row, beside), fixed_parts, cavity_there), *beside]
        rows = [row for row in rows if max(row.fixed_ml, row.moving_ml) >= SMALLEST_ML]
        rows.sort(key=lambda row: -max(row.fixed_ml, row.moving_ml))
        return [replace(row, number=number) for number, row in enumerate(rows, 1)]

    def _row(self, fixed_parts: list[int], moving_parts: list[int]) -> LesionChange:
        before = sum(self.fixed.volumes_ml[part] for part in fixed_parts)
        after = sum(self.moving.volumes_ml[part] for part in moving_parts)
        if fixed_parts:
            center = self.fixed.center(max(fixed_parts, key=self.fixed.volumes_ml.__getitem__))
            seen = self._seen(1, self.to_moving.TransformPoint(center))
        else:
            there = self.moving.center(max(moving_parts, key=self.moving.volumes_ml.__getitem__))
            center = self.to_fixed.TransformPoint(there)
            seen = self._seen(0, center)
        status = _status(before, after) if seen or (fixed_parts and moving_parts) else "not covered"
        return LesionChange(self.region, 0, status, before, after, len(fixed_parts), len(moving_parts), _to_ras(center))

    def _seen(self, visit: int, point: Point) -> bool:
        """Whether the fixed (0) or the moving (1) visit shows the region at a point (LPS mm)."""
        if not _inside(self.fields[visit], point):
            return False
        unseen = self.hidden[visit]
        if unseen is None or not _inside(unseen, point):
            return True
        index = np.rint(unseen.TransformPhysicalPointToContinuousIndex(point)).astype(int)
        return not unseen[np.clip(index, 0, np.array(unseen.GetSize()) - 1).tolist()]

    def _beside(self, moving_parts: list[int], fixed_there: np.ndarray) -> list[LesionChange]:
        """Return as new lesions what lies well outside the former extent of a lesion that did not grow in total."""
        former = sitk.GetImageFromArray((fixed_there > 0).astype(np.uint8))
        former.CopyInformation(self.moving.image)
        outside = np.isin(_array(self.moving.image), moving_parts) & (_array(_grown(former, _BESIDE_MM)) == 0)
        parts = _Parts.of(outside, self.moving.image)
        rows = []
        for number, volume in parts.volumes_ml.items():
            if volume < SMALLEST_ML:
                continue
            center = self.to_fixed.TransformPoint(parts.center(number))
            if not self._seen(0, center):
                continue  # it may have been there before
            rows.append(LesionChange(self.region, 0, "new", 0.0, volume, 0, 1, _to_ras(center)))
        return rows

    def _or_resected(self, row: LesionChange, fixed_parts: list[int], cavity_there: np.ndarray) -> LesionChange:
        """Return the row of a lesion of which less is left; where a cavity has taken its place, it was resected."""
        if row.status not in _RESECTED:
            return row
        lost_ml = float((cavity_there[np.isin(_array(self.fixed.image), fixed_parts)] > 0).sum()) * voxel_ml(
            self.fixed.image
        )
        cut = lost_ml >= _RESECTED_SHARE * (row.fixed_ml - row.moving_ml)
        return replace(row, status=_RESECTED[row.status]) if cut else row

    @staticmethod
    def _less(row: LesionChange, beside: Sequence[LesionChange]) -> LesionChange:
        """Return the row of a lesion without the volume of the new ones beside it."""
        if not beside:
            return row
        after = max(0.0, row.moving_ml - sum(new.moving_ml for new in beside))
        status = _status(row.fixed_ml, after if after >= _NOISE_ML else 0.0)
        return replace(row, status=status, moving_ml=after)


def _status(before_ml: float, after_ml: float) -> str:
    if not before_ml:
        return "new"
    if not after_ml:
        return "vanished"
    change = after_ml - before_ml
    if abs(change) < max(CHANGED_SHARE * before_ml, SMALLEST_ML / 2):
        return "stable"
    return "growing" if change > 0 else "shrinking"


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


def _inside(image: sitk.Image, point: Point) -> bool:
    index = image.TransformPhysicalPointToContinuousIndex(point)
    return all(-0.5 <= i <= size - 0.5 for i, size in zip(index, image.GetSize(), strict=True))


def _to_ras(point_lps: Sequence[float]) -> Point:
    left, back, up = point_lps
    return (-left, -back, up)


def _array(image: sitk.Image) -> np.ndarray:
    return sitk.GetArrayFromImage(image)  # not a view: some of the images are temporary
