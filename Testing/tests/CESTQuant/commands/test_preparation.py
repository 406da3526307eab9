"""Denoising and smoothing through the command: recorded in the report, and nothing else changes."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from studies import acquire, fit_arguments, messages, read_image, spectrum_protocol

from CESTQuantLib.batch import main

NOISE = 0.01


@pytest.fixture
def noisy(tmp_path: Path) -> Path:
    still = acquire(spectrum_protocol(count=21))
    noise = np.random.default_rng(4).normal(0, NOISE * float(still.m0.mean()), still.signal.shape)
    return replace(still, signal=still.signal + noise.astype(still.signal.dtype)).write(tmp_path / "in")


def test_denoising_and_smoothing_are_recorded(slicer: object, noisy: Path, tmp_path: Path) -> None:
    plain, prepared = tmp_path / "plain", tmp_path / "prepared"
    b0 = noisy / "b0.nii.gz"
    assert main(fit_arguments(noisy, plain, "mtrasym", b0=b0)) == 0
    assert main([*fit_arguments(noisy, prepared, "mtrasym", b0=b0), "--denoise", "--smooth-spectra", "0.8"]) == 0
    record = json.loads((prepared / "report.json").read_text())["summary"]["preparation"]
    scale = float(read_image(noisy / "m0.nii.gz").mean())
    assert record["denoising"]["method"] == "MP-PCA"
    assert record["denoising"]["median_noise_sd"] == pytest.approx(NOISE * scale, rel=0.25)
    assert record["smoothing"] == {"width_ppm": 0.8}
    assert "preparation" not in json.loads((plain / "report.json").read_text())["summary"]
    assert {file.name for file in prepared.glob("*.nii.gz")} - {file.name for file in plain.glob("*.nii.gz")} == {
        "noise_sd.nii.gz"
    }
    spread = [read_image(folder / "mtr_asym_3.5ppm.nii.gz").std() for folder in (plain, prepared)]
    assert spread[1] < spread[0]


def test_an_unusable_width_is_refused(
    slicer: object, noisy: Path, tmp_path: Path, capfd: pytest.CaptureFixture
) -> None:
    assert main([*fit_arguments(noisy, tmp_path / "out", "mtrasym"), "--smooth-spectra", "-1"]) == 2
    assert "must be a positive number of ppm, not -1" in messages(capfd.readouterr().err)[-1]
    assert not (tmp_path / "out").exists()
