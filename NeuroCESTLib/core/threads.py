"""Threads: how many torch uses, and independent pieces of work spread over them."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch

from .messages.input_errors import InputError

Item = TypeVar("Item")
Result = TypeVar("Result")


@contextlib.contextmanager
def torch_threads(count: int | None) -> Iterator[None]:
    """Let torch use a number of threads for some time.

    Args:
        count: Number of threads; None for as many as it uses already.

    Raises:
        ValueError: The number is below 1.
    """
    if count is not None and count < 1:
        raise InputError("threads", f"the number of threads must be at least 1, not {count}")
    before = torch.get_num_threads()
    torch.set_num_threads(count or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def in_threads(
    work: Callable[[Item], Result],
    items: Iterable[Item],
    threads: int | None = None,
    done: Callable[[Result], object] | None = None,
) -> list[Result]:
    """Apply a function to every item, several items at once.

    Inside each piece torch uses a single thread: on tensors that fit into the cache, several threads per operation
    spend more time waiting for each other than computing.

    Args:
        work: Function of one item; it must not depend on the order of the items.
        items: Its arguments.
        threads: Number of items that are worked on at once; by default the number of threads that torch uses.
        done: Called with each result in the order of the items; an exception that it raises cancels the rest.

    Returns:
        Results in the order of the items.
    """
    intra_op = torch.get_num_threads()
    torch.set_num_threads(1)
    pool = ThreadPoolExecutor(threads or intra_op, initializer=torch.set_num_threads, initargs=(1,))
    results = []
    try:
        for result in pool.map(work, items):
            results.append(result)
            if done is not None:
                done(result)
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
        torch.set_num_threads(intra_op)
    return results
