"""Tasks whose target is the image: super-resolution and the autoencoder, from training to the files of one visit."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from task_cohorts import NETWORK, SIZE, SPACING_MM, run_training, write_cohort, write_config

from JointRegSegLib.batch import main
from JointRegSegLib.images.study import StudyImages
from JointRegSegLib.multitask.config import multitask_from_dict
from JointRegSegLib.multitask.network import MultiTaskNetwork
from JointRegSegLib.multitask.super_resolution import super_resolved
from JointRegSegLib.multitask.weights import StudyWeights
from JointRegSegLib.network.configuration import NetworkConfig
from JointRegSegLib.tasks.super_resolution import SuperResolution, refined

FINER = {"task": "super_resolution", "factor": [2, 2, 2], "gradient_weight": 0.5}
CODE = {"task": "autoencoder", "code_size": 8, "lesions": "tissue", "lesion_numbers": [2], "probe": "age"}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with the cohort 'cohort.csv', the weights 'run/weights.pt' and the scores 'scores'."""
    folder = tmp_path_factory.mktemp("trained")
    cohort = write_cohort(folder, 18)
    config = write_config(folder, [FINER, CODE], steps=30, validate_every_batches=30, pictures=1)
    assert run_training(cohort, config, folder / "run") == 0
    command = ["evaluate", "--manifest", str(cohort), "--weights", str(folder / "run" / "weights.pt")]
    assert main([*command, "--output", str(folder / "scores")]) == 0
    return folder


def test_both_are_scored_against_what_needs_no_network(trained: Path) -> None:
    with open(trained / "scores" / "summary.csv", newline="") as file:
        found = {(r["task"], r["method"], r["score"]): float(r["value"]) for r in csv.DictReader(file)}
    assert found["super_resolution", "network", "psnr"] > found["super_resolution", "B-spline", "psnr"] + 1
    assert found["super_resolution", "B-spline", "psnr"] > found["super_resolution", "linear", "psnr"]
    assert 0 < found["super_resolution", "network", "ssim"] <= 1
    assert found["autoencoder", "network", "anomaly_auc"] > 0.8
    assert ("autoencoder", "mean image", "psnr") in found
    assert ("autoencoder", "linear probe of the code", "R2 of age") in found
    assert ("autoencoder", "linear probe of volumes", "mean absolute error of age") in found
    for picture in ("scores/predictions.png", "run/validation.png"):
        assert (trained / picture).is_file()


def test_a_visit_gets_smaller_voxels_a_reconstruction_and_an_anomaly_map(trained: Path, tmp_path: Path) -> None:
    low = sitk.ReadImage(str(trained / "17_t1.nii.gz"))
    coarse = refined(low, [1, 1, 1], sitk.sitkLinear)
    coarse = sitk.BinShrink(coarse, [2, 2, 2])
    sitk.WriteImage(coarse, str(tmp_path / "t1.nii.gz"))
    command = ["predict", "--weights", str(trained / "run" / "weights.pt"), "--images", str(tmp_path / "t1.nii.gz")]
    mask = str(trained / "17_mask.nii.gz")
    assert main([*command, "--mask", mask, "--output", str(tmp_path / "found")]) == 0
    fine = sitk.ReadImage(str(tmp_path / "found" / "super_resolution_t1.nii.gz"))
    assert fine.GetSize() == low.GetSize()
    assert fine.GetSpacing() == pytest.approx(low.GetSpacing())
    assert fine.GetOrigin() == pytest.approx(low.GetOrigin())
    brain = sitk.GetArrayFromImage(sitk.ReadImage(mask)) > 0
    truth, plain = (sitk.GetArrayFromImage(one)[brain] for one in (low, refined(coarse, [2, 2, 2])))
    error = np.abs(sitk.GetArrayFromImage(fine)[brain] - truth).mean()
    assert error < np.abs(plain - truth).mean()
    for name in ("reconstruction_t1", "anomaly"):
        assert sitk.ReadImage(str(tmp_path / "found" / f"{name}.nii.gz")).GetSize() == coarse.GetSize()
    with open(tmp_path / "found" / "predictions.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert sum(row["quantity"].startswith("code ") for row in rows) == 8
    assert all(row["low"] == row["high"] == "" for row in rows)


def untrained(factor: tuple[int, int, int], spacing_mm: float) -> tuple[StudyWeights, SuperResolution]:
    """Weights that interpolate, for coarse voxels of ``factor`` times the spacing."""
    task = SuperResolution(factor=factor)
    network = MultiTaskNetwork(
        NetworkConfig.from_dict({**NETWORK, "registration": False, "registration_level": 0}), [task]
    )
    return StudyWeights(network.eval(), {"preparation": {"spacing_mm": spacing_mm}}), task


def oblique(axes: str) -> sitk.Image:
    """An oblique image of thick slices that shows a position in the patient, stored along the axes of a scanner."""
    angle = np.radians(17)
    turn = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
    image = sitk.Image([24, 20, 10], sitk.sitkFloat32)
    image.SetSpacing([1.0, 1.1, 5.0])
    image.SetOrigin([-12.0, 31.0, -50.0])
    image.SetDirection((turn @ np.diag([-1, -1, 1])).ravel().tolist())
    values = [image.TransformIndexToPhysicalPoint(i)[0] for i in np.ndindex(24, 20, 10)]
    array = sitk.GetImageFromArray(np.reshape(values, (24, 20, 10)).transpose(2, 1, 0).astype(np.float32))
    array.CopyInformation(image)
    return sitk.DICOMOrient(array, axes)


@pytest.mark.parametrize("axes", ["RAS", "LPS", "SRP"])
def test_finer_voxels_divide_those_of_an_oblique_image_in_any_order_of_axes(axes: str) -> None:
    image = oblique(axes)
    weights, task = untrained((1, 1, 5), 1.0)
    mask = sitk.Cast(image * 0 + 1, sitk.sitkUInt8)
    found, notes = super_resolved(StudyImages({"t1": image}, mask, None, "given"), mask, weights, task, "cpu")
    fine = found["t1"]
    assert not notes
    assert fine.GetDirection() == pytest.approx(image.GetDirection())
    ratio = np.array(image.GetSpacing()) / np.array(fine.GetSpacing())
    assert sorted(np.round(ratio, 6)) == [1, 1, 5]
    assert np.array(fine.GetSize()).tolist() == np.round(np.array(image.GetSize()) * ratio).astype(int).tolist()
    for corner in ([-0.5] * 3, [n - 0.5 for n in image.GetSize()]):
        index = [(c + 0.5) * r - 0.5 for c, r in zip(corner, ratio, strict=True)]
        there = fine.TransformContinuousIndexToPhysicalPoint(index)
        assert there == pytest.approx(image.TransformContinuousIndexToPhysicalPoint(corner), abs=1e-6)
    size = np.array(fine.GetSize())
    for index in (size // 2, size // 2 + 2, size // 2 - 4):
        point = fine.TransformIndexToPhysicalPoint(index.tolist())
        assert fine[index.tolist()] == pytest.approx(point[0], abs=0.02)


def test_other_voxels_than_those_of_the_training_are_told() -> None:
    image = oblique("RAS")
    weights, task = untrained((1, 1, 2), 2.0)
    mask = sitk.Cast(image * 0 + 1, sitk.sitkUInt8)
    found, notes = super_resolved(StudyImages({"t1": image}, mask, None, "given"), mask, weights, task, "cpu")
    assert "voxels of 1 x 1.1 x 5 mm" in notes[0]
    assert "trained with 2 x 2 x 4 mm" in notes[0]
    assert found["t1"].GetSpacing() == pytest.approx((2, 2, 2))


def test_the_degraded_image_is_not_rounded_in_bfloat16() -> None:
    weights, _ = untrained((2, 2, 2), 1.0)
    seen: list[torch.Tensor] = []
    weights.network.encoder.register_forward_pre_hook(lambda module, given: seen.append(given[0]))
    study = torch.rand(1, 1, 16, 16, 16, generator=torch.Generator().manual_seed(0))
    study[..., :4] = -1
    for rounded in (False, True):
        with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16, enabled=rounded):
            weights.network(study)
    assert torch.equal(*seen)


def test_a_variational_code_is_drawn_in_training_only() -> None:
    values = {"network": NETWORK, "tasks": [{"task": "autoencoder", "variational": True, "loss": "ssim"}]}
    values["data"] = {"preprocessing": {"spacing_mm": 4, "extent_mm": [64, 64, 64]}}
    config = multitask_from_dict(values)
    network = MultiTaskNetwork(config.network, config.tasks)
    study = torch.randn(1, 1, 16, 16, 16, generator=torch.Generator().manual_seed(0))
    torch.manual_seed(0)
    first, second = (network.train()(study)["autoencoder"][0] for _ in range(2))
    assert not torch.equal(first, second)
    first, second = (network.eval()(study)["autoencoder"][0] for _ in range(2))
    assert torch.equal(first, second)


DEEP = {**NETWORK, "channels": [4] * 3, "encoder_convolutions": [1] * 3, "decoder_convolutions": [1] * 2}
DEEPER = {**NETWORK, "channels": [4] * 6, "encoder_convolutions": [1] * 6, "decoder_convolutions": [1] * 5}


@pytest.mark.parametrize(
    ("task", "network", "message"),
    [
        ({**FINER, "factor": [3, 2, 2]}, NETWORK, "16 x 16 x 16 voxels cannot be divided by the factor 3 x 2 x 2"),
        ({**FINER, "factor": [1, 1, 1]}, NETWORK, "factor is [1, 1, 1] but must be three whole numbers from 1 to 8"),
        ({**FINER, "factor": [8, 8, 8]}, DEEP, "low-resolution image of 2 x 2 x 2 voxels is smaller than"),
        ({**FINER, "blur": "sharp"}, NETWORK, "blur is 'sharp' but must be one of gaussian, box"),
        ({**CODE, "code_size": 0}, NETWORK, "code_size is 0 but must be a whole number from 1"),
        (CODE, DEEPER, "16 x 16 x 16 voxels is smaller than the network 'tiny' with its 6 levels"),
    ],
)
def test_what_cannot_be_trained_gets_one_sentence(
    task: dict[str, Any], network: dict[str, Any], message: str, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    cohort = write_cohort(tmp_path, 10)
    config = write_config(tmp_path, [task])
    config.write_text(json.dumps(json.loads(config.read_text()) | {"network": network}))
    assert run_training(cohort, config, tmp_path / "run") == 2
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error


def test_an_image_that_is_too_small_is_refused() -> None:
    image = sitk.Image([SIZE, SIZE, 1], sitk.sitkFloat32) + 1
    image.SetSpacing([SPACING_MM] * 3)
    weights, task = untrained((2, 2, 2), SPACING_MM / 2)
    mask = sitk.Cast(image, sitk.sitkUInt8)
    with pytest.raises(
        ValueError, match="low-resolution image of 16 x 16 x 1 voxels is smaller than the network 'tiny'"
    ):
        super_resolved(StudyImages({"t1": image}, mask, None, "given"), mask, weights, task, "cpu")
