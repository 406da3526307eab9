"""Motion correction, denoising and smoothing through the command: recorded in the report, nothing else changes."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from moving_head import acquire_moving, rigid, z_protocol
from studies import (
    acquire,
    fit_arguments,
    messages,
    read_image,
    spectrum_protocol,
    write_image,
    write_json,
    write_series,
)

from CESTQuantLib.batch import main
from CESTQuantLib.formats.protocol_json import protocol_to_dict
from CESTQuantLib.physics.protocol import Protocol
from NeuroCESTLib.scene.geometry import Geometry

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


def test_smoothed_repeats_give_no_standard_errors_and_that_is_told(
    slicer: object, tmp_path: Path, capfd: pytest.CaptureFixture
) -> None:
    offsets = torch.linspace(-6, 6, 21).double()
    still = acquire(Protocol(3.0, torch.cat((offsets, offsets + 0.0015)), 1.0, 3.0))  # rounded otherwise
    noise = np.random.default_rng(4).normal(0, NOISE * float(still.m0.mean()), still.signal.shape)
    folder = replace(still, signal=still.signal + noise.astype(still.signal.dtype)).write(tmp_path / "in")
    told = "the noise is not estimated from the repeated measurements"
    for name, options in (("plain", ()), ("smoothed", ("--smooth-spectra", "1"))):
        output = tmp_path / name
        assert main([*fit_arguments(folder, output, "mtrasym", b0=folder / "b0.nii.gz"), *options]) == 0
        assert (told in capfd.readouterr().err) == bool(options)
        assert (output / "mtr_asym_3.5ppm_sd.nii.gz").exists() != bool(options)


def test_an_unusable_width_is_refused(
    slicer: object, noisy: Path, tmp_path: Path, capfd: pytest.CaptureFixture
) -> None:
    assert main([*fit_arguments(noisy, tmp_path / "out", "mtrasym"), "--smooth-spectra", "-1"]) == 2
    assert "must be a positive number of ppm, not -1" in messages(capfd.readouterr().err)[-1]
    assert not (tmp_path / "out").exists()


@pytest.fixture
def moving(tmp_path: Path) -> Path:
    """A slice that moves after the eighth measurement, and its M0 image, which was acquired before."""
    protocol = z_protocol(13, m0=0)
    poses = np.tile(np.eye(4), (13, 1, 1))
    poses[8:] = rigid(np.array([0.0, 0.0, 3.0]), np.array([4.0, -2.0, 0.0]))
    head = acquire_moving(protocol, poses, (1, 54, 46), (4.0, 4.0, 4.0))
    m0 = acquire_moving(z_protocol(1), np.tile(np.eye(4), (2, 1, 1)), (1, 54, 46), (4.0, 4.0, 4.0)).images[0]
    geometry = Geometry((1, 54, 46), np.diag([4.0, 4.0, 4.0, 1.0]))
    folder = tmp_path / "moving"
    folder.mkdir()
    write_series(head.noisy(100), geometry, folder / "signal.nii.gz")
    write_image(m0.astype(np.float32), geometry, folder / "m0.nii.gz")
    write_json(protocol_to_dict(protocol), folder / "protocol.json")
    return folder


def test_motion_is_corrected_plotted_and_recorded(slicer: object, moving: Path, tmp_path: Path) -> None:
    assert main([*fit_arguments(moving, tmp_path / "out", "mtrasym"), "--motion-correct"]) == 0
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    motion = report["summary"]["preparation"]["motion"]
    assert motion["measurements"] == ["M0", *(str(number + 1) for number in range(13))]
    assert np.shape(motion["translations_mm"]) == np.shape(motion["rotations_deg"]) == (14, 3)
    assert motion["largest_displacement_mm"] > 3
    moved = {name in motion["resampled"] for name in ("M0", "1", "2", "3")}
    assert moved != {name in motion["resampled"] for name in ("12", "13")}
    assert any("motion within the slices" in warning for warning in report["warnings"])
    place = motion["reference"] if motion["reference"] == "M0" else f"measurement {motion['reference']}"
    assert any(f"into the position of {place}: mask, maps" in warning for warning in report["warnings"])
    assert (tmp_path / "out" / "motion.png").read_bytes().startswith(b"\x89PNG")


def test_motion_is_corrected_in_an_acquisition_for_field_maps_too(slicer: object, moving: Path, tmp_path: Path) -> None:
    arguments = ["--signal", moving / "signal.nii.gz", "--protocol", moving / "protocol.json", "--reference"]
    arguments += [moving / "m0.nii.gz", "--motion-correct", "--output", tmp_path / "fields"]
    assert main(["wassr", *map(str, arguments)]) == 0
    record = json.loads((tmp_path / "fields" / "report.json").read_text())["summary"]["preparation"]["motion"]
    assert record["largest_displacement_mm"] > 3
    assert (tmp_path / "fields" / "motion.png").stat().st_size > 0
