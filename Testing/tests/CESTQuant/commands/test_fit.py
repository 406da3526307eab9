"""Every method through the command, on small simulated acquisitions: names and values of its maps."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from geometries import GRIDS
from studies import (
    Acquisition,
    acquire,
    amine_model,
    fit,
    fit_arguments,
    messages,
    pairs_protocol,
    read_image,
    spectrum_protocol,
    spread,
    write_json,
)

from CESTQuantLib.batch import main
from CESTQuantLib.physics.protocol import Protocol

FIELDS = {"b0", "b1", "t1"}


def maps_in(folder: Path) -> set[str]:
    return {file.name.removesuffix(".nii.gz") for file in folder.glob("*.nii.gz")}


def with_errors(*names: str) -> set[str]:
    return {name + end for name in names for end in ("", "_sd")}


def test_mtrasym_at_several_offsets(quantified: Callable, acquisition: Acquisition, tmp_path: Path) -> None:
    still = acquire(spectrum_protocol(count=21))
    folder = still.write(tmp_path / "in")
    output = quantified(folder, "mtrasym", asymmetry_offset=[1.8, 3], b0=folder / "b0.nii.gz")
    assert maps_in(output) == {"mtr_asym_1.8ppm", "mtr_asym_3ppm", "status"}
    z, offsets = still.signal / still.m0, still.protocol.offsets_ppm.numpy()
    for offset in (1.8, 3.0):
        upfield, downfield = (int(np.abs(offsets - side * offset).argmin()) for side in (-1, 1))
        expected = z[upfield] - z[downfield]
        np.testing.assert_allclose(read_image(output / f"mtr_asym_{offset:g}ppm.nii.gz"), expected, atol=2e-6)
    assert (read_image(output / "status.nii.gz") == 1).all()


def test_mtrasym_estimates_b0_without_a_map(quantified: Callable, tmp_path: Path) -> None:
    folder = acquire(spectrum_protocol(count=41), b0_ppm=0.1).write(tmp_path / "in")
    estimated, given = (quantified(folder, "mtrasym", b0=b0) for b0 in (None, folder / "b0.nii.gz"))
    assert maps_in(estimated) == {"mtr_asym_3.5ppm", "b0_shift_ppm", "status"}
    b0 = read_image(folder / "b0.nii.gz")
    np.testing.assert_allclose(read_image(estimated / "b0_shift_ppm.nii.gz"), b0, atol=0.03)
    asymmetry = [read_image(folder / "mtr_asym_3.5ppm.nii.gz") for folder in (estimated, given)]
    np.testing.assert_allclose(*asymmetry, rtol=0.08)
    assert asymmetry[1].min() > 0.02


POOLS = {
    "baseline": [0.9, 1.0, 1.0],
    "pools": [
        {"name": "water", "amplitude": [0.4, 0.9, 1.0], "width_ppm": [0.5, 2.0, 6.0], "position_ppm": [-1.0, 0.0, 1.0]},
        {"name": "guan", "amplitude": [0.0, 0.05, 0.3], "width_ppm": [0.5, 1.5, 4.0], "offset_from_water_ppm": 2.0},
    ],
}


@pytest.fixture
def lines(tmp_path: Path) -> tuple[Path, dict[str, np.ndarray]]:
    """Return the folder of an acquisition that is a sum of two Lorentzian lines, and its true maps."""
    protocol, grid = spectrum_protocol(count=41), GRIDS["oblique"]
    truth = {
        "water_amplitude": spread(grid.shape, 0.7, 0.9, 1),
        "water_width_ppm": spread(grid.shape, 1.0, 2.0, 2),
        "water_position_ppm": spread(grid.shape, -0.2, 0.2, 3),
        "guan_amplitude": spread(grid.shape, 0.03, 0.15, 4),
        "guan_width_ppm": spread(grid.shape, 1.0, 1.8, 5),
    }
    truth["guan_position_ppm"] = truth["water_position_ppm"] + 2.0
    offsets = protocol.offsets_ppm.numpy()[:, None, None, None]
    z = np.full((41, *grid.shape), 0.98)
    truth["baseline"] = z[0]
    z = z - line(truth, "water", offsets) - line(truth, "guan", offsets)
    m0, t1 = spread(grid.shape, 600, 900, 6), spread(grid.shape, 1.0, 3.0, 7)
    acquisition = Acquisition(grid, protocol, (z * m0).astype(np.float32), m0.astype(np.float32), {"t1": t1}, truth)
    write_json(POOLS, acquisition.write(tmp_path / "lines") / "pools.json")
    return tmp_path / "lines", truth | {"t1": t1}


def line(truth: dict[str, np.ndarray], pool: str, offset: np.ndarray) -> np.ndarray:
    quarter = truth[f"{pool}_width_ppm"] ** 2 / 4
    return truth[f"{pool}_amplitude"] * quarter / (quarter + (offset - truth[f"{pool}_position_ppm"]) ** 2)


def test_lorentzian_fit_of_a_pool_description(quantified: Callable, lines: tuple) -> None:
    folder, truth = lines
    output = quantified(folder, "lorentzian", lorentzian=folder / "pools.json")
    names = [f"{p}_{q}" for p in ("water", "guan") for q in ("amplitude", "width_ppm", "position_ppm")]
    assert maps_in(output) == with_errors("baseline", *names) | {"b0_shift_ppm", "rmse", "status"}
    for name in (*names, "baseline"):
        np.testing.assert_allclose(read_image(output / f"{name}.nii.gz"), truth[name], rtol=2e-3, atol=2e-3)
    np.testing.assert_allclose(read_image(output / "b0_shift_ppm.nii.gz"), truth["water_position_ppm"], atol=1e-3)
    assert read_image(output / "rmse.nii.gz").max() < 1e-4
    assert [entry["role"] for entry in json.loads((output / "report.json").read_text())["inputs"]][:2] == [
        "protocol",
        "lorentzian",
    ]


def test_mtr_rex_and_arex_with_a_t1_map(quantified: Callable, lines: tuple) -> None:
    folder, truth = lines
    output = quantified(folder, "mtr-rex", lorentzian=folder / "pools.json", t1=folder / "t1.nii.gz")
    assert maps_in(output) == {"mtr_rex_guan", "mtr_ld_guan", "arex_guan", "b0_shift_ppm", "rmse", "status"}
    reference = truth["baseline"] - line(truth, "water", truth["guan_position_ppm"])
    label = reference - truth["guan_amplitude"]
    rex = 1 / label - 1 / reference
    np.testing.assert_allclose(read_image(output / "mtr_ld_guan.nii.gz"), truth["guan_amplitude"], rtol=2e-3, atol=5e-4)
    np.testing.assert_allclose(read_image(output / "mtr_rex_guan.nii.gz"), rex, rtol=5e-3)
    np.testing.assert_allclose(read_image(output / "arex_guan.nii.gz"), rex / truth["t1"], rtol=5e-3)


@pytest.mark.parametrize(("preset", "pools"), [("3T", ["amide", "noe", "mt"]), ("7T", ["amide", "amine", "noe", "mt"])])
def test_lorentzian_presets(quantified: Callable, good: Path, preset: str, pools: list[str]) -> None:
    output = quantified(good, "lorentzian", lorentzian=preset, b0=good / "b0.nii.gz")
    amplitudes = {name for name in maps_in(output) if name.endswith("_amplitude")}
    assert amplitudes == {f"{pool}_amplitude" for pool in ("water", *pools)}
    assert "b0_shift_ppm" not in maps_in(output)  # given, not estimated
    assert np.median(np.abs(read_image(output / "water_position_ppm.nii.gz"))) < 0.02  # corrected; 0.05 as acquired


AMINE = ("amine_fraction", "amine_exchange_rate_Hz", "amine_concentration_mM")
SLOW = {"engine": "bloch-mcconnell", "amine_k_Hz": (80.0, 250.0), "amine_fraction": (0.0005, 0.002)}


def near_target() -> Protocol:
    """Return a protocol of thirteen offsets around 3 ppm at three powers."""
    offsets = torch.linspace(1.5, 4.5, 13, dtype=torch.float64)
    return Protocol(7.0, offsets.repeat(3), torch.tensor([0.5, 1.0, 2.0]).double().repeat_interleave(13), 8.0)


def two_powers() -> Protocol:
    offsets = torch.linspace(-5, 5, 21, dtype=torch.float64)
    return Protocol(3.0, offsets.repeat(2), torch.tensor([0.8, 2.0]).double().repeat_interleave(21), 3.0)


@pytest.mark.parametrize(
    ("method", "protocol", "accuracy", "maps"),
    [
        ("quesp", pairs_protocol(times_s=(8.0, 12.0)), 0.1, AMINE),
        ("omega-plot", pairs_protocol(times_s=(12.0,)), 0.15, AMINE),
        ("qucesop", near_target(), 0.1, AMINE),
        ("r1rho", two_powers(), 0.05, AMINE),
        ("bloch-mcconnell", two_powers(), 0.001, AMINE),
    ],
)
def test_exchange_methods_recover_fraction_and_rate(
    quantified: Callable, tmp_path: Path, method: str, protocol: Protocol, accuracy: float, maps: tuple[str, ...]
) -> None:
    fields = {} if method in ("quesp", "omega-plot") else {"b0_ppm": 0.1}
    acquisition = acquire(protocol, b1_spread=0.1, **fields, **SLOW)
    folder = acquisition.write(tmp_path / "in")
    write_json(amine_model(T2_s=0.04), folder / "model.json")
    files = {name: folder / f"{name}.nii.gz" for name in FIELDS if name != "b0" or fields}
    output = quantified(folder, method, model=folder / "model.json", **files)
    assert maps_in(output) == with_errors(*maps) | {"rmse", "status"}
    fraction, rate = acquisition.truth["amine.fraction"], acquisition.truth["amine.k_Hz"]
    np.testing.assert_allclose(read_image(output / "amine_fraction.nii.gz"), fraction, rtol=accuracy)
    np.testing.assert_allclose(read_image(output / "amine_exchange_rate_Hz.nii.gz"), rate, rtol=accuracy)
    np.testing.assert_allclose(
        read_image(output / "amine_concentration_mM.nii.gz"), fraction * 110000 / 3, rtol=accuracy
    )
    assert (read_image(output / "status.nii.gz") == 1).all()


def test_fitted_relaxation_is_reported_as_a_rate(quantified: Callable, tmp_path: Path) -> None:
    acquisition = acquire(spectrum_protocol(2.0, count=31), water_T2_s=(0.05, 0.15))
    folder = acquisition.write(tmp_path / "in")
    model = amine_model() | {"water": {"T1_s": {"map": "t1"}, "T2_s": fit(0.08, 0.01, 0.5)}}
    write_json(model, folder / "model.json")
    output = quantified(folder, "bloch-mcconnell", model=folder / "model.json", t1=folder / "t1.nii.gz")
    assert maps_in(output) == with_errors(*AMINE, "water_r2_Hz") | {"rmse", "status"}
    expected = 1 / acquisition.truth["water.T2_s"]
    np.testing.assert_allclose(read_image(output / "water_r2_Hz.nii.gz"), expected, rtol=1e-3)


def test_maps_of_a_model_are_found_beside_the_model_file(quantified: Callable, good: Path, tmp_path: Path) -> None:
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "t1map.nii.gz").write_bytes((good / "t1.nii.gz").read_bytes())
    model = amine_model() | {"water": {"T1_s": {"map": "t1map.nii.gz"}, "T2_s": 0.1}}
    write_json(model, tmp_path / "models" / "model.json")
    files = {"b0": good / "b0.nii.gz"}
    by_file = quantified(good, "r1rho", model=tmp_path / "models/model.json", **files)
    by_name = quantified(good, "r1rho", model=good / "model.json", t1=good / "t1.nii.gz", **files)
    fractions = [read_image(folder / "amine_fraction.nii.gz") for folder in (by_file, by_name)]
    np.testing.assert_array_equal(*fractions)
    inputs = json.loads((by_file / "report.json").read_text())["inputs"]
    assert {"role": "map", "path": str(tmp_path / "models/t1map.nii.gz")}.items() <= inputs[2].items()


WATER = amine_model(fraction=1e-9, k_Hz=1.0)


@pytest.mark.parametrize("command", ["wasabi", "wassr"])
def test_field_maps(slicer: ModuleType, tmp_path: Path, capfd: pytest.CaptureFixture, command: str) -> None:
    offsets = torch.linspace(-2, 2, 31, dtype=torch.float64)
    protocol = Protocol(3.0, offsets, 3.7, 0.005) if command == "wasabi" else Protocol(3.0, offsets, 0.1, 0.5)
    acquisition = acquire(protocol, WATER, b0_ppm=0.3, b1_spread=0.2, amine_fraction=(1e-9, 1e-8), amine_k_Hz=(1, 2))
    folder = acquisition.write(tmp_path / "in")
    arguments = fit_arguments(folder, tmp_path / "out", "-", mask=folder / "mask.nii.gz")
    place = arguments.index("--method")
    assert main([command, *arguments[1:place], *arguments[place + 2 :]]) == 0
    assert messages(capfd.readouterr().err) == []
    names = with_errors("b0_shift_ppm", "b1_relative") | {"rmse"} if command == "wasabi" else {"b0_shift_ppm"}
    assert maps_in(tmp_path / "out") == names | {"status"}
    b0, b1 = acquisition.maps["b0"], acquisition.maps["b1"]
    np.testing.assert_allclose(read_image(tmp_path / "out/b0_shift_ppm.nii.gz"), b0, atol=0.02)
    if command == "wasabi":
        np.testing.assert_allclose(read_image(tmp_path / "out/b1_relative.nii.gz"), b1, rtol=0.02)
    assert json.loads((tmp_path / "out/report.json").read_text())["command"] == f"cestquant {command}"
