"""Volumes of the tumour regions over more than two visits, each of which was compared with one of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ..images.compartments import title_of
from .region_volumes import VOLUME_REGIONS, difference, enumerated
from .result import JointResult, RegionVolume

_LEAST_APART_ML, _LEAST_APART_SHARE = 0.5, 0.02
"""Smallest difference between two measurements of the reference, in ml and of the larger one, that is told."""


@dataclass(frozen=True)
class FollowUpRow:
    """One region at one visit.

    A change is None where it is not known, see ``region_volumes.difference``.

    Attributes:
        visit: Number of the visit, from 1.
        volume: Volume at that visit.
        change_ml: Volume minus that of the reference visit, in ml.
        change_percent: The change in percent of the volume of the reference visit; None where that is zero.
        low_ml: Lower end of the interval of ``change_ml``; None without intervals, and for the reference itself.
        high_ml: Upper end of that interval.
        since_previous_ml: Volume minus that of the visit before, in ml; None for the first visit.
    """

    visit: int
    volume: RegionVolume
    change_ml: float | None
    change_percent: float | None
    low_ml: float | None
    high_ml: float | None
    since_previous_ml: float | None


def follow_up(pairs: Mapping[int, JointResult], reference: int) -> tuple[FollowUpRow, ...]:
    """Arrange the volumes of all visits over time.

    Every pair measures the reference anew. The volume that stands in the table is that of the first pair, and every
    change is the difference of two volumes of the table; ``reference_warnings`` tells where the pairs differ.

    Args:
        pairs: Result of the reference visit as the fixed and each other visit as the moving study, by the number of
            the other visit.
        reference: Number of the reference visit.

    Returns:
        One row for each region and visit, the visits of a region in their order; none if nothing was segmented.
    """
    rows: list[FollowUpRow] = []
    for region in VOLUME_REGIONS:
        of_reference = _at_reference(pairs, region)
        previous: RegionVolume | None = None
        for visit in sorted([*pairs, reference]):
            volume = of_reference if visit == reference else _volume(pairs[visit], "moving", region)
            if volume is not None:
                change, percent, low, high = difference(of_reference, volume)
                if visit == reference:
                    low = high = None
                rows.append(FollowUpRow(visit, volume, change, percent, low, high, difference(previous, volume)[0]))
            previous = volume
    return tuple(rows)


def reference_warnings(pairs: Mapping[int, JointResult], reference: int) -> tuple[str, ...]:
    """Return sentences if the pairs measure the reference differently, and if lesions of earlier visits are compared.

    Args:
        pairs: As for ``follow_up``.
        reference: Number of the reference visit.
    """
    warnings: tuple[str, ...] = ()
    if any(visit < reference and pair.lesions for visit, pair in pairs.items()):
        warnings = (
            f"for the visits before the reference, visit {reference}, lesions.csv tells what became of a lesion "
            f"from such a visit to visit {reference}, but its changes are the earlier minus the later volume",
        )
    found = []
    for region in VOLUME_REGIONS:
        shown = _at_reference(pairs, region)
        if shown is None or not shown.seen_share:  # a guess has no change anyway
            continue
        volumes = [row.volume_ml for pair in pairs.values() if (row := _volume(pair, "fixed", region)) is not None]
        low, high = min(volumes), max(volumes)
        if high - low >= max(_LEAST_APART_ML, _LEAST_APART_SHARE * high):
            name = title_of(region).lower()
            found.append(f"{name} {low:.1f} to {high:.1f} ml ({shown.volume_ml:.1f} ml in the table)")
    if not found:
        return warnings
    return (
        *warnings,
        f"every other visit is compared with visit {reference} on voxels that suit both, and its volumes are not the "
        f"same on all of them: {enumerated(found)}; do not interpret changes over time that are no larger, or "
        "give images of like voxels for all visits",
    )


def sentences_of_visits(sentences: Mapping[int, Sequence[str]], reference: int) -> list[str]:
    """Return what was told of pairs in words of the visits; what concerns the reference alone is told once.

    Args:
        sentences: Sentences or phrases about a pair, in which the reference is the fixed and the other visit the moving
            study, by the number of the other visit.
        reference: Number of the reference visit.
    """
    told = []
    for visit, of_pair in sentences.items():
        for sentence in of_pair:
            named = sentence.replace("the moving study", f"visit {visit}")
            for words in ("the fixed study", "the fixed one"):
                named = named.replace(words, f"visit {reference}")
            of_reference = "the fixed study" in sentence and "the moving study" not in sentence
            told.append(named if of_reference else f"visit {visit}: {named}")
    return list(dict.fromkeys(told))


def _at_reference(pairs: Mapping[int, JointResult], region: str) -> RegionVolume | None:
    """Volume of a region at the reference; None without a segmentation."""
    found = [row for pair in pairs.values() if (row := _volume(pair, "fixed", region)) is not None]
    # Some pairs may show that the reference has a part of the region where its images show nothing.
    return next((row for row in found if row.at_least), found[0]) if found else None


def _volume(pair: JointResult, study: str, region: str) -> RegionVolume | None:
    return next((row for row in pair.volumes if (row.study, row.region) == (study, region)), None)
