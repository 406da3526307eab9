"""Images in several files."""

from __future__ import annotations

from pathlib import Path

import pytest
import SimpleITK as sitk

from NeuroCESTLib.core.headers.parts import files_of_image, image_checksum

PAIRS = [("a.hdr", "a.img"), ("a.nhdr", "a.raw"), ("a.mhd", "a.raw"), ("a.nhdr", "a.raw.gz"), ("a.mhd", "a.zraw")]


@pytest.mark.parametrize(("header", "data"), PAIRS)
def test_a_header_brings_its_data_and_both_make_the_checksum(header: str, data: str, tmp_path: Path) -> None:
    image = sitk.Image([8, 8, 4], sitk.sitkFloat32)
    sitk.WriteImage(image, str(tmp_path / header), useCompression=data.endswith(("gz", "zraw")))
    assert files_of_image(tmp_path / header) == [tmp_path / header, tmp_path / data]
    before = image_checksum(tmp_path / header)
    with open(tmp_path / data, "r+b") as file:
        file.write(b"changed")
    assert image_checksum(tmp_path / header) != before


@pytest.mark.parametrize("name", ["a.nii", "a.nrrd", "a.mha", "alone.hdr", "none.nhdr", "protocol.json"])
def test_other_files_stand_alone(name: str, tmp_path: Path) -> None:
    if name.startswith("a."):
        sitk.WriteImage(sitk.Image([8, 8, 4], sitk.sitkFloat32), str(tmp_path / name))
    assert files_of_image(tmp_path / name) == [tmp_path / name]
