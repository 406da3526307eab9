"""Pieces of work in threads: order, a single torch thread inside each, cancelling."""

from __future__ import annotations

import threading

import pytest
import torch

from NeuroCESTLib.core.progress import Cancelled
from NeuroCESTLib.core.threads import in_threads


def test_results_are_in_the_order_of_the_items_whoever_finishes_first() -> None:
    second_is_done = threading.Event()

    def work(item: int) -> int:
        if item == 0:
            assert second_is_done.wait(30)
        else:
            second_is_done.set()
        return 10 * item

    seen: list[int] = []
    assert in_threads(work, range(4), threads=2, done=seen.append) == [0, 10, 20, 30]
    assert seen == [0, 10, 20, 30]


def test_torch_uses_one_thread_inside_each_piece_and_as_many_as_before_afterwards() -> None:
    before = torch.get_num_threads()
    assert set(in_threads(lambda _: torch.get_num_threads(), range(5))) == {1}
    assert torch.get_num_threads() == before


@pytest.mark.parametrize("error", [ValueError, Cancelled])
def test_an_exception_ends_the_work_and_restores_the_threads(error: type[Exception]) -> None:
    before = torch.get_num_threads()

    def stop(result: int) -> None:
        raise error("stop")

    with pytest.raises(error):
        in_threads(lambda item: item, range(100), threads=2, done=stop)
    assert torch.get_num_threads() == before
