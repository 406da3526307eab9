"""``cestquant import``: a study becomes signal, protocol and report, on which ``fit`` works."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from dicom_files import place, series, write_classic, write_dicom
from paravision import stored_frames, write_scan
from studies import acquire, checksums, messages, read_image, spectrum_protocol, write_json

from CESTQuantLib.batch import main
from CESTQuantLib.logic import CESTQuantLogic
from NeuroCESTLib.scene.sequences import read_sequence, sequence_to_array


@pytest.fixture
def imported(slicer: ModuleType, tmp_path: Path, capfd: pytest.CaptureFixture) -> Callable[..., tuple[int, list[str]]]:
    """Function that runs the command into ``out`` and returns its status and messages; the source stays as it is."""

    def run(source: Path, *arguments: str) -> tuple[int, list[str]]:
        slicer.mrmlScene.Clear(0)
        before = checksums(source)
        status = main(["import", str(source), "--output", str(tmp_path / "out"), *arguments])
        assert checksums(source) == before
        assert (tmp_path / "out").exists() == (status == 0)
        return status, messages(capfd.readouterr().err)

    return run


@pytest.fixture
def study(tmp_path: Path) -> Path:
    """A study with an anatomical scan and a CEST scan."""
    off = {"PVM_MagTransOnOff": "Off", "Method": "<Bruker:RARE>"}
    write_scan(tmp_path / "study" / "2", stored_frames(measurements=1), method=off)
    write_scan(tmp_path / "study" / "10")
    return tmp_path / "study"


def test_the_cest_scan_of_a_study_is_found_and_named(imported: Callable, study: Path, tmp_path: Path) -> None:
    status, lines = imported(study)
    assert status == 0
    assert "scan 10 is the only one with saturation offsets among 2: RARE" in lines[0]
    assert [line.split(":")[0] for line in lines[1:]] == ["to fill in"] * 4
    protocol = json.loads((tmp_path / "out" / "protocol.json").read_text())
    assert (protocol["offsets_ppm"], protocol["b1_uT"], protocol["post_delay_s"]) == ([-100, -3.5, 0, 3.5], 2.5, None)
    array, geometry, index = sequence_to_array(read_sequence(tmp_path / "out" / "signal.seq.nrrd"))
    np.testing.assert_allclose(index, [-100, -3.5, 0, 3.5])
    slopes = 0.5 * (1 + np.arange(8)).reshape(4, 2, 1, 1)
    np.testing.assert_allclose(array, stored_frames() * slopes, rtol=1e-6)
    np.testing.assert_allclose(geometry.ijk_to_lps[:3, 3], [-3.75, -1.875, -3.0], atol=1e-9)
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert [entry["role"] for entry in report["inputs"]] == ["method", "acqp", "visu_pars", "2dseq"]
    assert sorted(report["summary"]["to_fill_in"]) == sorted(key for key, value in protocol.items() if value is None)


def test_fit_works_on_the_result_and_asks_for_what_it_needs(
    imported: Callable, tmp_path: Path, capfd: pytest.CaptureFixture
) -> None:
    offsets = {"PVM_MagTransFL": "( 6 )\n-30000 -1050 -300 0 300 1050"}
    imported(write_scan(tmp_path / "1", stored_frames(measurements=6), method=offsets))
    out = tmp_path / "out"
    protocol = json.loads((out / "protocol.json").read_text())
    write_json(protocol | {"b1_uT": None}, tmp_path / "open.json")
    signal = ["fit", "--signal", str(out / "signal.seq.nrrd"), "--output", str(tmp_path / "maps"), "--protocol"]
    assert main([*signal, str(tmp_path / "open.json"), "--method", "mtrasym"]) == 0
    capfd.readouterr()
    model = {
        "water": {"T1_s": 2.0, "T2_s": 0.1},
        "solutes": [],
        "b0_shift_ppm": {"fit": True, "start": 0, "bounds": [-1, 1]},
    }
    write_json(model, tmp_path / "model.json")
    physical = ["--method", "r1rho", "--model", str(tmp_path / "model.json")]
    assert main([*signal, str(tmp_path / "open.json"), *physical]) == 2
    assert messages(capfd.readouterr().err) == [
        f"error: '{tmp_path / 'open.json'}': b1_uT is null in the protocol: fill in the values that r1rho needs"
    ]


def test_a_scan_without_offsets_is_an_image(imported: Callable, study: Path, tmp_path: Path) -> None:
    assert imported(study, "--scan", "2") == (
        0,
        ["warning: scan 2 has no saturation offsets: it is imported without protocol"],
    )
    assert sorted(file.name for file in (tmp_path / "out").iterdir()) == ["image.nii.gz", "report.json"]


def test_times_of_a_weighting_are_told(imported: Callable, tmp_path: Path) -> None:
    """They are what ``cestquant relaxation`` needs."""
    off = {"PVM_MagTransOnOff": "Off"}
    times = {"VisuAcqEchoTime": "( 4 )\n10 20 30 40"}
    _, lines = imported(write_scan(tmp_path / "7", method=off, visu=times))
    assert "warning: the echo times in ms are 10 20 30 40" in lines
    assert (tmp_path / "out" / "image.seq.nrrd").exists()


def with_echoes(echo_loop: int, cycles: int) -> dict[str, str | None]:
    """Parameters of images with two slices and two echoes, which are the loop of this place from the fastest one on."""
    loops = [f"({cycles}, <FG_CYCLE>, <>, 2, 0)"]
    loops.insert(echo_loop, "(2, <FG_ECHO>, <>, 0, 0)")
    return {
        "VisuFGOrderDesc": "( 3 )\n(2, <FG_SLICE>, <>, 0, 2) " + " ".join(loops),
        "VisuCoreDataSlope": "( 1 )\n1",
        "VisuAcqEchoTime": "( 2 )\n5 10",
    }


@pytest.mark.parametrize(("echo_loop", "first"), [(0, [0, 2, 4, 6]), (1, [0, 1, 2, 3])])
def test_of_several_echoes_of_every_offset_the_first_is_taken(
    imported: Callable, tmp_path: Path, echo_loop: int, first: list[int]
) -> None:
    stored = stored_frames(measurements=8)
    status, lines = imported(write_scan(tmp_path / "1", stored, visu=with_echoes(echo_loop, cycles=4)))
    assert status == 0
    assert lines[0] == "warning: every measurement has 2 echoes: the first one was taken, and the others were left out"
    assert lines[1] == "warning: the echo times in ms are 5 10"
    array, _, index = sequence_to_array(read_sequence(tmp_path / "out" / "signal.seq.nrrd"))
    np.testing.assert_array_equal(index, [-100, -3.5, 0, 3.5])
    np.testing.assert_array_equal(array, stored[first])


def test_the_echoes_of_a_scan_without_offsets_are_all_kept(imported: Callable, tmp_path: Path) -> None:
    off = {"PVM_MagTransOnOff": "Off"}
    imported(write_scan(tmp_path / "1", stored_frames(measurements=8), method=off, visu=with_echoes(0, cycles=4)))
    assert read_sequence(tmp_path / "out" / "image.seq.nrrd").GetNumberOfDataNodes() == 8


def test_offsets_that_fit_only_all_the_echoes_are_those_of_all(imported: Callable, tmp_path: Path) -> None:
    """Sequences of laboratories may play their offsets in the loop that ParaVision calls echoes."""
    imported(write_scan(tmp_path / "1", stored_frames(measurements=4), visu=with_echoes(0, cycles=2)))
    assert read_sequence(tmp_path / "out" / "signal.seq.nrrd").GetNumberOfDataNodes() == 4


def test_offsets_can_be_given(imported: Callable, study: Path, tmp_path: Path) -> None:
    (tmp_path / "offsets.txt").write_text("-4\n4\n")
    status, lines = imported(study, "--scan", "10", "--offsets", str(tmp_path / "offsets.txt"))
    assert status == 0
    assert "2 offsets of the given list were measured 2 times" in lines[0]
    assert json.loads((tmp_path / "out" / "protocol.json").read_text())["offsets_ppm"] == [-4, 4, -4, 4]


def test_the_scans_of_a_study_are_listed(study: Path, capfd: pytest.CaptureFixture) -> None:
    (study / "3").mkdir()
    (study / "3" / "method").write_text("nonsense")
    assert main(["import", str(study), "--list"]) == 0
    lines = capfd.readouterr().out.splitlines()
    assert lines[0] == "2: RARE Z-spectrum (no saturation offsets, 2 images)"
    assert lines[1].startswith("3: damaged (")
    assert lines[2] == "10: cest Z-spectrum (CEST, 8 images)"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--scan", "7"], "has no scan 7; its scans are 2: RARE"),
        (["--scan", "10", "--offsets", "nowhere.txt"], "nowhere.txt: no such file"),
    ],
)
def test_wrong_choices_are_refused(imported: Callable, study: Path, arguments: list[str], message: str) -> None:
    status, lines = imported(study, *arguments)
    assert (status, len(lines)) == (2, 1)
    assert message in lines[0]


def test_several_cest_scans_ask_for_one(imported: Callable, study: Path) -> None:
    write_scan(study / "11")
    status, lines = imported(study)
    assert status == 2
    assert "has 3 scans; choose one with --scan: 2: RARE" in lines[0]


def test_a_folder_of_something_else_is_refused(imported: Callable, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    status, lines = imported(tmp_path / "empty")
    assert (status, len(lines)) == (2, 1)
    assert "has no scan: give the folder of a ParaVision study" in lines[0]


def test_dicom_series_become_a_signal(imported: Callable, tmp_path: Path) -> None:
    signal = stored_frames().astype(np.float32)
    write_classic(tmp_path / "dicom", signal)
    status, lines = imported(tmp_path / "dicom", "--scan", "5")
    assert status == 0
    assert (
        "to fill in: offsets_ppm, one offset from water in ppm for every measurement, which every method needs" in lines
    )
    assert json.loads((tmp_path / "out" / "protocol.json").read_text())["offsets_ppm"] is None
    (tmp_path / "dicom" / "offsets.txt").write_text("-100\n-3.5\n0\n3.5\n")
    (tmp_path / "out").rename(tmp_path / "first")
    imported(tmp_path / "dicom")
    array, geometry, index = sequence_to_array(read_sequence(tmp_path / "out" / "signal.seq.nrrd"))
    np.testing.assert_array_equal(index, [-100, -3.5, 0, 3.5])
    np.testing.assert_array_equal(array, signal)
    np.testing.assert_allclose(geometry.ijk_to_lps[:3, 3], [-10, -20, 30])


def test_a_finished_map_is_named_by_what_it_shows(imported: Callable, tmp_path: Path) -> None:
    scale = {(0x0008, 0x0008): ("CS", "DERIVED\\APTW"), (0x0028, 0x1053): ("DS", 0.01)}
    write_dicom(tmp_path / "dicom" / "map.dcm", {**series("APTw"), **place(0), **scale}, stored_frames()[0, :1])
    assert imported(tmp_path / "dicom")[0] == 0
    np.testing.assert_allclose(read_image(tmp_path / "out" / "aptw.nii.gz"), stored_frames()[0, :1] * 0.01, rtol=1e-5)


def test_nifti_with_the_json_of_a_converter(imported: Callable, tmp_path: Path) -> None:
    source = tmp_path / "in"
    still = acquire(spectrum_protocol(count=5)).write(source)
    image = source / "sub-01_cest.nii.gz"
    (still / "signal.nii.gz").rename(image)
    write_json(
        {"MagneticFieldStrength": 3, "SaturationOffset_Hz": [-400, 0, 100, 300, 500]}, source / "sub-01_cest.json"
    )
    main(["import", str(image), "--output", str(tmp_path / "out")])
    protocol = json.loads((tmp_path / "out" / "protocol.json").read_text())
    assert protocol["offsets_ppm"] == pytest.approx(np.array([-400, 0, 100, 300, 500]) / (3 * 42.5764), rel=1e-5)
    assert protocol["b1_uT"] is None
    np.testing.assert_allclose(
        read_sequence(tmp_path / "out" / "signal.seq.nrrd").GetNumberOfDataNodes(), len(protocol["offsets_ppm"])
    )


@pytest.mark.parametrize("key", ["MagneticFieldStrength", "ImagingFrequency"])
def test_a_field_of_a_sidecar_that_is_not_positive_is_refused(imported: Callable, tmp_path: Path, key: str) -> None:
    source = tmp_path / "in"
    acquire(spectrum_protocol(count=5)).write(source)
    write_json({key: -1}, source / "signal.json")
    status, lines = imported(source / "signal.nii.gz")
    assert (status, lines) == (2, [f"error: {source / 'signal.json'}: {key} is -1 but must be positive"])


def test_the_cest_image_of_a_folder_is_taken_or_has_to_be_chosen(imported: Callable, tmp_path: Path) -> None:
    source = tmp_path / "study"
    still = acquire(spectrum_protocol(count=5)).write(source / "sub-01" / "perf")
    image = still / "sub-01_cest.nii.gz"
    (still / "signal.nii.gz").rename(image)
    sidecar = {"MagneticFieldStrength": 3, "SaturationOffset_ppm": [-3, 0, 1, 2, 3]}
    write_json(sidecar, still / "sub-01_cest.json")
    assert imported(source)[0] == 0
    assert json.loads((tmp_path / "out" / "protocol.json").read_text())["offsets_ppm"] == [-3, 0, 1, 2, 3]
    shutil.rmtree(tmp_path / "out")
    for name in ("sub-02_cest.nii.gz", "sub-02_cest.json"):
        shutil.copy(still / name.replace("02", "01"), source / name)
    status, lines = imported(source)
    assert status == 2
    assert "has 2 images: choose one with --scan: sub-01/perf/sub-01_cest.nii.gz, sub-02_cest.nii.gz" in lines[-1]
    assert "has no image 'sub-03'" in imported(source, "--scan", "sub-03")[1][-1]
    assert imported(source, "--scan", "sub-02_cest.nii.gz")[0] == 0


def test_offsets_in_hertz_are_converted_with_a_warning(imported: Callable, tmp_path: Path) -> None:
    write_classic(tmp_path / "dicom", np.repeat(stored_frames().astype(np.float32), 2, axis=0))
    given = [-37000, 370, -370, 431, -431, 493, -493, 0]
    (tmp_path / "dicom" / "offsets.txt").write_text("\n".join(map(str, given)))
    status, lines = imported(tmp_path / "dicom")
    assert status == 0
    assert any("are taken to be in Hz and divided by 123.2 MHz" in line for line in lines)
    protocol = json.loads((tmp_path / "out" / "protocol.json").read_text())
    assert protocol["offsets_ppm"] == pytest.approx([hertz / 123.2 for hertz in given])


def test_offsets_in_hertz_of_an_unknown_field_are_converted_when_the_field_is_filled_in(
    imported: Callable, tmp_path: Path
) -> None:
    given = [-40000, -640, -480, -320, -160, -60, 60, 160, 320, 480, 640, 0]
    source = acquire(spectrum_protocol(count=12)).write(tmp_path / "in")
    write_json({"offsets_ppm": given}, source / "signal.json")
    status, lines = imported(source / "signal.nii.gz")
    assert status == 0
    assert "the offsets of the scan (-40000 to 640) look like Hz, not ppm: they are converted as soon as" in lines[0]
    signal = tmp_path / "out" / "signal.seq.nrrd"
    assert sequence_to_array(read_sequence(signal))[2].tolist() == list(range(1, 13))
    protocol = json.loads((tmp_path / "out" / "protocol.json").read_text())
    assert protocol["offsets_ppm"] == given
    filled = write_json({**protocol, "field_strength_T": 3.0}, tmp_path / "filled.json")
    arguments = ["--signal", str(signal), "--protocol", str(filled), "--output", str(tmp_path / "maps")]
    assert main(["fit", "--method", "mtrasym", "--asymmetry-offset", "3.5", *arguments]) == 0


def test_nifti_images_of_a_folder_are_listed(tmp_path: Path, capfd: pytest.CaptureFixture) -> None:
    for name in ("sub-01/perf/sub-01_cest.nii.gz", "sub-01/perf/sub-01_cest.json", "sub-01/anat/without_json.nii"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("{}")
    assert main(["import", str(tmp_path), "--list"]) == 0
    assert capfd.readouterr().out.splitlines() == ["sub-01/perf/sub-01_cest.nii.gz"]


@pytest.mark.parametrize("has_sidecar", [True, False])
def test_offsets_of_a_nifti_image_can_be_given(imported: Callable, tmp_path: Path, has_sidecar: bool) -> None:
    """They are those of one repetition, and stand for those of a JSON file, which the image then needs not have."""
    source = tmp_path / "in"
    acquire(spectrum_protocol(count=6)).write(source)
    if has_sidecar:
        write_json({"MagneticFieldStrength": 3, "SaturationOffset_ppm": [0]}, source / "signal.json")
    (tmp_path / "offsets.txt").write_text("-3.5\n0\n3.5\n")
    status, lines = imported(source / "signal.nii.gz", "--offsets", str(tmp_path / "offsets.txt"))
    assert status == 0
    name = tmp_path / "offsets.txt"
    assert lines[0] == f"warning: the 3 offsets of '{name}' are taken as measured 2 times, one list after the other"
    protocol = json.loads((tmp_path / "out" / "protocol.json").read_text())
    assert protocol["offsets_ppm"] == [-3.5, 0, 3.5, -3.5, 0, 3.5]
    assert protocol["field_strength_T"] == (3 if has_sidecar else None)
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert [entry["role"] for entry in report["inputs"]] == ["image", *["sidecar"] * has_sidecar, "offsets"]


@pytest.mark.parametrize("kind", ["nifti", "dicom"])
def test_what_is_told_of_a_list_of_offsets_is_in_the_report(imported: Callable, tmp_path: Path, kind: str) -> None:
    if kind == "nifti":
        acquire(spectrum_protocol(count=4)).write(tmp_path / "in")
        source = tmp_path / "in" / "signal.nii.gz"
    else:
        write_classic(tmp_path / "in", stored_frames().astype(np.float32))
        source = tmp_path / "in"
    (tmp_path / "offsets.txt").write_text("300,0\n-3,5\n0,0\n3,5\n")
    status, lines = imported(source, "--offsets", str(tmp_path / "offsets.txt"))
    assert status == 0
    told = [line for line in lines if "commas are read as decimal signs" in line]
    assert len(told) == 1
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert told[0].removeprefix("warning: ") in report["warnings"]
    shutil.rmtree(tmp_path / "out")
    (tmp_path / "offsets.txt").write_text("300,0\n-3,5\n3,5\n")
    status, lines = imported(source, "--offsets", str(tmp_path / "offsets.txt"))
    assert (status, len(lines)) == (2, 2)
    assert "commas are read as decimal signs" in lines[0]
    assert "has 3 offsets but" in lines[1]


def test_given_offsets_that_do_not_fit_a_nifti_image_are_named(imported: Callable, tmp_path: Path) -> None:
    source = tmp_path / "in"
    acquire(spectrum_protocol(count=6)).write(source)
    (tmp_path / "offsets.txt").write_text("-3.5\n-1\n0\n3.5\n")
    status, lines = imported(source / "signal.nii.gz", "--offsets", str(tmp_path / "offsets.txt"))
    assert status == 2
    assert f"'{tmp_path / 'offsets.txt'}' has 4 offsets but '{source / 'signal.nii.gz'}' has 6 volumes" in lines[0]


@pytest.fixture
def converted(tmp_path: Path) -> Path:
    """A DICOM folder with a CEST and an anatomical series, into which a converter wrote the anatomical image."""
    folder = tmp_path / "dicom"
    write_classic(folder, stored_frames().astype(np.float32), series("cest_apt", 5))
    write_classic(folder / "t1", stored_frames(measurements=1).astype(np.float32), series("t1_mprage", 3))
    written = acquire(spectrum_protocol(count=6)).write(tmp_path / "converted")
    shutil.copy(written / "signal.nii.gz", folder / "t1_mprage_3.nii.gz")
    offsets = [-300, -3.5, 0, 1, 2, 3.5]
    write_json({"MagneticFieldStrength": 3, "SaturationOffset_ppm": offsets}, folder / "t1_mprage_3.json")
    return folder


def test_a_converted_image_does_not_hide_the_dicom_series(converted: Path, capfd: pytest.CaptureFixture) -> None:
    assert main(["import", str(converted), "--list"]) == 0
    assert capfd.readouterr().out.splitlines() == [
        "3: t1_mprage (SIEMENS, 2 images)",
        "5: cest_apt (SIEMENS, 8 images)",
        "t1_mprage_3.nii.gz",
    ]


@pytest.mark.parametrize(
    ("arguments", "measurements"),
    [([], 4), (["--scan", "5"], 4), (["--scan", "cest_apt"], 4), (["--scan", "t1_mprage_3.nii.gz"], 6)],
)
def test_series_and_converted_images_of_a_folder_are_chosen_by_their_names(
    imported: Callable, converted: Path, tmp_path: Path, arguments: list[str], measurements: int
) -> None:
    assert imported(converted, *arguments)[0] == 0
    signal = read_sequence(tmp_path / "out" / "signal.seq.nrrd")
    assert signal.GetNumberOfDataNodes() == measurements


def test_a_series_and_its_converted_image_have_to_be_chosen_from(imported: Callable, converted: Path) -> None:
    for ending in (".nii.gz", ".json"):
        shutil.move(converted / f"t1_mprage_3{ending}", converted / f"cest_apt_5{ending}")
    status, lines = imported(converted)
    assert status == 2
    assert "has 2 DICOM series and 1 NIfTI images; choose one with --scan: 3: t1_mprage" in lines[-1]
    assert (
        "has no image 'cest_apt.nii.gz'; it has cest_apt_5.nii.gz"
        in imported(converted, "--scan", "cest_apt.nii.gz")[1][-1]
    )


def test_what_the_files_leave_open_is_filled_in(slicer: ModuleType, study: Path) -> None:
    logic = CESTQuantLogic()
    node = logic.importScan(study, scan=10).node
    assert list(logic.openValues(node)) == [
        "post_delay_s",
        "magnetisation_carried_over",
        "recovery_time_s",
        "readout_flip_angle_deg",
    ]
    logic.fillIn(node, "post_delay_s", "0.0065")
    logic.fillIn(node, "magnetisation_carried_over", "no")
    protocol = logic.protocolOf(node)
    assert protocol is not None
    assert (protocol["post_delay_s"], protocol["magnetisation_carried_over"]) == (0.0065, False)
    assert list(logic.openValues(node)) == ["recovery_time_s", "readout_flip_angle_deg"]
    for key, text, message in (
        ("recovery_time_s", "fast", "'fast' is not a number"),
        ("recovery_time_s", " ", "type a value"),
        ("post_delay_s", "1", "has no value post_delay_s"),
    ):
        with pytest.raises(ValueError, match=message):
            logic.fillIn(node, key, text)


def test_the_console_imports_into_the_scene(slicer: ModuleType, study: Path) -> None:
    found = CESTQuantLogic().importScan(study, scan=10, name="mouse")
    assert found.node.GetName() == "mouse"
    assert found.protocol is not None
    assert CESTQuantLogic().hasProtocol(found.node)
    assert set(found.open) == {
        "post_delay_s",
        "magnetisation_carried_over",
        "recovery_time_s",
        "readout_flip_angle_deg",
    }
    (study / "10" / "pdata" / "1" / "2dseq").write_bytes(b"short")
    slicer.mrmlScene.Clear(0)
    before = slicer.mrmlScene.GetNumberOfNodes()
    with pytest.raises(ValueError, match="is cut off"):
        CESTQuantLogic().importScan(study, scan=10)
    assert slicer.mrmlScene.GetNumberOfNodes() == before


@pytest.mark.parametrize("number", ["1", "2", "3"])
def test_real_scans_without_offsets(slicer: ModuleType, shared_data: Callable[[str], Path], number: str) -> None:
    found = CESTQuantLogic().importScan(shared_data("data/scanner/bruker_banana/bru_banana"), scan=number)
    assert found.protocol is None
    assert found.node.GetImageData().GetDimensions() == (80, 64, 5)


@pytest.mark.parametrize(("number", "missing"), [(1, "2dseq"), (2, "visu_pars"), (3, "visu_pars")])
def test_real_damaged_scans(slicer: ModuleType, shared_data: Callable[[str], Path], number: int, missing: str) -> None:
    with pytest.raises(ValueError, match=f"{missing}' is missing"):
        CESTQuantLogic().importScan(shared_data(f"data/scanner/bruker_banana/bru_banana_bad_{number}"))


def test_a_real_z_spectrum(slicer: ModuleType, shared_data: Callable[[str], Path]) -> None:
    """Mouse at 7 T: four times 44 offsets in Hz, the first three at 100 ppm, 6 s at 3.5 uT."""
    found = CESTQuantLogic().importScan(shared_data("data/scanner/bruker_acidocest/study"))
    assert found.protocol is not None
    assert found.report["repetitions"] == 4
    assert found.protocol["b1_uT"] == 3.5
    assert found.protocol["saturation_time_s"] == 6.0
    offsets = np.array(found.protocol["offsets_ppm"]).reshape(4, 44)
    np.testing.assert_allclose(offsets[0, [0, 1, 2, 3, 15, 43]], [-100, -100, -100, -10, 0, 10], atol=2e-3)
    array, geometry, _ = sequence_to_array(found.node)
    assert array.shape == (176, 1, 64, 64)
    np.testing.assert_allclose(geometry.spacing, [0.6, 0.6, 2.0])
    np.testing.assert_allclose(array[0].max(), 32766 * 0.0092302962756378, rtol=0.05)
