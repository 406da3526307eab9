"""Reconstruction by trained networks with uncertainty and reliability, and dictionary matching."""

from __future__ import annotations

import copy
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from training_configs import SCAN_CONFIG, amide_tissue, scan, write_config, write_scan

from CESTQuantLib.batch import main
from CESTQuantLib.fitting.marquardt import Status
from CESTQuantLib.formats.protocol_json import protocol_from_dict
from CESTQuantLib.methods.base import Settings
from CESTQuantLib.methods.registry import quantify
from CESTQuantLib.networks import config as training_config
from CESTQuantLib.networks import reliability
from CESTQuantLib.networks.config import FOLDER, TrainingConfig, config_from_dict
from CESTQuantLib.networks.dataset import simulate_dataset
from CESTQuantLib.networks.dictionary import nearest
from CESTQuantLib.networks.files import NetworkFile, save_network
from CESTQuantLib.networks.fixed_protocol import network_file, train_from_config
from CESTQuantLib.networks.reconstruction import reconstruct, weak_output_warnings
from CESTQuantLib.networks.reliability import back_project, calibrate
from CESTQuantLib.preprocessing.normalization import normalize
from CESTQuantLib.tissue.distributions import TissueDistribution
from CESTQuantLib.tissue.spectra import ZSpectra
from NeuroCESTLib.core.progress import Cancelled

EXTRA_POOL = {
    "name": "other",
    "fraction": {"uniform": [1e-3, 3e-3]},
    "k_Hz": 300,
    "T1_s": 1.0,
    "T2_s": 0.02,
    "dw_ppm": 2.2,
}


@pytest.fixture(scope="module")
def config() -> TrainingConfig:
    return config_from_dict(SCAN_CONFIG)


@pytest.fixture(scope="module")
def file(config) -> NetworkFile:
    return train_from_config(config)[0]


@pytest.fixture(scope="module")
def path(file: NetworkFile, tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(save_network(file, tmp_path_factory.mktemp("network") / "network.pt"))


def spectra(config, signal: torch.Tensor) -> ZSpectra:
    return ZSpectra(signal.double(), config.protocol)


def test_network_recovers_parameters_with_honest_uncertainty(config, file: NetworkFile) -> None:
    signal, truth = scan(config)
    found = reconstruct(file.network, signal)
    for i, (target, correlation) in enumerate((("amide.fraction", 0.97), ("amide.k_Hz", 0.97))):
        true = truth[target].float()
        error = (found.mean[:, i] - true) / found.sd[:, i]
        assert float(torch.corrcoef(torch.stack([found.mean[:, i], true]))[0, 1]) > correlation, target
        assert 0.6 < float((error.abs() < 1).float().mean()) < 0.8, target  # 0.68 for a normal distribution
        assert 0.91 < float((error.abs() < 2).float().mean()) < 0.985, target  # 0.954


def test_network_expects_the_noise_that_is_there(config, file: NetworkFile) -> None:
    found = reconstruct(file.network, scan(config)[0])
    assert float(found.expected_rmse.median()) == pytest.approx(0.002, rel=0.25)


def test_reliability_has_the_stated_rate_of_false_alarms(config, file: NetworkFile) -> None:
    signal, _ = scan(config, 4000)
    found = reconstruct(file.network, signal)
    back = back_project(file, signal, found)
    misfit, rmse = file.calibration.misfit(signal - back.signal, found.expected_rmse), back.rmse
    alarms = float((misfit > file.calibration.threshold).float().mean())
    assert alarms == pytest.approx(file.calibration.false_alarm_rate, abs=0.012)
    assert float(misfit.median()) == pytest.approx(1.0, abs=0.1)
    assert 0.8 * 0.002 < float(rmse.median()) < 1.1 * 0.002


def test_reliability_finds_an_extra_pool_in_the_window(config, file: NetworkFile) -> None:
    tissue = copy.deepcopy(config.tissue)
    tissue["solutes"].append(EXTRA_POOL)
    good, bad = (scan(config, 1000, tissue=t)[0] for t in (config.tissue, tissue))
    found = [reconstruct(file.network, s) for s in (good, bad)]
    misfit = [
        file.calibration.misfit(s - back_project(file, s, f).signal, f.expected_rmse)
        for s, f in zip((good, bad), found, strict=True)
    ]
    wins = (misfit[1][:, None] > misfit[0][None]).float().mean()  # area under the ROC curve
    assert float(wins) > 0.95


def test_method_network_gives_maps_with_uncertainty_and_reliability(config, path: str) -> None:
    signal, truth = scan(config, 300)
    signal[7, 3] = torch.nan
    result = quantify(spectra(config, signal), "network", settings=Settings(network=path))
    for name in ("amide_fraction", "amide_exchange_rate_Hz", "amide_concentration_mM"):
        assert torch.isfinite(result.quantities[name][:7]).all()
        assert (result.quantities[f"{name}_sd"][:7] > 0).all()
        assert torch.isnan(result.quantities[name][7])
    concentration = truth["amide.fraction"] * 110000 / 2
    keep = torch.arange(300) != 7
    error = (result.quantities["amide_concentration_mM"] - concentration)[keep].abs().mean()
    assert float(error) < 0.1 * float(concentration.mean())
    assert set(result.quantities["reliable"][keep].tolist()) <= {0.0, 1.0}
    assert float(result.quantities["reliable"][keep].mean()) > 0.88
    assert (result.status == 5).nonzero().flatten().tolist() == [7]
    assert result.predict(torch.tensor([0, 1])).shape == (2, 20)


def test_known_maps_enter_the_physics_and_their_range_is_checked(config, path: str) -> None:
    signal, truth = scan(config, 300)
    given = spectra(config, signal)
    given = replace(given, b0_shift_ppm=truth["b0_shift_ppm"])
    right = quantify(given, "network", Settings(network=path))
    (warning,) = right.warnings
    assert "maps of b0_shift_ppm change no estimate of the network" in warning
    without = quantify(spectra(config, signal), "network", Settings(network=path))
    assert torch.equal(right.quantities["amide_fraction"], without.quantities["amide_fraction"])
    shifted = replace(given, b0_shift_ppm=truth["b0_shift_ppm"] + 0.5)
    wrong = quantify(shifted, "network", Settings(network=path))
    assert any("b0_shift_ppm" in warning and "trained" in warning for warning in wrong.warnings)
    assert float(wrong.quantities["rmse"].median()) > 2 * float(right.quantities["rmse"].median())


def test_voxels_whose_t1_is_impossible_do_not_stop_the_others(config, path: str) -> None:
    t1_s = torch.tensor([1.5, 0.0, -1.0, torch.nan], dtype=torch.float64)
    result = quantify(replace(spectra(config, scan(config, 4)[0]), t1_s=t1_s), "network", Settings(network=path))
    assert result.status.tolist() == [Status.CONVERGED] + [Status.INVALID_DATA] * 3
    assert result.quantities["amide_fraction"].isnan().tolist() == [False, True, True, True]


@pytest.mark.parametrize("references", [1, 4])
def test_the_noise_of_m0_counts_in_reliability_and_uncertainty(references: int, config, path: str) -> None:
    clean = simulate_dataset(TissueDistribution.from_dict(config.tissue), config.protocol, 4000, seed=99)
    generator = torch.Generator().manual_seed(3)
    raw = clean.clean + 0.002 * torch.randn(clean.clean.shape, generator=generator)
    m0 = 1 + 0.002 * torch.randn(4000, references, generator=generator)
    given = normalize(raw, config.protocol, m0, over_time="mean")
    assert given.reference_noise == 1 / references
    found = quantify(given, "network", Settings(network=path)).quantities
    assert float(1 - found["reliable"].mean()) == pytest.approx(0.05, abs=0.012)
    error = (found["amide_fraction"] - clean.values["amide.fraction"]) / found["amide_fraction_sd"]
    assert 0.93 < float((error.abs() < 2).double().mean()) < 0.975  # 0.954 for a normal distribution


def test_a_single_spectrum_says_that_the_noise_of_m0_is_left_out(config, path: str) -> None:
    one = replace(spectra(config, scan(config, 1)[0]), reference_noise=1.0)
    result = quantify(one, "network", Settings(network=path))
    assert any("single spectrum does not count the noise of M0" in warning for warning in result.warnings)
    assert "reliable" in result.quantities


@pytest.mark.parametrize("given", [("t1_s",), ("t1_s", "b0_shift_ppm")])
def test_known_maps_do_not_raise_the_rate_of_false_alarms(given: tuple[str, ...], config, path: str) -> None:
    signal, truth = scan(config, 4000)
    true = {"t1_s": truth["water.T1_s"], "b0_shift_ppm": truth["b0_shift_ppm"]}
    known = replace(spectra(config, signal), **{name: true[name] for name in given})
    found = quantify(known, "network", Settings(network=path))
    assert 1 - float(found.quantities["reliable"].mean()) == pytest.approx(0.05, abs=0.02)
    assert float(found.quantities["misfit"].median()) == pytest.approx(1.0, abs=0.1)


@pytest.fixture
def calibrations(monkeypatch: pytest.MonkeyPatch) -> list:
    """Known values of every calibration that is made during the test; none is kept from before."""
    made = []

    def counted(*arguments, **options):
        made.append(options["known"])
        return calibrate(*arguments, **options)

    monkeypatch.setattr(reliability, "_CALIBRATIONS", {})
    monkeypatch.setattr(reliability, "calibrate", counted)
    return made


def test_the_calibration_for_known_maps_is_made_once_and_tells_its_progress(config, path: str, calibrations) -> None:
    signal, truth = scan(config, 3)
    with_t1 = replace(spectra(config, signal), t1_s=truth["water.T1_s"])
    told: list[tuple[float, str]] = []
    first = quantify(
        with_t1, "network", Settings(network=path), progress=lambda done, message="": told.append((done, message))
    )
    again = quantify(with_t1, "network", Settings(network=path))
    assert calibrations == [("water.T1_s",)]
    assert again.quantities["misfit"].tolist() == first.quantities["misfit"].tolist()
    calibrating = [done for done, message in told if message.startswith("calibrating the reliability")]
    assert len(calibrating) > 2
    assert calibrating == sorted(calibrating)
    assert 0.8 < calibrating[0] < calibrating[-1] == 1.0


def test_a_calibration_that_is_cancelled_is_not_kept(config, path: str, calibrations) -> None:
    def cancel(done: float, message: str = "") -> None:
        if message.startswith("calibrating"):
            raise Cancelled

    signal, truth = scan(config, 3)
    with_t1 = replace(spectra(config, signal), t1_s=truth["water.T1_s"])
    with pytest.raises(Cancelled):
        quantify(with_t1, "network", Settings(network=path), progress=cancel)
    assert reliability._CALIBRATIONS == {}


def test_a_single_spectrum_with_a_known_map_is_not_worth_a_calibration(config, path: str, calibrations) -> None:
    signal, truth = scan(config, 3)
    single = replace(spectra(config, signal), t1_s=truth["water.T1_s"]).mean_voxel()
    found = quantify(single, "network", Settings(network=path))
    assert calibrations == []
    assert "amide_fraction" in found.quantities
    assert "reliable" not in found.quantities
    assert any("a single spectrum is not judged where water.T1_s is given" in warning for warning in found.warnings)
    assert "reliable" in quantify(replace(single, t1_s=None), "network", Settings(network=path)).quantities


def test_maps_may_give_everything_that_the_network_estimates() -> None:
    tissue = {**amide_tissue(fraction=0.002), "b0_shift_ppm": {"uniform": [-0.1, 0.1]}}
    tissue["water"], tissue["solutes"][0]["k_Hz"] = {"T1_s": 1.5, "T2_s": 0.05}, 100
    config = config_from_dict({**SCAN_CONFIG, "tissue": tissue, "targets": ["b0_shift_ppm"]})
    untrained = network_file(config.new_network(), config, config.noise_sd, 1.0)
    signal, truth = scan(config, 50)
    known = {"b0_shift_ppm": truth["b0_shift_ppm"]}
    back = back_project(untrained, signal, reconstruct(untrained.network, signal), known=known)
    assert float(back.rmse.median()) == pytest.approx(0.002, rel=0.2)


def test_a_signal_of_another_protocol_is_refused(config, path: str) -> None:
    other = config_from_dict(
        {**SCAN_CONFIG, "protocol": {**SCAN_CONFIG["protocol"], "saturation_time_s": 1.0}}
    ).protocol
    with pytest.raises(ValueError, match="saturation_time_s is 2, here 1"):
        quantify(ZSpectra(scan(config, 5)[0], other), "network", settings=Settings(network=path))


@pytest.mark.parametrize("method", ["network", "dictionary"])
def test_m0_measurements_of_a_scan_are_left_out_where_an_m0_image_is_given(
    method: str, config, path: str, tmp_path: Path
) -> None:
    stated = SCAN_CONFIG["protocol"]
    own = {"offsets_ppm": [-300.0, *stated["offsets_ppm"]], "b1_uT": [0.0, *stated["b1_uT"]], "m0_measurements": [1]}
    written = {**SCAN_CONFIG, "samples": 50, "protocol": {**stated, **own}}
    settings = Settings(network=path, config=str(write_config(tmp_path, written)))
    signal, _ = scan(config, 5)
    raw = torch.cat([torch.ones(5, 1), signal], 1)
    whole = protocol_from_dict(written["protocol"])
    found, expected = (
        quantify(normalize(raw, whole, reference), method, settings).quantities["amide_fraction"]
        for reference in (torch.ones(5), None)
    )
    torch.testing.assert_close(found, expected)


def test_methods_say_which_file_they_need(config) -> None:
    given = spectra(config, scan(config, 5)[0])
    with pytest.raises(ValueError, match=r"NETWORK\.pt"):
        quantify(given, "network")
    with pytest.raises(ValueError, match=r"CONFIG\.json"):
        quantify(given, "dictionary")


def test_dictionary_matching_finds_the_entry_itself() -> None:
    entries = torch.rand(40_000, 6, generator=torch.Generator().manual_seed(1))
    index = torch.tensor([0, 5, 20_000, 39_999])
    best, found = nearest(3.7 * entries[index], entries)
    assert found.tolist() == index.tolist()
    assert torch.allclose(best, torch.ones(4), atol=1e-5)


def test_network_is_more_accurate_than_the_dictionary_of_its_own_data(config, path: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(SCAN_CONFIG))
    signal, truth = scan(config, 600)
    settings = Settings(network=path, config=str(tmp_path / "config.json"))
    errors = {}
    for method in ("network", "dictionary"):
        found = quantify(spectra(config, signal), method, settings=settings).quantities
        errors[method] = float((found["amide_exchange_rate_Hz"] - truth["amide.k_Hz"]).abs().mean())
    assert errors["network"] < errors["dictionary"] < 60


def test_fit_command_writes_maps_and_refuses_bad_network_files(
    config, path: str, tmp_path: Path, slicer, capsys: pytest.CaptureFixture
) -> None:
    given, truth = write_scan(tmp_path, config)
    fit = ["fit", *given, "--protocol", str(tmp_path / "protocol.json"), "--method", "network"]
    assert main([*fit, "--network", path, "--output", str(tmp_path / "out")]) == 0
    import SimpleITK as sitk

    names = {file.name for file in (tmp_path / "out").iterdir()}
    assert {
        "amide_fraction.nii.gz",
        "amide_fraction_sd.nii.gz",
        "rmse.nii.gz",
        "reliable.nii.gz",
        "report.json",
        "report.png",
    } <= names
    found = sitk.GetArrayFromImage(sitk.ReadImage(str(tmp_path / "out" / "amide_fraction.nii.gz")))
    assert np.abs(found.ravel() - truth["amide.fraction"].numpy()).mean() < 3e-4
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert {"signal", "protocol", "network"} <= {entry["role"] for entry in report["inputs"]}
    assert report["summary"]["false_alarm_rate"] == 0.05
    (tmp_path / "broken.pt").write_bytes(Path(path).read_bytes()[:5000])
    assert main([*fit, "--network", str(tmp_path / "broken.pt"), "--output", str(tmp_path / "bad")]) == 2
    assert "broken.pt" in capsys.readouterr().err
    assert not (tmp_path / "bad").exists()


def test_fit_command_takes_the_name_of_a_bundled_configuration(
    config, tmp_path: Path, slicer, capsys: pytest.CaptureFixture
) -> None:
    given, _ = write_scan(tmp_path, config)
    fit = ["fit", *given, "--protocol", str(tmp_path / "protocol.json"), "--method", "dictionary"]
    assert main([*fit, "--config", "larginine_9p4T", "--output", str(tmp_path / "out")]) == 2
    line = capsys.readouterr().err.strip().splitlines()[-1]
    assert "simulated for 30 measurements, the signal has 20" in line  # it was read
    preset = json.loads((FOLDER / "larginine_9p4T.json").read_text())
    (tmp_path / "simulated.json").write_text(json.dumps(SCAN_CONFIG["protocol"]))
    (tmp_path / "larginine_9p4T.json").write_text(json.dumps({**preset, "protocol": "simulated.json", "samples": 50}))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training_config, "FOLDER", tmp_path)
        chosen = ["--dictionary-entries", "40", "--threads", "1"]
        assert main([*fit, "--config", "larginine_9p4T", *chosen, "--output", str(tmp_path / "out")]) == 0
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    inputs = {(entry["role"], entry["path"]) for entry in report["inputs"]}
    assert {("config", str(tmp_path / "larginine_9p4T.json")), ("protocol", str(tmp_path / "simulated.json"))} <= inputs
    assert report["summary"]["dictionary_entries"] == 40
    for wrong, message in (("--dictionary-entries", "at least one entry"), ("--threads", "threads must be at least 1")):
        assert main([*fit, "--config", "larginine_9p4T", wrong, "0", "--output", str(tmp_path / "bad")]) == 2
        assert message in capsys.readouterr().err


def test_a_range_that_starts_at_zero_is_trained_and_calibrated() -> None:
    tissue = amide_tissue(k_Hz=(20, 120), fraction={"uniform": [0, 0.004]})
    changes = {"tissue": tissue, "targets": ["amide.fraction"], "samples": 500, "epochs": 1, "noise_sd": 0.004}
    trained, _ = train_from_config(config_from_dict({**SCAN_CONFIG, **changes}))
    assert trained.calibration is not None


def test_a_quantity_that_the_schedule_does_not_determine_is_told() -> None:
    flat = {"amine.fraction correlation": 0.92, "amine.T2_s correlation": 0.17, "amine.T2_s mean absolute error": 0.01}
    (warning,) = weak_output_warnings(flat)
    assert warning.startswith(
        "this schedule does not determine amine.T2_s: for simulated tissues the estimates of the "
    )
    assert "by 0.17 only" in warning
    assert weak_output_warnings({"amine.k_Hz": {"mae": 1.0, "correlation": 0.3}, "b": {"correlation": 0.8}})[
        0
    ].startswith("this schedule does not determine amine.k_Hz")
    (warning,) = weak_output_warnings({"amine.k_Hz correlation": float("nan")})
    assert "the estimates of the network are the same for all true values, so" in warning
    assert weak_output_warnings({}) == []
