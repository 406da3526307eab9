"""Timing, and the table that the benchmarks print."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable
from dataclasses import dataclass

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # before numpy: threads slow down the peers' 7 x 7 matrices

import libraries  # noqa: F401  (puts the libraries on the path)
import torch


@dataclass(frozen=True)
class Time:
    """Duration of a run.

    Attributes:
        wall: Wall time in s.
        processor: Processor time in s, summed over threads.
    """

    wall: float
    processor: float

    def __truediv__(self, count: float) -> Time:
        return Time(self.wall / count, self.processor / count)

    def __mul__(self, count: float) -> Time:
        return Time(self.wall * count, self.processor * count)


def seconds(function: Callable[[], object], repeats: int = 1) -> tuple[Time, object]:
    """Return the time of the fastest of several runs, and the result of the last one."""
    times, result = [], None
    for _ in range(repeats):
        begin, begin_processor = time.perf_counter(), time.process_time()
        result = function()
        times.append(Time(time.perf_counter() - begin, time.process_time() - begin_processor))
    return min(times, key=lambda t: t.wall), result


def duration(value: float) -> str:
    """Return a time in s as text with a fitting unit."""
    for unit, size in (("s", 1.0), ("ms", 1e-3), ("us", 1e-6)):
        if value >= size:
            return f"{value / size:.3g} {unit}"
    return f"{value / 1e-9:.3g} ns"


class Table:
    """Table in Markdown that compares our times with those of a peer.

    The ratio is that of the wall times. It suffers on a machine that others use at the same time; the ratio of the
    processor times, in brackets, does not: it compares one core with one core.

    Args:
        title: Headline.
        per: What the times are per, such as ``voxel``.
    """

    def __init__(self, title: str, per: str) -> None:
        print(f"## {title}\n")
        versions = f"torch {torch.__version__}, Python {platform.python_version()}"
        print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}, {versions}; times per {per}\n")
        print("| case | peer | ours | ratio (per core) | accuracy | target |")
        print("| --- | --- | --- | --- | --- | --- |", flush=True)

    def row(self, case: str, peer: Time, ours: Time, target: float, accuracy: str) -> None:
        """Print a row; the target is the ratio of the times that should be reached."""
        ratio, per_core = peer.wall / ours.wall, peer.processor / ours.processor
        verdict = f"{target:g}x {'met' if ratio >= target else 'MISSED'}"
        print(
            f"| {case} | {duration(peer.wall)} | {duration(ours.wall)} | {ratio:.3g}x ({per_core:.3g}x) | {accuracy} "
            f"| {verdict} |",
            flush=True,
        )
