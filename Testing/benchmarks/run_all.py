"""Run every benchmark in a process of its own, print what they print, and a summary of time and success."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path


def main() -> int:
    """Exit status: the number of benchmarks that failed to run (missed targets are in their tables)."""
    summary, failed = [], 0
    for script in sorted(Path(__file__).parent.glob("bench_*.py")):
        begin = time.perf_counter()
        done = subprocess.run([sys.executable, script], capture_output=True, text=True, check=False)
        took = time.perf_counter() - begin
        print(done.stdout, flush=True)
        rows = [line for line in done.stdout.splitlines() if line.startswith("|")]
        met, missed = (sum(word in row for row in rows) for word in (" met |", "MISSED |"))
        outcome = f"targets met {met}, missed {missed}"
        if done.returncode != 0:
            failed += 1
            outcome = "failed: " + (done.stderr.strip().splitlines() or ["no message"])[-1]
        summary.append(f"| {script.stem[len('bench_') :]} | {took:.0f} s | {outcome} |")
    print("## Summary\n\n| benchmark | took | outcome |\n| --- | --- | --- |")
    print("\n".join(summary))
    return failed


if __name__ == "__main__":
    sys.exit(main())
