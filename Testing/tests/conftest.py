"""Fixtures of all tests: the headless host, a clean scene, shared data where it exists."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]
SHARED = ROOT.parent / "shared"

for folder in (ROOT, ROOT / "CESTQuant", ROOT / "Testing"):
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))


@pytest.fixture(scope="session")
def slicer_host() -> ModuleType:
    """The ``slicer`` module of a running headless host."""
    from NeuroCESTLib import host

    return host.start()


@pytest.fixture
def slicer(slicer_host: ModuleType) -> Iterator[ModuleType]:
    """The ``slicer`` module with an empty scene, before and after the test."""
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
    """Path of a file or folder under ``../shared``; the test is skipped where it is absent."""

    def path(name: str) -> Path:
        found = SHARED / name
        if not found.exists():
            pytest.skip(f"needs '{name}' of the shared data, which is not on this machine")
        return found

    return path
