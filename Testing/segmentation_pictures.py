"""Pictures of hard cases, segmented by one or two networks, and reliability diagrams of their probabilities.

The cases are a folder with one file for each modality, the modalities that are shown, and what is made harder: an image
that lies 6 mm and 6 degrees off, or one that ends in the middle of the brain. The pictures show patients and stay with
their data.
"""

from __future__ import annotations

import argparse
import math
import sys
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import SimpleITK as sitk
from matplotlib.axes import Axes

from JointRegSegLib.findings.result import StudyResult
from JointRegSegLib.images.labels import CLASSES, REGIONS
from JointRegSegLib.images.modalities import MODALITIES
from JointRegSegLib.images.study import StudyImages
from JointRegSegLib.inference.settings import InferenceSettings
from JointRegSegLib.inference.single_study import process_study
from JointRegSegLib.network.weights import load_weights

HARDER = ("nothing", "moved", "slab")
_NAMES = {"flair": ("flair", "fla"), "t1": ("t1",), "t1ce": ("t1ce", "t1c", "t1wks"), "t2": ("t2",)}
_COLORS = {1: "tab:red", 2: "tab:green", 3: "tab:cyan"}
BINS = 10


def read_case(folder: Path, modalities: list[str], harder: str) -> tuple[StudyImages, np.ndarray | None]:
    """Read a case, and its labels where there are any."""
    images = {m: sitk.ReadImage(str(_file(folder, _NAMES[m])), sitk.sitkFloat32) for m in modalities}
    last = modalities[-1]
    if harder == "moved":
        middle = images[last].TransformContinuousIndexToPhysicalPoint([n / 2 for n in images[last].GetSize()])
        motion = sitk.Euler3DTransform(middle, math.radians(6), 0.0, 0.0, (4.0, 4.0, 2.0))
        images[last] = sitk.Resample(images[last], images[last], motion, sitk.sitkLinear, 0.0)
    if harder == "slab":
        width, height, depth = images[last].GetSize()
        images[last] = sitk.RegionOfInterest(images[last], [width, height, depth // 2], [0, 0, depth // 2])
    labels = next((p for p in sorted(folder.iterdir()) if "_seg" in p.name), None)
    if labels is None:
        return StudyImages(images, None, None, folder.name), None
    truth = sitk.GetArrayFromImage(sitk.ReadImage(str(labels)))
    return StudyImages(images, None, None, folder.name), np.where(truth == 4, 3, truth)


def _file(folder: Path, names: tuple[str, ...]) -> Path:
    """Return the image of a modality, whose name has one of these as a word."""
    for path in sorted(folder.iterdir()):
        words = path.name.lower().split(".")[0].split("_")
        if ".nii" in path.name and set(words) & set(names) and "seg" not in words:
            return path
    raise ValueError(f"'{folder}' has no image whose name contains {' or '.join(names)}")


def draw_row(
    row: np.ndarray, study: StudyImages, truth: np.ndarray | None, found: list[StudyResult], titles: list[str]
) -> None:
    """Draw the slice with most tumour: the shown images, then the outlines of the truth and of each network."""
    maps = [sitk.GetArrayFromImage(result.labels) for result in found]
    tumor = truth if truth is not None else sum((labels > 0).astype(int) for labels in maps)
    assert tumor is not None
    slice_ = int((tumor > 0).sum((1, 2)).argmax()) if (tumor > 0).any() else tumor.shape[0] // 2
    shown = study.images.get("flair", study.reference)
    bright = study.images.get("t1ce", shown)
    pictures = [sitk.GetArrayFromImage(sitk.Resample(image, study.reference))[slice_] for image in (shown, bright)]
    for axes, picture in zip(row[:2], pictures, strict=True):
        _gray(axes, picture)
    for axes, labels, title in zip(row[2:], [truth, *maps], ["expert", *titles], strict=True):
        _gray(axes, pictures[1])
        for number, color in _COLORS.items():
            if labels is not None and (labels[slice_] == number).any():
                axes.contour(labels[slice_] == number, [0.5], colors=color, linewidths=0.8)
        dice = "" if labels is None or truth is None or labels is truth else f" {_dice_of(labels, truth)}"
        volume = (
            "" if labels is None else f"\n{(labels > 0).sum() * np.prod(study.reference.GetSpacing()) / 1000:.0f} ml"
        )
        axes.set_title(f"{title}{dice}{volume}", fontsize=7)


def _dice_of(labels: np.ndarray, truth: np.ndarray) -> str:
    values = []
    for members in REGIONS.values():
        first, second = np.isin(labels, members), np.isin(truth, members)
        values.append(2 * (first & second).sum() / max(first.sum() + second.sum(), 1))
    return " / ".join(f"{value:.2f}" for value in values)


def _gray(axes: Axes, picture: np.ndarray) -> None:
    axes.imshow(picture, cmap="gray", vmin=0, vmax=np.quantile(picture, 0.995) or 1, origin="lower")
    axes.axis("off")


def reliability(result: StudyResult, truth: np.ndarray) -> np.ndarray:
    """Voxels, sum of the probability and voxels of the region by region and bin, (region, 3, bin), in the brain."""
    brain = sitk.GetArrayFromImage(result.mask) > 0
    maps = np.stack([sitk.GetArrayFromImage(result.probabilities[name])[brain] for name in CLASSES])
    rows = []
    for members in REGIONS.values():
        p, t = maps[list(members)].sum(0), np.isin(truth[brain], members).astype(float)
        index = np.clip((p * BINS).astype(int), 0, BINS - 1)
        rows.append([np.bincount(index, weights, BINS) for weights in (np.ones_like(t), p, t)])
    return np.array(rows)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--case",
        nargs="+",
        action="append",
        required=True,
        metavar="WORD",
        help=f"folder, modalities, and one of {', '.join(HARDER)} for the last modality; once for each case",
    )
    parser.add_argument("--weights", nargs="+", required=True, help="one or more weights files")
    parser.add_argument("--output", type=Path, required=True, help="folder for hard_cases.png and reliability.png")
    arguments = parser.parse_args()
    networks = [load_weights(path) for path in arguments.weights]
    titles = [Path(path).stem for path in arguments.weights]
    figure, rows = plt.subplots(
        len(arguments.case),
        3 + len(networks),
        figsize=(2.2 * (3 + len(networks)), 2.5 * len(arguments.case)),
        squeeze=False,
    )
    bins = np.zeros((len(networks), len(REGIONS), 3, BINS))
    for row, (folder, *modalities, harder) in zip(rows, arguments.case, strict=True):
        if harder not in HARDER or set(modalities) - set(MODALITIES):
            raise SystemExit(f"--case {folder}: the last word is one of {', '.join(HARDER)}, the others are modalities")
        study, truth = read_case(Path(folder), modalities, harder)
        found = [process_study(study, network, InferenceSettings(keep_probabilities=True)) for network in networks]
        draw_row(row, study, truth, found, titles)
        row[0].set_title(
            f"{study.name}\n{', '.join(modalities)}{'' if harder == 'nothing' else f' ({harder})'}", fontsize=7
        )
        for number, result in enumerate(found):
            for warning in result.warnings:
                print(f"{study.name}, {titles[number]}: {warning}", file=sys.stderr, flush=True)
            if truth is not None and harder == "nothing":
                bins[number] += reliability(result, truth)
    arguments.output.mkdir(parents=True, exist_ok=True)
    figure.tight_layout()
    figure.savefig(arguments.output / "hard_cases.png", dpi=110)
    figure, axes = plt.subplots(1, len(REGIONS), figsize=(4 * len(REGIONS), 4), squeeze=False)
    for place, (number, region) in zip(axes[0], enumerate(REGIONS), strict=True):
        place.plot([0, 1], [0, 1], color="0.7")
        for network, title in enumerate(titles):
            voxels, probability, hits = bins[network, number]
            used = voxels > 20
            error = np.abs(probability - hits).sum() / max(voxels.sum(), 1)
            place.plot((probability / np.maximum(voxels, 1))[used], (hits / np.maximum(voxels, 1))[used], "o-",
                       label=f"{title}, error {error:.3f}")  # fmt: skip
        place.set(title=region, xlabel="probability", ylabel="frequency")
        place.legend(fontsize=7)
    figure.tight_layout()
    figure.savefig(arguments.output / "reliability.png", dpi=100)
    return 0


if __name__ == "__main__":
    sys.exit(main())
