"""A small made-up patient with two visits, as the report on compartments takes it; nothing is fitted or registered."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from CESTQuantLib.compartments.analysis import analyze
from CESTQuantLib.compartments.grid import Grid
from CESTQuantLib.compartments.inputs import CestMaps, Image, Masks, Settings, VisitInput
from CESTQuantLib.compartments.results.analysis import Analysis, Between
from CESTQuantLib.compartments.results.anatomy import Alignment, Midplane
from CESTQuantLib.compartments.results.change import Change
from CESTQuantLib.compartments.results.growth import JacobianOfRegion, Transition
from CESTQuantLib.compartments.results.response import Lesion, Response
from CESTQuantLib.compartments.results.spectrum import RegionSpectrum
from CESTQuantLib.compartments.results.visit import Visit
from CESTQuantLib.compartments.statistics import Sample, common_edges, distribution
from CESTQuantLib.scene.patient_report.material import Material, VisitMaterial

NAMES = ("visit 1", "visit 2")
SECRET = "Doe_John"
"""Part of the names of all files and nodes of the patient."""
QUANTITIES = {"amide_amplitude": 0.03, "noe_amplitude": 0.08, "amide_position_ppm": 3.5}

CEST = Grid((4, 42, 36), np.array([[-4.0, 0, 0, 70], [0, -4.0, 0, 82], [0, 0, 6.0, -9], [0, 0, 0, 1]]))
ANATOMY = Grid((40, 88, 76), np.array([[-2.0, 0, 0, 75], [0, -2.0, 0, 87], [0, 0, 2.0, -40], [0, 0, 0, 1]]))
FIT: dict[str, Any] = {
    "command": "cestquant fit",
    "settings": {"method": "lorentzian", "lorentzian": "3T", "power": 1.0, "b0": f"/data/{SECRET}/b0.nii.gz"},
    "summary": {
        "voxels": {"masked": 3000, "converged": 2800, "at_bound": 200, "failed": 3},
        "median_rmse": 0.005,
        "m0": {"source": f"image '{SECRET}_m0'"},
        "publications": ["Zaiss et al., J Magn Reson 2011;211:149"],
        "preparation": {
            "motion": {
                "method": "rigid, to synthetic references",
                "in_plane_only": True,
                "measurements": ["M0", *(str(number) for number in range(1, 32))],
                "translations_mm": [[0.1, 0.2, 0.0]] * 32,
                "resampled": ["7", "8", "9"],
                "interpolated": ["8"],
                "largest_displacement_mm": 0.83,
            }
        },
    },
    "warnings": [f"'/data/{SECRET}/signal.nii.gz' has few offsets", f"'{SECRET} t1' is dark"],
}
REGISTRATION = {
    "command": "jointregseg apply",
    "settings": {"affine": "affine", "weights": None},
    "summary": {
        "similarity": "lncc",
        "registration_modalities": ["t1", "flair"],
        "local_correlation_before": 0.47,
        "local_correlation_after": 0.68,
        "folded_fraction": 0.0,
        "displacement_mm_max": 7.9,
        "registration_verdict": {"verdict": "good"},
        "segmentation_verdict": {"verdict": "check"},
    },
    "verdict": "check",
    "warnings": ["the segmentation should be checked"],
}


def _radius(grid: Grid, center: tuple[float, float, float], radii: tuple[float, float, float]) -> np.ndarray:
    """Distance from a centre relative to the radii of an ellipsoid, (K, J, I)."""
    points = (grid.points() - np.array(center)) / np.array(radii)
    return np.linalg.norm(points, axis=1).reshape(grid.shape)


def _visit(number: int) -> VisitInput:
    rng = np.random.default_rng(number)
    grown = 1 + 0.25 * number
    place = (-28.0, 12.0, 0.0)
    brain = _radius(ANATOMY, (0, 0, 0), (62, 74, 45)) < 1
    core = _radius(ANATOMY, place, (7 * grown,) * 3) < 1
    enhancing = (_radius(ANATOMY, place, (13 * grown,) * 3) < 1) & ~core
    edema = (_radius(ANATOMY, place, (24, 28, 20)) < 1) & ~core & ~enhancing
    ventricles = _radius(ANATOMY, (0, 5, 0), (12, 24, 12)) < 1
    t1 = 200 * brain - 120 * ventricles + 150 * enhancing - 60 * edema - 110 * core
    t1 = t1 + 90 * ((_radius(ANATOMY, (0, 0, 0), (68, 80, 50)) < 1) & (_radius(ANATOMY, (0, 0, 0), (65, 77, 47)) > 1))
    t1 = t1 * (1 + 0.05 * np.sin(ANATOMY.points()[:, 0] / 6).reshape(ANATOMY.shape)) + rng.normal(0, 5, ANATOMY.shape)
    masks = {"Necrotic core": core, "Oedema": edema, "Enhancing tumour": enhancing}
    distance = _radius(CEST, place, (15.0 * grown,) * 3)
    inside = _radius(CEST, (0, 0, 0), (62, 74, 45)) < 1
    maps = {}
    for name, value in QUANTITIES.items():
        values = value * (1 + 0.6 * np.exp(-(distance**2)) * grown) + rng.normal(0, 0.06 * value, CEST.shape)
        maps[name] = np.where(inside, values, np.nan).astype(np.float32)
        maps[f"{name}_sd"] = np.where(inside, 0.05 * value, np.nan).astype(np.float32)
    maps["rmse"] = np.where(inside, rng.uniform(0.003, 0.008, CEST.shape), np.nan).astype(np.float32)
    slope = 0.002 * CEST.points()[:, 1].reshape(CEST.shape)
    maps["b0_shift_ppm"] = np.where(inside, slope, np.nan).astype(np.float32)
    m0 = (900 * inside + 300 * (_radius(CEST, (0, 5, 0), (12, 24, 12)) < 1)).astype(np.float32)
    units = {name: "ppm" if "ppm" in name else "" for name in maps}
    return VisitInput(
        NAMES[number],
        CestMaps(f"{SECRET} maps", CEST, maps, units, m0),
        Masks(f"{SECRET} segmentation", ANATOMY, masks),
        (Image(f"{SECRET} t1", np.clip(t1, 0, None).astype(np.float32), ANATOMY),),
    )


def _completed(visit: Visit) -> Visit:
    """Add what the analysis of such small inputs leaves out: spectra, distributions, alignment and lesions."""
    offsets = np.linspace(-6, 6, 31)
    regions = [region for region in visit.regions if region.weights.max() > 0.5]
    spectra = []
    for number, region in enumerate(regions[:4]):
        fit = 1 - 0.8 / (1 + offsets**2) - 0.02 * (1 + number) * np.exp(-((offsets - 3.5) ** 2))
        signal = fit + np.random.default_rng(number).normal(0, 0.004, offsets.shape)
        sd = np.full(31, 0.012)
        spectra.append(RegionSpectrum(region.name, offsets, np.full(31, 1.0), signal, sd, fit))
    boxes = []
    for name in QUANTITIES:
        edges = common_edges([visit.maps[name]])
        boxes += [distribution(Sample.of(visit.maps[name], r.weights), r.name, name, edges) for r in regions]
    alignment = Alignment(
        "registered", np.eye(4), f"{SECRET} t1", 1.2, 0.8, 0.98, 1.08, 1.12, 0.61, 0.72, "check", ("it moved far",)
    )
    midplane = Midplane(np.zeros(3), np.array([1.0, 0.0, 0.0]), 0.9)
    visit = replace(visit, midplane=midplane)
    lesions = (Lesion(9.0, 26.0, 24.0, np.zeros(3), True), Lesion(0.1, 6.0, 4.0, np.zeros(3), False))
    return replace(visit, spectra=tuple(spectra), distributions=tuple(boxes), alignment=alignment, lesions=lesions)


def _between(first: Visit, second: Visit) -> Between:
    changes = []
    for quantity in QUANTITIES:
        for region in first.regions:
            one, two = first.row(region.name, quantity), second.row(region.name, quantity)
            if one is None or two is None or not one.n:
                continue
            change, se = two.mean - one.mean, float(np.hypot(one.mean_se, two.mean_se))
            limits = (change - 1.96 * se, change + 1.96 * se)
            errors = (se / 3, se, se / 2)
            percent = 100 * change / one.mean
            changes.append(
                Change(
                    *(region.name, quantity, "", one.mean, two.mean, change, percent, *limits, 0.95, se, *errors, True),
                    *(two.pure - one.pure, two.pure - one.pure - se, two.pure - one.pure + se),
                )
            )
    nan = float("nan")
    for region in first.regions:
        now = second.region(region.name)
        if now is not None:
            growth = now.volume_ml - region.volume_ml
            values = (region.volume_ml, now.volume_ml, growth, 100 * growth / region.volume_ml)
            changes.append(Change(region.name, "volume", "ml", *values, nan, nan, 0.95, nan, nan, nan, nan, True))
    distance = _radius(ANATOMY, (-28.0, 12.0, 0.0), (1, 1, 1))
    labels = np.zeros(ANATOMY.shape, np.uint8)
    labels[distance < 13] = 1
    labels[(distance >= 13) & (distance < 16.25)] = 2
    labels[(distance >= 24) & (distance < 27)] = 3
    transitions = (
        Transition("enhancing_tumor", "enhancing_tumor", 9.2),
        Transition("edema", "enhancing_tumor", 8.1),
        Transition("background", "edema", 3.4),
    )
    change_maps = {name: second.maps[name] - first.maps[name] for name in QUANTITIES}
    response = Response(
        (624.0, 980.0),
        (1, 2),
        57.0,
        95.3,
        "progressive disease",
        "progressive disease",
        "Automatic, not a reading.",
        (9.1, 17.8),
    )
    return Between(
        tuple(changes),
        response,
        transitions,
        labels,
        ANATOMY,
        (JacobianOfRegion("enhancing_tumor", 1.21, 0.94, 1.52, 0.0),),
        change_maps,
        registration={"with": 0.91, "without": 0.44},
        warnings=(f"the file '/data/{SECRET}/moving_to_fixed.h5' is old",),
    )


def a_patient(visits: int = 2) -> Material:
    """A patient with one or two visits, everything that a report can show, and secret names everywhere.

    Args:
        visits: Number of visits.
    """
    import SimpleITK as sitk

    from CESTQuantLib.scene.patient_report.material import hidden_names

    inputs = tuple(_visit(number) for number in range(visits))
    found = analyze(*inputs, settings=Settings(draws=60, fit_spectra=False))
    each = [_completed(visit) for visit in found.visits]
    between = _between(*each) if visits == 2 else None
    analysis = Analysis(tuple(each), between, found.settings)
    materials = tuple(VisitMaterial(visit, source, FIT) for visit, source in zip(each, inputs, strict=True))
    two = visits == 2
    return Material(
        analysis,
        materials,
        sitk.TranslationTransform(3, (1.5, 0.0, 0.0)) if two else None,
        REGISTRATION if two else {},
        versions={"neurocest": "0.1.0", "slicer": "slicer-core 5.13", "torch": "2.13.0", "python": "3.11"},
        hidden=hidden_names(inputs, {"maps": f"/data/{SECRET}/maps"}),
    )
