"""Magnetisation carried through a schedule: against single blocks, Bloch-McConnell and finite differences."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from CESTQuantLib.physics.pools import Pool, Semisolid, Tissue, Water
from CESTQuantLib.physics.protocol import Protocol
from CESTQuantLib.physics.r1rho.inputs import BlockInputs
from CESTQuantLib.physics.r1rho.saturation import saturate
from CESTQuantLib.physics.r1rho.sequence import block_inputs, r1rho_signal
from CESTQuantLib.physics.simulation import simulate

LIKE = torch.zeros(0, dtype=torch.float64)
AMINE = Pool("amine", torch.tensor([1e-3, 2e-3], dtype=torch.float64), 400.0, 2.8, 0.04, 3.0)
SEMISOLID = Semisolid(0.06, 30.0, 1.0, 1e-5)
FIELDS = {"b0_shift_ppm": torch.tensor([0.05, -0.1], dtype=torch.float64), "b1_relative": 0.9}


def tissue(semisolid: bool) -> Tissue:
    return Tissue(Water(2.0, 0.5), (AMINE,), SEMISOLID if semisolid else None)


def schedule(count: int = 8, **changes) -> Protocol:
    spread = torch.linspace(0, 1, count, dtype=torch.float64)
    values = {
        "offsets_ppm": 3 + 1.5 * torch.sin(5 * spread),
        "b1_uT": 0.5 + 4 * spread,
        "saturation_time_s": 0.4 + spread,
        "recovery_time_s": 0.3 + 0.5 * spread.flip(0),
        "readout_flip_angle_deg": 20 + 60 * spread,
        "magnetisation_carried_over": True,
        "signal_normalisation": "none",
    }
    return Protocol(9.4, **{**values, **changes})


def one_by_one(tissue: Tissue, protocol: Protocol) -> torch.Tensor:
    """Signal of a schedule, with every block solved from the magnetisation that the last one left."""
    inputs = block_inputs(tissue, protocol, b0_shift_ppm=FIELDS["b0_shift_ppm"], b1_relative=0.9, like=LIKE)
    z, c, signals = inputs.z0, inputs.c0, []
    for m in range(protocol.measurement_count):
        rows = [i[m : m + 1] if i.ndim == 2 and len(i) > 1 else i for i in inputs.flat()]
        block = BlockInputs.from_flat(rows, len(inputs.solutes))

        def recovered(
            z: torch.Tensor, c: torch.Tensor, duration: torch.Tensor, block: BlockInputs[torch.Tensor] = block
        ) -> tuple[torch.Tensor, torch.Tensor]:
            zero = torch.zeros(1, 1, dtype=torch.float64)
            without_rf = replace(block, w1=zero, offset=zero, duration=duration.reshape(1, 1), z0=z, c0=c, solutes=())
            if block.semisolid is not None:
                without_rf = replace(without_rf, semisolid=replace(block.semisolid, saturation_rate=zero))
            return saturate(without_rf)

        z, c = saturate(replace(block, z0=z, c0=c))
        z, c = recovered(z, c, protocol.post_delay_s[m])
        angle = torch.deg2rad(protocol.readout_flip_angle_deg[m]) * 0.9
        signals.append(z * torch.sin(angle))
        z, c = recovered(z * torch.cos(angle), c, protocol.recovery_time_s[m])
    return torch.cat(signals)


@pytest.mark.parametrize("semisolid", [False, True])
@pytest.mark.parametrize("delay", [0.0, 0.02])
def test_the_batched_schedule_is_the_chain_of_single_blocks(semisolid: bool, delay: float) -> None:
    protocol = schedule(post_delay_s=delay, initial_magnetisation=0.7)
    batched = r1rho_signal(tissue(semisolid), protocol, **FIELDS, like=LIKE)
    torch.testing.assert_close(batched, one_by_one(tissue(semisolid), protocol), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(("semisolid", "tolerance"), [(False, 2e-3), (True, 8e-3)])
def test_a_spoiled_schedule_agrees_with_bloch_mcconnell(semisolid: bool, tolerance: float) -> None:
    both = [simulate(tissue(semisolid), schedule(), engine=e, **FIELDS) for e in ("r1rho", "bloch-mcconnell")]
    assert float((both[0] - both[1]).abs().max()) < tolerance


def test_without_recovery_or_excitation_the_magnetisation_still_carries_over() -> None:
    protocol = schedule(recovery_time_s=0.0, readout_flip_angle_deg=None, offsets_ppm=torch.full((8,), 3.0))
    signal = r1rho_signal(tissue(False), protocol, like=LIKE)
    afresh = r1rho_signal(tissue(False), replace(protocol, magnetisation_carried_over=False), like=LIKE)
    assert bool((signal[1:] < afresh[1:]).all())
    torch.testing.assert_close(signal[0], afresh[0])


def test_the_signal_decays_with_T2_until_the_echo() -> None:
    water = Tissue(Water(2.0, 0.5))
    ideal = r1rho_signal(water, schedule(), like=LIKE)
    late = r1rho_signal(water, schedule(echo_time_s=0.1), like=LIKE)
    torch.testing.assert_close(late, ideal * torch.exp(torch.tensor(-0.1 / 0.5, dtype=torch.float64)))


@pytest.mark.parametrize("semisolid", [False, True])
def test_derivatives_with_respect_to_every_acquisition_parameter_are_exact(semisolid: bool) -> None:
    base = schedule(4)
    names = ("offsets_ppm", "b1_uT", "saturation_time_s", "recovery_time_s", "readout_flip_angle_deg", "post_delay_s")
    values = [getattr(base, name).clone() for name in names]
    values[-1] += 0.01

    def signal(*parameters: torch.Tensor) -> torch.Tensor:
        return r1rho_signal(
            tissue(semisolid), replace(base, **dict(zip(names, parameters, strict=True))), **FIELDS, like=LIKE
        )

    assert torch.autograd.gradcheck(signal, [v.requires_grad_() for v in values], eps=1e-6, atol=1e-7, rtol=1e-5)


@pytest.mark.parametrize("echo_time_s", [0.0, 0.03])
def test_derivatives_with_respect_to_the_tissue_are_exact(echo_time_s: float) -> None:
    protocol = schedule(4, echo_time_s=echo_time_s)

    def signal(fraction: torch.Tensor, k: torch.Tensor, t1: torch.Tensor, b1: torch.Tensor) -> torch.Tensor:
        amine = replace(AMINE, fraction=fraction, k_Hz=k)
        return r1rho_signal(Tissue(Water(t1, 0.5), (amine,), SEMISOLID), protocol, b1_relative=b1, like=LIKE)

    values = [
        torch.tensor(v, dtype=torch.float64, requires_grad=True)
        for v in ([2e-3, 1e-3], [300.0, 900.0], [2.5, 1.2], [1.1, 0.9])
    ]
    assert torch.autograd.gradcheck(signal, values, eps=1e-6, atol=1e-6, rtol=1e-4)
