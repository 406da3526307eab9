"""Pairs of studies as batches: the same stream for one process or many, from the start or resumed."""

from __future__ import annotations

import signal
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset

from ..cohort.sample import Pair, StudySample

UNLABELLED = 255
"""Class of voxels that count in no loss and no score."""


class PairSource(Protocol):
    """Where pairs come from. The pair at an index depends on the epoch and the index alone."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Pair: ...

    def set_epoch(self, epoch: int) -> None: ...


@dataclass(frozen=True)
class Batch:
    """Pairs side by side on one grid.

    fixed, moving: (B, C, D, H, W). fixed_labels, moving_labels: (B, D, H, W) uint8, ``UNLABELLED`` throughout for a
    study without labels. fixed_mask, moving_mask: (B, D, H, W) bool, the brains. names: of the studies of each
    pair. number: of the first pair in the stream.
    """

    fixed: Tensor
    moving: Tensor
    fixed_labels: Tensor
    moving_labels: Tensor
    fixed_mask: Tensor
    moving_mask: Tensor
    names: tuple[tuple[str, str], ...]
    number: int = 0

    def __len__(self) -> int:
        return len(self.fixed)

    def to(self, device: torch.device) -> Batch:
        """The same batch on a device."""
        if self.fixed.device == device:
            return self
        moved = {k: v.to(device, non_blocking=True) for k, v in vars(self).items() if isinstance(v, Tensor)}
        return replace(self, **moved)

    def pin_memory(self) -> Batch:
        """For faster copies to a GPU; called by the data loader."""
        return replace(self, **{k: v.pin_memory() for k, v in vars(self).items() if isinstance(v, Tensor)})


def collate(pairs: Sequence[Pair], multiple: int = 16, number: int = 0) -> Batch:
    """Pairs as one batch; grids are padded at their ends to common sizes that are multiples of ``multiple``."""
    samples = [sample for pair in pairs for sample in pair]
    size = [-(-max(sample.shape[axis] for sample in samples) // multiple) * multiple for axis in range(3)]
    padded = [[_pad(sample, size) for sample in pair] for pair in pairs]
    fixed, moving = ([pair[side] for pair in padded] for side in (0, 1))
    return Batch(
        torch.stack([s.images for s in fixed]),
        torch.stack([s.images for s in moving]),
        _labels(fixed),
        _labels(moving),
        torch.stack([s.mask for s in fixed]),
        torch.stack([s.mask for s in moving]),
        tuple((a.name, b.name) for a, b in pairs),
        number,
    )


class BatchStream:
    """Batches from pair number ``first`` on, without end.

    Pair n is the source's pair of a shuffled position in pass n // length, augmented by a generator seeded with n: so
    the stream is the same however it is divided among workers, processes and sessions.

    Args:
        step_pairs: pairs a step over all processes. passes: forward passes that this process makes of its share.
        rank, count: of this process, which takes every step's part of that number.
        multiple: divisor of the grid's sizes.
    """

    def __init__(
        self,
        source: PairSource,
        augmentation: Callable[[Pair, torch.Generator], Pair] | None,
        *,
        seed: int,
        step_pairs: int,
        passes: int = 1,
        rank: int = 0,
        count: int = 1,
        multiple: int = 16,
        workers: int = 0,
        prefetch: int = 2,
        pin: bool = False,
    ) -> None:
        if len(source) == 0:
            raise ValueError("the training data hold no pair of studies")
        if step_pairs % (count * passes):
            raise ValueError(
                f"batch_size {step_pairs} cannot be shared by {count} processes with {passes} passes each; "
                "choose a multiple"
            )
        self._pairs = _Pairs(source, augmentation, seed)
        self._step_pairs, self._passes, self._rank, self._count = step_pairs, passes, rank, count
        self._length, self._seed, self._multiple = len(source), seed, multiple
        self._options: dict = {"num_workers": workers, "pin_memory": pin}
        if workers:
            self._options |= {"prefetch_factor": max(prefetch, 1), "worker_init_fn": _quiet_worker}

    def batches(self, first_step: int) -> Generator[Batch, None, None]:
        """This process's batches, ``passes`` for each step, from a step on. ``close()`` ends the workers."""
        sampler = _Numbers(
            first_step, self._step_pairs, self._passes, self._rank, self._count, self._length, self._seed
        )
        collator = _Collator(self._multiple)
        loaded = iter(DataLoader(self._pairs, batch_sampler=sampler, collate_fn=collator, **self._options))
        try:
            yield from loaded
        finally:
            if self._options["num_workers"]:
                loaded._shutdown_workers()  # they ignore the signal that would end them when this process ends


class _Pairs(Dataset):
    """The pair of (pass, index, number)."""

    def __init__(self, source: PairSource, augmentation: Callable | None, seed: int) -> None:
        self.source, self.augmentation, self.seed, self.turn = source, augmentation, seed, -1

    def __getitem__(self, item: tuple[int, int, int]) -> tuple[Pair, int]:
        turn, index, number = item
        if turn != self.turn:
            self.source.set_epoch(turn)
            self.turn = turn
        pair = self.source[index]
        if self.augmentation is not None:
            pair = self.augmentation(pair, torch.Generator().manual_seed(self.seed * 1_000_003 + number))
        return pair, number


@dataclass(frozen=True)
class _Collator:
    multiple: int

    def __call__(self, items: list[tuple[Pair, int]]) -> Batch:
        return collate([pair for pair, _ in items], self.multiple, items[0][1])


@dataclass(frozen=True)
class _Numbers:
    """Which pairs this process takes, as (pass, index, number), one list a forward pass."""

    first_step: int
    step_pairs: int
    passes: int
    rank: int
    count: int
    length: int
    seed: int

    def __iter__(self) -> Iterator[list[tuple[int, int, int]]]:
        own = self.step_pairs // self.count
        size = own // self.passes
        turn, order = -1, []
        step = self.first_step
        while True:
            start = step * self.step_pairs + self.rank * own
            items = []
            for number in range(start, start + own):
                if number // self.length != turn:
                    turn = number // self.length
                    generator = torch.Generator().manual_seed(self.seed * 7_919 + turn)
                    order = torch.randperm(self.length, generator=generator).tolist()
                items.append((turn, order[number % self.length], number))
            for part in range(self.passes):
                yield items[part * size : (part + 1) * size]
            step += 1


def _pad(sample: StudySample, size: Sequence[int]) -> StudySample:
    if tuple(size) == sample.shape:
        return sample
    ends = [end for axis in (2, 1, 0) for end in (0, size[axis] - sample.shape[axis])]
    labels = None if sample.labels is None else functional.pad(sample.labels, ends)
    channels = zip(sample.images, sample.outside.tolist(), strict=True)
    images = torch.stack([functional.pad(image, ends, value=value) for image, value in channels])
    return StudySample(images, labels, functional.pad(sample.mask, ends), sample.name)


def _labels(samples: Sequence[StudySample]) -> Tensor:
    missing = [torch.full(sample.shape, UNLABELLED, dtype=torch.uint8) for sample in samples if sample.labels is None]
    return torch.stack([missing.pop() if sample.labels is None else sample.labels for sample in samples])


def _quiet_worker(_: int) -> None:
    """Interruptions are the main process's business: it writes a checkpoint and then ends the workers."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
