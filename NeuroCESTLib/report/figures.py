"""Report pictures: maps over anatomy, Z-spectra with fits, or both on one page."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from NeuroCESTLib.core.pictures import STYLE, file_pyplot, new_figure, save_figure
from NeuroCESTLib.report.maps import MapPanel, cut_slice, draw_maps, maps_size
from NeuroCESTLib.report.spectra import AxisLabels, Spectrum, draw_spectra, spectra_size

if TYPE_CHECKING:
    from NeuroCESTLib.scene.geometry import Geometry


def maps_figure(
    path: str | os.PathLike,
    anatomy: np.ndarray,
    maps: Sequence[MapPanel],
    mask: np.ndarray | None = None,
    geometry: Geometry | None = None,
    rois: Mapping[str, np.ndarray] | None = None,
    title: str = "",
) -> None:
    """Draw maps with colour bars over the grey anatomy, in the slice with the most voxels to show.

    Args:
        path: PNG file to write.
        anatomy: Grey image of shape (K, J, I) or (J, I).
        maps: Maps of the same shape.
        mask: Voxels to show, bool, of the same shape; all voxels without it.
        geometry: Voxel grid of all arrays; without it rows and columns are drawn as they are.
        rois: Regions to outline, bool, of the same shape, by name.
        title: Headline.

    Raises:
        ValueError: Matplotlib is missing, the arrays have different shapes, or the file cannot be written.
    """
    cut = cut_slice(anatomy, maps, mask, geometry, rois or {})
    with file_pyplot().rc_context(STYLE):
        figure = new_figure(maps_size(cut), title)
        draw_maps(figure, cut)
        save_figure(figure, path)


def spectra_figure(
    path: str | os.PathLike, spectra: Sequence[Spectrum], x_label: str = AxisLabels.x, title: str = ""
) -> None:
    """Draw the Z-spectrum of each region with its fit, and the residual below.

    Args:
        path: PNG file to write.
        spectra: Spectra to draw.
        x_label: Label of the offsets or measurements; in ppm, chemical shift runs from right to left.
        title: Headline.

    Raises:
        ValueError: Matplotlib is missing, or the file cannot be written.
    """
    with file_pyplot().rc_context(STYLE):
        figure = new_figure(spectra_size(len(spectra)), title)
        draw_spectra(figure, spectra, AxisLabels(x_label))
        save_figure(figure, path)


def report_figure(
    path: str | os.PathLike,
    anatomy: np.ndarray,
    maps: Sequence[MapPanel],
    spectra: Sequence[Spectrum] = (),
    mask: np.ndarray | None = None,
    geometry: Geometry | None = None,
    rois: Mapping[str, np.ndarray] | None = None,
    title: str = "",
    x_label: str = AxisLabels.x,
    y_label: str = AxisLabels.y,
) -> None:
    """Draw maps and, below them, spectra on one page.

    Args:
        path: PNG file to write.
        anatomy: As for ``maps_figure``.
        maps: As for ``maps_figure``.
        spectra: Spectra to draw; without any, the page holds the maps alone.
        mask: As for ``maps_figure``.
        geometry: As for ``maps_figure``.
        rois: As for ``maps_figure``; a spectrum of the same name has the same colour.
        title: Headline.
        x_label: As for ``spectra_figure``.
        y_label: Label of the signal.

    Raises:
        ValueError: Matplotlib is missing, the arrays have different shapes, or the file cannot be written.
    """
    if not spectra:
        maps_figure(path, anatomy, maps, mask, geometry, rois, title)
        return
    cut = cut_slice(anatomy, maps, mask, geometry, rois or {})
    top, bottom = maps_size(cut), spectra_size(len(spectra))
    with file_pyplot().rc_context(STYLE):
        figure = new_figure((max(top[0], bottom[0]), top[1] + bottom[1]), title)
        upper, lower = figure.subfigures(2, 1, squeeze=False, height_ratios=(top[1], bottom[1])).ravel()
        draw_maps(upper, cut)
        draw_spectra(lower, spectra, AxisLabels(x_label, y_label), list(cut.regions))
        save_figure(figure, path)


def motion_figure(
    path: str | os.PathLike,
    names: Sequence[str],
    translations_mm: np.ndarray,
    rotations_deg: np.ndarray,
    uncertain: Sequence[bool],
    title: str = "",
) -> None:
    """Draw translations and rotations of the measurements of an acquisition.

    Args:
        path: PNG file to write.
        names: Name of every measurement.
        translations_mm: Translations (measurement, 3) along the image axes.
        rotations_deg: Rotations (measurement, 3) about these axes.
        uncertain: Whether a measurement has its motion from its neighbours; drawn as an open circle.
        title: Headline.

    Raises:
        ValueError: Matplotlib is missing, or the file cannot be written.
    """
    x, taken = np.arange(len(names)), np.asarray(uncertain, bool)
    with file_pyplot().rc_context(STYLE):
        figure = new_figure((7.0, 5.0), title)
        axes = figure.subplots(2, 1, sharex=True)
        for axis, values, label in zip(
            axes, (translations_mm, rotations_deg), ("translation (mm)", "rotation (degrees)"), strict=True
        ):
            for column, name in enumerate(("i (columns)", "j (rows)", "k (slices)")):
                (line,) = axis.plot(x, values[:, column], label=name, linewidth=1)
                axis.plot(x[~taken], values[~taken, column], "o", color=line.get_color(), markersize=4)
                axis.plot(x[taken], values[taken, column], "o", color=line.get_color(), markersize=4, mfc="none")
            axis.axhline(0, color="0.6", linewidth=0.6)
            axis.set_ylabel(label)
        axes[0].legend(title="axis", fontsize="small")
        shown = x[:: max(1, len(x) // 12)]
        axes[1].set_xticks(shown, [names[i] for i in shown])
        axes[1].set_xlabel("measurement (open circles: taken from the neighbours)")
        save_figure(figure, path)
