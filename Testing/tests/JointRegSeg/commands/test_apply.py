"""``jointregseg apply`` as users start it: files in, and either all result files or none."""

from __future__ import annotations

import csv
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import SimpleITK as sitk
from joint_studies import HeadStudy, by_node, by_sitk, points_in_head, registration_error, small_weights
from paths import ROOT
from studies import checksums, messages

from JointRegSegLib.batch import main
from JointRegSegLib.registration.similarity import SIMILARITIES
from NeuroCESTLib.scene.geometry import Geometry

BATCH = ROOT / "JointRegSeg" / "JointRegSegLib" / "batch.py"
MODALITIES = ("t1", "flair")


@pytest.fixture(scope="module")
def visits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with two visits as files, on grids of different handedness, and small weights."""
    folder = tmp_path_factory.mktemp("visits")
    HeadStudy.of("left-handed oblique").write(folder / "first")
    HeadStudy.of("LPS", second=True).write(folder / "second")
    small_weights(folder / "small.pt")
    return folder


def arguments(visits: Path, output: Path, **changes: object) -> list[str]:
    """Arguments of ``jointregseg apply``; None leaves an option out, True makes a flag."""
    options = {
        which: [str(visits / folder / f"{m}.nii.gz") if m in MODALITIES else "-" for m in ("t1", "t1ce", "t2", "flair")]
        for which, folder in (("fixed", "first"), ("moving", "second"))
    }
    options |= {
        "weights": visits / "small.pt",
        "refine": 5,
        "affine": "none",
        "no_flips": True,
        "device": "cpu",
        "output": output,
    }
    words = ["apply"]
    for name, value in (options | changes).items():
        if value is not None:
            words.append("--" + name.replace("_", "-"))
            words += [str(item) for item in (value if isinstance(value, list) else [value]) if item is not True]
    return words


@pytest.fixture(scope="module")
def applied(visits: Path, slicer_host: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Output of a run that writes everything, the scene included."""
    slicer_host.mrmlScene.Clear(0)
    output = tmp_path_factory.mktemp("out") / "result"
    changes = {
        "no_flips": None,
        "scene": True,
        "carry": [visits / "second" / "labels.nii.gz"],
        "affine": "rigid",
        "similarity": "mse",
        "fixed_mask": visits / "first" / "brain.nii.gz",
    }
    before = checksums(visits)
    assert main(arguments(visits, output, **changes)) == 0
    assert checksums(visits) == before
    slicer_host.mrmlScene.Clear(0)
    return output


def read(path: Path) -> sitk.Image:
    return sitk.ReadImage(str(path))


def test_every_file_of_the_contract_is_written(applied: Path) -> None:
    assert {file.name for file in applied.iterdir()} == {
        "fixed_segmentation.seg.nrrd",
        "moving_segmentation.seg.nrrd",
        "moving_segmentation_on_fixed.seg.nrrd",
        "moving_to_fixed.h5",
        "fixed_to_moving.h5",
        "warped_t1.nii.gz",
        "warped_flair.nii.gz",
        "jacobian.nii.gz",
        "fixed_uncertainty.nii.gz",
        "moving_uncertainty.nii.gz",
        "labels_on_fixed.nii.gz",
        "volumes.csv",
        "changes.csv",
        "lesions.csv",
        "report.json",
        "report.png",
        "scene.mrb",
    }


def test_outputs_lie_on_the_voxels_of_the_inputs_left_handed_or_not(applied: Path, visits: Path) -> None:
    grids = {which: Geometry.from_sitk(read(visits / which / "t1.nii.gz")) for which in ("first", "second")}
    on_fixed = (
        "warped_t1.nii.gz",
        "jacobian.nii.gz",
        "fixed_uncertainty.nii.gz",
        "fixed_segmentation.seg.nrrd",
        "moving_segmentation_on_fixed.seg.nrrd",
        "labels_on_fixed.nii.gz",
    )
    for name in on_fixed:
        assert grids["first"].difference(Geometry.from_sitk(read(applied / name))) == "", name
    for name in ("moving_segmentation.seg.nrrd", "moving_uncertainty.nii.gz"):
        assert grids["second"].difference(Geometry.from_sitk(read(applied / name))) == "", name


def test_the_transform_file_resamples_the_moving_image_onto_the_fixed_one(applied: Path, visits: Path) -> None:
    fixed, moving = (read(visits / which / "t1.nii.gz") for which in ("first", "second"))
    transform = sitk.ReadTransform(str(applied / "moving_to_fixed.h5"))
    resampled = sitk.GetArrayFromImage(sitk.Resample(moving, fixed, transform, sitk.sitkLinear, 0.0))
    np.testing.assert_allclose(sitk.GetArrayFromImage(read(applied / "warped_t1.nii.gz")), resampled, atol=1e-3)
    points = points_in_head()
    mapped = by_sitk(transform, points)
    assert registration_error(points, mapped) < 0.5 * registration_error(points, points)
    back = sitk.ReadTransform(str(applied / "fixed_to_moving.h5"))
    assert np.percentile(np.linalg.norm(by_sitk(back, mapped) - points, axis=1), 90) < 0.4


def test_slicer_reads_transforms_and_scene_as_they_were_written(applied: Path, slicer: ModuleType) -> None:
    points = points_in_head(100)
    for name in ("moving_to_fixed", "fixed_to_moving"):
        transform = sitk.ReadTransform(str(applied / f"{name}.h5"))
        node = slicer.util.loadTransform(str(applied / f"{name}.h5"))
        np.testing.assert_allclose(by_node(node, points, False), by_sitk(transform, points), atol=0.1)
    transform = sitk.ReadTransform(str(applied / "moving_to_fixed.h5"))
    slicer.mrmlScene.Clear(0)
    slicer.util.loadScene(str(applied / "scene.mrb"))
    node = slicer.util.getNode("moving to fixed")
    np.testing.assert_allclose(by_node(node, points, False), by_sitk(transform, points), atol=0.1)
    segmentation = slicer.util.getNode("fixed segmentation").GetSegmentation()
    names = [segmentation.GetNthSegment(i).GetName() for i in range(3)]
    assert names == ["Necrotic core", "Oedema", "Enhancing tumour"]


def test_segmentation_files_hold_classes_with_names_and_codes(applied: Path, slicer: ModuleType) -> None:
    image = read(applied / "fixed_segmentation.seg.nrrd")
    names = {image.GetMetaData(f"Segment{i}_LabelValue"): image.GetMetaData(f"Segment{i}_Name") for i in range(3)}
    assert names == {"1": "Necrotic core", "2": "Oedema", "3": "Enhancing tumour"}
    assert "SCT^79654002^Edema" in image.GetMetaData("Segment1_Tags")
    assert set(np.unique(sitk.GetArrayViewFromImage(image))) <= {0, 1, 2, 3}
    assert image.GetNumberOfComponentsPerPixel() == 1


def test_the_report_records_inputs_settings_and_results(applied: Path, visits: Path) -> None:
    report = json.loads((applied / "report.json").read_text())
    assert report["command"] == "jointregseg apply"
    assert report["settings"]["refine"] == 5
    assert report["settings"]["similarity"] == "mse"
    assert report["summary"]["similarity"] == "mse"
    recorded = {entry["role"]: entry for entry in report["inputs"]}
    assert recorded.keys() == {"fixed t1", "fixed flair", "moving t1", "moving flair", "weights", "fixed mask", "carry"}
    for entry in recorded.values():
        assert entry["sha256"] == hashlib.sha256(Path(entry["path"]).read_bytes()).hexdigest()
    assert report["versions"].keys() >= {"torch", "numpy", "slicer", "neurocest", "SimpleITK"}
    assert report["timings_s"].keys() >= {"reading", "computing", "writing", "total", "network"}
    assert report["device"] == "cpu"
    summary = report["summary"]
    assert summary["folded_fraction"] == 0
    assert summary["local_correlation_after"] >= summary["local_correlation_before"] > 0


def test_volumes_are_those_of_the_segmentations(applied: Path) -> None:
    with open(applied / "volumes.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    for which in ("fixed", "moving"):
        image = read(applied / f"{which}_segmentation.seg.nrrd")
        labels, ml = sitk.GetArrayViewFromImage(image), np.prod(image.GetSpacing()) / 1000
        found = {row["region"]: float(row["volume_ml"]) for row in rows if row["study"] == which}
        assert found["whole_tumor"] == pytest.approx((labels > 0).sum() * ml, rel=1e-3, abs=1e-6)
    with open(applied / "changes.csv", newline="") as file:
        assert {row["region"] for row in csv.DictReader(file)} == {row["region"] for row in rows}


def test_the_picture_is_not_blank(applied: Path) -> None:
    from matplotlib.image import imread

    picture = imread(applied / "report.png")
    assert min(picture.shape[:2]) > 900
    assert picture[..., :3].std() > 0.1


def test_without_matplotlib_only_the_picture_is_missing(
    visits: Path, slicer: ModuleType, tmp_path: Path, capfd: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert main(arguments(visits, tmp_path / "out", weights="none", no_flips=None)) == 0
    assert "warning: report.png is left out: pictures need matplotlib" in capfd.readouterr().err
    assert (tmp_path / "out" / "moving_to_fixed.h5").is_file()
    assert not (tmp_path / "out" / "report.png").exists()


def test_registration_alone_writes_no_segmentations(
    visits: Path, slicer: ModuleType, tmp_path: Path, capfd: pytest.CaptureFixture
) -> None:
    images = {which: [visits / folder / "t1.nii.gz"] for which, folder in (("fixed", "first"), ("moving", "second"))}
    assert main(arguments(visits, tmp_path / "out", weights="none", refine=0, **images)) == 0
    assert {file.name for file in (tmp_path / "out").iterdir()} == {
        "moving_to_fixed.h5",
        "fixed_to_moving.h5",
        "warped_t1.nii.gz",
        "jacobian.nii.gz",
        "report.json",
        "report.png",
    }
    assert [line for line in messages(capfd.readouterr().err) if not line.startswith(("warning: ", "verdict: "))] == []
    jacobian = sitk.GetArrayFromImage(read(tmp_path / "out" / "jacobian.nii.gz"))
    np.testing.assert_allclose(jacobian, 1.0, atol=1e-3)


def _missing(visits: Path, tmp_path: Path) -> dict:
    return {"fixed": ["-", tmp_path / "absent.nii.gz"]}


def _no_image(visits: Path, tmp_path: Path) -> dict:
    (tmp_path / "text.nii.gz").write_text("hello")
    return {"moving": [tmp_path / "text.nii.gz"]}


def _truncated(visits: Path, tmp_path: Path) -> dict:
    whole = (visits / "first" / "t1.nii.gz").read_bytes()
    (tmp_path / "half.nii.gz").write_bytes(whole[: len(whole) // 2])
    return {"fixed": [tmp_path / "half.nii.gz"]}


def _five(visits: Path, tmp_path: Path) -> dict:
    return {"fixed": [visits / "first" / "t1.nii.gz"] * 5}


def _twice(visits: Path, tmp_path: Path) -> dict:
    return {"moving": [visits / "first" / "t1.nii.gz"] * 2}


def _none_common(visits: Path, tmp_path: Path) -> dict:
    return {"fixed": [visits / "first" / "t1.nii.gz"], "moving": ["-", "-", "-", visits / "second" / "flair.nii.gz"]}


def _foreign_labels(visits: Path, tmp_path: Path) -> dict:
    image = read(visits / "first" / "labels.nii.gz") * 5
    sitk.WriteImage(image, str(tmp_path / "labels.nii.gz"))
    return {"fixed_tumor": tmp_path / "labels.nii.gz"}


def _empty_mask(visits: Path, tmp_path: Path) -> dict:
    sitk.WriteImage(read(visits / "first" / "brain.nii.gz") * 0, str(tmp_path / "mask.nii.gz"))
    return {"fixed_mask": tmp_path / "mask.nii.gz"}


def _changed(change: Callable[[np.ndarray], np.ndarray]) -> Callable[[Path, Path], dict]:
    """A usable T1 image, and a FLAIR image with changed voxels."""

    def damage(visits: Path, tmp_path: Path) -> dict:
        good = read(visits / "first" / "flair.nii.gz")
        image = sitk.GetImageFromArray(change(sitk.GetArrayFromImage(good).astype(np.float32)))
        image.CopyInformation(good[tuple(slice(0, n) for n in image.GetSize())])
        sitk.WriteImage(image, str(tmp_path / "bad.nii.gz"))
        return {"fixed": [visits / "first" / "t1.nii.gz", "-", "-", tmp_path / "bad.nii.gz"]}

    return damage


def _far_away(visits: Path, tmp_path: Path) -> dict:
    image = read(visits / "first" / "flair.nii.gz")
    image.SetOrigin((900.0, 900.0, 900.0))
    sitk.WriteImage(image, str(tmp_path / "bad.nii.gz"))
    return {"fixed": [visits / "first" / "t1.nii.gz", "-", "-", tmp_path / "bad.nii.gz"]}


def _mask_far_away(visits: Path, tmp_path: Path) -> dict:
    image = read(visits / "first" / "brain.nii.gz")
    image.SetOrigin((900.0, 900.0, 900.0))
    sitk.WriteImage(image, str(tmp_path / "mask.nii.gz"))
    return {"fixed_mask": tmp_path / "mask.nii.gz"}


def _sheared(visits: Path, tmp_path: Path) -> Path:
    """An image whose axes are not perpendicular."""
    image = sitk.GetImageFromArray(sitk.GetArrayFromImage(read(visits / "second" / "t1.nii.gz")))
    image.SetSpacing((5.0, 5.0, 5.0))
    sitk.WriteImage(image, str(tmp_path / "bad.nrrd"))
    content = (tmp_path / "bad.nrrd").read_bytes()
    assert content.count(b"(0,5,0)") == 1
    (tmp_path / "bad.nrrd").write_bytes(content.replace(b"(0,5,0)", b"(1,5,0)"))
    return tmp_path / "bad.nrrd"


def _malicious(visits: Path, tmp_path: Path) -> dict:
    import pickle

    class Harm:
        def __reduce__(self) -> tuple:
            return os.system, (f"touch {tmp_path / 'harm'}",)

    (tmp_path / "bad.pt").write_bytes(pickle.dumps(Harm()))
    return {"weights": tmp_path / "bad.pt"}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (_missing, "file not found: '{folder}/absent.nii.gz'"),
        (_no_image, "'{folder}/text.nii.gz' is not an image"),
        (_truncated, "half.nii.gz' is truncated"),
        (_five, "--fixed has 5 files; give at most 4, in the order T1 T1CE T2 FLAIR"),
        (_twice, "--moving has '{visits}/first/t1.nii.gz' for T1 and for T1ce"),
        (_none_common, "no modality in common"),
        (
            _foreign_labels,
            "tumour segmentation of the fixed study: the label map '{folder}/labels.nii.gz' has the values 5, 10, 15",
        ),
        (
            _empty_mask,
            "the brain mask '{folder}/mask.nii.gz' of the fixed study is empty: leave it out to have one estimated",
        ),
        (
            _changed(np.zeros_like),
            "the flair image '{folder}/bad.nii.gz' of the fixed study is constant (0 everywhere) and shows no anatomy: "
            "choose another image or leave it out",
        ),
        (
            _changed(lambda values: np.full_like(values, np.nan)),
            "the flair image '{folder}/bad.nii.gz' of the fixed study is not finite in 100 % of its voxels: "
            "choose another image or leave it out",
        ),
        (_changed(lambda values: values[:5]), "the flair image '{folder}/bad.nii.gz' of the fixed study is too small"),
        (_changed(lambda values: values[:5]), "voxels and 40 mm; choose another image or leave it out"),
        (
            _far_away,
            "the flair image '{folder}/bad.nii.gz' of the fixed study lies elsewhere in space than "
            "the t1 image '{visits}/first/t1.nii.gz' of the fixed study",
        ),
        (_mask_far_away, "the brain mask '{folder}/mask.nii.gz' of the fixed study lies elsewhere in space than"),
        (
            lambda visits, tmp_path: {"moving": [_sheared(visits, tmp_path)]},
            "the t1 image '{folder}/bad.nrrd' of the moving study has axes that are not perpendicular",
        ),
        (
            lambda visits, tmp_path: {"carry": [_sheared(visits, tmp_path)]},
            "'{folder}/bad.nrrd' has axes that are not perpendicular",
        ),
        (
            lambda visits, tmp_path: {"carry": _far_away(visits, tmp_path)["fixed"][-1:]},
            "'{folder}/bad.nii.gz' lies elsewhere in space than the images of the moving study",
        ),
        (_malicious, "bad.pt'"),
        (lambda visits, tmp_path: {"fixed": ["-", "-"]}, "--fixed has no file"),
        (lambda visits, tmp_path: {"refine": -3}, "--refine is -3"),
        (lambda visits, tmp_path: {"time_limit": -1.0}, "the time limit"),
        (lambda visits, tmp_path: {"regularisation": -1.0}, "regularisation is -1"),
        (lambda visits, tmp_path: {"weights": tmp_path / "no.pt"}, "no.pt'"),
        (lambda visits, tmp_path: {"affine": "cubic"}, "invalid choice: 'cubic'"),
        (lambda visits, tmp_path: {"similarity": "likeness"}, "invalid choice: 'likeness' (choose from"),
    ],
)
def test_unusable_input_gives_one_line_and_writes_nothing(
    visits: Path, slicer: ModuleType, tmp_path: Path, capfd: pytest.CaptureFixture, change: Callable, words: str
) -> None:
    changes = change(visits, tmp_path)
    before = checksums(tmp_path), checksums(visits)
    capfd.readouterr()
    assert main(arguments(visits, tmp_path / "out", **changes)) == 2
    printed = capfd.readouterr()
    lines = messages(printed.err)
    assert (len(lines), printed.out) == (1, ""), printed.err
    assert words.format(folder=tmp_path, visits=visits) in lines[0]
    assert "Traceback" not in lines[0]
    assert (checksums(tmp_path), checksums(visits)) == before
    assert not (tmp_path / "out").exists()


def test_an_input_in_the_place_of_a_result_is_refused_before_anything_is_computed(
    visits: Path, slicer: ModuleType, tmp_path: Path, capfd: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = tmp_path / "out" / "warped_t1.nii.gz"
    image.parent.mkdir()
    shutil.copy(visits / "second" / "t1.nii.gz", image)
    before = checksums(tmp_path)
    monkeypatch.setattr("JointRegSegLib.logic.JointRegSegLogic.process", None)
    assert main(arguments(visits, image.parent, moving=[image])) == 2
    assert f"'{image}' is an input of this run and would be replaced: choose another --output" in capfd.readouterr().err
    assert checksums(tmp_path) == before


def test_a_meaning_of_labels_without_a_label_file_is_told(
    visits: Path, slicer: ModuleType, tmp_path: Path, capfd: pytest.CaptureFixture
) -> None:
    one = {which: [visits / folder / "t1.nii.gz"] for which, folder in (("fixed", "first"), ("moving", "second"))}
    words = arguments(visits, tmp_path / "out", **one, weights="none", refine=0, labels="brats2023")
    assert main(words) == 0
    assert "warning: --labels changes nothing without --fixed-tumor or --moving-tumor" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"similarity": "mse"}, "--similarity changes nothing with --refine 0"),
        (
            {"time_limit": 5, "regulariser": "diffusion", "regularisation": 0.5},
            "--regulariser, --regularisation, --time-limit change nothing with --refine 0",
        ),
        ({}, None),
    ],
)
@pytest.mark.parametrize("several", [False, True])
def test_options_of_a_refinement_that_is_left_out_are_told(
    visits: Path,
    slicer: ModuleType,
    tmp_path: Path,
    capfd: pytest.CaptureFixture,
    options: dict,
    words: str | None,
    several: bool,
) -> None:
    files = [str(visits / which / "t1.nii.gz") for which in ("first", "second")]
    one = {"fixed": None, "moving": None} if several else {"fixed": [files[0]], "moving": [files[1]]}
    command = arguments(visits, tmp_path / "out", **one, weights="none", refine=0, **options)
    command += [word for file in files for word in ("--visit", file)] if several else []
    assert main(command) == 0
    told = [line for line in capfd.readouterr().err.splitlines() if "nothing with --refine 0" in line]
    assert told == ([] if words is None else [f"warning: {words}"])


def test_a_slice_that_is_carried_along_without_a_position_is_told(
    visits: Path, slicer: ModuleType, tmp_path: Path, capfd: pytest.CaptureFixture
) -> None:
    image = sitk.ReadImage(str(visits / "second" / "t1.nii.gz"))
    middle = image.GetSize()[2] // 2
    sitk.WriteImage(image[:, :, middle], str(tmp_path / "flat.nii.gz"))
    sitk.WriteImage(image[:, :, middle + 1 : middle + 2], str(tmp_path / "slice.nii.gz"))
    one = {which: [visits / folder / "t1.nii.gz"] for which, folder in (("fixed", "first"), ("moving", "second"))}
    carried = [tmp_path / "flat.nii.gz", tmp_path / "slice.nii.gz"]
    words = arguments(visits, tmp_path / "out", **one, weights="none", refine=0, carry=carried)
    assert main(words) == 0
    told = capfd.readouterr().err
    assert f"warning: '{tmp_path}/flat.nii.gz' is one slice at exactly 0 mm across it" in told
    assert "slice.nii.gz' is one slice" not in told


def test_help_names_every_option_with_its_unit_or_format(capfd: pytest.CaptureFixture) -> None:
    assert main(["apply", "--help"]) == 0
    text = " ".join(capfd.readouterr().out.split())
    for option in ("--fixed", "--moving", "--fixed-mask", "--moving-mask", "--weights", "--refine", "--scene"):
        assert option in text
    assert "T1 T1CE T2 FLAIR" in text
    unbroken = text.replace("- ", "-")  # words are broken at their hyphens
    for name, measure in SIMILARITIES.items():
        assert f"{name}: {measure.title}, for {measure.suits}".replace("- ", "-") in unbroken


def test_the_file_runs_on_its_own_as_in_the_application(visits: Path, tmp_path: Path) -> None:
    images = {which: [visits / folder / "t1.nii.gz"] for which, folder in (("fixed", "first"), ("moving", "second"))}
    words = arguments(visits, tmp_path / "out", weights="none", refine=0, **images)
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    result = subprocess.run(
        [sys.executable, str(BATCH), *words], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    assert (tmp_path / "out" / "moving_to_fixed.h5").is_file()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_prints_one_line_and_keeps_earlier_results(
    visits: Path, tmp_path: Path, number: signal.Signals
) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "jacobian.nii.gz").write_bytes(b"earlier")
    before = checksums(tmp_path)
    words = arguments(visits, tmp_path / "out", weights="none", refine=1000)
    with subprocess.Popen(
        [sys.executable, str(BATCH), *words], stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        first = process.stderr.readline()  # the first progress: the signal will be handled
        process.send_signal(number)
        process.wait()
        rest = process.stderr.read()
        assert process.stdout.read() == ""
    assert first.strip().startswith("0 %")
    assert messages(rest) == ["cancelled, nothing written"]
    assert process.returncode == 1
    assert checksums(tmp_path) == before
    assert {path.name for path in tmp_path.iterdir()} == {"out"}
