"""Trial of a segmentation on synthetic patients: errors of volumes, small enhancing lesions, heads without a tumour.

``volumes`` compares the volume of each region with the truth and with the uncertain volume, which is the sum of
``p (1 - p)`` over the voxels for the probability p of the region, and counts how many true volumes the intervals hold.

``lesions`` plants enhancing lesions of 0.3 to 2 ml in white matter and counts those that are found, that is of which at
least a tenth is segmented as enhancing tumour.

``nothing`` segments synthetic heads without a tumour, in which everything that is found is false.

The table is written after each patient, and a run that finds it goes on with the next one. It may hold the rows of
several runs: the report is on the patients, weights and modalities that are asked for.
"""

from __future__ import annotations

import argparse
import csv
import math
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
import torch

from JointRegSegLib.findings.region_volumes import LEAST_UNCERTAIN_ML, VOLUME_REGIONS
from JointRegSegLib.findings.result import StudyResult
from JointRegSegLib.images.grid import WorkingGrid
from JointRegSegLib.images.labels import CAVITY, CLASSES, LABELS, REGIONS
from JointRegSegLib.images.modalities import MODALITIES
from JointRegSegLib.images.study import StudyImages
from JointRegSegLib.inference.settings import InferenceSettings
from JointRegSegLib.inference.single_study import process_study
from JointRegSegLib.network.weights import load_weights
from JointRegSegLib.synthesis.anatomy import random_head
from JointRegSegLib.synthesis.contrast import random_images
from JointRegSegLib.synthesis.patient import SHAPE_MM, synthetic_patient
from JointRegSegLib.synthesis.random_fields import Draw
from JointRegSegLib.synthesis.templates import WM, load_templates
from JointRegSegLib.synthesis.tumor import Tumor, TumorNoise, tumor_fields
from NeuroCESTLib.core.checksum import sha256
from NeuroCESTLib.core.whole_files import write_rows

SPACING_MM = 2.0
WEIGHTS = Path(__file__).parents[1] / "JointRegSeg/JointRegSegLib/weights/neurocest.pt"
SETTINGS = InferenceSettings(keep_probabilities=True, coregister=False)
_LESIONS = 3
_APART_MM = 30.0
_FOUND_SHARE = 0.1


def segmented(
    images: torch.Tensor, brain: torch.Tensor, modalities: Iterable[str], weights: Path = WEIGHTS
) -> StudyResult:
    """Segment images (modality, D, H, W) on voxels of 2 mm with their brain (D, H, W)."""
    depth, height, width = brain.shape
    grid = WorkingGrid((depth, height, width), SPACING_MM, (0.0, 0.0, 0.0))
    shown = {m: grid.to_sitk(image.float()) for m, image in zip(MODALITIES, images, strict=True) if m in modalities}
    study = StudyImages(shown, grid.to_sitk(brain.to(torch.uint8)), None, "study")
    return process_study(study, load_weights(weights), SETTINGS)


def volumes_of(seed: int, templates: list[Any], modalities: Iterable[str], weights: Path) -> list[dict[str, Any]]:
    """Compare the volumes of both visits of a patient with the truth."""
    patient = synthetic_patient(templates, seed, SPACING_MM)
    rows = []
    for number, visit in enumerate((patient.fixed, patient.moving)):
        result = segmented(visit.images, visit.mask, modalities, weights)
        maps = np.stack([sitk.GetArrayViewFromImage(result.probabilities[name]) for name in CLASSES])
        voxel_ml = SPACING_MM**3 / 1000
        for row in result.volumes:
            classes = VOLUME_REGIONS[row.region]
            if max(classes) >= len(CLASSES):
                continue
            share = maps[list(classes)].sum(0)
            rows.append(
                {
                    "patient": seed,
                    "visit": number,
                    "region": row.region,
                    "true_ml": float(np.isin(visit.labels.numpy(), classes).sum()) * voxel_ml,
                    "found_ml": row.volume_ml,
                    "uncertain_ml": float((share * (1 - share)).sum()) * voxel_ml,
                    "low_ml": row.low_ml,
                    "high_ml": row.high_ml,
                }
            )
    return rows


def nothing_of(seed: int, templates: list[Any], modalities: Iterable[str], weights: Path) -> list[dict[str, Any]]:
    """Segment both visits of a head without a tumour."""
    patient = synthetic_patient(templates, seed, SPACING_MM, tumor_free_share=1.0)
    rows = []
    for number, visit in enumerate((patient.fixed, patient.moving)):
        found = sitk.GetArrayViewFromImage(segmented(visit.images, visit.mask, modalities, weights).labels)
        ml = np.bincount(found.ravel(), minlength=len(LABELS)) * SPACING_MM**3 / 1000
        rows.append({"patient": seed, "visit": number, "tumor_ml": ml[1:CAVITY].sum(), "cavity_ml": ml[CAVITY]})
    return rows


def lesions_of(seed: int, templates: list[Any], modalities: Iterable[str], weights: Path) -> list[dict[str, Any]]:
    """Plant small enhancing lesions in a healthy head and find out which are segmented."""
    draw = Draw(seed)
    shape = tuple(round(n / SPACING_MM) for n in SHAPE_MM)
    depth, height, width = shape
    healthy = random_head(templates[seed % len(templates)], (depth, height, width), draw)
    noise = TumorNoise.of((depth, height, width), SPACING_MM, draw)
    centers: list[torch.Tensor] = []
    places = torch.nonzero(healthy[WM] > 0.9).float()
    while len(centers) < _LESIONS:
        place = places[int(draw.uniform(0, len(places) - 1e-3))]
        if all(float((place - other).norm()) * SPACING_MM > _APART_MM for other in centers):
            centers.append(place)
    wanted_ml = [math.exp(draw.uniform(math.log(0.3), math.log(2.0))) for _ in centers]
    radii = torch.tensor([(3000 * v / (4 * math.pi)) ** (1 / 3) for v in wanted_ml])
    kind = "ring" if draw.chance(0.5) else "solid"
    tumor = Tumor(
        kind, torch.stack(centers), radii, torch.eye(3).repeat(_LESIONS, 1, 1), 0.15, draw.uniform(3, 12), 2.5, 0.0
    )
    fields = tumor_fields(tumor, healthy, noise, SPACING_MM)
    mask = healthy.sum(0) > 0.5
    truth = (fields.labels() * mask).numpy()
    images = random_images(healthy, fields, mask, SPACING_MM, draw, MODALITIES)
    result = segmented(images, mask, modalities, weights)
    found = sitk.GetArrayViewFromImage(result.labels) == CLASSES.index("enhancing_tumor")
    core = np.isin(truth, REGIONS["tumor_core"])
    parts = sitk.GetArrayFromImage(sitk.ConnectedComponent(sitk.GetImageFromArray(core.astype(np.uint8)), True))
    voxel_ml = SPACING_MM**3 / 1000
    elsewhere = float((found & ~_grown(core)).sum()) * voxel_ml
    rows = []
    for part in range(1, parts.max() + 1):
        inside = parts == part
        enhancing = inside & (truth == CLASSES.index("enhancing_tumor"))
        volume = float(inside.sum()) * voxel_ml
        if volume < 0.1 or not enhancing.any():
            continue
        share = float((found & inside).sum()) / float(inside.sum())
        rows.append({"patient": seed, "kind": kind, "true_ml": volume, "found_share": share, "elsewhere_ml": elsewhere})
    return rows


def _grown(mask: np.ndarray) -> np.ndarray:
    """Grow a mask by two voxels."""
    image = sitk.GetImageFromArray(mask.astype(np.uint8))
    return sitk.GetArrayFromImage(sitk.BinaryDilate(image, [2, 2, 2])) > 0


def report_volumes(rows: list[dict[str, Any]]) -> None:
    """Print the errors in uncertain volumes, and how many true volumes the intervals hold."""
    print("| region | volumes | 90 % of errors up to | held by intervals |\n| --- | --- | --- | --- |")
    for region in ("all", *dict.fromkeys(row["region"] for row in rows)):
        errors, held = [], 0
        for row in rows:
            if region in ("all", row["region"]):
                true, found, low, high = (float(row[key]) for key in ("true_ml", "found_ml", "low_ml", "high_ml"))
                errors.append(abs(true - found) / max(float(row["uncertain_ml"]), LEAST_UNCERTAIN_ML))
                held += low - 1e-9 <= true <= high + 1e-9
        print(f"| {region} | {len(errors)} | {np.quantile(errors, 0.9):.2f} | {held} of {len(errors)} |")


def report_lesions(rows: list[dict[str, Any]]) -> None:
    """Print the share of lesions that are found, by volume."""
    print("| volume | lesions | found | median share of the lesion |\n| --- | --- | --- | --- |")
    for low, high in ((0.1, 0.3), (0.3, 0.7), (0.7, 1.2), (1.2, 2.0), (2.0, 9.0), (0.3, 2.0)):
        shares = [float(row["found_share"]) for row in rows if low <= float(row["true_ml"]) < high]
        if shares:
            found = sum(share >= _FOUND_SHARE for share in shares)
            print(f"| {low:g} to {high:g} ml | {len(shares)} | {found} | {np.median(shares):.2f} |")
    elsewhere = {row["patient"]: float(row["elsewhere_ml"]) for row in rows}
    print(f"\nenhancing tumour elsewhere: {np.mean(list(elsewhere.values())):.2f} ml per brain on average")


def report_nothing(rows: list[dict[str, Any]]) -> None:
    """Print the false volumes."""
    for what in ("tumor", "cavity"):
        ml = np.array([float(row[f"{what}_ml"]) for row in rows])
        listed = ", ".join(f"{value:.1f}" for value in -np.sort(-ml[ml > 0]))
        print(f"{what}: {int((ml >= 3).sum())} of {len(ml)} visits with 3 ml or more; all above 0: {listed or 'none'}")


_TRIALS = {
    "volumes": (volumes_of, report_volumes),
    "lesions": (lesions_of, report_lesions),
    "nothing": (nothing_of, report_nothing),
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=tuple(_TRIALS))
    parser.add_argument("--weights", type=Path, default=WEIGHTS, help="weights file (default: those of the package)")
    parser.add_argument("--patients", type=int, default=20, help="number of patients")
    parser.add_argument("--seed", type=int, default=3000, help="seed of the first one")
    parser.add_argument("--modalities", nargs="+", choices=MODALITIES, default=list(MODALITIES), help="images shown")
    parser.add_argument("--output", type=Path, help="table of all cases (default: segmentation_trial_WHAT.csv)")
    arguments = parser.parse_args()
    output = arguments.output or Path(f"segmentation_trial_{arguments.what}.csv")
    rows: list[dict[str, Any]] = []
    if output.exists():
        with output.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
    shown = [name for name in MODALITIES if name in arguments.modalities]
    settings = {"weights": sha256(arguments.weights), "modalities": " ".join(shown)}
    patients = range(arguments.seed, arguments.seed + arguments.patients)
    compute, report = _TRIALS[arguments.what]
    done = {int(row["patient"]) for row in rows if settings.items() <= row.items()}
    missing = [seed for seed in patients if seed not in done]
    templates = [template.at(SPACING_MM) for template in load_templates(None)] if missing else []
    for seed in missing:
        rows += [row | settings for row in compute(seed, templates, shown, arguments.weights)]
        write_rows(rows, output)
        print(f"patient {seed}", file=sys.stderr, flush=True)
    report([row for row in rows if settings.items() <= row.items() and int(row["patient"]) in patients])
    return 0


if __name__ == "__main__":
    sys.exit(main())
