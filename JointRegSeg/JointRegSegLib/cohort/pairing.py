"""Which two studies make a pair: visits of one subject, or studies of different subjects, drawn anew in each epoch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from NeuroCESTLib.core.checked_json import settings_from_json

from .sampling import check_proportions, draw_studies, study_weights

KINDS = ("auto", "visits", "subjects", "same")
_SHOWN = 5
"""Most subjects that a message names."""


@dataclass(frozen=True)
class Pairing:
    """Rule by which studies are paired.

    Attributes:
        kind: ``visits`` pairs the visits of each subject: every two of them meet once per epoch. ``subjects`` pairs
            studies of different subjects at random: in each epoch every study is once the fixed one and, nearly
            always, once the moving one. ``same`` pairs every study with itself, so that the augmentation alone makes
            the two differ. ``auto`` pairs visits where any subject has two, and subjects otherwise.
        both_directions: Either of two visits may be the fixed one, at random; otherwise the earlier one is.
    """

    kind: str = "auto"
    both_directions: bool = True

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"kind is {self.kind!r}; use {', '.join(KINDS)}")
        if not isinstance(self.both_directions, bool):
            raise ValueError(f"both_directions is {self.both_directions!r} but must be true or false")

    @classmethod
    def of(cls, value: Any, where: str = "pairing") -> Pairing:
        """Build the rule from a kind, an object with settings, or None for the default.

        Raises:
            ValueError: The value cannot be used; the message begins with ``where``.
        """
        if value is None:
            return cls()
        return settings_from_json(cls, {"kind": value} if isinstance(value, str) else value, where)


@dataclass(frozen=True)
class StudySampling:
    """Drawing of pairs by the classes of one of their studies, with replacement: over- and under-sampling.

    The study that is drawn is the fixed one. Where the earlier visit has to be the fixed one, it may be either, so that
    a class that only later visits show, such as a resection cavity, is met as often as wanted.

    Attributes:
        proportions: Proportions by class name of ``labels.LABELS`` (``background`` means studies without tumour) or
            ``anywhere`` (all studies).
        pairs: Pairs per epoch; 0 for as many as without sampling.
    """

    proportions: Mapping[str, float] = field(default_factory=lambda: {"anywhere": 1.0})
    pairs: int = 0

    def __post_init__(self) -> None:
        if not isinstance(self.proportions, Mapping):
            raise ValueError(f"proportions is {self.proportions!r} but must be an object")
        check_proportions(self.proportions, "proportions")
        if isinstance(self.pairs, bool) or not isinstance(self.pairs, int) or self.pairs < 0:
            raise ValueError(f"pairs is {self.pairs!r} but must be a whole number of 0 or more")

    @classmethod
    def of(cls, value: Any, where: str = "sampling") -> StudySampling | None:
        """Build the settings from an object; None for no sampling.

        Raises:
            ValueError: The value cannot be used; the message begins with ``where``.
        """
        return None if value is None else settings_from_json(cls, value, where)


class PairPlan:
    """The pairs of study numbers of every epoch, which seed and epoch alone decide.

    Attributes:
        of_visits: Whether visits of a subject are paired, and not studies of different subjects.
        of_itself: Whether every study is paired with itself.
        left_out: Pairs per epoch that are left out because neither study has labels.
    """

    def __init__(
        self,
        subjects: Sequence[str],
        pairing: Pairing | None = None,
        sampling: StudySampling | None = None,
        counts: Tensor | None = None,
        seed: int = 0,
        source: str = "the cohort",
        labeled: Sequence[bool] | None = None,
    ) -> None:
        """Plan the pairs of a cohort.

        Args:
            subjects: Subject of each study; the visits of a subject are in their order.
            pairing: Rule; None for the default.
            sampling: How studies are drawn; None to take each one as often.
            counts: Voxels (study, 4) of each class; needed with ``sampling``.
            seed: Seed of all draws.
            source: Name of the cohort, for messages.
            labeled: Whether each study has labels, to leave out pairs of which neither study has any; None for all
                pairs.

        Raises:
            ValueError: No pair can be made.
        """
        self.subjects, self.seed = list(subjects), seed
        self.pairing = pairing or Pairing()
        self._visits: dict[str, list[int]] = {}
        for number, subject in enumerate(self.subjects):
            self._visits.setdefault(subject, []).append(number)
        several = any(len(numbers) > 1 for numbers in self._visits.values())
        self.of_visits = several if self.pairing.kind == "auto" else self.pairing.kind == "visits"
        if self.of_visits and not several:
            raise ValueError(f"no subject of {source} has two visits: add visits, or pair subjects")
        self.of_itself = self.pairing.kind == "same"
        if not (self.of_visits or self.of_itself) and len(self._visits) < 2:
            raise ValueError(
                f"{source} has a single subject, so that subjects cannot be paired: add subjects, or pair visits"
            )
        self._labeled = [True] * len(self.subjects) if labeled is None else list(labeled)
        visit_pairs = [
            (a, b) for numbers in self._visits.values() for i, a in enumerate(numbers) for b in numbers[i + 1 :]
        ]
        self._visit_pairs = [(a, b) for a, b in visit_pairs if self._labeled[a] or self._labeled[b]]
        self._fixed = [number for number, known in enumerate(self._labeled) if known]
        self._length = len(self._visit_pairs if self.of_visits else self._fixed)
        self.left_out = len(visit_pairs if self.of_visits else self.subjects) - self._length
        if self._length == 0:
            names = list(self._visits)
            more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
            raise ValueError(
                f"no pair of {source} has labels, and the segmentation alone is trained (subjects "
                f"{', '.join(names[:_SHOWN])}{more}): add label files, or train the registration too"
            )
        self._weights: Tensor | None = None
        if sampling is not None:
            if counts is None:
                raise ValueError("sampling by class needs the class counts of the studies")
            usable = torch.tensor([self._may_be_drawn(number) for number in range(len(self.subjects))])
            self._weights = torch.zeros(len(self.subjects), dtype=torch.float64)
            self._weights[usable] = study_weights(counts[usable], sampling.proportions)
            self._length = sampling.pairs or self._length

    def __len__(self) -> int:
        """Pairs per epoch."""
        return self._length

    def epoch(self, epoch: int) -> list[tuple[int, int]]:
        """Draw the (fixed, moving) study numbers of an epoch."""
        generator = torch.Generator().manual_seed((self.seed * 1_000_003 + epoch) % 2**63)
        if self._weights is not None:
            drawn = draw_studies(self._weights, self._length, generator)
            pairs = [(number, self._partner(number, generator)) for number in drawn]
            in_order = self.of_visits and not self.pairing.both_directions
            return [(min(pair), max(pair)) for pair in pairs] if in_order else pairs
        if self.of_visits:
            return self._pairs_of_visits(generator)
        if self.of_itself:
            return [(i, i) for i in self._shuffled(generator)]
        return self._pairs_of_subjects(generator)

    def _pairs_of_visits(self, generator: torch.Generator) -> list[tuple[int, int]]:
        """Every two visits of each subject, in random order and, where wanted, direction."""
        drawn = torch.rand(len(self._visit_pairs), generator=generator).tolist()
        pairs = [
            (b, a) if self.pairing.both_directions and number < 0.5 else (a, b)
            for (a, b), number in zip(self._visit_pairs, drawn, strict=True)
        ]
        return [pairs[i] for i in torch.randperm(len(pairs), generator=generator).tolist()]

    def _pairs_of_subjects(self, generator: torch.Generator) -> list[tuple[int, int]]:
        """Neighbours on a random ring of the studies; two neighbours of one subject get other partners."""
        ring = self._shuffled(generator)
        pairs = zip(ring, [*ring[1:], ring[0]], strict=True)
        return [(a, b if self.subjects[a] != self.subjects[b] else self._partner(a, generator)) for a, b in pairs]

    def _shuffled(self, generator: torch.Generator) -> list[int]:
        """The studies that may be the fixed one where visits are not paired, in random order."""
        return [self._fixed[i] for i in torch.randperm(len(self._fixed), generator=generator).tolist()]

    def _may_be_drawn(self, number: int) -> bool:
        """Whether a study can be drawn to make a pair."""
        return bool(self._partners(number)) if self.of_visits else self._labeled[number]

    def _partner(self, drawn: int, generator: torch.Generator) -> int:
        """Draw the other study of a pair."""
        if self.of_itself:
            return drawn
        others = self._partners(drawn)
        return others[int(torch.randint(len(others), (1,), generator=generator))]

    def _partners(self, drawn: int) -> list[int]:
        """The studies that may be the other one of a pair: those with labels, where there are any."""
        subject = self.subjects[drawn]
        if self.of_visits:
            others = [number for number in self._visits[subject] if number != drawn]
        else:
            others = [number for number, other in enumerate(self.subjects) if other != subject]
        labeled = [number for number in others if self._labeled[number]]
        return labeled or (others if self._labeled[drawn] else [])
