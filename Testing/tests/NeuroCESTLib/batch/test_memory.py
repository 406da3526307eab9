"""Memory that a command keeps after it has freed it."""

from __future__ import annotations

import os
import platform
import subprocess
import sys

import pytest

_SCRIPT = """
import os, sys
import numpy as np
from NeuroCESTLib.batch.memory import keep_freed_memory

def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") >> 20

kept = len(sys.argv) > 1 and keep_freed_memory()
arrays = [np.ones(5 << 20) for _ in range(4)]  # 40 MiB each
full = resident()
del arrays
print(int(kept), full - resident())
"""


def _freed_mib(*arguments: str, **variables: str) -> tuple[bool, int]:
    """Whether memory is kept, and how much of 160 MiB went back to the kernel."""
    own = {name: value for name, value in os.environ.items() if not name.startswith(("GLIBC_", "MALLOC_"))}
    command = [sys.executable, "-c", _SCRIPT, *arguments]
    output = subprocess.run(command, env=own | variables, check=True, capture_output=True, text=True).stdout
    kept, freed = output.split()
    return bool(int(kept)), int(freed)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="memory is kept on Linux with glibc only")
def test_freed_memory_is_kept_for_the_next_array_unless_the_user_has_settings() -> None:
    assert _freed_mib() == (False, pytest.approx(160, abs=15))
    assert _freed_mib("keep") == (True, pytest.approx(0, abs=15))
    kept, _ = _freed_mib("keep", GLIBC_TUNABLES="glibc.malloc.trim_threshold=131072")
    assert not kept
