"""The weights that are part of the package: small, documented and able to find tumours."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from paths import ROOT

from JointRegSegLib.images.label_maps import classes_of_map
from JointRegSegLib.images.labels import REGIONS
from JointRegSegLib.images.modalities import MODALITIES
from JointRegSegLib.images.study import StudyImages
from JointRegSegLib.inference.single_study import segment_study
from JointRegSegLib.metrics.overlap import dice
from JointRegSegLib.network.shipped import default_weights_path
from JointRegSegLib.network.weights import LoadedWeights, load_weights
from JointRegSegLib.synthesis.patient import synthetic_patient
from JointRegSegLib.synthesis.source import sample_of
from JointRegSegLib.synthesis.templates import load_templates
from JointRegSegLib.training.config_files import read_config
from NeuroCESTLib.core.labels.conventions import CONVENTIONS

FOLDER = ROOT / "JointRegSeg" / "JointRegSegLib" / "weights"
REAL = ROOT.parent / "shared" / "data" / "brain"
CASES = {
    "BraTS2021_00006": ("t1", "t1ce", "t2", "flair", "seg"),
    "TCGA-FG-6692": ("t1_bet", "t1c_bet", "t2_bet", "fla_bet", "seg_fused-auto"),
}


@pytest.fixture(scope="module")
def weights() -> LoadedWeights:
    return load_weights(default_weights_path())


def test_weights_are_small_and_documented() -> None:
    assert default_weights_path() == FOLDER / "neurocest.pt"
    assert default_weights_path().stat().st_size <= 15e6
    card = (FOLDER / "neurocest.md").read_text(encoding="utf-8")
    for word in ("Licence", "jointregseg train", "not for clinical use", "Limits"):
        assert word in card


def test_weights_record_their_preprocessing_and_contain_no_paths(weights: LoadedWeights) -> None:
    assert weights.config.name == "neurocest"
    assert weights.config.modalities == MODALITIES
    text = json.dumps(dict(weights.metadata), default=str)
    for word in ("/tmp", "/home", "/work", "/root"):
        assert word not in text
    assert weights.metadata["preprocessing"]["spacing_mm"] == 1.0


@pytest.mark.parametrize("file", sorted(FOLDER.glob("neurocest_*.json")), ids=lambda file: file.name)
def test_configurations_of_the_training_are_valid(file: Path) -> None:
    config = read_config(file)
    assert config.network.name == "neurocest"
    with_real_patients = file.stem.removeprefix("neurocest_stage") in ("5", "6", "8", "10")
    assert config.data.path == ("cache" if with_real_patients else "synthetic")
    assert "/" not in f"{config.data.cache}{config.data.synthetic['templates']}"


def test_tumours_of_synthetic_patients_are_found(weights: LoadedWeights) -> None:
    pytest.importorskip("nilearn", reason="synthetic patients need the template in the package nilearn")
    templates = [template.at(2.0) for template in load_templates()]
    overlap, total = 0, 0
    for seed in (500_000_001, 500_000_002):
        for visit in (synthetic_patient(templates, seed).fixed, synthetic_patient(templates, seed).moving):
            images = sample_of(visit, "visit").images[None]
            with torch.inference_mode():
                found = weights.network.segment(images, stride=1)[0].argmax(0) > 0
            overlap += 2 * int((found & (visit.labels > 0)).sum())
            total += int(found.sum()) + int((visit.labels > 0).sum())
    assert overlap / total > 0.75


@pytest.mark.parametrize("name", CASES)
def test_tumours_of_real_patients_are_found(weights: LoadedWeights, name: str) -> None:
    if not (REAL / name).is_dir():
        pytest.skip(f"needs the case {name} of the shared data")
    *images, truth = (sitk.ReadImage(str(REAL / name / f"{name}_{part}.nii.gz")) for part in CASES[name])
    found = sitk.GetArrayFromImage(segment_study(StudyImages(dict(zip(MODALITIES, images, strict=True))), weights))
    known = classes_of_map(sitk.GetArrayFromImage(truth), name, CONVENTIONS["brats2021"]).classes
    scores = {region: dice(np.isin(found, c), np.isin(known, c)) for region, c in REGIONS.items()}
    assert scores["whole_tumor"] >= 0.80
    assert scores["tumor_core"] >= 0.65
