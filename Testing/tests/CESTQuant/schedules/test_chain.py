"""The chain from acquisition to estimate, and schedules optimised through it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from paths import ROOT

from CESTQuantLib import batch
from CESTQuantLib.formats.presets import FOLDER
from CESTQuantLib.formats.protocol_files import read_protocol
from CESTQuantLib.networks.architecture import ReconstructionNetwork
from CESTQuantLib.networks.files import load_network
from CESTQuantLib.networks.training import TrainingDiverged
from CESTQuantLib.schedules import bound as schedule_bound_module
from CESTQuantLib.schedules.bound import BoundSettings, minimise_bound, schedule_bound
from CESTQuantLib.schedules.chain import Chain, ChainBatches, Problem
from CESTQuantLib.schedules.config import design_from_dict, read_design
from CESTQuantLib.schedules.design import optimise
from CESTQuantLib.schedules.limits import TRAINABLE, Limits, scan_time_s
from CESTQuantLib.tissue.distributions import TissueDistribution

TISSUE = {
    "water": {"T1_s": {"uniform": [2.5, 3.3]}, "T2_s": {"uniform": [0.4, 1.2]}},
    "solutes": [
        {
            "name": "amine",
            "protons": 3,
            "dw_ppm": 3.0,
            "T1_s": 2.8,
            "T2_s": 0.04,
            "fraction": {"uniform": [0.00027, 0.0033]},
            "k_Hz": {"log_uniform": [100, 1500]},
        }
    ],
    "b0_shift_ppm": {"normal": [0, 0.1]},
    "b1_relative": {"normal": [1, 0.07]},
}
CONFIG = {
    "protocol": {
        "field_strength_T": 9.4,
        "offsets_ppm": [2.5, 3.0, 3.5, 2.0, 4.0, 3.0],
        "b1_uT": [1, 2, 3, 4, 2, 0.5],
        "saturation_time_s": 1.2,
        "recovery_time_s": 0.5,
        "readout_flip_angle_deg": 60,
        "magnetisation_carried_over": True,
        "signal_normalisation": "l2",
    },
    "tissue": TISSUE,
    "targets": ["amine.fraction", "amine.k_Hz"],
    "noise_sd": [0.002, 0.006],
    "samples": 640,
    "epochs": 3,
    "seed": 1,
    "network": {"width": 24},
    "trainable": list(TRAINABLE),
    "limits": {"b1_peak_uT": 6, "b1_rms_uT": 3, "total_time_s": 12},
    "crlb": {"steps": 20, "starts": 2, "first_steps": 10, "voxels": 64},
    "held_out": 500,
    "batch_size": 64,
}


@pytest.fixture(autouse=True)
def one_thread():
    """Batches are small: more threads wait for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def config(folder: Path, **changes) -> Path:
    path = folder / "config.json"
    path.write_text(json.dumps({**CONFIG, **changes}))
    return path


def run(*arguments: object) -> int:
    return batch.main([str(a) for a in arguments])


def exact_chain() -> tuple[Chain, dict, torch.Tensor]:
    design = design_from_dict(CONFIG)
    torch.manual_seed(0)
    network = ReconstructionNetwork(6, 2, width=20).double()
    network.set_targets({p: design.problem.tissue.ranges()[p] for p in CONFIG["targets"]}, ["amine.k_Hz"])
    chain = Chain(design.schedule(), network, design.problem, design.problem.targets, torch.float64)
    values = design.problem.draw(40, torch.Generator().manual_seed(1))
    network.set_inputs(chain.signal(values).detach())
    return chain, values, design.problem.noise(40, 6, torch.Generator().manual_seed(2)).double()


def test_gradients_of_the_loss_in_every_acquisition_parameter_pass_finite_differences() -> None:
    chain, values, noise = exact_chain()
    base = replace(chain.schedule.start, post_delay_s=torch.full((6,), 0.01, dtype=torch.float64))

    def loss(**changes: torch.Tensor) -> torch.Tensor:
        fixed = Chain(replace(base, **changes), chain.network, chain.problem, chain.outputs, torch.float64)
        return fixed.loss(values, noise)

    for name in (*TRAINABLE, "post_delay_s"):
        value = getattr(base, name).clone().requires_grad_()
        (gradient,) = torch.autograd.grad(loss(**{name: value}), value)
        assert bool((gradient[:-1] != 0).all()), name  # nothing follows the recovery of the last one
        for m in (0, 3, 5):
            step = torch.zeros(6, dtype=torch.float64)
            step[m] = 1e-5
            up, down = (float(loss(**{name: value.detach() + s * step}).detach()) for s in (1, -1))
            assert float(gradient[m]) == pytest.approx((up - down) / 2e-5, rel=1e-4, abs=1e-8), name


def test_gradients_of_the_loss_in_every_raw_parameter_pass_finite_differences() -> None:
    chain, values, noise = exact_chain()
    chain.loss(values, noise).backward()
    for name, raw in chain.schedule.raw.items():
        for m in (0, len(raw) - 1):
            ends = []
            for sign in (1, -1):
                with torch.no_grad():
                    raw[m] += sign * 1e-7
                    ends.append(float(chain.loss(values, noise)))
                    raw[m] -= sign * 1e-7
            assert float(raw.grad[m]) == pytest.approx((ends[0] - ends[1]) / 2e-7, rel=1e-3, abs=1e-6), name


def test_noise_is_injected_before_the_normalisation() -> None:
    chain, values, noise = exact_chain()
    clean = chain.problem.signal(values, chain.protocol(), torch.float64)
    expected = clean + noise
    torch.testing.assert_close(chain.signal(values, noise), expected / expected.norm(dim=1, keepdim=True))


def test_processes_share_the_batch_of_one_process() -> None:
    chain, _, _ = exact_chain()
    whole = next(iter(ChainBatches(chain, 8, 8, 4, 0).epoch(torch.Generator().manual_seed(3))))
    shares = [
        next(iter(ChainBatches(chain, 8, 8, 4, 0, rank=r, processes=2).epoch(torch.Generator().manual_seed(3))))
        for r in (0, 1)
    ]
    for part in range(3):
        torch.testing.assert_close(torch.cat([share[part] for share in shares]), whole[part])
    with pytest.raises(ValueError, match="cannot be shared equally by 3 processes"):
        ChainBatches(chain, 8, 8, 4, 0, rank=0, processes=3)


def test_targets_that_do_not_vary_are_refused() -> None:
    with pytest.raises(ValueError, match=r"targets: water\.R9; choose among what varies"):
        Problem(TissueDistribution.from_dict(TISSUE), ("water.R9",))


@pytest.mark.parametrize("objective", ["crlb-a", "crlb-d"])
def test_the_bound_is_lowered_within_the_limits(objective: str) -> None:
    design = design_from_dict(CONFIG)
    schedule = design.schedule()

    def bound(protocol) -> float:
        return float(schedule_bound(protocol, design.problem, objective, 300, torch.Generator().manual_seed(5)))

    before = bound(schedule.start)
    settings = BoundSettings(steps=60, starts=2, first_steps=20, voxels=64)
    history = minimise_bound(schedule, design.problem, objective, settings)
    with torch.no_grad():
        found = schedule.protocol()
    assert bound(found) < (before * 0.7 if objective == "crlb-a" else before - 0.3)
    assert schedule.limits.violations(found) == []
    assert len(history[0]["schedule"]["b1_uT"]) == 6


def test_the_command_writes_all_files_and_they_agree(tmp_path: Path) -> None:
    assert run("optimize-schedule", config(tmp_path), "--output", tmp_path / "out") == 0
    assert sorted(os.listdir(tmp_path / "out")) == [
        "network.pt",
        "protocol.csv",
        "protocol.json",
        "protocol.seq",
        "report.json",
        "report.png",
    ]
    assert sorted(os.listdir(tmp_path)) == ["config.json", "out"]
    from_json, from_seq = (read_protocol(tmp_path / "out" / f"protocol.{ending}") for ending in ("json", "seq"))
    rows = (tmp_path / "out" / "protocol.csv").read_text().splitlines()
    assert len(rows) == 7
    for name in TRAINABLE:
        torch.testing.assert_close(getattr(from_seq, name), getattr(from_json, name), rtol=0, atol=1e-8)
        column = rows[0].split(",").index(name)
        assert float(rows[2].split(",")[column]) == pytest.approx(float(getattr(from_json, name)[1]), rel=1e-5)
    assert Limits.from_dict(CONFIG["limits"]).violations(from_json) == []
    network = load_network(tmp_path / "out" / "network.pt")
    torch.testing.assert_close(network.protocol.b1_uT, from_json.b1_uT)
    assert network.targets == ("amine.fraction", "amine.k_Hz")
    assert network.calibration.threshold > 1
    summary = json.loads((tmp_path / "out" / "report.json").read_text())["summary"]
    for part in ("start_schedule", "optimised_schedule"):
        assert set(summary[part]["held_out"]) == {"amine_concentration_mM", "amine.k_Hz"}
    assert summary["optimised_schedule"]["scan_time_s"] == pytest.approx(float(scan_time_s(from_json)))
    assert [moment["phase"] for moment in summary["evolution"]].count("network") == 3


def test_two_processes_give_the_result_of_one(tmp_path: Path) -> None:
    path = config(tmp_path, network={"width": 24, "dropout": 0.1})
    assert run("optimize-schedule", path, "--output", tmp_path / "one") == 0
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--nproc-per-node",
        "2",
        "--standalone",
        "-m",
        "CESTQuantLib.batch",
        "optimize-schedule",
        str(path),
        "--output",
        str(tmp_path / "two"),
    ]
    place = os.pathsep.join([str(ROOT / "CESTQuant"), str(ROOT)])
    environment = {**os.environ, "PYTHONPATH": place, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    one, two = (json.loads((tmp_path / n / "report.json").read_text())["summary"] for n in ("one", "two"))
    for name in TRAINABLE:
        first, second = (torch.tensor(s["evolution"][-1]["schedule"][name]) for s in (one, two))
        torch.testing.assert_close(second, first, rtol=1e-4, atol=1e-5)
    for part in ("start_schedule", "optimised_schedule"):
        for name, errors in one[part]["held_out"].items():
            assert two[part]["held_out"][name]["mae"] == pytest.approx(errors["mae"], rel=1e-3)


@pytest.mark.parametrize(
    ("changes", "begun"),
    [
        ({"objective": "network", "epochs": 5, "samples": 2560}, "0-schedule.json"),
        ({"objective": "crlb-a", "crlb": {**CONFIG["crlb"], "steps": 200}}, "0-schedule.pt"),
    ],
)
def test_a_killed_run_continues_to_the_same_result(changes: dict, begun: str, tmp_path: Path) -> None:
    path = config(tmp_path, **changes)
    assert run("optimize-schedule", path, "--output", tmp_path / "whole") == 0
    place = os.pathsep.join([str(ROOT / "CESTQuant"), str(ROOT)])
    command = [
        sys.executable,
        "-m",
        "CESTQuantLib.batch",
        "optimize-schedule",
        str(path),
        "--output",
        str(tmp_path / "killed"),
    ]
    process = subprocess.Popen(command, env={**os.environ, "PYTHONPATH": place}, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while not list(tmp_path.glob(f".killed.training/*/{begun}")) and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "killed").exists()
    assert run("optimize-schedule", path, "--output", tmp_path / "killed") == 0
    whole, resumed = (json.loads((tmp_path / n / "report.json").read_text())["summary"] for n in ("whole", "killed"))
    assert resumed["evolution"] == whole["evolution"]
    assert resumed["optimised_schedule"] == whole["optimised_schedule"]


@pytest.mark.parametrize("moment", [3, 25, 50])
def test_an_interrupted_descent_goes_on_to_the_same_schedule(moment: int, tmp_path: Path) -> None:
    design = design_from_dict({**CONFIG, "crlb": {"steps": 40, "starts": 2, "first_steps": 10, "voxels": 32}})

    class KilledError(Exception):
        pass

    def descend(kill: int | None = None, **options) -> tuple[list[dict], dict]:
        schedule, moments = design.schedule(), []

        def progress(fraction: float, message: str) -> None:
            moments.append(fraction)
            if len(moments) == kill:
                raise KilledError

        history = minimise_bound(schedule, design.problem, "crlb-a", design.bound, progress=progress, **options)
        assert moments == sorted(moments)
        return history, schedule.state_dict()

    history, values = descend()
    with pytest.raises(KilledError):
        descend(moment, checkpoint=tmp_path / "c.pt")
    resumed, same = descend(checkpoint=tmp_path / "c.pt")
    assert resumed == history
    assert all(torch.equal(values[name], same[name]) for name in values)
    (tmp_path / "cut.pt").write_bytes((tmp_path / "c.pt").read_bytes()[:900])
    with pytest.warns(UserWarning, match=r"cut\.pt: the checkpoint is damaged, so the optimisation starts anew"):
        assert descend(checkpoint=tmp_path / "cut.pt")[0] == history
    with pytest.raises(ValueError, match=r"c\.pt: the checkpoint belongs to another optimisation"):
        minimise_bound(design.schedule(), design.problem, "crlb-d", design.bound, checkpoint=tmp_path / "c.pt")


def test_the_network_has_a_head_start_before_the_schedule_moves() -> None:
    evolution = optimise(design_from_dict({**CONFIG, "objective": "network", "epochs": 4, "head_start": 2})).evolution
    first, *_, last = (moment["schedule"] for moment in evolution)
    assert [moment["schedule"] == first for moment in evolution] == [True, True, True, False, False]
    assert last["recovery_time_s"] != first["recovery_time_s"]
    assert design_from_dict({**CONFIG, "epochs": 40}).training.head_start == 10


def test_joint_training_that_makes_the_schedule_worse_is_not_kept() -> None:
    changes = {"epochs": 6, "samples": 2560, "crlb": {"steps": 80, "starts": 1, "first_steps": 20, "voxels": 64}}
    ruined = optimise(design_from_dict({**CONFIG, **changes, "schedule_learning_rate": 0.03}))
    assert ruined.kept == "crlb-a"
    before = next(m for m in reversed(ruined.evolution) if m["phase"] == "crlb-a")["schedule"]
    assert ruined.optimised.protocol.offsets_ppm.tolist() == pytest.approx(before["offsets_ppm"], abs=0.002)
    assert ruined.evolution[-1]["schedule"]["offsets_ppm"] != pytest.approx(before["offsets_ppm"], abs=0.1)


def test_a_bound_that_is_no_number_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    design = design_from_dict(CONFIG)
    monkeypatch.setattr(schedule_bound_module, "design_loss", lambda *_: torch.tensor(torch.nan))
    with pytest.raises(TrainingDiverged, match="crlb-a is not a number after 0 of 10 steps; lower the rate"):
        minimise_bound(design.schedule(), design.problem, "crlb-a", design.bound)


def test_diverging_training_keeps_the_last_good_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    design = design_from_dict({**CONFIG, "objective": "network", "epochs": 4})
    whole, epochs = ChainBatches.epoch, []

    def poisoned(self: ChainBatches, generator: torch.Generator):
        epochs.append(len(epochs))
        if len(epochs) == 3:
            with torch.no_grad():
                self.chain.schedule.raw["b1_uT"].fill_(float("nan"))
        yield from whole(self, generator)

    monkeypatch.setattr(ChainBatches, "epoch", poisoned)
    with pytest.raises(TrainingDiverged, match=r"diverged in epoch 3 .* checkpoint \(epoch 2\) is kept"):
        optimise(design, checkpoints=tmp_path)
    monkeypatch.undo()
    slower = replace(design, training=replace(design.training, learning_rate=1e-4, schedule_rate=1e-5, epochs=5))
    assert slower.fingerprint() == design.fingerprint()  # the advice is to lower the rate: it goes on from here
    continued, undisturbed = optimise(design, checkpoints=tmp_path), optimise(design)
    assert continued.evolution == undisturbed.evolution


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"limits": {"total_time_s": 0.1}}, "total_time_s is 0.1 s but 6 measurements take at least"),
        ({"targets": ["amine.T2_s"]}, "targets: amine.T2_s; choose among what varies"),
        ({"objective": "best"}, "objective is best; use network, crlb-a, crlb-d, crlb-sd"),
        ({"target_weights": {"amine.dw": 1}}, "target_weights: unknown keys amine.dw"),
        ({"target_weights": {"amine.k_Hz": -1}}, "target_weights are 1, -1 but must be positive or 0"),
        ({"trainable": ["b1"]}, "unknown quantities b1"),
        ({"epochs": 0}, "epochs is 0 but must be a whole number of at least 1"),
        ({"samples": "many"}, "samples is 'many' but must be a whole number"),
        ({"speed": 1}, "unknown keys speed"),
        ({"network": {"depth": 40}}, "network depth is 40"),
        ({"protocol": "missing.json"}, "missing.json: no such file"),
    ],
)
def test_unusable_configurations_are_one_sentence_and_write_nothing(
    changes: dict, sentence: str, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    path = config(tmp_path, **changes)
    assert run("optimize-schedule", path, "--output", tmp_path / "out") == 2
    error = capsys.readouterr().err
    assert sentence in error
    assert not (tmp_path / "out").exists()


def test_the_preset_is_a_usable_configuration_within_its_own_limits() -> None:
    design = read_design(FOLDER / "autocest_larginine.json")
    assert design.limits.violations(design.protocol) == []
    assert design.limits.total_time_s == 35
    assert design.problem.targets == ("amine.fraction", "amine.k_Hz")


def test_configurations_come_along_by_name_and_strategies_are_protocols(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    assert read_design("autocest_larginine").limits.total_time_s == 35
    assert design_from_dict({**CONFIG, "protocol": "strategy 3", "limits": {}}).protocol.measurement_count == 37
    assert run("optimize-schedule", "autocest_nothing", "--output", tmp_path / "out") == 2
    error = capsys.readouterr().err.strip()
    assert "autocest_nothing: no such file; give a CONFIG.json or one of autocest_guanidinium_7T, " in error
    assert "\n" not in error
