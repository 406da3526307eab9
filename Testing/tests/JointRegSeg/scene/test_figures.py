"""Pictures of registrations, trainings and evaluations: their common look, and the slices and numbers they show."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk
from joint_studies import HeadStudy, exact_result, layered_tumor

from JointRegSegLib.evaluation import overview
from JointRegSegLib.images.compartments import COMPARTMENTS
from JointRegSegLib.metrics.surface_distance import HD95_ONE_EMPTY_MM
from JointRegSegLib.pictures import cases as case_pictures
from JointRegSegLib.pictures import curves
from JointRegSegLib.pictures.cases import CasePicture, draw_cases
from JointRegSegLib.scene import report
from JointRegSegLib.scene.results import JointRegSegResult
from NeuroCESTLib.scene.display import color_map_rgb

COLORS = {compartment.name: compartment.color for compartment in COMPARTMENTS.values()}


@pytest.fixture
def figures(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Any]]:
    """The figures that are drawn in a test, kept instead of written."""
    from matplotlib import pyplot

    drawn: list[Any] = []
    for module in (case_pictures, curves, overview):
        monkeypatch.setattr(module, "save_figure", lambda figure, path: drawn.append(figure))
    monkeypatch.setattr(report, "save_figure", lambda figure, path: drawn.append(figure))
    yield drawn
    pyplot.close("all")


def texts(figure: Any) -> list[str]:
    from matplotlib.text import Text

    return [text.get_text() for text in figure.findobj(Text) if text.get_text()]


def legend(figure: Any) -> dict[str, tuple[float, ...]]:
    """Names and colours of the patches in the legends."""
    from matplotlib.legend import Legend

    entries = [
        (text.get_text(), patch.get_facecolor()[:3])
        for one in figure.findobj(Legend)
        for text, patch in zip(one.get_texts(), one.legend_handles, strict=True)
        if hasattr(patch, "get_facecolor")
    ]
    return dict(entries)


def contour_colors(axis: Any) -> set[tuple[float, ...]]:
    from matplotlib.contour import ContourSet

    return {tuple(np.round(c.get_edgecolor()[0][:3], 6)) for c in axis.collections if isinstance(c, ContourSet)}


def maps(figure: Any) -> list[Any]:
    """Pictures in the colours of the Jacobian map."""
    # the scene's map and matplotlib's interpolate between the same colours
    wanted = color_map_rgb("diverging")
    images = [image for axis in figure.axes for image in axis.get_images()]
    return [i for i in images if np.abs(i.cmap(np.linspace(0, 1, 256))[:, :3] - wanted).max() < 0.06]


def validation_case(labels: np.ndarray | None, predicted: np.ndarray | None) -> CasePicture:
    image = np.zeros((14, 20, 20), np.float32)
    image[1:-1, 2:-2, 2:-2] = np.random.default_rng(0).uniform(1, 2, (12, 16, 16))
    jacobian = np.full(image.shape, 1.2, np.float32)
    return CasePicture("a 1", "a 2", "FLAIR", image, image, image, labels, predicted, jacobian)


def head_result() -> JointRegSegResult:
    studies = {"fixed": HeadStudy.of("axial"), "moving": HeadStudy.of("oblique", second=True)}
    joint = exact_result(*studies.values())
    images = {which: study.images(which) for which, study in studies.items()}
    return JointRegSegResult(joint, images)


def test_the_report_shows_the_slice_with_all_compartments() -> None:
    import SimpleITK as sitk

    labels, brain = sitk.GetImageFromArray(layered_tumor()), sitk.GetImageFromArray(np.ones((14, 20, 20), np.uint8))
    assert set(np.unique(report._Cut(brain, labels, brain).of(labels))) == {0, 1, 2, 3}


def beside_the_tumor(image: sitk.Image, labels: sitk.Image, padded: bool) -> sitk.Image:
    """The upper half of an image above the tumour, alone or padded to the whole grid by background."""
    filled = np.flatnonzero((sitk.GetArrayViewFromImage(labels) > 0).any((1, 2)))
    first = int(filled[-1]) + 2
    if not padded:
        return image[:, :, first:]
    values = sitk.GetArrayFromImage(image)
    values[:first] = values.min()
    slab = sitk.GetImageFromArray(values)
    slab.CopyInformation(image)
    return slab


@pytest.mark.parametrize("padded", [False, True])
def test_pictures_show_an_image_that_shows_the_brain_around_the_tumor(figures: list[Any], padded: bool) -> None:
    """FLAIR, which is preferred, is a slab beside the tumour."""
    result = head_result()
    study, labels = result.studies["fixed"], result.joint.fixed_labels
    slab = beside_the_tumor(study.images["flair"], labels, padded)
    result.studies["fixed"] = replace(study, images={**study.images, "flair": slab})
    report.draw_report(result, "report.png")
    found = SimpleNamespace(labels=labels, mask=result.joint.fixed_mask, uncertainty=None, volumes=[])
    report.draw_segmentation(SimpleNamespace(found=found, study=result.studies["fixed"]), "report.png")
    titles = [axis.get_title() for axis in figures[0].axes]
    assert titles[:3] == ["fixed, T1", "moving, T1", "moving on fixed, T1"]
    assert figures[1].axes[0].get_title() == "T1"
    result.studies["fixed"] = study
    report.draw_report(result, "report.png")
    assert figures[2].axes[0].get_title() == "fixed, FLAIR"


def test_compartments_have_the_colours_of_the_segmentations_in_all_pictures(figures: list[Any]) -> None:
    labels = layered_tumor()
    draw_cases([validation_case(labels, np.roll(labels, 1, 1))], "validation.png")
    report.draw_report(head_result(), "report.png")
    without_cavity = {name: color for name, color in COLORS.items() if name != "Resection cavity"}
    for figure in figures:
        shown = legend(figure)
        assert {name: shown.get(name) for name in without_cavity} == without_cavity
        assert "Resection cavity" not in shown  # it is named only where a segmentation has one
        outlined = contour_colors(figure.axes[0])
        assert outlined
        assert outlined <= set(without_cavity.values())
    assert contour_colors(figures[0].axes[0]) == set(without_cavity.values())
    assert {"expected", "predicted"} <= set(texts(figures[0]))


def test_a_picture_without_segmentations_has_no_legend(figures: list[Any]) -> None:
    draw_cases([validation_case(None, None)], "validation.png")
    assert figures[0].legends == []


def test_jacobian_maps_have_one_scale_with_growth_in_red_and_nothing_outside(figures: list[Any]) -> None:
    draw_cases([validation_case(layered_tumor(), None)], "validation.png")
    report.draw_report(head_result(), "report.png")
    for figure in figures:
        (image,) = maps(figure)
        assert image.get_clim() == case_pictures.JACOBIAN_WINDOW == (0.5, 1.5)
        red, _, blue, _ = image.cmap(image.norm(1.4))
        assert red > blue
        values = np.ma.filled(image.get_array(), np.nan)
        assert np.isnan(values).any()
        assert np.isfinite(values).any()
        assert "Jacobian determinant (red: growth)" in texts(figure)
    assert np.isnan(maps(figures[0])[0].get_array().filled(np.nan)[0]).all()


def test_texts_spell_tumour_in_british_english(figures: list[Any]) -> None:
    names = ("whole_tumor", "tumor_core", "enhancing_tumor")
    rows = [{"step": n, "loss": 1.0, **{f"val_dice_{name}": 0.5 for name in names}} for n in (1, 2)]
    rows = [{**row, "val_dice": 0.5, "val_warped_dice": 0.4} for row in rows]
    curves.draw_curves(rows, "curves.png")
    overview.draw_overview({"w": [{f"fixed_dice_{name}": 0.5 for name in names}]}, "overview.png")
    for figure in figures:
        text = " ".join(texts(figure)).lower()
        assert "enhancing tumour" in text
        assert "tumor " not in text + " "
        assert "tumor" not in text.replace("tumour", "")


def test_a_distance_to_nothing_is_marked_and_does_not_stretch_the_axis(figures: list[Any]) -> None:
    rows = [{"fixed_hd95_mm_enhancing_tumor": value} for value in (2.0, 4.0, HD95_ONE_EMPTY_MM)]
    overview.draw_overview({"w": rows}, "overview.png")
    (axis,) = figures[0].axes
    assert axis.get_ylim()[1] < 10
    (cross,) = [line for line in axis.lines if line.get_marker() == "x"]
    assert len(cross.get_xdata()) == 1
    assert "1" in [text.get_text() for text in axis.texts]
    assert "without a distance" in axis.get_title()
    dots = [line for line in axis.lines if line.get_marker() == "o"]
    assert sorted(value for line in dots for value in line.get_ydata()) == [2.0, 4.0]


def test_distances_that_all_exist_are_not_marked(figures: list[Any]) -> None:
    overview.draw_overview({"w": [{"fixed_hd95_mm_tumor_core": 3.0}]}, "overview.png")
    (axis,) = figures[0].axes
    assert axis.get_title() == ""
    assert not [line for line in axis.lines if line.get_marker() == "x"]


def test_pictures_are_written(tmp_path: Path) -> None:
    from matplotlib.image import imread

    draw_cases([validation_case(layered_tumor(), layered_tumor())] * 2, tmp_path / "validation.png", "two")
    assert imread(tmp_path / "validation.png").shape[1] > 1000


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_resampled_slice_is_that_of_the_resampled_volume(axis: int) -> None:
    rng = np.random.default_rng(axis)
    shape = [12, 14, 16]
    grid = sitk.GetImageFromArray(np.zeros(shape, np.float32))
    grid.SetSpacing([5.0 if a == 2 - axis else 1.0 for a in range(3)])  # thick slices along the axis to be cut
    grid.SetOrigin((3.0, -20.0, 7.0))
    turn = sitk.Euler3DTransform((0.0, 0.0, 0.0), 0.1, -0.2, 0.3, (1.0, -2.0, 0.5))
    grid.SetDirection(turn.GetMatrix())
    image = sitk.GetImageFromArray(rng.normal(size=(20, 20, 20)).astype(np.float32))
    image.SetOrigin((0.0, -22.0, 4.0))
    brain = sitk.Image(grid.GetSize(), sitk.sitkUInt8) + 1
    brain.CopyInformation(grid)
    cut = report._Cut(grid, None, brain)
    whole = cut.of(sitk.Resample(image, grid, turn, sitk.sitkLinear, 0.0, sitk.sitkFloat32))
    assert whole.any()
    assert np.allclose(cut.resampled(image, turn), whole, atol=1e-5)
