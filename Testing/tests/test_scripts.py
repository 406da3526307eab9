"""The commands under ``Testing`` start from anywhere."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from paths import ROOT

FILES = [*sorted((ROOT / "Testing").glob("*.py")), *sorted((ROOT / "Testing" / "gpu").glob("*.py"))]
COMMANDS = [path for path in FILES if "argparse" in path.read_text(encoding="utf-8")]


@pytest.mark.parametrize("command", COMMANDS, ids=lambda path: path.stem)
def test_a_command_says_what_it_does(command: Path, tmp_path: Path) -> None:
    run = [sys.executable, str(command), "--help"]
    result = subprocess.run(run, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith("usage: ")
