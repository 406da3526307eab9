"""``cestquant relaxation``: maps that ``fit`` takes as ``--t1``, and arguments that do not belong together."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from geometries import GRIDS
from studies import acquire, fit_arguments, messages, read_image, spectrum_protocol, spread

from CESTQuantLib.batch import main
from NeuroCESTLib.scene.segmentations import add_segmentation
from NeuroCESTLib.scene.sequences import array_to_sequence
from NeuroCESTLib.scene.volumes import add_volume
from NeuroCESTLib.scene.writing import write_node, write_volume

TIMES_MS = (50, 200, 500, 1000, 2000, 4000)
ANGLES_DEG = (2, 4, 8, 12, 16, 20)
ANGLES = ("--flip-angles-deg", *map(str, ANGLES_DEG))
REPETITION_S = 0.015


@pytest.fixture
def recovery(slicer: ModuleType, tmp_path: Path) -> tuple[Path, np.ndarray]:
    """An inversion-recovery series on the grid of the acquisitions, and its T1."""
    grid = GRIDS["oblique"]
    t1 = spread(grid.shape, 0.8, 2.0, 3)
    times = np.array(TIMES_MS).reshape(-1, 1, 1, 1) / 1e3
    signal = np.abs(100 - 190 * np.exp(-times / t1)).astype(np.float32)
    write_node(array_to_sequence(signal, grid, "ir", range(len(times)), "measurement", ""), tmp_path / "ir.seq.nrrd")
    write_volume(add_volume(np.ones(grid.shape, np.float32), grid, "b1"), tmp_path / "b1.nii.gz")
    return tmp_path / "ir.seq.nrrd", t1


def arguments(signal: Path, output: Path, *more: str) -> list[str]:
    return ["relaxation", "--signal", str(signal), "--output", str(output), *more]


def times() -> list[str]:
    return ["--times-ms", *map(str, TIMES_MS)]


def test_a_t1_map_serves_a_fit_at_once(recovery: tuple[Path, np.ndarray], tmp_path: Path) -> None:
    signal, t1 = recovery
    output = tmp_path / "t1"
    assert main(arguments(signal, output, "--kind", "inversion-recovery", *times())) == 0
    assert {file.name for file in output.iterdir()} == {
        "t1_s.nii.gz",
        "t1_s_sd.nii.gz",
        "rmse.nii.gz",
        "status.nii.gz",
        "report.json",
        "report.png",
    }
    np.testing.assert_allclose(read_image(output / "t1_s.nii.gz"), t1, rtol=1e-4)
    report = json.loads((output / "report.json").read_text())
    assert report["summary"]["medians"]["t1_s"] == pytest.approx(np.median(t1), rel=0.01)
    assert report["summary"]["voxels"]["converged"] == t1.size
    assert report["warnings"] == []
    folder = acquire(spectrum_protocol(count=21)).write(tmp_path / "in")
    maps = tmp_path / "maps"
    assert main(fit_arguments(folder, maps, "mtr-rex", t1=output / "t1_s.nii.gz")) == 0
    assert list(maps.glob("arex_*.nii.gz"))


def test_a_segmentation_is_a_mask(recovery: tuple[Path, np.ndarray], tmp_path: Path) -> None:
    signal, _ = recovery
    grid = GRIDS["oblique"]
    inside = np.zeros(grid.shape, bool)
    inside[1, 1:3, 1:4] = True
    mask = write_node(add_segmentation({"brain": inside}, grid, "mask"), tmp_path / "mask.seg.nrrd")
    more = ("--kind", "inversion-recovery", *times(), "--mask", str(mask))
    assert main(arguments(signal, tmp_path / "t1", *more)) == 0
    np.testing.assert_array_equal(np.isfinite(read_image(tmp_path / "t1" / "t1_s.nii.gz")), inside)


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (TIMES_MS[::-1], ["voxels with a signal have no usable result"]),
        (
            [time / 1e3 for time in TIMES_MS],
            ["the longest is 4 ms", "at the limit of the search (T1 from 20 ms to 10 s)"],
        ),
    ],
)
def test_times_in_another_order_or_unit_are_told(
    recovery: tuple[Path, np.ndarray], tmp_path: Path, given: Sequence[float], told: list[str]
) -> None:
    more = ["--kind", "inversion-recovery", "--times-ms", *map(str, given)]
    assert main(arguments(recovery[0], tmp_path / "t1", *more)) == 0
    found = json.loads((tmp_path / "t1" / "report.json").read_text())["warnings"]
    assert len(found) == len(told)
    assert all(text in sentence for text, sentence in zip(told, found, strict=True))


def relaxation_report(
    folder: Path, signal: np.ndarray, kind: str, *more: str
) -> tuple[list[str], dict[str, float | None]]:
    """Return the warnings and the medians of a run on images (measurement, k, j, i) of the grid of the acquisitions."""
    series = array_to_sequence(signal.astype(np.float32), GRIDS["oblique"], "s", range(len(signal)), "measurement", "")
    path = write_node(series, folder / "series.seq.nrrd")
    assert main(arguments(path, folder / "out", "--kind", kind, *more)) == 0
    report = json.loads((folder / "out" / "report.json").read_text())
    return report["warnings"], report["summary"]["medians"]


def spoiled() -> np.ndarray:
    """Spoiled gradient echoes (flip angle, k, j, i)."""
    angle = np.deg2rad(ANGLES_DEG).reshape(-1, 1, 1, 1)
    decay = np.exp(-REPETITION_S / spread(GRIDS["oblique"].shape, 0.8, 2.0, 3))
    return 1000 * np.sin(angle) * (1 - decay) / (1 - np.cos(angle) * decay)


def test_echo_times_in_seconds_are_told(slicer: ModuleType, tmp_path: Path) -> None:
    echoes_s = np.arange(0.01, 0.09, 0.01)
    shape = GRIDS["oblique"].shape
    signal = 100 * np.exp(-echoes_s.reshape(-1, 1, 1, 1) / spread(shape, 0.03, 0.2, 3))
    told, medians = relaxation_report(tmp_path, signal, "multi-echo", "--times-ms", *map(str, echoes_s))
    count = np.prod(shape)
    assert told == [
        "all times are short (the longest is 0.08 ms): check that they are in ms and not in s",
        f"{count} of {count} voxels with a signal have no usable result (see the status map), {count} of them at the "
        "limit of the search (T2 from 2 ms to 3 s): check mask, kind and the order and unit of the times",
    ]
    assert medians == {"t2_s": None, "t2_s_sd": None, "rmse": None}


def test_a_repetition_time_in_seconds_is_told(slicer: ModuleType, tmp_path: Path) -> None:
    more = [*ANGLES, "--repetition-time-ms", str(REPETITION_S)]
    told, medians = relaxation_report(tmp_path, spoiled(), "variable-flip-angle", *more)
    _, short, at_limit = told
    assert short == "the repetition time is short (0.015 ms): check that it is in ms and not in s"
    assert "at the limit of the search (T1 from 20 ms to 10 s)" in at_limit
    assert "unit of the flip angles and the repetition time" in at_limit
    assert medians["t1_s"] is None


def test_few_voxels_at_the_limit_stay_out_of_the_medians_without_a_warning(slicer: ModuleType, tmp_path: Path) -> None:
    echoes_s = np.arange(0.01, 0.09, 0.01)
    shape, count = GRIDS["oblique"].shape, 11
    t2_s = np.linspace(0.05, 0.1, np.prod(shape)).reshape(shape)
    t2_s.flat[:count] = 50.0
    signal = 100 * np.exp(-echoes_s.reshape(-1, 1, 1, 1) / t2_s)
    told, medians = relaxation_report(tmp_path, signal, "multi-echo", "--times-ms", *map(str, 1e3 * echoes_s))
    assert told == []
    assert medians["t2_s"] == pytest.approx(np.median(t2_s.ravel()[count:]), rel=1e-4)


def test_voxels_that_the_model_does_not_explain_stay_out_of_the_medians(slicer: ModuleType, tmp_path: Path) -> None:
    """Air and moving tissue have no decay, but the search finds some time for them."""
    echoes_s, shape = np.arange(0.01, 0.09, 0.01), GRIDS["oblique"].shape
    signal = 100 * np.exp(-echoes_s.reshape(-1, 1, 1, 1) / np.full(shape, 0.06))
    most = signal[:, :3].shape
    signal[:, :3] = np.abs(np.random.default_rng(1).normal(0, 100, most))
    told, medians = relaxation_report(tmp_path, signal, "multi-echo", "--times-ms", *map(str, 1e3 * echoes_s))
    assert "have no usable result" in told[0]
    assert medians["t2_s"] == pytest.approx(0.06, rel=1e-3)
    assert medians["rmse"] == pytest.approx(0, abs=1e-3)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--kind", "inversion-recovery"], "inversion-recovery needs --times-ms, not --flip-angles-deg"),
        (["--kind", "variable-flip-angle", "--times-ms", "5"], "variable-flip-angle needs --flip-angles-deg"),
        (["--kind", "multi-echo", "--times-ms", "5", "9"], "ir.seq.nrrd' has 6 measurements"),
        (["--kind", "multi-echo", "--times-ms", "0", "1", "2", "3", "4", "5"], "must be positive numbers"),
        (
            ["--kind", "variable-flip-angle", "--flip-angles-deg", "2", "4", "6", "8", "10", "12"],
            "flip angles need the repetition time",
        ),
        (["--kind", "multi-echo", *times(), "--repetition-time-ms", "20"], "uses neither B1 nor a repetition time"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(
    recovery: tuple[Path, np.ndarray], tmp_path: Path, capfd: pytest.CaptureFixture, more: list[str], message: str
) -> None:
    capfd.readouterr()
    assert main(arguments(recovery[0], tmp_path / "out", *more)) == 2
    lines = messages(capfd.readouterr().err)
    assert len(lines) == 1
    assert message in lines[0]
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("value", [0.0, np.nan])
def test_a_series_without_a_signal_is_named(
    recovery: tuple[Path, np.ndarray], tmp_path: Path, capfd: pytest.CaptureFixture, value: float
) -> None:
    grid = GRIDS["oblique"]
    nothing = np.full((len(TIMES_MS), *grid.shape), value, np.float32)
    series = array_to_sequence(nothing, grid, "empty", range(len(TIMES_MS)), "measurement", "")
    path = write_node(series, tmp_path / "empty.seq.nrrd")
    assert main(arguments(path, tmp_path / "out", "--kind", "inversion-recovery", *times())) == 2
    (line,) = messages(capfd.readouterr().err)
    assert "empty.seq.nrrd' has no voxel with a signal: check the file and its scaling" in line


def test_flip_angles_without_b1_are_told(recovery: tuple[Path, np.ndarray], tmp_path: Path) -> None:
    more = [*ANGLES, "--repetition-time-ms", str(1e3 * REPETITION_S)]
    (told,), _ = relaxation_report(tmp_path, spoiled(), "variable-flip-angle", *more)
    assert "no B1 map is given" in told
    told, _ = relaxation_report(tmp_path, spoiled(), "variable-flip-angle", *more, "--b1", str(tmp_path / "b1.nii.gz"))
    assert told == []
