"""What the numbers of the label volume of a single visit mean.

Those of two visits are read by ``jointregseg apply``. A single visit's label volume goes to ``cestquant compartments``
as it is, and the convention that is declared for ``jointregseg apply`` holds there, too.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise

from NeuroCESTLib.core.headers.nrrd import is_segmentation
from NeuroCESTLib.core.labels.conventions import convention_named, convention_of_name

from .settings import Settings
from .visits import Visit

_OPTION = "--labels"


def labels_of(visit: Visit, settings: Settings) -> str | None:
    """Return the value of ``--labels`` of ``cestquant compartments`` for a single visit.

    Args:
        visit: The visit.
        settings: What holds for all visits.

    Returns:
        What is declared for the registration, or else the convention that the name of the file tells; empty where
        neither is known. None where there is no label volume, or the arguments of the compartments declare it.
    """
    file = visit.files.get("segmentation")
    if file is None or is_segmentation(file) or _value_of(_OPTION, settings.compartments) is not None:
        return None
    by_name = convention_of_name(file)
    return _value_of(_OPTION, settings.registration) or (by_name.name if by_name else "")


def require_known_labels(visits: Iterable[Visit], settings: Settings) -> None:
    """Check that something says which compartments the numbers of single visits mean.

    Args:
        visits: The single visits.
        settings: What holds for all visits.

    Raises:
        ValueError: Nothing does; the message names the file and the remedy.
    """
    problems = []
    for visit in visits:
        labels = labels_of(visit, settings)
        convention = convention_named(labels or "")
        where = f"the segmentation '{visit.files.get('segmentation')}' of {visit.subject} {visit.name}"
        if labels == "":
            problems.append(
                f"{where} is a label volume, and nothing says what its numbers mean: declare it in the settings, as in "
                '"registration": ["--labels", "brats2023"]'
            )
        elif convention is not None and convention.classes is None:
            problems.append(
                f"{where} is declared as {labels}, a plain mask, which names no compartment: leave it out of the "
                "manifest, so that the network segments, or give the compartments"
            )
    if problems:
        more = f" (and {len(problems) - 1} more of single visits)" if len(problems) > 1 else ""
        raise ValueError(problems[0] + more)


def _value_of(option: str, arguments: Sequence[str]) -> str | None:
    """The value of an option among arguments; the last one counts."""
    found = None
    for argument, following in pairwise([*arguments, ""]):
        if argument == option:
            found = following
        elif argument.startswith(f"{option}="):
            found = argument.partition("=")[2]
    return found
