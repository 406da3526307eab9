"""Results of more than two visits in the scene."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from .results import JointRegSegResult, bound, number_or_nan

if TYPE_CHECKING:
    from ..findings.follow_up import FollowUpRow


@dataclass
class FollowUpResult:
    """Results of several visits that were compared with one of them.

    Attributes:
        reference: Number of the reference visit, from 1; it is the fixed study of every pair.
        pairs: Results of every other visit, as the moving study, by its number.
        rows: Volumes and changes of all regions over time.
        changes: Table of them; None if nothing was segmented.
        warnings: Sentences for the user.
    """

    reference: int
    pairs: dict[int, JointRegSegResult] = field(default_factory=dict)
    rows: tuple[FollowUpRow, ...] = ()
    changes: Any = None
    warnings: list[str] = field(default_factory=list)


def follow_up_columns(rows: Sequence[FollowUpRow]) -> dict[str, list]:
    """Return the columns of the table over time, see ``FollowUpRow``; NaN for what is not known."""
    names = ("change_ml", "change_percent", "low_ml", "high_ml", "since_previous_ml")
    titles = ("change_ml", "change_percent", "change_low_ml", "change_high_ml", "since_previous_ml")
    return {
        "region": [row.volume.region for row in rows],
        "visit": [row.visit for row in rows],
        "volume_ml": [row.volume.volume_ml for row in rows],
        "low_ml": [number_or_nan(row.volume.low_ml) for row in rows],
        "high_ml": [number_or_nan(row.volume.high_ml) for row in rows],
        "bound": [bound(row.volume.at_least) for row in rows],
        "seen_share": [row.volume.seen_share for row in rows],
        **{t: [number_or_nan(getattr(row, n)) for row in rows] for t, n in zip(titles, names, strict=True)},
    }
