"""The commands as users start them: as console script, as a file, and interrupted; their help."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from paths import ROOT
from studies import (
    AMIDE_SCENARIO,
    Acquisition,
    acquire,
    amine_model,
    checksums,
    fit_arguments,
    messages,
    read_spectrum,
    spectrum_protocol,
    write_json,
    write_series,
)

from CESTQuantLib.batch import main
from NeuroCESTLib.scene.geometry import Geometry

BATCH = ROOT / "CESTQuant" / "CESTQuantLib" / "batch.py"
COMMANDS = ("simulate", "fit", "wasabi", "wassr", "phantom", "dataset", "train", "optimize-schedule")


def test_help_of_every_command_names_units(capsys: pytest.CaptureFixture) -> None:
    assert main(["--help"]) == 0
    overview = capsys.readouterr().out
    units = {"simulate": "ppm", "fit": "ppm", "wasabi": "ppm", "wassr": "ppm"}
    for command in COMMANDS:
        assert command in overview
        assert main([command, "--help"]) == 0
        text = capsys.readouterr().out
        assert "--output" in text
        assert units.get(command, "") in text
    assert main(["fit", "--help"]) == 0
    text = " ".join(capsys.readouterr().out.split())
    for words in ("B0 shift in ppm", "relative B1 (1 = nominal)", "water T1 in s", "rates in Hz", "powers (uT)"):
        assert words in text
    assert "(default: 3T for lorentzian, mtr-rex, mplf; 3T_two_step for ld; plof_3T for plof)" in text


def run(arguments: list[str], **kwargs: object) -> subprocess.CompletedProcess:
    return subprocess.run(arguments, capture_output=True, text=True, check=False, **kwargs)


def test_the_command_runs_as_a_file_as_in_the_application(tmp_path: Path) -> None:
    write_json(AMIDE_SCENARIO, tmp_path / "s.json")
    # from another folder, with nothing on the path but what the file puts there
    command = [sys.executable, str(BATCH), "simulate", "s.json", "--output", "z.csv"]
    result = run(command, cwd=tmp_path, env={**os.environ, "PYTHONPATH": ""})
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")
    assert len(read_spectrum(tmp_path / "z.csv")) == 4


@pytest.mark.slow
def test_the_console_script_fits_and_refuses(good: Path, tmp_path: Path) -> None:
    script = Path(sys.executable).with_name("cestquant")
    if not script.exists():
        pytest.skip("the package is not installed")
    result = run([str(script), *fit_arguments(good, tmp_path / "out", "mtrasym", b0=good / "b0.nii.gz")])
    assert (result.returncode, messages(result.stderr), result.stdout) == (0, [], "")
    assert (tmp_path / "out" / "mtr_asym_3.5ppm.nii.gz").exists()
    before = checksums(tmp_path)
    result = run([str(script), *fit_arguments(good, tmp_path / "out", "mtrasym", reference=None)])
    assert result.returncode == 2
    named = f"error: '{good / 'protocol.json'}': no M0 reference for '{good / 'signal.nii.gz'}'"
    assert messages(result.stderr)[0].startswith(named)
    assert len(messages(result.stderr)) == 1
    assert checksums(tmp_path) == before


@pytest.fixture
def long_run(tmp_path: Path) -> list[str]:
    """Return the arguments of a fit that takes a minute or more."""
    small = acquire(spectrum_protocol(count=31))
    repeated = np.repeat(np.repeat(small.signal, 16, axis=2), 16, axis=3)
    grid = Geometry(repeated.shape[1:], small.geometry.ijk_to_ras)
    m0 = np.repeat(np.repeat(small.m0, 16, axis=1), 16, axis=2)
    folder = Acquisition(grid, small.protocol, repeated, m0, {}).write(tmp_path / "in")
    write_series(repeated, grid, folder / "signal.nii.gz")
    model = amine_model() | {"water": {"T1_s": 2.0, "T2_s": {"fit": True, "start": 0.08, "bounds": [0.01, 0.5]}}}
    write_json(model, folder / "model.json")
    return fit_arguments(folder, tmp_path / "out", "bloch-mcconnell", model=folder / "model.json")


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_ends_with_one_line_and_keeps_earlier_results(
    long_run: list[str], tmp_path: Path, number: signal.Signals
) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "amine_fraction.nii.gz").write_bytes(b"earlier")
    before = checksums(tmp_path)
    command = [sys.executable, str(BATCH), *long_run]
    with subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        lines = [process.stderr.readline() for _ in range(2)]  # the second one comes when the fit is under way
        process.send_signal(number)
        process.wait()
        rest = process.stderr.read()
        assert process.stdout.read() == ""
    assert lines[0].strip().startswith("0 %")
    assert "%" in lines[1]
    assert messages(rest) == ["cancelled, nothing written"]
    assert process.returncode == 1
    assert checksums(tmp_path) == before
    assert {path.name for path in tmp_path.iterdir()} == {"in", "out"}


def test_a_phantom_can_be_fitted_as_the_readme_says(tmp_path: Path, capfd: pytest.CaptureFixture) -> None:
    from CESTQuantLib.tissue import phantom

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(phantom, "SHAPE", (1, 20, 18))
        patch.setattr(phantom, "SPACING_MM", (9.0, 9.0, 5.0))
        assert main(["phantom", "--output", str(tmp_path / "phantom")]) == 0
    names = {file.name for file in (tmp_path / "phantom").iterdir()}
    maps = {f"{name}.nii.gz" for name in ("m0", "mask", "b0", "b1", "t1")}
    assert names == maps | {"signal.seq.nrrd", "segmentation.seg.nrrd", "protocol.json", "model.json", "report.json"}
    folder = tmp_path / "phantom"
    files = {name: folder / f"{name}.nii.gz" for name in ("mask", "b0", "b1", "t1")}
    files |= {"reference": folder / "m0.nii.gz", "signal": folder / "signal.seq.nrrd", "model": folder / "model.json"}
    files |= {"segmentation": folder / "segmentation.seg.nrrd"}
    capfd.readouterr()
    assert main(fit_arguments(folder, tmp_path / "fit", "r1rho", **files)) == 0
    medians = json.loads((tmp_path / "fit" / "report.json").read_text())["summary"]["medians"]
    assert 0.0005 < medians["amide_fraction"] < 0.002
    assert 0.03 < medians["semisolid_fraction"] < 0.15
