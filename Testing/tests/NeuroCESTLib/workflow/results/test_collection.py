"""Table, comparison and page of a cohort, from folders as the commands leave them."""

from __future__ import annotations

import csv
import json
from dataclasses import fields
from pathlib import Path

import pytest
from browser import find_browser, running_browser
from cohorts import read_table

from CESTQuantLib.compartments.results.change import Change
from NeuroCESTLib.core.checksum import sha256
from NeuroCESTLib.workflow.batch import main
from NeuroCESTLib.workflow.plan import FOLDERS, Plan
from NeuroCESTLib.workflow.record import folders_to_redo
from NeuroCESTLib.workflow.results.collection import collect
from NeuroCESTLib.workflow.results.rows import CHANGE_COLUMNS
from NeuroCESTLib.workflow.settings import Settings
from NeuroCESTLib.workflow.visits import Visit

STAGES = {"v1": ("fit",), "v2": ("fit", "registration", "compartments")}


def write(path: Path, header: str, *rows: list[object]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([header.split(), *rows])


def write_report(place: Path, volumes_ml: dict[str, float], least: str = "", checksums: bool = False) -> None:
    """Write the report of ``cestquant compartments`` with volumes of the oedema and a rim at each visit.

    Args:
        place: Folder of the stage.
        volumes_ml: Volume at each visit.
        least: Visit whose anatomical images do not show all of the oedema.
        checksums: Whether the report has the checksums of the tables in the folder.
    """
    visits = {}
    for visit, volume_ml in volumes_ml.items():
        rim = {"kind": "rim", "volume_ml": 30, "at_least": False}
        edema = {"kind": "tumor", "volume_ml": volume_ml, "at_least": visit == least}
        visits[visit] = {"regions": {"edema": edema, "rim_5mm": rim}}
    summary = {"visits": visits, "checksums": {file.name: sha256(file) for file in place.glob("*.csv") if checksums}}
    (place / "report.json").write_text(json.dumps({"summary": summary}), encoding="utf-8")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Results of six subjects in two groups; amide rises in the second group alone, and s06 has failed."""
    visits = {}
    for number in range(6):
        subject, group = f"s{number + 1:02d}", "second" if number % 2 else "first"
        files = {"t1": f"/{subject}/t1.nii", "cest": f"/{subject}/cest.nii", "protocol": "/p.json"}
        visits[subject] = [Visit(subject, visit, files, {"group": group}) for visit in ("v1", "v2")]
        for visit, stages in STAGES.items():
            for stage in stages:
                place = tmp_path / subject / visit / FOLDERS[stage]
                place.mkdir(parents=True)
                (place / "report.json").write_text("{}")
        base, rise = 1 + 0.1 * number, (1.0 + 0.01 * number if group == "second" else 0.02 * number)
        header = "visit region quantity unit n coverage mean median fit fit_se mean_se"
        rows = [[v, "edema", "amide", "", 9, 0.5, m, m, m, 0.02, 0.05] for v, m in (("v1", base), ("v2", base + rise))]
        write(tmp_path / subject / "v2" / "compartments" / "compartments.csv", header, *rows)
        write(
            tmp_path / subject / "v2" / "compartments" / "changes.csv",
            "region quantity unit first second change lower upper",
            ["edema", "amide", "", base, base + rise, rise, rise - 0.1, rise + 0.1],
            ["edema", "volume", "ml", 10, 12 + number, 2 + number, "", ""],
        )
        write_report(tmp_path / subject / "v2" / "compartments", {"v1": 10, "v2": 12 + number})
    (tmp_path / "s06" / "v2" / "maps" / "report.json").unlink()
    (tmp_path / "s06" / "v2" / "logs").mkdir()
    (tmp_path / "s06" / "v2" / "logs" / "fit.log").write_text("50 %\nerror: 'cest.nii' has no voxels\nwarning: x\n")
    (tmp_path / ".neurocest").mkdir()
    Plan(visits, Settings()).write(tmp_path / ".neurocest" / "plan.json")
    return tmp_path


def test_the_columns_of_changes_are_those_of_the_command() -> None:
    """Names that the manifest must not have are taken from them."""
    columns = [each.name for each in fields(Change) if each.name != "region"]
    assert ("first_visit", "compartment", *columns) == CHANGE_COLUMNS


def test_the_table_is_tidy_and_a_failed_subject_has_its_sentence(folder: Path) -> None:
    assert main(["summarize", str(folder), "--compare", "group"]) == 1
    rows = read_table(folder / "cohort.csv")
    first = next(row for row in rows if row["subject"] == "s02" and row["visit"] == "v2" and row["statistic"] == "fit")
    assert (first["group"], first["compartment"], first["quantity"]) == ("second", "edema", "amide")
    assert (float(first["value"]), float(first["se"]), first["n"]) == (pytest.approx(2.11), 0.02, "9")
    volumes = {r["visit"]: float(r["value"]) for r in rows if r["subject"] == "s01" and r["quantity"] == "volume"}
    assert volumes == {"v1": 10.0, "v2": 12.0}
    failed = [row for row in rows if row["subject"] == "s06"]
    assert [(r["visit"], r["value"], r["message"]) for r in failed] == [
        ("v2", "", "fit of v2: 'cest.nii' has no voxels")
    ]


def test_groups_and_visits_are_compared_and_p_values_corrected(folder: Path) -> None:
    main(["summarize", str(folder), "--compare", "group"])
    rows = read_table(folder / "comparison.csv")
    amide = {(r["kind"], r["first_group"]): r for r in rows if r["quantity"] == "amide" and r["visit"] != "1"}
    rise = amide["unpaired, change", "first"]
    assert (rise["second_group"], rise["n_first"], rise["n_second"]) == ("second", "3", "2")
    assert float(rise["difference"]) == pytest.approx(1.02 - 0.04)
    assert float(rise["p"]) < 0.001 < float(amide["unpaired", "first"]["p"])
    assert float(amide["paired", "second"]["difference"]) == pytest.approx(1.02)
    for row in rows:
        if row["p"]:
            assert float(row["p"]) <= float(row["q_fdr"]) <= float(row["p_holm"]) + 1e-12


def test_another_statistic_is_compared_on_demand(folder: Path) -> None:
    table = folder / "s01" / "v2" / "compartments" / "compartments.csv"
    table.write_text(table.read_text().replace(",1.0,1.0,1.0,", ",1.0,7.0,1.0,"))  # mean, median, fit
    found = {}
    for statistic in ("mean", "median"):
        main(["summarize", str(folder), "--compare", "group", "--statistic", statistic])
        rows = read_table(folder / "comparison.csv")
        chosen = [r for r in rows if (r["kind"], r["quantity"], r["visit"]) == ("unpaired", "amide", "1")]
        found[statistic] = float(chosen[0]["first"])
    assert found["median"] == pytest.approx(found["mean"] + 2)


def test_a_page_links_the_reports_and_names_failures_first(folder: Path) -> None:
    main(["summarize", str(folder), "--compare", "group"])
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert page.index("has no voxels") < page.index("Subjects</h2>")
    assert 'href="s01/v2/compartments/report.html"' in page
    assert (folder / "pictures" / "amide.png").is_file()
    assert (folder / "pictures" / "volume.png").is_file()


def test_a_result_of_which_a_stage_is_gone_does_not_count(folder: Path) -> None:
    (folder / "s01" / "v1" / "maps" / "report.json").unlink()
    assert main(["summarize", str(folder)]) == 1
    messages = [row["message"] for row in read_table(folder / "cohort.csv") if row["subject"] == "s01"]
    assert messages == ["not done yet: run again"]


def test_a_command_that_was_killed_before_it_said_anything_has_failed(folder: Path) -> None:
    (folder / "s06" / "v2" / "logs" / "fit.log").write_text("")
    assert main(["summarize", str(folder)]) == 1
    (message,) = [row["message"] for row in read_table(folder / "cohort.csv") if row["subject"] == "s06"]
    assert message.startswith("fit of v2: it ended without a message: it was stopped")


@pytest.mark.parametrize("damage", [b"", b"region,visit\nedema,v1\n", b"\xff\xfe\x00", b"x" * 200_000 + b"\n1\n"])
@pytest.mark.parametrize("name", ["compartments.csv", "changes.csv"])
def test_a_visit_with_a_damaged_table_is_named_and_the_others_count(
    name: str, damage: bytes, folder: Path, capsys: pytest.CaptureFixture
) -> None:
    table = folder / "s01" / "v2" / "compartments" / name
    table.write_bytes(damage)
    assert main(["summarize", str(folder)]) == 1
    rows = read_table(folder / "cohort.csv")
    (message,) = [row["message"] for row in rows if row["subject"] == "s01"]
    assert str(table) in message
    assert message.endswith("remove its folder and run again")
    assert {row["subject"] for row in rows if not row["message"]} == {"s02", "s03", "s04", "s05"}
    assert "Error" not in capsys.readouterr().err


@pytest.mark.parametrize("name", ["compartments.csv", "changes.csv"])
def test_a_visit_whose_table_was_cut_or_removed_is_named_and_done_again(name: str, folder: Path) -> None:
    place = folder / "s01" / "v2" / "compartments"
    write_report(place, {"v1": 10, "v2": 12}, checksums=True)
    plan = Plan.read(folder / ".neurocest" / "plan.json")
    key = "s01/v2/compartments"
    assert key not in folders_to_redo(folder, plan)
    whole = (place / name).read_bytes()
    for content in (whole[: whole.rindex(b"\n", 0, -1) + 1], whole[:-3], None):  # at the end of a line, within one
        if content is None:
            (place / name).unlink()
        else:
            (place / name).write_bytes(content)
        (failure,) = [each for each in collect(folder, plan, None).failures if each.subject == "s01"]
        assert failure.stage == "compartments"
        assert failure.sentence.startswith(f"'{place / name}' is ")
        assert failure.sentence.endswith("remove its folder and run again")
        assert key in folders_to_redo(folder, plan)


@pytest.mark.parametrize("damage", ["", "[]", '{"summary": {"visits": {"v1": {}}}}'])
def test_a_visit_with_a_damaged_report_is_named(damage: str, folder: Path) -> None:
    report = folder / "s01" / "v2" / "compartments" / "report.json"
    report.write_text(damage, encoding="utf-8")
    plan = Plan.read(folder / ".neurocest" / "plan.json")
    (failure,) = [each for each in collect(folder, plan, None).failures if each.subject == "s01"]
    assert failure.sentence.startswith(f"'{report}' is a damaged report")


def test_a_volume_that_is_only_the_least_one_is_marked_and_not_compared(folder: Path) -> None:
    plan = Plan.read(folder / ".neurocest" / "plan.json")
    volumes = {"kind": "paired", "quantity": "volume"}

    def compared() -> list[int]:
        found = collect(folder, plan, None).comparisons
        return [row["n_first"] for row in found if volumes.items() <= row.items()]

    before = compared()
    write_report(folder / "s01" / "v2" / "compartments", {"v1": 10, "v2": 12}, least="v2")
    results = collect(folder, plan, None)
    of_subject = [row for row in results.rows if row["subject"] == "s01" and row["quantity"] == "volume"]
    assert {row["visit"]: row["statistic"] for row in of_subject} == {"v1": "total", "v2": "least"}
    assert compared() == [count - 1 for count in before] == [4]
    assert results.warnings == (
        "s01 v2: the anatomical images do not show all of edema, so that the volumes are the least ones; they are not "
        "compared",
    )


def test_a_report_of_an_earlier_version_gives_the_volumes_of_the_tumour_alone(folder: Path) -> None:
    """It does not tell of which kind a region is."""
    plan = Plan.read(folder / ".neurocest" / "plan.json")
    now = len(collect(folder, plan, "group").comparisons)
    for path in folder.glob("*/v2/compartments/report.json"):
        content = json.loads(path.read_text(encoding="utf-8"))
        for visit in content["summary"]["visits"].values():
            for region in visit["regions"].values():
                del region["kind"]
        path.write_text(json.dumps(content), encoding="utf-8")
    earlier = collect(folder, plan, "group")
    assert {row["compartment"] for row in earlier.rows if row.get("quantity") == "volume"} == {"edema"}
    assert len(earlier.comparisons) == now


def test_a_single_visit_has_its_volumes_too_and_they_are_compared(folder: Path) -> None:
    visits = dict(Plan.read(folder / ".neurocest" / "plan.json").visits)
    for subject in ("s07", "s08"):
        files = {"t1": f"/{subject}/t1.nii", "cest": f"/{subject}/cest.nii", "protocol": "/p.json"}
        visits[subject] = [Visit(subject, "v1", files, {"group": "single"})]
        for stage in ("fit", "segmentation", "compartments"):
            (folder / subject / "v1" / FOLDERS[stage]).mkdir(parents=True)
            (folder / subject / "v1" / FOLDERS[stage] / "report.json").write_text("{}")
        place = folder / subject / "v1" / "compartments"
        write(place / "compartments.csv", "visit region quantity unit n coverage mean median fit fit_se mean_se")
        write_report(place, {"v1": 20})
    results = collect(folder, Plan(visits, Settings()), "group")
    assert [row["value"] for row in results.rows if row["subject"] == "s07"] == [20.0]
    found = {(row["first_group"], row["second_group"]): row for row in results.comparisons if row["visit"] == "1"}
    assert (found["first", "single"]["quantity"], found["first", "single"]["difference"]) == ("volume", 10.0)


def test_a_map_without_values_is_told_for_its_visit(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    header = "visit region quantity unit n coverage mean median fit fit_se mean_se"
    empty = [["v2", region, "noe", "", 0, 0.0, *[""] * 5] for region in ("edema", "core")]
    rows = [["v2", "edema", "amide", "", 9, 0.5, 1.0, 1.0, 1.0, 0.02, 0.05], *empty]
    write(folder / "s03" / "v2" / "compartments" / "compartments.csv", header, *rows)
    main(["summarize", str(folder)])
    told = [line for line in capsys.readouterr().err.splitlines() if line.startswith("warning: ")]
    assert told == ["warning: s03 v2: the map noe has no value in any compartment"]
    assert "the map noe has no value in any compartment" in (folder / "report.html").read_text(encoding="utf-8")


def test_another_folder_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert main(["summarize", str(tmp_path)]) == 2
    assert "is no output folder of 'neurocest run'" in capsys.readouterr().err


@pytest.mark.skipif(find_browser() is None, reason="no headless Chromium is installed")
def test_a_browser_shows_the_page_without_a_network(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    main(["summarize", str(folder), "--compare", "group"])
    with running_browser(find_browser() or "", tmp_path_factory.mktemp("profile")) as browser:
        seen = browser.visit(folder / "report.html")
    assert (seen.requests, seen.errors) == ([], [])
    assert (seen.layout["broken"], seen.layout["unnamed"], seen.layout["wide"]) == (0, 0, [])
    assert "S06 v2: fit of v2: 'cest.nii' has no voxels" in seen.layout["text"]
    assert len(seen.picture) > 20_000


def test_a_column_that_the_manifest_does_not_have_is_refused(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["summarize", str(folder), "--compare", "site"]) == 2
    assert "has no such column; it has group" in capsys.readouterr().err
    assert not (folder / "cohort.csv").exists()


def three_visits(folder: Path) -> Plan:
    """Write the results of three subjects, of which the later visits measure the first one differently."""
    visits = {}
    for number, subject in enumerate("abc"):
        files = {"t1": f"/{subject}/t1.nii", "cest": "/c.nii", "protocol": "/p.json"}
        visits[subject] = [Visit(subject, visit, files, {}) for visit in ("v1", "v2", "v3")]
        for visit, stages in {**STAGES, "v3": STAGES["v2"]}.items():
            for stage in stages:
                (folder / subject / visit / FOLDERS[stage]).mkdir(parents=True)
                (folder / subject / visit / FOLDERS[stage] / "report.json").write_text("{}")
        for visit, first, second in (("v2", 10 + number, 12 + number), ("v3", 14 + number, 15 + 2 * number)):
            place = folder / subject / visit / "compartments"
            header = "visit region quantity unit n coverage mean median fit fit_se mean_se"
            rows = [[v, "edema", "amide", "", 9, 1, m, m, "", "", 0.1] for v, m in (("v1", first), (visit, second))]
            write(place / "compartments.csv", header, *rows)
            write(place / "changes.csv", "region quantity unit first second change lower upper")
            write_report(place, {"v1": first, visit: second})
    return Plan(visits, Settings())


def test_each_later_visit_is_compared_with_the_first_one_of_its_own_table(tmp_path: Path) -> None:
    plan = three_visits(tmp_path)
    compared = [row for row in collect(tmp_path, plan, None).comparisons if row["unit"] != "ml"]
    assert {row["visit"]: (row["first"], row["second"]) for row in compared} == {
        "2 against 1": (11.0, 13.0),
        "3 against 1": (15.0, 17.0),
    }


def test_a_first_visit_whose_volume_is_the_least_one_only_against_a_later_visit_is_told(tmp_path: Path) -> None:
    """Whether its images show all of a compartment depends on what the other visit shows."""
    plan = three_visits(tmp_path)
    write_report(tmp_path / "a" / "v3" / "compartments", {"v1": 14, "v3": 15}, least="v1")
    results = collect(tmp_path, plan, None)
    assert {row["visit"]: row["n_first"] for row in results.comparisons if row["quantity"] == "volume"} == {
        "2 against 1": 3,
        "3 against 1": 2,
    }
    (told,) = results.warnings
    assert told.startswith("a v1 against v3: the anatomical images do not show all of edema")
    write_report(tmp_path / "a" / "v2" / "compartments", {"v1": 10, "v2": 12}, least="v1")
    (told,) = collect(tmp_path, plan, None).warnings  # once for both later visits
    assert told.startswith("a v1: the anatomical images do not show all of edema")
