"""The picture of a run: both visits with their compartments, before and after, Jacobian map and volumes."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from NeuroCESTLib.core.pictures import new_figure, save_figure
from NeuroCESTLib.report.maps import write_letters
from NeuroCESTLib.scene.display import color_map_rgb
from NeuroCESTLib.scene.geometry import Geometry
from NeuroCESTLib.scene.slices import SliceView, bounding_box, slice_view

from ..images.compartments import title_of
from ..images.modalities import TITLES
from ..pictures.cases import JACOBIAN_TITLE
from ..pictures.compartments import compartment_handles, outline
from ..pictures.slices import checkerboard, fullest_slice
from .results import JACOBIAN_REACH, JointRegSegResult

if TYPE_CHECKING:
    import SimpleITK as sitk

PREFERRED = ("t1ce", "flair", "t1", "t2")
"""Modality that is shown, the first that both visits have."""


def draw_report(result: JointRegSegResult, path: str | Path, title: str = "") -> None:
    """Write the report picture (PNG); ValueError where matplotlib is missing or the file cannot be written."""
    import SimpleITK as sitk

    joint = result.joint
    fixed_modality, moving_modality = shown_modalities(result)
    fixed = result.studies["fixed"].images[fixed_modality]
    moving = result.studies["moving"].images[moving_modality]
    identity = sitk.Transform(3, sitk.sitkIdentity)
    maps = {"fixed": (fixed, identity), "before": (moving, identity), "after": (moving, joint.moving_to_fixed)}
    on_fixed = {
        name: sitk.Resample(image, joint.jacobian, transform, sitk.sitkLinear, 0.0, sitk.sitkFloat32)
        for name, (image, transform) in maps.items()
    }
    here = _Cut(joint.jacobian, joint.fixed_labels, joint.fixed_mask)
    there = _Cut(moving, _onto(joint.moving_labels, moving), _onto(joint.moving_mask, moving))
    pictures = {name: here.cut(image) for name, image in on_fixed.items()}
    figure = new_figure((13.2, 7.4), title)
    axes = figure.subplots(2, 4)
    first, second = TITLES[fixed_modality], TITLES[moving_modality]
    _draw(axes[0, 0], pictures["fixed"], here, f"fixed, {first}", joint.fixed_labels)
    _draw(axes[0, 1], there.cut(moving), there, f"moving, {second}", _onto(joint.moving_labels, moving))
    _draw(axes[0, 2], pictures["after"], here, f"moving on fixed, {second}", joint.warped_labels)
    _write_volumes(axes[0, 3], result)
    for axis, name in ((axes[1, 0], "before"), (axes[1, 1], "after")):
        board = checkerboard(_grey(pictures["fixed"]), _grey(pictures[name]), here.view.aspect)
        _draw(axis, board, here, f"checkerboard {name}")
    _draw_map(figure, axes[1, 2], here, pictures["fixed"], joint.jacobian, joint.fixed_mask)
    _draw_uncertainty(figure, axes[1, 3], here, pictures["fixed"], joint)
    save_figure(figure, path)


def shown_modalities(result: JointRegSegResult) -> tuple[str, str]:
    """Modality of the fixed and of the moving study to show: the same one where they share any."""
    fixed, moving = (result.studies[which].present for which in ("fixed", "moving"))
    for modality in PREFERRED:
        if modality in fixed and modality in moving:
            return modality, modality
    return fixed[0], moving[0]


class _Cut:
    """One slice of a grid, through the most of the compartments (or the brain), cropped to the brain."""

    def __init__(self, grid: sitk.Image, labels: sitk.Image | None, brain: sitk.Image) -> None:
        inside = _array(brain) > 0
        view = slice_view(Geometry.from_sitk(grid), inside)
        index = fullest_slice(None if labels is None else _array(labels), inside, view.axis)
        self.view: SliceView = dataclasses.replace(view, index=index)
        self._box = bounding_box(self.view.cut(inside))

    def cut(self, image: sitk.Image) -> np.ndarray:
        """Picture (row, column) of an image on the grid."""
        return self.view.cut(_array(image))[self._box]


def _array(image: sitk.Image) -> np.ndarray:
    import SimpleITK as sitk

    return sitk.GetArrayViewFromImage(image)


def _onto(labels: sitk.Image | None, image: sitk.Image) -> sitk.Image | None:
    import SimpleITK as sitk

    return None if labels is None else sitk.Resample(labels, image, sitk.Transform(), sitk.sitkNearestNeighbor)


def _grey(picture: np.ndarray) -> np.ndarray:
    """Picture from 0 to 1, without outliers."""
    values = picture[np.isfinite(picture) & (picture != 0)]
    low, high = np.percentile(values, (1, 99.5)) if values.size else (0.0, 1.0)
    return np.clip((np.nan_to_num(picture) - low) / max(high - low, 1e-12), 0, 1)


def _draw(axis: Any, picture: np.ndarray, cut: _Cut, title: str, labels: sitk.Image | None = None) -> None:
    axis.imshow(_grey(picture), cmap="gray", vmin=0, vmax=1, aspect=cut.view.aspect, interpolation="nearest")
    if labels is not None:
        outline(axis, cut.cut(labels))
    axis.set_title(title)
    axis.set_axis_off()
    write_letters(axis, cut.view.letters)


def _draw_overlay(
    figure: Any,
    axis: Any,
    cut: _Cut,
    grey: np.ndarray,
    values: np.ndarray,
    colors: str,
    window: tuple[float, float],
    title: str,
) -> None:
    from matplotlib.colors import ListedColormap

    _draw(axis, grey, cut, title)
    image = axis.imshow(
        values,
        cmap=ListedColormap(color_map_rgb(colors)),
        vmin=window[0],
        vmax=window[1],
        aspect=cut.view.aspect,
        interpolation="nearest",
    )
    figure.colorbar(image, ax=axis, shrink=0.7, pad=0.02, extend="both" if colors == "diverging" else "neither")


def _draw_map(figure: Any, axis: Any, cut: _Cut, grey: np.ndarray, jacobian: sitk.Image, brain: sitk.Image) -> None:
    values = np.where(cut.cut(brain) > 0, cut.cut(jacobian), np.nan)
    window = (1 - JACOBIAN_REACH, 1 + JACOBIAN_REACH)
    _draw_overlay(figure, axis, cut, grey, values, "diverging", window, JACOBIAN_TITLE)


def _draw_uncertainty(figure: Any, axis: Any, cut: _Cut, grey: np.ndarray, joint: Any) -> None:
    if joint.fixed_uncertainty is None:
        axis.set_visible(False)
        return
    values = np.where(cut.cut(joint.fixed_mask) > 0, cut.cut(joint.fixed_uncertainty), np.nan)
    _draw_overlay(figure, axis, cut, grey, values, "inferno", (0.0, 1.0), "uncertainty, fixed")


def _write_volumes(axis: Any, result: JointRegSegResult) -> None:
    """Legend of the compartments, and their volumes at both visits."""
    axis.set_axis_off()
    joint = result.joint
    if joint.fixed_labels is not None or joint.moving_labels is not None:
        axis.legend(handles=compartment_handles(), loc="upper left", frameon=False, bbox_to_anchor=(0.0, 1.0))
    rows = [
        [title_of(change.region), *(_ml(v) for v in (change.fixed_ml, change.moving_ml, change.change_ml))]
        for change in joint.changes
    ]
    if rows:
        table = axis.table(
            rows,
            colLabels=["ml", "fixed", "moving", "change"],
            loc="lower left",
            cellLoc="right",
            edges="horizontal",
            colWidths=[0.42, 0.2, 0.2, 0.2],
        )
        table.auto_set_font_size(False)
        table.set_fontsize(8.5)
        table.scale(1.0, 1.5)


def _ml(value: float | None) -> str:
    return "–" if value is None else f"{value:.1f}"
