"""Registration compared with other programs on the same pair in the same run: time, memory, overlap, error, folding.

The pair consists of a template and its copy after a known deformation, a change of intensity and noise. A second pair,
of two real subjects, has no known deformation, so only similarity and smoothness are compared. Every method runs in a
process of its own with the same number of threads; the times are those of the registration itself, without reading and
writing. Neither pair needs an affine alignment, and no method looks for one.
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
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import libraries
import numpy as np
import SimpleITK as sitk

LIMIT_DICE, LIMIT_MM = 0.87, 1.1
OURS = "JointRegSeg, as with the bundled weights"
METHODS = {"refinement": OURS, "with_network": "JointRegSeg after a network that registers"}
REAL_PAIR = libraries.ROOT.parent / "shared" / "data" / "brain" / "OASIS_pair_LapIRN"


def measure(method: str, folder: Path) -> None:
    """Register and write the fields, the time and the peak memory; called in a process of its own."""
    fixed, moving = (sitk.ReadImage(str(folder / f"{name}.nii.gz"), sitk.sitkFloat32) for name in ("fixed", "moving"))
    processor = time.process_time()
    if method in METHODS:
        forward, inverse, seconds = ours(fixed, moving, method == "with_network")
    else:
        import registration_peers

        forward, inverse, seconds = getattr(registration_peers, method)(fixed, moving, folder)
    found = {
        "seconds": seconds,
        "processor": time.process_time() - processor,
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }
    np.savez(folder / "fields.npz", forward=forward, inverse=np.zeros(0) if inverse is None else inverse)
    (folder / "measured.json").write_text(json.dumps(found))


def ours(fixed: sitk.Image, moving: sitk.Image, with_network: bool) -> tuple[np.ndarray, np.ndarray, float]:
    """Register with the refinement, which starts from the identity.

    Networks whose last training was to register are asked for a start first. That costs a forward pass, here of the
    default network on four channels of which one exists; it is not trained, so its result is not used.
    """
    import torch
    from registration_pair import normalized

    from JointRegSegLib.registration.instance_optimization import refine
    from JointRegSegLib.registration.refinement_settings import RefinementSettings

    images = [torch.from_numpy(sitk.GetArrayFromImage(image))[None, None] for image in (fixed, moving)]
    settings = RefinementSettings().for_spacing(fixed.GetSpacing()[0])
    network = None
    if with_network:
        from JointRegSegLib.network.configuration import load_network_config
        from JointRegSegLib.network.joint import build_network
        from JointRegSegLib.network.precision import run_fast

        network = build_network(load_network_config("neurocest")).eval()
    begin = time.perf_counter()
    fixed_z, moving_z = (normalized(image) for image in images)
    if network is not None:
        absent = torch.full_like(fixed_z, -3).expand(-1, 3, -1, -1, -1)
        with torch.inference_mode():
            run_fast(network, *(_padded(torch.cat([image, absent], 1)) for image in (fixed_z, moving_z)))
    found = refine(fixed_z, moving_z, settings=settings)
    seconds = time.perf_counter() - begin
    return found.displacement[0].numpy(), found.inverse[0].numpy(), seconds


def _padded(study):
    """Pad a study to multiples of 32 voxels, as the network needs."""
    import torch

    margins = [side for n in reversed(study.shape[2:]) for side in (0, -n % 32)]
    return torch.nn.functional.pad(study, margins, value=-3)


def run(method: str, folder: Path, threads: int) -> dict:
    """Run a method in a process of its own; return its measurements and its fields as tensors."""
    import torch

    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS")
    environment = {**os.environ, **dict.fromkeys(names, str(threads))}
    command = [sys.executable, __file__, "--child", method, "--folder", str(folder)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise RuntimeError(f"exit status {done.returncode}: {last[:200]}")
    fields = np.load(folder / "fields.npz")
    forward, inverse = (torch.from_numpy(fields[name])[None] for name in ("forward", "inverse"))
    measured = json.loads((folder / "measured.json").read_text())
    return {**measured, "forward": forward, "inverse": inverse if inverse.ndim == 5 else None}


def results(
    methods: dict[str, str], folder: Path, threads: int, columns: int
) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Run the methods one after the other; print a row for each that fails, and yield name, title and result."""
    for method, title in methods.items():
        try:
            found = run(method, folder, threads)
        except RuntimeError as error:
            print(f"| {title} | failed: {error} {'| ' * (columns - 2)}|", flush=True)
        else:
            yield method, title, found


def smoothness(found: dict, inside, spacing_mm: float) -> str:
    """Return folded voxels, standard deviation of the log-Jacobian and mean inverse consistency error as columns."""
    from JointRegSegLib.registration.deformation import inverse_error, jacobian_determinant

    jacobian = jacobian_determinant(found["forward"])
    folded = 100 * float((~(jacobian > 0)).double().mean())
    spread = float(jacobian[inside].clamp_min(1e-6).log().std())
    back = "none"
    if found["inverse"] is not None:
        back = f"{spacing_mm * float(inverse_error(found['forward'], found['inverse'])[inside].mean()):.3f}"
    return f"{folded:.4f} | {spread:.3f} | {back}"


def costs(found: dict) -> str:
    return f"{found['seconds']:.1f} | {found['processor']:.1f} | {found['peak_mb']:.0f}"


def known_pair(methods: dict[str, str], spacing_mm: int, threads: int, folder: Path) -> bool:
    """Print the table of the pair with a known deformation; return whether the targets are met."""
    import registration_pair

    from JointRegSegLib.registration.deformation import warp_labels

    pair = registration_pair.build(spacing_mm=spacing_mm)
    for name in ("fixed", "moving"):
        sitk.WriteImage(registration_pair.to_image(getattr(pair, name), spacing_mm), str(folder / f"{name}.nii.gz"))
    size = " x ".join(str(n) for n in pair.fixed.shape[2:])
    print(f"## Known deformation, {size} voxels of {spacing_mm} mm, {threads} threads\n")
    length = pair.spacing_mm * pair.displacement.norm(dim=1, keepdim=True)[pair.brain]
    before = registration_pair.dice(pair.fixed_labels, pair.moving_labels)
    best = registration_pair.dice(pair.fixed_labels, warp_labels(pair.moving_labels, pair.displacement, 4))
    print(f"Before: Dice {before:.3f}, mean error {length.mean():.2f} mm, at most {length.max():.1f} mm")
    print(f"The true deformation: Dice {best:.3f}")
    print("\n| method | s | processor s | peak MB | Dice | error mm | folded % | SD log J | inverse mm |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- | --- |", flush=True)
    rows = {}
    for method, title, found in results(methods, folder, threads, columns=9):
        warped = warp_labels(pair.moving_labels, found["forward"], 4)
        overlap = registration_pair.dice(pair.fixed_labels, warped)
        away = (found["forward"] - pair.displacement).norm(dim=1, keepdim=True)[pair.brain]
        error_mm = pair.spacing_mm * float(away.mean())
        rows[method] = {**found, "dice": overlap, "error": error_mm}
        print(
            f"| {title} | {costs(found)} | {overlap:.3f} | {error_mm:.2f} "
            f"| {smoothness(found, pair.brain, pair.spacing_mm)} |",
            flush=True,
        )
    return _targets(rows)


def _targets(rows: dict[str, dict]) -> bool:
    ours, demons = rows.get("refinement"), rows.get("demons")
    if ours is None or demons is None:
        return False
    peers = [row for method, row in rows.items() if method not in METHODS]
    checks = {
        f"Dice at least {LIMIT_DICE}": ours["dice"] >= LIMIT_DICE,
        f"error at most {LIMIT_MM} mm": ours["error"] <= LIMIT_MM,
        "no more time than demons": ours["seconds"] <= demons["seconds"],
        "ahead of every peer in overlap and error": all(
            ours["dice"] > row["dice"] and ours["error"] < row["error"] for row in peers
        ),
    }
    print()
    for words, met in checks.items():
        print(f"- {words}: {'met' if met else 'MISSED'}")
    return all(checks.values())


def real_pair(methods: dict[str, str], threads: int, folder: Path) -> None:
    """Print the table of two real subjects, if their images are on this machine."""
    if not REAL_PAIR.exists():
        print("\nThe real pair is not on this machine: no second table.")
        return
    import torch
    from registration_pair import normalized

    from JointRegSegLib.registration.deformation import warp
    from JointRegSegLib.registration.local_correlation import lncc

    images = []
    for name, letter in (("fixed", "A"), ("moving", "B")):
        image = sitk.ReadImage(str(REAL_PAIR / f"image_{letter}_160x192x144.nii.gz"), sitk.sitkFloat32)
        plain = sitk.GetImageFromArray(sitk.GetArrayFromImage(image))
        sitk.WriteImage(plain, str(folder / f"{name}.nii.gz"))
        images.append(normalized(torch.from_numpy(sitk.GetArrayFromImage(plain))[None, None]))
    fixed, moving = images
    inside = fixed > -3
    print(f"\n## Two real subjects, {threads} threads\n")
    print(f"Before: local correlation {lncc(fixed, moving, 9, inside.float(), 2):.3f}\n")
    print("| method | s | processor s | peak MB | local correlation | folded % | SD log J | inverse mm |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- |", flush=True)
    for _, title, found in results(methods, folder, threads, columns=8):
        alike = lncc(fixed, warp(moving, found["forward"]), 9, inside.float(), 2)
        print(f"| {title} | {costs(found)} | {alike:.3f} | {smoothness(found, inside, 1.0)} |", flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="half the resolution, the faster peers, no real pair")
    parser.add_argument("--methods", nargs="+", help="refinement, with_network, demons, syn_mi, syn_quick, elastix")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--child", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        measure(arguments.child, arguments.folder)
        return 0
    from registration_peers import PEERS

    methods = {**METHODS, **{function.__name__: title for title, function in PEERS.items()}}
    if arguments.quick:
        methods = {name: title for name, title in methods.items() if name != "syn_quick"}
    if arguments.methods:
        methods = {name: methods[name] for name in arguments.methods}
    with tempfile.TemporaryDirectory() as folder:
        met = known_pair(methods, 2 if arguments.quick else 1, arguments.threads, Path(folder))
        if not arguments.quick:
            real_pair(methods, arguments.threads, Path(folder))
    return 0 if met or arguments.quick or arguments.methods else 1


if __name__ == "__main__":
    sys.exit(main())
