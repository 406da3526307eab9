"""Trial of the motion correction: a continuous head moves during a CEST acquisition, and the truth is known.

For every case the command prints what is left of the motion (translation along an axis in mm, rotation in degrees,
relative to the reference image) in the images whose position was measured and in the others, and how far the signals of
a still head change, as a share of M0::

    python Testing/motion_trial.py --slices 16 --spacing 3 --snr 50 100 200
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import numpy as np

# The libraries come first, because the folders of the tests have their names.
ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / folder) for folder in ("", "CESTQuant", "Testing/tests")]

from moving_head import acquire_moving, residuals, rigid, z_protocol  # noqa: E402

from CESTQuantLib.preprocessing.motion import Motion, correct_motion  # noqa: E402

CASES = ("still", "step", "drift", "jitter")


def poses_of(case: str, count: int) -> np.ndarray:
    """Return the rigid motion (measurement, 4, 4) of a case."""
    rotation_mm = np.zeros((count, 6))
    if case == "step":
        rotation_mm[count // 3 :] = [1.0, 0.5, -1.5, 1.2, -0.8, 0.6]
    elif case == "drift":
        rotation_mm[:] = np.linspace(0, 1, count)[:, None] * [1.5, -1.0, 1.0, -1.0, 1.5, 1.0]
    elif case == "jitter":
        rotation_mm[1:] = np.random.default_rng(3).normal(0, 0.7, (count - 1, 6))
    return np.stack([rigid(row[:3], row[3:]) for row in rotation_mm])


def draw(path: str, offsets: np.ndarray, series: tuple[np.ndarray, ...], inside: np.ndarray, motion: Motion) -> None:
    """Draw the MTR asymmetry near 3.5 ppm without motion, with motion and after correction, and the motion found."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    up, down, m0 = (int(np.abs(offsets - offset).argmin()) for offset in (3.5, -3.5, 300.0))
    figure, axes = plt.subplots(1, 4, figsize=(14, 4), width_ratios=(1, 1, 1, 1.3), layout="constrained")
    middle = inside.shape[0] // 2
    for axis, images, title in zip(axes, series, ("no motion", "motion", "motion corrected"), strict=False):
        asymmetry = np.where(inside, (images[down] - images[up]) / np.maximum(images[m0], 1), np.nan)[middle]
        shown = axis.imshow(100 * asymmetry[::-1], vmin=-15, vmax=15, cmap="RdBu_r")
        axis.set_title(f"{title}: MTRasym")
        axis.axis("off")
    figure.colorbar(shown, ax=axes[:3], label="% of M0", shrink=0.8)
    lines = axes[3].plot(motion.translations_mm, "o-", markersize=4)
    turns = axes[3].plot(motion.rotations_deg, "s--", markersize=4)
    axes[3].legend(
        [*lines, *turns], [*(f"{a} (mm)" for a in "ijk"), *(f"about {a} (°)" for a in "ijk")], fontsize="small"
    )
    axes[3].set(xlabel="measurement", title="motion that was found")
    figure.savefig(path, dpi=80)


def main() -> None:
    """Run the command."""
    assert __doc__ is not None
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--slices", type=int, default=16)
    parser.add_argument("--spacing", type=float, default=3.0, help="voxel size in mm (default: 3)")
    parser.add_argument("--offsets", type=int, default=13)
    parser.add_argument("--snr", type=float, nargs="+", default=[100.0], help="M0 of white matter over noise")
    parser.add_argument("--no-scalp", action="store_true", help="leave out the scalp and its fat")
    parser.add_argument("--field-moves", action="store_true", help="the B0 field moves with the head")
    parser.add_argument("--picture", metavar="PNG", help="also draw MTR asymmetry before and after the last case")
    options = parser.parse_args()
    protocol = z_protocol(options.offsets)
    shape = (options.slices, round(216 / options.spacing), round(180 / options.spacing))
    spacing = (options.spacing,) * 3
    print("case    SNR  measured  left mm  left deg  others mm  others deg  change of still images  seconds")
    for case in options.cases:
        poses = poses_of(case, protocol.measurement_count)
        if options.slices < 5:
            poses[:, :2, 2] = poses[:, 2, :2] = poses[:, 2, 3] = 0
            angle = np.arctan2(poses[:, 1, 0], poses[:, 0, 0])
            for pose, value in zip(poses, angle, strict=True):
                pose[:3, :3] = rigid(np.array([0, 0, np.rad2deg(value)]), np.zeros(3))[:3, :3]
        head = acquire_moving(
            protocol, poses, shape, spacing, scalp=not options.no_scalp, field_moves=options.field_moves
        )
        for snr in options.snr:
            images, start = head.noisy(snr), time.perf_counter()
            corrected, motion = correct_motion(images, spacing)
            seconds = time.perf_counter() - start
            kept = [motion.moved, motion.translations_mm, motion.rotations_deg]
            kept[1][~motion.moved] = kept[2][~motion.moved] = 0  # what was not resampled keeps its motion
            mm, deg = residuals(motion, poses)
            sure = motion.measured
            largest = [v[m].max() if m.any() else 0.0 for m in (sure, ~sure) for v in (mm, deg)]
            change = np.abs(corrected - images)[:, head.inside].max() / images[0][head.inside].mean()
            changed = f"{change:.2%}" if case == "still" else "-"
            print(
                f"{case:7} {snr:4g}  {sure.sum():3}/{len(sure):<3}  {largest[0]:8.3f} {largest[1]:9.3f} "
                f"{largest[2]:10.3f} {largest[3]:11.3f}  {changed:>22}  {seconds:7.1f}",
                flush=True,
            )
    if options.picture:
        still = acquire_moving(
            protocol, np.tile(poses[motion.reference], (len(poses), 1, 1)), shape, spacing, scalp=not options.no_scalp
        )
        draw(options.picture, protocol.offsets_ppm.numpy(), (still.noisy(snr), images, corrected), still.inside, motion)


if __name__ == "__main__":
    main()
