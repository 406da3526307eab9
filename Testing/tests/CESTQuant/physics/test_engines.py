"""The registry of engines: what simulates, and what is said about engines that do not exist."""

from __future__ import annotations

import math
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from paths import ROOT

from CESTQuantLib.formats.protocol_json import protocol_from_dict
from CESTQuantLib.physics.engines import ENGINES, Engine, engine_named
from CESTQuantLib.physics.pools import Pool, Semisolid, Tissue, Water
from CESTQuantLib.physics.protocol import Protocol, PulseTrain
from CESTQuantLib.physics.pulse_shapes import PulseShape
from CESTQuantLib.physics.simulation import POINTS_PER_CHUNK_ANALYTIC, simulate

PROTOCOL = Protocol(3.0, [1.0, 2.0, 3.0], 1.5, 2.0)
TISSUE = Tissue(Water(1.3, 0.08))


@pytest.mark.parametrize("name", ENGINES)
def test_an_engine_computes_measurements_by_voxels(name: str) -> None:
    like = torch.empty(0, dtype=torch.float64)
    signal = ENGINES[name](TISSUE, PROTOCOL, b1_relative=torch.ones(2, dtype=torch.float64), like=like)
    assert signal.expand(3, 2).dtype == torch.float64
    torch.testing.assert_close(signal.T.expand(2, 3)[:1], simulate(TISSUE, PROTOCOL, engine=name))


TRAIN = PulseTrain(3, 0.05, 0.05, PulseShape.named("gaussian", 10))
PROTOCOLS = {
    "continuous waves": Protocol(3.0, [-3.5, 0.2, 3.5], 1.5, 2.0),
    "a short continuous wave": Protocol(3.0, [-3.5, 0.2, 3.5], 1.5, 0.05),
    "a pulse train": Protocol(3.0, [-3.5, 0.2, 3.5], 1.5, TRAIN.total_time_s, TRAIN, post_delay_s=0.01),
    "a schedule": Protocol(
        3.0,
        [-3.5, 0.2, 3.5],
        [1.5, 1.0, 2.0],
        0.5,
        recovery_time_s=0.4,
        readout_flip_angle_deg=30.0,
        magnetisation_carried_over=True,
        signal_normalisation="l2",
    ),
}


@pytest.mark.parametrize("protocol", PROTOCOLS.values(), ids=PROTOCOLS)
@pytest.mark.parametrize("name", ENGINES)
def test_a_voxel_with_an_unusable_value_leaves_the_others_unchanged_to_the_bit(name: str, protocol: Protocol) -> None:
    usable = {
        "T1_s": [1.3, 1.1, 1.5],
        "fraction": [1e-3, 2e-3, 5e-4],
        "k_Hz": [30.0, 50.0, 900.0],
        "b0_shift_ppm": [0.0, 0.1, -0.05],
        "b1_relative": [1.0, 0.9, 1.1],
    }

    def signal(voxels: slice | list[int], **changed: float) -> torch.Tensor:
        values = {key: torch.tensor(value, dtype=torch.float64) for key, value in usable.items()}
        for key, value in changed.items():
            values[key][1] = value
        of = {key: value[voxels] for key, value in values.items()}
        pool = Pool("amide", of["fraction"], of["k_Hz"], 1.0, 0.1, 3.5)
        fields = {key: of[key] for key in ("b0_shift_ppm", "b1_relative")}
        return simulate(Tissue(Water(of["T1_s"], 0.08), (pool,)), protocol, engine=name, **fields)

    alone = signal([0, 2])
    for changed in ({key: math.nan} for key in usable):
        together = signal(slice(None), **changed)
        assert bool(together[1].isnan().all()), changed
        assert torch.equal(together[[0, 2]], alone), changed
    for changed in ({"b1_relative": math.inf}, {"k_Hz": math.inf}):
        assert torch.equal(signal(slice(None), **changed)[[0, 2]], alone), changed


@pytest.mark.parametrize("name", ENGINES)
def test_a_protocol_that_leaves_its_saturation_open_is_not_simulated(name: str) -> None:
    open_ = protocol_from_dict({"field_strength_T": 3.0, "offsets_ppm": [3.5], "b1_uT": None, "saturation_time_s": 2.0})
    with pytest.raises(ValueError, match="b1_uT is null in the protocol: fill in the values that a simulation needs"):
        simulate(TISSUE, open_, engine=name)


@pytest.mark.parametrize("name", ENGINES)
def test_infinite_relaxation_times_are_usable(name: str) -> None:
    T1_s = torch.tensor([math.inf, 1e9], dtype=torch.float64)
    without, hardly = simulate(Tissue(Water(T1_s, 0.08)), PROTOCOL, engine=name)
    torch.testing.assert_close(without, hardly, rtol=0, atol=1e-8)


@pytest.mark.parametrize("semisolid", [None, Semisolid(0.1, 30.0, 1.0, 1e-5)], ids=["water", "water and semisolid"])
@pytest.mark.parametrize("name", ENGINES)
def test_a_saturation_that_takes_no_time_does_nothing(name: str, semisolid: Semisolid | None) -> None:
    tissue = Tissue(Water(2.5, 0.1), (Pool("amine", 2e-3, 300.0, 2.5, 0.04, 3.0),), semisolid)
    signal = simulate(tissue, Protocol(3.0, [-3.0, 0.0, 3.0], 2.0, [0.0, 0.0, 2.0]), engine=name)[0]
    torch.testing.assert_close(signal[:2], torch.ones(2, dtype=torch.float64))
    assert float(signal[2]) < 0.9


@pytest.mark.parametrize("carried_over", [False, True])
@pytest.mark.parametrize("flip_angle_deg", [None, 60.0])
def test_engines_agree_on_the_signal_without_normalisation(flip_angle_deg: float | None, carried_over: bool) -> None:
    protocol = Protocol(
        *(3.0, [-4.0, 3.5, 5.0], 1.5, 2.0),
        recovery_time_s=0.5,
        readout_flip_angle_deg=flip_angle_deg,
        echo_time_s=0.05,
        magnetisation_carried_over=carried_over,
        signal_normalisation="none",
    )
    tissue = Tissue(Water(1.3, 0.08), (), Semisolid(0.1, 30.0, 1.0, 1e-5))
    numerical, analytic = (simulate(tissue, protocol, engine=name) for name in ("bloch-mcconnell", "r1rho"))
    torch.testing.assert_close(analytic, numerical, rtol=0, atol=1e-3)


@pytest.mark.parametrize("field_T", [3.0, 9.4])
@pytest.mark.parametrize(
    "pools",
    [
        (Pool("amine", 2e-3, 800.0, 1.0, 0.02, 3.0),),
        (Pool("hydroxyl", 5e-3, 5000.0, 1.0, 0.02, 1.0),),
        (
            Pool("amide", 1e-3, 30.0, 1.0, 0.1, 3.5),
            Pool("amine", 2e-3, 800.0, 1.0, 0.02, 2.0),
            Pool("noe", 1e-2, 15.0, 1.0, 2e-3, -3.5),
        ),
    ],
)
def test_exchange_with_solutes_dephases_water_until_the_echo(pools: tuple[Pool, ...], field_T: float) -> None:
    protocol = Protocol(
        *(field_T, [-300.0, 20.0], [0.0, 1.0], 1.0),
        readout_flip_angle_deg=60.0,
        echo_time_s=0.03,
        signal_normalisation="none",
    )
    tissue = Tissue(Water(1.3, 0.08), pools)
    numerical, analytic = (simulate(tissue, protocol, engine=name) for name in ("bloch-mcconnell", "r1rho"))
    torch.testing.assert_close(analytic, numerical, rtol=0, atol=2.5e-3)
    alone = math.sin(math.pi / 3) * math.exp(-0.03 / 0.08)
    assert float(numerical[0, 0]) < alone - 0.01


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("field", ["b0_shift_ppm", "b1_relative"])
def test_fields_may_be_arrays_or_lists(field: str, engine: str) -> None:
    expected = simulate(TISSUE, PROTOCOL, engine=engine, **{field: torch.tensor([1.0, 0.9], dtype=torch.float64)})
    for given in ([1.0, 0.9], np.array([1.0, 0.9])):
        torch.testing.assert_close(simulate(TISSUE, PROTOCOL, engine=engine, **{field: given}), expected)


def test_values_of_different_numbers_of_voxels_are_refused_by_name() -> None:
    tissue = Tissue(Water(1.3, 0.08), (Pool("amide", [1e-3, 2e-3, 3e-3], 30.0, 1.0, 0.1, 3.5),))
    with pytest.raises(ValueError, match=r"^amide\.fraction has 3 voxels but b0_shift_ppm has 2; give one value or"):
        simulate(tissue, PROTOCOL, b0_shift_ppm=[0.0, 0.1])
    with pytest.raises(ValueError, match="b1_relative must be a number"):
        simulate(tissue, PROTOCOL, b1_relative="nominal")


def test_a_shift_for_every_measurement_holds_for_all_voxels() -> None:
    fraction = torch.linspace(1e-4, 1e-3, POINTS_PER_CHUNK_ANALYTIC // 3 + 100, dtype=torch.float64)
    tissue = Tissue(Water(1.3, 0.08), (Pool("amide", fraction, 30.0, 1.0, 0.1, 3.5),))
    shift = torch.tensor([[0.0], [0.1], [0.2]], dtype=torch.float64)
    every = simulate(tissue, PROTOCOL, engine="r1rho", b0_shift_ppm=shift)
    last = simulate(tissue.voxels(slice(-1, None)), PROTOCOL, engine="r1rho", b0_shift_ppm=shift)
    torch.testing.assert_close(every[-1:], last)


@pytest.mark.parametrize("engine", ENGINES)
def test_no_voxels_have_no_signals(engine: str) -> None:
    assert simulate(TISSUE, PROTOCOL, engine=engine, b0_shift_ppm=torch.empty(0)).shape == (0, 3)


def test_unknown_engines_are_refused_with_the_list_of_the_known_ones() -> None:
    with pytest.raises(ValueError, match="engine 'epg' is unknown; use one of bloch-mcconnell, r1rho"):
        engine_named("epg")
    with pytest.raises(ValueError, match="engine 'epg' is unknown"):
        simulate(TISSUE, PROTOCOL, engine="epg")


def test_a_further_engine_is_an_entry_of_the_registry(monkeypatch: pytest.MonkeyPatch) -> None:
    def nothing_happens(tissue, protocol, *, b0_shift_ppm=0.0, b1_relative=1.0, like):
        return like.new_ones(protocol.measurement_count, 1)

    monkeypatch.setitem(ENGINES, "none", Engine("no saturation at all", lambda: nothing_happens))
    assert simulate(TISSUE, PROTOCOL, engine="none").tolist() == [[1.0, 1.0, 1.0]]


def test_listing_the_engines_loads_neither_torch_nor_the_engines() -> None:
    code = (
        "import sys; from CESTQuantLib.physics.engines import ENGINES; "
        "print(sorted(ENGINES), 'torch' in sys.modules, 'CESTQuantLib.physics.r1rho' in sys.modules)"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "CESTQuant")])}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    assert done.stdout.strip() == "['bloch-mcconnell', 'r1rho'] False False"


@pytest.mark.parametrize(
    ("field_T", "pool", "echo_time_s", "error"),
    [
        (7.0, Pool("amine", 4e-3, 8000.0, 1.0, 0.02, 3.0), 0.02, 2.5e-3),
        (3.0, Pool("urea", 0.036, 300.0, 1.0, 0.02, 1.0), 0.002, 0.012),
        (3.0, Pool("amine", 0.036, 8000.0, 1.0, 0.02, 3.5), 0.02, 0.85 * 0.036),
    ],
)
def test_the_echo_is_off_by_no_more_than_the_theory_page_says(
    field_T: float, pool: Pool, echo_time_s: float, error: float
) -> None:
    protocol = Protocol(
        *(field_T, [-300.0, 20.0], [0.0, 1.0], 1.0),
        readout_flip_angle_deg=90.0,
        echo_time_s=echo_time_s,
        signal_normalisation="none",
    )
    tissue = Tissue(Water(2.5, 1.0), (pool,))
    numerical, analytic = (simulate(tissue, protocol, engine=name)[0, 0] for name in ("bloch-mcconnell", "r1rho"))
    assert 0.8 * error < float((analytic - numerical).abs()) < error
