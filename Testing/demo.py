"""The main job on the digital phantom, by the commands that a user types: maps, tables, a scene and pictures."""

from __future__ import annotations

import csv
import shlex
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
OUTPUT = ROOT / "output"


def cestquant(*arguments: str) -> None:
    """Show and run a ``cestquant`` command in the output folder."""
    print(f"\n$ cestquant {shlex.join(arguments)}", flush=True)
    command = [sys.executable, "-m", "CESTQuantLib.batch", *arguments]
    status = subprocess.run(command, cwd=OUTPUT, check=False).returncode
    if status:
        sys.exit(status)


def print_comparison(roi_csv: Path) -> None:
    """Fitted medians beside the values that the phantom was made of."""
    from CESTQuantLib.phantom import REGIONS
    from CESTQuantLib.presets import tissue_values

    def truth(preset: str, quantity: str) -> float:
        values = tissue_values(preset)
        amide = values["solutes"][0]
        # the fit holds the amide rate at 50/s; in slow exchange fraction x rate is what is measured
        known = {
            "amide_fraction": amide["fraction"] * amide["k_Hz"] / 50,
            "semisolid_fraction": values["semisolid"]["fraction"],
            "semisolid_exchange_rate_Hz": values["semisolid"]["k_Hz"],
            "water_r2_Hz": 1 / values["water"]["T2_s"],
        }
        return known[quantity]

    with open(roi_csv, newline="") as file:
        rows = {(row["region"], row["quantity"]): float(row["median"]) for row in csv.DictReader(file)}
    quantities = ("amide_fraction", "semisolid_fraction", "semisolid_exchange_rate_Hz", "water_r2_Hz")
    print("\nmedian of the fit (value in the phantom)")
    print(f"{'region':22}" + "".join(f"{q:>30}" for q in quantities))
    for region, preset in REGIONS.values():
        cells = [f"{rows[region, q]:.4g} ({truth(preset, q):.4g})" for q in quantities]
        print(f"{region:22}" + "".join(f"{cell:>30}" for cell in cells))
    print("Where the model does not hold the rmse map says so: in cerebrospinal fluid the water hardly relaxes within")
    print("the saturation, which the analytic solution leaves out near 0 ppm.")


def main() -> None:
    OUTPUT.mkdir(exist_ok=True)
    acquisition = shlex.split(
        "--signal phantom/signal.seq.nrrd --reference phantom/m0.nii.gz --mask phantom/mask.nii.gz"
    )
    fields = shlex.split(
        "--protocol phantom/protocol.json --b0 phantom/b0.nii.gz --segmentation phantom/segmentation.seg.nrrd"
    )
    model = shlex.split(
        "--b1 phantom/b1.nii.gz --t1 phantom/t1.nii.gz --method r1rho --model phantom/model.json --scene"
    )
    common = ("fit", *acquisition, *fields)
    cestquant("phantom", "--output", "phantom")
    cestquant(*common, *model, "--output", "model_fit")
    cestquant(*common, "--method", "lorentzian", "--power", "1", "--output", "lorentzian")
    cestquant(*common, *shlex.split("--method mtr-rex --power 1 --t1 phantom/t1.nii.gz --output mtr_rex"))
    cestquant(*common, "--method", "mtrasym", "--power", "2.5", "--output", "mtr_asym")
    print_comparison(OUTPUT / "model_fit" / "roi.csv")
    print("\nLeft in the folder 'output':")
    for path in sorted(OUTPUT.glob("*/report.png")) + sorted(OUTPUT.glob("*/scene.mrb")):
        print(f"  {path.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
