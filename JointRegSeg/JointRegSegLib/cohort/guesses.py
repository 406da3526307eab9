"""What is told of names that may mean a visit or a subject."""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping
from pathlib import Path

from .layouts import follows_a_date, holds_subjects


def tell_guesses(folders: Mapping[tuple[str, str], Path], top: Path) -> None:
    """Warn of folders that were taken as visits, or as subjects, and may be the other.

    Args:
        folders: Folder of every study, see ``layouts.study_folder``, by subject and visit.
        top: Folder of the data set.
    """
    at_top: dict[Path, list[str]] = {}
    for (_, visit), folder in folders.items():
        if folder.name == visit and holds_subjects(folder.parent, top):
            at_top.setdefault(folder.parent, []).append(visit)
    for parent, names in at_top.items():
        if len(names) > 1:
            warnings.warn(
                f"the folders {', '.join(names)} are taken as visits of one subject, '{parent.name}': correct the "
                "manifest if they are subjects",
                stacklevel=4,
            )
    dated = {key: folder for key, folder in folders.items() if follows_a_date(folder.name)}
    visits = [(subject, visit) for (subject, visit), folder in dated.items() if visit == folder.name]
    if visits:
        subject, visit = visits[0]
        more = f" and {len(visits) - 1} more" if len(visits) > 1 else ""
        warnings.warn(
            f"'{visit}'{more} begin with a date and are taken as visits of the subject that the folder above is named "
            f"after, such as '{subject}': correct the manifest if they are not",
            stacklevel=4,
        )
    subjects = [subject for (subject, _), folder in dated.items() if subject == folder.name]
    if subjects:
        more = f" and {len(subjects) - 1} more" if len(subjects) > 1 else ""
        warnings.warn(
            f"'{subjects[0]}'{more} begin with a date and are taken as different subjects: correct the manifest if "
            "some are visits of one, which must be in one split",
            stacklevel=4,
        )


def tell_similar_names(subjects: list[str]) -> None:
    """Warn of subjects whose names are those of others and more, as the visits of one subject often are."""
    known = set(subjects)
    similar = [
        f"'{name}' and '{name[: end.start()]}'"
        for name in subjects
        for end in re.finditer(r"[-_. ]", name)
        if name[: end.start()] in known
    ]
    if similar:
        more = f" and {len(similar) - 3} more" if len(similar) > 3 else ""
        warnings.warn(
            f"the names {', '.join(similar[:3])}{more} begin alike and are taken as different subjects: correct the "
            "manifest if they are visits of one, which must be in one split",
            stacklevel=3,
        )
