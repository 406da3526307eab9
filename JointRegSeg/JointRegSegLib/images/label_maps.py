"""Label maps of any convention read as tumour classes, with what was understood."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from NeuroCESTLib.core.labels.conventions import BINARY, CONVENTIONS, LabelConvention, convention_of_name

from .compartments import classes_of_segments, is_plain_mask
from .label_evidence import contradictions
from .labels import CAVITY, EDEMA, ENHANCING, LABELS, NECROTIC_CORE

_PRECEDENCE = (ENHANCING, CAVITY, NECROTIC_CORE, EDEMA)
"""Which class a voxel has in which segments overlap, the first one first; `CESTQuant` has the same order."""
_ROUNDING = 1e-4
"""Largest relative distance from a whole number that scaled or single-precision files cause."""
_MOST_SHOWN = 6

DECLARED, BY_NAME, BY_CONTENT, SEGMENT_NAMES = "declared", "file name", "numbers and arrangement", "segment names"
"""How a convention was found."""


@dataclass(frozen=True)
class LabelReading:
    """How a label map was understood.

    Attributes:
        source: File or node.
        convention: Name of the convention; 'segment names' for a segmentation with named segments.
        how: ``DECLARED``, ``BY_NAME``, ``BY_CONTENT`` or ``SEGMENT_NAMES``.
        meaning: Name of the compartment by number or segment.
        warnings: Sentences for the user.
    """

    source: str
    convention: str
    how: str
    meaning: dict[str, str]
    warnings: tuple[str, ...] = ()

    @property
    def compartments(self) -> frozenset[int]:
        """Numbers in ``LABELS`` of the compartments that the map can have, whether or not it has voxels of them."""
        return frozenset(LABELS.index(name) for name in self.meaning.values() if name in LABELS[1:])

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for a report."""
        return {"source": self.source, "convention": self.convention, "found_by": self.how, "meaning": self.meaning}


@dataclass(frozen=True)
class ReadLabels:
    """A label map as classes.

    Attributes:
        classes: Numbers of ``labels.LABELS``, uint8; for a plain mask 1 inside and 0 outside.
        plain: Whether it is a plain mask, which names no compartment.
        reading: How the map was understood.
    """

    classes: np.ndarray
    plain: bool
    reading: LabelReading


def classes_of_map(
    array: np.ndarray,
    source: str,
    convention: LabelConvention | None = None,
    names: Sequence[str] = (),
    t1ce: Callable[[], np.ndarray | None] | None = None,
) -> ReadLabels:
    """Read a label map as tumour classes.

    Args:
        array: Label map (D, H, W) of any number type; whole numbers only.
        source: Name of the file or node, for messages.
        convention: Declared convention; None to recognize it.
        names: Paths or names that may tell the convention, the most telling one first.
        t1ce: Returns T1 with contrast agent on the same grid, or None; it is called only where the numbers and the
            arrangement leave more than one convention.

    Returns:
        Classes, or a plain mask where the map has a single number that nothing explains.

    Raises:
        ValueError: The map is empty or has fractions or NaN, has numbers that the convention lacks, or its convention
            is not certain; the message names the remedy.
    """
    whole = _whole_numbers(array, source)
    values = [int(value) for value in _distinct(whole) if value]
    how = DECLARED
    if convention is None:
        convention = next(filter(None, map(convention_of_name, names)), None)
        how = BY_NAME
    warnings: list[str] = []
    if convention is None:
        how = BY_CONTENT
        if len(values) < 2:
            convention = CONVENTIONS[BINARY]
            if values:
                warnings.append(
                    f"the label map '{source}' has the single number {values[0]}, which names no compartment: it is a "
                    "plain mask of what the registration leaves out; declare its meaning with --labels if it has one"
                )
        else:
            convention = _recognized(whole, values, source, t1ce)
            warnings.append(
                f"the label map '{source}' is read as {convention.name} ({convention.describe(values)}) by its numbers "
                "and their arrangement; declare --labels if that is wrong"
            )
    if convention.classes is None:
        reading = LabelReading(source, convention.name, how, convention.meaning, tuple(warnings))
        return ReadLabels((whole != 0).astype(np.uint8), bool(values), reading)
    classes = np.zeros(whole.shape, np.uint8)
    if missing := [value for value in values if value not in convention.classes]:
        raise ValueError(
            f"the label map '{source}' has {_listed(missing)}, which {convention.name} does not have "
            f"({convention.describe()}): declare another convention with --labels, or the numbers one by one, as in "
            "1=core,2=oedema,3=enhancing"
        )
    for value in values:
        if convention.classes[value]:
            classes[whole == value] = convention.classes[value]
    return ReadLabels(classes, False, LabelReading(source, convention.name, how, convention.meaning, tuple(warnings)))


def classes_of_masks(masks: Mapping[str, np.ndarray], source: str) -> ReadLabels:
    """Read the segments of a segmentation as tumour classes by their names.

    Args:
        masks: Voxels of each segment by its name, bool (D, H, W). Where segments overlap, enhancing tumour comes before
            the cavity, the necrotic core and the oedema.
        source: Name of the file or node, for messages.

    Returns:
        Classes, or a plain mask for a single segment whose name means the tumour as a whole.

    Raises:
        ValueError: The name of a segment is unknown or unclear; the message names it.
    """
    plain = is_plain_mask(masks)
    known = dict.fromkeys(masks, 1) if plain else classes_of_segments(masks, source)
    classes = np.zeros(next(iter(masks.values())).shape, np.uint8)
    for name in sorted(masks, key=lambda name: _PRECEDENCE.index(known[name])):
        classes[masks[name] & (classes == 0)] = known[name]
    meaning = {name: "tumor" if plain else LABELS[number] for name, number in known.items()}
    return ReadLabels(classes, plain, LabelReading(source, SEGMENT_NAMES, SEGMENT_NAMES, meaning))


def _recognized(
    whole: np.ndarray, values: Sequence[int], source: str, t1ce: Callable[[], np.ndarray | None] | None
) -> LabelConvention:
    """The only convention that nothing speaks against."""
    fitting = [
        each
        for each in CONVENTIONS.values()
        if each.classes is not None and not each.only_declared and set(values) <= set(each.classes)
    ]
    if not fitting:
        raise ValueError(
            f"the label map '{source}' has {_listed(values)}, which fit no known convention: declare them, as "
            "in --labels 1=core,2=oedema,3=enhancing,4=cavity"
        )
    against = _contradicted(whole, values, fitting, None)
    possible = _distinct_meanings(values, fitting, against)
    image = t1ce() if t1ce is not None else None
    if image is not None:
        against = _contradicted(whole, values, fitting, image)
        possible = _distinct_meanings(values, fitting, against)
    if len(possible) == 1:
        return possible[0]
    names = " or ".join(each.name for each in (possible or fitting))
    described = "; ".join(f"{each.describe(values)} in {each.name}" for each in (possible or fitting))
    raise ValueError(
        f"the label map '{source}' has {_listed(values)}, which do not tell its convention for certain "
        f"({described}): declare --labels {names}"
    )


def _contradicted(
    whole: np.ndarray, values: Sequence[int], fitting: Sequence[LabelConvention], image: np.ndarray | None
) -> set[str]:
    """Names of the conventions that the map or its image contradicts."""
    return {
        each.name
        for each in fitting
        if contradictions(whole, {value: (each.classes or {})[value] for value in values}, image, each.name)
    }


def _distinct_meanings(
    values: Sequence[int], fitting: Sequence[LabelConvention], against: set[str]
) -> list[LabelConvention]:
    """Conventions that nothing contradicts, one of each meaning; the rare ones only where no other is left."""
    left = [each for each in fitting if each.name not in against]
    usual = [each for each in left if not each.rare] or left
    found: dict[tuple[int, ...], LabelConvention] = {}
    for each in usual:
        found.setdefault(tuple((each.classes or {})[value] for value in values), each)
    return list(found.values())


def _whole_numbers(array: np.ndarray, source: str) -> np.ndarray:
    """The labels as integers.

    Raises:
        ValueError: The map is empty, or has fractions or NaN.
    """
    array = np.asarray(array)
    if array.size == 0:
        raise ValueError(f"the label map '{source}' is empty")
    if array.dtype.kind in "iub":
        return array
    rounded = np.rint(array)
    with np.errstate(invalid="ignore"):
        exact = np.abs(array - rounded) <= _ROUNDING * np.maximum(np.abs(rounded), 1)
    if not exact.all():
        odd = _distinct(array[~exact])
        raise ValueError(
            f"the label map '{source}' has {_listed(odd)}, but labels must be whole numbers: choose the label map, or "
            "resample it again by nearest neighbour"
        )
    return rounded.astype(np.int64)


def _listed(values: Sequence[float]) -> str:
    shown = ", ".join(f"{value:g}" for value in values[:_MOST_SHOWN]) + (", …" if len(values) > _MOST_SHOWN else "")
    return f"the value{'s' if len(values) > 1 else ''} {shown}"


def _distinct(array: np.ndarray) -> list[float]:
    """Return the distinct values in ascending order, NaN last."""
    if array.dtype == np.uint8:  # counting avoids sorting millions of voxels
        return [float(value) for value in np.flatnonzero(np.bincount(array.reshape(-1)))]
    return [float(value) for value in np.unique(array)]
