"""Scores of weights on labelled patients, for several sets of modalities: Dice, volumes, calibration.

It is used for the cross-validation of the weights that come with the module::

    python Testing/segmentation_scores.py --manifest held_out.csv --weights fold0/weights.pt --output scores0

The output folder holds ``scores.csv`` (a row per patient and set of modalities, with the mean entropy of the tumour and
the spread of its volume over the variants, on which the verdict rests; both are empty where no tumour is found),
``calibration.csv`` (voxels of the brain by predicted probability of tumour) and ``reliability.png``. Several folders
are combined with ``--combine``::

    python Testing/segmentation_scores.py --combine scores0 scores1 scores2 scores3 --output scores
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import matplotlib
import numpy as np
import SimpleITK as sitk
import torch

from JointRegSegLib.cohort.manifest import read_manifest
from JointRegSegLib.cohort.preparation import read_study
from JointRegSegLib.cohort.studies import StudyRecord
from JointRegSegLib.findings.region_volumes import region_volumes, uncertain_volumes
from JointRegSegLib.images.labels import CAVITY, REGIONS
from JointRegSegLib.images.modalities import MODALITIES
from JointRegSegLib.images.preprocessing.brain_grid import brain_grid
from JointRegSegLib.images.preprocessing.preparation import prepare_checked
from JointRegSegLib.images.preprocessing.prepared_study import PreparedStudy
from JointRegSegLib.images.preprocessing.resampling import labels_on_grid
from JointRegSegLib.inference.native import native_labels
from JointRegSegLib.inference.network_pass import network_preprocessing, segment_prepared
from JointRegSegLib.inference.uncertainty import Segmentation, entropy
from JointRegSegLib.metrics.overlap import dice, region_scores
from JointRegSegLib.network.weights import LoadedWeights, load_weights
from JointRegSegLib.quality.compartment_signs import compartment_qualities
from NeuroCESTLib.core.whole_files import write_rows

matplotlib.use("Agg")
from matplotlib import pyplot as plt

SETS = {"all": ("t1", "t1ce", "t2", "flair"), "t1ce+flair": ("t1ce", "flair"), "flair": ("flair",)}
"""Sets of modalities that are scored."""
BINS = 15
"""Bins of the predicted probability in the calibration."""
_SUMS = ("voxels", "sum_of_probability", "voxels_of_region")


@dataclass(frozen=True)
class Patient:
    """A labelled patient on the working grid.

    Attributes:
        prepared: All its modalities.
        corrected: The same with bias fields corrected where the weights need it without contrast agent.
        labels: Classes on the native grid (uint8).
        on_grid: Classes (D, H, W) on the working grid.
        reference: Image that has the native grid.
    """

    prepared: PreparedStudy
    corrected: PreparedStudy
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
    corrected = prepared
    if weights.judged_by_brightness:
        corrected = prepare_checked(study, mask, replace(config, n4=True), grid)
    return Patient(prepared, corrected, study.tumor_labels, labels_on_grid(study.tumor_labels, grid), study.reference)


def with_modalities(patient: Patient, modalities: tuple[str, ...], background: float) -> PreparedStudy:
    """Return the patient on the working grid with some of the modalities only."""
    prepared = patient.prepared if "t1ce" in modalities else patient.corrected
    hidden = [channel for channel, name in enumerate(MODALITIES) if name not in modalities]
    images, uncorrected = (
        None if all_images is None else all_images.index_fill(0, torch.tensor(hidden, dtype=torch.long), background)
        for all_images in (prepared.images, prepared.uncorrected)
    )
    assert images is not None
    return replace(prepared, images=images, uncorrected=uncorrected, present=modalities)


def score(weights: LoadedWeights, patient: Patient, modalities: tuple[str, ...]) -> tuple[dict, np.ndarray]:
    """Segment a patient with some modalities.

    Args:
        weights: Network to score.
        patient: Labelled patient.
        modalities: Modalities that the network sees.

    Returns:
        Scores by name, and the calibration (region, 3, bin): voxels, sum of the probability, voxels of the region.
    """
    background = network_preprocessing(weights).background
    prepared = with_modalities(patient, modalities, background)
    found = segment_prepared(weights, prepared, background, True, torch.device("cpu"))
    return score_found(found, prepared, patient)


def score_found(found: Segmentation, prepared: PreparedStudy, patient: Patient) -> tuple[dict, np.ndarray]:
    """Score a segmentation of a patient, prepared with some modalities, as ``score`` does."""
    native = native_labels(found, prepared.grid, patient.reference, 0.1)
    truth, predicted = (sitk.GetArrayFromImage(image) for image in (patient.labels, native))
    values = region_scores(predicted, truth, (1.0, 1.0, 1.0), distances=False)
    row = {name: values[f"dice_{name}"] for name in REGIONS}
    uncertain_ml = uncertain_volumes(found.probabilities, prepared.grid.spacing_mm**3 / 1000)
    volumes = {v.region: v for v in region_volumes(native, "fixed", found.counts, uncertain_ml=uncertain_ml)}
    true_volumes = {v.region: v.volume_ml for v in region_volumes(patient.labels, "fixed")}
    for name in REGIONS:
        row |= {f"{name}_ml": volumes[name].volume_ml, f"{name}_true_ml": true_volumes[name]}
        row |= {f"{name}_low_ml": volumes[name].low_ml, f"{name}_high_ml": volumes[name].high_ml}
    tumor = found.probabilities[1:CAVITY].sum(0)
    called = (found.labels > 0) & (found.labels < CAVITY)
    ml = found.counts[:, 1:CAVITY].sum(1).double()
    if bool(called.any()):
        row["entropy"] = float(entropy(torch.stack([1 - tumor, tumor]).clamp(0, 1))[called].mean())
        row["spread"] = float((ml.max() - ml.min()) / ml.mean())
    for name, quality in compartment_qualities(prepared, found.probabilities).items():
        row[f"{name}_dice"] = dice(predicted == quality.number, truth == quality.number)
        row[f"{name}_expected_dice"] = quality.expected_overlap
        row[f"{name}_signs"] = len(list(quality.signs("fixed")))
    calibration = [
        _calibration(
            found.probabilities[list(members)].sum(0),
            torch.isin(patient.on_grid, torch.tensor(members)),
            prepared.mask,
        )
        for members in REGIONS.values()
    ]
    return row, np.stack(calibration)


def expected_calibration_error(bins: np.ndarray) -> float:
    """Compute the mean difference of probability and frequency over the voxels of a calibration (3, bin)."""
    voxels, probability, hits = bins
    return float(np.abs(probability - hits).sum() / max(voxels.sum(), 1))


def _calibration(probability: torch.Tensor, truth: torch.Tensor, brain: torch.Tensor) -> np.ndarray:
    p, t = probability[brain].double(), truth[brain].double()
    index = (p * BINS).long().clamp(0, BINS - 1)
    return np.stack([torch.bincount(index, w, BINS).numpy() for w in (torch.ones_like(p), p, t)])


def score_cohort(weights: LoadedWeights, manifest: str) -> tuple[list[dict], np.ndarray]:
    """Score all patients of a manifest with every set of modalities.

    Returns:
        Rows of ``scores.csv``, and the calibration (set, region, 3, bin).
    """
    rows, bins = [], np.zeros((len(SETS), len(REGIONS), 3, BINS))
    for record in read_manifest(manifest).studies:
        patient = read_patient(weights, record)
        for number, (name, modalities) in enumerate(SETS.items()):
            row, calibration = score(weights, patient, modalities)
            rows.append({"patient": record.subject, "modalities": name} | row)
            bins[number] += calibration
            print(record.subject, name, *(f"{row[region]:.3f}" for region in REGIONS), flush=True)
    return rows, bins


def read_scores(folders: Sequence[str]) -> tuple[list[dict], np.ndarray]:
    """Read what earlier calls wrote, and put it together."""
    rows: list[dict] = []
    bins = np.zeros((len(SETS), len(REGIONS), 3, BINS))
    for folder in folders:
        with open(Path(folder) / "scores.csv", newline="", encoding="utf-8") as file:
            for row in csv.DictReader(file):
                rows.append({k: v if k in ("patient", "modalities") else float(v or "nan") for k, v in row.items()})
        with open(Path(folder) / "calibration.csv", newline="", encoding="utf-8") as file:
            for row in csv.DictReader(file):
                place = list(SETS).index(row["modalities"]), list(REGIONS).index(row["region"])
                bins[(*place, slice(None), int(row["bin"]))] += [float(row[name]) for name in _SUMS]
    return rows, bins


def write_scores(rows: list[dict], bins: np.ndarray, folder: Path) -> None:
    """Write the tables and the picture."""
    folder.mkdir(parents=True, exist_ok=True)
    write_rows(rows, folder / "scores.csv")
    with open(folder / "calibration.csv", "w", newline="", encoding="utf-8") as file:
        lines = csv.writer(file)
        lines.writerow(("modalities", "region", "bin", *_SUMS))
        for number, name in enumerate(SETS):
            for k, region in enumerate(REGIONS):
                lines.writerows((name, region, b, *bins[number, k, :, b].tolist()) for b in range(BINS))
    draw_reliability(bins, folder / "reliability.png")


def draw_reliability(bins: np.ndarray, path: Path) -> None:
    """Draw the frequency of each region over its predicted probability, one panel per set of modalities."""
    figure, panels = plt.subplots(1, len(SETS), figsize=(4 * len(SETS), 4), sharey=True)
    for number, (panel, name) in enumerate(zip(panels, SETS, strict=True)):
        panel.plot((0, 1), (0, 1), color="grey", linewidth=1)
        for k, region in enumerate(REGIONS):
            voxels, probability, hits = bins[number, k]
            seen = voxels > 50
            label = f"{region.replace('_', ' ')}, ECE {expected_calibration_error(bins[number, k]):.3f}"
            panel.plot(probability[seen] / voxels[seen], hits[seen] / voxels[seen], "o-", markersize=3, label=label)
        panel.set(title=name, xlabel="predicted probability", xlim=(0, 1), ylim=(0, 1))
        panel.legend(fontsize=7)
    panels[0].set_ylabel("frequency in the reference")
    figure.tight_layout()
    figure.savefig(path, dpi=100)
    plt.close(figure)


def print_summary(rows: list[dict], bins: np.ndarray) -> None:
    """Print the mean and the lowest Dice, the calibration error, and how many intervals hold the true volume."""
    for number, name in enumerate(SETS):
        chosen = [row for row in rows if row["modalities"] == name]
        for k, region in enumerate(REGIONS):
            dice = [row[region] for row in chosen]
            held = [row[f"{region}_low_ml"] <= row[f"{region}_true_ml"] <= row[f"{region}_high_ml"] for row in chosen]
            print(
                f"{name:12s} {region:16s} mean {np.mean(dice):.3f} lowest {np.min(dice):.3f} "
                f"ECE {expected_calibration_error(bins[number, k]):.4f} in interval {np.mean(held):.2f}"
            )


def main() -> None:
    """Run the command."""
    assert __doc__ is not None
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--manifest", help="labelled patients")
    parser.add_argument("--weights", help="weights to score")
    parser.add_argument("--combine", nargs="+", metavar="FOLDER", help="put the scores of earlier calls together")
    parser.add_argument("--output", required=True, type=Path, metavar="FOLDER", help="folder for tables and picture")
    options = parser.parse_args()
    if options.combine:
        rows, bins = read_scores(options.combine)
    elif options.manifest and options.weights:
        rows, bins = score_cohort(load_weights(options.weights), options.manifest)
    else:
        parser.error("give --manifest and --weights, or --combine")
    write_scores(rows, bins, options.output)
    print_summary(rows, bins)


if __name__ == "__main__":
    main()
