"""Spectra by the Bloch-McConnell equations: our batches against BMCTool 1.0.3, both in float64.

The accuracy is the largest difference from an independent solution of the tests, by matrix exponentials and exact
quadrature, at every fourth offset. With a super-Lorentzian, offsets within 1 ppm of its pole are left out, because each
program bridges it in its own way; BMCTool integrates the lineshape by a 101-point rectangle rule. The B0 shift is zero,
because BMCTool 1.0.3 shifts solutes in the wrong direction.
"""

from __future__ import annotations

import argparse
import math
import warnings
from dataclasses import replace

import numpy as np
import pypulseq
import torch
from benchmarking import Table, Time, seconds
from bmctool.parameters.Parameters import Parameters
from bmctool.simulation.BMCSim import BMCSim
from expm_reference import Sample

from CESTQuantLib.physics.pools import Pool, Semisolid, Tissue, Water
from CESTQuantLib.physics.protocol import Protocol, PulseTrain
from CESTQuantLib.physics.pulse_shapes import PulseShape
from CESTQuantLib.physics.simulation import simulate
from CESTQuantLib.physics.units import GAMMA_RAD_PER_S_PER_UT

FIELD_T = 3.0
HZ_PER_UT = GAMMA_RAD_PER_S_PER_UT / (2 * math.pi)
SYSTEM = pypulseq.Opts(rf_dead_time=0.0, rf_ringdown_time=0.0, adc_dead_time=0.0, B0=FIELD_T)
SOLUTES = (
    Pool("amide", 9e-4, 50.0, 1.0, 0.1, 3.5),
    Pool("guanidine", 9e-4, 1000.0, 1.0, 0.1, 2.0),
    Pool("NOE", 4.5e-3, 20.0, 1.3, 5e-3, -3.0),
    Pool("amine", 2e-4, 5500.0, 1.3, 0.2, 3.0),
)
SEMISOLID = Semisolid(0.1351, 30.0, 1.0, 1e-5, -2.6, "superlorentzian", bridge_ppm=1.0)
WATER = Water(1.0, 0.04)


def peer_parameters(tissue: Tissue) -> Parameters:
    def pool(p) -> dict:
        return {"f": p.fraction, "k": p.k_Hz, "t1": p.T1_s, "t2": p.T2_s, "dw": p.dw_ppm}

    values = {
        "water_pool": {"f": 1.0, "t1": tissue.water.T1_s, "t2": tissue.water.T2_s},
        "cest_pool": {p.name: pool(p) for p in tissue.solutes},
        "b0": FIELD_T,
        "gamma": GAMMA_RAD_PER_S_PER_UT,
        "b0_inhom": 0.0,
        "rel_b1": 1.0,
        "verbose": False,
        "reset_init_mag": True,
        "scale": 1.0,
        "max_pulse_samples": 500,
    }
    if tissue.semisolid is not None:
        values["mt_pool"] = pool(tissue.semisolid) | {"lineshape": "SuperLorentzian"}
    return Parameters.from_dict(values)


def sequence(protocol: Protocol) -> pypulseq.Sequence:
    result = pypulseq.Sequence(SYSTEM)
    for offset, b1 in zip(protocol.offsets_ppm.tolist(), protocol.b1_uT.tolist(), strict=True):
        add_saturation(result, protocol, offset * FIELD_T * HZ_PER_UT, b1)
        result.add_block(pypulseq.make_adc(num_samples=1, duration=1e-3, system=SYSTEM))
    result.set_definition("offsets_ppm", protocol.offsets_ppm.tolist())
    return result


def add_saturation(result: pypulseq.Sequence, protocol: Protocol, frequency_Hz: float, b1_uT: float) -> None:
    options = {"freq_offset": frequency_Hz, "system": SYSTEM, "use": "saturation"}
    if protocol.pulses is None:
        time = float(protocol.saturation_time_s[0])
        angle = b1_uT * time * GAMMA_RAD_PER_S_PER_UT
        result.add_block(pypulseq.make_block_pulse(angle, duration=time, **options))
        return
    train, phase = protocol.pulses, 0.0
    samples = train.shape.amplitude.numpy() * b1_uT / train.rms_of_unit_peak
    dwell = train.duration_s / len(samples)
    for n in range(train.n_pulses):
        pulse = pypulseq.make_arbitrary_rf(
            signal=samples * HZ_PER_UT,
            flip_angle=1.0,
            no_signal_scaling=True,
            dwell=dwell,
            phase_offset=phase,
            **options,
        )
        result.add_block(pulse)
        phase = (phase + 2 * math.pi * frequency_Hz * train.duration_s) % (2 * math.pi)
        if n < train.n_pulses - 1:
            result.add_block(pypulseq.make_delay(train.delay_s))


def peer_spectrum(tissue: Tissue, protocol: Protocol) -> tuple[Time, np.ndarray]:
    """Return the time of BMCTool's simulation, without building the sequence, and its spectrum."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        simulation = BMCSim(peer_parameters(tissue), sequence(protocol), verbose=False)
        time, _ = seconds(simulation.run)
    return time, simulation.get_zspec(return_abs=False)[1]


def batch(tissue: Tissue, voxels: int) -> Tissue:
    """Return voxels that differ in every exchange rate and in water T1; the first is the tissue itself."""
    spread = torch.linspace(1.0, 1.3, voxels, dtype=torch.float64)
    solutes = tuple(replace(p, k_Hz=p.k_Hz * spread) for p in tissue.solutes)
    return replace(tissue, water=Water(tissue.water.T1_s * spread, tissue.water.T2_s), solutes=solutes)


def exact_spectrum(tissue: Tissue, protocol: Protocol) -> np.ndarray:
    """Return Z after each continuous-wave block, by one scipy matrix exponential per offset."""

    def pool(p) -> dict:
        return {"f": p.fraction, "k": p.k_Hz, "T1": p.T1_s, "T2": p.T2_s, "dw": p.dw_ppm}

    water = {"f": 1.0, "k": 0.0, "T1": tissue.water.T1_s, "T2": tissue.water.T2_s, "dw": 0.0}
    semisolid = None if tissue.semisolid is None else pool(tissue.semisolid) | {"lineshape": tissue.semisolid.lineshape}
    result = []
    for offset, b1, time in zip(protocol.offsets_ppm, protocol.b1_uT, protocol.saturation_time_s, strict=True):
        sample = Sample([water, *map(pool, tissue.solutes)], semisolid, B0=FIELD_T)
        sample.step(float(time), float(offset), float(b1))
        result.append(sample.z)
    return np.array(result)


def accuracy(tissue: Tissue, protocol: Protocol, ours: np.ndarray, peer: np.ndarray) -> str:
    checked = torch.arange(0, protocol.measurement_count, 4)
    if tissue.semisolid is not None:
        bridged = (protocol.offsets_ppm - tissue.semisolid.dw_ppm).abs() <= tissue.semisolid.bridge_ppm
        checked = checked[~bridged[checked]]
    exact = exact_spectrum(tissue, protocol.select(checked))
    errors = (np.abs(z[checked.numpy()] - exact).max() for z in (ours, peer))
    return "error of ours {:.0e}, of BMCTool {:.0e}".format(*errors)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--voxels", type=int, default=2000, help="spectra in a batch of ours")
    parser.add_argument("--train-offsets", type=int, default=3, help="offsets of the train that BMCTool simulates")
    arguments = parser.parse_args()
    torch.set_grad_enabled(False)
    offsets = torch.linspace(-8, 8, 50, dtype=torch.float64)
    protocol = Protocol(FIELD_T, offsets, 2.0, 2.0)
    table = Table("Bloch-McConnell simulation", "spectrum")
    cases = {
        "2 pools, CW, 50 offsets": Tissue(WATER, SOLUTES[:1]),
        "6 pools, super-Lorentzian, CW, 50 offsets": Tissue(WATER, SOLUTES, SEMISOLID),
    }
    for name, tissue in cases.items():
        peer_seconds, peer = min((peer_spectrum(tissue, protocol) for _ in range(3)), key=lambda run: run[0].wall)
        many = batch(tissue, arguments.voxels)
        simulate(many, protocol)
        our_seconds, ours = seconds(lambda many=many: simulate(many, protocol), 3)
        quality = accuracy(tissue, protocol, ours[0].numpy(), peer)
        table.row(name, peer_seconds, our_seconds / arguments.voxels, 200, quality)
    pulse_train(table, arguments.train_offsets)


def pulse_train(table: Table, count: int) -> None:
    shape = PulseShape.named("gaussian", 100)
    train = PulseTrain(36, 0.05, 0.005, shape)
    offsets = torch.linspace(-15, 15, 301, dtype=torch.float64)
    protocol = Protocol(FIELD_T, offsets, 2.0, train.total_time_s, train)
    tissue = Tissue(WATER, SOLUTES)
    chosen = torch.linspace(60, 240, count).round().long()
    peer_seconds, peer = peer_spectrum(tissue, protocol.select(chosen))
    simulate(tissue, protocol)
    our_seconds, ours = seconds(lambda: simulate(tissue, protocol), 3)
    difference = np.abs(ours[0, chosen].numpy() - peer).max()
    quality = f"max difference from BMCTool {difference:.0e} at {count} offsets, whose time is scaled to 301"
    table.row("5 pools, 36 Gaussian pulses, 301 offsets", peer_seconds * (301 / count), our_seconds, 500, quality)


if __name__ == "__main__":
    main()
