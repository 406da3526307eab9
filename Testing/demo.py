"""One synthetic patient at two visits with the commands that a user would type, and the results next to the truth.

CESTQuant computes maps, JointRegSeg segments and registers the visits, and the report on the compartments joins them.
"""

from __future__ import annotations

import csv
import shlex
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
OUTPUT = ROOT / "output"
MODULES = {
    "cestquant": "CESTQuantLib.batch",
    "jointregseg": "JointRegSegLib.batch",
    "neurocest": "NeuroCESTLib.workflow.batch",
}
PATIENT = "patient/patient01"
VISITS = ("visit1", "visit2")


def run(program: str, *arguments: str) -> None:
    """Print a command and run it in the output folder."""
    print(f"\n$ {program} {shlex.join(arguments)}", flush=True)
    start = time.perf_counter()
    status = subprocess.run([sys.executable, "-m", MODULES[program], *arguments], cwd=OUTPUT, check=False).returncode
    if status:
        sys.exit(status)
    print(f"  ({time.perf_counter() - start:.0f} s)", flush=True)


def a_patient() -> None:
    """Make a synthetic patient: anatomy, tumour and deformation of two visits, and CEST acquisitions on them."""
    run("neurocest", "demo-cohort", "--patients", "1", "--output", "patient")


def cest_maps() -> None:
    """Compute maps of both visits by a model fit, and of the first visit also by two simpler methods."""
    for visit in VISITS:
        cest = f"{PATIENT}/{visit}_cest"
        acquisition = shlex.split(
            f"--signal {cest}/signal.seq.nrrd --protocol {cest}/protocol.json --reference {cest}/m0.nii.gz "
            f"--mask {cest}/mask.nii.gz --b0 {cest}/b0.nii.gz"
        )
        model = shlex.split(f"--b1 {cest}/b1.nii.gz --t1 {cest}/t1.nii.gz --method r1rho --model {cest}/model.json")
        run("cestquant", "fit", *acquisition, *model, "--output", f"maps_{visit}")
        if visit == VISITS[0]:
            run("cestquant", "fit", *acquisition, *shlex.split("--method lorentzian --power 1 --output lorentzian"))
            run("cestquant", "fit", *acquisition, *shlex.split("--method mtrasym --power 2.5 --output mtr_asym"))


def two_visits() -> None:
    """Segment and register the visits."""
    images = {visit: [f"{PATIENT}/{visit}_{m}.nii.gz" for m in ("t1", "t1ce", "t2", "flair")] for visit in VISITS}
    masks = ("--fixed-mask", f"{PATIENT}/visit1_mask.nii.gz", "--moving-mask", f"{PATIENT}/visit2_mask.nii.gz")
    both = ("--fixed", *images["visit1"], "--moving", *images["visit2"], *masks)
    run("jointregseg", "apply", *both, "--scene", "--output", "visits")
    print_agreement(OUTPUT / PATIENT, OUTPUT / "visits")


def compartments() -> None:
    """Join the maps with segmentation and registration: numbers, change and the report on the patient."""
    files = shlex.split(
        f"--maps maps_visit1 --segmentation {PATIENT}/visit1_seg.nii.gz --anatomy {PATIENT}/visit1_t1.nii.gz "
        f"--maps2 maps_visit2 --segmentation2 {PATIENT}/visit2_seg.nii.gz --anatomy2 {PATIENT}/visit2_t1.nii.gz"
    )
    # The known segmentation, as if an expert had drawn it, so that the numbers can be compared with the truth.
    labels = ("--labels", "1=necrotic core,2=oedema,3=enhancing tumour")
    options = shlex.split("--register --between visits/moving_to_fixed.h5 --label P01 --scene --output compartments")
    run("cestquant", "compartments", *files, *labels, *options)
    print_comparison(OUTPUT / "compartments" / "compartments.csv", OUTPUT / "patient" / "truth.csv")


def print_agreement(patient: Path, visits: Path) -> None:
    """Print the overlap with the synthetic patient's labels and the distance from its true deformation."""
    import numpy as np
    import SimpleITK as sitk

    print(f"\n{'Dice with the known labels':28}{'whole tumour':>14}{'core':>14}{'enhancing':>14}")
    for visit, which in (("visit1", "fixed"), ("visit2", "moving")):
        truth, found = (
            sitk.GetArrayFromImage(sitk.ReadImage(str(path)))
            for path in (patient / f"{visit}_seg.nii.gz", visits / f"{which}_segmentation.seg.nrrd")
        )
        cells = []
        for region in ((1, 2, 3), (1, 3), (3,)):
            first, second = np.isin(truth, region), np.isin(found, region)
            total = first.sum() + second.sum()
            cells.append(f"{2 * (first & second).sum() / total:.3f}" if total else "none")
        print(f"{visit:28}" + "".join(f"{cell:>14}" for cell in cells))
    true_transform, registered = (
        sitk.ReadTransform(str(path)) for path in (patient / "true_visit2_to_visit1.h5", visits / "moving_to_fixed.h5")
    )
    mask = sitk.ReadImage(str(patient / "visit1_mask.nii.gz"))
    voxels = np.argwhere(sitk.GetArrayViewFromImage(mask) > 0)[:, ::-1]
    chosen = voxels[np.random.default_rng(0).choice(len(voxels), 3000, replace=False)]
    points = [mask.TransformIndexToPhysicalPoint(voxel.tolist()) for voxel in chosen]
    true_places = np.array([true_transform.TransformPoint(point) for point in points])
    for name, places in (
        ("as scanned", np.array(points)),
        ("registered", np.array([registered.TransformPoint(point) for point in points])),
    ):
        distance = np.linalg.norm(places - true_places, axis=1)
        percentile = np.percentile(distance, 95)
        print(f"distance from the true place, {name}: mean {distance.mean():.2f} mm, 95 % below {percentile:.2f} mm")


def print_comparison(table: Path, truth: Path) -> None:
    """Print the regions' values of pure tissue next to the values from which the acquisitions were made."""
    with open(table, newline="") as file:
        found = {(row["visit"], row["region"], row["quantity"]): row["pure"] for row in csv.DictReader(file)}
    with open(truth, newline="") as file:
        known = {(row["visit"], row["region"], row["quantity"]): float(row["value"]) for row in csv.DictReader(file)}
    quantities = ("amide_fraction", "semisolid_fraction", "water_r2_Hz")
    print("\nvalue of pure tissue in each region (true value)")
    print(f"{'visit and region':34}" + "".join(f"{quantity:>26}" for quantity in quantities))
    for number, visit in enumerate(VISITS, start=1):
        for region in ("enhancing_tumor", "edema", "necrotic_core"):
            cells = []
            for quantity in quantities:
                value = found.get((f"visit {number}", region, quantity), "")
                true_value = known.get((visit, region, quantity))
                shown = f"{float(value):.4g}" if value else "none"
                cells.append(shown + (f" ({true_value:.4g})" if true_value is not None else ""))
            name = f"visit {number}, {region.replace('_', ' ')}"
            print(f"{name:34}" + "".join(f"{cell:>26}" for cell in cells))


def main() -> None:
    start = time.perf_counter()
    OUTPUT.mkdir(exist_ok=True)
    a_patient()
    cest_maps()
    two_visits()
    compartments()
    print(f"\nIn the folder 'output', after {time.perf_counter() - start:.0f} s:")
    print("  output/compartments/report.html   the report on the patient: open it in a browser")
    for path in sorted(OUTPUT.glob("*/report.png")) + sorted(OUTPUT.glob("*/scene.mrb")):
        print(f"  {path.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
