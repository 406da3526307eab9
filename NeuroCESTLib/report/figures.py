"""Report pictures: maps over anatomy, Z-spectra with fits, or both on one page."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from NeuroCESTLib.core.pictures import STYLE, file_pyplot, save_figure
from NeuroCESTLib.scene.display import color_map_rgb
from NeuroCESTLib.scene.geometry import Geometry
from NeuroCESTLib.scene.slices import SliceView, bounding_box, slice_view

# Okabe and Ito's colours, which colour-blind readers can tell apart too.
_ROI_COLORS = ("#E69F00", "#56B4E9", "#009E73", "#CC79A7", "#D55E00", "#0072B2", "#999933")
_OTHER_COLORS = ("#CC79A7", "#0072B2", "#009E73", "#E69F00", "#999933")  # beside those of a tumour
TUMOR_COLORS = {
    "necrotic core": (0.84, 0.37, 0.0),
    "oedema": (0.34, 0.71, 0.91),
    "enhancing tumour": (0.94, 0.89, 0.26),
}
"""Of the compartments that JointRegSeg finds, by their names in lower case: the same as in its own pictures."""
_INNERMOST = "necrotic core"  # drawn last: neighbours share an outline
_MAPS_A_ROW = 4
_SPECTRA_A_ROW = 3
_PANEL_INCHES = 3.1


class MapPanel(NamedTuple):
    """One map: title, unit, values ``(K, J, I)`` (or a single slice ``(J, I)``), colour map name, window."""

    title: str
    unit: str
    array: np.ndarray
    color_map: str
    window: tuple[float, float]


@dataclass(frozen=True)
class Spectrum:
    """Z-spectrum of one region.

    Attributes:
        name: region; the same name in ``rois`` gives it the same colour.
        offsets: ppm, or measurement numbers; shape ``(n,)``.
        signal: mean signal, relative to M0; shape ``(n,)``.
        sd: standard deviation over the region, or None.
        fit: fitted signal at the same offsets, or None.
    """

    name: str
    offsets: np.ndarray
    signal: np.ndarray
    sd: np.ndarray | None = None
    fit: np.ndarray | None = None


def maps_figure(
    path: str | os.PathLike,
    anatomy: np.ndarray,
    maps: Sequence[MapPanel | tuple],
    mask: np.ndarray | None = None,
    geometry: Geometry | None = None,
    rois: Mapping[str, np.ndarray] | None = None,
    title: str = "",
) -> None:
    """Draw maps over the grey anatomy of their most filled slice, with colour bars.

    Args:
        path: PNG file.
        anatomy: grey image ``(K, J, I)`` or ``(J, I)``.
        maps: see ``MapPanel``; NaN is transparent.
        mask: voxels to show, bool; all without it.
        geometry: voxel grid of all arrays; without it rows and columns are drawn as they are.
        rois: regions to outline, bool, by name.
        title: headline.

    Raises:
        ValueError: matplotlib is missing, arrays do not fit each other, or the file cannot be written.
    """
    scene = _Scene(anatomy, [MapPanel(*item) for item in maps], mask, geometry, rois or {})
    plt = file_pyplot()
    with plt.rc_context(STYLE):
        figure = plt.figure(figsize=_maps_size(scene), layout="constrained")
        _draw_maps(figure, scene)
        if title:
            figure.suptitle(title, fontweight="bold")
        save_figure(figure, path)


def spectra_figure(
    path: str | os.PathLike, spectra: Sequence[Spectrum], x_label: str = "offset (ppm)", title: str = ""
) -> None:
    """Draw the Z-spectrum of each region with its fit, and the residual below.

    Raises:
        ValueError: matplotlib is missing, or the file cannot be written.
    """
    plt = file_pyplot()
    with plt.rc_context(STYLE):
        figure = plt.figure(figsize=_spectra_size(len(spectra)), layout="constrained")
        _draw_spectra(figure, spectra, (x_label, "Z = M / M0"))
        if title:
            figure.suptitle(title, fontweight="bold")
        save_figure(figure, path)


def report_figure(
    path: str | os.PathLike,
    anatomy: np.ndarray,
    maps: Sequence[MapPanel | tuple],
    spectra: Sequence[Spectrum] = (),
    mask: np.ndarray | None = None,
    geometry: Geometry | None = None,
    rois: Mapping[str, np.ndarray] | None = None,
    title: str = "",
    x_label: str = "offset (ppm)",
    y_label: str = "Z = M / M0",
) -> None:
    """Draw maps and spectra on one page; arguments as of ``maps_figure`` and ``spectra_figure``."""
    if not spectra:
        return maps_figure(path, anatomy, maps, mask, geometry, rois, title)
    scene = _Scene(anatomy, [MapPanel(*item) for item in maps], mask, geometry, rois or {})
    plt = file_pyplot()
    top, bottom = _maps_size(scene), _spectra_size(len(spectra))
    with plt.rc_context(STYLE):
        figure = plt.figure(figsize=(max(top[0], bottom[0]), top[1] + bottom[1]), layout="constrained")
        upper, lower = figure.subfigures(2, 1, height_ratios=(top[1], bottom[1]))
        _draw_maps(upper, scene)
        _draw_spectra(lower, spectra, (x_label, y_label), list(scene.rois))
        if title:
            figure.suptitle(title, fontweight="bold")
        save_figure(figure, path)
    return None


class _Scene:
    """The pictures of one slice, cut, turned and cropped alike."""

    def __init__(
        self,
        anatomy: np.ndarray,
        maps: Sequence[MapPanel],
        mask: np.ndarray | None,
        geometry: Geometry | None,
        rois: Mapping[str, np.ndarray],
    ) -> None:
        volume = _volume(anatomy)
        for name, array in [(item.title, item.array) for item in maps] + list(rois.items()):
            if _volume(array).shape != volume.shape:
                raise ValueError(f"'{name}' has shape {array.shape}, the anatomy {anatomy.shape}")
        shown = _volume(mask) if mask is not None else _any_finite(maps, volume.shape)
        self.view: SliceView | None = None
        if geometry is not None:
            self.view = slice_view(geometry, shown)
        self._index = int(np.argmax(shown.sum(axis=(1, 2))))
        visible = self._cut(shown)
        grey = self._cut(volume)
        body = visible | (np.nan_to_num(grey) > 0.1 * np.nanmax(grey, initial=0))
        self._box = bounding_box(body)
        self.anatomy = grey[self._box]
        self.maps = [
            item._replace(array=np.where(visible, self._cut(_volume(item.array)), np.nan)[self._box]) for item in maps
        ]
        self.rois = {name: self._cut(_volume(roi))[self._box] for name, roi in rois.items()}
        self.aspect = self.view.aspect if self.view is not None else 1.0

    def _cut(self, array: np.ndarray) -> np.ndarray:
        return self.view.cut(array) if self.view is not None else array[self._index]

    @property
    def height_over_width(self) -> float:
        rows, columns = self.anatomy.shape
        return rows * self.aspect / columns


def _draw_maps(figure: Any, scene: _Scene) -> None:
    from matplotlib.colors import ListedColormap

    rows, columns = _grid(max(len(scene.maps), _SPECTRA_A_ROW), _MAPS_A_ROW)
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    finite = scene.anatomy[np.isfinite(scene.anatomy)]
    low, high = np.percentile(finite, (1, 99.5)) if finite.size else (0, 1)
    for panel, axis in zip(scene.maps, axes, strict=False):
        axis.imshow(
            scene.anatomy,
            cmap="gray",
            vmin=low,
            vmax=max(high, low + 1e-12),
            aspect=scene.aspect,
            interpolation="nearest",
        )
        color_map = ListedColormap(color_map_rgb(panel.color_map))
        image = axis.imshow(
            panel.array,
            cmap=color_map,
            vmin=panel.window[0],
            vmax=panel.window[1],  # opaque: as on the bar
            aspect=scene.aspect,
            interpolation="nearest",
        )
        colors = region_colors(scene.rois)
        for name, roi in sorted(scene.rois.items(), key=lambda item: item[0].lower() == _INNERMOST):
            if roi.any() and not roi.all():
                axis.contour(roi, levels=[0.5], colors=[colors[name]], linewidths=1.2)
        bar = figure.colorbar(image, ax=axis, shrink=_bar_length(scene), pad=0.02, extend=_extend(panel))
        bar.formatter.set_powerlimits((-3, 4))
        bar.set_label(panel.unit)
        axis.set_title(panel.title)
        axis.set_axis_off()
        if scene.view is not None:
            write_letters(axis, scene.view.letters)
    for axis in axes[len(scene.maps) :]:
        axis.set_visible(False)


def write_letters(axis: Any, letters: tuple[str, str, str, str]) -> None:
    """Mark the patient's side at the left, right, top and bottom of a picture."""
    from matplotlib.patheffects import withStroke

    left, right, top, bottom = letters
    places = ((left, 0.02, 0.5), (right, 0.98, 0.5), (top, 0.5, 0.97), (bottom, 0.5, 0.03))
    for letter, x, y in places:
        text = axis.text(x, y, letter, transform=axis.transAxes, color="white", fontsize=8)
        text.set(ha="center", va="center", path_effects=[withStroke(linewidth=2, foreground="black")])


def _draw_spectra(figure: Any, spectra: Sequence[Spectrum], labels: tuple[str, str], names: Sequence[str] = ()) -> None:
    rows, columns = _grid(len(spectra), _SPECTRA_A_ROW)
    fitted = any(spectrum.fit is not None for spectrum in spectra)
    heights = (3, 1) if fitted else (3, 0.001)
    axes = figure.subplots(2 * rows, columns, squeeze=False, gridspec_kw={"height_ratios": heights * rows})
    colors = region_colors([*names, *(spectrum.name for spectrum in spectra)])
    for number in range(rows * columns):
        row, column = divmod(number, columns)
        upper, lower = axes[2 * row][column], axes[2 * row + 1][column]
        if number >= len(spectra):
            upper.set_visible(False)
            lower.set_visible(False)
            continue
        spectrum = spectra[number]
        lower.sharex(upper)
        _draw_spectrum(upper, lower, spectrum, colors[spectrum.name], labels, first=column == 0)
        if not fitted:
            lower.set_visible(False)
            upper.set_xlabel(labels[0])


def _draw_spectrum(
    upper: Any, lower: Any, spectrum: Spectrum, color: Any, labels: tuple[str, str], first: bool
) -> None:
    x_label, y_label = labels
    order = np.argsort(spectrum.offsets, kind="stable")
    offsets, signal = np.asarray(spectrum.offsets)[order], np.asarray(spectrum.signal)[order]
    near = _near_water(offsets) if "ppm" in x_label else np.ones(len(offsets), bool)
    offsets, signal = offsets[near], signal[near]
    label = "mean"
    if spectrum.sd is not None:
        label = "mean ± SD"
        sd = np.asarray(spectrum.sd)[order][near]
        upper.fill_between(offsets, signal - sd, signal + sd, color=color, alpha=0.25, linewidth=0)
    rim = {"markeredgecolor": "0.35", "markeredgewidth": 0.4}  # light colours need one on white
    upper.plot(offsets, signal, "o", markersize=3, color=color, label=label if first else None, **rim)
    upper.set_title(spectrum.name, color=color, fontweight="bold", path_effects=_dark_rim(color))
    upper.set_ylim(min(0.0, float(np.nanmin(signal, initial=0.0)) - 0.02), None)
    upper.grid(alpha=0.2)
    upper.tick_params(labelbottom=spectrum.fit is None)
    lower.axhline(0, color="0.6", linewidth=0.8)
    if spectrum.fit is not None:
        fit = np.asarray(spectrum.fit)[order][near]
        upper.plot(offsets, fit, "-", color="black", linewidth=1, label="fit" if first else None)
        residual = 100 * (signal - fit)
        lower.plot(offsets, residual, "o-", markersize=2, linewidth=0.8, color=color, **rim)
        reach = max(1.15 * float(np.nanmax(np.abs(residual), initial=0.0)), 0.1)
        lower.set_ylim(-reach, reach)
    lower.grid(alpha=0.2)
    lower.set_xlabel(x_label)
    if first:
        upper.set_ylabel(y_label)
        lower.set_ylabel("residual (%)")
        upper.legend(loc="best", framealpha=0.7, edgecolor="none", fontsize=8)
    if "ppm" in x_label:
        upper.set_xlim(offsets.max(), offsets.min())  # chemical shift runs to the left


def _dark_rim(color: Any) -> list[Any]:
    """A rim in which text of a light colour can be read on white; none for other colours."""
    from matplotlib.colors import to_rgb
    from matplotlib.patheffects import withStroke

    light = np.dot(to_rgb(color), (0.30, 0.59, 0.11)) > 0.7
    return [withStroke(linewidth=1.5, foreground="0.35")] if light else []


def _near_water(offsets: np.ndarray) -> np.ndarray:
    """Leave out far-off-resonance references, which would press the spectrum together."""
    reach = 5 * np.median(np.abs(offsets))
    near = np.abs(offsets) <= max(reach, 1.0)
    return near if near.sum() >= 3 else np.ones(len(offsets), bool)


def _grid(count: int, most_columns: int) -> tuple[int, int]:
    rows = -(-max(count, 1) // most_columns)
    return rows, -(-max(count, 1) // rows)  # rows filled evenly


def _maps_size(scene: _Scene) -> tuple[float, float]:
    rows, columns = _grid(max(len(scene.maps), _SPECTRA_A_ROW), _MAPS_A_ROW)
    return columns * _PANEL_INCHES, rows * (_row_inches(scene) + 0.35) + 0.3


def _row_inches(scene: _Scene) -> float:
    return min(max(_picture_inches(scene), 1.4), 5.0)


def _picture_inches(scene: _Scene) -> float:
    return _PANEL_INCHES * 0.78 * scene.height_over_width


def _bar_length(scene: _Scene) -> float:
    """Length of a colour bar relative to its row: that of the picture, as far as its numbers have room."""
    return min(max(_picture_inches(scene) / _row_inches(scene), 0.65), 0.85)


def _spectra_size(count: int) -> tuple[float, float]:
    rows, columns = _grid(count, _SPECTRA_A_ROW)
    return columns * 3.6 + 0.4, rows * 3.6 + 0.3


def region_colors(names: Iterable[str]) -> dict[str, Any]:
    """Colours of regions by name: compartments of a tumour have their own, the others what is left of a cycle."""
    names = list(dict.fromkeys(names))
    known = {name: TUMOR_COLORS[name.lower()] for name in names if name.lower() in TUMOR_COLORS}
    free = itertools.cycle(_OTHER_COLORS if known else _ROI_COLORS)
    return {name: known.get(name) or next(free) for name in names}


def _extend(panel: MapPanel) -> str:
    """Ends of the colour bar that stand for values beyond the window."""
    values = panel.array[np.isfinite(panel.array)]
    below = bool((values < panel.window[0]).any())
    above = bool((values > panel.window[1]).any())
    return {(0, 0): "neither", (1, 0): "min", (0, 1): "max", (1, 1): "both"}[int(below), int(above)]


def _volume(array: np.ndarray) -> np.ndarray:
    array = np.asarray(array)
    return array[None] if array.ndim == 2 else array


def _any_finite(maps: Sequence[MapPanel], shape: tuple[int, ...]) -> np.ndarray:
    finite = np.zeros(shape, bool)
    for item in maps:
        finite |= np.isfinite(_volume(item.array))
    return finite if finite.any() else np.ones(shape, bool)
