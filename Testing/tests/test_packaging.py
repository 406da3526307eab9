"""The extension's CMake files and the Python wheel package every file that belongs to them, and nothing else."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from configparser import ConfigParser
from pathlib import Path

import pytest
from paths import LIBRARIES, ROOT

INSTALLED = Path("lib/Slicer-5.13/qt-scripted-modules")
"""Folder into which Slicer installs all modules of an extension."""
SOURCES = {"CESTQuant": Path(), "JointRegSeg": Path(), "NeuroCESTLib": Path("NeuroCESTLib")}
"""Source folder -> its place in the folder of installed modules."""

needs_cmake = pytest.mark.skipif(shutil.which("cmake") is None, reason="cmake is not installed")


def files_in(folder: Path) -> set[Path]:
    """Files below a folder that are part of a package, relative to it."""
    return {
        file.relative_to(folder)
        for file in folder.rglob("*")
        if file.is_file()
        and file.name != "CMakeLists.txt"
        and "__pycache__" not in file.parts
        and not file.name.startswith(".")
    }


def copied(names: list[str], target: Path) -> Path:
    """Copy files and folders of the repository to where a test may change them."""
    target.mkdir()
    for name in names:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, target / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / name, target / name)
    return target


def cmake(*arguments: str | Path) -> subprocess.CompletedProcess:
    return subprocess.run(["cmake", *map(str, arguments)], capture_output=True, text=True, check=False)


def configure(source: Path, build: Path) -> subprocess.CompletedProcess:
    slicer = f"-DSlicer_DIR={ROOT / 'Testing' / 'cmake'}"
    return cmake("-S", source, "-B", build, slicer, "-DBUILD_TESTING=ON")


def install(source: Path, folder: Path) -> Path:
    """Configure and install the extension; the folder of installed modules."""
    result = configure(source, folder / "build")
    assert result.returncode == 0, result.stderr
    result = cmake("--install", folder / "build", "--prefix", folder / "prefix")
    assert result.returncode == 0, result.stderr
    return folder / "prefix" / INSTALLED


def packaged_files(root: Path) -> dict[Path, Path]:
    """Files of the extension: place in the folder of installed modules -> source file."""
    return {place / file: root / name / file for name, place in SOURCES.items() for file in files_in(root / name)}


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of installed modules."""
    return install(ROOT, tmp_path_factory.mktemp("extension"))


@pytest.fixture
def extension(tmp_path: Path) -> Path:
    """A copy of the extension that a test may damage."""
    return copied(["CMakeLists.txt", *SOURCES], tmp_path / "extension")


@needs_cmake
def test_cmake_installs_the_files_of_the_modules_unchanged_and_nothing_else(installed: Path) -> None:
    expected = packaged_files(ROOT)
    found = {file.relative_to(installed) for file in installed.rglob("*") if file.is_file()}
    assert set(expected) - found == set(), "not listed in CMakeLists.txt: run Testing/cmake_lists.py"
    assert found - set(expected) == set(), "installed, but not a file of the modules"
    assert [place for place, file in expected.items() if (installed / place).read_bytes() != file.read_bytes()] == []


@needs_cmake
def test_installed_packages_import_each_other(installed: Path) -> None:
    """All modules share one folder, so names must not clash and imports must find their packages."""
    imports = "import NeuroCESTLib.scene.host, NeuroCESTLib.batch.frame, CESTQuantLib, JointRegSegLib"
    result = python_without_repository(installed, "-c", f"{imports}; print(NeuroCESTLib.scene.host.__file__)")
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith(str(installed))


@needs_cmake
def test_cmake_registers_the_modules_self_tests(tmp_path: Path) -> None:
    assert configure(ROOT, tmp_path).returncode == 0
    listed = subprocess.run(["ctest", "-N"], cwd=tmp_path, capture_output=True, text=True, check=True).stdout
    for module in ("CESTQuant", "JointRegSeg"):
        assert f"nomainwindow_py_{module}ModuleGenericTest" in listed
        assert f"py_{module}\n" in listed


@needs_cmake
@pytest.mark.parametrize(
    "file", ["NeuroCESTLib/scene/geometry.py", "CESTQuant/CESTQuantLib/logic.py", "JointRegSeg/JointRegSeg.py"]
)
def test_a_listed_file_that_is_missing_stops_the_configuration(file: str, extension: Path, tmp_path: Path) -> None:
    (extension / file).unlink()
    result = configure(extension, tmp_path / "build")
    assert result.returncode != 0
    assert file.split("/", 1)[1] in result.stderr


@needs_cmake
@pytest.mark.parametrize("file", ["NeuroCESTLib/scene/forgotten.py", "CESTQuant/CESTQuantLib/presets/forgotten.json"])
def test_a_file_that_is_not_listed_is_found_missing(file: str, extension: Path, tmp_path: Path) -> None:
    (extension / file).write_text("")
    installed = install(extension, tmp_path)
    missing = [source for place, source in packaged_files(extension).items() if not (installed / place).is_file()]
    assert missing == [extension / file]


def python_without_repository(libraries: Path, *arguments: str) -> subprocess.CompletedProcess:
    """Run Python with the libraries in a folder and the packages of this environment, but without the repository.

    ``-S`` keeps an editable installation from adding the repository to the path.
    """
    packages = dict.fromkeys((sysconfig.get_path("purelib"), sysconfig.get_path("platlib")))
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(libraries), *packages])}
    return subprocess.run(
        [sys.executable, "-S", "-B", *arguments],
        cwd=libraries,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with the unpacked wheel, as ``pip install .`` installs it; built without a network."""
    folder = tmp_path_factory.mktemp("wheel")
    source = copied(["pyproject.toml", "README.md", "LICENSE.txt", *SOURCES], folder / "source")
    offline = ("--no-index", "--no-deps", "--no-build-isolation", "--disable-pip-version-check")
    command = [sys.executable, "-m", "pip", "wheel", *offline, "--wheel-dir", str(folder), str(source)]
    built = subprocess.run(command, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stdout + built.stderr
    (file,) = folder.glob("neurocest-*.whl")
    with zipfile.ZipFile(file) as archive:
        archive.extractall(folder / "unpacked")
    return folder / "unpacked"


@pytest.mark.slow
@pytest.mark.parametrize("library", LIBRARIES)
def test_the_wheel_has_every_sub_package_and_data_file_of_a_library(library: str, wheel: Path) -> None:
    source = ROOT / LIBRARIES[library] / library
    assert files_in(wheel / library) == files_in(source)
    for folder in {"CESTQuantLib": ["presets"], "JointRegSegLib": ["configurations", "weights"]}.get(library, []):
        assert any((wheel / library / folder).iterdir())


@pytest.mark.slow
def test_the_wheel_has_the_commands_and_no_other_packages(wheel: Path) -> None:
    (metadata,) = wheel.glob("*.dist-info")
    assert {file.name for file in wheel.iterdir()} == {*LIBRARIES, metadata.name}
    scripts = ConfigParser()
    scripts.read(metadata / "entry_points.txt")
    commands = dict(scripts["console_scripts"])
    assert commands["cestquant"] == "CESTQuantLib.batch:main"
    assert commands["jointregseg"] == "JointRegSegLib.batch:main"
    assert commands["neurocest"] == "NeuroCESTLib.workflow.batch:main"


@pytest.mark.slow
def test_the_installed_wheel_loads_its_default_weights(wheel: Path) -> None:
    code = (
        "from JointRegSegLib import default_weights_path, load_weights; "
        "load_weights(default_weights_path()); print(default_weights_path())"
    )
    result = python_without_repository(wheel, "-c", code)
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith(str(wheel))


@pytest.mark.slow
@pytest.mark.parametrize("library", ["CESTQuantLib", "JointRegSegLib"])
def test_the_installed_wheel_runs_its_commands(library: str, wheel: Path) -> None:
    result = python_without_repository(wheel, "-m", f"{library}.batch", "--help")
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith("usage: ")
