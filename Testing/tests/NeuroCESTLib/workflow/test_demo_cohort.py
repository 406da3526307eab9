"""The synthetic cohort: whole patients with known values."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from NeuroCESTLib.workflow.batch import main
from NeuroCESTLib.workflow.demo_cohort import DemoSettings, tissue_values


def rows(path: Path) -> list[dict[str, str]]:
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_tissue_values_differ_between_patients_and_visits_and_are_repeatable() -> None:
    first, second = tissue_values(0, 0, "responder")
    assert tissue_values(0, 0, "responder") == (first, second)
    assert first != second
    assert tissue_values(0, 1, "responder") != (first, second)
    assert tissue_values(1, 0, "responder") != (first, second)


@pytest.mark.parametrize(("group", "grows"), [("responder", False), ("progressive", True)])
def test_amide_of_the_enhancing_tumor_changes_as_the_group_says(group: str, grows: bool) -> None:
    for number in range(8):
        first, second = (values["enhancing_tumor"]["amide.fraction"] for values in tissue_values(0, number, group))
        assert (second > 1.1 * first) == grows
        assert (second < 0.9 * first) == (not grows)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"patients": 0}, "number of patients is 0"),
        ({"patients": 99}, "number of patients is 99"),
        ({"seed": -1}, "-1"),
    ],
)
def test_impossible_settings_are_refused(settings: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DemoSettings(**settings)


def test_an_error_of_a_command_is_the_sentence_of_the_cohort(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert main(["demo-cohort", "--spacing", "9", "--output", str(tmp_path / "out")]) == 2
    assert "jointregseg synthesize: --spacing is 9 mm; give 0.5 to 4 mm" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_the_cohort_has_manifest_settings_and_truth_of_existing_files(tmp_path: Path) -> None:
    pytest.importorskip("nilearn", reason="synthetic patients are made from the template in the package nilearn")
    coarse = ["--spacing", "4", "--voxel-size", "8", "--slices", "1"]
    assert main(["demo-cohort", "--patients", "1", *coarse, "--output", str(tmp_path / "cohort")]) == 0
    manifest = rows(tmp_path / "cohort" / "COHORT.csv")
    assert [(row["subject"], row["visit"], row["group"]) for row in manifest] == [
        ("patient01", "visit1", "responder"),
        ("patient01", "visit2", "responder"),
    ]
    names = set(manifest[0]) - {"subject", "visit", "group"}
    assert [row[name] for row in manifest for name in names if not (tmp_path / "cohort" / row[name]).is_file()] == []
    truth = {
        (r["visit"], r["region"], r["quantity"]): float(r["value"]) for r in rows(tmp_path / "cohort" / "truth.csv")
    }
    first, second = tissue_values(0, 0, "responder")
    for visit, values in (("visit1", first), ("visit2", second)):
        stated = values["enhancing_tumor"]["amide.fraction"]
        assert truth[visit, "enhancing_tumor", "amide_fraction"] == pytest.approx(stated, rel=1e-6)
