"""The CMake files package every file that belongs to the extension, and only existing ones."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from paths import ROOT

INSTALLED = Path("lib/Slicer-5.13/qt-scripted-modules")

# Where the files of a source folder lie in the one folder into which all modules are installed.
SOURCES = {"CESTQuant": Path(), "JointRegSeg": Path(), "NeuroCESTLib": Path("NeuroCESTLib")}
NOT_PACKAGED = {"CMakeLists.txt"}

pytestmark = pytest.mark.skipif(shutil.which("cmake") is None, reason="cmake is not installed")


def cmake(*arguments: str | Path) -> subprocess.CompletedProcess:
    return subprocess.run(["cmake", *map(str, arguments)], capture_output=True, text=True, check=False, timeout=120)


def configure(source: Path, build: Path, *options: str) -> subprocess.CompletedProcess:
    slicer_dir = f"-DSlicer_DIR={ROOT / 'Testing' / 'cmake'}"
    return cmake("-S", source, "-B", build, slicer_dir, "-DBUILD_TESTING=ON", *options)


def packaged_files(root: Path) -> dict[Path, Path]:
    """Files that belong into the package: place in the installed folder -> source file."""
    files = {}
    for name, place in SOURCES.items():
        for file in (root / name).rglob("*"):
            if not file.is_file() or file.name in NOT_PACKAGED:
                continue
            if "__pycache__" in file.parts or file.name.startswith("."):
                continue
            files[place / file.relative_to(root / name)] = file
    return files


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    build, prefix = tmp_path_factory.mktemp("build"), tmp_path_factory.mktemp("install")
    result = configure(ROOT, build)
    assert result.returncode == 0, result.stderr
    result = cmake("--install", build, "--prefix", prefix)
    assert result.returncode == 0, result.stderr
    return prefix / INSTALLED


def test_every_file_of_the_modules_is_installed(installed: Path) -> None:
    missing = [str(place) for place in packaged_files(ROOT) if not (installed / place).is_file()]
    assert not missing, f"present but not listed in CMakeLists.txt: {missing}"


def test_nothing_else_is_installed(installed: Path) -> None:
    expected = set(packaged_files(ROOT))
    found = {file.relative_to(installed) for file in installed.rglob("*") if file.is_file()}
    assert found <= expected, f"installed, but no file of the modules: {found - expected}"


def test_installed_files_are_the_sources(installed: Path) -> None:
    changed = [
        str(place)
        for place, source in packaged_files(ROOT).items()
        if (installed / place).is_file() and (installed / place).read_bytes() != source.read_bytes()
    ]
    assert not changed


def test_installed_packages_import_each_other(installed: Path) -> None:
    """All modules share one folder, so names must not clash and imports must find their packages."""
    script = (
        "import NeuroCESTLib.scene.host, NeuroCESTLib.batch.frame, CESTQuantLib, JointRegSegLib; "
        "print(NeuroCESTLib.scene.host.__file__)"
    )
    import os
    import sys

    result = subprocess.run(
        [sys.executable, "-c", script],
        cwd=installed,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(installed), "PYTHONDONTWRITEBYTECODE": "1"},
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith(str(installed))


def test_module_tests_are_registered(tmp_path: Path) -> None:
    assert configure(ROOT, tmp_path).returncode == 0
    listed = subprocess.run(["ctest", "-N"], cwd=tmp_path, capture_output=True, text=True, check=True).stdout
    for module in ("CESTQuant", "JointRegSeg"):
        assert f"nomainwindow_py_{module}ModuleGenericTest" in listed
        assert f"py_{module}\n" in listed


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """The extension in a folder where it can be damaged."""
    copy = tmp_path / "extension"
    copy.mkdir()
    shutil.copy(ROOT / "CMakeLists.txt", copy)
    for name in SOURCES:
        if (ROOT / name).exists():
            shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
    return copy


def test_a_listed_but_missing_file_stops_the_configuration(copy: Path, tmp_path: Path) -> None:
    (copy / "NeuroCESTLib" / "geometry.py").unlink()
    result = configure(copy, tmp_path / "build")
    assert result.returncode != 0
    assert "geometry.py" in result.stderr


def test_a_present_but_unlisted_file_is_found(copy: Path, tmp_path: Path) -> None:
    (copy / "NeuroCESTLib" / "forgotten.py").write_text("")
    assert configure(copy, tmp_path / "build").returncode == 0
    cmake("--install", tmp_path / "build", "--prefix", tmp_path / "prefix")
    installed = tmp_path / "prefix" / INSTALLED
    missing = [place for place in packaged_files(copy) if not (installed / place).is_file()]
    assert Path("NeuroCESTLib/forgotten.py") in missing
