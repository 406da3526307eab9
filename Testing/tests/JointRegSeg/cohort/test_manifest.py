"""The manifest of a cohort: read, written, built from folders, and refused with everything that is wrong at once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from JointRegSegLib.batch import main
from JointRegSegLib.cohort.folders import cohort_of_folder, divide
from JointRegSegLib.cohort.manifest import COLUMNS, Cohort, StudyRecord, manifest_text, read_manifest

HEADER = ",".join(COLUMNS)


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    """Write a manifest of the given lines, and empty files for all the paths in it that start with 'ok'."""

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


def test_columns_may_come_in_any_order_under_usual_names(write: Callable[..., Path], tmp_path: Path) -> None:
    path = write("Split,T1Gd,Seg,Patient", "Training,ok1.nii,ok2.nii,P1", encoding="utf-8-sig")
    (study,) = read_manifest(path).studies
    assert (study.subject, study.visit, study.split) == ("P1", "", "train")
    assert study.files == {"t1ce": tmp_path / "ok1.nii", "label": tmp_path / "ok2.nii"}


@pytest.mark.parametrize("delimiter", [";", "\t"])
def test_other_delimiters_are_understood(write: Callable[..., Path], delimiter: str) -> None:
    path = write("subject,t1,split", "P1,ok.nii,test")
    path.write_text(path.read_text().replace(",", delimiter))
    assert read_manifest(path).studies[0].split == "test"


def test_unknown_columns_are_named_in_a_warning(write: Callable[..., Path]) -> None:
    path = write("subject,t1,age,flare", "P1,ok.nii,50,x.nii")
    with pytest.warns(UserWarning, match="unknown columns age, flare are left alone"):
        read_manifest(path)


def test_everything_wrong_is_said_at_once(write: Callable[..., Path]) -> None:
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
        "P6,a,ok9.nii,,,,,,,train,extra",
    )
    said = refusal(path)
    for words in (
        "2 files that do not exist",
        "gone1.nii (line 2, t1ce)",
        "gone2.nii (line 2, label)",
        "visit 'v1' of 'P1' is there 2 times",
        "line 4 has the split 'training data', which is none of train, val, test",
        "line 5 (P3 v1) has no image of any modality",
        "line 6 has no subject",
        "'P4' is in the splits test and train",
        "line 9 names",
        "for t1 and t2",
        "line 10 has 11 fields for 10 columns",
    ):
        assert words in said
    assert "\n" not in said


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        (("visit,t1", "1,ok.nii"), "no column 'subject'"),
        (("subject,label", "P,ok.nii"), "no column for an image"),
        (("subject,t1,T1w", "P,ok.nii,"), "more than one column for t1"),
        ((HEADER,), "a header but no study"),
        (("", ""), "is empty"),
        (("subject,t1", "P,gone.nii"), "a file that does not exist"),
        (("subject,t1", "P,ok.nii", "P,ok2.nii"), "'P' without a visit is there 2 times"),
    ],
)
def test_unusable_manifests_are_refused(write: Callable[..., Path], lines: tuple, said: str) -> None:
    assert said in refusal(write(*lines))


def test_unreadable_manifests_are_refused(tmp_path: Path) -> None:
    assert "does not exist" in refusal(tmp_path / "gone.csv")
    (tmp_path / "binary.csv").write_bytes(bytes(range(128, 256)))
    assert "no text in UTF-8" in refusal(tmp_path / "binary.csv")
    (tmp_path / "folder.csv").mkdir()
    assert "is a folder" in refusal(tmp_path / "folder.csv")


def test_a_split_without_studies_is_refused(write: Callable[..., Path]) -> None:
    cohort = read_manifest(write("subject,t1,split", "P1,ok1.nii,train", "P2,ok2.nii,train", "P3,ok3.nii,val"))
    assert len(cohort.of_split("train")) == 2
    with pytest.raises(ValueError, match=r"no study in the split 'test' \(2 in 'train', 1 in 'val'\)"):
        cohort.of_split("test")
    with pytest.raises(ValueError, match="unknown split 'dev'"):
        cohort.of_split("dev")


def brats(folder: Path, name: str, names: tuple[str, ...], between: str = "_") -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for role in names:
        (folder / f"{name}{between}{role}.nii.gz").touch()


OLD = ("t1", "t1ce", "t2", "flair", "seg")
NEW = ("t1n", "t1c", "t2w", "t2f", "seg")


def keys(cohort: Cohort) -> list[tuple[str, str]]:
    return [(study.subject, study.visit) for study in cohort.studies]


def test_brats_2018_folders_are_found_below_their_grades(tmp_path: Path) -> None:
    brats(tmp_path / "HGG/Brats18_A_1", "Brats18_A_1", OLD)
    brats(tmp_path / "LGG/Brats18_B_1", "Brats18_B_1", OLD[:4])
    cohort = cohort_of_folder(tmp_path)
    assert keys(cohort) == [("Brats18_A_1", "1"), ("Brats18_B_1", "1")]
    assert cohort.studies[0].label.name == "Brats18_A_1_seg.nii.gz"
    assert cohort.studies[1].label is None


def test_brats_2023_names_give_subject_and_visit(tmp_path: Path) -> None:
    for name in ("BraTS-GLI-00005-000", "BraTS-GLI-00005-001", "BraTS-GLI-00002-000"):
        brats(tmp_path / name, name, NEW, "-")
    assert keys(cohort_of_folder(tmp_path)) == [
        ("BraTS-GLI-00002", "000"),
        ("BraTS-GLI-00005", "000"),
        ("BraTS-GLI-00005", "001"),
    ]


def test_visit_folders_belong_to_their_parent(tmp_path: Path) -> None:
    for visit in ("ses-01", "week-012-1"):
        brats(tmp_path / "Patient-7" / visit, "x", OLD)
    assert keys(cohort_of_folder(tmp_path)) == [("Patient-7", "ses-01"), ("Patient-7", "week-012-1")]


def test_files_named_for_visits_belong_to_the_subject_of_their_folder(tmp_path: Path) -> None:
    for subject, visits in (("P1", ("visit1", "visit2")), ("P2", ("baseline",)), ("003", ("ses-01", "ses-02"))):
        for visit in visits:
            brats(tmp_path / subject, visit, (*OLD, "mask"))
    (tmp_path / "004").mkdir()
    brats(tmp_path / "004", "visit1", OLD)
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


def test_the_visit_of_a_folder_goes_before_that_of_its_files(tmp_path: Path) -> None:
    brats(tmp_path / "P1/ses-02", "visit1", OLD)
    assert keys(cohort_of_folder(tmp_path)) == [("P1", "ses-02")]


def test_files_named_by_numbers_are_subjects(tmp_path: Path) -> None:
    for name in ("001", "002"):
        brats(tmp_path, name, OLD)
    assert keys(cohort_of_folder(tmp_path)) == [("001", "1"), ("002", "1")]


def test_landmarks_beside_the_images_are_taken(tmp_path: Path) -> None:
    brats(tmp_path / "P1", "visit1", OLD)
    brats(tmp_path / "P1", "visit2", OLD)
    brats(tmp_path / "P2", "P2", OLD)
    for name in ("P1/visit2_landmarks.csv", "P1/notes.csv", "P2/landmarks.fcsv"):
        (tmp_path / name).touch()
    found = [study.landmarks for study in cohort_of_folder(tmp_path).studies]
    assert found == [None, tmp_path / "P1/visit2_landmarks.csv", tmp_path / "P2/landmarks.fcsv"]


def test_linked_folders_are_followed_and_each_study_is_taken_once(tmp_path: Path) -> None:
    cohort, store = tmp_path / "cohort", tmp_path / "store"
    brats(store / "archive-17/ses-01", "x", OLD)
    brats(cohort / "P2/ses-01", "x", OLD)
    (cohort / "P1").symlink_to(store / "archive-17", target_is_directory=True)
    (cohort / "A-latest").symlink_to(cohort / "P2/ses-01", target_is_directory=True)
    found = cohort_of_folder(cohort)
    assert keys(found) == [("P1", "ses-01"), ("P2", "ses-01")]
    assert found.studies[0].label == cohort / "P1/ses-01/x_seg.nii.gz"


def test_links_that_lead_back_up_end(tmp_path: Path) -> None:
    brats(tmp_path / "cohort/P1", "P1", OLD)
    brats(tmp_path / "other/P9", "P9", OLD)
    for name, target in (("P1/back", "cohort"), ("P1/self", "cohort/P1"), ("outside", ".")):
        (tmp_path / "cohort" / name).symlink_to(tmp_path / target, target_is_directory=True)
    assert keys(cohort_of_folder(tmp_path / "cohort")) == [("P1", "1")]


def test_studies_in_one_folder_are_told_apart_by_their_names(tmp_path: Path) -> None:
    brats(tmp_path, "a", OLD)
    brats(tmp_path, "b", OLD)
    brats(tmp_path, "BraTS-GLI-00001-002", NEW, "-")
    assert keys(cohort_of_folder(tmp_path)) == [("BraTS-GLI-00001", "002"), ("a", "1"), ("b", "1")]


def test_a_label_of_another_name_belongs_to_the_only_study_of_its_folder(tmp_path: Path) -> None:
    brats(tmp_path / "BraTS20_355", "BraTS20_355", OLD[:4])
    (tmp_path / "BraTS20_355/W39_1998.09.19_Segm.nii").touch()
    (study,) = cohort_of_folder(tmp_path).studies
    assert (study.subject, study.label.name) == ("BraTS20_355", "W39_1998.09.19_Segm.nii")


def test_unusable_folders_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no file below"):
        cohort_of_folder(tmp_path)
    brats(tmp_path / "a", "a", ("t1", "t1n"))
    with pytest.raises(ValueError, match=r"two files for t1, 'a_t1\.nii\.gz' and 'a_t1n\.nii\.gz'"):
        cohort_of_folder(tmp_path)
    with pytest.raises(ValueError, match=r"gone' does not exist"):
        cohort_of_folder(tmp_path / "gone")


def test_two_folders_of_one_name_are_refused(tmp_path: Path) -> None:
    for parent in ("x", "y"):
        brats(tmp_path / parent / "case", "case", OLD)
    with pytest.raises(ValueError, match="both hold the study 'case 1'"):
        cohort_of_folder(tmp_path)


def test_a_written_manifest_reads_back_the_same(tmp_path: Path) -> None:
    for name in ("BraTS2021_00001", "BraTS2021_00002, with a comma"):
        brats(tmp_path / "data" / name, name, OLD)
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


def cohort_of(subjects: int, visits: int = 2) -> Cohort:
    return Cohort(
        "cohort",
        tuple(
            StudyRecord(f"P{s}", f"v{v}", {"t1": Path(f"{s}-{v}.nii")}) for s in range(subjects) for v in range(visits)
        ),
    )


def test_subjects_are_divided_by_shares_and_never_torn_apart() -> None:
    divided = divide(cohort_of(20), validation=0.1, test=0.25, seed=3)
    counts = {split: len(divided.of_split(split).visits()) for split in ("train", "val", "test")}
    assert counts == {"train": 13, "val": 2, "test": 5}
    assert all(len({visit.split for visit in visits}) == 1 for visits in divided.visits().values())
    assert divide(cohort_of(20), 0.1, 0.25, seed=3) == divided
    assert divide(cohort_of(20), 0.1, 0.25, seed=4) != divided


def test_shares_that_leave_nothing_to_train_on_are_refused() -> None:
    with pytest.raises(ValueError, match="leave nothing to train on"):
        divide(cohort_of(4), 0.5, 0.5)
    with pytest.raises(ValueError, match="2 subjects of 'cohort' are too few"):
        divide(cohort_of(2), 0.1, 0.1)


def test_the_command_writes_a_manifest_that_reads_back(
    tmp_path: Path, capfd: pytest.CaptureFixture, slicer: object
) -> None:
    for number in range(4):
        name = f"BraTS2021_{number:05d}"
        brats(tmp_path / "data" / name, name, OLD if number else OLD[:4])
    output = tmp_path / "cohort.csv"
    assert main(["manifest", str(tmp_path / "data"), "--output", str(output), "--validation", "0.25"]) == 0
    assert "4 studies of 4 subjects" in capfd.readouterr().err
    cohort = read_manifest(output)
    assert len(cohort) == 4
    assert len(cohort.of_split("val")) == 1


def test_the_manifest_of_synthetic_patients_is_the_one_written_with_them(tmp_path: Path, slicer: object) -> None:
    cohort = tmp_path / "patients/cohort.csv"
    assert main(["synthesize", "--patients", "2", "--spacing", "4", "--output", str(cohort.parent)]) == 0
    again = cohort.with_name("again.csv")
    assert main(["manifest", str(cohort.parent), "--output", str(again)]) == 0
    assert again.read_text() == cohort.read_text()


def test_the_command_counts_one_study_as_one(tmp_path: Path, capfd: pytest.CaptureFixture, slicer: object) -> None:
    brats(tmp_path / "data/P1", "P1", OLD)
    assert main(["manifest", str(tmp_path / "data"), "--output", str(tmp_path / "cohort.csv")]) == 0
    assert "1 study of 1 subject (1 in 'train'), 1 labelled" in capfd.readouterr().err


def test_the_command_refuses_in_one_line_and_keeps_the_earlier_manifest(
    tmp_path: Path, capfd: pytest.CaptureFixture, slicer: object
) -> None:
    output = tmp_path / "cohort.csv"
    output.write_text("earlier")
    assert main(["manifest", str(tmp_path / "gone"), "--output", str(output)]) == 2
    error = capfd.readouterr().err
    assert error.count("\n") == 1
    assert "gone' does not exist" in error
    assert output.read_text() == "earlier"
