"""Trial of weights that know the resection cavity, on patients who took no part in their training.

Synthetic patients have one visit with a resected tumour and one without. Labelled patients of a manifest are segmented
as they are, when every cavity is false, and after one or more operations on the images (``augmentation.resection``)::

    python Testing/cavity_trial.py --weights W.pt --patients 12 --manifest real.csv --output cavity.csv

The table has a row per visit and set of modalities: true and found volume of cavity, enhancing and whole tumour, and
Dice.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
import torch
from segmentation_scores import SETS
from segmentation_trial import SPACING_MM, segmented

from JointRegSegLib.augmentation.resection import resected
from JointRegSegLib.cohort.manifest import read_manifest
from JointRegSegLib.cohort.preparation import PreparationConfig, StudyPreparer
from JointRegSegLib.images.labels import CAVITY, LABELS, REGIONS
from JointRegSegLib.images.preprocessing.config import PreprocessingConfig
from JointRegSegLib.metrics.overlap import dice
from JointRegSegLib.network.shipped import default_weights_path
from JointRegSegLib.synthesis.patient import synthetic_patient
from JointRegSegLib.synthesis.templates import load_templates
from NeuroCESTLib.core.whole_files import write_csv

MEASURED = {LABELS[CAVITY]: (CAVITY,), **REGIONS}
_COLUMNS = (
    "patient",
    "kind",
    "modalities",
    *(f"{name}_{what}" for name in MEASURED for what in ("true_ml", "found_ml", "dice")),
)
Visit = tuple[str, str, torch.Tensor, torch.Tensor, torch.Tensor]
"""Patient, kind, images (modality, D, H, W), labels and brain (D, H, W)."""


def synthetic_visits(patients: int, seed: int) -> Iterator[Visit]:
    """Make both visits of patients who are resected at one of them."""
    templates = [template.at(SPACING_MM) for template in load_templates(None)]
    for number in range(seed, seed + patients):
        patient = synthetic_patient(templates, number, SPACING_MM, cavity=True, resected_share=1.0)
        for visit in (patient.fixed, patient.moving):
            kind = "synthetic, resected" if bool((visit.labels == CAVITY).any()) else "synthetic"
            yield str(number), kind, visit.images, visit.labels, visit.mask


def real_visits(manifest: Path, operations: int) -> Iterator[Visit]:
    """Read labelled patients, as they are and after operations."""
    cohort = read_manifest(manifest)
    prepare = StudyPreparer(cohort, PreparationConfig(PreprocessingConfig(spacing_mm=SPACING_MM)))
    for index in range(len(prepare)):
        sample = prepare(index)
        visits = [("real", sample)]
        for number in range(operations):
            visits.append(("real, resected", resected(sample, torch.Generator().manual_seed(1000 * number + index))))
        for kind, visit in visits:
            assert visit.labels is not None, f"'{visit.name}' has no label file"
            yield sample.name, kind, visit.images, visit.labels, visit.mask


def measured(visit: Visit, modalities: str, weights: Path) -> dict[str, Any]:
    """Segment a visit with a set of modalities and compare it with the truth."""
    patient, kind, images, labels, brain = visit
    found = sitk.GetArrayFromImage(segmented(images, brain, SETS[modalities], weights).labels)
    row: dict[str, Any] = {"patient": patient, "kind": kind, "modalities": modalities}
    for name, classes in MEASURED.items():
        true, called = np.isin(labels.numpy(), classes), np.isin(found, classes)
        row |= {f"{name}_true_ml": true.sum() * SPACING_MM**3 / 1000}
        row |= {f"{name}_found_ml": called.sum() * SPACING_MM**3 / 1000}
        row |= {f"{name}_dice": dice(called, true) if true.any() or called.any() else float("nan")}
    return row


def report(rows: list[dict[str, Any]]) -> None:
    """Print means by kind and set of modalities."""
    print("| visits | modalities | number | Dice of cavity, enhancing, whole tumour | ml of cavity found (true) |")
    print("| --- | --- | --- | --- | --- |")
    for kind, modalities in dict.fromkeys((row["kind"], row["modalities"]) for row in rows):
        group = [row for row in rows if (row["kind"], row["modalities"]) == (kind, modalities)]
        cavity = LABELS[CAVITY]
        means = " / ".join(
            f"{np.nanmean([row[f'{name}_dice'] for row in group]):.2f}"
            for name in (cavity, "enhancing_tumor", "whole_tumor")
        )
        volumes = [float(np.mean([row[f"{cavity}_{what}_ml"] for row in group])) for what in ("found", "true")]
        print(f"| {kind} | {modalities} | {len(group)} | {means} | {volumes[0]:.1f} ({volumes[1]:.1f}) |")


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", type=Path, default=default_weights_path(), help="weights file")
    parser.add_argument("--patients", type=int, default=12, help="number of synthetic patients")
    parser.add_argument("--seed", type=int, default=5000, help="seed of the first one")
    parser.add_argument("--manifest", type=Path, help="labelled patients from before an operation")
    parser.add_argument("--operations", type=int, default=2, help="operations on each of them")
    parser.add_argument("--output", type=Path, default=Path("cavity_trial.csv"), help="table of all visits")
    options = parser.parse_args()
    visits = list(synthetic_visits(options.patients, options.seed))
    if options.manifest is not None:
        visits += real_visits(options.manifest, options.operations)
    rows: list[dict[str, Any]] = []
    for visit in visits:
        for modalities in SETS:
            rows.append(measured(visit, modalities, options.weights))
        print(visit[0], visit[1], *(f"{rows[-len(SETS)][f'{name}_dice']:.2f}" for name in MEASURED), flush=True)
        write_csv(_COLUMNS, ([row[column] for column in _COLUMNS] for row in rows), options.output)
    report(rows)


if __name__ == "__main__":
    main()
