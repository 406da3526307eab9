"""The spatial prior through the command: smoother maps, its numbers in the report, methods without a fit refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from studies import acquire, fit_arguments, messages, read_image, spectrum_protocol

from CESTQuantLib.batch import main


@pytest.fixture
def noisy(tmp_path: Path) -> Path:
    still = acquire(spectrum_protocol(count=21))
    noise = np.random.default_rng(4).normal(0, 0.01 * float(still.m0.mean()), still.signal.shape)
    return replace(still, signal=still.signal + noise.astype(still.signal.dtype)).write(tmp_path / "in")


def test_maps_are_smoother_and_the_report_says_how_much(slicer: object, noisy: Path, tmp_path: Path) -> None:
    own, joint = tmp_path / "own", tmp_path / "joint"
    assert main(fit_arguments(noisy, own, "lorentzian")) == 0
    assert main([*fit_arguments(noisy, joint, "lorentzian"), "--spatial-prior", "--noise-sd", "0.01"]) == 0
    mask = read_image(noisy / "mask.nii.gz") > 0
    spread = [np.diff(read_image(f / "amide_amplitude.nii.gz"), axis=1)[mask[:, 1:]].std() for f in (own, joint)]
    assert spread[1] < spread[0]
    summary = json.loads((joint / "report.json").read_text())["summary"]
    assert 0 < summary["spatial_prior error_ratio amide_amplitude"] < 1
    assert summary["spatial_prior noise_sd"] == pytest.approx(0.01)


def test_a_method_without_a_fit_is_refused(
    slicer: object, noisy: Path, tmp_path: Path, capfd: pytest.CaptureFixture
) -> None:
    assert main([*fit_arguments(noisy, tmp_path / "out", "mtrasym"), "--spatial-prior"]) == 2
    said = messages(capfd.readouterr().err)[-1]
    assert "mtrasym has no fit for the spatial prior" in said
    assert "lorentzian" in said
    assert not (tmp_path / "out").exists()
