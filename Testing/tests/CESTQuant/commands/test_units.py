"""Acquisitions with files as laboratories have them: units, references, text files and image files of many kinds."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from studies import Acquisition, acquire, read_image, spectrum_protocol, write_image, write_series

from CESTQuantLib.batch import main
from CESTQuantLib.formats.presets import FOLDER

MHZ = 127.7291


@pytest.fixture
def case(slicer: object, shared_data: Callable[[str], Path], tmp_path: Path) -> Callable[..., tuple[Path, dict]]:
    """Function that runs a command on a case of the shared data and returns its folder and report."""

    def run(name: str, command: str, **options: object) -> tuple[Path, dict]:
        folder = shared_data(f"cases/cest/{name}")
        arguments = [command, "--output", str(tmp_path / "out")]
        for option, value in options.items():
            file = folder / str(value)
            arguments += [f"--{option.replace('_', '-')}", str(file if file.exists() else value)]
        assert main(arguments) == 0
        return tmp_path / "out", json.loads((tmp_path / "out" / "report.json").read_text())

    return run


def asymmetry(folder: Path) -> np.ndarray:
    return read_image(folder / "mtr_asym_3.5ppm.nii.gz")


def offsets_file(acquisition: Acquisition, path: Path, factor: float = 1.0) -> Path:
    path.write_text("\n".join(f"{factor * offset:.6f}" for offset in acquisition.protocol.offsets_ppm.tolist()))
    return path


def test_offsets_and_b0_in_hz_give_the_same_map(
    quantified: Callable, refused: Callable, good: Path, acquisition: Acquisition, tmp_path: Path
) -> None:
    right = asymmetry(quantified(good, "mtrasym", b0=good / "b0.nii.gz"))
    b0 = write_image(acquisition.maps["b0"] * MHZ, acquisition.geometry, tmp_path / "b0_hz.nii.gz")
    offsets = offsets_file(acquisition, tmp_path / "o_hz.txt", MHZ)
    told = ("are taken to be in Hz", "is taken to be in Hz")
    found = quantified(good, "mtrasym", told, protocol=offsets, b0=b0, field_strength=3.0)
    np.testing.assert_allclose(asymmetry(found), right, atol=1e-4, equal_nan=True)
    assert "look like Hz, not ppm: give the field strength in T" in refused(protocol=offsets)
    in_ppm = offsets_file(acquisition, tmp_path / "o.txt")
    assert "looks like Hz, not ppm: give the field strength in T" in refused(protocol=in_ppm, b0=b0)


def test_the_report_names_the_m0_measurements(quantified: Callable, acquisition: Acquisition, tmp_path: Path) -> None:
    folder = tmp_path / "study"
    folder.mkdir()
    series = np.concatenate((acquisition.m0[None], acquisition.signal, 0.95 * acquisition.m0[None]))
    write_series(series, acquisition.geometry, folder / "signal.nii.gz")
    offsets = [-300.0, *acquisition.protocol.offsets_ppm.tolist(), 25.0]
    (folder / "protocol.txt").write_text("\n".join(map(str, offsets)))
    files = {"protocol": folder / "protocol.txt", "reference": None}
    output = quantified(folder, "mtrasym", ("only the farthest measurements (-300 ppm) serve as M0",), **files)
    record = json.loads((output / "report.json").read_text())["summary"]["m0"]
    assert record == {"source": "measurements of the signal", "measurements": [1], "offsets_ppm": [-300.0]}
    files["protocol"].write_text("\n".join(map(str, [*offsets[:-1], 300.0])))
    output = quantified(folder, "mtrasym", m0_over_time="mean", **files)
    record = json.loads((output / "report.json").read_text())["summary"]["m0"]
    assert (record["measurements"], record["over_time"]) == ([1, 23], "mean")


def test_an_empty_m0_image_among_several_is_told_and_does_not_count(
    quantified: Callable, good: Path, acquisition: Acquisition, tmp_path: Path
) -> None:
    right = asymmetry(quantified(good, "mtrasym"))
    several = np.stack((acquisition.m0, 0 * acquisition.m0, acquisition.m0))
    reference = write_series(several, acquisition.geometry, tmp_path / "m0.nii.gz")
    output = quantified(good, "mtrasym", ("signal.nii.gz' has no positive value in 120 of 120",), reference=reference)
    np.testing.assert_allclose(asymmetry(output), right, atol=1e-6, equal_nan=True)


def test_a_reference_of_another_scale_is_refused_and_percent_is_converted(
    quantified: Callable, refused: Callable, good: Path, acquisition: Acquisition, tmp_path: Path
) -> None:
    right = asymmetry(quantified(good, "mtrasym"))
    scaled = write_image(acquisition.m0 / 4096, acquisition.geometry, tmp_path / "m0.nii.gz")
    assert "of its M0 image, which has another scale" in refused(reference=scaled)
    assert "set signal_normalisation to 'm0'" in refused(reference=None, normalisation="none")
    percent = write_series(100 * acquisition.signal / acquisition.m0, acquisition.geometry, tmp_path / "z.nii.gz")
    options = {"signal": percent, "reference": None, "normalisation": "none"}
    output = quantified(good, "mtrasym", ("is taken to be in % of M0",), **options)
    np.testing.assert_allclose(asymmetry(output), right, atol=1e-6, equal_nan=True)


def test_many_failed_voxels_are_told(
    quantified: Callable, good: Path, acquisition: Acquisition, tmp_path: Path
) -> None:
    m0 = acquisition.m0.copy()
    m0[0] = 0
    reference = write_image(m0, acquisition.geometry, tmp_path / "m0.nii.gz")
    words = ("30 of 120 voxels with a signal have no usable result (see the status map)",)
    quantified(good, "mtrasym", words, reference=reference)


def test_a_model_in_milliseconds_is_refused(refused: Callable, good: Path, tmp_path: Path) -> None:
    model = json.loads((good / "model.json").read_text())
    model["water"]["T2_s"] = 100.0
    (tmp_path / "model.json").write_text(json.dumps(model))
    line = refused("r1rho", model=tmp_path / "model.json", t1=good / "t1.nii.gz")
    assert "model.json: water.T2_s is 100, which cannot be in s: give it in s, not in ms" in line


def test_a_two_step_preset_and_file_give_all_lines(quantified: Callable, tmp_path: Path) -> None:
    wide = acquire(spectrum_protocol(reach_ppm=12.0, count=49)).write(tmp_path / "wide")
    preset = json.loads((FOLDER / "lorentzian_3T_two_step.json").read_text())
    (tmp_path / "pools.JSON").write_text(json.dumps(preset))
    for pools in ("3T_two_step", tmp_path / "pools.JSON"):
        output = quantified(wide, "lorentzian", lorentzian=pools)
        for pool in ("water", "mt", "amide", "noe"):
            assert np.isfinite(read_image(output / f"{pool}_amplitude.nii.gz")).any()
        quantified(wide, "mtr-rex", lorentzian=pools)


# the cases of the shared data


@pytest.mark.parametrize("reference", [None, "m0.nii.gz"])
def test_case_wrong_m0(case: Callable, reference: str | None) -> None:
    given = {} if reference is None else {"reference": reference}
    output, report = case(
        "wrong_m0", "fit", signal="signal.nii.gz", protocol="offsets.txt", method="lorentzian", **given
    )
    for pool, amplitude in {"amide": 0.05, "noe": 0.06, "mt": 0.15, "water": 0.80}.items():
        np.testing.assert_allclose(read_image(output / f"{pool}_amplitude.nii.gz"), amplitude, atol=0.002)
    assert len(report["warnings"]) == (reference is None)


@pytest.mark.parametrize("protocol", ["o_bom.txt", "p_bom.json", "o_hdr.csv", "o_minus.txt", "p_upper.JSON"])
def test_case_bom_text(case: Callable, protocol: str) -> None:
    files = {"signal": "s.nii.gz", "reference": "m0.nii.gz", "mask": "mask.nii.gz", "b0": "b0.nii.gz"}
    output, report = case("bom_text", "fit", protocol=protocol, method="mtrasym", **files)
    assert report["summary"]["voxels"]["converged"] == 147
    assert report["warnings"] == []
    assert np.nanmedian(asymmetry(output)) == pytest.approx(-0.0281, abs=1e-4)


@pytest.mark.parametrize("signal", ["s_5d.nii.gz", "s_pair.hdr", "s_pair.img"])
def test_case_pair_5d(case: Callable, signal: str) -> None:
    _, report = case("pair_5d", "fit", signal=signal, reference="m0.nii.gz", protocol="o.txt", method="mtrasym")
    assert report["summary"]["voxels"]["converged"] == 147


def test_case_local_minimum_converged(case: Callable) -> None:
    files = {"signal": "signal.nii.gz", "protocol": "protocol.json", "method": "bloch-mcconnell"}
    found = []
    for model in ("model.json", "model_start_10k.json"):
        output, _ = case("local_minimum_converged", "fit", model=model, **files)
        found.append(read_image(output / "a_exchange_rate_Hz.nii.gz"))
    np.testing.assert_allclose(found[0], found[1], rtol=0.02)


def test_case_wasabi_beyond_1ppm(case: Callable) -> None:
    output, _ = case("wasabi_beyond_1ppm", "wasabi", signal="signal.nii.gz", protocol="protocol.json")
    found = np.sort(read_image(output / "b0_shift_ppm.nii.gz").ravel())
    np.testing.assert_allclose(found, [-1.5, -1.3, -1.1, -0.9, 0, 0.9, 1.1, 1.3, 1.5], atol=1e-3)
    assert (read_image(output / "status.nii.gz") == 1).all()


def test_case_wassr_edge(case: Callable) -> None:
    output, _ = case("wassr_edge", "wassr", signal="signal.nii.gz", protocol="offsets.txt")
    found = np.sort(read_image(output / "b0_shift_ppm.nii.gz").ravel())
    np.testing.assert_allclose(found, [0, 0.3, 0.6, 0.7, 0.72, 0.74, 0.76, 0.78, 0.82], atol=2e-3)


@pytest.mark.slow
def test_case_train_range_from_zero(slicer: object, shared_data: Callable[[str], Path], tmp_path: Path) -> None:
    config = shared_data("cases/cest/train_range_from_zero/config.json")
    assert main(["train", str(config), "--output", str(tmp_path / "n.pt")]) == 0


def test_case_r1rho_simulate_silent(
    shared_data: Callable[[str], Path], tmp_path: Path, capfd: pytest.CaptureFixture
) -> None:
    scenario = shared_data("cases/cest/r1rho_simulate_silent/short.json")
    assert main(["simulate", str(scenario), "--engine", "r1rho", "--output", str(tmp_path / "r.csv")]) == 0
    assert "r1rho is off by up to 0.92 in Z (at 0 ppm): use --engine bloch-mcconnell" in capfd.readouterr().err
