"""Fixtures that all tests share: the headless host, an empty scene, acquisitions, and data beside the repository."""

from __future__ import annotations

import ctypes
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import hypothesis
import pytest

if TYPE_CHECKING:
    from studies import Acquisition

sys.path.insert(0, str(Path(__file__).resolve().parent))

from paths import LIBRARIES, ROOT, SHARED

for folder in (*LIBRARIES.values(), "Testing"):
    if str(ROOT / folder) not in sys.path:
        sys.path.insert(0, str(ROOT / folder))


# The same examples in every run, whatever time the machine takes for them.
hypothesis.settings.register_profile(
    "repeatable", deadline=None, derandomize=True, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("repeatable")


def pytest_configure() -> None:
    """Hear Ctrl+C, and raise the reference count of None.

    Tests in the background of a shell may be started to ignore Ctrl+C, and the commands that they start would do so
    as well.

    An extension below the panel's stand-ins returns None without counting the reference. In more than two thousand
    tests the count would reach zero, upon which Python before 3.12 ends the process; later versions do not count.
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if sys.version_info < (3, 12) and sys.implementation.name == "cpython":
        ctypes.c_ssize_t.from_address(id(None)).value += 1 << 40


@pytest.fixture(scope="session")
def slicer_host() -> ModuleType:
    """``slicer`` module of the running headless host."""
    from NeuroCESTLib.scene import host

    return host.start()


@pytest.fixture
def slicer(slicer_host: ModuleType) -> Iterator[ModuleType]:
    """``slicer`` module, with an empty scene before and after the test."""
    slicer_host.mrmlScene.Clear(0)
    yield slicer_host
    slicer_host.mrmlScene.Clear(0)


@pytest.fixture(autouse=True)
def clean_scene(request: pytest.FixtureRequest) -> Iterator[None]:
    """Empty the scene after every test that uses the host."""
    yield
    if "slicer_host" in request.fixturenames:
        sys.modules["slicer"].mrmlScene.Clear(0)


@pytest.fixture
def shared_data() -> Callable[[str], Path]:
    """Function that returns the path of a file or folder under ``../shared`` and skips the test where it is missing."""

    def path(name: str) -> Path:
        found = SHARED / name
        if not found.exists():
            pytest.skip(f"needs '{name}' of the shared data, which is not on this machine")
        return found

    return path


@pytest.fixture(scope="session")
def acquisition() -> Acquisition:
    """Small simulated acquisition of 21 offsets on an oblique left-handed grid."""
    from studies import acquire, spectrum_protocol

    return acquire(spectrum_protocol(count=21), b0_ppm=0.1)


@pytest.fixture(scope="session")
def good(acquisition: Acquisition, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with the files of ``acquisition``, a model, and in ``pairs`` an acquisition for QUESP."""
    from studies import acquire, amine_model, pairs_protocol, write_json

    folder = acquisition.write(tmp_path_factory.mktemp("good"))
    write_json(amine_model(), folder / "model.json")
    acquire(pairs_protocol()).write(folder / "pairs")
    return folder


@pytest.fixture
def refused(slicer: ModuleType, good: Path, tmp_path: Path, capfd: pytest.CaptureFixture) -> Callable[..., str]:
    """Function that runs ``cestquant fit`` on unusable input, checks that it is refused, and returns its message."""
    from command_messages import names_an_input
    from studies import checksums, fit_arguments, messages

    from CESTQuantLib.batch import main

    def run(method: str = "mtrasym", folder: Path = good, **changes: object) -> str:
        slicer.mrmlScene.Clear(0)
        before = checksums(good), checksums(tmp_path)
        capfd.readouterr()
        arguments = fit_arguments(folder, tmp_path / "out", method, **changes)
        status = main(arguments)
        printed = capfd.readouterr()
        lines = messages(printed.err)
        assert (status, len(lines), printed.out) == (2, 1, ""), printed.err
        assert names_an_input(lines[0], arguments), lines[0]
        assert "Traceback" not in lines[0]
        assert "Error" not in lines[0]  # the name of an exception
        assert (checksums(good), checksums(tmp_path)) == before
        assert not (tmp_path / "out").exists()
        return lines[0]

    return run


@pytest.fixture
def quantified(slicer: ModuleType, tmp_path: Path, capfd: pytest.CaptureFixture) -> Callable[..., Path]:
    """Function that runs ``cestquant fit``, checks that it succeeds with the given warnings, and returns its output."""
    from studies import checksums, fit_arguments, messages

    from CESTQuantLib.batch import main

    def run(folder: Path, method: str, warnings: tuple[str, ...] = (), **changes: object) -> Path:
        slicer.mrmlScene.Clear(0)
        before = checksums(folder)
        output = tmp_path / f"out-{len(list(tmp_path.glob('out-*')))}"
        assert main(fit_arguments(folder, output, method, **changes)) == 0, capfd.readouterr().err
        printed = capfd.readouterr()
        assert printed.out == ""
        lines = messages(printed.err)
        assert len(lines) == len(warnings)
        for line, words in zip(lines, warnings, strict=True):
            assert line.startswith("warning: ")
            assert words in line
        assert checksums(folder) == before
        return output

    return run
