"""Picture of the volumes of the tumour regions over several visits."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from NeuroCESTLib.core.pictures import new_figure, save_figure

from ..findings.follow_up import FollowUpRow
from ..images.compartments import COMPARTMENTS, title_of
from ..images.labels import LABELS

_OTHERS = {"whole_tumor": "0.2", "tumor_core": "0.55"}
"""Gray levels of the unions of compartments."""


def draw_follow_up(rows: Sequence[FollowUpRow], path: str | Path, title: str = "") -> None:
    """Write the picture (PNG): the volume of each region at each visit, with its interval.

    A volume that is only the least one is drawn as an arrow upwards.

    Args:
        rows: Regions at visits.
        path: File to write.
        title: Headline of the picture.

    Raises:
        ValueError: Matplotlib is not installed, or the file cannot be written.
    """
    figure = new_figure((7.5, 4.8), title)
    axis = figure.subplots()
    for region in dict.fromkeys(row.volume.region for row in rows):
        some = [row for row in rows if row.volume.region == region]
        visits, volumes = [row.visit for row in some], [row.volume.volume_ml for row in some]
        color = COMPARTMENTS[LABELS.index(region)].color if region in LABELS else _OTHERS[region]
        axis.plot(visits, volumes, color=color, label=title_of(region))
        for row in some:
            volume = row.volume
            axis.plot(row.visit, volume.volume_ml, marker="^" if volume.at_least else "o", color=color)
            if volume.low_ml is not None and volume.high_ml is not None:
                axis.plot([row.visit] * 2, [volume.low_ml, volume.high_ml], color=color, linewidth=1, alpha=0.6)
    visits = sorted({row.visit for row in rows})
    axis.set_xticks(visits)
    axis.set_xlabel("visit")
    axis.set_ylabel("volume in ml")
    axis.set_ylim(bottom=0)
    if rows:
        axis.legend(frameon=False)
    if any(row.volume.at_least for row in rows):
        axis.set_title("triangles: at least this volume", fontsize=9)
    save_figure(figure, path)
