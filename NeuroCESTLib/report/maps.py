"""Maps over the grey anatomy of one slice, with colour bars and outlined regions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from NeuroCESTLib.core.pictures import write_letters
from NeuroCESTLib.report.colors import region_colors
from NeuroCESTLib.report.layout import MIN_COLUMNS, even_grid
from NeuroCESTLib.scene.display import color_map_rgb
from NeuroCESTLib.scene.geometry import Geometry
from NeuroCESTLib.scene.slices import bounding_box, slice_view

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import FigureBase

_INNERMOST_REGION = "necrotic core"  # drawn last, because neighbouring regions share an outline
_MOST_COLUMNS = 4
_PANEL_INCHES = 3.1


@dataclass(frozen=True)
class MapPanel:
    """One map of a figure.

    Attributes:
        title: Title above the map.
        unit: Unit of the values, written at the colour bar; empty for dimensionless values.
        array: Values of shape (K, J, I), or of a single slice (J, I); NaN is transparent.
        color_map: Name of a colour map of ``scene.display``.
        window: Values at the two ends of the colour bar.
    """

    title: str
    unit: str
    array: np.ndarray
    color_map: str
    window: tuple[float, float]


@dataclass(frozen=True)
class MapSlice:
    """Anatomy, maps and regions of one slice, cut, turned and cropped alike.

    Attributes:
        anatomy: Grey picture (row, column).
        panels: Maps whose ``array`` is the picture (row, column), NaN outside the mask.
        regions: Pictures of the regions (row, column), bool, by name.
        aspect: Height over width of a pixel.
        letters: Patient's side at the left, right, top and bottom, or None where the orientation is unknown.
    """

    anatomy: np.ndarray
    panels: Sequence[MapPanel]
    regions: Mapping[str, np.ndarray]
    aspect: float
    letters: tuple[str, str, str, str] | None

    @property
    def height_over_width(self) -> float:
        """Shape of the picture as it is displayed."""
        rows, columns = self.anatomy.shape
        return rows * self.aspect / columns


def cut_slice(
    anatomy: np.ndarray,
    panels: Sequence[MapPanel],
    mask: np.ndarray | None,
    geometry: Geometry | None,
    regions: Mapping[str, np.ndarray],
) -> MapSlice:
    """Cut the slice with the most voxels to show out of all arrays, in radiological orientation.

    Args:
        anatomy: Grey image (K, J, I) or (J, I).
        panels: Maps of the same shape.
        mask: Voxels to show, bool, of the same shape; None shows all voxels in which a map is finite.
        geometry: Voxel grid of all arrays; without it rows and columns stay as they are.
        regions: Regions to outline, bool, of the same shape, by name.

    Raises:
        ValueError: The arrays have different shapes.
    """
    volume = _volume(anatomy)
    for name, array in [(panel.title, panel.array) for panel in panels] + list(regions.items()):
        if _volume(array).shape != volume.shape:
            raise ValueError(f"'{name}' has shape {array.shape}, the anatomy {anatomy.shape}")
    shown = _volume(mask) if mask is not None else _any_finite(panels, volume.shape)
    view = slice_view(geometry, shown) if geometry is not None else None
    fullest = int(np.argmax(shown.sum(axis=(1, 2))))

    def cut(array: np.ndarray) -> np.ndarray:
        return view.cut(_volume(array)) if view is not None else _volume(array)[fullest]

    visible, gray = cut(shown), cut(volume)
    box = bounding_box(visible | (np.nan_to_num(gray) > 0.1 * np.nanmax(gray, initial=0)))
    return MapSlice(
        anatomy=gray[box],
        panels=[replace(panel, array=np.where(visible, cut(panel.array), np.nan)[box]) for panel in panels],
        regions={name: cut(region)[box] for name, region in regions.items()},
        aspect=view.aspect if view is not None else 1.0,
        letters=view.letters if view is not None else None,
    )


def maps_size(cut: MapSlice) -> tuple[float, float]:
    """Width and height in inches that the maps of a slice need."""
    rows, columns = _map_grid(cut)
    return columns * _PANEL_INCHES, rows * (_row_inches(cut) + 0.35) + 0.3


def draw_maps(figure: FigureBase, cut: MapSlice) -> None:
    """Draw the maps of a slice side by side into an empty figure or part of a figure."""
    from matplotlib.colors import ListedColormap
    from matplotlib.ticker import ScalarFormatter

    rows, columns = _map_grid(cut)
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    finite = cut.anatomy[np.isfinite(cut.anatomy)]
    low, high = np.percentile(finite, (1, 99.5)) if finite.size else (0, 1)
    colors = region_colors(cut.regions)
    shape = {"aspect": cut.aspect, "interpolation": "nearest"}
    for panel, axis in zip(cut.panels, axes, strict=False):
        axis.imshow(cut.anatomy, cmap="gray", vmin=low, vmax=max(high, low + 1e-12), **shape)
        # Opaque, so that the colours are those of the bar.
        color_map = ListedColormap(color_map_rgb(panel.color_map))
        image = axis.imshow(panel.array, cmap=color_map, vmin=panel.window[0], vmax=panel.window[1], **shape)
        for name, region in sorted(cut.regions.items(), key=lambda item: item[0].lower() == _INNERMOST_REGION):
            if region.any() and not region.all():
                _draw_outline(axis, region, colors[name])
        numbers = ScalarFormatter()
        numbers.set_powerlimits((-3, 4))
        bar = figure.colorbar(
            image, ax=axis, shrink=_bar_length(cut), pad=0.02, extend=_bar_ends(panel), format=numbers
        )
        bar.set_label(panel.unit)
        axis.set_title(panel.title)
        axis.set_axis_off()
        if cut.letters is not None:
            write_letters(axis, cut.letters)
    for axis in axes[len(cut.panels) :]:
        axis.set_visible(False)


def _map_grid(cut: MapSlice) -> tuple[int, int]:
    return even_grid(max(len(cut.panels), MIN_COLUMNS), _MOST_COLUMNS)


def _row_inches(cut: MapSlice) -> float:
    return min(max(_picture_inches(cut), 1.4), 5.0)


def _picture_inches(cut: MapSlice) -> float:
    return _PANEL_INCHES * 0.78 * cut.height_over_width


def _draw_outline(axis: Axes, region: np.ndarray, color: str | tuple[float, float, float]) -> None:
    """Draw the outline of a region (rows, columns), which may be one voxel wide."""
    limits = axis.get_xlim(), axis.get_ylim()
    rows, columns = (np.arange(-1, size + 1) for size in region.shape)
    axis.contour(columns, rows, np.pad(region, 1, mode="edge"), levels=[0.5], colors=[color], linewidths=1.2)
    axis.set_xlim(limits[0])
    axis.set_ylim(limits[1])


def _bar_length(cut: MapSlice) -> float:
    """Length of a colour bar relative to its row: as tall as the picture, within limits that fit its numbers."""
    return min(max(_picture_inches(cut) / _row_inches(cut), 0.65), 0.85)


def _bar_ends(panel: MapPanel) -> str:
    """Which ends of the colour bar are pointed, because values lie beyond the window there."""
    values = panel.array[np.isfinite(panel.array)]
    below = bool((values < panel.window[0]).any())
    above = bool((values > panel.window[1]).any())
    return {(0, 0): "neither", (1, 0): "min", (0, 1): "max", (1, 1): "both"}[int(below), int(above)]


def _volume(array: np.ndarray) -> np.ndarray:
    array = np.asarray(array)
    return array[None] if array.ndim == 2 else array


def _any_finite(panels: Sequence[MapPanel], shape: tuple[int, ...]) -> np.ndarray:
    finite = np.zeros(shape, bool)
    for panel in panels:
        finite |= np.isfinite(_volume(panel.array))
    return finite if finite.any() else np.ones(shape, bool)
