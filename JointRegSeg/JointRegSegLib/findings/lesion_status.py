"""Status of a lesion by its volumes at two visits, and warnings of what a total volume hides.

Where one of the visits shows only a part of a lesion, the place that it does not show may hold nothing there or as much
as at the other visit: the lesion has the status that follows from both, or else is covered in part. Of a lesion that
reaches a place which neither visit shows, nothing tells whether it changed: it is covered in part, unless one of the
visits has nothing of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from ..images.compartments import title_of
from .result import LesionChange

SMALLEST_ML = 0.1
"""Smallest volume that a lesion has at one of the visits; smaller ones are not listed."""
NOISE_ML = SMALLEST_ML / 2
"""Volume below which a part is taken for noise: it neither makes a lesion an old one nor is left of it."""
CHANGED_SHARE = 0.25
"""Change of the volume, relative to that at the earlier visit, from which a lesion counts as growing or shrinking."""
LESION_REGIONS = ("enhancing_tumor", "whole_tumor")
"""Regions whose lesions are listed."""
NOT_COVERED = "not covered"
COVERED_IN_PART = "covered in part"


def judged(row: LesionChange) -> LesionChange:
    """Return a row with the status that holds whether or not a visit has the lesion where it does not show it."""
    if (not row.moving_ml and row.fixed_ml - row.moving_unseen_ml < NOISE_ML) or (
        not row.fixed_ml and row.moving_ml - row.fixed_unseen_ml < NOISE_ML
    ):
        return replace(row, status=NOT_COVERED)
    after = row.moving_ml if row.moving_ml >= NOISE_ML else 0.0
    possible = {
        _status(row.fixed_ml + before_unseen, after + after_unseen)
        for before_unseen in {0.0, row.fixed_unseen_ml}
        for after_unseen in {0.0, row.moving_unseen_ml}
    }
    cut_off = row.fixed_cut_off or row.moving_cut_off
    if len(possible) > 1 or cut_off:
        fewest = {"new": "growing", "vanished": "shrinking"}  # what such a lesion is at least
        possible = {fewest.get(status, status) for status in possible}
    known = len(possible) == 1 and not (cut_off and row.fixed_ml and after)
    return replace(row, status=possible.pop() if known else COVERED_IN_PART)


def _status(before_ml: float, after_ml: float) -> str:
    if not before_ml:
        return "new"
    if not after_ml:
        return "vanished"
    change = after_ml - before_ml
    if abs(change) < max(CHANGED_SHARE * before_ml, SMALLEST_ML / 2):
        return "stable"
    return "growing" if change > 0 else "shrinking"


def lesion_warnings(lesions: Sequence[LesionChange], moving_is_earlier: bool = False) -> tuple[str, ...]:
    """Return a sentence for each region in which new lesions contradict a total volume that falls.

    Args:
        lesions: Lesions as ``lesion_changes`` lists them, with the earlier visit as the fixed study.
        moving_is_earlier: Whether the earlier visit is called the moving study.
    """
    course = "from the moving study to the fixed study, " if moving_is_earlier else ""
    warnings = []
    for region in LESION_REGIONS:
        rows = [row for row in lesions if row.region == region]
        new = [row for row in rows if row.status == "new"]
        growing = [row for row in rows if row.status == "growing"]
        whole = [row for row in rows if row.change_ml is not None]
        before, after = sum(row.fixed_ml for row in whole), sum(row.moving_ml for row in whole)
        if not before or after >= before or not (new or growing):
            continue
        percent = 100 * (before - after) / before
        parts = [_counted(len(new), "new", sum(row.moving_ml for row in new))] if new else []
        parts += [_counted(len(growing), "growing", sum(row.moving_ml for row in growing))] if growing else []
        extent = "" if len(whole) == len(rows) else ", as far as both visits show its lesions whole,"
        warnings.append(
            f"{course}the {title_of(region).lower()}{extent} shrank by {percent:.0f} % in total, but there "
            f"{'is' if len(new) + len(growing) == 1 else 'are'} {' and '.join(parts)}: see the table of lesions"
        )
    return tuple(warnings)


def _counted(count: int, kind: str, volume_ml: float) -> str:
    return f"{count} {kind} lesion{'s' if count > 1 else ''} ({volume_ml:.1f} ml)"
