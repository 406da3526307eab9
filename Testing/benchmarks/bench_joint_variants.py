"""Comparison of networks and losses, each trained for the same time on the same synthetic patients.

They are tested on patients that were not used for training and whose true deformation is known. The measures are Dice
of the three tumour regions; Dice of the warped tissues (CSF, grey and white matter) and error of the deformation, both
outside the tumours; that error within ``NEAR_MM`` of a tumour and inside the tumours; volume of the tumour after
warping relative to before; and folded voxels.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import libraries  # noqa: F401  (puts the libraries on the path)
import numpy as np
import torch
from torch.nn.functional import max_pool3d

from JointRegSegLib.images.labels import REGIONS
from JointRegSegLib.metrics.deformation import jacobian_statistics
from JointRegSegLib.metrics.overlap import dice, region_scores, volume_ratios
from JointRegSegLib.network.joint import JointNetwork
from JointRegSegLib.registration.deformation import jacobian_determinant, warp, warp_labels
from JointRegSegLib.synthesis.patient import SyntheticPatient, synthetic_patient
from JointRegSegLib.synthesis.source import sample_of
from JointRegSegLib.synthesis.templates import load_templates
from JointRegSegLib.training.batches import collate
from JointRegSegLib.training.config_files import config_from_dict
from JointRegSegLib.training.data import open_data
from JointRegSegLib.training.initial import new_network
from JointRegSegLib.training.loop import train
from JointRegSegLib.training.step import network_output

VARIANTS: dict[str, dict[str, Any]] = {
    "V-Net, segmentation alone": {"network": "vnet"},
    "registration alone": {"network": "registration_only"},
    "registration alone, relaxed loss": {
        "network": "registration_only",
        "loss": {"relaxed": True, "mask_labels": True},
    },
    "VoxelMorph-like head": {"network": "voxelmorph"},
    "joint, subtraction (estienne2020)": {"network": "estienne2020"},
    "joint, concatenation": {"network": "estienne2020_concatenate"},
    "joint, addition": {"network": "estienne2020_add"},
    "joint, without the relaxed loss": {"network": "estienne2020", "loss": {"relaxed": False}},
    "neurocest": {"network": "neurocest"},
    "neurocest, without the relaxed loss": {"network": "neurocest", "loss": {"relaxed": False}},
}
TEST_SEED = 77_000_000
NEAR_MM = 12.0
"""Distance from a tumour up to which healthy brain counts as near it."""
Row = dict[str, float]


def main() -> int:
    options = _options()
    templates = [template.at(options.spacing) for template in load_templates(options.templates)]
    patients = [
        synthetic_patient(templates, TEST_SEED + n, options.spacing, with_deformation=True)
        for n in range(options.test_patients)
    ]
    before = _means([_registration(p, torch.zeros_like(p.deformation.displacement)) for p in patients])
    print(
        f"## Variants: {options.minutes:g} min each on {torch.get_num_threads()} threads, voxels of "
        f"{options.spacing:g} mm, {options.patients} patients in training, {len(patients)} in the test\n"
    )
    _print(
        (
            "variant",
            "parameters",
            "steps",
            "Dice WT",
            "TC",
            "ET",
            "tissue Dice",
            "error (mm)",
            "near the tumour",
            "inside",
            "volume ratio",
            "folded (%)",
        )
    )
    _print(["---"] * 12)
    _print(("no deformation", "", "", "", "", "", *_registration_cells(before)))
    with tempfile.TemporaryDirectory(prefix="neurocest-variants-") as place:
        cache = options.cache or os.path.join(place, "patients")
        for number, (name, changes) in enumerate(VARIANTS.items()):
            if options.only and (name != options.only if options.only in VARIANTS else options.only not in name):
                continue
            folder = Path(place) / str(number)
            folder.mkdir()
            network, config, steps = _train(changes, options, cache, folder)
            rows = [_test(network, config, patient) for patient in patients]
            means = _means(rows)
            segmentation = [_number(means.get(f"dice_{region}")) for region in REGIONS]
            _print((name, f"{network.parameter_count:,}", steps, *segmentation, *_registration_cells(means)))
    return 0


def _train(changes: dict[str, Any], options: argparse.Namespace, cache: str, folder: Path) -> tuple:
    values = {
        **changes,
        "stride": 1,
        "data": {
            "path": "synthetic",
            "length": options.patients,
            "validation_pairs": 0,
            "synthetic": {"spacing_mm": options.spacing, "templates": options.templates, "cache": cache},
        },
        "training": {
            "optimiser": "adam",
            "learning_rate": 1e-3,
            "schedule": "cosine",
            "warmup_steps": 10,
            "batch_size": 1,
            "gradient_clip": 5.0,
            "patience": 0,
            "epochs": 0,
            "steps": options.steps,
            "time_limit_minutes": options.minutes,
            "validate_every_batches": 50,
            "pictures": 0,
        },
    }
    config = config_from_dict(values)
    data = open_data(config, None, folder)
    torch.manual_seed(0)
    result = train(config, new_network(config), data.source, [], folder, augmentation=data.augmentation)
    return result.network, config, result.steps


@torch.no_grad()
def _test(network: JointNetwork, config: Any, patient: SyntheticPatient) -> Row:
    pair = sample_of(patient.fixed, "fixed"), sample_of(patient.moving, "moving")
    batch = collate([pair], network.config.multiple)
    d, h, w = pair[0].shape
    output = network_output(network, batch, config, config.registers)
    row: Row = {}
    if output.fixed_logits is not None:
        scores = [
            region_scores(logits[0].argmax(0)[:d, :h, :w].numpy(), visit.labels.numpy(), (1, 1, 1), distances=False)
            for logits, visit in ((output.fixed_logits, patient.fixed), (output.moving_logits, patient.moving))
        ]
        row |= {name: float(np.mean([score[name] for score in scores])) for name in scores[0]}
    if output.deformation is not None:
        row |= _registration(patient, output.deformation.displacement[..., :d, :h, :w])
    return row


def _registration(patient: SyntheticPatient, displacement: torch.Tensor) -> Row:
    """Return the measures of a displacement (1, 3, D, H, W) in voxels from the fixed to the moving visit."""
    fixed, moving = patient.fixed, patient.moving
    truth = patient.deformation.displacement
    moved_tumor = warp((moving.labels > 0).float()[None, None], truth)[0, 0] > 0.1
    healthy = fixed.mask & (fixed.labels == 0) & ~moved_tumor
    error = torch.linalg.vector_norm(displacement - truth, dim=1)[0] * patient.spacing_mm
    tumors = fixed.mask & ((fixed.labels > 0) | moved_tumor)
    reach = round(NEAR_MM / patient.spacing_mm)
    near = healthy & (max_pool3d(tumors.float()[None, None], 2 * reach + 1, 1, reach)[0, 0] > 0)
    tissues = warp(moving.tissues[None].float(), displacement)[0]
    overlaps = [
        dice(((a > 0.5) & healthy).numpy(), ((b > 0.5) & healthy).numpy())
        for a, b in zip(tissues, fixed.tissues.float(), strict=True)
    ]
    warped = warp_labels(moving.labels[None, None], displacement, 4)[0, 0]
    determinant = jacobian_determinant(displacement)[0, 0].numpy()
    return {
        "tissue_dice": float(np.mean(overlaps)),
        "error_mm": float(error[healthy].mean()),
        "near_mm": float(error[near].mean()),
        "inside_mm": float(error[tumors].mean()),
        "volume_ratio": volume_ratios(moving.labels.numpy(), warped.numpy())["volume_ratio_whole_tumor"],
        "folded": 100 * jacobian_statistics(determinant, fixed.mask.numpy())["folded_fraction"],
    }


def _registration_cells(means: Row) -> list[str]:
    return [
        _number(means.get(name))
        for name in ("tissue_dice", "error_mm", "near_mm", "inside_mm", "volume_ratio", "folded")
    ]


def _means(rows: Sequence[Row]) -> Row:
    return {name: float(np.nanmean([row[name] for row in rows])) for name in rows[0]}


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def _print(cells: Sequence[Any]) -> None:
    print("| " + " | ".join(str(cell) for cell in cells) + " |", flush=True)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=5.0, help="time of training of each variant (min)")
    parser.add_argument(
        "--steps", type=int, default=0, help="number of training steps, which then end a training early; 0 for no limit"
    )
    parser.add_argument("--spacing", type=float, default=4.0, help="voxel size (mm)")
    parser.add_argument(
        "--patients", type=int, default=200, help="patients for training, generated once and used by all variants"
    )
    parser.add_argument("--test-patients", type=int, default=10)
    parser.add_argument("--templates", help="folder of additional templates")
    parser.add_argument("--cache", help="folder that keeps the patients for the next run")
    parser.add_argument(
        "--only", metavar="WORD", help="only the variant of this name, or those that have this word in it"
    )
    parser.add_argument("--quick", action="store_true", help="two steps each on coarse voxels: only shows that it runs")
    options = parser.parse_args()
    if options.quick:
        options.minutes, options.steps, options.spacing, options.patients, options.test_patients = 0.5, 2, 8.0, 2, 2
    return options


if __name__ == "__main__":
    sys.exit(main())
