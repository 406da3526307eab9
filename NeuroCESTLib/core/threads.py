"""Small pieces of work over the processors, one thread each."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch

Item = TypeVar("Item")
Result = TypeVar("Result")


def in_threads(
    work: Callable[[Item], Result],
    items: Iterable[Item],
    threads: int | None = None,
    done: Callable[[Result], object] | None = None,
) -> list[Result]:
    """Results of ``work`` in the order of the items; ``done`` sees each one and may raise to cancel.

    torch uses one thread inside each piece: for tensors that fit the cache, several threads an operation wait for each
    other longer than they compute. By default as many pieces run at once as torch would use threads.
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
