"""Pairs of studies as batches: the same stream for one process or many, from the start or resumed."""

from __future__ import annotations

import signal
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset
from torch.utils.data.dataloader import _MultiProcessingDataLoaderIter

from NeuroCESTLib.core.packages import warn_user
from NeuroCESTLib.core.processes import inside_application

from ..cohort.sample import Pair, StudySample
from ..images.labels import UNLABELED

Augment = Callable[[Any, torch.Generator], Any]
"""Changes a pair (or whatever the source yields) at random; the generator alone decides."""


class AnyBatch(Protocol):
    """What the loop needs of a batch."""

    def __len__(self) -> int: ...

    def to(self, device: torch.device) -> AnyBatch: ...


class Collate(Protocol):
    """Combines items of a source to one batch; it can be pickled."""

    def __call__(self, items: Sequence[Any], /, multiple: int, number: int = 0) -> AnyBatch: ...


class ItemSource(Protocol):
    """Source of pairs or of other items; the item at an index depends on the epoch and the index alone."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Any: ...

    def set_epoch(self, epoch: int) -> None: ...


@dataclass(frozen=True)
class Batch:
    """Pairs side by side on one grid.

    Attributes:
        fixed: Images (B, C, D, H, W) of the fixed studies.
        moving: Images (B, C, D, H, W) of the moving studies.
        fixed_labels: Classes (B, D, H, W) uint8, ``UNLABELED`` everywhere for a study without labels.
        moving_labels: The same for the moving studies.
        fixed_mask: Brains (B, D, H, W) bool.
        moving_mask: The same for the moving studies.
        names: Names of the studies of each pair.
        number: Number of the first pair in the stream.
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
        """Return the same batch on a device."""
        if self.fixed.device == device:
            return self
        return self._with_tensors(lambda tensor: tensor.to(device, non_blocking=True))

    def pin_memory(self) -> Batch:
        """Return the same batch in pinned memory, for faster copies to a GPU; the data loader calls this."""
        return self._with_tensors(lambda tensor: tensor.pin_memory())

    def _with_tensors(self, change: Callable[[Tensor], Tensor]) -> Batch:
        return replace(
            self,
            fixed=change(self.fixed),
            moving=change(self.moving),
            fixed_labels=change(self.fixed_labels),
            moving_labels=change(self.moving_labels),
            fixed_mask=change(self.fixed_mask),
            moving_mask=change(self.moving_mask),
        )


def collate(pairs: Sequence[Pair], multiple: int = 16, number: int = 0) -> Batch:
    """Combine pairs to one batch; grids are padded at their ends to a common size.

    Args:
        pairs: Pairs of studies.
        multiple: The sizes of the common grid are multiples of this.
        number: Number of the first pair in the stream.
    """
    samples = [sample for pair in pairs for sample in pair]
    size = [-(-max(sample.shape[axis] for sample in samples) // multiple) * multiple for axis in range(3)]
    fixed = [padded(pair[0], size) for pair in pairs]
    moving = [padded(pair[1], size) for pair in pairs]
    return Batch(
        torch.stack([s.images for s in fixed]),
        torch.stack([s.images for s in moving]),
        torch.stack([_labels(s) for s in fixed]),
        torch.stack([_labels(s) for s in moving]),
        torch.stack([s.mask for s in fixed]),
        torch.stack([s.mask for s in moving]),
        tuple((a.name, b.name) for a, b in pairs),
        number,
    )


class BatchStream:
    """Batches of augmented pairs without end.

    Pair n is the source's pair at a shuffled position in pass n // length, augmented by a generator seeded with n. The
    stream is therefore the same however it is divided among workers, processes and sessions.
    """

    def __init__(
        self,
        source: ItemSource,
        augmentation: Augment | None,
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
        combine: Collate = collate,
    ) -> None:
        """Set the stream up.

        Args:
            source: Source of the pairs.
            augmentation: Random changes of the pairs, or None.
            seed: Seed of order and augmentation.
            step_pairs: Pairs per step, over all processes.
            passes: Forward passes that this process makes of its part of a step.
            rank: Number of this process; it takes the part of this number of every step.
            count: Number of processes.
            multiple: The sizes of the grids are multiples of this.
            workers: Processes that prepare pairs; 0 for this one, as always inside the application.
            prefetch: Batches that each worker prepares ahead.
            pin: Put the batches into pinned memory.
            combine: Makes a batch of items of the source.

        Raises:
            ValueError: The source has no pair, or a step cannot be divided among processes and passes.
        """
        if len(source) == 0:
            raise ValueError("the training data hold no pair of studies")
        if step_pairs % (count * passes):
            raise ValueError(
                f"batch_size {step_pairs} cannot be shared by {count} processes with {passes} passes each; "
                "choose a multiple"
            )
        self._pairs = _NumberedPairs(source, augmentation, seed)
        self._numbers = _PairNumbers(0, step_pairs, passes, rank, count, len(source), seed)
        self._collator = _Collator(combine, multiple)
        if workers and inside_application():
            warn_user("inside the application this process prepares the pairs itself; 'workers' is ignored")
            workers = 0
        self._options: dict[str, Any] = {"num_workers": workers, "pin_memory": pin}
        if workers:
            self._options |= {"prefetch_factor": max(prefetch, 1), "worker_init_fn": _ignore_signals}

    def batches(self, first_step: int) -> Generator[Any, None, None]:
        """Yield this process's batches from a step on, ``passes`` for each step; ``close()`` ends the workers.

        Raises:
            ValueError: A study cannot be used; the message is the same whether workers prepare the pairs or not.
        """
        sampler = replace(self._numbers, first_step=first_step)
        # Workers pickle the collator; the sampler is any iterable of lists, which torch's annotation does not say.
        loader: DataLoader[Any] = DataLoader(
            self._pairs, batch_sampler=sampler, collate_fn=self._collator, **self._options
        )
        loaded = iter(loader)
        try:
            for batch in loaded:
                if isinstance(batch, _Refusal):
                    raise batch.error
                yield batch
        finally:
            if isinstance(loaded, _MultiProcessingDataLoaderIter):
                loaded._shutdown_workers()  # they ignore the signal that would end them when this process ends


@dataclass(frozen=True)
class _Refusal:
    """Why there is no pair or batch, in its place: torch would raise the error of a worker with its whole traceback."""

    error: ValueError


class _NumberedPairs(Dataset):
    """The augmented pair of (pass, index, number), or why there is none."""

    def __init__(self, source: ItemSource, augmentation: Augment | None, seed: int) -> None:
        self._source, self._augmentation, self._seed = source, augmentation, seed
        self._pass = -1

    def __getitem__(self, item: tuple[int, int, int]) -> tuple[Any, int]:
        try:
            return self._pair(*item), item[2]
        except ValueError as error:
            return _Refusal(error), item[2]

    def _pair(self, pass_number: int, index: int, number: int) -> Any:
        if pass_number != self._pass:
            self._source.set_epoch(pass_number)
            self._pass = pass_number
        pair = self._source[index]
        if self._augmentation is not None:
            pair = self._augmentation(pair, torch.Generator().manual_seed(self._seed * 1_000_003 + number))
        return pair


@dataclass(frozen=True)
class _Collator:
    combine: Collate
    multiple: int

    def __call__(self, items: list[tuple[Any, int]]) -> AnyBatch | _Refusal:
        refused = next((item for item, _ in items if isinstance(item, _Refusal)), None)
        if refused is not None:
            return refused
        return self.combine([item for item, _ in items], self.multiple, items[0][1])


@dataclass(frozen=True)
class _PairNumbers:
    """Which pairs this process takes, as (pass, index, number): a list for each forward pass, without end."""

    first_step: int
    step_pairs: int
    passes: int
    rank: int
    count: int
    length: int
    seed: int

    def __iter__(self) -> Iterator[list[tuple[int, int, int]]]:
        share = self.step_pairs // self.count
        size = share // self.passes
        pass_number, order = -1, []
        step = self.first_step
        while True:
            start = step * self.step_pairs + self.rank * share
            items = []
            for number in range(start, start + share):
                if number // self.length != pass_number:
                    pass_number = number // self.length
                    generator = torch.Generator().manual_seed(self.seed * 7_919 + pass_number)
                    order = torch.randperm(self.length, generator=generator).tolist()
                items.append((pass_number, order[number % self.length], number))
            for part in range(self.passes):
                yield items[part * size : (part + 1) * size]
            step += 1


def padded(sample: StudySample, size: Sequence[int]) -> StudySample:
    """Return a study with background added at the ends of its axes (D, H, W)."""
    if tuple(size) == sample.shape:
        return sample
    ends = [end for axis in (2, 1, 0) for end in (0, size[axis] - sample.shape[axis])]
    labels = None if sample.labels is None else functional.pad(sample.labels, ends)
    channels = zip(sample.images, sample.outside.tolist(), strict=True)
    images = torch.stack([functional.pad(image, ends, value=value) for image, value in channels])
    return replace(sample, images=images, labels=labels, mask=functional.pad(sample.mask, ends))


def _labels(sample: StudySample) -> Tensor:
    if sample.labels is not None:
        return sample.labels
    return torch.full(sample.shape, UNLABELED, dtype=torch.uint8)


def _ignore_signals(_: int) -> None:
    """Leave interruptions to the main process, which writes a checkpoint and then ends the workers."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
