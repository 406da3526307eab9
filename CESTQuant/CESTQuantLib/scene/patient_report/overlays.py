"""Pictures of slices: anatomy with outlined regions, maps at both visits in one colour scale, change, checkerboards."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from NeuroCESTLib.core.pictures import write_letters
from NeuroCESTLib.report.colors import TUMOR_COLORS
from NeuroCESTLib.report.embedded import embedded_picture
from NeuroCESTLib.report.page import Picture
from NeuroCESTLib.scene.display import color_map_rgb, robust_window

from ...compartments.results.regions import Region
from ...methods.registry import quantity_named
from .material import Material, VisitMaterial, quantity_title, with_unit
from .planes import Plane, moved_points, sampled, second_plane

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_COMPOSITES = ("whole_tumor", "tumor_core")
_WIDTH = 9.6
_TILES = 6
"""Squares of a checkerboard along the longer side."""
MOST_SLICES = 4
"""Slices of the overview of one map."""


def outlined_regions(material: Material) -> list[Region]:
    """Return the regions that pictures outline: compartments, segments and the contralateral reference."""
    found: dict[str, Region] = {}
    for visit in material.visits:
        for region in visit.visit.regions:
            wanted = region.kind in ("tumor", "segment") and region.name not in _COMPOSITES
            if wanted or region.name == "contralateral":
                found.setdefault(region.name, region)
    return list(found.values())


def region_color(region: Region) -> tuple[float, float, float]:
    """Return the colour of a region: that of its compartment, otherwise its own."""
    return TUMOR_COLORS.get(region.title.lower(), region.color)


def planes_of(material: Material) -> list[Plane]:
    """Return the slice of each visit with CEST that pictures show; both show the same place where that is known."""
    first = Plane.of(material.visits[0])
    if len(material.visits) == 1:
        return [first] if first is not None else []
    second = second_plane(material, first) if first is not None else Plane.of(material.visits[1])
    return [plane for plane in (first, second) if plane is not None]


def anatomy_picture(material: Material, planes: Sequence[Plane]) -> Picture:
    """Draw the anatomy of each visit in the slice of its maps, with the regions outlined."""

    def draw(figure: Figure) -> None:
        axes = figure.subplots(1, len(planes), squeeze=False)[0]
        for plane, axis in zip(planes, axes, strict=True):
            _draw_anatomy(axis, plane)
            _draw_outlines(axis, plane, material, width=1.5)
            _draw_midplane(axis, plane)
            axis.set_title(f"{plane.material.visit.name}, slice {plane.view.index + 1}")
        _legend(figure, material, planes)

    midline = ""
    if any(plane.material.visit.midplane is not None for plane in planes):
        midline = (
            " Dotted: the mid-sagittal plane, at which the contralateral reference is the mirror image of the tumour."
        )
    height = 3.7 * max(plane.height_over_width for plane in planes) + 0.8
    names = " and ".join(plane.material.visit.name for plane in planes)
    return embedded_picture(
        draw,
        (3.7 * len(planes) + 0.4, min(height, 6.0)),
        f"Anatomical slices of {names} with the outlines of the regions",
        "Anatomy in the slice of the CEST images with the largest part of the tumour, and the regions. The patient's "
        "right is on the left." + midline,
    )


def window_of(material: Material, quantity: str) -> tuple[float, float]:
    """Return the one colour scale of a map for all visits."""
    kind = quantity_named(quantity)
    if kind.window is not None:
        return kind.window
    arrays = [visit.visit.maps[quantity] for visit in material.visits if quantity in visit.visit.maps]
    values = np.concatenate([array[np.isfinite(array)] for array in arrays]) if arrays else np.zeros(1)
    low, high = robust_window(values)
    reach = max(abs(low), abs(high))
    return (-reach, reach) if kind.centered else (low, high)


def map_picture(material: Material, quantity: str, planes: Sequence[Plane]) -> Picture:
    """Draw a map over the anatomy at each visit in one colour scale, and its change."""
    shown = [plane for plane in planes if quantity in plane.material.visit.maps]
    between = material.analysis.between
    change = None if between is None else between.change_maps.get(quantity)
    change_plane = next((plane for plane in shown if plane.material is material.visits[0]), None)
    change = change if change_plane is not None and change is not None and np.isfinite(change).any() else None
    window = window_of(material, quantity)
    columns = len(shown) + (change is not None)

    def draw(figure: Figure) -> None:
        axes = figure.subplots(1, columns, squeeze=False)[0]
        for plane, axis in zip(shown, axes, strict=False):
            _draw_anatomy(axis, plane)
            image = _draw_map(axis, plane, plane.material.visit.maps[quantity], quantity, window)
            _draw_outlines(axis, plane, material)
            axis.set_title(plane.material.visit.name)
        _color_bar(figure, image, axes[: len(shown)], with_unit(quantity))
        if change is not None and change_plane is not None:
            low, high = robust_window(change)
            reach = max(abs(low), abs(high))
            _draw_anatomy(axes[-1], change_plane)
            image = _draw_map(axes[-1], change_plane, change, "change", (-reach, reach))
            _draw_outlines(axes[-1], change_plane, material)
            axes[-1].set_title("change")
            _color_bar(figure, image, [axes[-1]], "later − earlier")

    height = _WIDTH / 3.35 * max(plane.height_over_width for plane in shown) + 0.5
    names = " and ".join(plane.material.visit.name for plane in shown)
    more = ", and the change between them" if change is not None else ""
    return embedded_picture(
        draw,
        (_WIDTH * (columns + 0.25) / 3.25, min(max(height, 1.8), 5.5)),
        f"{quantity_title(quantity)} over the anatomy of {names} in one colour scale{more}",
    )


def slices_picture(material: Material, quantity: str) -> Picture | None:
    """Draw a map in several slices with a part of the tumour, a row for each visit; None where one slice shows all."""
    rows = []
    for visit in material.visits:
        plane = Plane.of(visit)
        if plane is not None and quantity in visit.visit.maps:
            rows.append(plane.slices_with_tumor(MOST_SLICES))
    columns = max((len(row) for row in rows), default=0)
    if columns < 2:
        return None
    window = window_of(material, quantity)

    def draw(figure: Figure) -> None:
        axes = figure.subplots(len(rows), columns, squeeze=False)
        for row, planes in zip(axes, rows, strict=True):
            for axis in row[len(planes) :]:
                axis.set_visible(False)
            for plane, axis in zip(planes, row, strict=False):
                _draw_anatomy(axis, plane)
                image = _draw_map(axis, plane, plane.material.visit.maps[quantity], quantity, window)
                _draw_outlines(axis, plane, material)
                axis.set_title(f"{plane.material.visit.name}, slice {plane.view.index + 1}", fontsize=8)
        _color_bar(figure, image, axes.ravel().tolist(), with_unit(quantity))

    shape = max(plane.height_over_width for row in rows for plane in row)
    return embedded_picture(
        draw,
        (_WIDTH, min(len(rows) * (_WIDTH / (columns + 0.3) * shape + 0.3), 9.0)),
        f"{quantity_title(quantity)} in {columns} slices of each visit",
        f"{quantity_title(quantity).capitalize()} in slices that show the tumour.",
    )


def check_maps_picture(visit: VisitMaterial, maps: Mapping[str, np.ndarray]) -> Picture | None:
    """Draw the maps that say how far to trust the others; None for a visit without them."""
    plane = Plane.of(visit)
    names = [name for name in maps if np.isfinite(maps[name]).any()][:4]
    if plane is None or not names:
        return None

    def draw(figure: Figure) -> None:
        axes = figure.subplots(1, len(names), squeeze=False)[0]
        for name, axis in zip(names, axes, strict=True):
            kind = quantity_named(name)
            low, high = kind.window or robust_window(maps[name])
            reach = max(abs(low), abs(high))
            _draw_anatomy(axis, plane)
            window = (-reach, reach) if kind.centered else (low, high)
            image = _draw_map(axis, plane, maps[name], name, window)
            axis.set_title(quantity_title(name))
            _color_bar(figure, image, [axis], kind.unit)

    width = _WIDTH / 4 * len(names)
    return embedded_picture(
        draw,
        (width, min(max(_WIDTH / 4 * 0.8 * plane.height_over_width + 0.5, 1.6), 4.5)),
        f"Fields, residuals and reliability of {visit.visit.name}: {', '.join(map(quantity_title, names))}",
        f"{visit.visit.name}: maps that say how far the others can be trusted.",
    )


def alignment_picture(planes: Sequence[Plane]) -> Picture | None:
    """Draw checkerboards of CEST image and anatomy; None where no visit has both."""
    shown = []
    for plane in planes:
        cest, source = plane.material.visit.unsaturated, plane.material.source
        if cest is not None and source is not None and source.anatomy:
            coarse = plane.cut(cest).repeat(plane.fine, 0).repeat(plane.fine, 1)
            shown.append((plane, checkerboard(coarse, sampled(source.anatomy[0], plane.anatomy_points()))))
    if not shown:
        return None

    def draw(figure: Figure) -> None:
        axes = figure.subplots(1, len(shown), squeeze=False)[0]
        for (plane, picture), axis in zip(shown, axes, strict=True):
            _draw_gray(axis, plane, picture)
            axis.set_title(plane.material.visit.name)

    height = 4.0 * max(plane.height_over_width for plane, _ in shown) + 0.4
    return embedded_picture(
        draw,
        (4.0 * len(shown) + 0.2, min(height, 6.0)),
        "Checkerboards of the unsaturated CEST image and the anatomical image of each visit",
        "CEST on anatomy: the squares show the unsaturated CEST image and the anatomy in turn. Edges of brain and "
        "ventricles must run on from square to square.",
    )


def registration_picture(material: Material, plane: Plane) -> Picture | None:
    """Draw checkerboards of the anatomy at both visits, with and without the deformation; None without a transform."""
    sources = [visit.source for visit in material.visits]
    if material.between is None or len(sources) < 2 or plane.material is not material.visits[0]:
        return None
    first, second = sources
    if first is None or second is None or not first.anatomy or not second.anatomy:
        return None
    points = plane.anatomy_points()
    fixed = sampled(first.anatomy[0], points)
    pictures = {
        "as scanned": sampled(second.anatomy[0], points),
        "registered": sampled(second.anatomy[0], moved_points(points, material.between)),
    }

    def draw(figure: Figure) -> None:
        for axis, (title, moving) in zip(figure.subplots(1, 2), pictures.items(), strict=True):
            _draw_gray(axis, plane, checkerboard(fixed, moving))
            axis.set_title(title)

    return embedded_picture(
        draw,
        (8.2, min(4.0 * plane.height_over_width + 0.4, 6.0)),
        "Checkerboards of the anatomical images of both visits, as scanned and registered",
        "Both visits in the space of the first one: the squares show them in turn, as scanned and after registration.",
    )


def checkerboard(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Return a picture whose squares show two pictures of one shape in turn, each in its own grey scale, 0 to 1."""
    rows, columns = first.shape
    edge = max(max(rows, columns) // _TILES, 1)
    odd = (np.arange(rows)[:, None] // edge + np.arange(columns) // edge) % 2 == 1
    return np.where(odd, _scaled(second), _scaled(first))


def _scaled(picture: np.ndarray) -> np.ndarray:
    values = np.nan_to_num(picture)
    inside = values[values > 0.05 * values.max()] if values.max() > 0 else values.ravel()
    low, high = np.percentile(inside, (1, 99.5)) if inside.size else (0.0, 1.0)
    return np.clip((values - min(low, 0.5 * high)) / max(high - min(low, 0.5 * high), 1e-12), 0, 1)


def _draw_gray(axis: Axes, plane: Plane, picture: np.ndarray) -> None:
    axis.imshow(picture, cmap="gray", vmin=0, vmax=1, extent=plane.extent, aspect=plane.view.aspect)
    axis.set_axis_off()
    write_letters(axis, plane.view.letters)


def _draw_anatomy(axis: Axes, plane: Plane) -> None:
    anatomy = plane.anatomy()
    picture = np.zeros((2, 2)) if anatomy is None else _scaled(anatomy)
    _draw_gray(axis, plane, picture)


def _draw_map(axis: Axes, plane: Plane, array: np.ndarray, quantity: str, window: tuple[float, float]) -> Any:
    """Draw a map opaquely, so that its colours are those of the bar; NaN stays transparent."""
    from matplotlib.colors import ListedColormap

    name = "diverging" if quantity == "change" else quantity_named(quantity).color_map
    picture = np.ma.masked_invalid(plane.cut(array))
    return axis.imshow(
        picture,
        cmap=ListedColormap(color_map_rgb(name)),
        vmin=window[0],
        vmax=window[1],
        extent=plane.extent,
        aspect=plane.view.aspect,
        interpolation="nearest",
    )


def _draw_outlines(axis: Axes, plane: Plane, material: Material, width: float = 1.1) -> None:
    from matplotlib.patheffects import withStroke

    # The necrotic core last, because neighbouring regions share an outline.
    for region in sorted(outlined_regions(material), key=lambda region: region.name == "necrotic_core"):
        share = plane.outline(region.name)
        if share is None:
            continue
        x, y = plane.pixel_centers(*share.shape)
        dashed = "dashed" if region.kind == "reference" else "solid"
        color = "white" if region.kind == "reference" else region_color(region)
        lines = axis.contour(x, y, share, levels=[0.5], colors=[color], linewidths=width, linestyles=dashed)
        lines.set(path_effects=[withStroke(linewidth=width + 0.9, foreground="black")])


def _draw_midplane(axis: Axes, plane: Plane) -> None:
    """Draw the line in which the mid-sagittal plane cuts the slice."""
    midplane = plane.material.visit.midplane
    if midplane is None:
        return
    distance = (plane.anatomy_points() - midplane.point) @ midplane.normal
    if (distance > 0).any() and (distance < 0).any():
        x, y = plane.pixel_centers(*distance.shape)
        axis.contour(x, y, distance, levels=[0.0], colors="white", linewidths=1.0, linestyles="dotted")


def _legend(figure: Figure, material: Material, planes: Sequence[Plane]) -> None:
    from matplotlib.lines import Line2D

    shown = [r for r in outlined_regions(material) if any(p.outline(r.name) is not None for p in planes)]
    handles = [
        Line2D([], [], color="0.45" if r.kind == "reference" else region_color(r), lw=2.2)
        if r.kind != "reference"
        else Line2D([], [], color="0.45", lw=1.6, ls="dashed")
        for r in shown
    ]
    if handles:
        titles = [region.title for region in shown]
        figure.legend(handles, titles, loc="outside lower center", ncols=min(len(handles), 5), frameon=False)


def _color_bar(figure: Figure, image: Any, axes: Sequence[Axes], label: str) -> None:
    from matplotlib.ticker import ScalarFormatter

    numbers = ScalarFormatter()
    numbers.set_powerlimits((-3, 4))
    bar = figure.colorbar(image, ax=list(axes), shrink=0.85, pad=0.02, format=numbers, extend="both")
    bar.set_label(label)
