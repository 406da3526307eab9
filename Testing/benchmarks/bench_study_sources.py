"""Comparison of the three data paths of training: in memory, cached on disk, read when needed.

Writes a cohort of synthetic files (compressed NIfTI, 16 bit, four modalities and a label map, two visits per subject).
Each path then delivers every pair several times, in a process of its own. Prints the time until the first pair, the
pairs per second afterwards, memory and disk space, and for comparison the time of the default augmentation.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import libraries  # noqa: F401  (puts the libraries on the path)
import numpy as np
import SimpleITK as sitk
import torch

from JointRegSegLib.augmentation.config import AugmentationConfig
from JointRegSegLib.augmentation.pipeline import Augmentation
from JointRegSegLib.cohort.manifest import read_manifest
from JointRegSegLib.cohort.sources import open_pairs
from JointRegSegLib.images.modalities import MODALITIES
from NeuroCESTLib.core.whole_files import write_csv

CASES = (
    ("memory", "memory", 0),
    ("cache, first use", "cache", 0),
    ("cache, later", "cache", 0),
    ("on the fly", "on_the_fly", 0),
    ("on the fly, 2 workers", "on_the_fly", 2),
)


def write_cohort(folder: Path, subjects: int, shape: tuple[int, int, int]) -> Path:
    """Write skull-stripped ellipsoids with texture and a tumour of three shells; return the path of the manifest."""
    rows = []
    z = np.stack(np.meshgrid(*[np.linspace(-1, 1, n, dtype=np.float32) for n in shape], indexing="ij"))
    brain = (z**2).sum(0) < 0.85
    radius = np.sqrt(((z - 0.25) ** 2).sum(0))
    for subject in range(subjects):
        for visit in (1, 2):
            random = np.random.default_rng((subject, visit))
            names = []
            for modality in MODALITIES:
                values = 300 + 60 * np.sin(7 * z[0] + subject) * np.cos(9 * z[2]) + 15 * random.standard_normal(shape)
                names.append(f"S{subject}_{visit}_{modality}.nii.gz")
                _write(np.where(brain, values, 0).astype(np.int16), folder / names[-1])
            labels = (radius < 0.3).astype(np.uint8) * 2
            labels[radius < 0.2], labels[radius < 0.1] = 4, 1
            names.append(f"S{subject}_{visit}_seg.nii.gz")
            _write(labels, folder / names[-1])
            rows.append([f"S{subject}", visit, *names])
    return write_csv(["subject", "visit", *MODALITIES, "label"], rows, folder / "cohort.csv")


def _write(array: np.ndarray, path: Path) -> None:
    image = sitk.GetImageFromArray(array)
    image.SetDirection((-1, 0, 0, 0, -1, 0, 0, 0, 1))
    sitk.WriteImage(image, str(path), useCompression=True)


def measure(manifest: Path, path: str, workers: int, cache: Path, spacing_mm: float, passes: int) -> dict[str, float]:
    """Measure one path in this process, which must be a fresh one.

    The peak memory is that of the largest process and includes about 250 MB of libraries.
    """
    torch.set_num_threads(1)
    begin = time.perf_counter()
    cohort = read_manifest(manifest)
    pairs = open_pairs(cohort, path, {"spacing_mm": spacing_mm, "align": "none"}, "subjects", cache=cache)
    touched, first_s = 0.0, 0.0
    count, steady = 0, 0.0
    for epoch in range(passes):
        pairs.set_epoch(epoch)
        loader = torch.utils.data.DataLoader(pairs, batch_size=None, num_workers=workers)
        start = time.perf_counter()
        for pair in loader:
            touched += sum(float(sample.images.sum()) for sample in pair)  # every page is read
            first_s = first_s or time.perf_counter() - begin
            count += 1
        steady += time.perf_counter() - start
    usage = max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return {
        "first_s": first_s,
        "pairs_per_s": count / steady,
        "peak_mb": usage / 1024,
        "own_mb": _own_mb(),
        "disk_mb": sum(file.stat().st_size for file in cache.rglob("*.pt")) / 2**20 if path == "cache" else 0.0,
        "checksum": touched / count,
    }


def _own_mb() -> float:
    """Memory of this process without mapped files, whose pages can be dropped at any time."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon"):
            return int(line.split()[1]) / 1024
    return float("nan")


def augmentation_s(manifest: Path, cache: Path, spacing_mm: float) -> float:
    """Return the time of the default augmentation per pair in s: mean of 20 on one thread."""
    torch.set_num_threads(1)
    settings = {"spacing_mm": spacing_mm, "align": "none"}
    pair = open_pairs(read_manifest(manifest), "cache", settings, "subjects", cache=cache)[0]
    augment, generator = Augmentation(AugmentationConfig()), torch.Generator().manual_seed(0)
    augment(pair, generator)
    begin = time.perf_counter()
    for _ in range(20):
        augment(pair, generator)
    return (time.perf_counter() - begin) / 20


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--subjects", type=int, default=3, help="subjects, with two visits each")
    parser.add_argument("--shape", type=int, nargs=3, default=(155, 200, 170), help="voxels of the files at 1 mm")
    parser.add_argument("--spacing", type=float, default=2.0, help="spacing of the working grid (mm)")
    parser.add_argument("--passes", type=int, default=2, help="number of times that every pair is delivered")
    parser.add_argument("--case", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.case:
        path, workers, manifest, cache = json.loads(options.case)
        if path == "write":
            write_cohort(Path(manifest).parent, options.subjects, tuple(options.shape))
        else:
            print(json.dumps(measure(Path(manifest), path, workers, Path(cache), options.spacing, options.passes)))
        return 0
    with tempfile.TemporaryDirectory(prefix="study-sources-") as name:
        folder = Path(name)
        manifest = folder / "cohort.csv"
        _in_process(
            options, "write", 0, manifest
        )  # not in this process: children inherit the peak memory of their parent
        size = sum(file.stat().st_size for file in folder.glob("*.nii.gz")) / 2**20
        print(
            f"## Data paths: {2 * options.subjects} studies of {' x '.join(map(str, options.shape))} voxels "
            f"({size:.0f} MB of files), working grid of {options.spacing:g} mm"
        )
        print(f"\n{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}, torch {torch.__version__}; one thread each\n")
        print("| path | first pair | pairs / s | against on the fly | peak memory | own memory at the end | disk |")
        print("| --- | --- | --- | --- | --- | --- | --- |", flush=True)
        rows, sums = {}, set()
        for title, path, workers in CASES:
            rows[title] = row = json.loads(_in_process(options, path, workers, manifest))
            sums.add(round(row["checksum"], 1))
        slow = rows["on the fly"]["pairs_per_s"]
        for title, row in rows.items():
            print(
                f"| {title} | {row['first_s']:.2f} s | {row['pairs_per_s']:.3g} | {row['pairs_per_s'] / slow:.1f}x "
                f"| {row['peak_mb']:.0f} MB | {row['own_mb']:.0f} MB | {row['disk_mb']:.0f} MB |"
            )
        print(f"\ndefault augmentation: {augmentation_s(manifest, folder / 'cache', options.spacing):.2f} s per pair")
        print(f"all paths delivered the same numbers: {len(sums) == 1}")
        return 0 if len(sums) == 1 else 1


def _in_process(options: argparse.Namespace, path: str, workers: int, manifest: Path) -> str:
    """Run one case in a process of its own; return what it prints."""
    case = json.dumps([path, workers, str(manifest), str(manifest.parent / "cache")])
    call = [sys.executable, __file__, "--case", case, "--spacing", str(options.spacing)]
    call += ["--passes", str(options.passes), "--subjects", str(options.subjects)]
    call += ["--shape", *(str(n) for n in options.shape)]
    return subprocess.run(call, check=True, stdout=subprocess.PIPE, text=True).stdout


if __name__ == "__main__":
    sys.exit(main())
