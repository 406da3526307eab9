"""Which two studies make a pair: visits of one subject, or studies of different subjects, anew in each epoch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from .sampling import check_proportions, draw_studies, study_weights

KINDS = ("auto", "visits", "subjects")


@dataclass(frozen=True)
class Pairing:
    """Rule for pairs.

    kind: 'visits' pairs the visits of each subject, every two of them once an epoch; 'subjects' pairs studies of
        different subjects at random, each study once as fixed and (nearly always) once as moving; 'auto' takes visits
        where any subject has two.
    both_directions: visits change places at random; otherwise the earlier one is fixed.
    """

    kind: str = "auto"
    both_directions: bool = True

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"pairing is {self.kind!r}; use {', '.join(KINDS)}")
        if not isinstance(self.both_directions, bool):
            raise ValueError(f"both_directions of the pairing is true or false, got {self.both_directions!r}")

    @classmethod
    def of(cls, value: Any) -> Pairing:
        """From a name, an object with settings, or None for the default."""
        return cls(**_settings(cls, {"kind": value} if isinstance(value, str) else value, "pairing"))


@dataclass(frozen=True)
class StudySampling:
    """Drawing of the fixed study by what it contains, with replacement: over- and under-sampling.

    proportions: by class name of ``labels.CLASSES`` ('background': studies without tumour) or 'anywhere' (all studies).
    pairs: an epoch; 0 for as many as without sampling.
    """

    proportions: Mapping[str, float] = field(default_factory=lambda: {"anywhere": 1.0})
    pairs: int = 0

    def __post_init__(self) -> None:
        if not isinstance(self.proportions, Mapping):
            raise ValueError(f"proportions of the sampling is an object, got {self.proportions!r}")
        check_proportions(self.proportions, "sampling")
        if isinstance(self.pairs, bool) or not isinstance(self.pairs, int) or self.pairs < 0:
            raise ValueError(f"pairs of the sampling must be a whole number of 0 or more, got {self.pairs!r}")

    @classmethod
    def of(cls, value: Any) -> StudySampling | None:
        """From an object with settings, or None for no sampling."""
        return None if value is None else cls(**_settings(cls, value, "sampling"))


class PairPlan:
    """Pairs of study numbers for every epoch, decided by seed and epoch alone.

    subjects: of each study, visits in their order. counts: (study, 4) voxels of each class, needed with ``sampling``.

    Raises:
        ValueError: no pair can be made.
    """

    def __init__(
        self,
        subjects: Sequence[str],
        pairing: Pairing | None = None,
        sampling: StudySampling | None = None,
        counts: Tensor | None = None,
        seed: int = 0,
        source: str = "the cohort",
    ) -> None:
        self.subjects, self.seed = list(subjects), seed
        self.pairing = pairing or Pairing()
        visits: dict[str, list[int]] = {}
        for number, subject in enumerate(self.subjects):
            visits.setdefault(subject, []).append(number)
        self._visits = visits
        several = any(len(numbers) > 1 for numbers in visits.values())
        self.of_visits = several if self.pairing.kind == "auto" else self.pairing.kind == "visits"
        if self.of_visits and not several:
            raise ValueError(f"no subject of {source} has two visits: give more, or pair subjects")
        if not self.of_visits and len(visits) < 2:
            raise ValueError(
                f"{source} has a single subject, so that subjects cannot be paired: give more, or pair visits"
            )
        self._pairs = [(a, b) for numbers in visits.values() for i, a in enumerate(numbers) for b in numbers[i + 1 :]]
        self._length = len(self._pairs) if self.of_visits else len(self.subjects)
        self._weights = None
        if sampling is not None:
            if counts is None:
                raise ValueError("sampling by class needs the class counts of the studies")
            usable = torch.tensor([not self.of_visits or len(visits[s]) > 1 for s in self.subjects])
            self._weights = study_weights(counts * usable[:, None], sampling.proportions) * usable
            self._length = sampling.pairs or self._length

    def __len__(self) -> int:
        """Pairs an epoch."""
        return self._length

    def epoch(self, epoch: int) -> list[tuple[int, int]]:
        """(fixed, moving) study numbers of an epoch."""
        generator = torch.Generator().manual_seed((self.seed * 1_000_003 + epoch) % 2**63)
        if self._weights is not None:
            fixed = draw_studies(self._weights, self._length, generator)
            return [(number, self._partner(number, generator)) for number in fixed]
        if self.of_visits:
            return self._visit_pairs(generator)
        return self._subject_pairs(generator)

    def _visit_pairs(self, generator: torch.Generator) -> list[tuple[int, int]]:
        turned = torch.rand(len(self._pairs), generator=generator) < 0.5
        turned = turned.tolist() if self.pairing.both_directions else [False] * len(self._pairs)
        pairs = [(b, a) if turn else (a, b) for (a, b), turn in zip(self._pairs, turned, strict=True)]
        return [pairs[i] for i in torch.randperm(len(pairs), generator=generator).tolist()]

    def _subject_pairs(self, generator: torch.Generator) -> list[tuple[int, int]]:
        """Neighbours on a random ring; those of one subject, which happen with many visits, are paired otherwise."""
        ring = torch.randperm(len(self.subjects), generator=generator).tolist()
        pairs = zip(ring, [*ring[1:], ring[0]], strict=True)
        return [(a, b if self.subjects[a] != self.subjects[b] else self._partner(a, generator)) for a, b in pairs]

    def _partner(self, fixed: int, generator: torch.Generator) -> int:
        own = self._visits[self.subjects[fixed]]
        if self.of_visits:
            others = [number for number in own if number != fixed]
            if not self.pairing.both_directions:
                others = [number for number in own if number > fixed] or others
        else:
            others = [number for number, subject in enumerate(self.subjects) if subject != self.subjects[fixed]]
        return others[int(torch.randint(len(others), (1,), generator=generator))]


def _settings(cls: type, value: Any, what: str) -> dict[str, Any]:
    if value is None:
        return {}
    known = list(cls.__dataclass_fields__)
    if not isinstance(value, Mapping):
        raise ValueError(f"{what} is an object with {', '.join(known)}, got {value!r}")
    unknown = [name for name in value if name not in known]
    if unknown:
        raise ValueError(f"{what}: unknown setting {', '.join(map(repr, unknown))}; known are {', '.join(known)}")
    return dict(value)
