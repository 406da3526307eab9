"""DICOM series as scans: acquisitions with a protocol, single images, and finished maps."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from dicom_files import OFFSETS, SIGNAL, place, series, write_classic, write_dicom

from CESTQuantLib.formats.scanner.sources import read_source


def test_a_single_volume_is_an_image_unless_offsets_are_given(tmp_path: Path) -> None:
    write_classic(tmp_path / "dicom", SIGNAL[:1])
    found, _ = read_source(tmp_path / "dicom")
    assert found.protocol is None
    assert found.notes[-1] == "no saturation was found, so this is an image: with --offsets it becomes a CEST signal"
    found, _ = read_source(tmp_path / "dicom", offsets=[3.5])
    assert found.protocol is not None
    assert found.protocol["offsets_ppm"] == [3.5]


@pytest.mark.parametrize("manufacturer", ["Philips Medical Systems", "GE MEDICAL SYSTEMS"])
def test_finished_maps_are_percent(tmp_path: Path, manufacturer: str) -> None:
    scaled = {
        (0x0008, 0x0008): ("CS", "DERIVED\\SECONDARY\\APTW"),
        (0x0028, 0x1053): ("DS", 0.02),
        (0x0028, 0x1052): ("DS", -10),
        (0x2005, 0x100E): ("FL", 3.0),
    }
    for k, image in enumerate(SIGNAL[0]):
        write_dicom(tmp_path / f"{k}.dcm", {**series("APTw map", 9, manufacturer), **place(k), **scaled}, image[None])
    found, _ = read_source(tmp_path)
    assert found.is_aptw_percent
    assert found.protocol is None
    np.testing.assert_allclose(found.images.array[0], SIGNAL[0] * 0.02 - 10, rtol=1e-5)
    assert "taken as percent" in found.notes[0]


def test_a_map_that_cannot_be_percent_is_told(tmp_path: Path) -> None:
    for k, image in enumerate(SIGNAL[0]):
        write_dicom(tmp_path / f"{k}.dcm", {**series("APTw", 9), **place(k)}, image[None])
    found, _ = read_source(tmp_path)
    assert not found.is_aptw_percent
    assert "are no percent" in found.notes[0]


@pytest.mark.parametrize("offsets", [None, OFFSETS])
def test_several_volumes_that_are_called_like_a_map_are_an_acquisition(
    tmp_path: Path, offsets: list[float] | None
) -> None:
    write_classic(tmp_path, SIGNAL, {**series("APTw_2uT"), (0x0008, 0x0008): ("CS", "DERIVED\\PRIMARY\\M\\DIS3D")})
    found, _ = read_source(tmp_path, offsets=offsets)
    np.testing.assert_array_equal(found.images.array, SIGNAL)
    assert found.protocol is not None
    assert found.protocol["offsets_ppm"] == offsets
    assert any("taken as an acquisition of 4 volumes" in note for note in found.notes)


def test_a_volume_that_is_called_like_a_map_is_a_measurement_with_offsets(tmp_path: Path) -> None:
    write_classic(tmp_path, SIGNAL[:1], series("amide"))
    assert read_source(tmp_path)[0].protocol is None
    found, _ = read_source(tmp_path, offsets=[3.5])
    assert found.protocol is not None
    assert found.protocol["offsets_ppm"] == [3.5]
