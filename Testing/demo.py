"""The main tasks with the commands that a user would type, and their results next to the known truth.

CESTQuant computes maps of the digital phantom; JointRegSeg segments and registers two visits of a synthetic patient.
"""

from __future__ import annotations

import csv
import shlex
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
OUTPUT = ROOT / "output"


def run(program: str, *arguments: str) -> None:
    """Print a command and run it in the output folder."""
    print(f"\n$ {program} {shlex.join(arguments)}", flush=True)
    library = {"cestquant": "CESTQuantLib", "jointregseg": "JointRegSegLib"}[program]
    status = subprocess.run([sys.executable, "-m", f"{library}.batch", *arguments], cwd=OUTPUT, check=False).returncode
    if status:
        sys.exit(status)


def print_comparison(roi_csv: Path) -> None:
    """Print the fitted medians next to the values from which the phantom was made."""
    from CESTQuantLib.formats.presets import tissue_values
    from CESTQuantLib.tissue.phantom import REGIONS

    def truth(preset: str, quantity: str) -> float:
        values = tissue_values(preset)
        amide = values["solutes"][0]
        # The fit holds the amide rate at 50/s; in slow exchange the measurement depends on fraction times rate.
        values_of_model = {
            "amide_fraction": amide["fraction"] * amide["k_Hz"] / 50,
            "semisolid_fraction": values["semisolid"]["fraction"],
            "semisolid_exchange_rate_Hz": values["semisolid"]["k_Hz"],
            "water_r2_Hz": 1 / values["water"]["T2_s"],
        }
        return values_of_model[quantity]

    with open(roi_csv, newline="") as file:
        rows = {(row["region"], row["quantity"]): float(row["median"]) for row in csv.DictReader(file)}
    quantities = ("amide_fraction", "semisolid_fraction", "semisolid_exchange_rate_Hz", "water_r2_Hz")
    print("\nmedian of the fit (value in the phantom)")
    print(f"{'region':22}" + "".join(f"{q:>30}" for q in quantities))
    for region, preset in REGIONS.values():
        cells = [f"{rows[region, q]:.4g} ({truth(preset, q):.4g})" for q in quantities]
        print(f"{region:22}" + "".join(f"{cell:>30}" for cell in cells))
    print(
        "The rmse map shows where the model does not hold: in cerebrospinal fluid the water hardly relaxes during the"
    )
    print("saturation, which the analytic solution neglects near 0 ppm.")


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


def cest_maps() -> None:
    """Compute maps of the digital phantom with four methods."""
    acquisition = shlex.split(
        "--signal phantom/signal.seq.nrrd --reference phantom/m0.nii.gz --mask phantom/mask.nii.gz"
    )
    fields = shlex.split(
        "--protocol phantom/protocol.json --b0 phantom/b0.nii.gz --segmentation phantom/segmentation.seg.nrrd"
    )
    model = shlex.split(
        "--b1 phantom/b1.nii.gz --t1 phantom/t1.nii.gz --method r1rho --model phantom/model.json --scene"
    )
    common = ("cestquant", "fit", *acquisition, *fields)
    run("cestquant", "phantom", "--output", "phantom")
    run(*common, *model, "--output", "model_fit")
    run(*common, "--method", "lorentzian", "--power", "1", "--output", "lorentzian")
    run(*common, *shlex.split("--method mtr-rex --power 1 --t1 phantom/t1.nii.gz --output mtr_rex"))
    run(*common, "--method", "mtrasym", "--power", "2.5", "--output", "mtr_asym")
    print_comparison(OUTPUT / "model_fit" / "roi.csv")


def two_visits() -> None:
    """Segment and register two visits of a synthetic patient."""
    seed = 8
    patient = f"patients/synthetic{seed:06d}"
    run("jointregseg", "synthesize", "--output", "patients", "--seed", str(seed), "--spacing", "2")
    images = {v: [f"{patient}/{v}_{m}.nii.gz" for m in ("t1", "t1ce", "t2", "flair")] for v in ("visit1", "visit2")}
    masks = ("--fixed-mask", f"{patient}/visit1_mask.nii.gz", "--moving-mask", f"{patient}/visit2_mask.nii.gz")
    run(
        "jointregseg",
        "apply",
        "--fixed",
        *images["visit1"],
        "--moving",
        *images["visit2"],
        *masks,
        "--scene",
        "--output",
        "visits",
    )
    print_agreement(OUTPUT / patient, OUTPUT / "visits")


def main() -> None:
    OUTPUT.mkdir(exist_ok=True)
    cest_maps()
    two_visits()
    print("\nIn the folder 'output':")
    for path in sorted(OUTPUT.glob("*/report.png")) + sorted(OUTPUT.glob("*/scene.mrb")):
        print(f"  {path.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
