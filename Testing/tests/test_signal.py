"""Normalisation of measured signals."""

from __future__ import annotations

import math

import pytest
import torch
from CESTQuantLib.protocol import Protocol
from CESTQuantLib.signal import normalise, region_statistics

OFFSETS = [-3.0, -1.0, 1.0, 3.0]
Z = torch.tensor([[0.9, 0.5, 0.4, 0.8], [0.8, 0.6, 0.5, 0.7]], dtype=torch.float64)


def protocol(offsets: list[float] | None = None, normalisation: str = "m0") -> Protocol:
    return Protocol(3.0, OFFSETS if offsets is None else offsets, 1.0, 1.0, signal_normalisation=normalisation)


def test_one_reference_divides_every_measurement():
    m0 = torch.tensor([500.0, 800.0])
    result = normalise(Z * m0[:, None], protocol(), m0)
    torch.testing.assert_close(result.signal, Z)
    torch.testing.assert_close(result.reference, m0.double())


def test_a_reference_for_each_measurement_divides_its_own():
    drift = torch.tensor([[500.0, 510.0, 520.0, 530.0], [800.0, 790.0, 780.0, 770.0]])
    torch.testing.assert_close(normalise(Z * drift, protocol(), drift).signal, Z)


def test_several_references_are_interpolated_over_the_acquisition():
    drift = torch.tensor([500.0, 510.0, 520.0, 530.0]).expand(2, -1)
    torch.testing.assert_close(normalise(Z * drift, protocol(), drift[:, [0, 3]]).signal, Z)


def test_interleaved_far_off_resonance_measurements_serve_as_references_and_leave_the_spectrum():
    offsets = [300.0, -3.0, -1.0, -300.0, 1.0, 3.0, 300.0]
    drift = torch.linspace(500, 560, 7, dtype=torch.float64)
    whole = torch.ones(2, 7, dtype=torch.float64)
    whole[:, [1, 2, 4, 5]] = Z
    result = normalise(whole * drift, protocol(offsets), None)
    torch.testing.assert_close(result.signal, Z)
    assert result.protocol.offsets_ppm.tolist() == OFFSETS


def test_unit_norm_and_no_normalisation():
    unit = normalise(7 * Z, protocol(normalisation="l2"), None).signal
    torch.testing.assert_close(unit.square().sum(1), torch.ones(2, dtype=torch.float64))
    torch.testing.assert_close(normalise(Z, protocol(normalisation="none"), None).signal, Z)


@pytest.mark.parametrize("bad", [0.0, math.nan])
def test_a_voxel_without_usable_reference_becomes_nan_and_touches_no_other(bad):
    result = normalise(100 * Z, protocol(), torch.tensor([100.0, bad])).signal
    torch.testing.assert_close(result[0], Z[0])
    assert torch.isnan(result[1]).all()


def test_missing_reference_and_wrong_counts_are_one_sentence():
    with pytest.raises(ValueError, match=r"no M0 reference for 'scan'.*signal_normalisation"):
        normalise(Z, protocol(), None, where="'scan'")
    with pytest.raises(ValueError, match="4 offsets but 'scan' has 3 measurements"):
        normalise(Z[:, :3], protocol(), None, where="'scan'")


def test_region_statistics_leave_nan_out():
    values = torch.tensor([1.0, 2.0, 3.0, 4.0, math.nan])
    statistics = region_statistics(values)
    assert statistics["n"] == 4
    assert (statistics["mean"], statistics["median"], statistics["q1"], statistics["q3"]) == (2.5, 2.5, 1.75, 3.25)
    assert statistics["sd"] == pytest.approx(1.2909944)
    assert region_statistics(torch.tensor([math.nan]))["n"] == 0
