"""What the benchmarks share: the path to the science, timing, and the table that each of them prints."""

from __future__ import annotations

import os
import platform
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # before numpy: threads slow the peers' 7 x 7 matrices down

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "CESTQuant"))


@dataclass(frozen=True)
class Time:
    """Wall time, and processor time summed over threads, in s."""

    wall: float
    processor: float

    def __truediv__(self, count: float) -> Time:
        return Time(self.wall / count, self.processor / count)

    def __mul__(self, count: float) -> Time:
        return Time(self.wall * count, self.processor * count)


def seconds(function: Callable[[], object], repeats: int = 1) -> tuple[Time, object]:
    """The shortest of a few runs, and what the last one returned."""
    times, result = [], None
    for _ in range(repeats):
        begin, begin_processor = time.perf_counter(), time.process_time()
        result = function()
        times.append(Time(time.perf_counter() - begin, time.process_time() - begin_processor))
    return min(times, key=lambda t: t.wall), result


def duration(value: float) -> str:
    for unit, size in (("s", 1.0), ("ms", 1e-3), ("us", 1e-6)):
        if value >= size:
            return f"{value / size:.3g} {unit}"
    return f"{value / 1e-9:.3g} ns"


class Table:
    """Rows of peer, ours and ratio; printed as markdown.

    Ratios are of wall time. On a machine that others use too they suffer: the ratio of processor times, in brackets,
    does not, and is that of one core against one core.
    """

    def __init__(self, title: str, per: str) -> None:
        print(f"## {title}\n")
        versions = f"torch {torch.__version__}, Python {platform.python_version()}"
        print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}, {versions}; times per {per}\n")
        print("| case | peer | ours | ratio (per core) | accuracy | target |")
        print("| --- | --- | --- | --- | --- | --- |", flush=True)

    def row(self, case: str, peer: Time, ours: Time, target: float, accuracy: str) -> None:
        ratio, per_core = peer.wall / ours.wall, peer.processor / ours.processor
        verdict = f"{target:g}x {'met' if ratio >= target else 'MISSED'}"
        print(
            f"| {case} | {duration(peer.wall)} | {duration(ours.wall)} | {ratio:.3g}x ({per_core:.3g}x) | {accuracy} "
            f"| {verdict} |",
            flush=True,
        )
