"""What a training learns from its data before it starts."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from joint_training_cases import toy_config

from JointRegSegLib.cohort.sampling import class_counts, median_frequency_weights
from JointRegSegLib.training.data import open_data


def test_class_weights_of_synthetic_patients_are_those_of_the_first_ones(tmp_path: Path) -> None:
    data = {"path": "synthetic", "synthetic": {"spacing_mm": 8}, "length": 40, "validation_pairs": 0}
    config = toy_config(data=data, loss={"window": 3, "class_weights": "median_frequency"})
    opened = open_data(config, None, tmp_path)
    studies = [study for index in range(16) for study in opened.source[index]]
    counts = torch.stack([class_counts(study.labels, study.mask)[:4] for study in studies])
    assert opened.config.loss.class_weights == pytest.approx(median_frequency_weights(counts).tolist(), rel=1e-5)
    assert opened.config.loss.class_weights[0] < 0.1


def test_resections_need_a_network_with_a_class_for_the_cavity(tmp_path: Path) -> None:
    (tmp_path / "t1.nii.gz").touch()
    (tmp_path / "cohort.csv").write_text("subject,visit,split,t1\nA,1,train,t1.nii.gz\n")
    config = toy_config(data={"path": "cache", "transplants": {"resection_probability": 0.5}})
    with pytest.raises(ValueError, match="'tiny' has no class for the resection cavity; use one of 5 classes"):
        open_data(config, tmp_path / "cohort.csv", tmp_path)
    assert not (tmp_path / "cache").exists()
