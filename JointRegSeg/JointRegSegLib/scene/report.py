"""Picture of a run: both visits with their compartments, before and after the registration, Jacobian map, volumes."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from NeuroCESTLib.core.pictures import new_figure, save_figure, write_letters
from NeuroCESTLib.scene.display import color_map_rgb
from NeuroCESTLib.scene.geometry import Geometry
from NeuroCESTLib.scene.slices import SliceView, bounding_box, slice_view

from ..images.compartments import COMPARTMENTS, title_of
from ..images.coverage import coverage_of
from ..images.labels import CAVITY
from ..images.modalities import TITLES
from ..pictures.cases import JACOBIAN_TITLE, JACOBIAN_WINDOW
from ..pictures.compartments import compartment_handles, outline
from ..pictures.slices import as_bright_as, checkerboard, fullest_slice
from .results import JointRegSegResult

if TYPE_CHECKING:
    import SimpleITK as sitk
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from ..findings.result import JointResult
    from .single_study import SegmentationResult

PREFERRED = ("t1ce", "flair", "t1", "t2")
"""Order of preference of the modality that is shown."""
_MOST = 0.9
"""Share of the brain in a slice from which on an image shows enough of it."""


def draw_report(result: JointRegSegResult, path: str | Path, title: str = "") -> None:
    """Write the picture of a run (PNG).

    Args:
        result: Result of the run.
        path: File to write.
        title: Headline of the picture.

    Raises:
        ValueError: Matplotlib is not installed, or the file cannot be written.
    """
    import SimpleITK as sitk

    joint = result.joint
    fixed_cut = _Cut(joint.jacobian, joint.fixed_labels, joint.fixed_mask)
    fixed_modality, moving_modality = _shown_modalities(result, fixed_cut)
    fixed = result.studies["fixed"].images[fixed_modality]
    moving = result.studies["moving"].images[moving_modality]
    moving_labels = None if joint.moving_labels is None else _on_grid(joint.moving_labels, moving)
    moving_cut = _Cut(moving, moving_labels, _on_grid(joint.moving_mask, moving))

    identity = sitk.Transform(3, sitk.sitkIdentity)
    fixed_picture = fixed_cut.resampled(fixed, identity)
    before, after = (fixed_cut.resampled(moving, transform) for transform in (identity, joint.moving_to_fixed))
    figure = new_figure((13.2, 7.4), title)
    axes = figure.subplots(2, 4)
    fixed_title, moving_title = TITLES[fixed_modality], TITLES[moving_modality]
    _draw(axes[0, 0], fixed_picture, fixed_cut, f"fixed, {fixed_title}", joint.fixed_labels)
    _draw(axes[0, 1], moving_cut.of(moving), moving_cut, f"moving, {moving_title}", moving_labels)
    _draw(axes[0, 2], after, fixed_cut, f"moving on fixed, {moving_title}", joint.warped_labels)
    _write_volumes(axes[0, 3], joint)
    for axis, picture, name in ((axes[1, 0], before, "before"), (axes[1, 1], after, "after")):
        board = checkerboard(fixed_picture, as_bright_as(picture, fixed_picture), fixed_cut.view.aspect)
        _draw(axis, board, fixed_cut, f"checkerboard {name}")
    _draw_jacobian(figure, axes[1, 2], fixed_cut, fixed_picture, joint)
    _draw_uncertainty(figure, axes[1, 3], fixed_cut, fixed_picture, joint)
    save_figure(figure, path)


def draw_segmentation(result: SegmentationResult, path: str | Path, title: str = "") -> None:
    """Write the picture of the segmentation of one visit (PNG): its compartments, uncertainty and volumes.

    Args:
        result: Result of the segmentation.
        path: File to write.
        title: Headline of the picture.

    Raises:
        ValueError: Matplotlib is not installed, or the file cannot be written.
    """
    import SimpleITK as sitk

    found, images = result.found, result.study.images
    cut, identity = _Cut(found.labels, found.labels, found.mask), sitk.Transform(3, sitk.sitkIdentity)
    present = [modality for modality in PREFERRED if modality in images]
    modality = _first_shown(present, lambda m: cut.share_shown(images[m], found.mask, identity))
    picture = cut.resampled(images[modality], identity)
    figure = new_figure((13.2, 4.2), title)
    axes = figure.subplots(1, 4)
    _draw(axes[0], picture, cut, TITLES[modality])
    _draw(axes[1], picture, cut, "compartments", found.labels)
    if found.uncertainty is None:
        axes[2].set_visible(False)
    else:
        values = np.where(cut.of(found.mask) > 0, cut.of(found.uncertainty), np.nan)
        _draw_overlay(figure, axes[2], cut, picture, values, "inferno", (0.0, 1.0), "uncertainty")
    rows = [[title_of(row.region), _ml(row.volume_ml, row.at_least)] for row in found.volumes]
    _write_table(axes[3], rows, ["ml", "volume"], [0.5, 0.3])
    save_figure(figure, path)


def _shown_modalities(result: JointRegSegResult, cut: _Cut) -> tuple[str, str]:
    """Choose the modality of the fixed and of the moving study to show: the same one if they share any.

    It is the first one whose images show most of the brain in the slice of the fixed study.
    """
    import SimpleITK as sitk

    joint, identity = result.joint, sitk.Transform(3, sitk.sitkIdentity)
    fixed, moving = (result.studies[which].images for which in ("fixed", "moving"))

    def share_of_fixed(modality: str) -> float:
        return cut.share_shown(fixed[modality], joint.fixed_mask, identity)

    def share_of_moving(modality: str) -> float:
        return cut.share_shown(moving[modality], joint.moving_mask, joint.moving_to_fixed)

    if shared := [modality for modality in PREFERRED if modality in fixed and modality in moving]:
        both = _first_shown(shared, lambda modality: min(share_of_fixed(modality), share_of_moving(modality)))
        return both, both
    return (
        _first_shown([modality for modality in PREFERRED if modality in fixed], share_of_fixed),
        _first_shown([modality for modality in PREFERRED if modality in moving], share_of_moving),
    )


def _first_shown(modalities: Sequence[str], share: Callable[[str], float]) -> str:
    """The first modality whose image shows most of the brain in a slice, else the one that shows more than the others.

    Args:
        modalities: At least one modality.
        share: Returns the share of the brain in the slice that the image of a modality shows.
    """
    shares: dict[str, float] = {}
    for modality in modalities:
        shares[modality] = share(modality)
        if shares[modality] >= _MOST:
            return modality
    return max(shares, key=lambda modality: shares[modality])


class _Cut:
    """The slice of a grid that shows most of the compartments (or of the brain), cropped to the brain."""

    def __init__(self, grid: sitk.Image, labels: sitk.Image | None, brain: sitk.Image) -> None:
        """Choose the slice of ``grid`` by the classes and the brain mask, which lie on the same grid."""
        in_brain = _array(brain) > 0
        view = slice_view(Geometry.from_sitk(grid), in_brain)
        index = fullest_slice(None if labels is None else _array(labels), in_brain, view.axis)
        self.view: SliceView = dataclasses.replace(view, index=index)
        self._slab = grid[tuple(slice(index, index + 1) if a == 2 - view.axis else slice(None) for a in range(3))]
        self._box = bounding_box(self.view.cut(in_brain))
        self._in_brain = self.view.cut(in_brain)[self._box]

    def of(self, image: sitk.Image) -> np.ndarray:
        """Return the picture (row, column) of an image on the grid."""
        return self.view.cut(_array(image))[self._box]

    def resampled(self, image: sitk.Image, transform: sitk.Transform) -> np.ndarray:
        """Return the picture of an image on a grid of its own after a transform from this grid to that one."""
        import SimpleITK as sitk

        slab = sitk.Resample(image, self._slab, transform, sitk.sitkLinear, 0.0, sitk.sitkFloat32)
        return dataclasses.replace(self.view, index=0).cut(_array(slab))[self._box]

    def share_shown(self, image: sitk.Image, brain: sitk.Image, transform: sitk.Transform) -> float:
        """Return the share of the brain in the slice, 0 to 1, that an image shows.

        Args:
            image: Image on a grid of its own.
            brain: Brain mask in the space of the image.
            transform: Maps points of the slice to points of the image (LPS mm).
        """
        import SimpleITK as sitk

        seen = coverage_of(image, brain).seen
        if seen is None:
            seen = sitk.Image(image.GetSize(), sitk.sitkUInt8) + 1
            seen.CopyInformation(image)
        shown = self.resampled(seen, transform)[self._in_brain] >= 0.5
        return float(shown.mean()) if shown.size else 1.0


def _array(image: sitk.Image) -> np.ndarray:
    import SimpleITK as sitk

    return sitk.GetArrayViewFromImage(image)


def _on_grid(labels: sitk.Image, image: sitk.Image) -> sitk.Image:
    """Labels or a mask at the voxels of an image."""
    import SimpleITK as sitk

    return sitk.Resample(labels, image, sitk.Transform(), sitk.sitkNearestNeighbor)


def _gray(picture: np.ndarray) -> np.ndarray:
    """Picture scaled to 0 ... 1 between its 1st and 99.5th percentile."""
    values = picture[np.isfinite(picture) & (picture != 0)]
    low, high = np.percentile(values, (1, 99.5)) if values.size else (0.0, 1.0)
    return np.clip((np.nan_to_num(picture) - low) / max(high - low, 1e-12), 0, 1)


def _draw(axis: Axes, picture: np.ndarray, cut: _Cut, title: str, labels: sitk.Image | None = None) -> None:
    axis.imshow(_gray(picture), cmap="gray", vmin=0, vmax=1, aspect=cut.view.aspect, interpolation="nearest")
    if labels is not None:
        outline(axis, cut.of(labels))
    axis.set_title(title)
    axis.set_axis_off()
    write_letters(axis, cut.view.letters)


def _draw_overlay(
    figure: Figure,
    axis: Axes,
    cut: _Cut,
    gray: np.ndarray,
    values: np.ndarray,
    colors: str,
    window: tuple[float, float],
    title: str,
) -> None:
    from matplotlib.colors import ListedColormap

    _draw(axis, gray, cut, title)
    image = axis.imshow(
        values,
        cmap=ListedColormap(color_map_rgb(colors)),
        vmin=window[0],
        vmax=window[1],
        aspect=cut.view.aspect,
        interpolation="nearest",
    )
    figure.colorbar(image, ax=axis, shrink=0.7, pad=0.02, extend="both" if colors == "diverging" else "neither")


def _draw_jacobian(figure: Figure, axis: Axes, cut: _Cut, gray: np.ndarray, joint: JointResult) -> None:
    values = np.where(cut.of(joint.fixed_mask) > 0, cut.of(joint.jacobian), np.nan)
    _draw_overlay(figure, axis, cut, gray, values, "diverging", JACOBIAN_WINDOW, JACOBIAN_TITLE)


def _draw_uncertainty(figure: Figure, axis: Axes, cut: _Cut, gray: np.ndarray, joint: JointResult) -> None:
    if joint.fixed_uncertainty is None:
        axis.set_visible(False)
        return
    values = np.where(cut.of(joint.fixed_mask) > 0, cut.of(joint.fixed_uncertainty), np.nan)
    _draw_overlay(figure, axis, cut, gray, values, "inferno", (0.0, 1.0), "uncertainty, fixed")


def _write_volumes(axis: Axes, joint: JointResult) -> None:
    """Write the legend of the compartments and a table of the volumes of both visits."""
    if joint.fixed_labels is None and joint.moving_labels is None:
        axis.set_axis_off()
        return
    rows = [
        [
            title_of(change.region),
            _ml(change.fixed_ml, change.fixed_at_least),
            _ml(change.moving_ml, change.moving_at_least),
            _ml(change.change_ml),
        ]
        for change in joint.changes
    ]
    _write_table(axis, rows, ["ml", "fixed", "moving", "change"], [0.42, 0.2, 0.2, 0.2])


def _write_table(axis: Axes, rows: list[list[str]], titles: list[str], widths: list[float]) -> None:
    """Write the legend of the compartments and a table."""
    axis.set_axis_off()
    cavity = any(row[0] == COMPARTMENTS[CAVITY].name for row in rows)
    handles = compartment_handles(np.array([CAVITY]) if cavity else None)
    axis.legend(handles=handles, loc="upper left", frameon=False, bbox_to_anchor=(0.0, 1.0))
    if rows:
        table = axis.table(
            rows, colLabels=titles, loc="lower left", cellLoc="right", edges="horizontal", colWidths=widths
        )
        table.auto_set_font_size(False)
        table.set_fontsize(8.5)
        table.scale(1.0, 1.5)


def _ml(value: float | None, at_least: bool = False) -> str:
    return "–" if value is None else f"{'≥ ' if at_least else ''}{value:.1f}"
