"""Registration of two real visits after a known deformation, compared with other programs in the same run.

The visits are two T1 scans of one person with multiple sclerosis, seven months apart and with voxels of their own. The
second is brought to the first rigidly by mutual information, both are resampled, and the second is then deformed by a
known smooth flow. The error is the distance from that flow, in the brain, and contains what really changed between the
visits. Every method runs in a process of its own with the same number of threads, on the same images.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from pathlib import Path

import libraries
import numpy as np
import SimpleITK as sitk
import torch
from bench_registration import METHODS, costs, results, smoothness
from registration_pair import flow, normalized, to_image

from JointRegSegLib.images.head_mask import brain_in_head
from JointRegSegLib.registration.deformation import warp
from JointRegSegLib.registration.local_correlation import lncc

VISITS = libraries.ROOT.parent / "shared" / "data" / "brain" / "multiple_sclerosis" / "long_patient01" / "raw"
SPACING_MM = 1.5
SHAPE = (96, 128, 112)
"""Voxels along (D, H, W)."""
_SHRINK, _SMOOTHING_MM = (4, 2, 1), (4, 2, 1)


def aligned_visits() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Both visits and the brain of the first, (1, 1, D, H, W) on one grid of ``SPACING_MM``, zero outside the brain."""
    first, second = (sitk.ReadImage(str(VISITS / f"study{n}_T1W.nii.gz"), sitk.sitkFloat32) for n in (1, 2))
    brain, _ = brain_in_head(first)
    statistics = sitk.LabelShapeStatisticsImageFilter()
    statistics.Execute(sitk.Cast(brain > 0, sitk.sitkUInt8))
    grid = sitk.Image(*reversed(SHAPE), sitk.sitkFloat32)
    grid.SetSpacing((SPACING_MM,) * 3)
    center = np.array(statistics.GetCentroid(1))
    grid.SetOrigin((center - SPACING_MM * (np.array(SHAPE[::-1]) - 1) / 2).tolist())
    inside = sitk.Resample(brain, grid, sitk.Transform(), sitk.sitkNearestNeighbor, 0, sitk.sitkUInt8)
    fixed = sitk.Resample(first, grid, sitk.Transform(), sitk.sitkLinear, 0.0)
    method = sitk.ImageRegistrationMethod()
    method.SetMetricAsMattesMutualInformation(50)
    method.SetMetricFixedMask(inside)
    method.SetMetricSamplingStrategy(method.REGULAR)
    method.SetMetricSamplingPercentage(0.25)
    method.SetShrinkFactorsPerLevel(_SHRINK)
    method.SetSmoothingSigmasPerLevel(_SMOOTHING_MM)
    method.SetInterpolator(sitk.sitkLinear)
    method.SetOptimizerAsRegularStepGradientDescent(1.0, 1e-3, 200)
    method.SetOptimizerScalesFromPhysicalShift()
    start = sitk.CenteredTransformInitializer(fixed, second, sitk.Euler3DTransform())
    method.SetInitialTransform(start, inPlace=False)
    moving = sitk.Resample(second, grid, method.Execute(fixed, second), sitk.sitkLinear, 0.0)
    mask, *images = (torch.from_numpy(sitk.GetArrayFromImage(i)).float()[None, None] for i in (inside, fixed, moving))
    fixed_image, moving_image = (image.clamp_min(1.0) * mask for image in images)
    return fixed_image, moving_image, mask


def main() -> int:
    from registration_peers import PEERS

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--methods", nargs="+", help="refinement, with_network, demons, syn_mi, syn_quick, elastix")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2], help="one deformation for each")
    arguments = parser.parse_args()
    if not VISITS.exists():
        print("The visits are not on this machine.")
        return 0
    methods = {**METHODS, **{function.__name__: title for title, function in PEERS.items()}}
    methods = {name: methods[name] for name in arguments.methods or methods}
    fixed, moving, mask = aligned_visits()
    brain = mask > 0
    print(f"## Two real visits, {' x '.join(map(str, SHAPE))} voxels of {SPACING_MM} mm, {arguments.threads} threads\n")
    for seed in arguments.seeds:
        displacement, inverse = flow(SHAPE, brain, SPACING_MM, seed)
        moved = warp(moving, inverse)
        length = SPACING_MM * displacement.norm(dim=1, keepdim=True)[brain]
        alike = lncc(normalized(fixed), normalized(moved), 9, mask, 2)
        print(f"Deformation {seed}: {length.mean():.2f} mm on average, at most {length.max():.1f} mm; ", end="")
        print(
            f"local correlation {alike:.3f}, {lncc(normalized(fixed), normalized(moving), 9, mask, 2):.3f} without it\n"
        )
        print("| method | s | processor s | peak MB | error mm: mean | median | 95 % | local correlation ", end="")
        print("| folded % | SD log J | inverse mm |\n" + "| --- " * 11 + "|", flush=True)
        with tempfile.TemporaryDirectory() as place:
            folder = Path(place)
            for name, image in (("fixed", fixed), ("moving", moved)):
                sitk.WriteImage(to_image(image, SPACING_MM), str(folder / f"{name}.nii.gz"))
            for _, title, found in results(methods, folder, arguments.threads, columns=11):
                error = SPACING_MM * (found["forward"] - displacement).norm(dim=1, keepdim=True)[brain]
                alike = lncc(normalized(fixed), warp(normalized(moved), found["forward"]), 9, mask, 2)
                quantiles = " | ".join(f"{q:.2f}" for q in (error.mean(), error.median(), error.quantile(0.95)))
                cells = (title, costs(found), quantiles, f"{alike:.3f}", smoothness(found, brain, SPACING_MM))
                print(f"| {' | '.join(cells)} |", flush=True)
        print()
    return 0


if __name__ == "__main__":
    sys.exit(main())
