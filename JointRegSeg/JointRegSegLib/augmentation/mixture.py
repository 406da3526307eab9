"""Sources of pairs made of other sources: with transplanted tumours, and with synthetic patients among real ones."""

from __future__ import annotations

import copy
from dataclasses import replace

import torch

from ..cohort.sample import Pair, PairSource
from ..cohort.sources import StudyPairs
from .transplant import TransplantConfig, Transplanter


class TransplantedPairs:
    """Pairs of a cohort whose tumours are healed, exchanged and recoloured at random, each study by itself.

    What happens to a pair depends on the seed, the epoch and the index alone.

    Attributes:
        config: Probabilities and ranges.
    """

    def __init__(self, pairs: StudyPairs, config: TransplantConfig, seed: int = 0) -> None:
        """Find the studies with a tumour, which are the donors.

        Args:
            pairs: Pairs of a cohort.
            config: Probabilities and ranges.
            seed: Seed of all draws.
        """
        self.pairs, self.seed, self._epoch = pairs, seed, 0
        counts = pairs.class_counts()
        donors = torch.nonzero(counts[:, 1:].sum(1) > 0)[:, 0].tolist()
        subjects = pairs.plan.subjects
        self._donors = {s: [number for number in donors if subjects[number] != s] for s in subjects}
        self.config = config

    def set_epoch(self, epoch: int) -> None:
        """Draw the pairs of an epoch."""
        self._epoch = epoch
        self.pairs.set_epoch(epoch)

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> Pair:
        generator = _generator(self.seed, self._epoch, index)
        fixed, moving = (
            self._transplanter(number)(sample, self.pairs.studies, generator)
            for number, sample in zip(self.pairs.pairs[index], self.pairs[index], strict=True)
        )
        return fixed, moving

    def resected(self) -> TransplantedPairs:
        """Return the pairs as they would be if every tumour were resected."""
        other = copy.copy(self)
        other.config = replace(self.config, resection_probability=1.0)
        return other

    def _transplanter(self, number: int) -> Transplanter:
        """Change of a study, with the tumours of other subjects."""
        return Transplanter(self.config, self._donors[self.pairs.plan.subjects[number]])


class MixedPairs:
    """Pairs of a cohort with synthetic patients among them, as many per epoch as there are synthetic ones."""

    def __init__(self, cohort: StudyPairs | TransplantedPairs, synthetic: PairSource, share: float, seed: int) -> None:
        """Mix two sources.

        Args:
            cohort: Pairs of a cohort; they are repeated, and each repetition is an epoch of its own.
            synthetic: Synthetic pairs.
            share: Share of the synthetic pairs.
            seed: Seed of all draws.
        """
        self.cohort, self.synthetic, self.share, self.seed = cohort, synthetic, share, seed
        self._epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Draw the pairs of an epoch."""
        self._epoch = epoch
        self.synthetic.set_epoch(epoch)

    def __len__(self) -> int:
        return len(self.synthetic)

    def __getitem__(self, index: int) -> Pair:
        if float(torch.rand(1, generator=_generator(self.seed + 1, self._epoch, index))) < self.share:
            return self.synthetic[index]
        repetitions = -(-len(self) // len(self.cohort))
        self.cohort.set_epoch(self._epoch * repetitions + index // len(self.cohort))
        return self.cohort[index % len(self.cohort)]


def _generator(seed: int, epoch: int, index: int) -> torch.Generator:
    return torch.Generator().manual_seed(((seed * 1_000_003 + epoch) * 1_000_003 + index) % 2**63)
