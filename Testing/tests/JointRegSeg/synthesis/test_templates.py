"""Templates: that of nilearn, and images in a folder."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from JointRegSegLib.synthesis.templates import load_templates

pytest.importorskip("nilearn", reason="synthetic patients are made from the template in the package nilearn")


def test_the_template_has_three_tissues_that_fill_the_brain() -> None:
    template = load_templates()[0].at(4.0)
    total = template.tissues.sum(0)
    assert float(total.max()) <= 1.0 + 1e-5
    liters = float(total.sum()) * 4.0**3 / 1e6
    assert 1.5 < liters < 2.3
    assert all(0.08 < float(tissue.sum() / total.sum()) < 0.6 for tissue in template.tissues)


def test_a_template_from_a_folder_is_divided_into_tissues(tmp_path: Path) -> None:
    values = np.zeros((20, 20, 20), dtype=np.float32)
    values[2:18, 2:18, 2:18] = 30
    values[5:15, 5:15, 5:15] = 60
    values[8:12, 8:12, 8:12] = 100
    sitk.WriteImage(sitk.GetImageFromArray(values), str(tmp_path / "head.nii.gz"))
    template = next(t for t in load_templates(tmp_path) if t.name == "head")
    assert int(template.tissues[:, 10, 10, 10].argmax()) == 2
    assert int(template.tissues[:, 6, 10, 10].argmax()) == 1
    assert int(template.tissues[:, 3, 10, 10].argmax()) == 0
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(ValueError, match="contains no image"):
        load_templates(empty)


def test_the_mean_template_is_about_as_crisp_as_a_person() -> None:
    tissues = load_templates()[0].at(2.0).tissues
    total = tissues.sum(0)
    shares = (tissues / total.clamp_min(1e-3))[:, total > 0.5]
    mixed = float((shares.amax(0) < 0.8).float().mean())
    assert 0.2 < mixed < 0.3  # 0.26 in Colin27; 0.52 in the mean over 152 people
