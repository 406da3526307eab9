"""The headless host: real scene, real file I/O, and its refusal inside an application."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
from paths import ROOT

from NeuroCESTLib.scene import host


def run_python(code: str) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)


def test_a_second_start_returns_the_running_host(slicer: ModuleType) -> None:
    scene = slicer.mrmlScene
    assert host.start() is slicer
    assert slicer.mrmlScene is scene
    assert host.is_running()
    assert not host.in_application()


def test_the_host_refuses_to_start_inside_an_application(slicer: ModuleType, monkeypatch) -> None:
    monkeypatch.setattr(slicer, "app", SimpleNamespace(applicationName="Slicer"))
    assert host.in_application()
    with pytest.raises(RuntimeError, match="inside a Slicer application"):
        host.start()


def test_commands_use_the_application_where_one_runs_and_start_the_host_where_none_does(
    slicer: ModuleType, monkeypatch
) -> None:
    assert host.attach() is slicer
    application = SimpleNamespace(applicationName="Slicer")
    monkeypatch.setattr(slicer, "app", application)
    assert host.attach() is slicer
    assert slicer.app is application


def test_importing_the_host_imports_nothing_heavy() -> None:
    code = "import sys, NeuroCESTLib.scene.host; print([m for m in ('slicer', 'vtk', 'numpy') if m in sys.modules])"
    assert run_python(code).stdout.strip() == "[]"


def test_starting_and_ending_is_quiet_and_succeeds() -> None:
    result = run_python("from NeuroCESTLib import host; host.start()")
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")


def test_the_scene_has_what_the_application_gives_it(slicer: ModuleType) -> None:
    assert slicer.mrmlScene.GetSubjectHierarchyNode() is not None
    assert slicer.mrmlScene.GetNumberOfNodesByClass("vtkMRMLColorTableNode") > 20
    for name in ("volumes", "segmentations", "sequences", "tables", "transforms", "colors"):
        assert getattr(slicer.modules, name).logic().GetMRMLScene() is slicer.mrmlScene


def test_unknown_parts_of_the_application_are_errors(slicer: ModuleType) -> None:
    with pytest.raises(AttributeError):
        slicer.app.mainApplicationNameThatDoesNotExist()
    with pytest.raises(AttributeError):
        _ = slicer.modules.nosuchmodule


@pytest.mark.parametrize("extension", [".mrb", "folder"])
def test_a_scene_survives_a_round_trip(slicer: ModuleType, tmp_path: Path, extension: str) -> None:
    array = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    volume = slicer.util.addVolumeFromArray(array, np.diag([1.5, 2, 3, 1]), "anatomy")
    volume.SetAttribute("NeuroCEST.unit", "ppm")
    transform = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLinearTransformNode", "turn")
    volume.SetAndObserveTransformNodeID(transform.GetID())
    path = tmp_path / ("scene.mrb" if extension == ".mrb" else "scene")
    assert slicer.util.saveScene(str(path), {})
    slicer.mrmlScene.Clear(0)
    slicer.util.loadScene(str(path if extension == ".mrb" else path / "scene.mrml"))
    restored = slicer.util.getNode("anatomy")
    np.testing.assert_array_equal(slicer.util.arrayFromVolume(restored), array)
    assert restored.GetSpacing() == (1.5, 2.0, 3.0)
    assert restored.GetAttribute("NeuroCEST.unit") == "ppm"
    assert restored.GetParentTransformNode().GetName() == "turn"


def test_slicer_util_loads_and_saves_every_kind_of_node(slicer: ModuleType, tmp_path: Path) -> None:
    transform = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLinearTransformNode", "turn")
    slicer.util.updateTransformMatrixFromArray(transform, np.diag([1.0, -1, 1, 1]))
    table = slicer.util.updateTableFromArray(None, [np.arange(3.0)], ["a"])
    colors = slicer.mrmlScene.GetFirstNodeByClass("vtkMRMLColorTableNode")
    for node, name in ((transform, "t.h5"), (table, "t.csv"), (colors, "t.ctbl")):
        assert slicer.util.saveNode(node, str(tmp_path / name), {})
    loaded = slicer.util.loadTransform(str(tmp_path / "t.h5"))
    np.testing.assert_allclose(slicer.util.arrayFromTransformMatrix(loaded), np.diag([1, -1, 1, 1]))
    assert slicer.util.loadTable(str(tmp_path / "t.csv")).GetNumberOfRows() == 3
    loaded = slicer.util.loadColorTable(str(tmp_path / "t.ctbl"))
    assert loaded.GetNumberOfColors() == colors.GetNumberOfColors()


def test_loading_a_missing_file_says_so(slicer: ModuleType, tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="file not found"):
        slicer.util.loadVolume(str(tmp_path / "no.nii.gz"))
