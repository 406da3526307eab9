"""Manifest and settings of a cohort: every mistake is named, all at once, before anything starts."""

from __future__ import annotations

import datetime
import json
from pathlib import Path

import pytest
from cohorts import write_cohort, write_manifest

from NeuroCESTLib.workflow.batch import main
from NeuroCESTLib.workflow.file_dates import recorded_day
from NeuroCESTLib.workflow.manifest import read_cohort

VISIT = {"subject": "s01", "visit": "v1", "t1": "t1.nii", "cest": "cest.nii", "protocol": "protocol.json"}


def refused(rows: list[dict[str, str]], folder: Path) -> str:
    """The message about a manifest whose files exist, but for those whose name begins with ``no``."""
    columns = list(dict.fromkeys(column for row in rows for column in row))
    for row in rows:
        for value in row.values():
            if value.endswith((".nii", ".json")) and not value.startswith("no"):
                (folder / value).write_text("x")
    manifest = write_manifest([{column: row.get(column, "") for column in columns} for row in rows], folder / "m.csv")
    with pytest.raises(ValueError, match="the manifest") as error:
        read_cohort(manifest)
    return str(error.value)


def test_visits_have_absolute_paths_and_other_columns_are_attributes(tmp_path: Path) -> None:
    cohort = read_cohort(write_cohort(tmp_path / "cohort"))
    first = cohort.subjects()["s01"][0]
    assert first.files["t1"] == str(tmp_path / "cohort" / "s01_v1_t1.nii")
    assert first.attributes == {"group": "odd"}
    assert cohort.attributes == ("group",)
    assert [visit.name for visit in cohort.subjects()["s02"]] == ["v1", "v2"]


def test_semicolons_and_a_byte_order_mark_as_spreadsheets_write_them_are_read(tmp_path: Path) -> None:
    manifest = write_cohort(tmp_path / "cohort", subjects=1)
    manifest.write_text(manifest.read_text().replace(",", ";"), encoding="utf-8-sig")
    assert list(read_cohort(manifest).subjects()) == ["s01"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"t1": "no.nii"}, "line 2 (s01 v1): t1 names 'no.nii', which does not exist"),
        ({"t1": ""}, "no structural image is given (t1, t1ce, t2, flair)"),
        ({"protocol": ""}, "cest is given without a protocol"),
        ({"cest": ""}, "protocol given without cest"),
        ({"subject": "a/b"}, "the subject 'a/b' cannot be the name of a folder"),
        ({"visit": ""}, "line 2 has no visit"),
        ({"b0": "b0.nii", "wassr": "w.nii", "wassr_protocol": "w.json"}, "both b0 and wassr are given"),
        ({"wasabi": "w.nii"}, "wasabi is given without wasabi_protocol"),
        ({"t1ce": "t1.nii"}, "t1 and t1ce are the same file"),
        ({"wassr_protcol": "x"}, "the column wassr_protcol is unknown (did you mean wassr_protocol?)"),
    ],
)
def test_a_mistake_is_one_clear_phrase_with_its_line(change: dict[str, str], message: str, tmp_path: Path) -> None:
    assert message in refused([VISIT | change], tmp_path)


@pytest.mark.parametrize("name", ["unit", "message", "first_visit", "percent", "Value"])
def test_an_attribute_cannot_have_the_name_of_a_column_of_the_results(name: str, tmp_path: Path) -> None:
    """It would be lost there, or replace the result."""
    message = refused([VISIT | {name: "x"}], tmp_path)
    assert f"the column {name.lower()} has the name of a column of the results: rename it" in message


def test_subjects_that_differ_in_case_alone_are_told(tmp_path: Path) -> None:
    """A typing error would otherwise make two single visits of two visits of a subject."""
    other = {"subject": "S01", "visit": "v2", "t1": "t1b.nii", "cest": "cestb.nii", "protocol": "protocol.json"}
    message = refused([VISIT, other, other | {"visit": "v3", "t1": "t1c.nii", "cest": "cestc.nii"}], tmp_path)
    assert "cannot be used: the subjects s01 and S01 differ in upper and lower case alone: write the same" in message


def test_all_mistakes_are_named_at_once(tmp_path: Path) -> None:
    rows = [
        VISIT | {"t1": "no1.nii"},
        VISIT | {"visit": "v2"},
        VISIT | {"visit": "v2", "t1": "t2.nii", "cest": "c.nii"},
    ]
    message = refused([*rows, {"subject": "s02", "visit": "v1", "t1": "other.nii"}], tmp_path)
    for words in (
        "4 mistakes",
        "line 2 (s01 v1): t1 names 'no1.nii'",
        "s01 v1 and s01 v2 have the same file for cest",
        "the visit v2 of s01 occurs more than once",
        "s02 has no visit with cest",
    ):
        assert words in message


def test_an_alignment_is_given_for_all_visits_of_a_subject_or_none(tmp_path: Path) -> None:
    other = {"subject": "s01", "visit": "v2", "t1": "t1b.nii", "cest": "cestb.nii", "protocol": "protocol.json"}
    message = refused([VISIT | {"to_anatomy": "align.json"}, other], tmp_path)
    assert "s01 has to_anatomy for some of its visits with cest alone: give it for all or none" in message


def test_missing_columns_are_named(tmp_path: Path) -> None:
    (tmp_path / "m.csv").write_text("patient,flair\ns01,x\n")
    with pytest.raises(ValueError, match="the column subject is missing; the column visit is missing; there is no col"):
        read_cohort(tmp_path / "m.csv")


def test_of_another_kind_of_file_only_the_missing_columns_are_told(tmp_path: Path) -> None:
    other = tmp_path / "protocol.json"
    other.write_text('{\n "field_strength_T": 3,\n "offsets_ppm": [\n -3.5,\n 3.5\n ]\n}\n')
    with pytest.raises(ValueError, match="the column subject is missing") as error:
        read_cohort(other)
    assert "line" not in str(error.value).replace(str(tmp_path), "")


def test_mistakes_of_manifest_and_settings_come_together_before_anything_starts(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    manifest = write_cohort(tmp_path / "cohort")
    (tmp_path / "cohort" / "s01_v1_t1.nii").unlink()
    (tmp_path / "settings.json").write_text('{"cores": 3}')
    arguments = [str(manifest), "--settings", str(tmp_path / "settings.json"), "--output", str(tmp_path / "out")]
    assert main(["run", *arguments]) == 2
    printed = capsys.readouterr().err
    assert "t1 names 's01_v1_t1.nii', which does not exist" in printed
    assert "the key 'cores' is unknown" in printed
    assert not (tmp_path / "out").exists()


def test_a_comparison_needs_a_column(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    manifest = write_cohort(tmp_path / "cohort")
    assert main(["run", str(manifest), "--compare", "arm", "--output", str(tmp_path / "out")]) == 2
    assert "has no such column; it has group" in capsys.readouterr().err


def dated(*dates: str) -> list[dict[str, str]]:
    """Visits v1, v2, … of one subject with their dates."""
    names = [f"v{number}" for number in range(1, len(dates) + 1)]
    files = [{column: f"{name}_{column}.nii" for column in ("t1", "cest")} for name in names]
    return [VISIT | own | {"visit": name, "date": date} for own, name, date in zip(files, names, dates, strict=True)]


def test_visits_in_the_wrong_order_are_told_by_their_dates(tmp_path: Path) -> None:
    message = refused(dated("2026-05-01", "2026-01-03", "2026-07-01"), tmp_path)
    assert (
        "the visits of s01 are in the wrong order: v2 (2026-01-03) is listed after v1 (2026-05-01), put the earlier "
        "one first" in message
    )
    assert "v3" not in message


def test_files_of_swapped_visits_are_told_by_the_days_in_their_sidecars(tmp_path: Path) -> None:
    rows = [row | {"date": ""} for row in dated("2026-01-03", "2026-05-01")]
    for row, day in zip(rows, ("2026-05-01T10:00:00.5", "2026-01-03T09:00:00"), strict=True):
        (tmp_path / row["cest"]).with_suffix(".json").write_text(json.dumps({"AcquisitionDateTime": day}))
    message = refused(rows, tmp_path)
    assert (
        "the files of s01 are in the wrong order: cest of v2 was acquired on 2026-01-03, before that of v1 "
        "(2026-05-01), as the files say; put the earlier visit first" in message
    )


def swapped_in_files(rows: list[dict[str, str]], folder: Path) -> Path:
    """The manifest of visits whose sidecars say that the CEST files of the second are older than those of the first."""
    for row in rows:
        for value in row.values():
            if value.endswith((".nii", ".json")):
                (folder / value).write_text("x")
    for row, day in zip(rows, ("2019-05-05", "2018-02-02"), strict=True):
        (folder / row["cest"]).with_suffix(".json").write_text(json.dumps({"AcquisitionDate": day}))
    return write_manifest(rows, folder / "m.csv")


def test_dates_of_both_visits_count_more_than_the_days_in_their_files(tmp_path: Path) -> None:
    manifest = swapped_in_files(dated("2026-01-10", "2026-03-31"), tmp_path)
    with pytest.warns(UserWarning, match="the files of s01 contradict the column date, which counts: cest of v2 was"):
        assert [visit.name for visit in read_cohort(manifest).visits] == ["v1", "v2"]


def test_the_date_of_one_visit_alone_does_not_count_more_than_the_files(tmp_path: Path) -> None:
    manifest = swapped_in_files(dated("2026-01-10", ""), tmp_path)
    with pytest.raises(ValueError, match="the files of s01 are in the wrong order: cest of v2"):
        read_cohort(manifest)


def test_files_in_the_order_of_swapped_dates_do_not_contradict_them(
    tmp_path: Path, recwarn: pytest.WarningsRecorder
) -> None:
    manifest = swapped_in_files(dated("2026-03-31", "2026-01-10"), tmp_path)
    with pytest.raises(ValueError, match="cannot be used: the visits of s01 are in the wrong order"):
        read_cohort(manifest)
    assert not recwarn.list


@pytest.mark.parametrize("types", [b"DA\x08\x00", b"\x08\x00\x00\x00"], ids=["explicit", "implicit"])
def test_the_day_of_a_dicom_folder_is_that_of_its_headers(tmp_path: Path, types: bytes) -> None:
    (tmp_path / "notes.txt").write_text("no image")
    header = bytes(128) + b"DICM" + b"\x08\x00\x20\x00" + types + b"20251231"
    (tmp_path / "image").write_bytes(header + b"\x08\x00\x22\x00" + types + b"20260103" + bytes(50))
    assert recorded_day(tmp_path) == datetime.date(2026, 1, 3)


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"AcquisitionDate": "unknown"}', '{"StudyDate": "20261301"}'])
def test_files_that_do_not_tell_their_day_are_taken(tmp_path: Path, content: str) -> None:
    (tmp_path / "t1.json").write_text(content)
    assert recorded_day(tmp_path / "t1.nii.gz") is None
    assert recorded_day(tmp_path / "other.nii.gz") is None


def test_a_date_that_cannot_be_read_is_a_mistake(tmp_path: Path) -> None:
    assert "the date '31.3.2026' of s01 v1 is no day" in refused(dated("31.3.2026"), tmp_path)


def test_dates_in_order_and_visits_without_one_are_taken(tmp_path: Path) -> None:
    rows = dated("2026-01-03", "", "2026-05-01", "2026-05-01")
    for row in rows:
        for value in row.values():
            if value.endswith((".nii", ".json")):
                (tmp_path / value).write_text("x")
    cohort = read_cohort(write_manifest(rows, tmp_path / "m.csv"))
    assert [visit.attributes["date"] for visit in cohort.visits] == ["2026-01-03", "", "2026-05-01", "2026-05-01"]


def test_a_quotation_mark_that_is_not_closed_is_told(tmp_path: Path) -> None:
    (tmp_path / "m.csv").write_text('subject,visit,t1,cest\nA,"v1,t1.nii,cest.nii\nB,v1,t1.nii,cest.nii\n')
    with pytest.raises(ValueError, match="a line break that ends in line 3: close the quotation mark") as error:
        read_cohort(tmp_path / "m.csv")
    assert str(error.value).isprintable()
