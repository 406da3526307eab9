"""Time and memory for a whole patient, from files to files: two visits of 240 x 240 x 155 voxels, four modalities.

Runs ``jointregseg apply`` as a user would, in a process of its own. Unless files are given, the patient is the digital
head, scaled to an adult brain of 1.5 litres.
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

import numpy as np
import SimpleITK as sitk
from libraries import ROOT

from JointRegSegLib.images.modalities import MODALITIES
from JointRegSegLib.synthesis.phantom import make_visit

LIMIT_S, LIMIT_GB = 90.0, 6.0
SHAPE = (155, 240, 240)
_ADULT = 0.85
"""Millimetres of the phantom per millimetre of the patient."""


def write_patient(folder: Path) -> dict[str, list[str]]:
    """Write 16-bit files of both visits at 1 mm, as in BraTS; return their paths in the order of the modalities."""
    matrix = np.diag([_ADULT] * 3 + [1.0])
    matrix[:3, 3] = [-_ADULT * (n - 1) / 2 for n in reversed(SHAPE)]
    files: dict[str, list[str]] = {}
    for which in ("fixed", "moving"):
        visit = make_visit(SHAPE, matrix, second=which == "moving")
        files[which] = []
        for modality in MODALITIES:
            image = sitk.GetImageFromArray(np.rint(8 * visit.images[modality]).astype(np.int16))
            image.SetDirection((-1, 0, 0, 0, -1, 0, 0, 0, 1))
            files[which].append(str(folder / f"{which}_{modality}.nii.gz"))
            sitk.WriteImage(image, files[which][-1], useCompression=True)
    return files


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    order = " ".join(MODALITIES)
    parser.add_argument("--fixed", nargs="+", help=f"files of a real visit instead, in the order {order}")
    parser.add_argument("--moving", nargs="+", help="files of the other visit")
    parser.add_argument("--weights", help="weights file (default: those of the module)")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        files = vars(arguments) if arguments.fixed and arguments.moving else write_patient(Path(folder))
        command = [sys.executable, "-m", "JointRegSegLib.batch", "apply", "--output", f"{folder}/out"]
        for which in ("fixed", "moving"):
            command += [f"--{which}", *files[which]]
        if arguments.weights:
            command += ["--weights", arguments.weights]
        path = os.pathsep.join((str(ROOT), str(ROOT / "JointRegSeg"), os.environ.get("PYTHONPATH", "")))
        print("## A patient from files to files\n")
        print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}\n")
        before, begin = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
        status = subprocess.run(command, env=os.environ | {"PYTHONPATH": path}, check=False).returncode
        wall, used = time.perf_counter() - begin, resource.getrusage(resource.RUSAGE_CHILDREN)
        if status:
            return status
        report = json.loads((Path(folder) / "out" / "report.json").read_text())
        written = sum(file.stat().st_size for file in (Path(folder) / "out").iterdir()) / 1e6
    processor = used.ru_utime + used.ru_stime - before.ru_utime - before.ru_stime
    gigabytes = used.ru_maxrss * 1024 / 1e9
    met = wall <= LIMIT_S and gigabytes <= LIMIT_GB
    print("\n| step | s |\n| --- | --- |")
    summary, whole = report["summary"], ("reading", "computing", "writing", "total")
    steps = {name: seconds for name, seconds in report["timings_s"].items() if name not in whole}
    for name, seconds in {**steps, "program start, reading, scene, writing": wall - sum(steps.values())}.items():
        print(f"| {name} | {seconds:.1f} |")
    print(f"| **all** | {wall:.1f} ({processor:.1f} of processor time; target {LIMIT_S:g}) |")
    print(f"\npeak memory {gigabytes:.1f} GB (target {LIMIT_GB:g}), {written:.0f} MB written")
    print(f"local correlation {summary['local_correlation_before']} to {summary['local_correlation_after']}, ", end="")
    print(f"folded {summary['folded_fraction']:.1e}, inverse error {summary['inverse_error_mm_mean']} mm mean")
    print("target met" if met else "target MISSED")
    return 0


if __name__ == "__main__":
    sys.exit(main())
