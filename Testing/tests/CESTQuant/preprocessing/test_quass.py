"""QUASS on spectra of the Bloch-McConnell equations: short and long saturation and recovery give the same Z."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
from studies import read_image

from CESTQuantLib.physics.pools import Pool, Semisolid, Tissue, Water
from CESTQuantLib.physics.protocol import Protocol
from CESTQuantLib.physics.pulse_shapes import PulseShape, PulseTrain
from CESTQuantLib.physics.simulation import simulate
from CESTQuantLib.preprocessing.quass import quasi_steady_state
from CESTQuantLib.tissue.spectra import ZSpectra

OFFSETS = torch.cat((torch.tensor([300.0]), torch.linspace(-6, 6, 33))).double()
BEYOND_WATER = OFFSETS.abs() >= 1
AMINE = Tissue(Water(1.5, 0.08), (Pool("amine", 0.002, 1000.0, 1.5, 0.02, 2.5),))
BRAIN = Tissue(
    Water(1.3, 0.08),
    (Pool("amide", 0.0012, 40.0, 1.3, 0.05, 3.5), Pool("noe", 0.003, 15.0, 1.3, 0.005, -3.5)),
    Semisolid(0.08, 40.0, 1.3, 1e-5, -2.0),
)


def acquisition(saturation_s: float, recovery_s: float, angle_deg: float = 90.0, post_delay_s: float = 0.0) -> Protocol:
    """Repeated measurements, each of which starts from what the last one has left."""
    return Protocol(
        3.0,
        OFFSETS,
        1.0,
        saturation_s,
        post_delay_s=post_delay_s,
        recovery_time_s=recovery_s,
        readout_flip_angle_deg=angle_deg,
        magnetisation_carried_over=True,
        initial_magnetisation=0.0,
        initial_recovery_s=recovery_s,
    )


def acquired(tissue: Tissue, protocol: Protocol, reference: str) -> ZSpectra:
    z = simulate(tissue, protocol)
    if reference == "same-delay":
        z = z / simulate(tissue, replace(protocol, b1_uT=torch.zeros_like(protocol.b1_uT)))[:, -1:]
    return ZSpectra(z, protocol, t1_s=torch.full((1,), tissue.water.T1_s, dtype=torch.float64))


def largest_error(z: torch.Tensor, steady: torch.Tensor) -> float:
    return float((z - steady)[:, BEYOND_WATER[-z.shape[1] :]].abs().max())


@pytest.mark.parametrize("reference", ["equilibrium", "same-delay"])
@pytest.mark.parametrize("tissue", [AMINE, BRAIN], ids=["amine", "brain"])
@pytest.mark.parametrize(
    ("saturation_s", "recovery_s", "of_brain"), [(0.5, 1.0, 0.08), (1.0, 1.5, 0.025), (2.0, 4.0, 0.002)]
)
def test_finite_saturation_and_recovery_are_corrected(tissue, reference, saturation_s, recovery_s, of_brain) -> None:
    """The semisolid pool, which readouts do not turn, hands the magnetisation that it keeps to water."""
    steady = simulate(tissue, Protocol(3.0, OFFSETS, 1.0, 60.0))
    spectra = acquired(tissue, acquisition(saturation_s, recovery_s), reference)
    corrected = quasi_steady_state(spectra, reference)
    assert largest_error(spectra.signal, steady) > 0.015
    assert largest_error(corrected.signal, steady) < (of_brain if tissue is BRAIN else 0.001)
    assert torch.isfinite(corrected.signal).all()


@pytest.mark.parametrize("reference", ["equilibrium", "same-delay"])
def test_small_angles_and_a_delay_before_the_readout_are_taken_into_account(reference) -> None:
    steady = simulate(BRAIN, Protocol(3.0, OFFSETS, 1.0, 60.0))
    spectra = acquired(BRAIN, acquisition(1.5, 2.0, 40.0, 0.05), reference)
    corrected = quasi_steady_state(spectra, reference).signal
    # the first of repeated small angles is not yet in the rhythm of the M0 image
    assert largest_error(corrected[:, 1:], steady[:, 1:]) < 0.005


@pytest.mark.parametrize("duty_cycle", [0.5, 0.9])
def test_pulse_trains_are_corrected_by_their_mean_rate(duty_cycle) -> None:
    def train(pulses: int) -> Protocol:
        shape = PulseTrain(pulses, 0.05, 0.05 / duty_cycle - 0.05, PulseShape.named("gaussian"))
        return Protocol(3.0, OFFSETS, 1.0, shape.total_time_s, pulses=shape)

    steady = simulate(BRAIN, train(150))
    spectra = acquired(BRAIN, train(15), "equilibrium")
    assert largest_error(spectra.signal, steady) > 0.05
    assert largest_error(quasi_steady_state(spectra).signal, steady) < 0.02


def test_the_protocol_of_the_result_is_that_of_the_steady_state() -> None:
    corrected = quasi_steady_state(acquired(AMINE, acquisition(1.0, 2.0), "equilibrium"))
    expected = simulate(AMINE, corrected.protocol)
    assert largest_error(corrected.signal, expected) < 0.005
    assert not corrected.protocol.magnetisation_carried_over


@pytest.mark.parametrize(
    ("change", "reference", "words"),
    [
        ({"t1_s": None}, "equilibrium", r"QUASS needs the T1 of water: give a T1 map \(--t1\)"),
        ({}, "magic", "the reference 'magic' of QUASS is unknown; use one of equilibrium, same-delay"),
        ({"protocol": Protocol(3.0, OFFSETS, 0.0, 0.0)}, "equilibrium", "QUASS needs a protocol.json or .seq"),
        ({"protocol": Protocol(3.0, OFFSETS, 1.0, 1.0, signal_normalisation="l2")}, "equilibrium", "relative to M0"),
    ],
)
def test_what_cannot_be_corrected_is_refused(change, reference, words) -> None:
    spectra = acquired(AMINE, acquisition(1.0, 2.0), "equilibrium")
    with pytest.raises(ValueError, match=words):
        quasi_steady_state(replace(spectra, **change), reference)


def test_a_t1_that_is_not_positive_spoils_its_voxel_alone() -> None:
    one = acquired(AMINE, acquisition(1.0, 2.0), "equilibrium")
    two = ZSpectra(one.signal.repeat(2, 1), one.protocol, t1_s=torch.tensor([1.5, 0.0]).double())
    finite = torch.isfinite(quasi_steady_state(two).signal[:, BEYOND_WATER])
    assert finite.all(1).tolist() == [True, False]


def test_the_command_corrects_before_the_method(quantified, good) -> None:
    plain = quantified(good, "mtrasym", asymmetry_offset=3)
    steady = quantified(good, "mtrasym", asymmetry_offset=3, t1=good / "t1.nii.gz", quass="equilibrium")
    before, after = (read_image(output / "mtr_asym_3ppm.nii.gz") for output in (plain, steady))
    assert abs(after - before).max() > 0.005
    assert json.loads((steady / "report.json").read_text())["summary"]["quass"] == "equilibrium"
