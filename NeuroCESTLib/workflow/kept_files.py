"""Files of the user in the output folder, which no stage must remove."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from .engine import PLAN
from .plan import FOLDERS, Plan


def require_files_kept(folder: Path, plan: Plan) -> None:
    """Check that no stage would remove files of the user.

    Snakemake removes the folder of a stage, with all that is in it, before it runs the stage.

    Args:
        folder: Output folder of the run; it need not exist.
        plan: What is to be done.

    Raises:
        ValueError: An input lies in the folder of a stage, or that folder holds something although no run has made it.
    """
    stages = [(stage, subject, visit) for subject in plan.visits for stage, visit in plan.stages(subject)]
    targets: dict[Path, Path] = {}
    for stage, subject, visit in stages:
        place = folder / subject / visit.name / FOLDERS[stage]
        log = place.parent / "logs" / f"{stage}.log"
        if _holds_files(place) and not ((folder / PLAN).is_file() and (_report(place).is_file() or log.is_file())):
            raise ValueError(
                f"'{place}' holds files that no earlier run in '{folder}' has made, and would be replaced by the "
                f"results of the stage {stage}: choose another --output"
            )
        targets |= dict.fromkeys(_places(place), place)
    for stage, subject, visit in stages:
        for file in [*plan.job(stage, subject, visit.name).inputs, *visit.files.values()]:
            around = _first_of(targets, _places(file)) if os.path.isabs(file) else None
            if around is not None:
                raise ValueError(
                    f"'{file}' is an input of this run and lies in '{around}', which a stage replaces: choose another "
                    "--output"
                )


def _holds_files(place: Path) -> bool:
    """Whether there is something that could be lost: a file, a link that leads nowhere, or files in a folder."""
    return os.path.lexists(place) and not (place.is_dir() and not any(place.iterdir()))


def _report(place: Path) -> Path:
    return place / "report.json"


def _places(path: str | Path) -> set[Path]:
    """Where a path leads, and where it would lead if it were no link."""
    return {Path(os.path.abspath(path)), Path(path).resolve()}


def _first_of(targets: dict[Path, Path], places: Iterable[Path]) -> Path | None:
    """The target in which one of the places lies; None if there is none."""
    return next((targets[part] for place in places for part in (place, *place.parents) if part in targets), None)
