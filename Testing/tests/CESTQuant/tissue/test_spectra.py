"""Spectra with the maps of their voxels."""

from __future__ import annotations

import pytest
import torch

from CESTQuantLib.physics.protocol import Protocol
from CESTQuantLib.tissue.spectra import ZSpectra

PROTOCOL = Protocol(3.0, [-3.5, 0.0, 3.5], [1.0, 2.0, 3.0], 2.0)
SIGNAL = torch.arange(6.0, dtype=torch.float64).reshape(2, 3)


def test_measurements_are_selected_with_their_protocol_and_validity() -> None:
    valid = torch.tensor([[True, False, True], [True, True, True]])
    t1 = torch.ones(2)
    chosen = ZSpectra(SIGNAL, PROTOCOL, valid=valid, t1_s=t1).select(torch.tensor([2, 1]))
    assert chosen.signal.tolist() == [[2.0, 1.0], [5.0, 4.0]]
    assert chosen.protocol.offsets_ppm.tolist() == [3.5, 0.0]
    assert chosen.protocol.b1_uT.tolist() == [3.0, 2.0]
    assert chosen.valid.tolist() == [[True, False], [True, True]]
    assert chosen.t1_s.tolist() == [1.0, 1.0]
    assert chosen.voxel_count == 2


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"signal": SIGNAL[:, :2]}, r"with the 3 measurements of the protocol, not \(2, 2\)"),
        ({"signal": SIGNAL[0]}, r"not \(3,\)"),
        ({"valid": torch.ones(2, 2, dtype=torch.bool)}, r"valid has the shape \(2, 2\), the signal \(2, 3\)"),
        ({"b0_shift_ppm": torch.zeros(3)}, r"the map 'b0_shift_ppm' has the shape \(3,\), not \(2,\)"),
        ({"maps": {"t2.nii": torch.zeros(2, 1)}}, r"the map 't2\.nii' has the shape \(2, 1\), not \(2,\)"),
    ],
)
def test_shapes_that_do_not_belong_together_are_refused(changes: dict, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        ZSpectra(**{"signal": SIGNAL, "protocol": PROTOCOL, **changes})


def test_signal_and_maps_move_to_a_device_together() -> None:
    everything = ZSpectra(SIGNAL, PROTOCOL, torch.ones(2, 3, dtype=torch.bool), maps={"t1": torch.ones(2)})
    moved = everything.to("meta")
    assert {moved.signal.device.type, moved.valid.device.type, moved.maps["t1"].device.type} == {"meta"}
    assert moved.protocol is PROTOCOL
    assert moved.b0_shift_ppm is None


def test_zeros_of_b1_and_t1_are_unknown_and_do_not_count_in_a_mean() -> None:
    map_with_zero = torch.tensor([1.2, 0.0], dtype=torch.float64)
    maps = {"t1": map_with_zero, "b1": map_with_zero, "fraction.nii": map_with_zero}
    mean = ZSpectra(SIGNAL, PROTOCOL, b1_relative=map_with_zero, t1_s=map_with_zero, maps=maps).mean_voxel()
    assert (mean.b1_relative.item(), mean.t1_s.item()) == (1.2, 1.2)
    assert {name: values.item() for name, values in mean.maps.items()} == {"t1": 1.2, "b1": 1.2, "fraction.nii": 0.6}
