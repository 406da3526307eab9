"""Spectra of single places and of regions, as the live plot and the console show them."""

from __future__ import annotations

from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import torch

from CESTQuantLib.logic import CESTQuantLogic
from CESTQuantLib.physics.protocol import Protocol
from NeuroCESTLib.scene.geometry import Geometry
from NeuroCESTLib.scene.sequences import array_to_sequence
from NeuroCESTLib.scene.volumes import add_volume, volume_array

OFFSETS = np.linspace(-5.0, 5.0, 21)
GEOMETRY = Geometry.from_spacing((2, 3, 4), (2.0, 2.0, 5.0))


MODEL = {
    "water": {"T1_s": 1.4, "T2_s": 0.08},
    "solutes": [
        {
            "name": "amide",
            "fraction": {"fit": True, "bounds": [0, 0.01]},
            "k_Hz": 30,
            "T1_s": 1,
            "T2_s": 0.1,
            "dw_ppm": 3.5,
        }
    ],
}


def line(offsets: np.ndarray, center: float, width: float) -> np.ndarray:
    return 1 / (1 + ((offsets - center) / (width / 2)) ** 2)


@pytest.fixture
def scene(slicer: ModuleType) -> SimpleNamespace:
    """An acquisition of 24 voxels whose amide line is different in each of them, with M0."""
    amide = np.linspace(0.02, 0.1, 24).reshape(GEOMETRY.shape)
    z = 1 - 0.8 * line(OFFSETS, 0, 1.4)[:, None, None, None] - amide * line(OFFSETS, 3.5, 1.0)[:, None, None, None]
    signal = array_to_sequence((500 * z).astype(np.float32), GEOMETRY, "cest", OFFSETS)
    m0 = add_volume(np.full(GEOMETRY.shape, 500.0, np.float32), GEOMETRY, "m0")
    return SimpleNamespace(signal=signal, m0=m0, z=z)


def place(i: int, j: int, k: int) -> tuple[float, ...]:
    return tuple((GEOMETRY.ijk_to_ras @ (i, j, k, 1.0))[:3])


def test_spectrum_is_that_of_the_voxel_at_the_place(scene: SimpleNamespace) -> None:
    spectrum = CESTQuantLogic().spectrumAt(scene.signal, None, place(3, 1, 1), reference=scene.m0)
    np.testing.assert_allclose(spectrum.offsets_ppm, OFFSETS)
    np.testing.assert_allclose(spectrum.signal, scene.z[:, 1, 1, 3], atol=1e-6)
    assert (spectrum.fit, spectrum.sd, spectrum.residual, spectrum.values) == (None, None, None, {})


def test_fit_at_a_place_agrees_with_the_maps(scene: SimpleNamespace) -> None:
    logic = CESTQuantLogic()
    spectrum = logic.spectrumAt(scene.signal, None, place(2, 2, 0), reference=scene.m0, method="lorentzian")
    maps = logic.fit(scene.signal, None, reference=scene.m0, method="lorentzian").nodes
    for name, (value, error) in spectrum.values.items():
        assert value == pytest.approx(float(volume_array(maps[name])[0, 2, 2]), abs=2e-3)
        if f"{name}_sd" in maps:
            expected = float(volume_array(maps[f"{name}_sd"])[0, 2, 2])
            assert error == pytest.approx(expected, rel=0.2, abs=1e-3, nan_ok=True)
    assert np.abs(spectrum.residual).max() < 0.02
    # the baseline minus all lines is the fit
    lines = sum(1 - curve for curve in spectrum.pools.values())
    np.testing.assert_allclose(spectrum.values["baseline"][0] - lines, spectrum.fit, atol=1e-5)


def test_region_has_mean_and_standard_deviation(scene: SimpleNamespace) -> None:
    mask = np.zeros(GEOMETRY.shape, bool)
    mask[0] = True
    spectra = CESTQuantLogic().spectra(scene.signal, None, reference=scene.m0)
    spectrum = spectra.over(mask, "slice", "mtrasym")
    np.testing.assert_allclose(spectrum.signal, scene.z[:, 0].mean((1, 2)), atol=1e-6)
    np.testing.assert_allclose(spectrum.sd, scene.z[:, 0].std((1, 2)), atol=1e-6)
    amide = scene.z[OFFSETS == -3.5, 0].mean() - scene.z[OFFSETS == 3.5, 0].mean()
    assert spectrum.values["mtr_asym_3.5ppm"][0] == pytest.approx(amide, abs=1e-3)


def test_unusable_measurements_of_a_voxel_do_not_count_in_the_standard_deviation(scene: SimpleNamespace) -> None:
    scene.z[3, 0, 0, 0] = np.nan
    signal = array_to_sequence((500 * scene.z).astype(np.float32), GEOMETRY, "gap", OFFSETS)
    everywhere = np.ones(GEOMETRY.shape, bool)
    spectrum = CESTQuantLogic().spectra(signal, None, reference=scene.m0).over(everywhere, "all")
    np.testing.assert_allclose(spectrum.sd, np.nanstd(scene.z, axis=(1, 2, 3)), atol=1e-6)


@pytest.mark.parametrize("method", ["lorentzian", "mtr-rex", "ld"])
def test_with_a_b0_map_the_fit_is_drawn_over_the_spectrum_that_was_fitted(scene: SimpleNamespace, method: str) -> None:
    shift_ppm = np.where(np.arange(4) < 2, 0.5, -0.25) * np.ones(GEOMETRY.shape)
    offsets = np.linspace(-5.0, 5.0, 41)
    z = sum(-a * line(offsets[:, None, None, None], x + shift_ppm, w) for a, x, w in ((0.8, 0, 1.4), (0.06, 3.5, 1)))
    signal = array_to_sequence((500 * (1 + z)).astype(np.float32), GEOMETRY, "shifted", offsets)
    b0 = add_volume(shift_ppm.astype(np.float32), GEOMETRY, "b0")
    spectra = CESTQuantLogic().spectra(signal, None, reference=scene.m0, b0=b0)
    both = spectra.over(np.ones(GEOMETRY.shape, bool), "all", method)
    for spectrum in (spectra.at(place(0, 0, 0), method), spectra.at(place(3, 0, 0), method), both):
        assert spectrum.offsets_ppm[np.nanargmin(spectrum.signal)] == 0
        assert spectrum.offsets_ppm[np.nanargmin(spectrum.fit)] == 0
        near_water = np.abs(spectrum.offsets_ppm) < 2
        assert np.nanmax(np.abs(spectrum.residual[near_water])) < 0.05
    assert both.sd.max() < 0.05  # the spread of B0 broadens neither the mean nor its standard deviation
    measured = spectra.at(place(0, 0, 0))
    assert measured.offsets_ppm[np.argmin(measured.signal)] == 0.5


def test_of_several_powers_with_field_maps_the_fitted_one_is_drawn(scene: SimpleNamespace) -> None:
    offsets, powers = np.tile(OFFSETS, 2), np.repeat([1.0, 2.0], len(OFFSETS))
    protocol = {
        "field_strength_T": 3.0,
        "offsets_ppm": offsets.tolist(),
        "b1_uT": powers.tolist(),
        "saturation_type": "cw",
        "saturation_time_s": 2.0,
    }
    z = np.concatenate((scene.z, 1 - 1.2 * (1 - scene.z)))
    signal = array_to_sequence((500 * z).astype(np.float32), GEOMETRY, "powers", offsets)
    fields = {
        name: add_volume(np.full(GEOMETRY.shape, value, np.float32), GEOMETRY, name)
        for name, value in (("b0", 0.01), ("b1", 0.9))
    }
    spectrum = CESTQuantLogic().spectrumAt(
        signal, protocol, place(1, 1, 1), reference=scene.m0, method="lorentzian", power_uT=1.0, **fields
    )
    assert set(spectrum.power_uT) == {1.0}
    assert np.nanmax(np.abs(spectrum.residual)) < 0.05
    assert not any("B1 map is not used" in warning for warning in spectrum.warnings)


def test_each_power_is_a_curve_of_its_own_over_the_offset(slicer: ModuleType) -> None:
    offsets = np.tile([3.0, -3.0, 0.5], 2)
    power = np.repeat([2.0, 1.0], 3)
    protocol = {
        "field_strength_T": 3.0,
        "offsets_ppm": offsets.tolist(),
        "b1_uT": power.tolist(),
        "saturation_type": "cw",
        "saturation_time_s": 2.0,
        "signal_normalisation": "none",
    }
    values = (np.arange(6.0)[:, None, None, None] * np.ones(GEOMETRY.shape) + 1) / 8
    signal = array_to_sequence(values.astype(np.float32), GEOMETRY, "cest", offsets)
    spectrum = CESTQuantLogic().spectrumAt(signal, protocol, place(0, 0, 0))
    found = [
        (b1, spectrum.offsets_ppm[rows].tolist(), (8 * spectrum.signal[rows]).tolist())
        for b1, rows in spectrum.powers()
    ]
    assert found == [(1.0, [-3.0, 0.5, 3.0], [5.0, 6.0, 4.0]), (2.0, [-3.0, 0.5, 3.0], [2.0, 3.0, 1.0])]


def test_place_outside_of_the_acquisition_and_voxel_without_signal_are_named(scene: SimpleNamespace) -> None:
    mask = np.zeros(GEOMETRY.shape, np.uint8)
    mask[0] = 1
    node = add_volume(mask, GEOMETRY, "mask", label=True)
    spectra = CESTQuantLogic().spectra(scene.signal, None, reference=scene.m0, mask=node)
    with pytest.raises(ValueError, match="outside of 'cest'"):
        spectra.at(place(9, 0, 0))
    with pytest.raises(ValueError, match=r"voxel \(0, 0, 1\) of 'cest' has no usable signal"):
        spectra.at(place(0, 0, 1))


@pytest.mark.parametrize(
    ("offsets", "b1_uT", "over_offset"),
    [
        (np.tile(np.linspace(-5, 5, 6), 2), np.repeat([1.0, 2.5], 6), True),
        (np.linspace(-5, 5, 12), np.ones(12), True),
        (np.tile(np.linspace(-5, 5, 6), 2), np.ones(12), True),  # a list that is measured twice
        (np.full(12, 3.0), np.linspace(1, 2, 12), False),  # fingerprinting
        (np.repeat([3.5, -3.5, 100.0], 4), np.ones(12), False),  # few offsets, measured again and again
        (np.linspace(-5, 5, 12), np.linspace(1, 2, 12), False),  # a schedule
    ],
)
def test_reports_draw_spectra_over_the_offset_and_schedules_in_their_order(
    slicer: ModuleType, offsets: np.ndarray, b1_uT: np.ndarray, over_offset: bool
) -> None:
    from CESTQuantLib.scene.report import _by_offset

    protocol = Protocol(3.0, torch.from_numpy(offsets), torch.from_numpy(b1_uT), torch.tensor(2.0))
    drawing = SimpleNamespace(quantification=SimpleNamespace(protocol=protocol))
    assert _by_offset(drawing) == over_offset


def test_repeated_measurements_are_averaged_in_the_report() -> None:
    from CESTQuantLib.scene.report import _averaged

    signal = np.array([[1.0, 2.0, 3.0, 4.0], [5.0, np.nan, 7.0, np.nan]])
    x, power, means, fit = _averaged(np.array([3.0, -3.0, 3.0, -3.0]), np.ones(4), signal, np.array([1.0, 2, 3, 4]))
    np.testing.assert_array_equal(x, [3.0, -3.0])
    np.testing.assert_array_equal(power, [1.0, 1.0])
    np.testing.assert_array_equal(means, [[2.0, 3.0], [6.0, np.nan]])
    assert fit is not None
    np.testing.assert_array_equal(fit, [2.0, 3.0])


def test_message_of_a_method_at_a_place_names_the_acquisition(scene: SimpleNamespace) -> None:
    logic = CESTQuantLogic()
    spectra = logic.spectra(scene.signal, None, reference=scene.m0)
    with pytest.raises(ValueError, match=r"^'cest': "):  # its offsets alone say no B1
        spectra.at(place(1, 1, 1), "r1rho", logic.settings(model=MODEL))
