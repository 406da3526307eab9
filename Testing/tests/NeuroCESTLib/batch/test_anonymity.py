"""With ``--anonymous``, nothing that a command writes tells whose files it was given, or on which machine."""

from __future__ import annotations

import csv
import io
import json
import re
import zipfile
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import SimpleITK as sitk
from dicom_files import write_classic
from joint_studies import HeadStudy, small_weights
from matplotlib.text import Text
from studies import acquire, fit_arguments, spectrum_protocol, write_image

from CESTQuantLib.batch import main as cestquant
from JointRegSegLib.batch import main as jointregseg
from NeuroCESTLib.batch.anonymity import Replacements
from NeuroCESTLib.core.whole_files import written_as
from NeuroCESTLib.scene.segmentations import add_segmentation
from NeuroCESTLib.scene.writing import write_node

PATIENT = "Doe_Jane"


def written(folder: Path) -> dict[str, bytes]:
    """Everything in a folder by name, also what is packed into scenes and images."""
    found = {}
    for file in sorted(folder.rglob("*")):
        if not file.is_file():
            continue
        found[file.name] = file.read_bytes()
        if file.suffix == ".mrb":
            with zipfile.ZipFile(io.BytesIO(found[file.name])) as archive:
                found |= {f"{file.name}: {name}": archive.read(name) + name.encode() for name in archive.namelist()}
    return found


def telling(folder: Path, *secrets: str) -> list[str]:
    """Names of the files in which a secret stands."""
    return [name for name, content in written(folder).items() if any(s.encode() in content for s in secrets)]


def test_maps_and_their_scene_do_not_tell_whose_they_are(tmp_path: Path, slicer: ModuleType) -> None:
    inputs = acquire(spectrum_protocol(count=15)).write(tmp_path / PATIENT)
    signal = inputs / f"{PATIENT}_z.nii.gz"
    (inputs / "signal.nii.gz").rename(signal)
    arguments = [*fit_arguments(inputs, tmp_path / "out", "mtrasym", signal=signal), "--scene"]
    assert cestquant([*arguments, "--anonymous"]) == 0
    assert telling(tmp_path / "out", PATIENT, str(tmp_path)) == []
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    signal_entry = next(entry for entry in report["inputs"] if entry["role"] == "signal")
    assert signal_entry["path"] == "file1.nii.gz"
    assert len(signal_entry["sha256"]) == 64
    assert report["settings"]["method"] == "mtrasym"

    assert cestquant(arguments[:-1]) == 0  # without the option everything is told, as before
    assert "report.json" in telling(tmp_path / "out", PATIENT)


@pytest.mark.parametrize("names", [("Kim", "Li", "kim"), (PATIENT,) * 3, ("Ng_z", "Ng_mask", "Ng_rois")])
def test_a_scene_tells_neither_short_names_nor_those_that_slicer_gives(
    names: tuple[str, str, str], tmp_path: Path, slicer: ModuleType
) -> None:
    """Slicer calls storage nodes after the files they read, and numbers the nodes of files of the same name."""
    acquisition = acquire(spectrum_protocol(count=15))
    inputs = acquisition.write(tmp_path / "visit")
    signal, mask = (inputs / f"{name}.nii.gz" for name in names[:2])
    (inputs / "signal.nii.gz").rename(signal)
    if mask == signal:
        mask = inputs / "mask" / mask.name
        mask.parent.mkdir()
    (inputs / "mask.nii.gz").rename(mask)
    regions = {"tumour": np.ones(acquisition.geometry.shape, bool)}
    segmentation = write_node(
        add_segmentation(regions, acquisition.geometry, "regions"), inputs / f"{names[2]}.seg.nrrd"
    )
    slicer.mrmlScene.Clear(0)
    changes = {"mask": mask, "segmentation": segmentation, "scene": True, "anonymous": True}
    assert cestquant(fit_arguments(inputs, tmp_path / "out", "mtrasym", signal=signal, **changes)) == 0
    with zipfile.ZipFile(tmp_path / "out" / "scene.mrb") as archive:
        scene = next(archive.read(name).decode() for name in archive.namelist() if name.endswith(".mrml"))
        assert 'name="file1' in scene
        for text in (scene, *archive.namelist(), (tmp_path / "out" / "report.json").read_text()):
            assert re.findall(rf"(?<![A-Za-z])(?:{'|'.join(names)})(?![A-Za-z])", text) == []


def test_options_with_choices_stay_where_a_file_is_called_like_their_value(tmp_path: Path, slicer: ModuleType) -> None:
    """So that 'cestquant compartments' takes the maps with their report."""
    inputs = acquire(spectrum_protocol(count=15)).write(tmp_path / PATIENT)
    for name, new in (("protocol.json", "mtrasym.json"), ("mask.nii.gz", "mean.nii.gz"), ("m0.nii.gz", "auto.nii.gz")):
        (inputs / name).rename(inputs / new)
    files = {"protocol": inputs / "mtrasym.json", "mask": inputs / "mean.nii.gz", "reference": inputs / "auto.nii.gz"}
    arguments = fit_arguments(inputs, tmp_path / "out", "mtrasym", **files, m0_over_time="mean", anonymous=True)
    assert cestquant(arguments) == 0
    settings = json.loads((tmp_path / "out" / "report.json").read_text())["settings"]
    assert [settings[name] for name in ("method", "m0_over_time", "device")] == ["mtrasym", "mean", "auto"]
    assert [settings[name] for name in ("protocol", "mask")] == ["file2.json", "file5.nii.gz"]
    assert telling(tmp_path / "out", PATIENT, str(tmp_path)) == []


def test_maps_and_pools_keep_their_names_where_a_file_is_called_like_a_pool(
    tmp_path: Path, slicer: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    inputs = acquire(spectrum_protocol(count=31)).write(tmp_path / PATIENT)
    (inputs / "m0.nii.gz").rename(inputs / "amide.nii.gz")
    (inputs / "signal.nii.gz").rename(inputs / f"{PATIENT} amide.nii.gz")
    files = {"signal": inputs / f"{PATIENT} amide.nii.gz", "reference": inputs / "amide.nii.gz"}
    arguments = fit_arguments(inputs, tmp_path / "out", "lorentzian", **files, lorentzian="3T")
    drawn: list[str] = []
    monkeypatch.setattr(Text, "set_text", keeping_texts(drawn))
    assert cestquant([*arguments, "--scene", "--anonymous"]) == 0
    with zipfile.ZipFile(tmp_path / "out" / "scene.mrb") as archive:
        scene = next(archive.read(name).decode() for name in archive.namelist() if name.endswith(".mrml"))
    for name in ("amide_amplitude", "amide_width_ppm_sd", "noe_amplitude"):
        assert f'name="{name}"' in scene
    assert not any("file3" in text for text in drawn)
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert next(entry["path"] for entry in report["inputs"] if entry["role"] == "reference") == "file3.nii.gz"
    assert telling(tmp_path / "out", PATIENT, str(tmp_path)) == []


@pytest.mark.parametrize("also_in_a_report", [False, True])
def test_maps_that_are_called_after_a_patient_become_numbered_files_in_all_tables(
    also_in_a_report: bool, tmp_path: Path, slicer: ModuleType
) -> None:
    """Only what a report of this program lists, and known quantities of known pools, are words of the program."""
    study = acquire(spectrum_protocol(count=15))
    maps, output = tmp_path / "maps", tmp_path / "out"
    maps.mkdir()
    values = np.ones(study.geometry.shape, np.float32)
    for name in ("amide_amplitude", f"{PATIENT}_amplitude", f"{PATIENT}_amplitude_sd", f"{PATIENT} apt"):
        write_image(values, study.geometry, maps / f"{name}.nii.gz")
    labels = write_image(np.ones(study.geometry.shape, np.uint8), study.geometry, tmp_path / "l.nii.gz")
    if also_in_a_report:  # which has other maps from an earlier run
        listed = {"command": "cestquant fit", "outputs": ["amide_amplitude.nii.gz"]}
        (maps / "report.json").write_text(json.dumps(listed))
    arguments = ["compartments", "--maps", maps, "--segmentation", labels, "--labels", "1=core", "--output", output]
    assert cestquant([*map(str, arguments), "--no-spectra", "--scene", "--anonymous"]) == 0
    assert telling(output, PATIENT, str(tmp_path)) == []
    with open(output / "compartments.csv", newline="") as file:
        quantities = {row["quantity"] for row in csv.DictReader(file)}
    assert quantities == {"amide_amplitude", *([] if also_in_a_report else ["file4", "file5"])}


def test_maps_that_a_report_lists_keep_the_names_of_their_pools(tmp_path: Path, slicer: ModuleType) -> None:
    study = acquire(spectrum_protocol(count=15))
    maps, output = tmp_path / "maps", tmp_path / "out"
    maps.mkdir()
    write_image(np.ones(study.geometry.shape, np.float32), study.geometry, maps / "my_pool_fraction.nii.gz")
    (maps / "report.json").write_text('{"command": "cestquant fit", "outputs": ["my_pool_fraction.nii.gz"]}')
    labels = write_image(np.ones(study.geometry.shape, np.uint8), study.geometry, tmp_path / "my_pool.nii.gz")
    arguments = ["compartments", "--maps", maps, "--segmentation", labels, "--labels", "1=core", "--output", output]
    assert cestquant([*map(str, arguments), "--no-spectra", "--anonymous"]) == 0
    assert "my_pool_fraction" in (output / "compartments.csv").read_text()


def keeping_texts(kept: list[str]) -> Callable[[Text, str], None]:
    """How a text of a picture is set, which is kept in a list as well."""
    set_text = Text.set_text

    def keep(text: Text, content: str) -> None:
        kept.append(str(content))
        set_text(text, content)

    return keep


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("mtrasym", "mtrasym"),
        ("file of mtrasym", "file of mtrasym"),
        ("amide_amplitude_sd is high", "amide_amplitude_sd is high"),
        ("the line of amide", "the line of amide"),
        ("amide_1", "file2_1"),  # as Slicer calls the second node of this name
        ("amide Jane", "file3"),
        ("'amide.nii.gz' is damaged", "'file2.nii.gz' is damaged"),
        ("the inverse of moving_t1_position.tfm", "the inverse of moving_t1_position.tfm"),
        ("moving_t1_1", "file4_1"),
    ],
)
def test_words_of_the_program_stay_and_names_of_files_do_not(text: str, expected: str) -> None:
    replace = Replacements(["mtrasym.json", "amide.nii.gz", "amide Jane.nii.gz", "moving_t1.nii.gz"])
    replace.keep(["mtrasym", "amide", "amide_amplitude_sd", "moving_t1_position.tfm"])
    assert replace(text) == expected


def test_images_that_are_carried_along_are_written_without_their_names(tmp_path: Path, slicer: ModuleType) -> None:
    study = HeadStudy.of("LPS").write(tmp_path / "visit")
    (study / "labels.nii.gz").rename(study / f"{PATIENT}.nii.gz")
    images = ["-", "-", "-", str(study / "flair.nii.gz")]
    computing = ["--weights", "none", "--affine", "none", "--refine", "0", "--carry", str(study / f"{PATIENT}.nii.gz")]
    arguments = ["apply", "--fixed", *images, "--moving", *images, *computing, "--output", str(tmp_path / "out")]
    assert jointregseg([*arguments, "--anonymous"]) == 0
    assert telling(tmp_path / "out", PATIENT) == []
    carried = [file.name for file in (tmp_path / "out").iterdir() if file.name.endswith("_on_fixed.nii.gz")]
    assert len(carried) == 1
    assert carried[0].startswith("file")


def test_a_segmentation_does_not_tell_whose_it_is(tmp_path: Path, slicer: ModuleType) -> None:
    folder = tmp_path / PATIENT
    folder.mkdir()
    values = np.random.default_rng(0).normal(100, 10, (12, 12, 12)).astype(np.float32)
    image = sitk.GetImageFromArray(values)
    image.SetSpacing((8.0, 8.0, 8.0))
    sitk.WriteImage(image, str(folder / f"{PATIENT}_t1.nii.gz"))
    mask = sitk.GetImageFromArray(np.ones(values.shape, np.uint8))
    mask.CopyInformation(image)
    sitk.WriteImage(mask, str(folder / "mask.nii.gz"))
    weights = small_weights(folder / f"{PATIENT}.pt", 8.0)
    files = [str(folder / f"{PATIENT}_t1.nii.gz"), "-", "-", "-"]
    arguments = ["--images", *files, "--mask", str(folder / "mask.nii.gz"), "--weights", str(weights)]
    assert jointregseg(["segment", *arguments, "--output", str(tmp_path / "out"), "--no-flips", "--anonymous"]) == 0
    assert telling(tmp_path / "out", PATIENT, str(tmp_path)) == []
    assert json.loads((tmp_path / "out" / "report.json").read_text())["inputs"]


def test_failures_of_a_cohort_do_not_tell_where_it_lies(tmp_path: Path) -> None:
    folder = tmp_path / PATIENT
    folder.mkdir()
    (folder / f"{PATIENT}_flair.nii.gz").write_bytes(b"no image")
    (folder / "cohort.csv").write_text(f"subject,flair\nA,{PATIENT}_flair.nii.gz\n")
    arguments = ["--manifest", str(folder / "cohort.csv"), "--weights", "none", "--output", str(tmp_path / "out")]
    assert jointregseg(["evaluate", *arguments, "--no-pictures", "--anonymous"]) == 1
    assert telling(tmp_path / "out", PATIENT, str(tmp_path)) == []
    with open(tmp_path / "out" / "cases.csv") as file:
        assert next(csv.DictReader(file))["error"].startswith("'file.nii.gz'")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("'/data/Doe/z.nii.gz' is truncated", "'file1.nii.gz' is truncated"),
        ("the map of '/home/jane/b0.nii' is empty", "the map of 'file.nii' is empty"),
        ("z_of_Jane", "file1"),
        ("'z_of_Jane' has no reference", "'file1' has no reference"),
        ("C:\\Users\\jane\\m0.nii.gz", "file.nii.gz"),
        ("rates in rad/s/uT and 1/s", "rates in rad/s/uT and 1/s"),
        ("https://github.com/a/b.html", "https://github.com/a/b.html"),
        ("mtrasym", "mtrasym"),
        ("T1 and mask", "T1 and mask"),
        ("z_of_Jane_1", "file1_1"),
        ("z_of_Jane_Storage", "file1_Storage"),
    ],
)
def test_paths_and_names_from_them_are_replaced_and_nothing_else(text: str, expected: str) -> None:
    replace = Replacements(["fit", "--signal", "/data/Doe/z.nii.gz", "--mask", "/data/Doe/mask.nii.gz"])
    of_name = Replacements(["--signal", "z_of_Jane.nii.gz", "--method", "mtrasym"])
    assert (of_name if "Jane" in text else replace)(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Kim", "file1"),
        ("Kim mtrasym", "file1 mtrasym"),
        ("the signal Kim has no M0", "the signal file1 has no M0"),
        ("an", "file2"),
        ("an_1", "file2_1"),
        ("the region of 'an'", "the region of 'file2'"),
        ("without an M0 image", "without an M0 image"),
        ("3 T and 12 s at b1_uT", "3 T and 12 s at b1_uT"),
        ("19600101 mtrasym", "file6 mtrasym"),
    ],
)
def test_short_names_are_replaced_but_not_words_units_and_numbers(text: str, expected: str) -> None:
    assert (
        Replacements(["Kim.nii.gz", "an.nii.gz", "T.nii.gz", "12.nii.gz", "b1.nii.gz", "19600101.nii.gz"])(text)
        == expected
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("study/DOE_JANE/sub/DOE_z.nii.gz is damaged", "file1.nii.gz is damaged"),
        ("'study/DOE_JANE/DOE Z.dcm' is no image", "'file1.dcm' is no image"),
        ("study/DOE_JANE_t1.nii.gz is empty.", "file.nii.gz is empty."),
        ("see ../DOE/z.nii.gz.", "see file.nii.gz."),
        ("~/DOE/z.nii.gz", "file.nii.gz"),
        ("/data/DOE,JANE/z.nii.gz: line 3", "file.nii.gz: line 3"),
        ("/data/O'HARA/z.nii.gz", "file.nii.gz"),
        ("'/data/O'HARA/z.nii.gz' is empty", "'file.nii.gz' is empty"),
        ("'/data/DOE JANE.nii.gz' is empty", "'file.nii.gz' is empty"),
        ("/data/DOE:1/z.DOE.dcm", "file.dcm"),
        ("'a' and/or 'b' in 1/s, see docs", "'a' and/or 'b' in 1/s, see docs"),
    ],
)
def test_nothing_is_left_of_a_path(text: str, expected: str) -> None:
    assert Replacements(["import", "study/DOE_JANE", "--output=out"])(text) == expected


def test_files_that_were_read_are_told_apart() -> None:
    """They are no arguments where a folder is given."""
    replace = Replacements(["import", "data/study"])
    replace.learn("data/study/DOE/1.dcm")
    replace.learn("data/study/DOE/DOE_2.dcm")
    replace.learn("data/study/DOE/method")
    assert [replace(text) for text in ("data/study/DOE/1.dcm", "data/study/DOE/DOE_2.dcm")] == [
        "file2.dcm",
        "file3.dcm",
    ]
    assert replace("DOE_2.dcm has no image") == "file3.dcm has no image"
    replace.learn("data/study/DOE/OTHER DOE_2.dcm")
    assert replace("OTHER DOE_2.dcm") == "file5.dcm"
    assert replace("the method says no offsets") == "the method says no offsets"


@pytest.mark.parametrize("relative", [True, False])
@pytest.mark.parametrize("below", [True, False])
def test_an_import_does_not_tell_whose_scan_it_is(
    relative: bool, below: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, slicer: ModuleType
) -> None:
    """Scanners and archives name folders and files after the patient."""
    folder = tmp_path / "incoming" / "DOE_JANE"
    write_classic(folder, np.arange(3 * 2 * 4 * 5).reshape(3, 2, 4, 5) + 10)
    for number, file in enumerate(sorted(folder.iterdir())):
        file.rename(folder / f"DOE_JANE_19600101_{number}.dcm")
    (folder / "offsets.txt").write_text("-300\n3.5\n-3.5\n")
    monkeypatch.chdir(tmp_path)
    source = folder if not below else folder.parent
    given = str(source.relative_to(tmp_path)) if relative else str(source)
    assert cestquant(["import", given, "--output", "out", "--anonymous"]) == 0
    assert telling(tmp_path / "out", "DOE", str(tmp_path)) == []
    inputs = json.loads((tmp_path / "out" / "report.json").read_text())["inputs"]
    assert {entry["role"] for entry in inputs} == {"dicom", "offsets"}
    assert len({entry["path"] for entry in inputs}) == len(inputs)


def test_texts_stay_as_they_are_without_the_option() -> None:
    assert written_as.get()("/data/Doe/z.nii.gz") == "/data/Doe/z.nii.gz"
