"""Trial of the verdicts on right and wrong pairs of visits: how many wrong ones are flagged, at how many false alarms.

The right pairs are two visits of a synthetic patient. The wrong ones are made from them on purpose: visits of two
patients, a visit whose left and right are exchanged, half a brain, exchanged contrasts, and labels of another
convention. With ``--scans``, real patients are judged in the same way; their second visit is the first one after a
smooth deformation, with another contrast, bias field and noise.

The limits of the verdicts may be chosen on every other patient alone, and are judged on the rest; the report has both
halves. The table is written after each patient, and a run that finds it goes on with the next one. It may hold the
pairs of several runs: the report is on the patients that are asked for.
"""

from __future__ import annotations

import argparse
import csv
import sys
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
import torch

from JointRegSegLib.images.grid import WorkingGrid
from JointRegSegLib.images.modalities import MODALITIES
from JointRegSegLib.images.study import StudyImages
from JointRegSegLib.inference.pipeline import process_pair
from JointRegSegLib.inference.settings import InferenceSettings
from JointRegSegLib.quality.registration_signs import PairQuality
from JointRegSegLib.quality.verdict import GOOD, RULES
from JointRegSegLib.registration.deformation import integrate_velocity, resize_displacement, warp
from JointRegSegLib.registration.separable import smooth
from JointRegSegLib.synthesis.patient import synthetic_patient
from JointRegSegLib.synthesis.templates import load_templates
from NeuroCESTLib.core.whole_files import write_csv

SPACING_MM = 2.0
_WORKING_MM = 4.0
"""Voxel size of the registration, which is that of the signs of quality."""
_LIMIT_FLAGGED, _LIMIT_ALARMS = 0.95, 0.05
_CONTRASTS = (("t1", "t2"), ("t2", "flair"), ("t1", "flair"), ("t1ce", "t2"))
_CONVENTIONS = {
    "MSD, whose 1 is oedema and 2 core": (0, 2, 1, 3),
    "HD-GLIO, whose 1 is oedema and core and 2 enhances": (0, 1, 1, 2),
    "core and enhancing tumour exchanged": (0, 3, 2, 1),
}


@dataclass(frozen=True)
class Visit:
    """A visit: images (modality, D, H, W), classes and brain (D, H, W)."""

    images: torch.Tensor
    labels: torch.Tensor
    brain: torch.Tensor

    def study(self, name: str) -> StudyImages:
        """Return the visit as a study, with its brain mask and tumour."""
        depth, height, width = self.brain.shape
        grid = WorkingGrid((depth, height, width), SPACING_MM, (0.0, 0.0, 0.0))
        images = {m: grid.to_sitk(image.float()) for m, image in zip(MODALITIES, self.images, strict=True)}
        mask = grid.to_sitk(self.brain.to(torch.uint8))
        return StudyImages(images, mask, grid.to_sitk(self.labels.to(torch.uint8)), name)

    def mirrored(self) -> Visit:
        return Visit(self.images.flip(-1), self.labels.flip(-1), self.brain.flip(-1))

    def halved(self, axis: int) -> Visit:
        """Remove one half of the brain along an axis."""
        used = torch.nonzero(self.brain)[:, axis]
        middle = int((used.min() + used.max()) // 2)
        kept = torch.arange(self.brain.shape[axis]).view([-1 if a == axis else 1 for a in range(3)]) <= middle
        return Visit(self.images * kept, self.labels * kept, self.brain & kept)

    def exchanged(self, one: str, other: str) -> Visit:
        order = list(range(len(MODALITIES)))
        a, b = MODALITIES.index(one), MODALITIES.index(other)
        order[a], order[b] = b, a
        return replace(self, images=self.images[order])

    def relabelled(self, table: tuple[int, ...]) -> Visit:
        return replace(self, labels=torch.tensor(table)[self.labels.long()])


@dataclass(frozen=True)
class Patient:
    """A patient with two visits, and another patient's second visit."""

    name: str
    first: Visit
    second: Visit
    stranger: Visit


def synthetic_patients(wanted: list[int], first_seed: int, count: int) -> Iterator[tuple[int, Patient]]:
    """Make synthetic patients, one after the other."""
    templates = [template.at(SPACING_MM) for template in load_templates(None)]

    def visits(number: int) -> tuple[Visit, Visit]:
        patient = synthetic_patient(templates, first_seed + number % count, SPACING_MM)
        first, second = (Visit(v.images, v.labels, v.mask) for v in (patient.fixed, patient.moving))
        return first, second

    for number in wanted:
        yield number, Patient(f"synthetic {first_seed + number}", *visits(number), visits(number + 1)[1])


def real_patients(wanted: list[int], folders: list[Path]) -> Iterator[tuple[int, Patient]]:
    """Read patients from folders with one file a modality, and make a second visit of each."""
    for number in wanted:
        other = (number + 1) % len(folders)
        first = _read_visit(folders[number])
        stranger = _later(_read_visit(folders[other]), other)
        yield number, Patient(folders[number].name, first, _later(first, number), stranger)


def _read_visit(folder: Path) -> Visit:
    """Read a visit at 2 mm."""
    files = {m: next(folder.glob(f"*_{m}.nii*")) for m in (*MODALITIES, "seg")}
    images = torch.stack([_read(files[m]) for m in MODALITIES])
    images = torch.nn.functional.avg_pool3d(images[None], 2)[0]
    labels = _read(files["seg"])[::2, ::2, ::2][tuple(slice(n) for n in images.shape[1:])]
    labels = torch.where(labels == 4, 3, labels).to(torch.uint8)
    return Visit(images, labels, (images > 0).any(0))


def _read(path: Path) -> torch.Tensor:
    return torch.from_numpy(
        sitk.GetArrayFromImage(sitk.DICOMOrient(sitk.ReadImage(str(path), sitk.sitkFloat32), "RAS"))
    )


def _later(visit: Visit, seed: int) -> Visit:
    """Deform a visit smoothly by some millimetres and change its contrast, bias field and noise."""
    generator = torch.Generator().manual_seed(seed)
    coarse = [n // 4 for n in visit.brain.shape]
    velocity = smooth(torch.randn((1, 3, *coarse), generator=generator), 3.0)
    velocity *= 0.4 / velocity.std()
    displacement = resize_displacement(integrate_velocity(velocity), visit.brain.shape)
    displacement += 4 * torch.randn((1, 3, 1, 1, 1), generator=generator)
    images = warp(visit.images[None], displacement)[0]
    brain, labels = (
        warp(mask[None, None].to(torch.uint8), displacement, "nearest", "zeros")[0, 0]
        for mask in (visit.brain, visit.labels)
    )
    top = images.flatten(1).quantile(0.99, dim=1) if images[0].numel() < 2**23 else images.flatten(1).amax(1)
    top = top.view(-1, 1, 1, 1).clamp_min(1e-6)
    power = 1 + 0.15 * torch.randn((len(images), 1, 1, 1), generator=generator)
    bias = 1 + 0.1 * resize_displacement(smooth(torch.randn((1, 3, *coarse), generator=generator), 4.0), brain.shape)[
        0, :1
    ].clamp(-2, 2)
    noise = 0.03 * torch.randn(images.shape, generator=generator)
    images = ((images / top).clamp_min(0) ** power * bias + noise) * top
    return Visit(images * (brain > 0), labels, brain > 0)


def trial(patient: Patient, number: int) -> Iterator[tuple[str, str, Visit, Visit]]:
    """Yield the kind, the variant and the visits of every right and wrong pair of a patient."""
    first, second = patient.first, patient.second
    yield "right", "", first, second
    yield "another patient", "", first, patient.stranger
    yield "mirrored", "", first, second.mirrored()
    axis = number % 3
    yield "half a brain", ("upper", "front", "right")[axis], first, second.halved(axis)
    contrasts = _CONTRASTS[number % len(_CONTRASTS)]
    yield "exchanged contrasts", " and ".join(contrasts), first, second.exchanged(*contrasts)
    for name, table in _CONVENTIONS.items():
        yield "label convention", name, first.relabelled(table), second


def judge(kind: str, first: Visit, second: Visit) -> dict[str, Any]:
    """Return the verdict on a pair and its signs; a pair that is refused counts as failed."""
    settings = InferenceSettings(spacing_mm=_WORKING_MM, coregister=False)  # the images of a visit are aligned
    if kind == "label convention":  # concerns the labels alone
        settings = replace(settings, affine="none", refine_iterations=0)
    try:
        summary = process_pair(first.study("fixed"), second.study("moving"), None, settings).summary
    except ValueError as error:
        return {"kind": kind, "verdict": "failed", "reasons": str(error)}
    known = {name: value for name, value in summary["quality"].items() if name in PairQuality.__dataclass_fields__}
    quality = PairQuality(**known)
    verdict = summary["segmentation_verdict"] if kind == "label convention" else summary
    signs = {name: rule.value(quality) for name, rule in RULES.items()}
    return {"kind": kind, "verdict": verdict["verdict"], "reasons": "; ".join(verdict["reasons"]), **signs}


def report(rows: list[dict[str, Any]], title: str) -> bool:
    """Print the table of a trial; return whether the targets are met."""
    by_kind = defaultdict(list)
    for row in rows:
        by_kind[row["kind"]].append(row)
    print(f"\n## {title}\n\n| pairs | number | good | check | failed |\n| --- | --- | --- | --- | --- |")
    for kind, found in by_kind.items():
        counts = [sum(row["verdict"] == level for row in found) for level in (GOOD, "check", "failed")]
        print(f"| {kind} | {len(found)} | {' | '.join(map(str, counts))} |")
    print("\n| sign | limit | right: median, highest | wrong: median, highest |\n| --- | --- | --- | --- |")
    for name, rule in RULES.items():
        cells = []
        for right in (True, False):
            values = [float(r[name]) for r in rows if (r["kind"] == "right") == right and r.get(name) not in (None, "")]
            cells.append(f"{np.median(values):.3f}, {max(values):.3f}" if values else "none")
        print(f"| {name} | {rule.check:g} | {' | '.join(cells)} |")
    wrong = [row for row in rows if row["kind"] != "right"]
    right = by_kind["right"]
    found, alarms = (sum(row["verdict"] != GOOD for row in some) for some in (wrong, right))
    print(f"\nflagged {found} of {len(wrong)} wrong pairs, false alarms in {alarms} of {len(right)} right ones")
    return found >= _LIMIT_FLAGGED * len(wrong) and alarms <= _LIMIT_ALARMS * len(right)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--patients", type=int, default=10, help="number of patients")
    parser.add_argument("--seed", type=int, default=500, help="seed of the first synthetic patient")
    parser.add_argument("--scans", type=Path, metavar="DIR", help="folder of real patients, judged instead")
    parser.add_argument("--kinds", nargs="+", help="only these kinds of pairs")
    parser.add_argument("--most", type=int, help="number of patients after which this run ends; the next goes on")
    parser.add_argument(
        "--output",
        type=Path,
        default=Path("verdict_trial.csv"),
        help="table of all pairs; pairs that it holds already are not judged again",
    )
    arguments = parser.parse_args()
    rows = _known(arguments.output)
    if arguments.scans:
        folders = sorted(p for p in arguments.scans.iterdir() if p.is_dir())[: arguments.patients]
        names, title = [folder.name for folder in folders], f"Real patients of {arguments.scans.name}"
    else:
        names = [f"synthetic {arguments.seed + number}" for number in range(arguments.patients)]
        title = "Synthetic patients"
    done = {row["patient"] for row in rows if row["kind"] == "label convention"}  # the last kind of a patient
    wanted = [number for number, name in enumerate(names) if name not in done][: arguments.most]
    rows = [row for row in rows if row["patient"] in done]
    if arguments.scans:
        patients = real_patients(wanted, folders)
    else:
        patients = synthetic_patients(wanted, arguments.seed, arguments.patients)
    for number, patient in patients:
        for kind, variant, first, second in trial(patient, number):
            if arguments.kinds and kind not in arguments.kinds:
                continue
            half = "judged" if number % 2 else "chosen"
            found = judge(kind, first, second)
            rows.append({"patient": patient.name, "half": half, "variant": variant, **found})
            print(
                f"{patient.name}, {kind} {variant}: {found['verdict']} {found['reasons']}", file=sys.stderr, flush=True
            )
        write_csv(_COLUMNS, ([row.get(column) for column in _COLUMNS] for row in rows), arguments.output)
    rows = [row for row in rows if row["patient"] in names]
    for half, note in (("chosen", "limits may be chosen on them"), ("judged", "the limits are judged on them")):
        report([row for row in rows if row["half"] == half], f"{title}, one half: {note}")
    return 0 if report(rows, f"{title}, all") else 1


_COLUMNS = ("patient", "half", "kind", "variant", "verdict", "reasons", *RULES)


def _known(path: Path) -> list[dict[str, Any]]:
    """Return the rows of an earlier run."""
    if not path.exists():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


if __name__ == "__main__":
    sys.exit(main())
