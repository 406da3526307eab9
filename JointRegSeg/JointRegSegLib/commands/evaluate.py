"""``jointregseg evaluate``: weights scored on a cohort."""

from __future__ import annotations

import itertools
import json
import sys
import warnings
from argparse import Namespace
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from NeuroCESTLib.batch.frame import FAILURE, SUCCESS, OutputFolder, one_line, settings_of
from NeuroCESTLib.core.progress import Progress, part, terminal_progress
from NeuroCESTLib.core.whole_files import write_errors, write_text, written_as
from NeuroCESTLib.report.record import Report

from ..inference.settings import NO_NETWORK, InferenceSettings
from ..multitask.shipped import SHIPPED, shipped_in_words, weights_file
from ..network.shipped import DEFAULT, in_words
from ..network.shipped import SHIPPED as JOINT
from .evaluate_tasks import PARTIAL, cases_in_words, evaluate_on_cohort, failures, move_into_partial
from .options import add_coregistration, add_device, add_labels, add_refinement, check_refinement, unused_refinement

if TYPE_CHECKING:
    from argparse import _SubParsersAction

    from NeuroCESTLib.batch.frame import CommandParser

    from ..cohort.studies import Cohort
    from ..evaluation.cases import Case
    from ..network.weights import LoadedWeights

_FAILURES = (ValueError, RuntimeError, OSError, MemoryError)
"""Errors that end the evaluation of one case, not that of the cohort."""


def add(commands: _SubParsersAction[CommandParser]) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser(
        "evaluate",
        help="score weights on a cohort: Dice, HD95 (mm), volumes (ml), landmarks (mm), Jacobian; weights of tasks on "
        "single studies against baselines without a network",
    )
    parser.add_argument("--manifest", required=True, metavar="COHORT.csv", help="studies, with labels or landmarks")
    parser.add_argument(
        "--weights",
        nargs="+",
        action="extend",
        metavar="W",
        help=f"weights to compare, each of which gives a row of the comparison: files, or names of the package, "
        f"{in_words(JOINT)} ('{DEFAULT}', the default, is the first), '{NO_NETWORK}' to register without a network; or "
        f"one file, or one name of weights of the package for a task on single studies, {shipped_in_words()}",
    )
    parser.add_argument("--output", required=True, metavar="DIR", help="folder for tables, pictures and report")
    parser.add_argument(
        "--split",
        choices=("all", "train", "val", "test"),
        help="studies to evaluate (default: test if the manifest has that split, else all)",
    )
    add_labels(parser, "in the manifest, where its column 'convention' says nothing")
    add_refinement(parser)
    add_coregistration(parser)
    parser.add_argument(
        "--overwrite",
        action="store_true",
        help=f"replace an earlier result even where cases fail (default: the new one then goes into DIR/{PARTIAL})",
    )
    parser.add_argument("--no-pictures", action="store_true", help="write tables only")
    add_device(parser)
    parser.set_defaults(command=run)


def run(options: Namespace) -> int:
    """Run ``jointregseg evaluate``."""
    from NeuroCESTLib.core.device import choose_device

    from ..evaluation.cases import cases_of
    from ..multitask.weights import is_study_weights

    check_refinement(options)
    options.weights = [str(weights_file(name)) if name in SHIPPED else name for name in options.weights or ()]
    if any(is_study_weights(name) for name in options.weights):
        return evaluate_on_cohort(options)
    device = str(choose_device(options.device))
    variants = _variants(options.weights or [DEFAULT])
    cohort = _cohort(options)
    cases = cases_of(cohort)
    report = Report("jointregseg evaluate", settings_of(options), device)
    report.warnings += unused_refinement(options)
    report.add_input("manifest", options.manifest)
    for name, weights in variants.items():
        if weights is not None and weights.path is not None:
            report.add_input(f"weights {name}", weights.path)
    settings = InferenceSettings(
        refine_iterations=options.refine,
        similarity=options.similarity,
        test_time_flips=not options.no_flips,
        coregister=not options.no_coregistration,
        device=device,
    )
    earlier = (Path(options.output) / "cases.csv").exists()
    with terminal_progress() as progress, OutputFolder(options.output) as folder:
        pictures = None if options.no_pictures else _Pictures(folder / "pictures", len(variants) > 1)
        rows: list[dict[str, Any]] = []
        count = len(variants) * len(cases)
        for number, (name, weights, case) in enumerate((n, w, c) for n, w in variants.items() for c in cases):
            with report.timed(name), warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                step = part(progress, number / count, (number + 1) / count)
                row = _evaluate(name, weights, case, settings, pictures, _named(step, f"{name}: {case.name}"))
                report.add_times({f"{name}: {case.name}": row.pop("seconds")} if "seconds" in row else {})
                rows.append(row)
            report.warnings += [f"{case.name}: {one_line(str(w.message))}" for w in caught if w.category is UserWarning]
        report.summary["labels"] = cohort.conventions()
        _write(rows, list(variants), folder, report)
        failed = [row for row in rows if "error" in row]
        keeps_earlier = bool(failed) and earlier and not options.overwrite
        if keeps_earlier:
            move_into_partial(folder)
    if failed:
        print(f"error: {failures(len(failed), len(rows), options.output, keeps_earlier)}", file=sys.stderr)
    return FAILURE if failed else SUCCESS


def _variants(names: list[str]) -> dict[str, LoadedWeights | None]:
    """Weights by names that tell them apart in the tables."""
    from ..network.shipped import weights_path
    from ..network.weights import load_weights

    loaded: dict[str, LoadedWeights | None] = {}
    for name in dict.fromkeys(names):
        if name == NO_NETWORK:
            loaded["no network"] = None
            continue
        path = weights_path(name)
        title = path.stem if path.stem not in (*loaded, "weights", "best") else path.absolute().parent.name
        loaded[title if title not in loaded else str(path)] = load_weights(path)
    return loaded


def _cohort(options: Namespace) -> Cohort:
    """Studies of the chosen split."""
    from ..cohort.manifest import read_manifest

    cohort = read_manifest(options.manifest).with_convention(options.labels)
    split = options.split or ("test" if any(study.split == "test" for study in cohort.studies) else "all")
    return cohort if split == "all" else cohort.of_split(split)


@dataclass(frozen=True)
class _Pictures:
    """Place of the pictures of the cases; those of several weights lie in a folder each.

    Names that differ only in characters that file systems may refuse are numbered.
    """

    folder: Path
    several_weights: bool
    taken: dict[str, tuple[str, str]] = field(default_factory=dict)

    def path(self, weights: str, case: str) -> Path:
        place = self.folder / self._free("", weights) if self.several_weights else self.folder
        path = place / f"{self._free(weights, case)}.png"
        with write_errors(path):
            place.mkdir(parents=True, exist_ok=True)
        return path

    def _free(self, within: str, text: str) -> str:
        """File name for a text that no other text within the same folder has."""
        plain = _file_name(text)
        names = itertools.chain([plain], (f"{plain}_{number}" for number in itertools.count(2)))
        own = (within, text)
        return next(n for n in names if self.taken.setdefault(f"{within}/{n.lower()}", own) == own)


def _evaluate(
    name: str,
    weights: LoadedWeights | None,
    case: Case,
    settings: InferenceSettings,
    pictures: _Pictures | None,
    progress: Progress,
) -> dict[str, Any]:
    """Row of one case; a failure becomes its 'error', so that the other cases are evaluated.

    A picture that cannot be written ends the command: the tables could not be written either.
    """
    from ..evaluation.cases import evaluate_case
    from ..pictures.cases import draw_cases

    progress(0.0)
    try:
        row, picture = evaluate_case(case, weights, settings, progress, pictures is not None)
    except _FAILURES as error:
        print(f"error: {case.name} ({name}): {one_line(str(error))}", file=sys.stderr)
        picture = None
        row = {
            "case": case.name,
            "subject": case.fixed.subject,
            "fixed_visit": case.fixed.visit,
            "moving_visit": case.moving.visit if case.moving is not None else "",
            "error": one_line(str(error)),
        }
    if picture is not None and pictures is not None:
        draw_cases([picture], pictures.path(name, case.name), f"{case.name}, {name}")
    return {"weights": name, **row}


def _named(progress: Progress, title: str) -> Progress:
    """Progress whose messages start with a title."""

    def report(fraction: float, message: str = "") -> None:
        progress(fraction, f"{title}: {message}" if message else title)

    return report


def _write(rows: list[dict[str, Any]], names: list[str], folder: Path, report: Report) -> None:
    """Write cases.csv, summary.csv, summary.json, variants.csv, overview.png and report.json."""
    from NeuroCESTLib.core.whole_files import write_rows

    from ..evaluation.overview import draw_overview
    from ..evaluation.summary import summarize

    good = {name: [row for row in rows if row["weights"] == name and "error" not in row] for name in names}
    summary = {name: summarize(some) for name, some in good.items()}
    table = [{"weights": n, "metric": m, **numbers} for n, found in summary.items() for m, numbers in found.items()]
    write_rows(rows, folder / "cases.csv")
    write_rows(table, folder / "summary.csv")
    write_rows(
        [{"weights": n, "cases": len(good[n]), **{m: v["mean"] for m, v in s.items()}} for n, s in summary.items()],
        folder / "variants.csv",
    )
    failed = [
        {key: written_as.get()(row[key]) for key in ("weights", "case", "error")} for row in rows if "error" in row
    ]
    write_text(json.dumps({"variants": summary, "failed": failed}, indent=2) + "\n", folder / "summary.json")
    cases = len({row["case"] for row in rows})
    draw_overview(good, folder / "overview.png", cases_in_words(cases))
    report.summary |= {"cases": cases, "failed": failed, "variants": summary}
    report.write(folder)


def _file_name(text: str) -> str:
    """Text with the characters replaced that file systems may refuse."""
    return "".join(letter if letter.isalnum() or letter in "-._" else "_" for letter in text) or "case"
