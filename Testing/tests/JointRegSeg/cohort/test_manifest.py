"""The manifest of a cohort: read, written, and refused with all its mistakes at once."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
from joint_cohorts import OLD_NAMES, write_brats

from JointRegSegLib.cohort.folders import cohort_of_folder
from JointRegSegLib.cohort.manifest import COLUMNS, manifest_text, read_manifest
from JointRegSegLib.cohort.studies import StudyRecord

HEADER = ",".join(COLUMNS)


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    """Write a manifest of the given lines, with empty files for all paths in it that start with 'ok'."""

    def manifest(*lines: str, name: str = "cohort.csv", encoding: str = "utf-8") -> Path:
        for line in lines:
            for field in line.replace(";", ",").split(","):
                if field.startswith("ok"):
                    (tmp_path / field).parent.mkdir(parents=True, exist_ok=True)
                    (tmp_path / field).touch()
        path = tmp_path / name
        path.write_text("\n".join(lines) + "\n", encoding=encoding)
        return path

    return manifest


def refusal(path: Path) -> str:
    with pytest.raises(ValueError, match=str(path.name)) as error:
        read_manifest(path)
    return str(error.value)


def test_paths_are_relative_to_the_manifest(write: Callable[..., Path], tmp_path: Path) -> None:
    path = write(
        HEADER, "P1,v1,ok/a.nii,ok/b.nii,ok/c.nii,ok/d.nii,ok/s.nii,ok/m.nii,ok/l.csv,val", "P1,v2,ok/e.nii,,-,,,,,val"
    )
    first, second = read_manifest(path).studies
    assert first == StudyRecord(
        "P1",
        "v1",
        {m: tmp_path / "ok" / f"{letter}.nii" for m, letter in zip(("t1", "t1ce", "t2", "flair"), "abcd", strict=True)},
        tmp_path / "ok/s.nii",
        tmp_path / "ok/m.nii",
        tmp_path / "ok/l.csv",
        "val",
    )
    assert (dict(second.images), second.label, second.split) == ({"t1": tmp_path / "ok/e.nii"}, None, "val")
    assert second.name == "P1 v2"


def test_columns_may_have_any_order_and_synonyms(write: Callable[..., Path], tmp_path: Path) -> None:
    path = write("Split,T1Gd,Seg,Patient", "Training,ok1.nii,ok2.nii,P1", encoding="utf-8-sig")
    (study,) = read_manifest(path).studies
    assert (study.subject, study.visit, study.split) == ("P1", "", "train")
    assert study.files == {"t1ce": tmp_path / "ok1.nii", "label": tmp_path / "ok2.nii"}


@pytest.mark.parametrize("delimiter", [";", "\t"])
def test_other_delimiters_are_understood(write: Callable[..., Path], delimiter: str) -> None:
    path = write("subject,t1,split", "P1,ok.nii,test")
    path.write_text(path.read_text().replace(",", delimiter))
    assert read_manifest(path).studies[0].split == "test"


@pytest.mark.parametrize(
    ("column", "field"), [("flare", "x.nii"), ("flare", ""), ("spilt", "train"), ("swi", "x.nii.gz"), ("lable", "")]
)
def test_unknown_columns_that_resemble_known_ones_or_hold_images_are_named_in_a_warning(
    write: Callable[..., Path], column: str, field: str
) -> None:
    path = write(f"subject,t1,{column}", f"P1,ok.nii,{field}")
    with pytest.warns(UserWarning, match=f"unknown columns {column} are ignored"):
        read_manifest(path)


@pytest.mark.parametrize("splits", [("train", "val"), ("Training", "")])
def test_a_column_of_another_name_that_holds_splits_is_named_in_a_warning(
    write: Callable[..., Path], splits: tuple[str, str]
) -> None:
    path = write("subject,t1,partition", f"P1,ok.nii,{splits[0]}", f"P2,ok2.nii,{splits[1]}")
    with pytest.warns(UserWarning, match="the column 'partition' holds names of splits but is ignored.*rename it"):
        read_manifest(path)


def test_a_second_column_with_names_of_splits_is_no_matter_for_a_warning(write: Callable[..., Path]) -> None:
    path = write("subject,t1,split,fold", "P1,ok.nii,train,train")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        read_manifest(path)


def test_columns_that_another_task_would_use_are_no_matter_for_a_warning(write: Callable[..., Path]) -> None:
    path = write("subject,t1,age,sex,grade,tissue", "P1,ok.nii,50,F,HGG,x.nii")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        read_manifest(path)


def test_all_mistakes_are_named_at_once(write: Callable[..., Path]) -> None:
    path = write(
        HEADER,
        "P1,v1,ok.nii,gone1.nii,,,gone2.nii,,,train",
        "P1,v1,ok2.nii,,,,,,,train",
        "P2,v1,ok3.nii,,,,,,,training data",
        "P3,v1,,,,,ok4.nii,,,train",
        ",v1,ok5.nii,,,,,,,train",
        "P4,a,ok6.nii,,,,,,,train",
        "P4,b,ok7.nii,,,,,,,test",
        "P5,a,ok8.nii,,ok8.nii,,,,,train",
        "P6,a,ok9.nii,,,,,,,train,,extra",
    )
    message = refusal(path)
    for words in (
        "2 files that do not exist",
        "gone1.nii (line 2, t1ce)",
        "gone2.nii (line 2, label)",
        "visit 'v1' of 'P1' occurs 2 times",
        "line 4 has the unknown split 'training data', use train, val, test",
        "line 5 (P3 v1) has no image of any modality",
        "line 6 has no subject",
        "'P4' is in the splits test and train",
        "line 9 names",
        "for t1 and t2",
        "line 10 has 12 fields for 11 columns",
    ):
        assert words in message
    assert "\n" not in message


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (("visit,t1", "1,ok.nii"), "no column 'subject'"),
        (("subject,label", "P,ok.nii"), "no column for an image"),
        (("subject,t1,T1w", "P,ok.nii,"), "more than one column for t1"),
        ((HEADER,), "a header but no study"),
        (("", ""), "is empty"),
        (("subject,t1", "P,gone.nii"), "a file that does not exist"),
        (("subject,t1", "P,ok.nii", "P,ok2.nii"), "'P' without a visit occurs 2 times"),
    ],
)
def test_unusable_manifests_are_refused(write: Callable[..., Path], lines: tuple, message: str) -> None:
    assert message in refusal(write(*lines))


def test_a_quotation_mark_that_is_not_closed_is_told(write: Callable[..., Path]) -> None:
    message = refusal(write("subject,t1", 'P1,"ok/a.nii', "P2,ok/b.nii"))
    assert "has a field with a line break that ends in line 3: close the quotation mark" in message
    assert "\n" not in message


def test_unreadable_manifests_are_refused(tmp_path: Path) -> None:
    assert "does not exist" in refusal(tmp_path / "gone.csv")
    (tmp_path / "binary.csv").write_bytes(bytes(range(128, 256)))
    assert "not a text file in UTF-8" in refusal(tmp_path / "binary.csv")
    (tmp_path / "folder.csv").mkdir()
    assert "is a folder" in refusal(tmp_path / "folder.csv")


def test_a_split_without_studies_is_refused(write: Callable[..., Path]) -> None:
    cohort = read_manifest(write("subject,t1,split", "P1,ok1.nii,train", "P2,ok2.nii,train", "P3,ok3.nii,val"))
    assert len(cohort.of_split("train")) == 2
    with pytest.raises(ValueError, match=r"no study in the split 'test' \(2 in 'train', 1 in 'val'\)"):
        cohort.of_split("test")
    with pytest.raises(ValueError, match="unknown split 'dev'"):
        cohort.of_split("dev")


def test_a_written_manifest_reads_back_the_same(tmp_path: Path) -> None:
    for name in ("BraTS2021_00001", "BraTS2021_00002, with a comma"):
        write_brats(tmp_path / "data" / name, name, OLD_NAMES)
    cohort = cohort_of_folder(tmp_path / "data")
    for folder in (tmp_path, tmp_path / "data/deep"):
        folder.mkdir(exist_ok=True)
        text = manifest_text(cohort, folder)
        assert str(tmp_path) not in text
        (folder / "cohort.csv").write_text(text)
        read = read_manifest(folder / "cohort.csv")
        for study, again in zip(cohort.studies, read.studies, strict=True):
            assert (study.subject, study.visit, study.split) == (again.subject, again.visit, again.split)
            assert {c: f.resolve() for c, f in again.files.items()} == study.files


def test_an_image_in_two_splits_is_refused_and_in_one_split_told(write: Callable[..., Path]) -> None:
    lines = ["subject,visit,t1,split", "A,1,ok_4d.nii#0,train", "B,1,ok_4d.nii#1,val", "C,1,./ok_4d.nii#0,{}"]
    (write("ok_4d.nii").parent / "ok_4d.nii").touch()
    text = refusal(write(*lines[:3], lines[3].format("test"), name="two.csv"))
    assert "ok_4d.nii#0' is an image of 'A 1' (train) and 'C 1' (test): keep an image in one split" in text
    with pytest.warns(UserWarning, match=r"ok_4d.nii#0' for A 1 and C 1: check that these are different studies"):
        read_manifest(write(*lines[:3], lines[3].format("train"), name="one.csv"))


def test_subjects_of_two_splits_may_not_differ_in_letter_case_alone(write: Callable[..., Path]) -> None:
    lines = ["subject,visit,t1,split", "P1,1,ok_a.nii,train", "p1,1,ok_b.nii,{}"]
    assert "'P1' and 'p1' differ in letter case alone and are in the splits train and val" in refusal(
        write(*lines[:2], lines[2].format("val"))
    )
    assert len(read_manifest(write(*lines[:2], lines[2].format("train")))) == 2


def test_images_in_a_column_of_another_image_are_told(write: Callable[..., Path], tmp_path: Path) -> None:
    (tmp_path / "P1_t1ce.nii").touch()
    with pytest.warns(UserWarning, match="names 'P1_t1ce.nii' as T1, but the names of the files say otherwise"):
        read_manifest(write("subject,t1", "P1,P1_t1ce.nii"))


def test_conventions_are_read_checked_and_completed(write: Callable[..., Path], tmp_path: Path) -> None:
    for name in ("a", "s"):
        (tmp_path / f"{name}.nii").touch()
    cohort = read_manifest(write("subject,t1,label,convention", "P1,a.nii,s.nii,msd", "P2,a.nii,s.nii,", "P3,a.nii,,"))
    assert [study.convention for study in cohort.with_convention("brats2024").studies] == ["msd", "brats2024", ""]
    assert cohort.conventions() == {"msd (declared)": 1, "recognized by numbers and arrangement": 1}
    assert "P2,,a.nii,,,,s.nii,,,train,\n" in manifest_text(cohort, tmp_path)
    with pytest.raises(ValueError, match="line 2: convention is 'mds', which is no known convention"):
        read_manifest(write("subject,t1,label,convention", "P1,a.nii,s.nii,mds"))
