"""Report pictures are drawn in radiological orientation, or refused with a clear sentence."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from geometries import GRIDS, SHAPE

from NeuroCESTLib.report.colors import TUMOR_COLORS, region_colors
from NeuroCESTLib.report.figures import maps_figure, report_figure, spectra_figure
from NeuroCESTLib.report.maps import MapPanel
from NeuroCESTLib.report.spectra import AxisLabels, Spectrum, draw_spectra

RNG = np.random.default_rng(3)


def a_map(name: str = "amide") -> MapPanel:
    array = RNG.random(SHAPE)
    array[0] = np.nan
    return MapPanel(name, "%", array, "viridis", (0.2, 0.8))


def a_spectrum(name: str, fitted: bool = True) -> Spectrum:
    offsets = np.concatenate([[-300.0], np.linspace(4, -4, 17)])
    signal = 1 - 0.8 / (1 + offsets**2)
    return Spectrum(name, offsets, signal, np.full(18, 0.01), signal + 0.002 if fitted else None)


def is_picture(path: Path) -> bool:
    from matplotlib.image import imread

    picture = imread(path)
    return picture.shape[0] > 200 and picture.shape[1] > 200 and picture[..., :3].std() > 0.05


@pytest.mark.parametrize("name", GRIDS)
def test_maps_of_any_orientation_are_drawn(tmp_path: Path, name: str) -> None:
    roi = np.zeros(SHAPE, bool)
    roi[1:3, 1:3, 1:4] = True
    maps_figure(tmp_path / "maps.png", RNG.random(SHAPE), [a_map()], roi, GRIDS[name], {"tumour": roi}, "maps")
    assert is_picture(tmp_path / "maps.png")


@pytest.mark.parametrize("count", [1, 4, 7])
def test_a_report_holds_maps_and_spectra(tmp_path: Path, count: int) -> None:
    spectra = [a_spectrum(f"roi {i}", fitted=i != 1) for i in range(count)]
    report_figure(tmp_path / "report.png", RNG.random(SHAPE), [a_map(str(i)) for i in range(count)], spectra)
    assert is_picture(tmp_path / "report.png")


def test_tumour_compartments_have_the_colours_of_their_segments() -> None:
    from JointRegSegLib.images.compartments import COMPARTMENTS

    assert {c.name.lower(): c.color for c in COMPARTMENTS.values()} == TUMOR_COLORS
    names = ["White matter", *(c.name for c in COMPARTMENTS.values()), "White matter"]
    colors = region_colors(names)
    assert [colors[c.name] for c in COMPARTMENTS.values()] == [c.color for c in COMPARTMENTS.values()]
    assert colors["White matter"] not in TUMOR_COLORS.values()


def test_regions_keep_their_colours_apart() -> None:
    colors = region_colors(f"roi {number}" for number in range(9))
    assert len(set(list(colors.values())[:7])) == 7
    assert len(colors) == 9


def test_spectra_without_a_fit_are_drawn(tmp_path: Path) -> None:
    spectra_figure(tmp_path / "z.png", [a_spectrum("vial", fitted=False)], "measurement", "vials")
    assert is_picture(tmp_path / "z.png")


def test_each_power_is_a_curve_of_its_own_over_the_offset(tmp_path: Path) -> None:
    from matplotlib.figure import Figure

    offsets = np.tile(np.linspace(-5, 5, 11), 2)
    power = np.repeat([2.5, 1.0], 11)
    signal = 1 - power / 5 / (1 + offsets**2)
    figure = Figure()
    draw_spectra(figure, [Spectrum("tumour", offsets, signal, fit=signal, power_uT=power)], AxisLabels())
    upper = figure.axes[0]
    points = [line for line in upper.lines if line.get_linestyle() == "None"]
    assert [line.get_label() for line in points] == ["1 µT", "2.5 µT"]
    for line, b1 in zip(points, (1.0, 2.5), strict=True):
        np.testing.assert_allclose(line.get_xdata(), np.linspace(-5, 5, 11))
        np.testing.assert_allclose(line.get_ydata(), signal[power == b1])
    assert upper.get_xlim() == (5, -5)


def test_each_pass_through_a_list_of_offsets_is_a_curve_of_its_own() -> None:
    offsets = np.array([3.0, 0.0, -3.0] * 2 + [3.0, 0.0, -3.0])
    power = np.repeat([1.0, 1.0, 2.0], 3)
    curves = Spectrum("tumour", offsets, offsets, power_uT=power).curves()
    assert [label for label, _ in curves] == ["1 µT, pass 1", "1 µT, pass 2", "2 µT"]
    assert [rows.tolist() for _, rows in curves] == [[2, 1, 0], [5, 4, 3], [8, 7, 6]]


def test_a_reference_that_is_measured_again_makes_no_curve() -> None:
    offsets = np.array([-300.0, 3.0, 0.0, -3.0, -300.0])
    ((label, rows),) = Spectrum("tumour", offsets, offsets, power_uT=np.ones(5)).curves()
    assert label == ""
    assert rows.tolist() == [0, 4, 3, 2, 1]


def test_maps_without_any_value_are_drawn(tmp_path: Path) -> None:
    empty = replace(a_map(), array=np.full(SHAPE, np.nan))
    maps_figure(tmp_path / "maps.png", np.full(SHAPE, np.nan), [empty])
    assert (tmp_path / "maps.png").stat().st_size > 1000


def test_a_map_of_another_shape_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="'amide' has shape"):
        maps_figure(tmp_path / "maps.png", np.ones((2, 3, 4)), [a_map()])
    assert list(tmp_path.iterdir()) == []


def test_missing_matplotlib_is_said_clearly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ValueError, match="pip install matplotlib"):
        spectra_figure(tmp_path / "z.png", [a_spectrum("vial")])


def test_the_colours_of_a_map_are_those_of_its_bar(tmp_path: Path) -> None:
    from matplotlib.image import imread

    low = replace(a_map(), array=np.full(SHAPE, 0.2), color_map="viridis")
    maps_figure(tmp_path / "maps.png", np.full(SHAPE, 1000.0), [low])
    picture = imread(tmp_path / "maps.png")[..., :3]
    darkest = np.array([68, 1, 84]) / 255
    share = (np.abs(picture - darkest).max(-1) < 0.01).mean()
    assert share > 0.05


@pytest.mark.parametrize("shape", [(1, 1, 7), (4, 1, 5), (1, 6, 1), (5, 1, 1)])
def test_regions_of_images_one_voxel_wide_are_drawn(tmp_path: Path, shape: tuple[int, int, int]) -> None:
    values = np.arange(np.prod(shape), dtype=float).reshape(shape)
    panel = MapPanel("amide", "mM", values, "viridis", (0.0, 5.0))
    region = values < values.size // 2
    report_figure(
        tmp_path / "r.png", values, [panel], [a_spectrum("region")], mask=values >= 0, rois={"region": region}
    )
    assert is_picture(tmp_path / "r.png")
