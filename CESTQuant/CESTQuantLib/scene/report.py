"""The picture of a run: maps over anatomy, and spectra of the regions with fit and residual."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from NeuroCESTLib.report.figures import report_figure
from NeuroCESTLib.report.maps import MapPanel
from NeuroCESTLib.report.spectra import Spectrum

from .results import CESTQuantResult, Drawing
from .style import style_of

MOST_MAPS = 8
MOST_VOXELS_A_SPECTRUM = 2000


def draw_report(result: CESTQuantResult, path: str | Path, title: str = "") -> None:
    """Write the report picture (PNG) of a run; ValueError where matplotlib is missing or the file cannot be written."""
    drawing = result.drawing
    names = sorted((n for n in drawing.maps if not n.endswith("_sd")), key=lambda n: style_of(n).rank)
    shown = [n for n in names if np.isfinite(drawing.maps[n]).any()][:MOST_MAPS]
    fitted = np.zeros(drawing.geometry.shape, bool)
    fitted.reshape(-1)[drawing.voxels] = np.isfinite(drawing.quantification.signal.cpu().numpy()).any(1)
    windows = {n: result.nodes[n].GetScalarVolumeDisplayNode() for n in shown}
    panels = [
        MapPanel(
            n.replace("_", " ").removesuffix(f" {style_of(n).unit}"),
            style_of(n).unit,
            drawing.maps[n],
            style_of(n).color_map,
            (windows[n].GetWindowLevelMin(), windows[n].GetWindowLevelMax()),
        )
        for n in shown
    ]
    report_figure(
        path,
        drawing.anatomy,
        panels,
        _spectra(drawing, fitted),
        mask=fitted,
        geometry=drawing.geometry,
        rois=drawing.regions or None,
        title=title,
        x_label=_x_label(drawing),
        y_label="Z = M / M0" if drawing.quantification.protocol.signal_normalisation == "m0" else "signal",
    )


def _x_label(drawing: Drawing) -> str:
    return "offset (ppm)" if _by_offset(drawing) else "measurement"


def _by_offset(drawing: Drawing) -> bool:
    """A Z-spectrum has one measurement an offset; schedules are drawn in order of acquisition."""
    offsets = drawing.quantification.protocol.offsets_ppm.detach().numpy()
    return len(np.unique(offsets)) == len(offsets)


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

    step = max(1, len(rows) // MOST_VOXELS_A_SPECTRUM)
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
    known = np.isfinite(signal).any(0)  # a B0 correction leaves the ends of the spectrum empty
    signal, x = signal[:, known], x[known]
    if fit is not None:
        fit = np.nanmean(np.where(np.isfinite(signal), fit[:, known], np.nan), axis=0)
    return Spectrum(name, x, np.nanmean(signal, 0), np.nanstd(signal, 0), fit)
