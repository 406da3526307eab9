"""CEST of a given anatomy: shares of tissues, stated values, and a header that is off."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from CESTQuantLib.batch import main
from CESTQuantLib.phantoms.patient import (
    ENHANCING,
    FLUID,
    REGIONS,
    WHITE_MATTER,
    region_values,
    simulate_patient,
    true_values,
)
from CESTQuantLib.scene.compartments.inputs import linear_transform


def head(spacing_mm: float = 4.0) -> sitk.Image:
    """Label map of a ball of white matter around a ball of enhancing tumour, in an oblique frame."""
    size = 24
    z, y, x = (np.indices((size,) * 3) - (size - 1) / 2) * spacing_mm
    labels = np.where(np.sqrt(x**2 + y**2 + z**2) < 42, WHITE_MATTER, 0)
    labels[np.sqrt((x - 12) ** 2 + y**2 + z**2) < 14] = ENHANCING
    image = sitk.GetImageFromArray(labels.astype(np.uint8))
    image.SetSpacing((spacing_mm,) * 3)
    turn = sitk.Euler3DTransform()
    turn.SetRotation(0.1, 0.05, 0.2)
    image.SetDirection(turn.GetMatrix())
    image.SetOrigin((-40.0, -50.0, -45.0))
    return image


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory, slicer_host) -> Path:
    """Folder with the phantom of ``head`` and the label map ``head.nii.gz``."""
    folder = tmp_path_factory.mktemp("patient")
    sitk.WriteImage(head(), str(folder / "head.nii.gz"))
    (folder / "values.json").write_text(json.dumps({"enhancing_tumor": {"amide.fraction": 0.003}}))
    arguments = ["phantom", "--regions", folder / "head.nii.gz", "--values", folder / "values.json", "--slices", 2]
    arguments += ["--voxel-size", 9, "--misalignment", 5, 4, "--output", folder / "out"]
    assert main([str(argument) for argument in arguments]) == 0
    return folder


def test_a_mixed_voxel_has_the_mean_signal_of_its_tissues_by_share_and_proton_density() -> None:
    shares = np.zeros((len(REGIONS), 1, 1, 3))
    tissues = list(REGIONS)
    shares[tissues.index(WHITE_MATTER), 0, 0] = 1.0, 0.0, 0.25
    shares[tissues.index(FLUID), 0, 0] = 0.0, 1.0, 0.75
    phantom = simulate_patient(shares, np.zeros((1, 1, 3, 3)), region_values(), noise_sd=0.0, spread=0.0)
    pure_white, pure_fluid, mixed = phantom.signal[:, 0, 0].T
    np.testing.assert_allclose(mixed, 0.25 * pure_white + 0.75 * pure_fluid, rtol=1e-5)
    assert phantom.m0[0, 0].tolist() == pytest.approx([700.0, 1000.0, 925.0])
    assert phantom.labels[0, 0].tolist() == [WHITE_MATTER, FLUID, FLUID]


def test_traces_of_a_tissue_are_given_to_the_others() -> None:
    shares = np.zeros((len(REGIONS), 1, 1, 1))
    shares[0], shares[2] = 0.98, 0.02
    phantom = simulate_patient(shares, np.zeros((1, 1, 1, 3)), region_values(), noise_sd=0.0, spread=0.0)
    assert phantom.m0[0, 0, 0] == pytest.approx(700.0)


def test_the_truth_of_a_union_is_the_mean_by_volume() -> None:
    shares = np.zeros((len(REGIONS), 1, 1, 4))
    shares[4, 0, 0, 0] = 1.0  # enhancing
    shares[3, 0, 0, 1:] = 1.0  # oedema
    values = region_values({"edema": {"amide.fraction": 0.001}, "enhancing_tumor": {"amide.fraction": 0.002}})
    rows = {(row["region"], row["quantity"]): row for row in true_values(values, shares, 0.5)}
    assert rows["whole_tumor", "amide_fraction"]["value"] == pytest.approx(0.00125)
    assert rows["whole_tumor", "amide_fraction"]["volume_ml"] == pytest.approx(2.0)
    assert ("necrotic_core", "amide_fraction") not in rows


def test_the_files_are_those_of_an_acquisition_with_its_truth(written: Path) -> None:
    out = written / "out"
    with open(out / "truth.csv", newline="") as file:
        truth = {(row["region"], row["quantity"]): float(row["value"]) for row in csv.DictReader(file)}
    assert truth["enhancing_tumor", "amide_fraction"] == 0.003
    assert truth["white_matter", "water_r2_Hz"] == pytest.approx(1 / 0.069)
    names = {"signal.seq.nrrd", "protocol.json", "model.json", "report.json", "truth.csv", "true_cest_to_anatomy.h5"}
    images = {f"{name}.nii.gz" for name in ("m0", "mask", "b0", "b1", "t1")}
    assert {file.name for file in out.iterdir()} == names | images | {"segmentation.seg.nrrd"}


def test_the_true_alignment_can_be_given_as_to_anatomy(written: Path) -> None:
    labels = sitk.ReadImage(str(written / "head.nii.gz"))
    mask = sitk.ReadImage(str(written / "out" / "mask.nii.gz"))
    matrix = linear_transform(str(written / "out" / "true_cest_to_anatomy.h5"))  # what --to-anatomy reads, RAS
    matrix = np.diag([-1.0, -1.0, 1.0, 1.0]) @ matrix @ np.diag([-1.0, -1.0, 1.0, 1.0])
    alignment = sitk.AffineTransform(matrix[:3, :3].ravel().tolist(), matrix[:3, 3].tolist())

    def agreement(transform: sitk.Transform) -> float:
        brain = sitk.GetArrayFromImage(sitk.Resample(labels > 0, mask, transform, sitk.sitkNearestNeighbor))
        found = sitk.GetArrayFromImage(mask)
        return 2 * float((brain * found).sum()) / float(brain.sum() + found.sum())

    assert agreement(alignment) > 0.97
    assert agreement(alignment) > agreement(sitk.Transform(3, sitk.sitkIdentity)) + 0.02


def test_a_slab_may_be_thinner_than_the_voxels_of_the_anatomy(tmp_path: Path, slicer) -> None:
    sitk.WriteImage(head(spacing_mm=4.0), str(tmp_path / "head.nii.gz"))
    slab = ("--slices", "1", "--slice-thickness", "0.5", "--voxel-size", "4")
    assert main(["phantom", "--regions", str(tmp_path / "head.nii.gz"), *slab, "--output", str(tmp_path / "out")]) == 0
    assert sitk.GetArrayFromImage(sitk.ReadImage(str(tmp_path / "out" / "mask.nii.gz"))).any()


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        ("amide.fraction", 5, "v.json: edema: amide.fraction is 5, but must be below 1"),
        ("water.T1_s", 1300, "v.json: edema: water.T1_s is 1300 s, which no tissue has: give times in s, not in ms"),
        ("amide.k_Hz", None, "v.json: edema: amide.k_Hz is None, which is not a number"),
    ],
)
def test_values_that_no_tissue_has_are_refused(path: str, value: object, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        region_values({"edema": {path: value}}, "v.json")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--slices", "2"], "--slices can be used only with --regions"),
        (["--regions", "{head}", "--voxel-size", "0"], "voxel_mm is 0"),
        (["--seed", "-1"], "error: --seed: the seed of the noise must not be negative, as -1 is"),
        (
            ["--regions", "{head}", "--seed", "-1"],
            "error: --seed: the seed of the noise must not be negative, as -1 is",
        ),
        (["--regions", "{wrong}"], "is not a label map of tissues"),
        (["--regions", "{empty}"], "holds no tissue"),
        (["--regions", "{tiny}"], "tiny.nii.gz': no voxel of the slab is more than half tissue: give smaller voxels"),
        (["--regions", "{head}", "--values", "{bad}"], "error: {bad}: unknown keys tumour; use white_matter"),
        (
            ["--regions", "{head}", "--values", "{negative}"],
            "error: {negative}: edema: amide.fraction is -1, but must be above 0",
        ),
    ],
)
def test_unusable_input_gets_one_sentence(
    arguments: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture, slicer
) -> None:
    image = head(spacing_mm=4.0)
    tiny = image * 0
    tiny[12, 12, 12] = ENHANCING
    for name, written in (("head", image), ("wrong", image * 9), ("empty", image * 0), ("tiny", tiny)):
        sitk.WriteImage(written, str(tmp_path / f"{name}.nii.gz"))
    (tmp_path / "bad.json").write_text('{"tumour": {}}')
    (tmp_path / "negative.json").write_text('{"edema": {"amide.fraction": -1}}')
    names = {name: tmp_path / f"{name}.nii.gz" for name in ("head", "wrong", "empty", "tiny")}
    names |= {name: tmp_path / f"{name}.json" for name in ("bad", "negative")}
    filled = [argument.format(**names) for argument in arguments]
    assert main(["phantom", *filled, "--output", str(tmp_path / "out")]) == 2
    assert message.format(**names) in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
