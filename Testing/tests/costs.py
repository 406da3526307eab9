"""What a block costs: processor time and additional memory, both independent of what else the machine does."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_STATUS, _RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")


@dataclass
class Costs:
    """Costs of a block, known after its end.

    Attributes:
        seconds: Processor time of this process in s.
        megabytes: Memory at its highest less that before, in MB; 0 where the system does not tell.
    """

    seconds: float = 0.0
    megabytes: float = 0.0


@contextlib.contextmanager
def costs() -> Iterator[Costs]:
    """Measure the block."""
    found = Costs()
    gc.collect()  # memory that is freed within the block, or was freed and is kept, would hide what the block takes
    with contextlib.suppress(AttributeError, OSError, TypeError):
        ctypes.CDLL(None).malloc_trim(0)
    with contextlib.suppress(OSError):
        _RESET.write_text("5")  # forget the highest memory so far
    memory, seconds = _most_megabytes(), time.process_time()
    try:
        yield found
    finally:
        found.seconds = time.process_time() - seconds
        found.megabytes = _most_megabytes() - memory


def _most_megabytes() -> float:
    """Highest memory of the process since it was last forgotten, in MB."""
    if not _STATUS.is_file():
        return 0.0
    (line,) = [line for line in _STATUS.read_text().splitlines() if line.startswith("VmHWM:")]
    return int(line.split()[1]) / 1024
