"""Every file is checked before its reader sees it: NIfTI, scenes, and images of other formats by their place."""

from __future__ import annotations

import os
import struct
import subprocess
import sys
import zipfile
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import SimpleITK as sitk

from JointRegSegLib.images.reading import read_image
from NeuroCESTLib.core.headers.checks import check_file
from NeuroCESTLib.core.headers.library_messages import library_lines_caught
from NeuroCESTLib.scene.segmentations import read_segmentation
from NeuroCESTLib.scene.volumes import read_volume

PIXDIM, SLOPE, QFORM_CODE, QUATERNION, QOFFSET, SROW = 76, 112, 252, 256, 268, 280


def nifti(path: Path, place: int | None = None, *values: float) -> Path:
    """A NIfTI file of 3 x 4 x 5 voxels with numbers in its header overwritten."""
    sitk.WriteImage(sitk.GetImageFromArray(np.zeros((5, 4, 3), np.float32)), str(path))
    if place is not None:
        content = bytearray(path.read_bytes())
        content[place : place + 4 * len(values)] = struct.pack(f"<{len(values)}f", *values)
        path.write_bytes(content)
    return path


@pytest.mark.parametrize(
    ("place", "values", "words"),
    [
        (SROW + 12, (np.inf,), "origin that is not finite"),
        (SROW + 12, (1e20,), "from the origin of its coordinates"),
        (SROW, (np.nan,), "voxel size or direction that is not finite"),
        (SROW, (0.0, 0.0, 0.0), "voxel size of 0 mm"),
        (SROW, (1e9,), "its voxel size is damaged"),
        (QOFFSET, (-np.inf,), "origin that is not finite"),
        (QUATERNION, (np.nan,), "not finite"),
        (SLOPE, (np.inf,), "scales its values"),
    ],
)
def test_a_nifti_image_has_a_finite_place_on_earth(
    place: int, values: tuple, words: str, tmp_path: Path, slicer: ModuleType
) -> None:
    path = nifti(tmp_path / "v.nii", place, *values)
    for read in (check_file, read_image, read_volume):
        with pytest.raises(ValueError, match=words) as caught:
            read(path)
        assert str(path) in str(caught.value)
        assert "\n" not in str(caught.value)
    assert slicer.mrmlScene.GetNumberOfNodesByClass("vtkMRMLVolumeNode") == 0


def test_an_image_of_another_format_is_checked_by_its_place(tmp_path: Path, slicer: ModuleType) -> None:
    path = tmp_path / "v.mha"
    image = sitk.GetImageFromArray(np.zeros((5, 4, 3), np.float32))
    image.SetOrigin((0, 0, 1e9))
    sitk.WriteImage(image, str(path))
    for read in (read_image, read_volume):
        with pytest.raises(ValueError, match="from the origin"):
            read(path)


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        (b"NDims = 3", b"NDims = 99999999999999999999", "NDims is '99999999999999999999'"),
        (b"DimSize = 3 4 5", b"DimSize = 3 4", "must be 3 whole numbers"),
        (b"DimSize = 3 4 5", b"DimSize = 3 4 50", "truncated"),
        (b"MET_FLOAT", b"MET_NONE", "there is no ElementType 'MET_NONE'"),
        (b"Offset = 0 0 0", b"Offset = 0 0 nan", "must be 3 finite numbers"),
        (b"ElementDataFile = LOCAL", b"ElementDataFile = LIST", "save it as one file"),
        (b"ElementDataFile = LOCAL", b"ElementDataFile = v.raw", "missing beside it"),
        (b"ElementDataFile", b"ElementData", "no MetaImage header"),
    ],
)
def test_a_metaimage_gives_its_reader_sound_numbers(old: bytes, new: bytes, words: str, tmp_path: Path) -> None:
    path = tmp_path / "v.mha"
    sitk.WriteImage(sitk.GetImageFromArray(np.zeros((5, 4, 3), np.float32)), str(path))
    check_file(path)
    content = path.read_bytes()
    assert old in content
    path.write_bytes(content.replace(old, new))
    with pytest.raises(ValueError, match=words):
        check_file(path)


def test_an_unknown_encoding_does_not_end_the_process(tmp_path: Path, slicer: ModuleType) -> None:
    path = tmp_path / "labels.seg.nrrd"
    sitk.WriteImage(sitk.GetImageFromArray(np.ones((5, 4, 3), np.uint8)), str(path))
    content = path.read_bytes()
    path.write_bytes(content.replace(b"encoding: raw", b"encoding: " + b"r" * 600))
    for read in (read_segmentation, read_image):
        with pytest.raises(ValueError, match="there is no encoding"):
            read(path)


def test_no_folder_stays_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(temporary))
    read_image(nifti(tmp_path / "v.nii"))
    with pytest.raises(ValueError, match="not finite"):
        read_image(nifti(tmp_path / "w.nii", SROW, np.nan))
    assert not list(temporary.iterdir())


def bundle(path: Path, entries: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in entries.items():
            archive.writestr(name, content)
    return path


SCENE = b"<MRML version='Slicer4.4.0'></MRML>"
BOMB = b"<!DOCTYPE m [<!ENTITY a 'aaaa'><!ENTITY b '&a;&a;&a;'>]><MRML>&b;</MRML>"


@pytest.mark.parametrize(
    ("entries", "words"),
    [
        ({"s/s.mrml": SCENE, "../../outside.txt": b""}, "outside its own folder"),
        ({"s/s.mrml": SCENE, "/etc/passwd": b""}, "outside its own folder"),
        ({"s/Data/v.nrrd": b""}, "holds no scene"),
        ({"s/s.mrml": BOMB}, "defines entities"),
        ({"s/s.mrml": b"<MRML>"}, "not a scene, or a damaged one"),
        ({"s/s.mrml": b"<?xml version='1.0' encoding='UTF-99'?>" + SCENE}, "letters in the unknown code 'UTF-99'"),
        ({"s/s.mrml": b"<?xml version='1.0' encoding='big5'?>" + SCENE}, "letters in the unknown code 'big5'"),
        ({"s/s.mrml": b"<html></html>"}, "its first element must be MRML"),
        ({"s/s.mrml": b"<MRML>" + b"<a>" * 500 + b"</a>" * 500 + b"</MRML>"}, "nested too deep"),
        ({"s/s.mrml": SCENE, "s/Data/v.nrrd": b"NRRD0004\nencoding: odd\n\n"}, "v.nrrd' has a damaged NRRD header"),
    ],
)
def test_a_scene_archive_is_checked_before_it_is_unpacked(
    entries: dict, words: str, tmp_path: Path, slicer: ModuleType
) -> None:
    path = bundle(tmp_path / "s.mrb", entries)
    with pytest.raises(ValueError, match=words) as caught:
        check_file(path)
    assert str(path) in str(caught.value)
    assert not slicer.app.coreIOManager().loadScene(str(path))


def test_a_damaged_archive_is_refused_and_a_saved_scene_passes(tmp_path: Path, slicer: ModuleType) -> None:
    read_volume(nifti(tmp_path / "v.nii"))
    path = tmp_path / "scene.mrb"
    slicer.app.coreIOManager().saveScene(str(path))
    check_file(path)
    assert slicer.app.coreIOManager().loadScene(str(path))
    cut = tmp_path / "cut.mrb"
    cut.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ValueError, match="not a scene archive"):
        check_file(cut)


@pytest.mark.parametrize("place", [0, 6, 8, 14])  # signature, flags, method and checksum of an entry
@pytest.mark.parametrize("number", [0, 1, 2])  # a folder and two files
def test_an_archive_whose_entries_contradict_its_directory_is_refused(
    number: int, place: int, tmp_path: Path, slicer: ModuleType, capfd: pytest.CaptureFixture
) -> None:
    path = bundle(tmp_path / "s.mrb", {"s/": b"", "s/s.mrml": SCENE, "s/notes.txt": b"notes"})
    content = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as archive:
        content[archive.infolist()[number].header_offset + place] ^= 1
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"s\.mrb' is not a scene archive \(\.mrb\), or a damaged one"):
        check_file(path)
    assert not slicer.app.coreIOManager().loadScene(str(path))
    assert "vtkArchive" not in "".join(capfd.readouterr())


def test_lines_of_libraries_are_kept_from_standard_error() -> None:
    code = "\n".join(
        [
            "import os, threading",
            "from NeuroCESTLib.core.headers.library_messages import library_lines_caught",
            "def read():",
            "    with library_lines_caught(), library_lines_caught():",
            "        os.write(2, b'** ERROR (nifti_image_read): short file\\n')",
            "        os.write(2, b'progress 10 %\\n')",
            "threads = [threading.Thread(target=read) for _ in range(8)]",
            "[t.start() for t in threads]; [t.join() for t in threads]",
            "os.write(2, b'end\\n')",
        ]
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        check=True,
    )
    assert done.stderr == b"progress 10 %\n" * 8 + b"end\n"
    with library_lines_caught():
        pass
