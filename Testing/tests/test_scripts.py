"""The commands under ``Testing`` start from anywhere, and report on what they are asked for."""

from __future__ import annotations

import math
import subprocess
import sys
from pathlib import Path

import averaged_weights
import numpy as np
import pytest
import segmentation_scores
import segmentation_trial
import verdict_trial
from joint_training_cases import toy_config
from paths import ROOT

from JointRegSegLib.images.labels import REGIONS
from JointRegSegLib.network.weights import load_weights, save_weights
from JointRegSegLib.training.initial import new_network
from NeuroCESTLib.core.checksum import sha256
from NeuroCESTLib.core.whole_files import write_rows

FILES = [*sorted((ROOT / "Testing").glob("*.py")), *sorted((ROOT / "Testing" / "gpu").glob("*.py"))]
COMMANDS = [path for path in FILES if "argparse" in path.read_text(encoding="utf-8")]


@pytest.mark.parametrize("command", COMMANDS, ids=lambda path: path.stem)
def test_a_command_says_what_it_does(command: Path, tmp_path: Path) -> None:
    run = [sys.executable, str(command), "--help"]
    result = subprocess.run(run, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith("usage: ")


def test_weights_are_averaged_only_for_images_that_are_prepared_in_the_same_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    for seed, (name, spacing_mm) in enumerate({"before": 2.0, "after": 2.0, "finer": 1.0}.items()):
        network = new_network(toy_config({"seed": seed}))
        save_weights(f"{name}.pt", network, {"preprocessing": {"spacing_mm": spacing_mm}})
    monkeypatch.setattr("sys.argv", ["averaged_weights.py", "before.pt", "after.pt", "--output", "mean.pt"])
    averaged_weights.main()
    before, after, mean = (load_weights(f"{name}.pt").network.encoder for name in ("before", "after", "mean"))
    for one, other, both in zip(before.parameters(), after.parameters(), mean.parameters(), strict=True):
        np.testing.assert_allclose(both.detach(), (one + other).detach() / 2, atol=1e-3)  # of half precision
    for other, words in (("finer.pt", "prepared differently (spacing_mm)"), ("missing.pt", "no such weights file")):
        monkeypatch.setattr("sys.argv", ["averaged_weights.py", "before.pt", other, "--output", "wrong.pt"])
        with pytest.raises(SystemExit):
            averaged_weights.main()
        assert words in capsys.readouterr().err
        assert not Path("wrong.pt").exists()


def test_scores_of_patients_in_whom_no_tumor_is_found_are_written_and_combined(tmp_path: Path) -> None:
    scores = dict.fromkeys(("whole_tumor", "whole_tumor_ml"), 0.0)
    rows = [
        {"patient": "healthy", "modalities": "all", **scores},
        {"patient": "ill", "modalities": "all", **scores, "entropy": 0.25, "spread": 0.5},
    ]
    bins = np.ones((len(segmentation_scores.SETS), len(REGIONS), 3, segmentation_scores.BINS))
    segmentation_scores.write_scores(rows, bins, tmp_path)
    combined, sums = segmentation_scores.read_scores([str(tmp_path)] * 2)
    nothing = {"entropy": math.nan, "spread": math.nan}
    assert combined == [pytest.approx(row, nan_ok=True) for row in (rows[0] | nothing, rows[1])] * 2
    assert np.array_equal(sums, 2 * bins)


def test_a_segmentation_trial_reports_on_the_patients_weights_and_modalities_that_it_is_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    weights, table = tmp_path / "weights.pt", tmp_path / "table.csv"
    weights.write_bytes(b"weights")
    known = sha256(weights)
    found = [
        (1, known, "t1ce flair", 4),
        (1, "others", "t1ce flair", 8),
        (1, known, "flair", 15),
        (2, known, "flair", 16),
    ]
    columns = ("patient", "weights", "modalities", "tumor_ml")
    write_rows([dict(zip(columns, row, strict=True)) | {"visit": 0, "cavity_ml": 0} for row in found], table)
    arguments = ["nothing", "--weights", str(weights), "--output", str(table), "--seed", "1", "--patients", "1"]
    for modalities, tumor_ml in ((["flair", "t1ce"], 4), (["flair"], 15)):
        monkeypatch.setattr("sys.argv", ["segmentation_trial.py", *arguments, "--modalities", *modalities])
        assert segmentation_trial.main() == 0
        assert capsys.readouterr().out.splitlines()[0] == (
            f"tumor: 1 of 1 visits with 3 ml or more; all above 0: {tumor_ml}.0"
        )


def test_a_trial_of_verdicts_on_scans_leaves_out_the_synthetic_pairs_of_its_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    table = tmp_path / "table.csv"
    (tmp_path / "scans" / "a").mkdir(parents=True)
    pairs = [("synthetic 500", "check"), ("a", "good")]
    row = {"half": "chosen", "kind": "label convention"}
    write_rows([row | {"patient": patient, "verdict": verdict} for patient, verdict in pairs], table)
    before = table.read_bytes()
    monkeypatch.setattr("sys.argv", ["verdict_trial.py", "--scans", str(tmp_path / "scans"), "--output", str(table)])
    assert verdict_trial.main() == 1
    assert "flagged 0 of 1 wrong pairs" in capsys.readouterr().out.splitlines()[-1]
    assert table.read_bytes() == before
