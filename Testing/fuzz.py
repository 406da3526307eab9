"""Give every reader of both programs damaged files, and look for whatever no reader may do.

A reader may read a file or refuse it with a ValueError of one sentence that names the file. It must not end the
process, take longer than 20 s or more than 2 GB, let another error out, write to standard error, or leave temporary
files behind. Examples and variants are determined by the seed, so that every finding can be repeated::

    python Testing/fuzz.py --minutes 10
    python Testing/fuzz.py --seed 1 --repeat "pools pools.yaml:4711"

The summary is printed and saved as ``build/fuzz/summary.json``; files with findings lie beside it. It runs on Linux.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / folder) for folder in ("", "CESTQuant", "JointRegSeg", "Testing", "Testing/tests")]

from fuzzing.workers import Answer, answers, is_sentence, plain, variant_of  # noqa: E402

_MOST_SHOWN = 20


@dataclass
class Summary:
    """What a run found.

    Attributes:
        seed: Seed of all variants.
        counts: Number of answers of each kind.
        by_reader: The same by reader.
        findings: Answers that no reader may give.
        slowest: The answer that took longest.
        largest: The answer that needed most memory.
        seconds: Time of the run.
        distinct: Checksums of the variants.
    """

    seed: int
    counts: Counter[str] = field(default_factory=Counter)
    by_reader: dict[str, Counter[str]] = field(default_factory=dict)
    findings: list[Answer] = field(default_factory=list)
    slowest: Answer | None = None
    largest: Answer | None = None
    seconds: float = 0.0
    distinct: set[str] = field(default_factory=set)

    def add(self, answer: Answer) -> None:
        """Count an answer."""
        self.counts[answer.kind] += 1
        self.by_reader.setdefault(answer.reader, Counter())[answer.kind] += 1
        self.distinct.add(f"{answer.reader} {answer.checksum}")
        if answer.is_finding:
            self.findings.append(answer)
        if self.slowest is None or answer.seconds > self.slowest.seconds:
            self.slowest = answer
        if self.largest is None or answer.megabytes > self.largest.megabytes:
            self.largest = answer

    def plain(self) -> dict[str, Any]:
        """Return the summary as it is saved."""
        return {
            "seed": self.seed,
            "inputs": self.counts.total(),
            "distinct": len(self.distinct),
            "seconds": round(self.seconds, 1),
            "answers": dict(self.counts),
            "readers": {name: dict(counts) for name, counts in sorted(self.by_reader.items())},
            "slowest": None if self.slowest is None else plain(self.slowest),
            "largest": None if self.largest is None else plain(self.largest),
            "findings": [plain(answer) for answer in self.findings],
        }

    def text(self) -> str:
        """Return the summary for the terminal."""
        wrong = Counter(answer.kind for answer in self.findings)
        lines = [
            f"{self.counts.total()} inputs ({len(self.distinct)} different ones) for {len(self.by_reader)} readers in "
            f"{self.seconds:.0f} s, seed {self.seed}: {self.counts['read']} read, {self.counts['refused']} refused",
            f"findings: {wrong.total()}" + "".join(f", {count} x {kind}" for kind, count in wrong.most_common()),
        ]
        if self.slowest is not None and self.largest is not None:
            lines.append(
                f"slowest answer {self.slowest.seconds:.2f} s ({self.slowest.reader}:{self.slowest.number}), "
                f"most memory {self.largest.megabytes:.0f} MB ({self.largest.reader}:{self.largest.number})"
            )
        for answer in self.findings[:_MOST_SHOWN]:
            which = f"--seed {self.seed} --repeat '{answer.reader}:{answer.number}'"
            lines.append(f"  {answer.kind}: {which}: {answer.text[:300]!a}")
        return "\n".join(lines)


def fuzz(
    seed: int,
    *,
    inputs: int | None = None,
    seconds: float | None = None,
    workers: int = 2,
    only: str = "",
    quick: bool = False,
    keep: Path | None = None,
) -> Summary:
    """Try variants of the examples of all readers in turn.

    Args:
        seed: Seed of the variants.
        inputs: Number of variants; None until the time is over.
        seconds: Time; None until all variants are tried.
        workers: Number of processes.
        only: Part of the names of the readers to try; all of them by default.
        quick: Leave out whole commands.
        keep: Folder for files with findings; None keeps none.
    """
    from NeuroCESTLib.scene import host

    host.start()
    from fuzzing.examples import write_examples
    from fuzzing.readers import readers

    chosen = [reader for reader in readers() if only in reader.name and not (quick and reader.every > 1)]
    summary, started = Summary(seed), time.monotonic()
    end = None if seconds is None else started + seconds

    def variants() -> Iterator[tuple[int, int]]:
        rounds = count()
        turns = ((index, turn) for turn in rounds for index, reader in enumerate(chosen) if turn % reader.every == 0)
        for number, (index, turn) in enumerate(turns):
            if number == inputs or (end is not None and time.monotonic() >= end):
                return
            yield index, turn

    with tempfile.TemporaryDirectory(prefix="neurocest-examples-") as folder:
        examples = Path(folder)
        write_examples(examples, whole_commands=not quick)
        for answer in answers(chosen, variants(), examples, seed, workers):
            summary.add(answer)
            if answer.is_finding and keep is not None and len(summary.findings) <= 200:
                reader = next(reader for reader in chosen if reader.name == answer.reader)
                _keep(variant_of, reader, answer, seed, examples, keep)
    summary.seconds = time.monotonic() - started
    return summary


def _keep(write: Any, reader: Any, answer: Answer, seed: int, examples: Path, keep: Path) -> None:
    keep.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        file, _ = write(reader, answer.number, seed, examples, Path(folder))
        shutil.copyfile(file, keep / f"{answer.kind}-{answer.number}-{reader.name.replace(' ', '-').replace('/', '-')}")


def repeat(seed: int, which: str) -> None:
    """Read one variant in this process, and show what its reader says."""
    from NeuroCESTLib.scene import host

    host.start()
    from fuzzing.examples import write_examples
    from fuzzing.readers import readers

    name, _, number = which.rpartition(":")
    reader = next(reader for reader in readers() if reader.name == name)
    with tempfile.TemporaryDirectory() as examples, tempfile.TemporaryDirectory() as folder:
        write_examples(Path(examples))
        file, _ = variant_of(reader, int(number), seed, Path(examples), Path(folder))
        print(f"{file}: {file.stat().st_size} bytes, {file.read_bytes()[:200]!r}")
        try:
            print("read:", reader.read(file))
        except ValueError as error:
            print(f"refused, {'a' if is_sentence(str(error), file) else 'not a'} sentence: {error}")


def main() -> int:
    """Run the command; exit status 1 where there are findings."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=10.0, help="time of the run (default: 10)")
    parser.add_argument("--inputs", type=int, help="number of inputs instead of a time")
    parser.add_argument("--workers", type=int, default=2, help="processes (default: 2)")
    parser.add_argument("--seed", type=int, default=int(time.time()), help="seed of the variants (default: the time)")
    parser.add_argument("--only", default="", help="only readers whose names contain this")
    parser.add_argument("--quick", action="store_true", help="without whole commands, which take seconds each")
    parser.add_argument("--repeat", metavar="READER:NUMBER", help="repeat one variant")
    parser.add_argument("--output", type=Path, default=ROOT / "build" / "fuzz", help="folder of summary and findings")
    options = parser.parse_args()
    if options.repeat is not None:
        repeat(options.seed, options.repeat)
        return 0
    seconds = None if options.inputs is not None else 60 * options.minutes
    keep = options.output / "findings"
    shutil.rmtree(keep, ignore_errors=True)
    summary = fuzz(
        options.seed,
        inputs=options.inputs,
        seconds=seconds,
        workers=options.workers,
        only=options.only,
        quick=options.quick,
        keep=keep,
    )
    options.output.mkdir(parents=True, exist_ok=True)
    (options.output / "summary.json").write_text(json.dumps(summary.plain(), indent=1) + "\n", encoding="utf-8")
    print(summary.text())
    return 1 if summary.findings else 0


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    sys.exit(main())
