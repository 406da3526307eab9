"""Scores of weights on labelled patients, for several sets of modalities: Dice, volumes, calibration.

It is used for the cross-validation of the weights that come with the module::

    python Testing/segmentation_scores.py --manifest held_out.csv --weights fold0/weights.pt --output scores0

The output folder holds ``scores.csv`` (a row per patient and set of modalities), ``calibration.csv`` (voxels of the
brain by predicted probability of tumour) and ``reliability.png``. Several folders are combined with ``--combine``::

    python Testing/segmentation_scores.py --combine scores0 scores1 scores2 scores3 --output scores
"""

from __future__ import annotations

import argparse
import csv
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import SimpleITK as sitk
import torch

from JointRegSegLib.cohort.manifest import StudyRecord, read_manifest
from JointRegSegLib.cohort.preparation import read_study
from JointRegSegLib.images.labels import REGIONS
from JointRegSegLib.images.modalities import MODALITIES
from JointRegSegLib.images.preprocessing import PreparedStudy, brain_grid, labels_on_grid, prepare_checked
from JointRegSegLib.inference.native import native_labels
from JointRegSegLib.inference.network_pass import network_preprocessing, segment_prepared
from JointRegSegLib.inference.region_volumes import region_volumes
from JointRegSegLib.inference.uncertainty import Segmentation
from JointRegSegLib.metrics.overlap import region_scores
from JointRegSegLib.network.weights import LoadedWeights, load_weights

SETS = {"all": ("t1", "t1ce", "t2", "flair"), "t1ce+flair": ("t1ce", "flair"), "flair": ("flair",)}
"""Sets of modalities that are scored."""
BINS = 15
"""Bins of the predicted probability in the calibration."""


@dataclass(frozen=True)
class Patient:
    """A labelled patient on the working grid.

    Attributes:
        prepared: All its modalities.
        labels: Classes on the native grid (uint8).
        on_grid: Classes (D, H, W) on the working grid.
        reference: Image that has the native grid.
    """

    prepared: PreparedStudy
    labels: sitk.Image
    on_grid: torch.Tensor
    reference: sitk.Image


def read_patient(weights: LoadedWeights, record: StudyRecord) -> Patient:
    """Read and prepare a labelled patient for a network."""
    study, mask = read_study(record)
    if study.tumor_labels is None:
        raise ValueError(f"'{record.name}' has no label file: add the column 'label' to the manifest")
    config = network_preprocessing(weights)
    grid = brain_grid([(mask, None)], config, study.reference)
    prepared = prepare_checked(study, mask, config, grid)
    return Patient(prepared, study.tumor_labels, labels_on_grid(study.tumor_labels, grid), study.reference)


def score(
    weights: LoadedWeights, patient: Patient, modalities: tuple[str, ...]
) -> tuple[dict, np.ndarray, Segmentation]:
    """Segment a patient with some modalities.

    Args:
        weights: Network to score.
        patient: Labelled patient.
        modalities: Modalities that the network sees.

    Returns:
        Scores by name, the calibration (region, 3, bin): voxels, sum of the probability, voxels of the region; and the
        segmentation.
    """
    background = network_preprocessing(weights).background
    images = patient.prepared.images.clone()
    for channel, name in enumerate(MODALITIES):
        if name not in modalities:
            images[channel] = background
    prepared = replace(patient.prepared, images=images, present=modalities)
    found = segment_prepared(weights, prepared, background, True, torch.device("cpu"))
    native = native_labels(found, prepared.grid, patient.reference, 0.1)
    truth, predicted = (sitk.GetArrayFromImage(image) for image in (patient.labels, native))
    values = region_scores(predicted, truth, (1.0, 1.0, 1.0), distances=False)
    row = {name: values[f"dice_{name}"] for name in REGIONS}
    volumes = {v.region: v for v in region_volumes(native, "fixed", found.counts)}
    true_volumes = {v.region: v.volume_ml for v in region_volumes(patient.labels, "fixed")}
    for name in REGIONS:
        row |= {f"{name}_ml": volumes[name].volume_ml, f"{name}_true_ml": true_volumes[name]}
        row |= {f"{name}_low_ml": volumes[name].low_ml, f"{name}_high_ml": volumes[name].high_ml}
    calibration = [
        _calibration(
            found.probabilities[list(members)].sum(0),
            torch.isin(patient.on_grid, torch.tensor(members)),
            prepared.mask,
        )
        for members in REGIONS.values()
    ]
    return row, np.stack(calibration), found


def expected_calibration_error(bins: np.ndarray) -> float:
    """Compute the mean difference of probability and frequency over the voxels of a calibration (3, bin)."""
    voxels, probability, hits = bins
    return float(np.abs(probability - hits).sum() / max(voxels.sum(), 1))


def _calibration(probability: torch.Tensor, truth: torch.Tensor, brain: torch.Tensor) -> np.ndarray:
    p, t = probability[brain].double(), truth[brain].double()
    index = (p * BINS).long().clamp(0, BINS - 1)
    return np.stack([torch.bincount(index, w, BINS).numpy() for w in (torch.ones_like(p), p, t)])


def main() -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--manifest")
    parser.add_argument("--weights")
    parser.add_argument("--combine", nargs="+")
    parser.add_argument("--keep", action="store_true")
    parser.add_argument("--output", required=True, type=Path)
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    if options.combine:
        rows = []
        for folder in options.combine:
            with open(Path(folder) / "scores.csv", newline="") as file:
                rows += list(csv.DictReader(file))
        bins = sum(np.load(Path(folder) / "calibration.npy") for folder in options.combine)
    else:
        weights = load_weights(options.weights)
        rows, bins = [], np.zeros((len(SETS), len(REGIONS), 3, BINS))
        for record in read_manifest(options.manifest).studies:
            patient = read_patient(weights, record)
            for number, (name, modalities) in enumerate(SETS.items()):
                row, calibration, found = score(weights, patient, modalities)
                if options.keep:
                    kept = {"p": found.probabilities.half(), "counts": found.counts, "labels": patient.on_grid}
                    torch.save(kept, options.output / f"{record.subject}_{name}.pt")
                rows.append({"patient": record.subject, "modalities": name} | row)
                bins[number] += calibration
                print(rows[-1]["patient"], name, *(f"{row[r]:.3f}" for r in REGIONS), flush=True)
    with open(options.output / "scores.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    np.save(options.output / "calibration.npy", bins)
    for number, name in enumerate(SETS):
        chosen = [row for row in rows if row["modalities"] == name]
        means = {r: np.mean([float(row[r]) for row in chosen]) for r in REGIONS}
        least = {r: np.min([float(row[r]) for row in chosen]) for r in REGIONS}
        errors = {r: expected_calibration_error(bins[number, k]) for k, r in enumerate(REGIONS)}
        inside = {
            r: np.mean(
                [
                    float(row[f"{r}_low_ml"]) <= float(row[f"{r}_true_ml"]) <= float(row[f"{r}_high_ml"])
                    for row in chosen
                ]
            )
            for r in REGIONS
        }
        for r in REGIONS:
            print(
                f"{name:12s} {r:16s} mean {means[r]:.3f} lowest {least[r]:.3f} ECE {errors[r]:.4f} in interval {inside[r]:.2f}"
            )
    return 0


if __name__ == "__main__":
    sys.exit(main())
