"""Design by the Cramér-Rao bound: it is lowered within the limits, and an interrupted descent continues."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from schedule_configs import SCHEDULE_CONFIG

from CESTQuantLib.networks.training import TrainingDiverged, one_thread
from CESTQuantLib.physics.protocol import Protocol
from CESTQuantLib.schedules import bound
from CESTQuantLib.schedules.bound import BoundSettings, minimize_bound, schedule_bound
from CESTQuantLib.schedules.config import design_from_dict


@pytest.fixture(autouse=True)
def small_steps() -> Iterator[None]:
    """Batches are small: several threads would wait for each other."""
    with one_thread():
        yield


@pytest.mark.parametrize("objective", ["crlb-a", "crlb-d"])
def test_the_bound_is_lowered_within_the_limits(objective: str) -> None:
    design = design_from_dict(SCHEDULE_CONFIG)
    schedule = design.schedule()

    def bound_of(protocol: Protocol) -> float:
        return float(schedule_bound(protocol, design.problem, objective, 300, torch.Generator().manual_seed(5)))

    before = bound_of(schedule.start)
    settings = BoundSettings(steps=60, starts=2, first_steps=20, voxels=64)
    history = minimize_bound(schedule, design.problem, objective, settings)
    with torch.no_grad():
        found = schedule.protocol()
    assert bound_of(found) < (before * 0.7 if objective == "crlb-a" else before - 0.3)
    assert schedule.limits.violations(found) == []
    assert len(history[0]["schedule"]["b1_uT"]) == 6


@pytest.mark.parametrize("moment", [3, 25, 50])
def test_an_interrupted_descent_continues_to_the_same_schedule(moment: int, tmp_path: Path) -> None:
    design = design_from_dict({**SCHEDULE_CONFIG, "crlb": {"steps": 40, "starts": 2, "first_steps": 10, "voxels": 32}})

    class KilledError(Exception):
        pass

    def descend(kill: int | None = None, **options) -> tuple[list[dict], dict]:
        schedule, moments = design.schedule(), []

        def progress(fraction: float, message: str) -> None:
            moments.append(fraction)
            if len(moments) == kill:
                raise KilledError

        history = minimize_bound(schedule, design.problem, "crlb-a", design.bound, progress=progress, **options)
        assert moments == sorted(moments)
        return history, schedule.state_dict()

    history, values = descend()
    with pytest.raises(KilledError):
        descend(moment, checkpoint=tmp_path / "c.pt")
    resumed, same = descend(checkpoint=tmp_path / "c.pt")
    assert resumed == history
    assert all(torch.equal(values[name], same[name]) for name in values)
    (tmp_path / "cut.pt").write_bytes((tmp_path / "c.pt").read_bytes()[:900])
    with pytest.warns(
        UserWarning, match=r"cut\.pt: the checkpoint is damaged, so the optimisation starts from the beginning"
    ):
        assert descend(checkpoint=tmp_path / "cut.pt")[0] == history
    with pytest.raises(ValueError, match=r"c\.pt: the checkpoint belongs to another optimisation"):
        minimize_bound(design.schedule(), design.problem, "crlb-d", design.bound, checkpoint=tmp_path / "c.pt")


def test_a_bound_that_is_not_a_number_is_reported_in_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    design = design_from_dict(SCHEDULE_CONFIG)
    monkeypatch.setattr(bound, "design_loss", lambda *_: torch.tensor(torch.nan))
    with pytest.raises(TrainingDiverged, match="crlb-a is not a number after 0 of 10 steps; lower the rate"):
        minimize_bound(design.schedule(), design.problem, "crlb-a", design.bound)


def test_an_m0_measurement_is_no_further_signal() -> None:
    """Signals are divided by it, so that it tells nothing itself, even where it is saturated a little."""
    stated = SCHEDULE_CONFIG["protocol"] | {"magnetisation_carried_over": False, "signal_normalisation": "m0"}
    m0_first = {"offsets_ppm": [3.0, *stated["offsets_ppm"]], "b1_uT": [2.0, *stated["b1_uT"]], "m0_measurements": [1]}

    def bound_of(stated: dict) -> float:
        design = design_from_dict({**SCHEDULE_CONFIG, "protocol": stated, "trainable": "b1_uT"})
        return float(schedule_bound(design.protocol, design.problem, "crlb-a", 50, torch.Generator().manual_seed(5)))

    assert bound_of(stated | m0_first) == pytest.approx(bound_of(stated), rel=1e-6)
