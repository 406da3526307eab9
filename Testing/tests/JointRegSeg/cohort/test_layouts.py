"""Manifests of public data sets: subjects, visits in the order of time, labels, and what is not taken."""

from __future__ import annotations

import warnings
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from JointRegSegLib.cohort.division import divide
from JointRegSegLib.cohort.folders import AUTOMATIC, cohort_of_folder
from JointRegSegLib.cohort.layouts import natural_key, numbered_visits, subject_and_visit, visit_key
from JointRegSegLib.cohort.manifest import manifest_text, read_manifest
from JointRegSegLib.cohort.studies import Cohort
from JointRegSegLib.commands.manifest import ignored_lines
from JointRegSegLib.images.reading import channel_path, header_problem, read_image

FOUR = ("t1", "t1ce", "t2", "flair")
UPENN_IMAGES = ("T1", "T1GD", "T2", "FLAIR")


def files(pattern: str, *values: tuple[str, ...]) -> list[str]:
    """File names of all combinations of values in a pattern."""
    return [pattern.format(*chosen) + ".nii.gz" for chosen in product(*values)]


LAYOUTS: dict[str, tuple[list[str], list[tuple[str, str]], str | None]] = {
    "BraTS 2024": (
        files("BraTS-GLI-00005-{0}/BraTS-GLI-00005-{0}-{1}", ("100", "101"), ("t1n", "t1c", "t2w", "t2f", "seg")),
        [("BraTS-GLI-00005", "100"), ("BraTS-GLI-00005", "101")],
        "BraTS-GLI-00005-100-seg.nii.gz",
    ),
    "BraTS-Reg": (
        files("BraTSReg_001/BraTSReg_001_{}_{}", ("00_0000", "01_0262"), FOUR),
        [("BraTSReg_001", "00_0000"), ("BraTSReg_001", "01_0262")],
        None,
    ),
    "MU-Glioma-Post": (
        files(
            "PatientID_0003/Timepoint_{0}/PatientID_0003_Timepoint_{0}_{1}",
            ("1", "2", "10"),
            ("brain_t1n", "brain_t1c", "brain_t2w", "brain_t2f", "tumorMask"),
        ),
        [("PatientID_0003", f"Timepoint_{number}") for number in (1, 2, 10)],
        "PatientID_0003_Timepoint_1_tumorMask.nii.gz",
    ),
    "UCSF-ALPTDG": (
        files("{0}/{0}_time{1}_{2}", ("100001", "100002"), ("1", "2"), (*FOUR, "t1ce-t1", "seg")),
        [("100001", "time1"), ("100001", "time2"), ("100002", "time1"), ("100002", "time2")],
        "100001_time1_seg.nii.gz",
    ),
    "UCSF-PDGM": (
        files(
            "UCSF-PDGM-0004_nifti/UCSF-PDGM-0004_{}",
            ("T1", "T1_bias", "T1c", "T2", "FLAIR", "ADC", "tumor_segmentation", "brain_parenchyma_segmentation"),
        ),
        [("UCSF-PDGM-0004", "1")],
        "UCSF-PDGM-0004_tumor_segmentation.nii.gz",
    ),
    "UCSF-PDGM with a follow-up": (
        files("UCSF-PDGM-{0}_nifti/UCSF-PDGM-{0}_{1}", ("0429_FU003d", "0429"), ("T1", "T1c", "T2", "FLAIR")),
        [("UCSF-PDGM-0429", "1"), ("UCSF-PDGM-0429", "FU003d")],
        None,
    ),
    "UPENN-GBM": (
        [
            *files("images_structural/UPENN-GBM-00001_{0}/UPENN-GBM-00001_{0}_{1}", ("11", "21"), UPENN_IMAGES),
            "images_segm/UPENN-GBM-00001_11_segm.nii.gz",
            "automated_segm/UPENN-GBM-00001_11_automated_approx_segm.nii.gz",
        ],
        [("UPENN-GBM-00001", "11"), ("UPENN-GBM-00001", "21")],
        "UPENN-GBM-00001_11_segm.nii.gz",
    ),
    "LUMIERE": (
        files("Imaging/Patient-001/{}/{}", ("week-000-1", "week-044"), ("CT1", "T1", "T2", "FLAIR"))
        + files(
            "Imaging/Patient-001/week-000-1/{}",
            (
                "HD-GLIO-AUTO-segmentation/registered/segmentation",
                "DeepBraTumIA-segmentation/atlas/skull_strip/brain_mask",
            ),
        ),
        [("Patient-001", "week-000-1"), ("Patient-001", "week-044")],
        None,
    ),
    "UCSD-PTGBM": (
        files(
            "UCSD-PTGBM-0002_{0}/UCSD-PTGBM-0002_{0}_{1}",
            ("01", "02"),
            ("T1pre", "T1post", "T2", "FLAIR", "BraTS_tumor_seg", "total_cellular_tumor_seg", "ADC"),
        ),
        [("UCSD-PTGBM-0002", "01"), ("UCSD-PTGBM-0002", "02")],
        "UCSD-PTGBM-0002_01_BraTS_tumor_seg.nii.gz",
    ),
    "RHUH-GBM": (
        files("RHUH-0001/{0}/RHUH-0001_{0}_{1}", ("0", "1", "2"), (*FOUR, "adc", "segmentations")),
        [("RHUH-0001", str(number)) for number in range(3)],
        "RHUH-0001_0_segmentations.nii.gz",
    ),
    "BIDS": (
        files(
            "sub-01/ses-{0}/anat/sub-01_ses-{0}_{1}",
            ("postop", "preop", "20210403"),
            ("T1w", "ce-gadolinium_T1w", "T2w", "FLAIR"),
        )
        + files("derivatives/x/sub-01/ses-preop/anat/sub-01_ses-preop_{}", ("label-tumor_dseg", "desc-clean_T1w")),
        [("sub-01", "ses-preop"), ("sub-01", "ses-postop"), ("sub-01", "ses-20210403")],
        "sub-01_ses-preop_label-tumor_dseg.nii.gz",
    ),
    "BIDS without sessions": (
        files("sub-0{0}/anat/sub-0{0}_{1}", ("1", "2"), ("T1w", "FLAIR")),
        [("sub-01", "1"), ("sub-02", "1")],
        None,
    ),
    "Decathlon": (
        [*files("{}/BRATS_001", ("imagesTr", "labelsTr")), "dataset.json"],
        [("BRATS_001", "1")],
        "BRATS_001.nii.gz",
    ),
    "nnU-Net": (
        [*files("imagesTr/BRATS_001_000{}", tuple("0123")), "labelsTr/BRATS_001.nii.gz", "dataset.json"],
        [("BRATS_001", "1")],
        "BRATS_001.nii.gz",
    ),
    "dates": (
        files("Pat7/{}/{}", ("20200511", "2019-11-20", "2019-03-04"), ("T1", "T1CE", "T2", "FLAIR")),
        [("Pat7", "2019-03-04"), ("Pat7", "2019-11-20"), ("Pat7", "20200511")],
        None,
    ),
    "weeks": (
        files("Pat1/week_{}/{}", ("10", "2", "9"), FOUR),
        [("Pat1", "week_2"), ("Pat1", "week_9"), ("Pat1", "week_10")],
        None,
    ),
    "visits in the names of folders": (
        files("P{0}_{1}/P{0}_{1}_{2}", ("1", "2"), ("postop", "preop"), FOUR),
        [("P1", "preop"), ("P1", "postop"), ("P2", "preop"), ("P2", "postop")],
        None,
    ),
}
"""Files, the studies that they are (subject and visit, in order), and the label of the first one."""


def made(folder: Path, names: list[str]) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text('{"modality": {"0": "FLAIR", "1": "T1w", "2": "t1gd", "3": "T2w"}}')
    return folder


def keys(cohort: Cohort) -> list[tuple[str, str]]:
    return [(study.subject, study.visit) for study in cohort.studies]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_public_data_sets_are_understood(tmp_path: Path, layout: str) -> None:
    names, expected, label = LAYOUTS[layout]
    cohort = cohort_of_folder(made(tmp_path, names))
    assert keys(cohort) == expected
    first = cohort.studies[0]
    assert len(first.images) == (2 if layout == "BIDS without sessions" else 4)
    assert (first.label and first.label.name) == label
    used = {str(path).partition("#")[0] for study in cohort.studies for path in study.files.values()}
    listed = {str(path) for path, _ in cohort.ignored}
    assert not used & listed
    assert used | listed == {str(tmp_path / name) for name in names if name.endswith(".nii.gz")}


def test_subjects_are_never_divided(tmp_path: Path) -> None:
    names, _, _ = LAYOUTS["UCSF-ALPTDG"]
    for seed in range(5):
        cohort = divide(cohort_of_folder(made(tmp_path, names)), 0.5, 0, seed)
        assert len({study.split for study in cohort.studies if study.subject == "100001"}) == 1


def test_the_manifest_of_a_layout_reads_back_with_its_convention_and_channels(tmp_path: Path) -> None:
    cohort = cohort_of_folder(made(tmp_path, LAYOUTS["Decathlon"][0]))
    (tmp_path / "cohort.csv").write_text(manifest_text(cohort, tmp_path))
    (study,) = read_manifest(tmp_path / "cohort.csv").studies
    assert study.convention == "msd"
    assert study.images["t1ce"] == channel_path(tmp_path / "imagesTr/BRATS_001.nii.gz", 2)
    (tmp_path / "imagesTr/BRATS_001.nii.gz").unlink()
    with pytest.raises(ValueError, match="4 files that do not exist"):
        read_manifest(tmp_path / "cohort.csv")


def test_one_channel_of_a_four_dimensional_file_is_read(tmp_path: Path) -> None:
    values = np.random.default_rng(0).random((4, 5, 6, 7)).astype(np.float32)
    path = tmp_path / "BRATS_001.nii.gz"
    sitk.WriteImage(sitk.GetImageFromArray(values, isVector=False), str(path))
    image = read_image(channel_path(path, 2))
    np.testing.assert_array_equal(sitk.GetArrayFromImage(image), values[2])
    assert header_problem(channel_path(path, 3)) is None
    assert "has no channel 4: it has 7 x 6 x 5 x 4 voxels" in str(header_problem(channel_path(path, 4)))
    with pytest.raises(ValueError, match=r"BRATS_001\.nii\.gz' has no channel 9"):
        read_image(channel_path(path, 9))


def test_what_is_not_taken_is_listed_once_for_each_kind(tmp_path: Path) -> None:
    cohort = cohort_of_folder(made(tmp_path, LAYOUTS["UCSF-ALPTDG"][0]))
    assert ignored_lines(cohort) == [
        f"ignored: '{Path('100001/100001_time1_t1ce-t1.nii.gz')}' and 3 like it "
        "(not one of the four images, a tumour label or a brain mask)"
    ]
    automatic = cohort_of_folder(made(tmp_path / "upenn", LAYOUTS["UPENN-GBM"][0])).ignored
    assert [reason for _, reason in automatic] == [AUTOMATIC]


def test_names_that_differ_in_a_last_number_are_visits_and_this_is_told(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="P0001_1, P0001_2 are taken as visits of one subject, 'P0001'"):
        cohort = cohort_of_folder(made(tmp_path, files("P0001_{0}/P0001_{0}_{1}", ("1", "2"), FOUR)))
    assert keys(cohort) == [("P0001", "1"), ("P0001", "2")]
    different = ["BraTS2021_00001", "BraTS2021_00002", "Brats18_2013_0_1", "Brats18_2013_1_1", "A_1", "A_2"]
    assert not numbered_visits(different)


def test_numbered_folders_at_the_top_are_subjects(tmp_path: Path) -> None:
    cohort = cohort_of_folder(made(tmp_path / "cohort", files("{}/{}", ("001", "002"), FOUR)))
    assert keys(cohort) == [("001", "1"), ("002", "1")]


def test_channels_of_unknown_meaning_are_refused(tmp_path: Path) -> None:
    made(tmp_path, files("imagesTr/case_000{}", tuple("01")))
    (tmp_path / "dataset.json").write_text("{}")
    with pytest.raises(ValueError, match=r"dataset\.json' does not tell what the channels of 'case' are: add"):
        cohort_of_folder(tmp_path)


def test_visits_are_sorted_by_time() -> None:
    visits = ["week_10", "post-op", "week_2", "pre-op"]
    assert sorted(visits, key=visit_key) == ["pre-op", "post-op", "week_2", "week_10"]
    assert sorted(["20200511", "2019-11-20", "20190304"], key=visit_key) == ["20190304", "2019-11-20", "20200511"]
    assert sorted(["P10", "P9", "P1"], key=natural_key) == ["P1", "P9", "P10"]


@pytest.mark.parametrize(
    "visits",
    [
        ("03-21-2001", "01-15-2002"),
        ("21.03.2001", "15.01.2002"),
        ("21032001", "15012002"),
        ("03_04_2001", "01_05_2002", "01_15_2003"),
        ("2001-03-21", "15.01.2002"),
    ],
)
def test_visits_are_sorted_by_dates_in_any_order(visits: tuple[str, ...], tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        cohort = cohort_of_folder(made(tmp_path, files("P1/{}/{}", visits[::-1], FOUR)))
    assert keys(cohort) == [("P1", visit) for visit in visits]


def test_dates_that_do_not_tell_day_from_month_are_told(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match=r"'P1' \(03-04-2001, 04-03-2001\) .* the month is taken to stand first: put"):
        cohort = cohort_of_folder(made(tmp_path / "us", files("P1/{}/{}", ("04-03-2001", "03-04-2001"), FOUR)))
    assert keys(cohort) == [("P1", "03-04-2001"), ("P1", "04-03-2001")]
    with pytest.warns(UserWarning, match="the day is taken to stand first"):
        cohort = cohort_of_folder(made(tmp_path / "de", files("P1/{}/{}", ("03.04.2001", "04.03.2001"), FOUR)))
    assert keys(cohort) == [("P1", "04.03.2001"), ("P1", "03.04.2001")]


def test_a_folder_whose_name_begins_with_a_date_is_a_visit_and_this_is_told(tmp_path: Path) -> None:
    visits = ("03-21-2001-NA-MRI BRAIN-12345", "01-15-2002-NA-MRI BRAIN-54321")
    with pytest.warns(UserWarning, match="and 1 more begin with a date and are taken as visits .* such as 'P1'"):
        cohort = cohort_of_folder(made(tmp_path, files("P1/{}/{}", visits, FOUR)))
    assert keys(cohort) == [("P1", visit) for visit in visits]


@pytest.mark.parametrize("parent", ["train", "Val", "HGG", ""])
@pytest.mark.parametrize("kind", ["", "anat/"])
def test_folders_named_by_a_date_and_a_subject_are_subjects_and_this_is_told(
    parent: str, kind: str, tmp_path: Path
) -> None:
    names = ("20190102_P01", "20190103_P02")
    with pytest.warns(UserWarning, match="'20190102_P01' and 1 more begin with a date and are taken as different sub"):
        cohort = cohort_of_folder(made(tmp_path, files(f"{parent or '.'}/{{}}/{kind}{{}}", names, FOUR)))
    assert keys(cohort) == [(name, "1") for name in names]


@pytest.mark.parametrize(
    ("subject", "visits"),
    [
        ("P1", ("20190102_A12345", "20190909_A54321")),  # the folder above is a subject with a number
        ("Pat", ("20190102_MRI1", "20190909_MRI2")),
        ("Pat", ("20190102_week0", "20190909_week36")),
        ("Pat", ("20190102_P01", "20190909_P01")),
        ("Pat", ("20190102_before", "20190909_after")),
    ],
)
@pytest.mark.parametrize("kind", ["", "anat/"])
def test_folders_named_by_the_date_of_a_visit_are_visits_and_this_is_told(
    subject: str, visits: tuple[str, str], kind: str, tmp_path: Path
) -> None:
    with pytest.warns(UserWarning, match=f"'{visits[0]}' and 1 more begin with a date and are taken as visits"):
        cohort = cohort_of_folder(made(tmp_path, files(f"{subject}/{{}}/{kind}{{}}", visits, FOUR)))
    assert keys(cohort) == [(subject, visit) for visit in visits]


def test_numbered_folders_of_a_split_are_subjects(tmp_path: Path) -> None:
    cohort = cohort_of_folder(made(tmp_path, files("train/{}/{}", ("001", "002"), FOUR)))
    assert keys(cohort) == [("001", "1"), ("002", "1")]


@pytest.mark.parametrize("kind", ["", "anat/"])
def test_folders_of_a_split_that_are_called_like_visits_are_told(kind: str, tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="scan1, scan2 are taken as visits of one subject, 'train'"):
        cohort_of_folder(made(tmp_path, files(f"train/{{}}/{kind}{{}}", ("scan1", "scan2"), FOUR)))


def test_dates_in_file_names_are_visits(tmp_path: Path) -> None:
    cohort = cohort_of_folder(made(tmp_path, files("P1_{}_{}", ("03-21-2001", "01-15-2002"), FOUR)))
    assert keys(cohort) == [("P1", "03-21-2001"), ("P1", "01-15-2002")]


def test_eight_digits_at_the_top_are_a_subject(tmp_path: Path) -> None:
    cohort = cohort_of_folder(made(tmp_path, files("{}/{}", ("12052001", "12052002"), FOUR)))
    assert keys(cohort) == [("12052001", "1"), ("12052002", "1")]


def test_subjects_whose_names_begin_alike_are_told(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="'P0001_b' and 'P0001' begin alike and are taken as different subjects"):
        cohort = cohort_of_folder(made(tmp_path, files("{0}/{0}_{1}", ("P0001", "P0001_b", "P00010"), FOUR)))
    assert keys(cohort) == [("P0001", "1"), ("P0001_b", "1"), ("P00010", "1")]


def test_a_name_that_is_no_visit_is_a_subject() -> None:
    top = Path("data")
    assert subject_and_visit(top / "BraTS2021_00006", "BraTS2021_00006", True, top) == ("BraTS2021_00006", "1")
    assert subject_and_visit(top / "P1_week-2", "P1_week-2", True, top) == ("P1", "week-2")
