"""Tissue segmentation of real scans by weights of the task 'tissue', beside one by intensities alone.

No expert has drawn the tissues of these scans. What is compared is where the network and a segmentation by intensities
(bias field correction and two thresholds of Otsu in the brain, by SimpleITK) agree on cerebrospinal fluid, grey matter
and white matter; cerebellum, brain stem, lesions of the network and known tumours are left out. A disagreement does not
tell which of them is right: look at the pictures, which show patients and stay with their data::

    python Testing/tissue_trial.py --weights tissue --scans ../shared/data/brain --output found
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import SimpleITK as sitk

from JointRegSegLib.images.brain_mask import estimate_brain_mask
from JointRegSegLib.images.study import StudyImages
from JointRegSegLib.images.tissues import tissue
from JointRegSegLib.metrics.overlap import dice
from JointRegSegLib.multitask.prediction import predict_study
from JointRegSegLib.multitask.shipped import weights_file
from JointRegSegLib.multitask.weights import StudyWeights, load_study_weights
from NeuroCESTLib.core.whole_files import write_rows

GROUPS = {"csf": ("csf", "ventricles"), "gm": ("gm",), "wm": ("wm",)}
"""Tissues that intensities tell apart in T1, dark to bright, and the classes of the network that belong to them."""
_MAPS = {"seg", "gold", "gt", "brainmask"}
"""Words in the names of files that are no scans."""
_WORDS = {"t1": {"t1", "t1w"}, "flair": {"flair", "fla"}}


@dataclass(frozen=True)
class Scan:
    """One visit.

    Attributes:
        name: Name in tables and pictures.
        images: Files by modality.
        labels: Label map of a tumour, of lesions or of tissues; None without one.
    """

    name: str
    images: dict[str, Path]
    labels: Path | None = None


def scans_in(folder: Path, heads: int) -> list[Scan]:
    """Find the visits below a folder: one in each folder with a T1, and several where all files are whole heads.

    Args:
        folder: Folder.
        heads: Most visits that are taken from a folder of whole heads or of several subjects.
    """
    found = []
    for place in sorted({path.parent for path in folder.rglob("*.nii.gz")}):
        maps = [path for path in sorted(place.glob("*.nii.gz")) if _words(path) & _MAPS]
        files = [path for path in sorted(place.glob("*.nii.gz")) if path not in maps]
        labels = next(iter(maps), None)
        t1 = [path for path in files if _words(path) & _WORDS["t1"]]
        if len(t1) == 1:
            flair = [path for path in files if _words(path) & _WORDS["flair"]]
            found.append(Scan(place.name, {"t1": t1[0], **({"flair": flair[0]} if flair else {})}, labels))
        else:
            found += [Scan(_stem(path), {"t1": path}, _partner(path)) for path in (t1 or files)[:heads]]
    return found


def by_intensities(image: sitk.Image, mask: sitk.Image) -> np.ndarray:
    """Divide a brain into three tissues by intensities alone: 1 the darkest, 3 the brightest, 0 outside the brain.

    Args:
        image: T1.
        mask: Brain on its grid.
    """
    image = sitk.Cast(image, sitk.sitkFloat32)
    factor = [max(1, round(4 / mm)) for mm in image.GetSpacing()]
    correction = sitk.N4BiasFieldCorrectionImageFilter()
    correction.SetMaximumNumberOfIterations([20, 20])
    correction.Execute(sitk.Shrink(image, factor), sitk.Cast(sitk.Shrink(mask, factor), sitk.sitkUInt8))
    field = sitk.GetArrayFromImage(correction.GetLogBiasFieldAsImage(image))
    inside = sitk.GetArrayFromImage(mask) > 0
    values = sitk.GetArrayFromImage(sitk.CurvatureFlow(image, timeStep=0.05, numberOfIterations=2)) / np.exp(field)
    values = np.clip(values, *np.quantile(values[inside], (0.002, 0.998)))
    otsu = sitk.OtsuMultipleThresholdsImageFilter()
    otsu.SetNumberOfThresholds(2)
    otsu.Execute(sitk.GetImageFromArray(values[inside][None, None].astype(np.float32)))
    return np.where(inside, 1 + np.digitize(values, otsu.GetThresholds()), 0)


def trial(scan: Scan, weights: StudyWeights, folder: Path) -> dict[str, object]:
    """Segment a visit, draw it, and return a row of the table."""
    known = weights.network.config.modalities
    images = {name: sitk.ReadImage(str(path)) for name, path in scan.images.items() if name in known}
    study = StudyImages(images, None, None, scan.name)
    mask = estimate_brain_mask(study).mask
    found = predict_study(StudyImages(images, mask, None, scan.name), weights)
    assert found.tissue is not None
    labels = sitk.GetArrayFromImage(found.tissue)
    t1 = study.reference
    plain = by_intensities(t1, mask)
    numbers = {name: number for number, name in found.names.items()}
    milliliters = float(np.prod(t1.GetSpacing())) / 1000
    row: dict[str, object] = {"scan": scan.name, "images": " ".join(images)}
    compared = np.isin(labels, [numbers[name] for group in GROUPS.values() for name in group if name in numbers])
    given = None if scan.labels is None else sitk.GetArrayFromImage(sitk.ReadImage(str(scan.labels)))
    tissues = given is not None and len(images) == 1 and (given > 0).sum() > 0.5 * (plain > 0).sum()
    if given is not None and not tissues:
        compared &= given == 0
        row["dice_lesion"] = f"{dice(labels == numbers['lesion'], given > 0):.3f}" if "lesion" in numbers else ""
    for place, (name, group) in enumerate(GROUPS.items(), 1):
        mine = np.isin(labels, [numbers[each] for each in group if each in numbers])
        row[f"dice_{name}"] = f"{dice(mine & compared, (plain == place) & compared):.3f}"
    for number, name in found.names.items():
        row[f"{name}_ml"] = f"{(labels == number).sum() * milliliters:.0f}"
    row["brain_ml"] = f"{(plain > 0).sum() * milliliters:.0f}"
    if tissues:
        assert given is not None
        row["given_labels"] = "; ".join(_composition(labels, given, int(n), found.names) for n in np.unique(given))
    _draw(scan.name, sitk.GetArrayFromImage(t1), labels, plain, found.names, folder / f"{scan.name}.png")
    return row


def _composition(labels: np.ndarray, given: np.ndarray, number: int, names: dict[int, str]) -> str:
    """Say which tissues of the network a given label holds."""
    inside = labels[(given == number) & (labels > 0)]
    shares = {name: float((inside == n).mean()) if inside.size else 0.0 for n, name in names.items()}
    return f"{number}: " + ", ".join(f"{name} {share:.0%}" for name, share in shares.items() if share >= 0.05)


def _draw(
    name: str, image: np.ndarray, labels: np.ndarray, plain: np.ndarray, names: dict[int, str], path: Path
) -> None:
    """Draw three slices: the image, the borders of the network's tissues, its map, and the intensities' map."""
    inside = np.argwhere(labels > 0)
    low, high = np.maximum(inside.min(0) - 3, 0), inside.max(0) + 4
    block = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
    image, labels, plain = image[block], labels[block], plain[block]
    low, high = np.zeros(3, int), np.array(labels.shape)
    middle = (low + high) // 2
    cuts = [
        (slice(None), slice(None), middle[2] - (high[2] - low[2]) // 12),
        (slice(None), middle[1] + (high[1] - low[1]) // 8, slice(None)),
        (middle[0] + (high[0] - low[0]) // 12, slice(None), slice(None)),
    ]
    figure, axes = plt.subplots(3, 4, figsize=(12, 10), layout="constrained")
    top = np.quantile(image[labels > 0], 0.995)
    table = np.array([(0.0, 0.0, 0.0), *(tissue(each).color for each in names.values())])
    grays = np.array([(0.0, 0.0, 0.0), tissue("csf").color, tissue("gm").color, tissue("wm").color])
    for row, cut in zip(axes, cuts, strict=True):
        for axis in row[:2]:
            axis.imshow(image[cut], cmap="gray", vmin=0, vmax=top, origin="lower")
        for number, each in names.items():
            if (labels[cut] == number).any():
                row[1].contour(labels[cut] == number, [0.5], colors=[tissue(each).color], linewidths=0.6)
        row[2].imshow(table[labels[cut]], origin="lower")
        row[3].imshow(grays[plain[cut]], origin="lower")
        for axis in row:
            axis.axis("off")
    for axis, text in zip(axes[0], (name, "borders", "network", "intensities alone"), strict=True):
        axis.set_title(text)
    handles = [
        plt.Rectangle((0, 0), 1, 1, color=tissue(each).color, label=tissue(each).title) for each in names.values()
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), frameon=False)
    figure.savefig(path, dpi=80)
    plt.close(figure)


def _words(path: Path) -> set[str]:
    return set(path.name.lower().split(".")[0].split("_"))


def _stem(path: Path) -> str:
    return path.name.split(".")[0]


def _partner(path: Path) -> Path | None:
    """Label map beside an image of several subjects in one folder."""
    other = path.with_name(f"{_stem(path)}_seg.nii.gz")
    return other if other.is_file() else None


def main() -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", default="tissue", help="name or file of weights (default: tissue)")
    parser.add_argument("--scans", required=True, type=Path, help="folder with the scans")
    parser.add_argument("--heads", type=int, default=3, help="most visits of a folder of several subjects (default: 3)")
    parser.add_argument("--only", default="", help="take only visits whose name contains this")
    parser.add_argument("--output", required=True, type=Path, help="folder for scans.csv and a picture of each visit")
    options = parser.parse_args()
    weights = load_study_weights(weights_file(options.weights))
    options.output.mkdir(parents=True, exist_ok=True)
    rows = []
    for scan in scans_in(options.scans, options.heads):
        if options.only not in scan.name:
            continue
        try:
            rows.append(trial(scan, weights, options.output))
        except ValueError as error:
            rows.append({"scan": scan.name, "error": str(error)})
        print("  ".join(f"{key} {value}" for key, value in rows[-1].items()), flush=True)
        write_rows(rows, options.output / "scans.csv")
    return 0


if __name__ == "__main__":
    sys.exit(main())
