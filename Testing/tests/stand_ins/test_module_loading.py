"""The module files load as in the application: from a source checkout, and only in versions that are new enough.

Each test runs in a process of its own, with the packages of this environment but without the repository on the path.
"""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig

import pytest
from paths import ROOT

pytest.importorskip("PySide6")

_START = f"""
import sys
sys.path[:0] = [{str(ROOT)!r}, {str(ROOT / "Testing")!r}]
import panel_host
slicer = panel_host.start()
sys.path.remove({str(ROOT)!r})
for name in [name for name in sys.modules if name.split(".")[0] == "NeuroCESTLib"]:
    del sys.modules[name]
"""
"""Starts the panel host, which itself needs the library, and then forgets where the library is."""


def run(code: str) -> subprocess.CompletedProcess:
    packages = dict.fromkeys((sysconfig.get_path("purelib"), sysconfig.get_path("platlib")))
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(packages), "QT_QPA_PLATFORM": "offscreen"}
    command = [sys.executable, "-S", "-c", _START + code]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False, cwd="/")


@pytest.mark.parametrize("module", ["CESTQuant", "JointRegSeg"])
def test_module_of_a_source_checkout_finds_the_library_beside_its_folder(module: str) -> None:
    result = run(
        f"panel_host.load_module({str(ROOT / module / module)!r} + '.py')\n"
        f"print(slicer.util.getModuleWidget({module!r}).ui.applyButton.toolTip)"
    )
    assert result.returncode == 0, result.stderr
    assert "Choose" in result.stdout


@pytest.mark.parametrize("module", ["CESTQuant", "JointRegSeg"])
def test_older_applications_are_told_which_version_is_needed(module: str) -> None:
    result = run(
        f"sys.version_info = (3, 9, 10, 'final', 0)\npanel_host.load_module({str(ROOT / module / module)!r} + '.py')"
    )
    assert "RuntimeError: NeuroCEST needs Slicer 5.10 or later" in result.stderr
