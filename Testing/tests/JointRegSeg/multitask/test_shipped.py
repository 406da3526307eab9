"""Weights of the package for tasks on single studies: found by name, small, documented, and doing what they say."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from task_cohorts import NETWORK, TISSUE, write_cohort

from JointRegSegLib.batch import main
from JointRegSegLib.images.tissues import TISSUES
from JointRegSegLib.multitask import shipped
from JointRegSegLib.multitask.config import multitask_from_dict, read_multitask, study_network
from JointRegSegLib.multitask.network import MultiTaskNetwork
from JointRegSegLib.multitask.shipped import FOLDER, SHIPPED, weights_file
from JointRegSegLib.multitask.weights import load_study_weights, offer_of, save_study_weights
from JointRegSegLib.network.resolution import degrade
from JointRegSegLib.network.shipped import default_weights_path
from JointRegSegLib.synthesis.subject import synthetic_subject
from JointRegSegLib.synthesis.templates import load_templates
from JointRegSegLib.tasks.registry import study_task_from_dict
from JointRegSegLib.tasks.super_resolution import refined

RAS = (-1, 0, 0, 0, -1, 0, 0, 0, 1)
"""Direction of the axes of synthetic images: to the right, to the front and upwards."""
PLACES = ("/tmp", "/home", "/work", "/root")


@pytest.fixture
def little(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of weights with an untrained network 'tissue' only, in place of the package's."""
    torch.manual_seed(0)
    task = study_task_from_dict({**TISSUE, "class_weights": [1, 1, 1]}, "test")
    network = MultiTaskNetwork(study_network(NETWORK, "test"), [task])
    save_study_weights(tmp_path / "tissue.pt", network, {"preparation": {"spacing_mm": 4.0}}, half=True)
    for name in list(SHIPPED):
        monkeypatch.delitem(SHIPPED, name)
    monkeypatch.setitem(SHIPPED, "tissue", "core and rim of balls")
    monkeypatch.setattr(shipped, "FOLDER", tmp_path)
    return tmp_path


def test_weights_of_the_package_are_found_by_name_and_others_by_path(
    little: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert weights_file("tissue") == little / "tissue.pt"
    assert weights_file("run/tissue") == Path("run/tissue")
    assert weights_file("tissue.pt") == Path("tissue.pt")
    with pytest.raises(ValueError, match=r"no weights 'tisue': .* of the package, 'tissue' \(core and rim of balls\)"):
        weights_file("tisue")
    monkeypatch.chdir(little)
    (little / "mine").touch()
    assert weights_file("mine") == Path("mine")


def test_predict_evaluate_and_train_take_the_name(little: Path, capsys: pytest.CaptureFixture) -> None:
    cohort = write_cohort(little, 9)
    visit = ["--images", str(little / "1_t1.nii.gz"), "--mask", str(little / "1_mask.nii.gz")]
    assert main(["predict", "--weights", "tissue", *visit, "--output", str(little / "found")]) == 0
    assert "volume of core" in (little / "found" / "predictions.csv").read_text()
    report = json.loads((little / "found" / "report.json").read_text())
    assert str(little / "tissue.pt") in [each["path"] for each in report["inputs"]]
    config = multitask_from_dict({"network": NETWORK, "tasks": [TISSUE], "initialise": "tissue"})
    assert config.initial_weights == str(little / "tissue.pt")
    config = multitask_from_dict({"network": NETWORK, "tasks": [TISSUE], "initialise": "neurocest"})
    assert config.initial_weights == str(default_weights_path())
    capsys.readouterr()
    assert main(["predict", "--weights", "tisues", *visit, "--output", str(little / "none")]) == 2
    assert "there are no weights 'tisues'" in capsys.readouterr().err
    assert not (little / "none").exists()
    scored = ["evaluate", "--weights", "tissue", "--manifest", str(cohort), "--output", str(little / "scores")]
    assert main([*scored, "--refine", "3"]) == 2
    assert "leave it out for weights of other tasks" in capsys.readouterr().err


def test_the_help_lists_the_names(capsys: pytest.CaptureFixture) -> None:
    for command in ("predict", "evaluate"):
        assert main([command, "--help"]) == 0
        text = " ".join(capsys.readouterr().out.split())
        assert all(f"'{name}'" in text for name in SHIPPED)


def test_every_file_of_weights_has_a_name() -> None:
    assert set(SHIPPED) | {"neurocest"} == {path.stem for path in FOLDER.glob("*.pt")}


@pytest.mark.parametrize("name", SHIPPED)
def test_weights_are_small_documented_and_without_paths(name: str) -> None:
    path = weights_file(name)
    assert path.stat().st_size <= 15e6
    card = path.with_suffix(".md").read_text(encoding="utf-8")
    for word in ("Licence", "jointregseg train", "not for clinical use", "Limits", "ICBM152", f"--weights {name}"):
        assert word in card
    offers, modalities = offer_of(path)
    assert offers
    assert "t1" in modalities
    weights = load_study_weights(path)
    record = json.dumps(weights.metadata)
    assert not [place for place in PLACES if place in record]
    config = read_multitask(path.with_suffix(".json"))
    assert config.network == weights.network.config
    assert [task.kind for task in config.tasks] == [task.kind for task in weights.tasks] == [name]
    assert config.data.preparation() == weights.preparation


@pytest.fixture(scope="module")
def head() -> tuple[sitk.Image, sitk.Image, np.ndarray]:
    """T1, mask and tissues of a synthetic subject that no training has seen, with voxels of 2 mm."""
    pytest.importorskip("nilearn", reason="synthetic subjects need the template in the package nilearn")
    subject = synthetic_subject([load_templates()[0].at(2.0)], 700_000_001, modalities=("t1",))
    t1 = sitk.GetImageFromArray(subject.images[0].numpy())
    mask = sitk.GetImageFromArray(subject.mask.numpy().astype(np.uint8))
    for image in (t1, mask):
        image.SetSpacing([2.0] * 3)
        image.SetDirection(RAS)
    return t1, mask, subject.tissue.numpy()


def visit_of(folder: Path, t1: sitk.Image, mask: sitk.Image) -> list[str]:
    sitk.WriteImage(t1, str(folder / "t1.nii.gz"))
    sitk.WriteImage(mask, str(folder / "mask.nii.gz"))
    return ["--images", str(folder / "t1.nii.gz"), "--mask", str(folder / "mask.nii.gz")]


@pytest.mark.skipif("tissue" not in SHIPPED, reason="no weights for tissues are part of the package")
def test_tissues_of_a_synthetic_head_are_found(head: tuple[sitk.Image, sitk.Image, np.ndarray], tmp_path: Path) -> None:
    t1, mask, true = head
    visit = visit_of(tmp_path, t1, mask)
    assert main(["predict", "--weights", "tissue", *visit, "--output", str(tmp_path / "found")]) == 0
    found = sitk.GetArrayFromImage(sitk.ReadImage(str(tmp_path / "found" / "tissue.seg.nrrd")))
    dice = {}
    for number, name in enumerate(TISSUES, 1):
        a, b = found == number, true == number
        dice[name] = 2 * (a & b).sum() / max(a.sum() + b.sum(), 1)
    for name in ("gm", "wm", "cerebellum", "brain_stem", "ventricles"):
        assert dice[name] > 0.6, dice


@pytest.mark.skipif("super_resolution" not in SHIPPED, reason="no weights for super-resolution are part of the package")
def test_smaller_voxels_are_nearer_to_the_truth_than_interpolated_ones(
    head: tuple[sitk.Image, sitk.Image, np.ndarray], tmp_path: Path
) -> None:
    t1, mask, _ = head
    true = sitk.GetArrayFromImage(t1)
    coarse = sitk.GetImageFromArray(degrade(torch.from_numpy(true)[None, None], (4, 4, 4))[0, 0].numpy())
    coarse.SetSpacing([8.0] * 3)
    coarse.SetOrigin([-3.0, -3.0, 3.0])
    coarse.SetDirection(RAS)
    visit = visit_of(tmp_path, coarse, mask)
    assert main(["predict", "--weights", "super_resolution", *visit, "--output", str(tmp_path / "found")]) == 0
    fine = sitk.ReadImage(str(tmp_path / "found" / "super_resolution_t1.nii.gz"))
    assert (fine.GetSize(), fine.GetOrigin(), fine.GetSpacing()) == (t1.GetSize(), t1.GetOrigin(), t1.GetSpacing())
    inside = sitk.GetArrayFromImage(sitk.BinaryErode(mask, [2] * 3)) > 0

    def decibels(image: sitk.Image) -> float:
        return float(-10 * np.log10(np.square((sitk.GetArrayFromImage(image) - true)[inside]).mean()))

    assert decibels(fine) > decibels(refined(coarse, (4, 4, 4))) + 1
