"""The digital brain phantom, made small."""

from __future__ import annotations

import numpy as np
import pytest

from CESTQuantLib.tissue import phantom
from CESTQuantLib.tissue.model import tissue_model_from_dict


@pytest.fixture(scope="module")
def small() -> phantom.Phantom:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(phantom, "SHAPE", (1, 20, 18))
        patch.setattr(phantom, "SPACING_MM", (9.0, 9.0, 5.0))
        yield phantom.make_phantom(seed=3)


def test_every_region_is_in_the_phantom(small):
    assert set(np.unique(small.labels)) == {phantom.AIR, *phantom.REGIONS}


def test_the_same_seed_gives_the_same_data(small):
    again = phantom.make_phantom(seed=3)
    np.testing.assert_array_equal(again.signal, small.signal)
    np.testing.assert_array_equal(again.m0, small.m0)
    assert not np.array_equal(phantom.make_phantom(seed=4).m0, small.m0)


def test_true_values_scatter_around_the_preset_of_their_region(small):
    core = small.labels == phantom.TUMOR_CORE
    preset = tissue_model_from_dict(phantom.tissue_values("glioma 3T"))
    for path in ("water.T1_s", "amide.fraction", "semisolid.fraction"):
        values = small.truth[path][core]
        assert np.median(values) == pytest.approx(preset.entries[path], rel=0.05)
        assert 0 < values.std() / values.mean() < 0.1
        assert (small.truth[path][small.labels == phantom.AIR] == 0).all()


def test_the_signal_far_from_water_approaches_m0(small):
    far = int(np.argmax(small.protocol.offsets_ppm.numpy()))
    inside = small.labels > 0
    ratio = small.signal[far][inside] / small.m0[inside]
    assert np.median(ratio) == pytest.approx(1.0, abs=0.1)
    assert small.signal[:, ~inside].max() < 0.02 * small.m0[inside].min()
