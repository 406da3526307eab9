"""MTsat against a sequence that is played out, and ratiometric pH on a phantom of known pH."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from CESTQuantLib.fitting.marquardt import Status
from CESTQuantLib.formats.ph_calibration import PHCalibration
from CESTQuantLib.methods.base import Settings
from CESTQuantLib.methods.registry import quantify, quantity_named
from CESTQuantLib.physics.protocol import Protocol
from CESTQuantLib.tissue.spectra import ZSpectra

TR_S, T1_S, ANGLE_DEG = 0.03, 1.2, 6.0
T1 = torch.tensor([T1_S], dtype=torch.float64)


def gradient_echo(saturation: float, angle_deg: float = ANGLE_DEG) -> float:
    """Longitudinal magnetisation before the excitation after many repetitions, in which a pulse removes a share."""
    z = 1.0
    for _ in range(3000):
        z = 1 - (1 - z * float(torch.cos(torch.deg2rad(torch.tensor(angle_deg))))) * float(torch.exp(-TR_S / T1[0]))
        z *= 1 - saturation
    return z


def protocol(**changes: Any) -> Protocol:
    values: dict[str, Any] = {"readout_flip_angle_deg": ANGLE_DEG, "magnetisation_carried_over": True}
    return Protocol(3.0, [10.0, 10.0], [4.0, 0.0], 0.01, recovery_time_s=TR_S - 0.01, **{**values, **changes})


def test_mtsat_is_the_share_that_the_pulse_removes() -> None:
    z = gradient_echo(0.025) / gradient_echo(0.0)
    study = ZSpectra(torch.tensor([[z, 1.0]]).double(), protocol(), t1_s=T1)
    found = quantify(study, "mtsat")
    assert list(found.quantities) == ["mtsat_10ppm"]
    assert float(found.quantities["mtsat_10ppm"]) == pytest.approx(2.5, rel=1e-5)
    angle = float(torch.deg2rad(torch.tensor(ANGLE_DEG)))
    helms = 100 * (angle**2 / 2 + TR_S / T1_S) * (1 / z - 1)  # small angles and short repetitions
    assert float(found.quantities["mtsat_10ppm"]) == pytest.approx(helms, rel=0.05)
    assert quantity_named("mtsat_10ppm").unit == "%"


def test_repeats_of_mtsat_are_averaged_and_other_powers_have_maps_of_their_own() -> None:
    signal = torch.tensor([[0.30, 0.34, 0.50, 1.0]]).double()
    values = {"readout_flip_angle_deg": ANGLE_DEG, "magnetisation_carried_over": True, "recovery_time_s": 0.02}
    study = ZSpectra(signal, Protocol(3.0, [10.0, 10.0001, 10.0, 10.0], [4.0, 4.0, 2.0, 0.0], 0.01, **values), t1_s=T1)
    found = quantify(study, "mtsat").quantities
    each = [quantify(study.select(torch.tensor([i])), "mtsat").quantities for i in range(3)]
    alone = [float(value) for quantities in each for value in quantities.values()]
    assert list(found) == ["mtsat_10ppm", "mtsat_2uT_10ppm"]
    assert [float(value) for value in found.values()] == pytest.approx([(alone[0] + alone[1]) / 2, alone[2]])


def test_pulses_of_another_duration_have_mtsat_maps_of_their_own() -> None:
    """Their mean was one map: 4.4 % of pulses of 12 and 24 ms that alone gave 2.4 and 6.5 %."""
    values = {"readout_flip_angle_deg": ANGLE_DEG, "magnetisation_carried_over": True, "recovery_time_s": 0.03}
    pulses = Protocol(3.0, [16.0] * 4, [4.0, 4.0, 2.0, 4.0], [0.012, 0.024, 0.024, 0.012], **values)
    study = ZSpectra(torch.tensor([[0.6, 0.4, 0.7, 0.62]]).double(), pulses, t1_s=T1)
    found = quantify(study, "mtsat").quantities
    alone = [float(quantify(study.select(torch.tensor([i])), "mtsat").quantities["mtsat_16ppm"]) for i in range(4)]
    assert {name: float(value) for name, value in found.items()} == pytest.approx(
        {
            "mtsat_16ppm": (alone[0] + alone[3]) / 2,
            "mtsat_24ms_16ppm": alone[1],
            "mtsat_2uT_24ms_16ppm": alone[2],
        }
    )


def test_a_b1_map_scales_the_flip_angle_of_mtsat() -> None:
    z = gradient_echo(0.025, 0.8 * ANGLE_DEG) / gradient_echo(0.0, 0.8 * ANGLE_DEG)
    study = ZSpectra(torch.tensor([[z, 1.0]]).double(), protocol(), t1_s=T1, b1_relative=torch.tensor([0.8]).double())
    assert float(quantify(study, "mtsat").quantities["mtsat_10ppm"]) == pytest.approx(2.5, rel=1e-5)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"readout_flip_angle_deg": None}, "MTsat is for gradient echoes with a saturation pulse in every repetition"),
        ({"magnetisation_carried_over": False}, "MTsat is for gradient echoes"),
        ({"signal_normalisation": "l2"}, "MTsat needs signals relative to the same gradient echo"),
    ],
)
def test_mtsat_of_another_acquisition_is_refused(changes: dict, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        quantify(ZSpectra(torch.ones(1, 2).double(), protocol(**changes), t1_s=T1), "mtsat")


PH = [5.5, 6.0, 6.5, 7.0, 7.5]
RATIO = [0.5, 0.8, 1.2, 1.7, 2.4]
CALIBRATION: dict[str, Any] = {"offsets_ppm": [4.2, 5.5], "contrast": "mtr_asym", "pH": PH, "ratio": RATIO}
OFFSETS = torch.linspace(-8, 8, 65).double()


def agent(ratios: torch.Tensor, amount: float = 0.1) -> ZSpectra:
    """Voxels in which the lines at 4.2 and 5.5 ppm have known ratios."""
    water = 0.8 / (1 + (OFFSETS / 0.5) ** 2)
    first, second = (torch.exp(-(((OFFSETS - at) / 0.35) ** 2)) for at in (4.2, 5.5))
    return ZSpectra(1 - water - amount * (ratios[:, None] * first + second), Protocol(7.0, OFFSETS, 2.0, 5.0))


@pytest.fixture
def calibrated(tmp_path: Path) -> Settings:
    file = tmp_path / "iopamidol.json"
    file.write_text(json.dumps(CALIBRATION))
    return Settings(calibration=str(file))


def test_ph_is_that_of_the_calibration(calibrated: Settings) -> None:
    found = quantify(agent(torch.tensor(RATIO).double()), "ph", calibrated)
    assert found.quantities["pH"][1:4].numpy() == pytest.approx(PH[1:4], abs=0.06)
    assert found.quantities["pH_ratio"].numpy() == pytest.approx(RATIO, rel=0.05)


def test_nothing_is_extrapolated_beyond_the_calibration(calibrated: Settings) -> None:
    found = quantify(agent(torch.tensor([0.3, 1.2, 4.0]).double()), "ph", calibrated)
    assert found.quantities["pH"].isnan().tolist() == [True, False, True]
    assert found.status.tolist() == [Status.FAILED, Status.CONVERGED, Status.FAILED]
    (warning,) = found.warnings
    assert warning == (
        "2 of 3 voxels have no pH, because their ratio lies outside of the calibration (0.5 to 2.4, pH 5.5 to 7.5)"
    )


def test_voxels_with_too_little_of_the_agent_have_no_ph(calibrated: Settings) -> None:
    found = quantify(agent(torch.tensor([1.2]).double(), amount=0.005), "ph", calibrated)
    assert found.quantities["pH"].isnan().all()
    assert found.warnings == ("1 of 1 voxels have no pH, because a contrast is below 0.01",)


def test_the_true_reason_for_a_missing_ph_is_told(tmp_path: Path) -> None:
    file = tmp_path / "calibration.json"
    file.write_text(json.dumps({**CALIBRATION, "contrast": "saturation_transfer"}))
    z = agent(torch.full((4,), 1.2).double())
    z.signal[2] *= -1
    z.signal[3] = 0.9
    shifted = replace(z, b0_shift_ppm=torch.tensor([3.0, torch.nan, 0.0, 0.0]).double())
    found = quantify(shifted, "ph", Settings(calibration=str(file)))
    assert found.quantities["pH"].isnan().all()
    reasons = [warning.removeprefix("1 of 4 voxels have no pH, because ") for warning in found.warnings]
    assert reasons == [
        "the position of water is not known there",
        "a resonance, which shifts with the water, was not acquired (the offsets span -8 to 8 ppm)",
        "a signal is not positive",
        "a contrast is below 0.01",
    ]


@pytest.mark.parametrize("contrast", ["saturation_transfer", "inverse"])
def test_other_contrasts_have_their_own_ratio(contrast: str, tmp_path: Path) -> None:
    file = tmp_path / "calibration.json"
    file.write_text(json.dumps({**CALIBRATION, "contrast": contrast}))
    z = agent(torch.tensor([1.2]).double())
    at = [int((OFFSETS - offset).abs().argmin()) for offset in (4.25, -4.25, 5.5, -5.5)]
    first, mirror, second, other = (float(z.signal[0, i]) for i in at)
    ratios = {
        "saturation_transfer": (1 - first / mirror) / (1 - second / other),
        "inverse": (mirror / first - 1) / (other / second - 1),
    }
    found = quantify(z, "ph", Settings(calibration=str(file))).quantities["pH_ratio"]
    assert float(found) == pytest.approx(ratios[contrast], rel=0.03)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"offsets_ppm": [4.2]}, "offsets_ppm must be the two positive offsets"),
        ({"contrast": "magic"}, "contrast 'magic' is unknown; use one of mtr_asym, saturation_transfer, inverse"),
        ({"ratio": [1.0, 2.0]}, "pH and ratio must have the same number of values"),
        ({"ratio": [0.5, 0.8, 0.8, 1.7, 2.4]}, "a ratio has one pH only"),
        ({"pH": [5.5, 6.0, 5.9, 7.0, 7.5]}, "pH must rise, or fall, steadily"),
        ({"pHs": []}, "pHs"),
    ],
)
def test_impossible_calibrations_are_refused(change: dict, words: str) -> None:
    with pytest.raises(ValueError, match=rf"my\.json.*{words}"):
        PHCalibration.from_dict({**CALIBRATION, **change}, "my.json")


def test_a_method_without_its_calibration_says_so() -> None:
    with pytest.raises(ValueError, match=r"the method ph needs a calibration of the pH \(--calibration"):
        quantify(agent(torch.tensor([1.2]).double()), "ph")
