"""Processes that read variants one after another, with limits on time and memory; one that dies costs one variant."""

from __future__ import annotations

import os
import random
import re
import resource
import select
import shutil
import signal
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from .mutations import write_variant
from .readers import Reader

TIME_LIMIT_S = 20.0
"""Longest processor time of a reader, which does not depend on what else the machine does; see also ``_WAITS``."""
_WAITS = 15
"""After so many times the limit by the clock, a reader waits for something that never comes."""
MEMORY_LIMIT_BYTES = 2 << 30
_LONGEST_ANSWER = 450
_LONGEST_LIST = 4000  # of the mistakes in a manifest, line by line
_PYTHON_WORDS = re.compile(
    r"NoneType|\w+Error\b|object has no|invalid literal|not subscriptable|unhashable|codec can't|unexpected keyword|"
    r"object is not|Traceback|\barray\(|\btensor\(|\[\[\s*-?\d|⏎|0x[0-9a-f]{6,}"
)


@dataclass(frozen=True)
class Answer:
    """What a reader made of a variant.

    Attributes:
        reader: Name of the reader.
        number: Number of the variant; with the seed it determines the variant.
        kind: ``read``, ``refused``, or what is wrong: ``signal``, ``hang``, ``memory``, ``error``, ``sentence``,
            ``stderr``, ``leftover``.
        text: The sentence of the reader, or what went wrong.
        seconds: Processor time that it took.
        megabytes: Memory that it added to the process.
        checksum: Checksum of the variant.
    """

    reader: str
    number: int
    kind: str
    text: str = ""
    seconds: float = 0.0
    megabytes: float = 0.0
    checksum: str = ""

    @property
    def is_finding(self) -> bool:
        """Whether the reader did what no reader may do."""
        return self.kind not in ("read", "refused")


class Worker:
    """A process that was forked from this one, in which everything is imported already."""

    def __init__(self, readers: Sequence[Reader], examples: Path, seed: int) -> None:
        self.readers, self.examples, self.seed = readers, examples, seed
        self.busy: tuple[int, int] | None = None
        self._start()

    def _start(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="neurocest-fuzz-"))
        self.connection, theirs = Pipe()
        self.process = os.fork()
        if self.process == 0:
            self.connection.close()
            code = 1
            try:
                _serve(theirs, self.readers, self.examples, self.folder, self.seed)
                code = 0
            finally:
                os._exit(code)
        theirs.close()

    def give(self, reader: int, number: int) -> None:
        """Hand over a variant."""
        self.busy, self.started, self.used = (reader, number), time.monotonic(), _processor_seconds(self.process)
        self.connection.send((reader, number))

    def answer(self) -> Answer | None:
        """Return the answer, or None while the process reads; a process that died or hangs is replaced."""
        if self.busy is None:
            return None
        reader, number = self.busy
        name = self.readers[reader].name
        found: Answer | None = None
        try:
            if self.connection.poll():
                found = Answer(**self.connection.recv())
        except (EOFError, OSError):
            status = os.waitpid(self.process, 0)[1]
            died = f"signal {os.WTERMSIG(status)}" if os.WIFSIGNALED(status) else f"exit {os.WEXITSTATUS(status)}"
            found = Answer(name, number, "signal", died)
            self._replace(dead=True)
        if found is None and self._hangs():
            found = Answer(name, number, "hang", f"longer than {TIME_LIMIT_S:g} s", TIME_LIMIT_S)
            self._replace(dead=False)
        if found is not None:
            self.busy = None
        return found

    def _hangs(self) -> bool:
        used = _processor_seconds(self.process) - self.used
        return used > TIME_LIMIT_S or time.monotonic() - self.started > _WAITS * TIME_LIMIT_S

    def stop(self, dead: bool = False) -> None:
        """End the process and remove its folder."""
        self.connection.close()
        if not dead:
            os.kill(self.process, signal.SIGKILL)
            os.waitpid(self.process, 0)
        shutil.rmtree(self.folder, ignore_errors=True)

    def _replace(self, dead: bool) -> None:
        self.stop(dead)
        self._start()


def answers(
    readers: Sequence[Reader], variants: Iterator[tuple[int, int]], examples: Path, seed: int, count: int
) -> Iterator[Answer]:
    """Read variants in several processes.

    Args:
        readers: Readers under test.
        variants: Index of a reader and number of a variant, one pair after another.
        examples: Folder of the sound examples.
        seed: Seed of all variants.
        count: Number of processes.

    Yields:
        Answers in the order in which they come.
    """
    workers = [Worker(readers, examples, seed) for _ in range(count)]
    try:
        waiting = True
        while waiting or any(worker.busy for worker in workers):
            for worker in workers:
                if worker.busy is None and waiting:
                    following = next(variants, None)
                    if following is None:
                        waiting = False
                    else:
                        worker.give(*following)
            busy = [worker for worker in workers if worker.busy is not None]
            select.select([worker.connection for worker in busy], [], [], 0.5)
            for worker in busy:
                if (found := worker.answer()) is not None:
                    yield found
    finally:
        for worker in workers:
            worker.stop()


def variant_of(reader: Reader, number: int, seed: int, examples: Path, folder: Path) -> tuple[Path, str]:
    """Write a variant, with the other examples beside it; its reader, number and seed alone determine it."""
    for entry in folder.iterdir():
        shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
    source, target = examples / reader.example, folder / reader.example
    top = Path(reader.example).parts[0]
    if top != reader.example:  # with all of its own folder
        shutil.copytree(examples / top, folder / top)
    else:
        for name in reader.beside:
            copy = shutil.copytree if (examples / name).is_dir() else shutil.copyfile
            copy(examples / name, folder / name)
        for file in examples.iterdir():
            if file.suffix in (".csv", ".hdr", ".img", ".gz"):
                shutil.copyfile(file, folder / file.name)
    checksum = write_variant(source, target, random.Random(f"{seed}-{reader.name}-{number}"))
    return target, checksum


def _serve(connection: Connection, readers: Sequence[Reader], examples: Path, folder: Path, seed: int) -> None:
    """Read variants until the other end closes."""
    import torch

    torch.set_num_threads(1)
    own_temporary = folder / "temporary"
    work = folder / "work"
    own_temporary.mkdir()
    work.mkdir()
    tempfile.tempdir = str(own_temporary)
    resource.setrlimit(resource.RLIMIT_AS, (_mapped_bytes() + MEMORY_LIMIT_BYTES,) * 2)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    log = open(folder / "stderr", "w+b")  # noqa: SIM115  as long as the process
    os.dup2(log.fileno(), 2)
    os.dup2(log.fileno(), 1)
    sys.stderr = os.fdopen(os.dup(2), "w")
    warnings.simplefilter("ignore")
    while True:
        try:
            reader, number = connection.recv()
        except EOFError:
            return
        log.seek(0)
        log.truncate()
        target, checksum = variant_of(readers[reader], number, seed, examples, work)
        started, before = _processor_seconds(os.getpid()), _peak_megabytes()
        kind, text = _judge(readers[reader], target)
        sys.stderr.flush()
        log.seek(0)
        if kind in ("read", "refused") and (written := log.read().decode("utf-8", "replace").strip()):
            kind, text = "stderr", f"{written.splitlines()[0][:200]} | {text}"
        if kind in ("read", "refused") and (left := list(own_temporary.iterdir())):
            kind, text = "leftover", f"{left[0].name} | {text}"
        for entry in own_temporary.iterdir():
            shutil.rmtree(entry, ignore_errors=True)
        seconds, grown = _processor_seconds(os.getpid()) - started, _peak_megabytes() - before
        connection.send(asdict(Answer(readers[reader].name, number, kind, text, seconds, grown, checksum)))


def _judge(reader: Reader, target: Path) -> tuple[str, str]:
    """Read a variant, and judge the answer."""
    try:
        reader.read(target)
    except ValueError as error:
        answer = str(error)
        return ("refused" if is_sentence(answer, target) else "sentence"), answer
    except MemoryError:
        return "memory", "MemoryError"
    except Exception as error:
        return "error", f"{type(error).__name__}: {error}"
    return "read", ""


def is_sentence(answer: str, target: Path) -> bool:
    """Whether an answer is one line of a bounded length that names the file in the user's words, not in Python's."""
    names = (str(target), str(target.parent) + ":", str(target.parent) + "'", target.stem)
    without_paths = answer.replace(str(target), "").replace(str(target.parent), "")
    return (
        any(name in answer for name in names)
        and answer.isprintable()
        and len(without_paths) <= (_LONGEST_LIST if target.suffix == ".csv" else _LONGEST_ANSWER)
        and len(without_paths.split()) >= 3
        and not _PYTHON_WORDS.search(without_paths)
    )


def _processor_seconds(process: int) -> float:
    """Processor time of a process and of those that it has started and that have ended."""
    try:
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")


def _mapped_bytes() -> int:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[0]) * resource.getpagesize()


def _peak_megabytes() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def plain(answer: Answer) -> dict[str, Any]:
    """Return an answer as it is saved."""
    values = asdict(answer)
    return {
        **values,
        "text": ascii(answer.text)[1:-1],
        "seconds": round(answer.seconds, 3),
        "megabytes": round(answer.megabytes, 1),
    }
