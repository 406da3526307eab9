"""The report picture of a run: maps over anatomy, and spectra of the regions with fit and residual."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from NeuroCESTLib.report.figures import motion_figure, report_figure
from NeuroCESTLib.report.maps import MapPanel
from NeuroCESTLib.report.spectra import Spectrum

from ..methods.registry import quantity_named
from .results import CESTQuantResult, Drawing

LEAST_OFFSETS = 5
"""Offsets that each of several powers needs to be drawn as a spectrum."""
MOST_MAPS = 8
"""Maps in the picture; further ones, of lower rank, are left out."""
MOST_VOXELS_PER_SPECTRUM = 2000
"""Voxels that a mean spectrum is made of; larger regions are thinned out evenly."""


def draw_report(result: CESTQuantResult, path: str | Path, title: str = "") -> None:
    """Write the report picture of a run.

    Args:
        result: What the run has put into the scene.
        path: File to write (``.png``).
        title: Title of the picture.

    Raises:
        ValueError: matplotlib is missing, or the file cannot be written.
    """
    drawing = result.drawing
    names = sorted((n for n in drawing.maps if not n.endswith("_sd")), key=lambda n: quantity_named(n).rank)
    shown = [n for n in names if np.isfinite(drawing.maps[n]).any()][:MOST_MAPS]
    fitted = np.zeros(drawing.geometry.shape, bool)
    fitted.reshape(-1)[drawing.voxels] = np.isfinite(drawing.quantification.signal.cpu().numpy()).any(1)
    report_figure(
        path,
        drawing.anatomy,
        [_panel(result, name) for name in shown],
        _spectra(drawing, fitted),
        mask=fitted,
        geometry=drawing.geometry,
        rois=drawing.regions or None,
        title=title,
        x_label="offset (ppm)" if _by_offset(drawing) else "measurement",
        y_label="Z = M / M0" if drawing.quantification.protocol.signal_normalisation == "m0" else "signal",
    )


def draw_motion(motion: Mapping[str, Any], path: str | Path, title: str = "") -> None:
    """Plot the motion of every measurement.

    Args:
        motion: Record ``motion`` of the preparation in a report.
        path: File to write (``.png``).
        title: Title of the picture.

    Raises:
        ValueError: matplotlib is missing, or the file cannot be written.
    """
    motion_figure(
        path,
        motion["measurements"],
        np.array(motion["translations_mm"]),
        np.array(motion["rotations_deg"]),
        uncertain=[name in motion["interpolated"] for name in motion["measurements"]],
        title=title,
    )


def _panel(result: CESTQuantResult, name: str) -> MapPanel:
    quantity, shown = quantity_named(name), result.nodes[name].GetScalarVolumeDisplayNode()
    title = name.replace("_", " ").removesuffix(f" {quantity.unit}")
    window = (shown.GetWindowLevelMin(), shown.GetWindowLevelMax())
    return MapPanel(title, quantity.unit, result.drawing.maps[name], quantity.color_map, window)


def _by_offset(drawing: Drawing) -> bool:
    """Whether to draw over the offsets: so for Z-spectra, also those whose offsets are measured several times.

    Schedules, which have few offsets per power, are drawn in the order of acquisition.
    """
    protocol = drawing.quantification.protocol
    offsets = protocol.offsets_ppm.detach().numpy()
    power = _power(drawing)
    pairs = np.unique(np.stack([offsets, power]), axis=1)
    each, counts = np.unique(pairs[1], return_counts=True)
    repeated = pairs.shape[1] < len(offsets)
    return bool((counts >= LEAST_OFFSETS).all()) or (len(each) == 1 and not repeated)


def _power(drawing: Drawing) -> np.ndarray:
    """Return the B1 in uT of each measurement."""
    protocol = drawing.quantification.protocol
    return protocol.b1_uT.detach().expand(protocol.measurement_count).numpy()


def _spectra(drawing: Drawing, fitted: np.ndarray) -> list[Spectrum]:
    regions = {name: mask & fitted for name, mask in drawing.regions.items()} or {"all voxels": fitted}
    position = np.full(fitted.size, -1)
    position[drawing.voxels] = np.arange(len(drawing.voxels))
    spectra = []
    for name, mask in regions.items():
        rows = position[np.flatnonzero(mask)]
        if len(rows):
            spectra.append(_spectrum(drawing, name, rows[rows >= 0]))
    return spectra


def _spectrum(drawing: Drawing, name: str, rows: np.ndarray) -> Spectrum:
    import torch

    step = max(1, len(rows) // MOST_VOXELS_PER_SPECTRUM)
    index = torch.from_numpy(rows[::step])
    quantification = drawing.quantification
    signal = quantification.signal[index].cpu().numpy()
    signal = np.where(np.isfinite(signal), signal, np.nan)
    offsets = quantification.protocol.offsets_ppm.detach().numpy()
    x = offsets if _by_offset(drawing) else np.arange(1, len(offsets) + 1)
    fit = None
    if quantification.predict is not None:
        with torch.no_grad():
            predicted = quantification.predict(index).cpu().numpy()
        usable = np.isfinite(predicted).all(1)
        if usable.any():
            signal, fit = signal[usable], predicted[usable]
    known = np.isfinite(signal).any(0)  # a B0 correction empties the ends of the spectrum
    signal, x = signal[:, known], x[known]
    power = _power(drawing)[known] if _by_offset(drawing) else None
    if fit is not None:
        fit = np.nanmean(np.where(np.isfinite(signal), fit[:, known], np.nan), axis=0)
    if power is not None:
        x, power, signal, fit = _averaged(x, power, signal, fit)
    return Spectrum(name, x, np.nanmean(signal, 0), np.nanstd(signal, 0), fit, power)


def _averaged(
    x: np.ndarray, power: np.ndarray, signal: np.ndarray, fit: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray | None]:
    """Average measurements of the same offset and power, in the order in which these come first.

    Args:
        x: Offsets, shape (measurement,).
        power: B1 of each measurement, shape (measurement,).
        signal: Signals, shape (voxel, measurement); NaN where a measurement is not usable.
        fit: Mean fitted signal, shape (measurement,), or None.
    """
    _, first, group = np.unique(np.stack([x, power]), axis=1, return_index=True, return_inverse=True)
    if len(first) == len(x):
        return x, power, signal, fit
    order = np.argsort(first)
    members = [np.flatnonzero(group.reshape(-1) == number) for number in order]
    means = np.stack([_mean(signal[:, rows]) for rows in members], axis=1)
    fitted = None if fit is None else np.array([fit[rows].mean() for rows in members])
    return x[first[order]], power[first[order]], means, fitted


def _mean(values: np.ndarray) -> np.ndarray:
    """Mean over the last axis of what is finite; NaN where nothing is."""
    count = np.isfinite(values).sum(-1)
    return np.where(count > 0, np.nansum(values, -1) / np.maximum(count, 1), np.nan)
