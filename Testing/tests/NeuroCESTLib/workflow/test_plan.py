"""What is done for a visit: inputs, arguments and what is left out."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from cohorts import write_cohort

from NeuroCESTLib.workflow.manifest import read_cohort
from NeuroCESTLib.workflow.plan import Plan
from NeuroCESTLib.workflow.settings import Settings
from NeuroCESTLib.workflow.visits import CohortManifest, Visit

FILES = {"t1": "/d/t1.nii", "cest": "/d/cest.nii", "protocol": "/d/p.json"}


def plan_of(*files: dict[str, str], settings: Settings | None = None) -> Plan:
    visits = [Visit("s01", f"v{number + 1}", one, {}) for number, one in enumerate(files)]
    return Plan({"s01": visits}, settings or Settings())


def after(arguments: tuple[str, ...], option: str) -> str:
    return arguments[arguments.index(option) + 1]


def test_a_plan_survives_its_file(tmp_path: Path) -> None:
    cohort = read_cohort(write_cohort(tmp_path / "cohort"))
    plan = Plan.of(cohort, Settings(method="mtrasym", fit=("--power", "1")))
    again = Plan.read(plan.write(tmp_path / "plan.json"))
    assert (again.visits, again.settings) == (plan.visits, plan.settings)


def test_later_visits_are_compared_with_the_first_one() -> None:
    plan = plan_of(FILES, FILES, FILES)
    assert plan.results("s01") == ["s01/v2/compartments", "s01/v3/compartments"]
    job = plan.job("compartments", "s01", "v3")
    assert set(job.inputs) == {"s01/v1/maps", "s01/v3/maps", "s01/v3/registration", "/d/t1.nii"}
    assert after(job.arguments, "--between") == "s01/v3/registration/moving_to_fixed.h5"
    assert "--register" in job.arguments


def test_a_single_visit_is_segmented_alone() -> None:
    plan = plan_of(FILES)
    assert [stage for stage, _ in plan.stages("s01")] == ["fit", "segmentation", "compartments"]
    segmentation = after(plan.job("compartments", "s01", "v1").arguments, "--segmentation")
    assert segmentation == "s01/v1/segmentation/segmentation.seg.nrrd"
    with pytest.raises(KeyError, match="no stage registration"):
        plan.job("registration", "s01", "v1")


def test_a_given_segmentation_replaces_the_network() -> None:
    given = {**FILES, "segmentation": "/d/seg.nii"}
    assert [stage for stage, _ in plan_of(given).stages("s01")] == ["fit", "compartments"]
    assert after(plan_of(given, given).job("registration", "s01", "v2").arguments, "--fixed-tumor") == "/d/seg.nii"


@pytest.mark.parametrize(
    ("file", "settings", "expected"),
    [
        ("/d/seg.nii", Settings(registration=("--refine", "0", "--labels", "brats2023")), "brats2023"),
        ("/d/seg.nii", Settings(registration=("--labels=1=core,4=enhancing",)), "1=core,4=enhancing"),
        ("/d/BraTS2021_00006_seg.nii.gz", Settings(), "brats2021"),
        ("/d/seg.nii", Settings(compartments=("--labels", "1=mine"), registration=("--labels", "msd")), "1=mine"),
    ],
)
def test_the_numbers_of_a_single_label_volume_mean_what_is_declared_or_its_name_tells(
    file: str, settings: Settings, expected: str
) -> None:
    """As for two visits, whose label volumes ``jointregseg apply`` reads."""
    arguments = plan_of({**FILES, "segmentation": file}, settings=settings).job("compartments", "s01", "v1").arguments
    assert after(arguments, "--labels") == expected
    assert arguments.count("--labels") == 1


def test_segments_with_names_need_no_convention() -> None:
    settings = Settings(registration=("--labels", "msd"))
    for files in ({**FILES, "segmentation": "/d/s.seg.nrrd"}, FILES):
        assert "--labels" not in plan_of(files, settings=settings).job("compartments", "s01", "v1").arguments


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (Settings(), r"is a label volume, and nothing says what its numbers mean: declare it in the settings, as in "),
        (Settings(registration=("--labels", "binary")), "a plain mask, which names no compartment: leave it out"),
    ],
)
def test_a_single_label_volume_without_a_meaning_is_refused(settings: Settings, words: str, tmp_path: Path) -> None:
    (tmp_path / "seg.nii").write_text("x")
    visit = Visit("s01", "v1", {**FILES, "segmentation": str(tmp_path / "seg.nii")}, {})
    with pytest.raises(ValueError, match=rf"the segmentation '.*seg\.nii' of s01 v1 .*{words}"):
        Plan.of(CohortManifest("COHORT.csv", (visit,)), settings)


def test_missing_modalities_keep_their_place() -> None:
    arguments = plan_of({**FILES, "flair": "/d/f.nii"}).job("segmentation", "s01", "v1").arguments
    assert arguments == ("segment", "--images", "/d/t1.nii", "-", "-", "/d/f.nii")


def test_fields_come_before_the_fit() -> None:
    plan = plan_of({**FILES, "wasabi": "/d/w.nii", "wasabi_protocol": "/d/w.json"})
    job = plan.job("fit", "s01", "v1")
    assert after(job.arguments, "--b1") == "s01/v1/fields/b1_relative.nii.gz"
    assert "s01/v1/fields" in job.inputs
    assert "s01/v1/fields/b1_relative.nii.gz" not in job.inputs


def test_scanner_files_are_imported_first(tmp_path: Path) -> None:
    plan = plan_of({"t1": "/d/t1.nii", "cest": str(tmp_path)})
    job = plan.job("fit", "s01", "v1")
    assert plan.stages("s01")[0][0] == "import"
    assert after(job.arguments, "--signal") == "s01/v1/import/signal.seq.nrrd"
    assert after(job.arguments, "--protocol") == "s01/v1/import/protocol.json"
    assert job.inputs == ("s01/v1/import",)


def test_each_of_the_scanner_files_is_an_input(tmp_path: Path) -> None:
    files = [tmp_path / "1.dcm", tmp_path / "series/2.dcm"]
    for file in files:
        file.parent.mkdir(exist_ok=True)
        file.touch()
    job = plan_of({"t1": "/d/t1.nii", "cest": str(tmp_path)}).job("import", "s01", "v1")
    assert job.inputs == tuple(map(str, files))
    assert job.arguments == ("import", str(tmp_path))


def test_the_data_beside_a_header_are_inputs(tmp_path: Path) -> None:
    files = {"t1": str(tmp_path / "t1.hdr"), "cest": str(tmp_path / "cest.hdr"), "protocol": "/d/p.json"}
    for name in ("t1.hdr", "t1.img", "cest.hdr", "cest.img"):
        (tmp_path / name).touch()
    plan = plan_of(files)
    assert set(plan.job("fit", "s01", "v1").inputs) == {files["cest"], str(tmp_path / "cest.img"), "/d/p.json"}
    assert str(tmp_path / "cest.img") not in plan.job("fit", "s01", "v1").arguments
    assert str(tmp_path / "t1.img") in plan.job("segmentation", "s01", "v1").inputs


@pytest.mark.parametrize("form", ["{}", "--weights={}"])
def test_files_among_the_arguments_are_inputs(form: str, tmp_path: Path) -> None:
    (tmp_path / "net.pt").touch()
    settings = Settings(segmentation=(form.format(tmp_path / "net.pt"), "--weights", "neurocest"))
    inputs = plan_of(FILES, settings=settings).job("segmentation", "s01", "v1").inputs
    assert inputs == ("/d/t1.nii", str(tmp_path / "net.pt"))


def test_a_visit_without_cest_gives_volumes_alone() -> None:
    plan = plan_of(FILES, {"t1": "/d/t1b.nii"})
    assert [(s, v.name) for s, v in plan.stages("s01")] == [
        ("fit", "v1"),
        ("registration", "v2"),
        ("compartments", "v2"),
    ]
    assert "--maps2" not in plan.job("compartments", "s01", "v2").arguments


def test_a_given_alignment_replaces_the_registration_of_cest_and_anatomy() -> None:
    arguments = plan_of({**FILES, "to_anatomy": "/d/t.h5"}).job("compartments", "s01", "v1").arguments
    assert after(arguments, "--to-anatomy") == "/d/t.h5"
    assert "--register" not in arguments


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"settings": {}}, "'settings.method' is missing"),
        ({"settings": 3}, "'settings' is not an object"),
        ({"visits": {"s01": [{"subject": "s01"}]}}, r"'\[0\]\[0\].name' is missing"),
        ({"visits": {"s01": [{"subject": "s01", "name": "v", "files": {"t1": 3}, "attributes": {}}]}}, "another kind"),
        ({"visits": {"s01": [{"subject": "s", "name": "v", "files": {}, "attributes": {}, "x": 1}]}}, "'x' is unknown"),
    ],
)
def test_a_damaged_plan_is_refused_by_name(changed: dict, words: str, tmp_path: Path) -> None:
    path = plan_of(FILES).write(tmp_path / "plan.json")
    path.write_text(json.dumps(json.loads(path.read_text()) | changed))
    with pytest.raises(ValueError, match=rf"plan\.json' is a damaged plan: .*{words}"):
        Plan.read(path)
    path.write_text("{")
    with pytest.raises(ValueError, match=r"plan\.json: not valid JSON"):
        Plan.read(path)


def test_anonymous_commands_are_told_where_the_files_of_the_maps_are() -> None:
    files = {**FILES, "wassr": "/d/w.nii", "wassr_protocol": "/d/wp.json", "segmentation": "/d/seg.nii"}
    plan = plan_of(files, settings=Settings(anonymous=True))
    assert all(plan.job(stage, "s01", "v1").arguments[-1] == "--anonymous" for stage, _ in plan.stages("s01"))
    arguments = plan.job("compartments", "s01", "v1").arguments
    start = arguments.index("--files") + 1
    assert arguments[start : start + 3] == ("/d/cest.nii", "/d/p.json", "s01/v1/fields/b0_shift_ppm.nii.gz")
    plain = plan_of(files)
    assert not {"--files", "--anonymous"} & {
        word for stage, _ in plain.stages("s01") for word in plain.job(stage, "s01", "v1").arguments
    }
