"""A synthetic cohort: patients with two visits, CEST acquisitions on their own anatomy, and the true values.

Anatomy, tumour and deformation come from ``jointregseg synthesize``, the CEST acquisitions from ``cestquant phantom``.
"""

from __future__ import annotations

import csv
import json
import random
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from NeuroCESTLib.core.messages.input_errors import InputError
from NeuroCESTLib.core.progress import Progress, silent
from NeuroCESTLib.core.whole_files import write_csv, write_rows, write_text

from .programs import options, run_program

VISITS = ("visit1", "visit2")
MODALITIES = ("t1", "t1ce", "t2", "flair")
GROUPS = ("responder", "progressive")
SEEDS = (0, 18, 19, 24, 35, 36, 15, 51)
"""Seeds of patients whose tumours have necrotic, enhancing and oedematous parts of several ml at both visits."""

Values = dict[str, dict[str, float]]
"""Tissue values by region and path."""

_USUAL = {"enhancing_tumor": 1.8e-3, "edema": 0.7e-3, "necrotic_core": 0.6e-3}
"""Usual amide fraction."""
_SEMISOLID = {"enhancing_tumor": 0.045, "edema": 0.04, "necrotic_core": 0.015}
_SETTINGS = {"method": "r1rho", "model": "model.json"}
_KNOWN = {"registration": ["--labels", "brats2023", "--weights", "none", "--refine", "20"]}
"""With known segmentations the network has nothing to do, and a short refinement is enough to try things out."""
_CHANGE = {"responder": (0.70, 0.85), "progressive": (1.15, 1.35)}
"""Range of the factor by which the amide fraction of enhancing tumour changes from the first visit to the second."""


@dataclass(frozen=True)
class DemoSettings:
    """What a synthetic cohort is like.

    Attributes:
        patients: Number of patients.
        seed: Seed of tissue values, noise and misalignment; the anatomies are always the same.
        spacing_mm: Voxel size of the structural images in mm.
        voxel_mm: In-plane voxel size of the CEST images in mm.
        slices: Number of CEST slices, each 5 mm thick.
        noise_sd: Noise of the CEST images relative to M0 of white matter.
        known_segmentation: Whether the manifest names the known segmentations, as if an expert had drawn them.

    Raises:
        ValueError: A number is impossible.
    """

    patients: int = 4
    seed: int = 0
    spacing_mm: float = 2.0
    voxel_mm: float = 3.0
    slices: int = 3
    noise_sd: float = 0.002
    known_segmentation: bool = True

    def __post_init__(self) -> None:
        if not 1 <= self.patients <= len(SEEDS):
            raise InputError(
                "patients", f"the number of patients is {self.patients}, but must lie between 1 and {len(SEEDS)}"
            )
        if self.seed < 0:
            raise InputError("seed", f"the seed is {self.seed}, but must be at least 0")


def write_demo_cohort(folder: Path, settings: DemoSettings, progress: Progress = silent) -> Path:
    """Make a cohort and write it into a folder.

    The folder then holds ``COHORT.csv``, ``settings.json`` for ``neurocest run``, ``truth.csv`` (true value of every
    quantity in every region of the slab) and a folder per patient.

    Args:
        folder: Folder to write into; it exists.
        settings: What the cohort is like.
        progress: Called with the fraction done and a message; may raise to cancel.

    Returns:
        The manifest.

    Raises:
        ValueError: A command refused its input, for example because the anatomical template is missing.
    """
    rows: list[Mapping[str, object]] = []
    truth: list[Mapping[str, object]] = []
    for number in range(settings.patients):
        subject, group = f"patient{number + 1:02d}", GROUPS[number % 2]
        done = number / settings.patients
        progress(done, f"{subject}: anatomy")
        _synthesize(folder, subject, SEEDS[number], settings.spacing_mm)
        for index, (visit, values) in enumerate(zip(VISITS, tissue_values(settings.seed, number, group), strict=True)):
            progress(done + (index + 1) / 3 / settings.patients, f"{subject}: CEST of {visit}")
            study = f"{subject}/{visit}"
            _acquire(folder, study, values, 1000 * settings.seed + 2 * number + index + 1, settings)
            rows.append(_manifest_row(subject, visit, group, settings.known_segmentation))
            table = _rows(folder / f"{study}_cest" / "truth.csv")
            truth += [{"subject": subject, "visit": visit, **row} for row in table]
    write_rows(truth, folder / "truth.csv")
    shutil.copy(folder / "patient01" / "visit1_cest" / "model.json", folder / "model.json")
    write_text(
        json.dumps({**_SETTINGS, **(_KNOWN if settings.known_segmentation else {})}, indent=1) + "\n",
        folder / "settings.json",
    )
    return write_csv(list(rows[0]), [list(row.values()) for row in rows], folder / "COHORT.csv")


def _synthesize(folder: Path, subject: str, seed: int, spacing_mm: float) -> None:
    """Make the anatomy of a patient at both visits, ``folder/subject``."""
    made = folder / f".{subject}"
    arguments = options({"--output": made.name, "--seed": seed, "--spacing": spacing_mm})
    run_program("jointregseg", "synthesize", "--regions", *arguments, cwd=folder)
    (made / f"synthetic{seed:06d}").rename(folder / subject)
    shutil.rmtree(made)


def tissue_values(seed: int, number: int, group: str) -> tuple[Values, Values]:
    """Draw the tissue values of a patient.

    Args:
        seed: Seed of the cohort.
        number: Number of the patient, from 0.
        group: A name of ``GROUPS``; it says whether the amide fraction of the enhancing tumour falls or rises.

    Returns:
        The values at the first and at the second visit.
    """
    draw = random.Random(f"{seed} {number}")
    first: Values = {}
    second: Values = {}
    for region, amide in _USUAL.items():
        amide *= draw.uniform(0.85, 1.2)
        semisolid = _SEMISOLID[region] * draw.uniform(0.9, 1.1)
        change = draw.uniform(*_CHANGE[group]) if region == "enhancing_tumor" else draw.uniform(0.92, 1.08)
        first[region] = {"amide.fraction": amide, "semisolid.fraction": semisolid}
        second[region] = {"amide.fraction": amide * change, "semisolid.fraction": semisolid * draw.uniform(0.93, 1.07)}
    return first, second


def _acquire(folder: Path, study: str, values: Values, seed: int, settings: DemoSettings) -> None:
    """Simulate the CEST acquisition of a visit; its header is off by 1.5 degrees and 2 mm."""
    write_text(json.dumps(values, indent=1), folder / f"{study}_values.json")
    arguments = options(
        {
            "--regions": f"{study}_regions.nii.gz",
            "--values": f"{study}_values.json",
            "--seed": seed,
            "--noise": settings.noise_sd,
            "--voxel-size": settings.voxel_mm,
            "--slices": settings.slices,
            "--misalignment": (1.5, 2.0),
            "--output": f"{study}_cest",
        }
    )
    run_program("cestquant", "phantom", *arguments, cwd=folder)


def _manifest_row(subject: str, visit: str, group: str, known_segmentation: bool) -> dict[str, object]:
    """A line of the manifest, with paths relative to it."""
    files = {modality: f"{subject}/{visit}_{modality}.nii.gz" for modality in MODALITIES}
    cest = f"{subject}/{visit}_cest"
    images = {"m0": "m0", "cest_mask": "mask", "b0": "b0", "b1": "b1", "t1_map": "t1"}
    return {
        "subject": subject,
        "visit": visit,
        "group": group,
        **files,
        "brain_mask": f"{subject}/{visit}_mask.nii.gz",
        **({"segmentation": f"{subject}/{visit}_seg.nii.gz"} if known_segmentation else {}),
        "cest": f"{cest}/signal.seq.nrrd",
        "protocol": f"{cest}/protocol.json",
        **{column: f"{cest}/{name}.nii.gz" for column, name in images.items()},
    }


def _rows(path: Path) -> list[dict[str, str]]:
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))
