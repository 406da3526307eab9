"""Files of the user in the output folder, which no stage must remove."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from .engine import PLAN, folders_under_way
from .plan import FOLDERS, Plan

_MADE_BY_A_RUN = ("report.json", ".snakemake_timestamp")
"""Files in the folder of a stage that has ended: of the stage, and of Snakemake."""
_OF_NOBODY = (".DS_Store", "Thumbs.db", "desktop.ini")
"""Files that file managers lay into every folder that somebody looks at."""


def require_files_kept(folder: Path, plan: Plan) -> None:
    """Check that no stage would remove files of the user.

    Snakemake removes the folder of a stage, with all that is in it, before it runs the stage.

    Args:
        folder: Output folder of the run; it need not exist.
        plan: What is to be done.

    Raises:
        ValueError: An input lies in the folder of a stage, or that folder holds something although no run has made it,
            or the output folder lies in a folder of scanner files, all of which the import would read.
    """
    _require_output_outside_scans(folder, plan)
    is_under_way = folders_under_way(folder)
    stages = [(stage, subject, visit) for subject in plan.visits for stage, visit in plan.stages(subject)]
    targets: dict[Path, Path] = {}
    for stage, subject, visit in stages:
        key = f"{subject}/{visit.name}/{FOLDERS[stage]}"
        place = folder / key
        is_result = any((place / name).is_file() for name in _MADE_BY_A_RUN) or is_under_way(key)
        if _holds_files(place) and not ((folder / PLAN).is_file() and is_result):
            raise ValueError(
                f"'{place}' holds files that no earlier run in '{folder}' has made, and would be replaced by the "
                f"results of the stage {stage}: move them elsewhere, or choose another --output"
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


def _require_output_outside_scans(folder: Path, plan: Plan) -> None:
    for file in (file for visits in plan.visits.values() for visit in visits for file in visit.files.values()):
        if os.path.isdir(file) and _first_of({Path(file).resolve(): folder}, _places(folder)) is not None:
            raise ValueError(
                f"'{folder}' lies in '{file}', the folder of scanner files of a visit, so that results would be taken "
                "for scans: choose another --output, or name a folder in the manifest that holds the scans alone"
            )


def _holds_files(place: Path) -> bool:
    """Whether there is something that could be lost: a file, a link that leads nowhere, or files in a folder."""
    if place.is_dir():
        return any(file.name not in _OF_NOBODY for file in place.iterdir())
    return os.path.lexists(place)


def _places(path: str | Path) -> set[Path]:
    """Where a path leads, and where it would lead if it were no link."""
    return {Path(os.path.abspath(path)), Path(path).resolve()}


def _first_of(targets: dict[Path, Path], places: Iterable[Path]) -> Path | None:
    """The target in which one of the places lies; None if there is none."""
    return next((targets[part] for place in places for part in (place, *place.parents) if part in targets), None)
