"""``cestquant compartments``: files, numbers, and one clear sentence for everything that cannot be used."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import SimpleITK as sitk
from command_messages import names_an_input
from studies import Acquisition, checksums, read_image, write_image

from CESTQuantLib.batch import main
from CESTQuantLib.fitting.marquardt import Status
from CESTQuantLib.logic import CESTQuantLogic
from CESTQuantLib.scene.compartments.inputs import CompartmentVisit, linear_transform
from NeuroCESTLib.core.checksum import sha256
from NeuroCESTLib.scene.segmentations import add_segmentation, masks_on, read_segmentation
from NeuroCESTLib.scene.volumes import read_volume
from NeuroCESTLib.scene.writing import write_node

COLUMNS = ["visit", "region", "quantity", "unit", "n", "coverage", "mean", "sd", "median", "q1", "q3", "fit", "fit_se"]
LABELS = "1=core,2=oedema,3=enhancing"


@pytest.fixture
def maps(quantified: Callable, good: Path) -> Path:
    """Output folder of ``cestquant fit``."""
    return quantified(good, "mtrasym", b0=good / "b0.nii.gz")


@pytest.fixture
def segmentation(acquisition: Acquisition, tmp_path: Path) -> Path:
    """Label map with core, oedema and enhancing tumour on the grid of the maps."""
    labels = np.zeros(acquisition.geometry.shape, np.uint8)
    labels[1:3, 1:4, 1:5] = 2
    labels[1:3, 1:3, 1:4] = 3
    labels[1, 1, 1] = 1
    return write_image(labels, acquisition.geometry, tmp_path / "tumour.nii.gz")


def compartments(output: Path, *arguments: object, status: int = 0) -> Path:
    assert main(["compartments", *map(str, arguments), "--output", str(output)]) == status
    return output


def rows_of(file: Path) -> list[dict[str, str]]:
    with open(file, newline="") as opened:
        return list(csv.DictReader(opened))


def row_of(rows: Sequence[dict[str, str]], **wanted: str) -> dict[str, str]:
    (found,) = [row for row in rows if all(row[key] == value for key, value in wanted.items())]
    return found


def test_maps_of_an_anonymous_fit_are_fitted_again_where_their_files_are_given(
    slicer: ModuleType, quantified: Callable, good: Path, segmentation: Path, tmp_path: Path
) -> None:
    maps = quantified(good, "mtrasym", b0=good / "b0.nii.gz", anonymous=True)
    files = [good / name for name in ("m0.nii.gz", "b0.nii.gz", "protocol.json", "signal.nii.gz")]
    usual = ["--maps", maps, "--segmentation", segmentation, "--labels", LABELS, "--draws", 50]
    without = compartments(tmp_path / "without", *usual)
    assert {row["fit"] for row in rows_of(without / "compartments.csv")} == {""}
    summary = json.loads((without / "report.json").read_text(encoding="utf-8"))["summary"]
    assert summary["checksums"] == {"compartments.csv": sha256(without / "compartments.csv")}
    assert {region["kind"] for region in summary["visits"]["visit 1"]["regions"].values()} >= {"tumor", "rim"}
    found = compartments(tmp_path / "found", *usual, "--files", *files)
    row = row_of(rows_of(found / "compartments.csv"), region="edema", quantity="mtr_asym_3.5ppm")
    assert float(row["fit"]) == pytest.approx(float(row["mean"]), rel=0.1)


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("signal", 4, "'signal' is of another kind"),
        ("signal", ["z.nii", 0.5], "'signal' is of another kind"),
        ("protocol", [1], "'protocol' is of another kind"),
        ("b0", {}, "'b0' is of another kind"),
        ("asymmetry_offset", "x", "'asymmetry_offset' is of another kind"),
        ("asymmetry_offset", [0.0], "asymmetry_offset has the value 0, which is no offset in ppm"),
        ("m0_over_time", "never", "m0_over_time is 'never' but must be one of interpolated, mean"),
        ("field_strength", -3.0, "field_strength is -3 but must be positive"),
        ("method", "magic", "method is 'magic' but must be one of mtrasym"),
        ("lorentzian", "9T", "lorentzian is '9T', but there is no such preset"),
    ],
)
def test_a_damaged_report_of_the_maps_is_refused_by_name(
    slicer: ModuleType,
    maps: Path,
    segmentation: Path,
    tmp_path: Path,
    capfd: pytest.CaptureFixture,
    name: str,
    value: object,
    words: str,
) -> None:
    report = json.loads((maps / "report.json").read_text())
    report["settings"][name] = value
    (maps / "report.json").write_text(json.dumps(report))
    compartments(tmp_path / "out", "--maps", maps, "--segmentation", segmentation, "--labels", LABELS, status=2)
    error = capfd.readouterr().err
    assert f"error: '{maps / 'report.json'}' is damaged: in its settings: " in error
    assert words in error


def test_maps_of_an_earlier_fit_in_the_same_folder_are_told_and_not_read(
    slicer: ModuleType, maps: Path, segmentation: Path, tmp_path: Path, capfd: pytest.CaptureFixture
) -> None:
    shutil.copy(maps / "mtr_asym_3.5ppm.nii.gz", maps / "amide_amplitude.nii.gz")
    usual = ["--maps", maps, "--segmentation", segmentation, "--labels", LABELS, "--no-spectra"]
    output = compartments(tmp_path / "out", *usual)
    assert "amide_amplitude" not in {row["quantity"] for row in rows_of(output / "compartments.csv")}
    assert "maps that the last run did not write, which are not read: amide_amplitude.nii.gz" in capfd.readouterr().err
    report = json.loads((maps / "report.json").read_text())
    assert "mtr_asym_3.5ppm.nii.gz" in report.pop("outputs")
    (maps / "report.json").write_text(json.dumps(report))
    earlier = compartments(tmp_path / "earlier", *usual)  # of a version that did not say what it had written
    assert "amide_amplitude" in {row["quantity"] for row in rows_of(earlier / "compartments.csv")}


def test_other_commands_leave_the_folder_of_a_fit_alone(
    slicer: ModuleType, maps: Path, good: Path, segmentation: Path, capfd: pytest.CaptureFixture
) -> None:
    before = checksums(maps)
    acquisition = ["--signal", good / "signal.nii.gz", "--protocol", good / "protocol.json"]
    commands = {
        "wassr": acquisition,
        "relaxation": ["--signal", good / "signal.nii.gz", "--kind", "multi-echo", "--times-ms", 1, 2],
        "phantom": [],
        "compartments": ["--maps", maps, "--segmentation", segmentation, "--labels", LABELS],
    }
    for command, arguments in commands.items():
        assert main([command, *map(str, arguments), "--output", str(maps)]) == 2
        words = f"error: '{maps}' holds the results of 'cestquant fit', whose report.json would be lost: give another"
        assert words in capfd.readouterr().err
    assert checksums(maps) == before


def test_only_maps_that_the_report_of_another_command_lists_are_read(
    slicer: ModuleType, maps: Path, segmentation: Path, tmp_path: Path
) -> None:
    """As in folders that an earlier version let several commands write to."""
    report = json.loads((maps / "report.json").read_text())
    report |= {"command": "cestquant wassr", "outputs": ["b0_shift_ppm.nii.gz", "status.nii.gz"]}
    (maps / "report.json").write_text(json.dumps(report))
    shutil.copy(maps / "mtr_asym_3.5ppm.nii.gz", maps / "b0_shift_ppm.nii.gz")
    output = compartments(tmp_path / "out", "--maps", maps, "--segmentation", segmentation, "--labels", LABELS)
    assert {row["quantity"] for row in rows_of(output / "compartments.csv")} == {"b0_shift_ppm"}


def test_an_acquisition_whose_name_no_file_can_have_is_not_found(
    slicer: ModuleType, maps: Path, segmentation: Path, tmp_path: Path, capfd: pytest.CaptureFixture
) -> None:
    report = json.loads((maps / "report.json").read_text())
    report["settings"]["signal"] = "x" * 3000
    (maps / "report.json").write_text(json.dumps(report))
    usual = ["--maps", maps, "--segmentation", segmentation, "--labels", LABELS, "--draws", 50]
    compartments(tmp_path / "out", *usual)
    error = capfd.readouterr().err
    assert "xxx...' is not found, give it with --signal" in error
    assert "x" * 300 not in error


def test_one_visit_gives_a_row_for_each_region_and_map(
    slicer: ModuleType, maps: Path, segmentation: Path, tmp_path: Path
) -> None:
    output = compartments(tmp_path / "out", "--maps", maps, "--segmentation", segmentation, "--labels", LABELS)
    rows = rows_of(output / "compartments.csv")
    assert list(rows[0])[: len(COLUMNS)] == COLUMNS
    regions = {"necrotic_core", "edema", "enhancing_tumor", "tumor_core", "whole_tumor"}
    assert regions <= {row["region"] for row in rows}
    row = row_of(rows, region="edema", quantity="mtr_asym_3.5ppm")
    values = read_image(maps / "mtr_asym_3.5ppm.nii.gz")[read_image(segmentation) == 2]
    assert int(row["n"]) == len(values)
    assert float(row["mean"]) == pytest.approx(values.mean(), rel=1e-5)
    assert float(row["sd"]) == pytest.approx(values.std(ddof=1), rel=1e-4)
    assert float(row["median"]) == pytest.approx(np.median(values), rel=1e-4)
    assert float(row["coverage"]) == pytest.approx(1.0, abs=1e-3)
    assert float(row["fit"]) == pytest.approx(values.mean(), rel=0.1)
    report = json.loads((output / "report.json").read_text())
    assert report["summary"]["visits"]["visit 1"]["regions"]["edema"]["coverage"] == pytest.approx(1.0, abs=1e-3)
    assert {"signal", "map", "segmentation"} <= {entry["role"] for entry in report["inputs"]}
    written = masks_on(read_segmentation(output / "visit_1_regions.seg.nrrd"), _geometry(maps))
    assert written["Enhancing tumour"].sum() == (read_image(segmentation) == 3).sum()


def _geometry(maps: Path) -> object:
    from NeuroCESTLib.scene.geometry import Geometry

    return Geometry.of(read_volume(maps / "mtr_asym_3.5ppm.nii.gz"))


def test_two_visits_give_changes_with_intervals(
    slicer: ModuleType, maps: Path, segmentation: Path, tmp_path: Path
) -> None:
    later = Path(shutil.copytree(maps, tmp_path / "later"))
    image = sitk.ReadImage(str(later / "mtr_asym_3.5ppm.nii.gz"))
    sitk.WriteImage(image + 0.01, str(later / "mtr_asym_3.5ppm.nii.gz"))
    between = tmp_path / "moving_to_fixed.h5"
    sitk.WriteTransform(sitk.Euler3DTransform(), str(between))
    first = ("--maps", maps, "--segmentation", segmentation, "--labels", LABELS)
    second = ("--maps2", later, "--segmentation2", segmentation, "--between", between)
    output = compartments(tmp_path / "out", *first, *second, "--visits", "before", "after", "--scene")
    change = row_of(rows_of(output / "changes.csv"), region="whole_tumor", quantity="mtr_asym_3.5ppm")
    assert float(change["change"]) == pytest.approx(0.01, rel=1e-4)
    assert float(change["lower"]) < 0.01 < float(change["upper"])
    volume = row_of(rows_of(output / "changes.csv"), region="edema", quantity="volume")
    assert float(volume["change"]) == 0.0
    np.testing.assert_allclose(np.nanmedian(read_image(output / "change_mtr_asym_3.5ppm.nii.gz")), 0.01, rtol=1e-4)
    assert (read_image(output / "transitions.nii.gz") == 0).all()
    assert (output / "scene.mrb").stat().st_size > 0
    summary = json.loads((output / "report.json").read_text())["summary"]
    assert summary["between"]["response"]["category"] in ("stable disease", "not assessable")


@pytest.mark.parametrize("ending", [".nii.gz", ".seg.nrrd"])
def test_a_compartment_that_a_segmentation_knows_may_be_empty(
    slicer: ModuleType, acquisition: Acquisition, maps: Path, segmentation: Path, tmp_path: Path, ending: str
) -> None:
    labels = read_image(segmentation)
    labels[labels == 3] = 1
    geometry = acquisition.geometry
    later = tmp_path / f"later{ending}"
    if ending == ".nii.gz":
        write_image(labels, geometry, later)
    else:
        masks = {"necrotic core": labels == 1, "edema": labels == 2, "enhancing tumor": labels == 3}
        write_node(add_segmentation(masks, geometry, "later"), later)
    first = ("--maps", maps, "--segmentation", segmentation, "--labels", LABELS)
    output = compartments(tmp_path / "out", *first, "--segmentation2", later)
    change = row_of(rows_of(output / "changes.csv"), region="enhancing_tumor", quantity="volume")
    assert float(change["second"]) == 0.0
    between = json.loads((output / "report.json").read_text())["summary"]["between"]
    assert between["response"]["counts"][1] == 0


@pytest.mark.parametrize("ending", [".nii.gz", ".seg.nrrd"])
@pytest.mark.parametrize("gone", [True, False])
def test_a_visit_with_an_empty_segmentation_has_no_tumour(
    slicer: ModuleType,
    acquisition: Acquisition,
    maps: Path,
    segmentation: Path,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    ending: str,
    gone: bool,
) -> None:
    nothing, geometry = np.zeros(acquisition.geometry.shape, np.uint8), acquisition.geometry
    empty = tmp_path / f"empty{ending}"
    if ending == ".nii.gz":
        write_image(nothing, geometry, empty)
    else:
        masks = {name: nothing > 0 for name in ("necrotic core", "edema", "enhancing tumor")}
        write_node(add_segmentation(masks, geometry, "empty"), empty)
    between = tmp_path / "moving_to_fixed.h5"
    sitk.WriteTransform(sitk.Euler3DTransform(), str(between))
    one, two = (segmentation, empty) if gone else (empty, segmentation)
    visits = ("--maps", maps, "--segmentation", one, "--maps2", maps, "--segmentation2", two, "--between", between)
    output = compartments(tmp_path / "out", *visits, "--labels", LABELS, "--draws", 50, "--scene")
    error = capfd.readouterr().err
    assert f"the segmentation '{empty}' is empty, so that this visit counts as one without a tumour" in error
    change = row_of(rows_of(output / "changes.csv"), region="enhancing_tumor", quantity="volume")
    assert float(change["second" if gone else "first"]) == 0.0
    assert float(change["first" if gone else "second"]) > 0.0
    response = json.loads((output / "report.json").read_text())["summary"]["between"]["response"]
    assert (response["counts"][1 if gone else 0]) == 0
    assert (output / "report.html").is_file()


def test_numbers_that_mean_background_are_no_region(
    slicer: ModuleType, acquisition: Acquisition, maps: Path, segmentation: Path, tmp_path: Path
) -> None:
    labels = read_image(segmentation)
    labels[labels == 0] = 255
    filled = write_image(labels, acquisition.geometry, tmp_path / "filled.nii.gz")
    names = f"{LABELS},0=background,255=background"
    found = []
    for name, file, meaning in (("plain", segmentation, LABELS), ("filled", filled, names)):
        usual = ("--maps", maps, "--segmentation", file, "--labels", meaning, "--no-spectra")
        found.append(rows_of(compartments(tmp_path / name, *usual) / "compartments.csv"))
    assert found[0] == found[1]


def test_a_visit_without_cest_still_has_volumes(
    slicer: ModuleType, maps: Path, segmentation: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    first = ("--maps", maps, "--segmentation", segmentation, "--labels", LABELS)
    output = compartments(tmp_path / "out", *first, "--segmentation2", segmentation)
    assert {row["quantity"] for row in rows_of(output / "changes.csv")} == {"volume"}
    assert "visit 2 has no CEST maps: no CEST value can change" in capfd.readouterr().err


def test_two_visits_without_cest_have_volumes_transitions_and_growth(
    slicer: ModuleType, segmentation: Path, tmp_path: Path
) -> None:
    between = tmp_path / "moving_to_fixed.h5"
    sitk.WriteTransform(sitk.Euler3DTransform(), str(between))
    files = ("--segmentation", segmentation, "--segmentation2", segmentation, "--between", between, "--register")
    output = compartments(tmp_path / "out", *files, "--labels", LABELS, "--scene")
    assert rows_of(output / "compartments.csv") == []
    changes = rows_of(output / "changes.csv")
    assert {row["quantity"] for row in changes} == {"volume"}
    assert float(row_of(changes, region="edema", quantity="volume")["first"]) > 0
    assert (read_image(output / "transitions.nii.gz") == 0).all()
    assert (output / "report.html").is_file()


def test_an_acquisition_that_has_changed_is_told_and_not_fitted(
    slicer: ModuleType,
    quantified: Callable,
    good: Path,
    segmentation: Path,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    own = Path(shutil.copytree(good, tmp_path / "own"))
    maps = quantified(own, "mtrasym", b0=own / "b0.nii.gz")
    report = json.loads((maps / "report.json").read_text())
    signal = Path(next(entry["path"] for entry in report["inputs"] if entry["role"] == "signal"))
    assert signal.parent == own
    signal.write_bytes(signal.read_bytes() + b" ")
    output = compartments(tmp_path / "out", "--maps", maps, "--segmentation", segmentation, "--labels", LABELS)
    assert "has changed since the maps were made" in capfd.readouterr().err
    assert {row["fit"] for row in rows_of(output / "compartments.csv")} == {""}


def test_a_registration_without_spectra_takes_the_m0_image_that_the_maps_name(
    slicer: ModuleType,
    quantified: Callable,
    good: Path,
    segmentation: Path,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    own = Path(shutil.copytree(good, tmp_path / "own"))
    maps = quantified(own, "mtrasym", b0=own / "b0.nii.gz")
    given = ("--maps", maps, "--segmentation", segmentation, "--labels", LABELS, "--no-spectra", "--register")
    anatomy = tmp_path / "t1.nii.gz"
    sitk.WriteImage(sitk.ConstantPad(sitk.ReadImage(str(own / "m0.nii.gz")), [4] * 3, [4] * 3), str(anatomy))
    main([*map(str, ("compartments", *given, "--anatomy", anatomy, "--output", tmp_path / "out"))])
    assert "registration needs" not in capfd.readouterr().err
    (own / "m0.nii.gz").unlink()
    compartments(tmp_path / "again", *given, "--anatomy", anatomy, status=2)
    assert "m0.nii.gz' is not found, give it with --reference" in capfd.readouterr().err


def test_an_alignment_that_cannot_be_checked_without_the_m0_image_is_told(
    slicer: ModuleType,
    quantified: Callable,
    good: Path,
    segmentation: Path,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    own = Path(shutil.copytree(good, tmp_path / "own"))
    maps = quantified(own, "mtrasym", b0=own / "b0.nii.gz")
    given = ("--maps", maps, "--segmentation", segmentation, "--labels", LABELS, "--no-spectra")
    given = (*given, "--anatomy", own / "b0.nii.gz")  # no image of this brain
    compartments(tmp_path / "out", *given, status=2)
    assert "register them (--register)" in capfd.readouterr().err
    (own / "m0.nii.gz").unlink()
    compartments(tmp_path / "out", *given)
    told = capfd.readouterr().err
    assert "the alignment of CEST and anatomy is not checked: " in told
    assert "m0.nii.gz' is not found, give it with --reference" in told


def test_a_map_without_values_is_told_by_name(
    slicer: ModuleType, maps: Path, segmentation: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    own = Path(shutil.copytree(maps, tmp_path / "own"))
    image = sitk.ReadImage(str(own / "mtr_asym_3.5ppm.nii.gz"))
    sitk.WriteImage(sitk.Cast(image, sitk.sitkFloat32) * float("nan"), str(own / "mtr_asym_3.5ppm.nii.gz"))
    compartments(tmp_path / "out", "--maps", own, "--segmentation", segmentation, "--labels", LABELS, "--no-spectra")
    told = f"the map '{own / 'mtr_asym_3.5ppm.nii.gz'}' has no value anywhere (NaN)"
    assert told in capfd.readouterr().err


def test_voxels_without_a_usable_fit_are_left_out_and_told(
    slicer: ModuleType, maps: Path, segmentation: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Half of the oedema has iterations that did not end; the values there are no estimates."""
    folder = tmp_path / "maps"
    shutil.copytree(maps, folder)
    labels = sitk.GetArrayFromImage(sitk.ReadImage(str(segmentation)))
    status = sitk.ReadImage(str(folder / "status.nii.gz"))
    array = sitk.GetArrayFromImage(status)
    bad = (labels == 2) & (np.indices(labels.shape)[2] >= 3)
    array[bad] = int(Status.ITERATION_LIMIT)
    changed = sitk.GetImageFromArray(array)
    changed.CopyInformation(status)
    sitk.WriteImage(changed, str(folder / "status.nii.gz"))
    usual = ["--segmentation", segmentation, "--labels", LABELS, "--draws", 50, "--no-spectra"]
    wanted = {"region": "edema", "quantity": "mtr_asym_3.5ppm"}
    before = row_of(rows_of(compartments(tmp_path / "a", "--maps", maps, *usual) / "compartments.csv"), **wanted)
    capfd.readouterr()
    after = row_of(rows_of(compartments(tmp_path / "b", "--maps", folder, *usual) / "compartments.csv"), **wanted)
    assert int(after["n"]) == int(before["n"]) - int(bad.sum())
    assert f"{int(bad.sum())} voxels whose fit has no usable estimate" in capfd.readouterr().err


def test_several_numbers_may_mean_the_same_compartment(
    slicer: ModuleType, maps: Path, segmentation: Path, acquisition: Acquisition, tmp_path: Path
) -> None:
    labels = sitk.GetArrayFromImage(sitk.ReadImage(str(segmentation)))
    labels[(labels == 2) & (np.indices(labels.shape)[2] >= 3)] = 4
    divided = write_image(labels, acquisition.geometry, tmp_path / "divided.nii.gz")
    usual = ["--maps", maps, "--draws", 50, "--no-spectra"]
    once = compartments(tmp_path / "once", *usual, "--segmentation", segmentation, "--labels", LABELS)
    twice = compartments(tmp_path / "twice", *usual, "--segmentation", divided, "--labels", f"{LABELS},4=oedema")
    wanted = {"region": "edema", "quantity": "mtr_asym_3.5ppm"}
    first, second = (row_of(rows_of(folder / "compartments.csv"), **wanted) for folder in (once, twice))
    assert first["n"] == second["n"]
    assert float(first["mean"]) == pytest.approx(float(second["mean"]))


def test_the_mean_spectra_are_those_of_the_prepared_acquisition(
    slicer: ModuleType, quantified: Callable, good: Path, segmentation: Path, tmp_path: Path
) -> None:
    usual = ["--segmentation", segmentation, "--labels", LABELS, "--draws", 50]
    maps = [quantified(good, "mtrasym", b0=good / "b0.nii.gz", smooth_spectra=width) for width in (None, 2.0)]
    spectra = []
    for number, folder in enumerate(maps):
        found = compartments(tmp_path / f"found{number}", "--maps", folder, *usual)
        spectra.append([float(row["fit"]) for row in rows_of(found / "compartments.csv") if row["fit"]])
    assert spectra[0] != pytest.approx(spectra[1], rel=1e-6)


def test_maps_of_the_visits_that_were_made_in_different_ways_are_told(
    slicer: ModuleType,
    maps: Path,
    quantified: Callable,
    good: Path,
    segmentation: Path,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    said = "visit 2: its maps were not made in the same way as those of visit 1, so that a change may come from that: "
    usual = ("--maps", maps, "--segmentation", segmentation, "--segmentation2", segmentation, "--labels", LABELS)
    usual = (*usual, "--no-spectra", "--draws", 50)
    own = Path(shutil.copytree(good, tmp_path / "own"))
    protocol = json.loads((own / "protocol.json").read_text())
    (own / "protocol.json").write_text(json.dumps(protocol | {"note": "another session"}))
    same = quantified(own, "mtrasym", b0=own / "b0.nii.gz")
    capfd.readouterr()
    compartments(tmp_path / "same", *usual, "--maps2", same)
    assert "not made in the same way" not in capfd.readouterr().err
    (own / "protocol.json").write_text(json.dumps(protocol | {"recovery_time_s": 9.0}))
    other = quantified(own, "mtrasym", b0=own / "b0.nii.gz", smooth_spectra=1.0)
    capfd.readouterr()
    output = compartments(tmp_path / "other", *usual, "--maps2", other)
    assert f"{said}smooth spectra (none, 1.0), protocol\n" in capfd.readouterr().err
    assert any(said in warning for warning in json.loads((output / "report.json").read_text())["warnings"])


def test_visits_whose_regions_would_share_a_file_are_refused(
    slicer: ModuleType, maps: Path, segmentation: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    both = ("--maps", maps, "--segmentation", segmentation, "--maps2", maps, "--segmentation2", segmentation)
    for names in (("pre/op", "pre op"), ("Baseline", "baseline")):
        compartments(tmp_path / "out", *both, "--visits", *names, status=2)
        assert f"the names '{names[0]}' and '{names[1]}' are the same as names of files" in capfd.readouterr().err


def test_labels_without_names_are_regions_of_their_own(
    slicer: ModuleType, maps: Path, segmentation: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    output = compartments(tmp_path / "out", "--maps", maps, "--segmentation", segmentation, "--no-spectra")
    assert {row["region"] for row in rows_of(output / "compartments.csv")} == {"label 1", "label 2", "label 3"}
    assert f"the labels of '{segmentation}' have no names" in capfd.readouterr().err


def test_labels_are_named_by_a_convention(slicer: ModuleType, maps: Path, segmentation: Path, tmp_path: Path) -> None:
    usual = ("--maps", maps, "--segmentation", segmentation, "--no-spectra", "--labels")
    tables = [
        rows_of(compartments(tmp_path / name, *usual, meaning) / "compartments.csv")
        for name, meaning in (("convention", "brats2023"), ("numbers", LABELS))
    ]
    assert tables[0] == tables[1]


def test_bad_input_is_one_sentence_and_changes_nothing(
    slicer: ModuleType,
    maps: Path,
    segmentation: Path,
    acquisition: Acquisition,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "no_maps").mkdir()
    empty = write_image(np.zeros(acquisition.geometry.shape, np.uint8), acquisition.geometry, tmp_path / "empty.nii.gz")
    away = sitk.Euler3DTransform()
    away.SetTranslation((500.0, 0.0, 0.0))
    sitk.WriteTransform(away, str(tmp_path / "away.h5"))
    usual = ["--maps", maps, "--segmentation", segmentation, "--labels", LABELS]
    cases: dict[str, list[object]] = {
        "no CEST maps are given: give --maps": ["--segmentation", segmentation],
        "is no folder: give the output folder of 'cestquant fit'": ["--maps", tmp_path / "none"],
        "holds no maps": ["--maps", tmp_path / "no_maps"],
        "no region is known: give the segmentation": ["--maps", maps],
        "--maps2 is given without a first visit": ["--maps2", maps],
        "--between needs a second visit": [*usual, "--between", "t.h5"],
        "--visits needs one name for each visit": [*usual, "--maps2", maps, "--visits", "a", "a"],
        f"the segmentation '{empty}' is empty: no voxel is set; if there is no tumour, say what its numbers": [
            *("--maps", maps, "--segmentation", segmentation, "--segmentation2", empty),
        ],
        f"the segmentation '{empty}' is empty, and none of its segments is named as a part of a tumour": [
            *("--maps", maps, "--segmentation", segmentation, "--segmentation2", empty, "--labels", "1=mine,2=his,3=c"),
        ],
        f"the segmentation '{empty}' is empty: no voxel is set": [
            *("--maps", maps, "--segmentation", empty, "--segmentation2", empty, "--labels", LABELS),
        ],
        "the CEST slab shows nothing of the segmentation": [*usual, "--to-anatomy", tmp_path / "away.h5"],
        "the registration needs an anatomical image": [*usual, "--register"],
        "the rim is 99 mm wide": [*usual, "--rim", "99"],
        "--labels has 'core'": [*usual[:4], "--labels", "core"],
        "is no transform, or a damaged one": [*usual, "--maps2", maps, "--between", segmentation],
    }
    before = checksums(tmp_path)
    for message, arguments in cases.items():
        capfd.readouterr()
        compartments(tmp_path / "out", *arguments, status=2)
        line = capfd.readouterr().err.splitlines()[-1]
        assert message in line
        assert names_an_input(line, arguments), line
        assert checksums(tmp_path) == before


def test_the_console_takes_nodes(slicer: ModuleType, maps: Path, segmentation: Path) -> None:
    nodes = {"mtr_asym_3.5ppm": read_volume(maps / "mtr_asym_3.5ppm.nii.gz")}
    names = {1: "Necrotic core", 2: "Oedema", 3: "Enhancing tumour"}
    visit = CompartmentVisit("baseline", nodes, read_segmentation(segmentation), labels=names)
    result = CESTQuantLogic().compartments(visit)
    row = result.analysis.visits[0].row("edema", "mtr_asym_3.5ppm")
    assert row is not None
    assert np.isfinite(row.mean)
    assert slicer.mrmlScene.GetNodeByID(result.table.GetID()) is not None
    assert list(result.segmentations) == ["baseline"]


def test_a_transform_file_moves_the_cest_images_as_in_slicer(slicer: ModuleType, tmp_path: Path) -> None:
    transform = sitk.Euler3DTransform()
    transform.SetTranslation((5.0, 0.0, 0.0))  # LPS: maps points of the anatomy to the CEST image
    sitk.WriteTransform(transform, str(tmp_path / "t.h5"))
    np.testing.assert_allclose(linear_transform(tmp_path / "t.h5")[:3, 3], (5.0, 0.0, 0.0), atol=1e-9)
    assert slicer.mrmlScene.GetNumberOfNodesByClass("vtkMRMLTransformNode") == 0


def test_the_report_names_no_file_and_outputs_can_have_names_of_bids(
    slicer: ModuleType, maps: Path, segmentation: Path, tmp_path: Path
) -> None:
    given = ("--maps", maps, "--segmentation", segmentation, "--labels", LABELS, "--no-spectra")
    output = compartments(tmp_path / "out", *given, "--label", "P<1>", "--bids-names", "sub-01", "--visits", "scan 1")
    page = (output / "sub-01_desc-compartments_report.html").read_text()
    assert "CEST of tumour compartments: P&lt;1&gt;" in page
    assert "MTR asym 3.5 ppm" in page
    assert "&#x27;mtrasym&#x27;" in page  # the method, in the methods section
    assert str(tmp_path) not in page
    assert segmentation.name not in page
    names = {file.name for file in output.iterdir()}
    assert "sub-01_desc-compartments_stats.tsv" in names
    assert "sub-01_ses-scan1_desc-regions_dseg.seg.nrrd" in names
    assert "dataset_description.json" in names
    assert "report.html" not in names
    report = json.loads((output / "report.json").read_text())
    assert report["verdict"] in ("good", "check")
    assert (report["verdict"] == "check") == bool(report["reasons"])


def test_a_name_that_bids_does_not_allow_is_refused_before_anything_is_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    compartments(tmp_path / "out", "--maps", tmp_path, "--bids-names", "_/_", status=2)
    assert "is no name for BIDS" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("visits", "told"),
    [
        (("pre op", "pre-op"), "--visits: the names 'pre op' and 'pre-op' are the same as names of BIDS"),
        (("vor", "日"), "'日' is no name for BIDS"),
    ],
)
def test_visits_whose_names_bids_does_not_tell_apart_are_refused_before_anything_is_read(
    visits: tuple[str, str], told: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ("--maps", tmp_path, "--maps2", tmp_path, "--bids-names", "01", "--visits", *visits)
    compartments(tmp_path / "out", *given, status=2)
    assert told in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
