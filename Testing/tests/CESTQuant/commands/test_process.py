"""The commands as users start them: console script, the file itself, interrupts; and ``simulate``."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from paths import ROOT
from studies import (
    Acquisition,
    acquire,
    amine_model,
    checksums,
    fit_arguments,
    messages,
    spectrum_protocol,
    write_json,
    write_series,
)

from CESTQuantLib.batch import main
from NeuroCESTLib.scene.geometry import Geometry

BATCH = ROOT / "CESTQuant" / "CESTQuantLib" / "batch.py"
COMMANDS = ("simulate", "fit", "wasabi", "wassr", "phantom", "dataset", "train", "optimize-schedule")

SCENARIO = {
    "B0_T": 3.0,
    "gamma_rad_per_s_per_uT": 267.5153,
    "water": {"T1_s": 1.5, "T2_s": 0.08},
    "solute_pools_full_xyz": [{"name": "amide", "f": 0.001, "k_Hz": 50.0, "T1_s": 1.5, "T2_s": 0.1, "dw_ppm": 3.5}],
    "offsets_ppm": [-6.0, -3.5, 3.5, 6.0],
    "preparation": {"type": "CW block", "B1_uT": 2.0, "tsat_s": 10.0},
}


def z_of(path: Path) -> np.ndarray:
    with open(path, newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["index", "offset_ppm", "z"]
    assert [int(row["index"]) for row in rows] == list(range(len(rows)))
    return np.array([[float(row["offset_ppm"]), float(row["z"])] for row in rows])


def steady_z(offset_ppm: float, k: float, fraction: float) -> float:
    """Steady state of Zaiss and Bachert's R1rho for the scenario, written out anew."""
    w1, scale = 267.5153 * 2.0, 267.5153 * 3.0
    water, pool = offset_ppm * scale, (offset_ppm - 3.5) * scale
    sin2 = w1**2 / (w1**2 + water**2)
    r2 = 1 / 0.1
    width2 = (r2 + k) / k * w1**2 + (r2 + k) ** 2  # square of the half width
    rex = fraction * k * w1**2 / (w1**2 + k * (k + r2)) * width2 / (width2 + pool**2)
    r1rho = (1 - sin2) / 1.5 + sin2 / 0.08 + rex
    return (1 - sin2) / 1.5 / r1rho


def test_simulated_spectra_show_the_pool_at_its_offset(tmp_path: Path) -> None:
    write_json(SCENARIO, tmp_path / "s.json")
    assert main(["simulate", str(tmp_path / "s.json"), "--output", str(tmp_path / "z.csv")]) == 0
    z = z_of(tmp_path / "z.csv")
    np.testing.assert_array_equal(z[:, 0], SCENARIO["offsets_ppm"])
    np.testing.assert_allclose(z[:, 1], [steady_z(offset, 50.0, 0.001) for offset in z[:, 0]], atol=3e-3)
    assert z[1, 1] - z[2, 1] > 0.02


@pytest.mark.parametrize(
    ("options", "limit"), [(["--engine", "r1rho"], 2e-3), (["--dtype", "float32"], 1e-4), ([], 0.0)]
)
def test_engines_and_precisions_agree(tmp_path: Path, options: list[str], limit: float) -> None:
    write_json(SCENARIO, tmp_path / "s.json")
    for name, chosen in (("exact", []), ("other", options)):
        assert main(["simulate", str(tmp_path / "s.json"), "--output", str(tmp_path / name), *chosen]) == 0
    exact, other = z_of(tmp_path / "exact"), z_of(tmp_path / "other")
    np.testing.assert_allclose(other, exact, atol=limit, rtol=0)
    assert (limit == 0) == bool((other == exact).all())


POOLS = """
water_pool: {f: 1, t1: 1.5, t2: 0.08}
cest_pool:
  amide: {f: 0.001, t1: 1.5, t2: 0.1, k: 50, dw: 3.5}
b0: 3
gamma: 267.5153
scale: 1
"""


def test_community_formats_give_what_the_scenario_gives(tmp_path: Path) -> None:
    pytest.importorskip("pypulseq")
    from CESTQuantLib.formats.pulseq_write import write_seq
    from CESTQuantLib.physics.protocol import Protocol

    (tmp_path / "p.yaml").write_text(POOLS)
    write_seq(Protocol(3.0, SCENARIO["offsets_ppm"], 2.0, 10.0), tmp_path / "p.seq")
    write_json(SCENARIO, tmp_path / "s.json")
    files = ["--pools", str(tmp_path / "p.yaml"), "--sequence", str(tmp_path / "p.seq")]
    assert main(["simulate", *files, "--output", str(tmp_path / "a.csv")]) == 0
    assert main(["simulate", str(tmp_path / "s.json"), "--output", str(tmp_path / "b.csv")]) == 0
    np.testing.assert_allclose(z_of(tmp_path / "a.csv"), z_of(tmp_path / "b.csv"), atol=1e-4)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"water": ...}, "s.json: the key 'water' is missing"),
        ({"offsets_ppm": "far"}, "s.json: "),
        ({"preparation": {"type": "magic"}}, "preparation type 'magic' is unknown"),
        ({"preparation": {"type": "CW block", "B1_uT": -2.0, "tsat_s": 1.0}}, "b1_uT contains the negative value -2"),
        ({"water": {"T1_s": 0, "T2_s": 0.1}}, "T1_s is 0 but must be greater than 0"),
        ({"water": 3}, "s.json: "),
        ({"preparation": []}, "s.json: "),
    ],
)
def test_unusable_scenarios(tmp_path: Path, capfd: pytest.CaptureFixture, change: dict, words: str) -> None:
    values = {key: value for key, value in (SCENARIO | change).items() if value is not ...}
    write_json(values, tmp_path / "s.json")
    assert main(["simulate", str(tmp_path / "s.json"), "--output", str(tmp_path / "z.csv")]) == 2
    (line,) = capfd.readouterr().err.splitlines()
    assert line.startswith("error: ")
    assert words in line
    assert checksums(tmp_path).keys() == {"s.json"}


def test_simulate_wants_one_kind_of_input(tmp_path: Path, capfd: pytest.CaptureFixture) -> None:
    for arguments in ([], ["--pools", "p.yaml"], ["s.json", "--pools", "p.yaml", "--sequence", "p.seq"]):
        assert main(["simulate", *arguments, "--output", str(tmp_path / "z.csv")]) == 2
        assert "give either SCENARIO.json, or --pools POOLS.yaml with --sequence" in capfd.readouterr().err
    assert main(["simulate", "absent.json", "--output", str(tmp_path / "z.csv")]) == 2
    assert "absent.json" in capfd.readouterr().err
    write_json(SCENARIO, tmp_path / "s.json")
    assert main(["simulate", str(tmp_path / "s.json"), "--output", str(tmp_path / "no" / "z.csv")]) == 2
    assert "does not exist" in capfd.readouterr().err


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


def run(arguments: list[str], **kwargs: object) -> subprocess.CompletedProcess:
    return subprocess.run(arguments, capture_output=True, text=True, check=False, timeout=120, **kwargs)


def test_the_file_itself_runs_as_the_application_runs_it(tmp_path: Path) -> None:
    write_json(SCENARIO, tmp_path / "s.json")
    # isolated and from elsewhere: only what the file itself puts on the path
    command = [sys.executable, str(BATCH), "simulate", "s.json", "--output", "z.csv"]
    result = run(command, cwd=tmp_path, env={**os.environ, "PYTHONPATH": ""})
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")
    assert len(z_of(tmp_path / "z.csv")) == 4


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
    assert messages(result.stderr)[0].startswith("error: no M0 reference for 'signal'")
    assert len(messages(result.stderr)) == 1
    assert checksums(tmp_path) == before


@pytest.fixture
def long_run(tmp_path: Path) -> list[str]:
    """Arguments of a fit that takes a minute or more."""
    small = acquire(spectrum_protocol(count=31))
    repeated = np.repeat(np.repeat(small.signal, 16, axis=2), 16, axis=3)
    grid = Geometry(repeated.shape[1:], small.geometry.ijk_to_ras)
    m0 = np.repeat(np.repeat(small.m0, 16, axis=1), 16, axis=2)
    folder = Acquisition(grid, small.protocol, repeated, m0, {}).write(tmp_path / "in")
    write_series(repeated, grid, folder / "signal.nii.gz")
    model = amine_model() | {"water": {"T1_s": 2.0, "T2_s": {"fit": True, "start": 0.08, "bounds": [0.01, 0.5]}}}
    write_json(model, folder / "model.json")
    return fit_arguments(folder, tmp_path / "out", "bloch-mcconnell", model=folder / "model.json")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_ends_with_one_line_and_keeps_earlier_results(
    long_run: list[str], tmp_path: Path, number: signal.Signals
) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "amine_fraction.nii.gz").write_bytes(b"earlier")
    before = checksums(tmp_path)
    command = [sys.executable, str(BATCH), *long_run]
    with subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        line = process.stderr.readline()  # the first progress
        time.sleep(2.0)
        process.send_signal(number)
        process.wait(timeout=60)
        rest = process.stderr.read()
        assert process.stdout.read() == ""
    assert line.strip().startswith("0 %")
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
