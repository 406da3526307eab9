"""The command ``jointregseg train`` on a cohort: what it writes, how it continues, what it refuses."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from joint_training_cases import PREPROCESSING, TINY, write_shells
from task_cohorts import AGE
from task_cohorts import write_config as write_task_config

from JointRegSegLib.batch import main
from JointRegSegLib.cohort.manifest import read_manifest
from JointRegSegLib.cohort.sampling import median_frequency_weights
from JointRegSegLib.cohort.sources import open_pairs
from JointRegSegLib.images.labels import CLASSES
from JointRegSegLib.images.normalization import LANDMARK_PERCENTILES
from JointRegSegLib.network.weights import load_weights, save_weights
from JointRegSegLib.training.checkpoints import load_checkpoint, save_checkpoint
from JointRegSegLib.training.config_files import read_config
from JointRegSegLib.training.initial import new_network


@pytest.fixture
def cohort(tmp_path: Path) -> Path:
    """Manifest of three subjects with two visits each on grids of 4 mm; one is for validation."""
    return write_shells(tmp_path, ["train", "train", "val"])


def write_config(folder: Path, path: str = "memory", **training) -> Path:
    values = {
        "network": TINY,
        "loss": {"window": 3},
        "data": {
            "path": path,
            "preprocessing": PREPROCESSING,
        },
        "training": {"epochs": 2, "validate_every_batches": 2, "precision": "float32", **training},
    }
    (folder / "config.json").write_text(json.dumps(values))
    return folder / "config.json"


@pytest.mark.parametrize("path", ["memory", "cache", "on_the_fly"])
def test_the_command_trains_on_a_cohort_and_writes_weights_and_report(
    cohort: Path, tmp_path: Path, path: str, capfd: pytest.CaptureFixture
) -> None:
    run = tmp_path / "run"
    arguments = [
        "train",
        "--config",
        str(write_config(tmp_path, path)),
        "--manifest",
        str(cohort),
        "--output",
        str(run),
    ]
    assert main(arguments) == 0, capfd.readouterr().err
    loaded = load_weights(run / "weights.pt")
    assert loaded.metadata["preprocessing"]["spacing_mm"] == 4
    assert loaded.metadata["training"]["steps"] == 4
    assert 0 <= loaded.metadata["training"]["validation"]["dice"] <= 1
    report = json.loads((run / "report.json").read_text())
    assert {entry["role"] for entry in report["inputs"]} == {"config", "manifest"}
    assert report["summary"]["validation_pairs"] == 1
    (warning,) = report["warnings"]
    assert "label files without a declared convention are read as brats2023" in warning
    assert f"warning: {warning}" in capfd.readouterr().err
    assert main(arguments) == 2
    assert "--resume" in capfd.readouterr().err


@pytest.mark.slow
def test_a_terminated_command_leaves_a_checkpoint_and_continues(cohort: Path, tmp_path: Path) -> None:
    config, run = write_config(tmp_path, epochs=100_000, learning_rate=1e-4), tmp_path / "run"
    command = [
        sys.executable,
        "-m",
        "JointRegSegLib.batch",
        "train",
        "--config",
        str(config),
        "--manifest",
        str(cohort),
        "--output",
        str(run),
    ]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    while not (run / "best.pt").exists():  # the sign that it trains
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate()
    assert process.returncode == 1
    assert "continue with --resume" in errors.strip().splitlines()[-1]
    assert "Traceback" not in errors
    step = load_checkpoint(run / "last.pt")["step"]
    assert step > 0
    assert not (run / "weights.pt").exists()
    write_config(tmp_path, epochs=step // 2 + 2, learning_rate=1e-4)
    assert main([*command[3:], "--resume"]) == 0
    assert load_weights(run / "weights.pt").metadata["training"]["steps"] == 2 * (step // 2 + 2)


@pytest.mark.parametrize("kind", ["joint", "single studies"])
def test_a_command_that_is_interrupted_before_its_first_checkpoint_promises_none_and_leaves_no_folder(
    cohort: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture, kind: str
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    # First this one, because it imports the other, which must not be replaced yet.
    monkeypatch.setattr("JointRegSegLib.multitask.training.train_tasks", interrupted)
    monkeypatch.setattr("JointRegSegLib.training.loop.train", interrupted)
    config = write_config(tmp_path) if kind == "joint" else write_task_config(tmp_path, [AGE])
    run = tmp_path / "run"
    assert main(["train", "--config", str(config), "--manifest", str(cohort), "--output", str(run)]) == 1
    assert capfd.readouterr().err.splitlines()[-1] == "cancelled, nothing written"
    assert not run.exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--config", "nowhere.json"], "nowhere.json"),
        (["--config", "config.json"], "--manifest"),
        (["--config", "config.json", "--resume"], "no checkpoint"),
        (["--config", "config.json", "--manifest", "missing.csv"], "missing.csv"),
    ],
)
def test_unusable_arguments_are_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture, arguments: list[str], words: str
) -> None:
    write_config(tmp_path)
    monkeypatch.chdir(tmp_path)
    assert main(["train", *arguments, "--output", "run"]) == 2
    lines = capfd.readouterr().err.strip().splitlines()
    assert len(lines) == 1
    assert words in lines[0]


def changed_config(folder: Path, path: str, **sections: dict) -> Path:
    """The configuration of ``write_config`` with further values in some sections; ``preprocessing`` is one of data."""
    file = write_config(folder, path)
    values = json.loads(file.read_text())
    values["data"]["preprocessing"] |= sections.pop("preprocessing", {})
    for name, entries in sections.items():
        values[name] |= entries
    file.write_text(json.dumps(values))
    return file


def test_a_misspelt_key_is_one_sentence_and_writes_nothing(tmp_path: Path, capfd: pytest.CaptureFixture) -> None:
    config = changed_config(tmp_path, "memory", training={"epoch": 1})
    assert main(["train", "--config", str(config), "--output", str(tmp_path / "run")]) == 2
    lines = capfd.readouterr().err.strip().splitlines()
    assert len(lines) == 1
    assert lines[0].startswith(f"error: {config}: training: unknown keys epoch; use optimiser, learning_rate, ")
    assert not (tmp_path / "run").exists()


def test_a_training_that_is_refused_before_a_study_is_prepared_leaves_no_folder(
    cohort: Path, tmp_path: Path, capfd: pytest.CaptureFixture
) -> None:
    config, run = write_config(tmp_path, "cache"), tmp_path / "run"
    command = ["train", "--config", str(config), "--manifest", str(cohort), "--output", str(run)]
    sitk.WriteImage(sitk.ReadImage(str(tmp_path / "s0-1_label.nii.gz")) + 10, str(tmp_path / "s0-1_label.nii.gz"))
    assert main(command) == 2
    assert "s0-1_label.nii.gz" in capfd.readouterr().err
    assert not run.exists()
    config.write_text(json.dumps(json.loads(config.read_text()) | {"initial_weights": "missing.pt"}))
    assert main(command) == 2
    errors = capfd.readouterr().err
    assert "missing.pt" in errors
    assert "preparing" not in errors
    assert not run.exists()


def recorded(run: Path) -> tuple[dict, dict]:
    """Metadata of the weights, and the configuration of the report."""
    report = json.loads((run / "report.json").read_text())
    return load_weights(run / "weights.pt").metadata, report["settings"]["configuration"]


@pytest.mark.parametrize("path", ["memory", "on_the_fly"])
def test_class_weights_of_the_training_studies_are_computed_once_and_recorded(
    cohort: Path, tmp_path: Path, path: str
) -> None:
    weighted = {"loss": {"class_weights": "median_frequency"}}
    config, run = changed_config(tmp_path, path, **weighted), tmp_path / "run"
    counts = open_pairs(read_manifest(cohort).of_split("train"), "memory", read_config(config).data.preprocessing)
    known = counts.class_counts()[:, : len(CLASSES)]  # the network has no class for the cavity
    expected = pytest.approx(median_frequency_weights(known).tolist(), rel=1e-5)
    command = ["train", "--config", str(config), "--manifest", str(cohort), "--output", str(run)]
    assert main(command) == 0
    metadata, settings = recorded(run)
    assert settings["loss"]["class_weights"] == expected
    assert metadata["configuration"]["loss"]["class_weights"] == expected
    for file in tmp_path.glob("s0-*_label.nii.gz"):  # other labels
        image = sitk.ReadImage(str(file))
        sitk.WriteImage(image * 0, str(file))
    changed_config(tmp_path, path, **weighted, training={"epochs": 3})
    assert main([*command, "--resume"]) == 0
    assert recorded(run)[1] == settings | {"training": settings["training"] | {"epochs": 3}}


def test_a_training_continues_without_the_initial_weights_that_its_checkpoint_replaced(
    cohort: Path, tmp_path: Path, capfd: pytest.CaptureFixture
) -> None:
    config, run, start = write_config(tmp_path, steps=1, pictures=0), tmp_path / "run", tmp_path / "start.pt"
    save_weights(start, new_network(read_config(config)), {})
    config.write_text(json.dumps(json.loads(config.read_text()) | {"initial_weights": "start.pt"}))
    command = ["train", "--manifest", str(cohort), "--config", str(config), "--output", str(run)]
    assert main(command) == 0
    start.unlink()
    assert main([*command, "--resume"]) == 0
    assert f"warning: the initial weights '{start}' are no longer there; " in capfd.readouterr().err
    assert f"'{start}' are no longer there" in " ".join(json.loads((run / "report.json").read_text())["warnings"])


@pytest.mark.parametrize("readable", [False, True])
def test_a_training_without_its_initial_weights_does_not_start_anew_from_those_of_the_seed(
    cohort: Path, tmp_path: Path, capfd: pytest.CaptureFixture, readable: bool
) -> None:
    """Weights and report still named the file. What is in the folder stays, so that the file can be put back."""
    config, run, start = write_config(tmp_path, steps=1, pictures=0), tmp_path / "run", tmp_path / "start.pt"
    save_weights(start, new_network(read_config(config)), {})
    values = json.loads(config.read_text(encoding="utf-8")) | {"initial_weights": "start.pt"}
    config.write_text(json.dumps(values), encoding="utf-8")
    command = ["train", "--manifest", str(cohort), "--config", str(config), "--output", str(run), "--resume"]
    assert main(command[:-1]) == 0
    start.unlink()
    if readable:  # but it cannot be restored
        save_checkpoint(run / "last.pt", load_checkpoint(run / "last.pt") | {"optimisation": {}})
    else:
        (run / "last.pt").write_bytes(b"damaged")
    before = {file.name: file.read_bytes() for file in run.iterdir()}
    capfd.readouterr()
    assert main(command) == 2
    told = capfd.readouterr().err
    assert f"the initial weights '{start}' are no longer there: put that file back" in told
    assert "starts from the beginning" not in told
    assert {file.name: file.read_bytes() for file in run.iterdir()} == before


def test_other_splits_than_those_of_the_training_are_not_resumed(
    cohort: Path, tmp_path: Path, capfd: pytest.CaptureFixture
) -> None:
    config, run = write_config(tmp_path, epochs=1, pictures=0), tmp_path / "run"
    command = ["train", "--config", str(config), "--manifest", str(cohort), "--output", str(run)]
    assert main(command) == 0
    names = {"train": "val", "val": "train"}
    header, *rows = cohort.read_text().splitlines()
    exchanged = [f"{row.rpartition(',')[0]},{names[row.rpartition(',')[2]]}" for row in rows]
    cohort.write_text("\n".join([header, *exchanged]) + "\n")
    capfd.readouterr()
    assert main([*command, "--resume"]) == 2
    assert (
        "belongs to another training: the study 's0 1' was in the split 'train' and is now in 'val'"
        in capfd.readouterr().err
    )


def test_class_weights_need_labels(cohort: Path, tmp_path: Path, capfd: pytest.CaptureFixture) -> None:
    rows = [row.split(",") for row in cohort.read_text().splitlines()]
    cohort.write_text("\n".join(",".join(row[:4] + row[5:]) for row in rows) + "\n")
    config = changed_config(tmp_path, "memory", loss={"class_weights": "median_frequency"})
    assert main(["train", "--config", str(config), "--manifest", str(cohort), "--output", str(tmp_path / "run")]) == 2
    assert "class_weights 'median_frequency' need labelled studies" in capfd.readouterr().err


def test_histogram_landmarks_are_learned_and_kept_with_the_weights(cohort: Path, tmp_path: Path) -> None:
    learn = {"preprocessing": {"normalisation": "histogram", "histogram_landmarks": "learn"}}
    config, run = changed_config(tmp_path, "memory", **learn), tmp_path / "run"
    command = ["train", "--config", str(config), "--manifest", str(cohort), "--output", str(run)]
    assert main(command) == 0
    metadata, settings = recorded(run)
    landmarks = metadata["preprocessing"]["histogram_landmarks"]
    assert settings["data"]["preprocessing"]["histogram_landmarks"] == landmarks
    assert landmarks.keys() == {"t1", "flair"}
    pairs = open_pairs(read_manifest(cohort).of_split("train"), "memory", settings["data"]["preprocessing"])
    for study in (study for pair in (pairs[0], pairs[1]) for study in pair):
        found = np.percentile(study.images[3][study.mask], LANDMARK_PERCENTILES)
        np.testing.assert_allclose(found, landmarks["flair"], atol=0.02)
    for file in tmp_path.glob("s0-*_flair.nii.gz"):  # other contrast
        sitk.WriteImage(sitk.Exp(sitk.ReadImage(str(file))), str(file))
    changed_config(tmp_path, "memory", **learn, training={"epochs": 3})
    assert main([*command, "--resume"]) == 0
    assert recorded(run)[0]["preprocessing"]["histogram_landmarks"] == landmarks
