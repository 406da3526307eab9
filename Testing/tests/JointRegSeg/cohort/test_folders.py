"""Cohorts from folders: which files make a study, and whose study it is."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import pytest
from joint_cohorts import NEW_NAMES, OLD_NAMES, write_brats

from JointRegSegLib.cohort.channels import UNKNOWN_CHANNEL
from JointRegSegLib.cohort.folders import (
    COPY,
    FREESURFER,
    NO_IMAGE,
    NO_PART,
    NO_STUDY,
    OTHER_SPACE,
    SECOND,
    SEVERAL,
    SEVERAL_BESIDE,
    cohort_of_folder,
)
from JointRegSegLib.cohort.studies import Cohort


def keys(cohort: Cohort) -> list[tuple[str, str]]:
    return [(study.subject, study.visit) for study in cohort.studies]


def test_brats_2018_folders_are_found_below_their_grades(tmp_path: Path) -> None:
    write_brats(tmp_path / "HGG/Brats18_A_1", "Brats18_A_1", OLD_NAMES)
    write_brats(tmp_path / "LGG/Brats18_B_1", "Brats18_B_1", OLD_NAMES[:4])
    cohort = cohort_of_folder(tmp_path)
    assert keys(cohort) == [("Brats18_A_1", "1"), ("Brats18_B_1", "1")]
    assert cohort.studies[0].label.name == "Brats18_A_1_seg.nii.gz"
    assert cohort.studies[1].label is None


def test_brats_2023_names_give_subject_and_visit(tmp_path: Path) -> None:
    for name in ("BraTS-GLI-00005-000", "BraTS-GLI-00005-001", "BraTS-GLI-00002-000"):
        write_brats(tmp_path / name, name, NEW_NAMES, "-")
    assert keys(cohort_of_folder(tmp_path)) == [
        ("BraTS-GLI-00002", "000"),
        ("BraTS-GLI-00005", "000"),
        ("BraTS-GLI-00005", "001"),
    ]


def test_visit_folders_belong_to_their_parent(tmp_path: Path) -> None:
    for visit in ("ses-01", "week-012-1"):
        write_brats(tmp_path / "Patient-7" / visit, "x", OLD_NAMES)
    assert keys(cohort_of_folder(tmp_path)) == [("Patient-7", "ses-01"), ("Patient-7", "week-012-1")]


def test_files_named_for_visits_belong_to_the_subject_of_their_folder(tmp_path: Path) -> None:
    for subject, visits in (("P1", ("visit1", "visit2")), ("P2", ("baseline",)), ("003", ("ses-01", "ses-02"))):
        for visit in visits:
            write_brats(tmp_path / subject, visit, (*OLD_NAMES, "mask"))
    (tmp_path / "004").mkdir()
    write_brats(tmp_path / "004", "visit1", OLD_NAMES)
    cohort = cohort_of_folder(tmp_path)
    assert keys(cohort) == [
        ("003", "ses-01"),
        ("003", "ses-02"),
        ("004", "visit1"),
        ("P1", "visit1"),
        ("P1", "visit2"),
        ("P2", "baseline"),
    ]
    assert cohort.studies[3].label.name == "visit1_seg.nii.gz"
    assert cohort.studies[4].mask.name == "visit2_mask.nii.gz"
    assert keys(cohort_of_folder(tmp_path / "P1")) == [("P1", "visit1"), ("P1", "visit2")]


def test_a_folder_named_for_a_visit_takes_precedence_over_its_files(tmp_path: Path) -> None:
    write_brats(tmp_path / "P1/ses-02", "visit1", OLD_NAMES)
    assert keys(cohort_of_folder(tmp_path)) == [("P1", "ses-02")]


def test_files_named_by_numbers_belong_to_different_subjects(tmp_path: Path) -> None:
    for name in ("001", "002"):
        write_brats(tmp_path, name, OLD_NAMES)
    assert keys(cohort_of_folder(tmp_path)) == [("001", "1"), ("002", "1")]


def test_landmarks_beside_the_images_belong_to_the_study(tmp_path: Path) -> None:
    write_brats(tmp_path / "P1", "visit1", OLD_NAMES)
    write_brats(tmp_path / "P1", "visit2", OLD_NAMES)
    write_brats(tmp_path / "P2", "P2", OLD_NAMES)
    for name in ("P1/visit2_landmarks.csv", "P1/notes.csv", "P2/landmarks.fcsv"):
        (tmp_path / name).touch()
    found = [study.landmarks for study in cohort_of_folder(tmp_path).studies]
    assert found == [None, tmp_path / "P1/visit2_landmarks.csv", tmp_path / "P2/landmarks.fcsv"]


def test_linked_folders_are_followed_and_each_study_is_taken_once(tmp_path: Path) -> None:
    cohort, store = tmp_path / "cohort", tmp_path / "store"
    write_brats(store / "archive-17/ses-01", "x", OLD_NAMES)
    write_brats(cohort / "P2/ses-01", "x", OLD_NAMES)
    (cohort / "P1").symlink_to(store / "archive-17", target_is_directory=True)
    (cohort / "A-latest").symlink_to(cohort / "P2/ses-01", target_is_directory=True)
    found = cohort_of_folder(cohort)
    assert keys(found) == [("P1", "ses-01"), ("P2", "ses-01")]
    assert found.studies[0].label == cohort / "P1/ses-01/x_seg.nii.gz"


def test_links_to_a_parent_folder_are_not_followed(tmp_path: Path) -> None:
    write_brats(tmp_path / "cohort/P1", "P1", OLD_NAMES)
    write_brats(tmp_path / "other/P9", "P9", OLD_NAMES)
    for name, target in (("P1/back", "cohort"), ("P1/self", "cohort/P1"), ("outside", ".")):
        (tmp_path / "cohort" / name).symlink_to(tmp_path / target, target_is_directory=True)
    assert keys(cohort_of_folder(tmp_path / "cohort")) == [("P1", "1")]


def test_studies_in_one_folder_are_distinguished_by_their_file_names(tmp_path: Path) -> None:
    write_brats(tmp_path, "a", OLD_NAMES)
    write_brats(tmp_path, "b", OLD_NAMES)
    write_brats(tmp_path, "BraTS-GLI-00001-002", NEW_NAMES, "-")
    assert keys(cohort_of_folder(tmp_path)) == [("BraTS-GLI-00001", "002"), ("a", "1"), ("b", "1")]


def test_a_label_with_another_name_belongs_to_the_single_study_of_its_folder(tmp_path: Path) -> None:
    write_brats(tmp_path / "BraTS20_355", "BraTS20_355", OLD_NAMES[:4])
    (tmp_path / "BraTS20_355/W39_1998.09.19_Segm.nii").touch()
    (study,) = cohort_of_folder(tmp_path).studies
    assert (study.subject, study.label.name) == ("BraTS20_355", "W39_1998.09.19_Segm.nii")


def test_labels_in_other_folders_belong_to_the_study_of_their_folder_where_names_are_the_same(tmp_path: Path) -> None:
    for subject in ("P1", "P2"):
        write_brats(tmp_path / "inside" / subject, "scan", OLD_NAMES[:4])
        write_brats(tmp_path / "trees/images" / subject, "scan", OLD_NAMES[:4])
        write_brats(tmp_path / "trees/labels" / subject, "scan", ("seg",))
    write_brats(tmp_path / "inside/P2/seg", "scan", ("seg", "mask"))
    first, second = cohort_of_folder(tmp_path / "inside").studies
    assert (first.label, first.mask) == (None, None)
    assert (second.label, second.mask) == tuple(tmp_path / f"inside/P2/seg/scan_{n}.nii.gz" for n in ("seg", "mask"))
    for study in cohort_of_folder(tmp_path / "trees").studies:
        assert study.label == tmp_path / "trees/labels" / study.subject / "scan_seg.nii.gz"


def test_labels_without_a_name_belong_to_the_study_of_the_same_path_in_another_tree(tmp_path: Path) -> None:
    for place in ("P1", "P2/v1", "P2/v2"):
        for file in (f"images/{place}/t1", f"images/{place}/flair", f"labels/{place}/seg", f"masks/{place}/mask"):
            (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / f"{file}.nii.gz").touch()
    (tmp_path / "labels/P3").mkdir()
    (tmp_path / "labels/P3/seg.nii.gz").touch()
    cohort = cohort_of_folder(tmp_path)
    assert keys(cohort) == [("P1", "1"), ("P2", "v1"), ("P2", "v2")]
    for study in cohort.studies:
        place = study.images["t1"].parent.relative_to(tmp_path / "images")
        assert study.label == tmp_path / "labels" / place / "seg.nii.gz"
        assert study.mask == tmp_path / "masks" / place / "mask.nii.gz"
    assert cohort.ignored == ((tmp_path / "labels/P3/seg.nii.gz", NO_STUDY),)


def test_a_label_without_a_name_beside_several_studies_is_left_out(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_brats(tmp_path / "images/P1", name, OLD_NAMES[:4])
    (tmp_path / "labels/P1").mkdir(parents=True)
    (tmp_path / "labels/P1/seg.nii.gz").touch()
    assert cohort_of_folder(tmp_path).ignored == ((tmp_path / "labels/P1/seg.nii.gz", SEVERAL_BESIDE),)


def test_a_label_that_may_belong_to_several_studies_is_left_out(tmp_path: Path) -> None:
    for subject in ("P1", "P2"):
        write_brats(tmp_path / subject, "scan", OLD_NAMES[:4])
    write_brats(tmp_path / "labels", "scan", ("seg",))
    cohort = cohort_of_folder(tmp_path)
    assert [study.label for study in cohort.studies] == [None, None]
    assert cohort.ignored == ((tmp_path / "labels/scan_seg.nii.gz", SEVERAL),)


def numbered_channels(folder: Path, *titles: str) -> Path:
    """Empty files of two patients as in nnU-Net, with a file for each of the titled channels."""
    (folder / "imagesTr").mkdir(parents=True)
    for patient in "AB":
        for number in range(len(titles)):
            (folder / f"imagesTr/case_{patient}_{number:04d}.nii.gz").touch()
    (folder / "dataset.json").write_text(json.dumps({"channel_names": dict(enumerate(titles))}))
    return folder


@pytest.mark.parametrize(
    "titles",
    [
        ("T1", "T1 contrast", "T2", "FLAIR"),
        ("T1-weighted", "T1-Gd", "T2-weighted", "T2-FLAIR"),
        ("pre-contrast T1", "T1-weighted post-contrast", "T2w", "flair"),
        ("T1 without contrast", "T1 with gadolinium", "T2", "T2 FLAIR"),
    ],
)
def test_titles_of_channels_are_understood(titles: tuple[str, ...], tmp_path: Path) -> None:
    cohort = cohort_of_folder(numbered_channels(tmp_path, *titles))
    for study in cohort.studies:
        assert {name: file.name[-11:-7] for name, file in study.images.items()} == {
            "t1": "0000",
            "t1ce": "0001",
            "t2": "0002",
            "flair": "0003",
        }
    assert cohort.ignored == ()


def test_channels_of_other_images_are_told_once_and_listed(tmp_path: Path) -> None:
    folder = numbered_channels(tmp_path, "T1", "ADC", "FLAIR")
    (folder / "imagesTr/case_B_0007.nii.gz").touch()
    with pytest.warns(UserWarning, match=r"dataset.json' has channels .* left out: 'ADC'") as told:
        cohort = cohort_of_folder(folder)
    assert len(told) == 1
    assert [set(study.images) for study in cohort.studies] == [{"t1", "flair"}] * 2
    names = ("case_A_0001", "case_B_0001", "case_B_0007")
    assert cohort.ignored == tuple((folder / f"imagesTr/{name}.nii.gz", UNKNOWN_CHANNEL) for name in names)


@pytest.mark.parametrize(
    ("titles", "words"),
    [(("T1", "T1w"), "'T1' and 'T1w', which are both T1: correct"), (("CT",), "which channels are T1.*it has 'CT'")],
)
def test_titles_of_channels_that_cannot_be_used_are_refused(
    titles: tuple[str, ...], words: str, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=words):
        cohort_of_folder(numbered_channels(tmp_path, *titles))


def test_a_folder_below_one_called_derivatives_is_searched(tmp_path: Path) -> None:
    write_brats(tmp_path / "derivatives/stripped/P1", "x", OLD_NAMES)
    assert keys(cohort_of_folder(tmp_path / "derivatives/stripped")) == [("P1", "1")]


def bids_with_derivatives(folder: Path, *names: str) -> Path:
    """Empty images of a subject, and empty files of the derivatives of a program."""
    images = [f"sub-01/anat/sub-01_{image}" for image in ("T1w", "ce-gadolinium_T1w", "T2w", "FLAIR")]
    for file in (*images, *(f"derivatives/program/sub-01/anat/sub-01_{name}" for name in names)):
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        (folder / f"{file}.nii.gz").touch()
    return folder


@pytest.mark.parametrize("name", ["dseg", "desc-aseg_dseg", "label-GM_mask", "desc-ribbon_mask", "label-edema_mask"])
def test_tissues_of_bids_derivatives_are_neither_tumor_nor_brain(name: str, tmp_path: Path) -> None:
    cohort = cohort_of_folder(bids_with_derivatives(tmp_path, name))
    (study,) = cohort.studies
    assert (study.label, study.mask) == (None, None)
    assert cohort.ignored == ((tmp_path / f"derivatives/program/sub-01/anat/sub-01_{name}.nii.gz", NO_PART),)


def test_an_image_of_another_kind_is_listed_as_such(tmp_path: Path) -> None:
    cohort = cohort_of_folder(bids_with_derivatives(tmp_path, "desc-preproc_bold"))
    assert [reason for _, reason in cohort.ignored] == [NO_IMAGE]


@pytest.mark.parametrize("program", ["bet", "HDBET", "synthstrip"])
def test_a_mask_by_a_program_for_brain_extraction_is_the_brain_mask(program: str, tmp_path: Path) -> None:
    cohort = cohort_of_folder(bids_with_derivatives(tmp_path, f"desc-{program}_mask"))
    assert cohort.studies[0].mask.name == f"sub-01_desc-{program}_mask.nii.gz"
    assert cohort.ignored == ()


def test_of_several_derivatives_that_in_the_space_of_the_images_is_taken(tmp_path: Path) -> None:
    names = ("desc-brain_mask", "space-MNI152NLin2009cAsym_desc-brain_mask", "res-2_desc-brain_mask")
    cohort = cohort_of_folder(bids_with_derivatives(tmp_path, *names, "space-T1w_label-tumor_dseg"))
    (study,) = cohort.studies
    assert study.mask.name == "sub-01_desc-brain_mask.nii.gz"
    assert study.label.name == "sub-01_space-T1w_label-tumor_dseg.nii.gz"
    assert {(file.name, reason) for file, reason in cohort.ignored} == {
        ("sub-01_space-MNI152NLin2009cAsym_desc-brain_mask.nii.gz", OTHER_SPACE),
        ("sub-01_res-2_desc-brain_mask.nii.gz", SECOND),
    }


def test_a_mask_in_another_space_alone_is_no_mask_of_the_images(tmp_path: Path) -> None:
    cohort = cohort_of_folder(bids_with_derivatives(tmp_path, "space-MNI152NLin2009cAsym_desc-brain_mask"))
    assert cohort.studies[0].mask is None
    assert [reason for _, reason in cohort.ignored] == [OTHER_SPACE]


@pytest.mark.parametrize(
    "space", ["T1", "T1ce", "T1c", "T1Gd", "T1wGd", "ceT1w", "T2w", "FLAIR", "anat", "scanner", "subject"]
)
def test_a_label_in_the_space_of_one_of_the_images_or_of_the_scanner_is_taken(space: str, tmp_path: Path) -> None:
    cohort = cohort_of_folder(bids_with_derivatives(tmp_path, f"space-{space}_label-tumor_dseg"))
    assert cohort.studies[0].label.name == f"sub-01_space-{space}_label-tumor_dseg.nii.gz"
    assert cohort.ignored == ()


def bids_in_an_atlas(folder: Path, *labels: str) -> Path:
    """Empty images of a subject whose names say the space SRI24, and empty labels of the derivatives of a program."""
    for image in ("T1w", "FLAIR"):
        file = folder / f"sub-01/anat/sub-01_space-SRI24_{image}.nii.gz"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    for label in labels:
        file = folder / f"derivatives/program/sub-01/anat/sub-01_{label}.nii.gz"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    return folder


def test_a_label_that_names_no_space_belongs_to_images_that_name_one(tmp_path: Path) -> None:
    cohort = cohort_of_folder(bids_in_an_atlas(tmp_path, "label-tumor_dseg"))
    assert cohort.studies[0].label.name == "sub-01_label-tumor_dseg.nii.gz"


def test_a_label_in_a_folder_of_its_own_belongs_to_images_whose_names_add_a_space(tmp_path: Path) -> None:
    write_brats(tmp_path / "P1", "P1_space-sri", OLD_NAMES[:4])
    write_brats(tmp_path / "P1/labels", "P1", ("seg", "brainmask"))
    (study,) = cohort_of_folder(tmp_path).studies
    assert (study.label.name, study.mask.name) == ("P1_seg.nii.gz", "P1_brainmask.nii.gz")


def test_a_label_that_names_the_space_of_the_images_goes_before_one_that_names_none(tmp_path: Path) -> None:
    cohort = cohort_of_folder(bids_in_an_atlas(tmp_path, "label-tumor_dseg", "space-SRI24_label-tumor_dseg"))
    assert cohort.studies[0].label.name == "sub-01_space-SRI24_label-tumor_dseg.nii.gz"
    assert [(file.name, reason) for file, reason in cohort.ignored] == [("sub-01_label-tumor_dseg.nii.gz", SECOND)]


@pytest.mark.parametrize("space", ["T1w", "MNI152NLin2009cAsym"])
def test_a_label_in_another_space_than_the_images_is_left_out_and_this_is_told(space: str, tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match=rf"tumour label '.*_space-{space}_label-tumor_dseg.nii.gz' is left out"):
        cohort = cohort_of_folder(bids_in_an_atlas(tmp_path, f"space-{space}_label-tumor_dseg"))
    assert cohort.studies[0].label is None
    assert [reason for _, reason in cohort.ignored] == [OTHER_SPACE]


def test_a_label_in_another_space_is_not_told_where_the_study_has_one_of_its_own(tmp_path: Path) -> None:
    names = ("space-T1w_label-tumor_dseg", "space-MNI152NLin2009cAsym_label-tumor_dseg")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        cohort = cohort_of_folder(bids_with_derivatives(tmp_path, *names))
    assert cohort.studies[0].label.name == "sub-01_space-T1w_label-tumor_dseg.nii.gz"


@pytest.mark.parametrize("names", [("T001", "T002"), ("scan1", "scan2"), ("20200101", "20210305")])
def test_folders_at_the_top_that_are_called_like_visits_are_told(names: tuple[str, str], tmp_path: Path) -> None:
    for name in names:
        write_brats(tmp_path / "data" / name, "x", OLD_NAMES)
    with pytest.warns(UserWarning, match=f"{names[0]}, {names[1]} are taken as visits of one subject, 'data'"):
        assert keys(cohort_of_folder(tmp_path / "data")) == [("data", name) for name in names]


def test_images_of_different_names_that_make_one_study_are_told(tmp_path: Path) -> None:
    write_brats(tmp_path, "A", ("t1",))
    write_brats(tmp_path, "B", ("flair", "seg"))
    with pytest.warns(UserWarning, match="images of 'A' and 'B' in .* are taken as one study"):
        assert len(cohort_of_folder(tmp_path)) == 1


def test_images_with_their_data_in_another_file_are_taken_and_those_of_freesurfer_listed(tmp_path: Path) -> None:
    for subject, ending in (("P1", "nhdr"), ("P2", "mhd"), ("P3", "hdr"), ("P4", "mgz")):
        (tmp_path / subject).mkdir()
        for name in (f"t1.{ending}", f"flair.{ending}", "t1.raw", "t1.img"):
            (tmp_path / subject / name).touch()
    cohort = cohort_of_folder(tmp_path)
    assert keys(cohort) == [("P1", "1"), ("P2", "1"), ("P3", "1")]
    assert [list(study.images) for study in cohort.studies] == [["t1", "flair"]] * 3
    assert cohort.ignored == tuple((tmp_path / f"P4/{name}.mgz", FREESURFER) for name in ("flair", "t1"))


@pytest.mark.parametrize(("header", "data"), [("hdr", "img"), ("mhd", "raw"), ("nhdr", "raw.gz")])
def test_of_an_image_in_two_formats_the_single_file_is_taken(header: str, data: str, tmp_path: Path) -> None:
    names = ("t1.nii.gz", "flair.nrrd", "seg.nii", f"t1.{header}", f"flair.{header}", f"seg.{header}")
    for name in (*names, f"t1.{data}", f"flair.{data}", f"seg.{data}"):
        (tmp_path / "data/P1").mkdir(parents=True, exist_ok=True)
        (tmp_path / "data/P1" / name).touch()
    cohort = cohort_of_folder(tmp_path / "data")
    assert {file.name for file in cohort.studies[0].files.values()} == set(names[:3])
    assert cohort.ignored == tuple((tmp_path / f"data/P1/{name}.{header}", COPY) for name in ("flair", "seg", "t1"))


def test_headers_beside_the_channels_of_nnunet_are_not_taken(tmp_path: Path) -> None:
    folder = numbered_channels(tmp_path, "T1", "FLAIR")
    (folder / "imagesTr/case_A_0000.hdr").touch()
    cohort = cohort_of_folder(folder)
    assert cohort.studies[0].images["t1"].name == "case_A_0000.nii.gz"
    assert cohort.ignored == ((folder / "imagesTr/case_A_0000.hdr", COPY),)


def test_images_in_two_formats_of_one_file_each_are_refused(tmp_path: Path) -> None:
    for name in ("t1.nii", "t1.nii.gz"):
        (tmp_path / name).touch()
    with pytest.raises(ValueError, match=r"two files for t1, 't1\.nii' and 't1\.nii\.gz'"):
        cohort_of_folder(tmp_path)


def test_a_folder_that_holds_nothing_but_images_of_freesurfer_is_refused_with_the_remedy(tmp_path: Path) -> None:
    (tmp_path / "P1").mkdir()
    for name in ("t1.mgz", "flair.MGZ", "seg.mgh"):
        (tmp_path / "P1" / name).touch()
    with pytest.raises(
        ValueError, match=r"files such as 'P1.flair\.MGZ' are images of FreeSurfer.* with mri_convert to"
    ):
        cohort_of_folder(tmp_path)


def test_names_may_hold_raised_digits(tmp_path: Path) -> None:
    write_brats(tmp_path / "1\u00b2", "x", OLD_NAMES)
    assert keys(cohort_of_folder(tmp_path)) == [("1\u00b2", "1")]


def test_unusable_folders_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no file below"):
        cohort_of_folder(tmp_path)
    write_brats(tmp_path / "a", "a", ("t1", "t1n"))
    with pytest.raises(ValueError, match=r"two files for t1, 'a_t1\.nii\.gz' and 'a_t1n\.nii\.gz'"):
        cohort_of_folder(tmp_path)
    with pytest.raises(ValueError, match=r"gone' does not exist"):
        cohort_of_folder(tmp_path / "gone")


def test_two_folders_of_the_same_name_are_refused(tmp_path: Path) -> None:
    for parent in ("x", "y"):
        write_brats(tmp_path / parent / "case", "case", OLD_NAMES)
    with pytest.raises(ValueError, match="both hold the study 'case 1'"):
        cohort_of_folder(tmp_path)


@pytest.mark.filterwarnings("ignore:.* are taken as visits of one subject")
def test_studies_that_a_manifest_could_not_tell_apart_are_refused(tmp_path: Path) -> None:
    for data_set in ("Dataset001_A", "Dataset002_B"):
        numbered_channels(tmp_path / "nnunet" / data_set, "T1", "FLAIR")
    with pytest.raises(
        ValueError, match=r"nnunet' contradict each other: visit '1' of 'case_A' occurs 2 times.*rename"
    ):
        cohort_of_folder(tmp_path / "nnunet")
    for name in ("P0001", "P0001_1", "P0001_2"):
        write_brats(tmp_path / "numbered" / name, name, OLD_NAMES)
    with pytest.raises(ValueError, match="visit '1' of 'P0001' occurs 2 times"):
        cohort_of_folder(tmp_path / "numbered")
