"""Train the second stage of a segmentation on patients that the network had not learned from, and score it.

A network is trained several times, each time without some of the patients. Their segmentations show the errors that it
makes with unseen patients, and a second stage learns to correct them::

    python Testing/fine_stage.py --fold heldA.csv foldA/weights.pt --fold heldB.csv foldB/weights.pt --output scores
    python Testing/fine_stage.py --fold … --fold … --weights all/weights.pt --output neurocest.pt

The first command cross-validates: the patients of each fold are scored with a second stage that the others taught, in
the tables and the picture of ``segmentation_scores.py``. The second one trains a second stage on all patients and
writes it with the weights of a network, in half precision.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from segmentation_scores import SETS, Patient, print_summary, read_patient, score_found, with_modalities, write_scores
from torch import Tensor
from torch.nn import functional as F

from JointRegSegLib.cohort.manifest import read_manifest
from JointRegSegLib.inference.network_pass import network_preprocessing, segment_prepared
from JointRegSegLib.inference.uncertainty import Segmentation
from JointRegSegLib.network.fine_stage import FineStage, FineStageConfig
from JointRegSegLib.network.weights import load_weights, save_weights

TRAINED_SETS = (
    *SETS.values(),
    ("t1", "t2", "flair"),
    ("t1ce", "t2"),
    ("t1", "t1ce", "flair"),
)
"""Sets of modalities from which the second stage learns."""
VOXELS = 20_000
"""Voxels of each patient and set that it learns from."""
STEPS, BATCH = 1500, 8192
BRIGHTNESS_SD = 0.2
"""Standard deviation of the random shifts of each image in training, in standard deviations of the brain."""


@dataclass(frozen=True)
class HeldOut:
    """A patient with the segmentations of a network that had not learned from it.

    Attributes:
        patient: The patient on the working grid.
        found: Segmentation by set of modalities.
        fold: Number of the network.
    """

    patient: Patient
    found: dict[tuple[str, ...], Segmentation]
    fold: int


def segmented(folds: list[list[str]]) -> tuple[list[HeldOut], float]:
    """Segment the patients of every fold with its network; also return the intensity outside of the brain."""
    result, background = [], 0.0
    for number, (manifest, path) in enumerate(folds):
        weights = load_weights(path)
        background = network_preprocessing(weights).background
        for record in read_manifest(manifest).studies:
            patient, found = read_patient(weights, record), {}
            for modalities in TRAINED_SETS:
                prepared = with_modalities(patient, modalities, background)
                segmentation = segment_prepared(weights, prepared, background, True, torch.device("cpu"))
                found[modalities] = Segmentation(segmentation.probabilities.half(), segmentation.counts)
            result.append(HeldOut(patient, found, number))
            print(f"{record.subject} segmented by fold {number}", flush=True)
    return result, background


def samples(stage: FineStage, held_out: HeldOut, background: float, generator: torch.Generator) -> list[tuple]:
    """Return features (voxel, n), log probabilities (voxel, class) and classes (voxel,) of random voxels, by set."""
    patient, parts = held_out.patient, []
    for modalities, found in held_out.found.items():
        prepared = with_modalities(patient, modalities, background)
        probabilities, spacing = found.probabilities.float(), prepared.grid.spacing_mm
        where = stage.where(probabilities, prepared.mask, spacing)
        place = torch.nonzero(where.flatten()).flatten()
        place = place[torch.randperm(len(place), generator=generator)[:VOXELS]]
        chosen = torch.zeros(where.numel(), dtype=torch.bool)
        chosen[place] = True
        chosen = chosen.view(where.shape)
        features = stage.features(prepared.images, modalities, prepared.mask, probabilities, spacing, chosen)
        before = probabilities[:, chosen].T.clamp_min(1e-3).log()
        parts.append((features, before, patient.on_grid[chosen].long()))
    return parts


def trained(
    parts: list[tuple[Tensor, Tensor, Tensor]], config: FineStageConfig, steps: int = STEPS, seed: int = 0
) -> FineStage:
    """Train a second stage on the samples of some patients, each of which counts the same."""
    torch.manual_seed(seed)
    stage = FineStage(config)
    torch.nn.init.zeros_(stage.layers[-1].weight)
    torch.nn.init.zeros_(stage.layers[-1].bias)
    optimizer = torch.optim.AdamW(stage.parameters(), 3e-3, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    count, scales = len(config.modalities), len(config.image_scales_mm)
    for _ in range(steps):
        features, before, classes = (
            torch.cat(each)
            for each in zip(*(_drawn(parts[int(i)]) for i in torch.randint(len(parts), (8,))), strict=True)
        )
        shift = BRIGHTNESS_SD * torch.randn(count).repeat(scales)
        flags = features[:, count * scales : count * (scales + 1)]
        features = features.clone()
        features[:, : count * scales] += shift * flags.repeat(1, scales)
        loss = F.cross_entropy(before + stage(features), classes)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return stage.eval()


def _drawn(part: tuple[Tensor, Tensor, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    place = torch.randint(len(part[0]), (BATCH // 8,))
    features, before, classes = part
    return features[place], before[place], classes[place]


def cross_validated(people: list[HeldOut], background: float, folder: Path) -> None:
    """Score the patients of each fold with a second stage that the others taught."""
    config, generator = FineStageConfig(), torch.Generator().manual_seed(0)
    drawn = [samples(FineStage(config), person, background, generator) for person in people]
    rows: list[dict] = []
    bins: np.ndarray = np.zeros(())
    for number in sorted({person.fold for person in people}):
        others = [p for person, part in zip(people, drawn, strict=True) if person.fold != number for p in part]
        stage = trained(others, config)
        for person in people:
            if person.fold != number:
                continue
            per_set = []
            for name, modalities in SETS.items():
                prepared, found = with_modalities(person.patient, modalities, background), person.found[modalities]
                found = Segmentation(found.probabilities.float(), found.counts)
                found = found.with_probabilities(
                    stage.refined(
                        prepared.images, modalities, prepared.mask, found.probabilities, prepared.grid.spacing_mm
                    )
                )
                row, calibration = score_found(found, person.patient)
                subject = person.patient.prepared.name
                rows.append({"patient": subject, "modalities": name} | row)
                per_set.append(calibration)
                print(subject, name, *(f"{row[key]:.3f}" for key in row if f"{key}_ml" in row), flush=True)
            bins = bins + np.stack(per_set)
    write_scores(rows, bins, folder)
    print_summary(rows, bins)


def main() -> None:
    """Run the command."""
    assert __doc__ is not None
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--fold",
        nargs=2,
        action="append",
        required=True,
        metavar=("MANIFEST", "WEIGHTS"),
        help="patients, and a network that did not learn from them",
    )
    parser.add_argument("--weights", help="network that gets a second stage from all patients")
    parser.add_argument("--output", required=True, type=Path, help="folder of the scores, or weights file to write")
    options = parser.parse_args()
    people, background = segmented(options.fold)
    if options.weights is None:
        cross_validated(people, background, options.output)
        return
    config, generator = FineStageConfig(), torch.Generator().manual_seed(0)
    stage = trained([p for person in people for p in samples(FineStage(config), person, background, generator)], config)
    weights = load_weights(options.weights)
    save_weights(options.output, weights.network, weights.metadata, half=True, fine_stage=stage)


if __name__ == "__main__":
    main()
