"""Regions of the classes, and the files of a study found by their names."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from JointRegSegLib.images.labels import CLASSES, REGIONS, classes_of_probabilities, region
from JointRegSegLib.images.modalities import MODALITIES, find_study_files, modality, role_of_file, split_name


def test_regions_are_nested() -> None:
    classes = torch.arange(len(CLASSES))
    assert region(classes, "whole_tumor").tolist() == [False, True, True, True]
    assert region(classes, "tumor_core").tolist() == [False, True, False, True]
    assert region(classes, "enhancing_tumor").tolist() == [False, False, False, True]
    assert set(REGIONS["enhancing_tumor"]) < set(REGIONS["tumor_core"]) < set(REGIONS["whole_tumor"])


@pytest.mark.parametrize(
    ("shares", "expected", "why"),
    [
        ((0.4, 0.25, 0.2, 0.15), 1, "tumour is more probable than background, and core than oedema"),
        ((0.4, 0.15, 0.25, 0.2), 3, "core is more probable than oedema, and most of it enhances"),
        ((0.4, 0.1, 0.4, 0.1), 2, "oedema is more probable than the whole core"),
        ((0.55, 0.45, 0.0, 0.0), 0, "background is more probable than tumour"),
        ((0.2, 0.1, 0.1, 0.15, 0.45), 4, "a cavity is more probable than tumour"),
        ((0.3, 0.15, 0.15, 0.15, 0.25), 1, "tumour is more probable than either background or cavity"),
        ((0.45, 0.1, 0.1, 0.1, 0.25), 0, "nothing is more probable than background"),
        ((0.4, 0.6), 1, "two classes: the most probable one"),
    ],
)
def test_a_voxel_is_tumor_where_its_compartments_together_are_more_probable_than_the_rest(
    shares: tuple[float, ...], expected: int, why: str
) -> None:
    probabilities = torch.tensor(shares).view(-1, 1, 1, 1).expand(-1, 2, 3, 4)
    found = classes_of_probabilities(probabilities)
    assert found.shape == (2, 3, 4)
    assert found.dtype == torch.uint8
    assert (found == expected).all(), why


@pytest.mark.parametrize(
    ("name", "study", "role"),
    [
        ("Brats18_TCIA01_131_1_t1ce.nii.gz", "Brats18_TCIA01_131_1", "t1ce"),
        ("BraTS19_2013_0_1_flair.nii", "BraTS19_2013_0_1", "flair"),
        ("BraTS20_Training_001_seg.nii.gz", "BraTS20_Training_001", "label"),
        ("W39_1998.09.19_Segm.nii", "W39_1998.09.19", "label"),
        ("BraTS2021_00006_t1.nii.gz", "BraTS2021_00006", "t1"),
        ("BraTS-GLI-00000-000-t1n.nii.gz", "BraTS-GLI-00000-000", "t1"),
        ("BraTS-GLI-00000-000-t1c.nii.gz", "BraTS-GLI-00000-000", "t1ce"),
        ("BraTS-GLI-00000-000-t2w.nii.gz", "BraTS-GLI-00000-000", "t2"),
        ("BraTS-GLI-00000-000-t2f.nii.gz", "BraTS-GLI-00000-000", "flair"),
        ("BraTS-GLI-00000-000-seg.nii.gz", "BraTS-GLI-00000-000", "label"),
        ("TCGA-FG-6692_fla_bet.nii.gz", "TCGA-FG-6692", "flair"),
        ("TCGA-FG-6692_t1c_bet.nii.gz", "TCGA-FG-6692", "t1ce"),
        ("TCGA-FG-6692_seg_fused-auto.nii.gz", "TCGA-FG-6692", "label"),
        ("sub-1_ce-gadolinium_T1w.nii.gz", "sub-1_ce-gadolinium", "t1ce"),
        ("P3_T2_FLAIR.nrrd", "P3", "flair"),
        ("P3_T1_Gd.nrrd", "P3", "t1ce"),
        ("CT1.nii.gz", "", "t1ce"),
        ("P3_brain_mask.nii.gz", "P3", "mask"),
        ("P3_tumor_mask.nii.gz", "P3_tumor_mask", None),
        ("sub-1_label-tumor_dseg.nii.gz", "sub-1_label", "label"),
        ("sub-1_space-T1w_desc-lesions_dseg.nii.gz", "sub-1_space-T1w_desc-lesions", "label"),
        ("sub-1_dseg.nii.gz", "sub-1_dseg", None),
        ("sub-1_desc-aseg_dseg.nii.gz", "sub-1_desc-aseg_dseg", None),
        ("sub-1_label-GM_seg.nii.gz", "sub-1_label-GM_seg", None),
        ("sub-1_mask.nii.gz", "sub-1", "mask"),
        ("sub-1_desc-brain_mask.nii.gz", "sub-1_desc", "mask"),
        ("sub-1_label-brain_desc-manual_mask.nii.gz", "sub-1_label-brain_desc", "mask"),
        ("sub-1_label-GM_desc-brain_mask.nii.gz", "sub-1_label-GM_desc-brain_mask", None),
        ("sub-1_desc-ribbon_mask.nii.gz", "sub-1_desc-ribbon_mask", None),
        ("sub-1_label-edema_mask.nii.gz", "sub-1_label-edema_mask", None),
        ("P3_dwi.nii.gz", "P3_dwi", None),
        ("P3_t1.json", "P3_t1.json", None),
        ("t1_of_someone.nii.gz", "t1_of_someone", None),
    ],
)
def test_file_names_tell_study_and_role(name: str, study: str, role: str | None) -> None:
    assert split_name(name) == (study, role)
    assert role_of_file(Path("folder") / name) == role


def test_modalities_are_known_by_their_synonyms() -> None:
    assert [modality(name) for name in ("T1", "T1Gd", "T2-FLAIR", "t2w")] == ["t1", "t1ce", "flair", "t2"]
    with pytest.raises(ValueError, match="modality 'label' is unknown; use one of t1, t1ce, t2, flair"):
        modality("label")


def test_files_of_a_folder_are_found_in_the_order_of_the_channels(tmp_path: Path) -> None:
    for role in ("seg", "flair", "t2", "t1ce", "t1"):
        (tmp_path / f"BraTS2021_00001_{role}.nii.gz").touch()
    (tmp_path / "readme.txt").touch()
    found = find_study_files(tmp_path)
    assert tuple(found) == (*MODALITIES, "label")
    assert found["t1ce"].name == "BraTS2021_00001_t1ce.nii.gz"


def test_an_image_is_taken_from_the_single_file_where_its_old_header_and_data_lie_beside_it(tmp_path: Path) -> None:
    for name in ("P1_t1.hdr", "P1_t1.img", "P1_t1.nii.gz", "P1_flair.hdr", "P1_flair.img"):
        (tmp_path / name).touch()
    found = find_study_files(tmp_path)
    assert {role: file.name for role, file in found.items()} == {"t1": "P1_t1.nii.gz", "flair": "P1_flair.hdr"}


def test_two_files_for_one_modality_are_refused(tmp_path: Path) -> None:
    for name in ("a_t1.nii.gz", "b_t1.nii.gz"):
        (tmp_path / name).touch()
    with pytest.raises(ValueError, match=r"two files for T1: 'a_t1\.nii\.gz' and 'b_t1\.nii\.gz'"):
        find_study_files(tmp_path)
    with pytest.raises(ValueError, match=r"nowhere' does not exist"):
        find_study_files(tmp_path / "nowhere")


@pytest.mark.parametrize("case", ["BraTS2021_00006", "TCGA-FG-6692"])
def test_files_of_real_cases_are_found(shared_data: Callable[[str], Path], case: str) -> None:
    assert set(find_study_files(shared_data(f"data/brain/{case}"))) == {*MODALITIES, "label"}
