"""Optimised schedules: head start, what is kept, divergence, and configurations."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from schedule_configs import AMINE_TISSUE, SCHEDULE_CONFIG

from CESTQuantLib.formats.protocol_files import read_protocol
from CESTQuantLib.networks.dataset import simulate_dataset
from CESTQuantLib.networks.files import check_protocol, load_network
from CESTQuantLib.networks.objective import Batch
from CESTQuantLib.networks.training import TrainingDiverged, one_thread
from CESTQuantLib.preprocessing.normalization import normalize
from CESTQuantLib.schedules import optimization
from CESTQuantLib.schedules.chain import ChainBatches
from CESTQuantLib.schedules.config import design_from_dict
from CESTQuantLib.schedules.evaluation import EvaluatedSchedule, evaluate_schedule
from CESTQuantLib.schedules.files import write_design
from CESTQuantLib.schedules.optimization import optimize

SHORT = {"epochs": 1, "samples": 64, "crlb": {"steps": 2, "starts": 1, "first_steps": 1, "voxels": 8}}


@pytest.fixture(autouse=True)
def small_steps() -> Iterator[None]:
    """Batches are small: several threads would wait for each other."""
    with one_thread():
        yield


def test_the_network_has_a_head_start_before_the_schedule_moves() -> None:
    evolution = optimize(
        design_from_dict({**SCHEDULE_CONFIG, "objective": "network", "epochs": 4, "head_start": 2})
    ).evolution
    first, *_, last = (moment["schedule"] for moment in evolution)
    assert [moment["schedule"] == first for moment in evolution] == [True, True, True, False, False]
    assert last["recovery_time_s"] != first["recovery_time_s"]
    assert design_from_dict({**SCHEDULE_CONFIG, "epochs": 40}).training.head_start == 10


def test_a_design_does_not_continue_from_checkpoints_of_another_problem() -> None:
    semisolid = {"fraction": 0.1, "k_Hz": 20, "T1_s": 1.0, "T2_s": 1e-5}

    def fingerprint(semisolid: dict | None = semisolid, held_out: int = 500, **amine: object) -> str:
        solutes = [{**AMINE_TISSUE["solutes"][0], **amine}]
        tissue = {**AMINE_TISSUE, "solutes": solutes, "semisolid": semisolid}
        return design_from_dict({**SCHEDULE_CONFIG, "tissue": tissue, "held_out": held_out}).fingerprint()

    others = [
        fingerprint({**semisolid, "lineshape": "superlorentzian"}),
        fingerprint({**semisolid, "coupling": "xyz"}),
        fingerprint(None),
        fingerprint(protons=2),
        fingerprint(held_out=400),
    ]
    assert len({fingerprint(), *others}) == 6
    assert fingerprint() == fingerprint()


@pytest.mark.slow
def test_joint_training_that_makes_the_schedule_worse_is_not_kept() -> None:
    changes = {"epochs": 6, "samples": 2560, "crlb": {"steps": 80, "starts": 1, "first_steps": 20, "voxels": 64}}
    ruined = optimize(design_from_dict({**SCHEDULE_CONFIG, **changes, "schedule_learning_rate": 0.03}))
    assert ruined.kept == "crlb-a"
    before = next(m for m in reversed(ruined.evolution) if m["phase"] == "crlb-a")["schedule"]
    assert ruined.optimized.protocol.offsets_ppm.tolist() == pytest.approx(before["offsets_ppm"], abs=0.002)
    assert ruined.evolution[-1]["schedule"]["offsets_ppm"] != pytest.approx(before["offsets_ppm"], abs=0.1)


def test_the_error_of_the_targets_is_weighted_as_the_design_says() -> None:
    def error(fraction: float, k_Hz: float) -> float:
        weights = {"amine.fraction": fraction, "amine.k_Hz": k_Hz}
        design = design_from_dict({**SCHEDULE_CONFIG, "epochs": 1, "target_weights": weights})
        return evaluate_schedule(design.protocol, design).target_error

    assert error(1, 3) == pytest.approx((error(1, 0) + 3 * error(0, 1)) / 4)
    assert error(1, 0) != pytest.approx(error(0, 1))


@pytest.mark.parametrize(("errors", "kept"), [((1, 2, 3), "crlb-a"), ((1, 3, 2), "network")])
def test_the_schedule_with_the_smaller_error_of_the_targets_is_kept(
    errors: tuple[float, ...], kept: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    left = list(errors)

    def evaluate(*given: Any, **options: Any) -> EvaluatedSchedule:
        return replace(evaluate_schedule(*given, **options), target_error=left.pop(0))

    monkeypatch.setattr(optimization, "evaluate_schedule", evaluate)
    assert optimize(design_from_dict({**SCHEDULE_CONFIG, **SHORT})).kept == kept


def test_the_network_file_has_the_stated_false_alarms_and_the_norm_of_its_signals(tmp_path: Path) -> None:
    design = design_from_dict({**SCHEDULE_CONFIG, **SHORT, "objective": "crlb-a", "false_alarm_rate": 0.3})
    write_design(design, optimize(design), AMINE_TISSUE, tmp_path)
    file = load_network(tmp_path / "network.pt")
    assert file.calibration is not None
    assert file.calibration.false_alarm_rate == 0.3
    clean = simulate_dataset(file.distribution, file.protocol, 1000).clean
    assert file.training["mean_norm"] == pytest.approx(float(clean.norm(dim=1).mean()), rel=0.02)


def test_network_and_protocol_fit_each_other_where_the_scan_has_its_own_m0(tmp_path: Path) -> None:
    stated = SCHEDULE_CONFIG["protocol"]
    own = {"offsets_ppm": [-300.0, *stated["offsets_ppm"]], "b1_uT": [0, *stated["b1_uT"]], "m0_measurements": [1]}
    values = {**SCHEDULE_CONFIG, "protocol": {**stated, **own, "signal_normalisation": "m0"}, **SHORT}
    design = design_from_dict({**values, "limits": {"b1_peak_uT": 6}})
    write_design(design, optimize(design), AMINE_TISSUE, tmp_path)
    protocol = read_protocol(tmp_path / "protocol.json")
    assert protocol.m0_measurements == (1,)
    assert (float(protocol.offsets_ppm[0]), float(protocol.b1_uT[0])) == (-300.0, 0.0)
    measured = normalize(torch.rand(5, 7), protocol, None)
    check_protocol(load_network(tmp_path / "network.pt").protocol, measured.protocol)


def test_diverging_training_keeps_the_last_good_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    design = design_from_dict({**SCHEDULE_CONFIG, "objective": "network", "epochs": 4})
    whole, epochs = ChainBatches.epoch, []

    def poisoned(self: ChainBatches, generator: torch.Generator) -> Iterator[Batch]:
        epochs.append(len(epochs))
        if len(epochs) == 3:
            with torch.no_grad():
                self.chain.acquisition.raw["b1_uT"].fill_(float("nan"))
        yield from whole(self, generator)

    monkeypatch.setattr(ChainBatches, "epoch", poisoned)
    with pytest.raises(TrainingDiverged, match=r"diverged in epoch 3 .* checkpoint \(epoch 2\) is kept"):
        optimize(design, checkpoints=tmp_path)
    monkeypatch.undo()
    slower = replace(design, training=replace(design.training, learning_rate=1e-4, schedule_rate=1e-5, epochs=5))
    assert slower.fingerprint() == design.fingerprint()  # the advice is to lower the rate: it goes on from here
    continued, undisturbed = optimize(design, checkpoints=tmp_path), optimize(design)
    assert continued.evolution == undisturbed.evolution


def test_flip_angles_that_are_trained_with_signals_relative_to_m0_are_warned_about() -> None:
    """They drift to the least angle, which on a scanner has several times the noise."""

    def warned(normalisation: str, *trainable: str) -> list[str]:
        stated = SCHEDULE_CONFIG["protocol"] | {"readout_flip_angle_deg": 60, "signal_normalisation": normalisation}
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            design_from_dict({**SCHEDULE_CONFIG, "protocol": stated, "trainable": trainable}, "c.json")
        return [text for text in (str(warning.message) for warning in caught) if "flip" in text]

    (told,) = warned("m0", "b1_uT", "readout_flip_angle_deg")
    assert told.startswith("c.json: readout_flip_angle_deg is trained although signal_normalisation is m0")
    assert "to none or l2" in told
    for normalisation, trainable in (
        ("m0", "b1_uT"),
        ("none", "readout_flip_angle_deg"),
        ("l2", "readout_flip_angle_deg"),
    ):
        assert warned(normalisation, trainable) == []
