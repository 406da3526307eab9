"""Runs every benchmark in a process of its own, one after the other, and names those that failed."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

FOLDER = Path(__file__).resolve().parent
SLOW = ("bench_schedules.py", "bench_reliability.py", "bench_autocest_methods.py", "bench_joint_variants.py")
"""Benchmarks that train networks; their quick mode is used here."""


def main() -> int:
    failed = []
    for script in sorted(FOLDER.glob("bench_*.py")):
        arguments = ["--quick"] if script.name in SLOW else []
        print(f"\n=== {script.name} {' '.join(arguments)}", flush=True)
        begin = time.perf_counter()
        status = subprocess.run([sys.executable, str(script), *arguments], check=False).returncode
        print(f"--- {time.perf_counter() - begin:.0f} s, exit status {status}", flush=True)
        if status:
            failed.append(script.name)
    if failed:
        print(f"\nfailed: {', '.join(failed)}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
