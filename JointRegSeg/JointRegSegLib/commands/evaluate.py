"""The command ``jointregseg evaluate``."""

from __future__ import annotations

import json
import sys
import warnings
from argparse import Namespace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from NeuroCESTLib.batch.frame import FAILURE, SUCCESS, OutputFolder, one_line, settings_of
from NeuroCESTLib.core.progress import Progress, part, terminal_progress
from NeuroCESTLib.core.whole_files import write_text
from NeuroCESTLib.report.record import Report

if TYPE_CHECKING:
    from ..cohort.manifest import Cohort
    from ..evaluation.cases import Case
    from ..network.weights import LoadedWeights

NO_WEIGHTS = "none"
SHIPPED = "default"
_FAILURES = (ValueError, RuntimeError, OSError, MemoryError)


def add_evaluate(commands) -> None:
    parser = commands.add_parser(
        "evaluate", help="score weights on a cohort: Dice, HD95 (mm), volumes (ml), landmarks (mm), Jacobian"
    )
    parser.add_argument("--manifest", required=True, metavar="COHORT.csv", help="studies, with labels or landmarks")
    parser.add_argument(
        "--weights",
        nargs="+",
        action="extend",
        metavar="W",
        help=f"weights files, each a row of the comparison; '{SHIPPED}' for those that come along, '{NO_WEIGHTS}' to "
        "register without a network",
    )
    parser.add_argument("--output", required=True, metavar="DIR", help="folder for tables, pictures and report")
    parser.add_argument(
        "--split", choices=("all", "train", "val", "test"), help="studies to take; test where there are any, else all"
    )
    parser.add_argument("--refine", type=int, metavar="N", help="iterations of the instance optimisation, 0 for none")
    parser.add_argument("--no-flips", action="store_true", help="segment without test-time variants: faster, coarser")
    parser.add_argument("--no-pictures", action="store_true", help="tables only")
    parser.add_argument(
        "--device", choices=("auto", "cpu", "cuda"), default="auto", help="auto: CUDA if there is one (default)"
    )
    parser.set_defaults(command=evaluate_command)


def evaluate_command(options: Namespace) -> int:
    """``jointregseg evaluate``."""
    from NeuroCESTLib.core.device import choose_device

    from ..evaluation.cases import cases_of

    device = str(choose_device(options.device))
    variants = _variants(options.weights or [SHIPPED])
    cohort = _cohort(options)
    cases = cases_of(cohort)
    report = Report("jointregseg evaluate", settings_of(options), device)
    report.add_input("manifest", options.manifest)
    for name, weights in variants.items():
        if weights is not None and weights.path is not None:
            report.add_input(f"weights {name}", weights.path)
    with terminal_progress() as progress, OutputFolder(options.output) as folder:
        rows: list[dict[str, Any]] = []
        count = len(variants) * len(cases)
        for number, (name, weights, case) in enumerate((n, w, c) for n, w in variants.items() for c in cases):
            with report.timed(name), warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                step = part(progress, number / count, (number + 1) / count)
                rows.append(_case(name, weights, case, options, device, folder, len(variants) > 1, step))
            report.warnings += [f"{case.name}: {one_line(str(w.message))}" for w in caught if w.category is UserWarning]
        _write(rows, list(variants), folder, report)
    failed = [row for row in rows if "error" in row]
    if failed:
        print(
            f"error: {len(failed)} of {_cases(len(rows))} failed, see '{Path(options.output) / 'cases.csv'}'",
            file=sys.stderr,
        )
    return FAILURE if failed else SUCCESS


def _variants(names: list[str]) -> dict[str, LoadedWeights | None]:
    """Weights by a name that tells them apart."""
    from ..network.weights import default_weights_path, load_weights

    loaded: dict[str, LoadedWeights | None] = {}
    for name in dict.fromkeys(names):
        if name == NO_WEIGHTS:
            loaded["no network"] = None
            continue
        path = default_weights_path() if name == SHIPPED else Path(name)
        title = path.stem if path.stem not in (*loaded, "weights", "best") else f"{path.absolute().parent.name}"
        loaded[title if title not in loaded else str(path)] = load_weights(path)
    return loaded


def _cohort(options: Namespace) -> Cohort:
    """The studies to evaluate; with --split as asked for."""
    from ..cohort.manifest import read_manifest

    cohort = read_manifest(options.manifest)
    split = options.split or ("test" if any(study.split == "test" for study in cohort.studies) else "all")
    return cohort if split == "all" else cohort.of_split(split)


def _case(
    name: str,
    weights: LoadedWeights | None,
    case: Case,
    options: Namespace,
    device: str,
    folder: Path,
    several: bool,
    progress: Progress,
) -> dict[str, Any]:
    """The row of a case; what goes wrong becomes its 'error', and the rest goes on."""
    from ..evaluation.cases import evaluate_case
    from ..inference.settings import InferenceSettings
    from ..pictures.cases import draw_cases

    settings = InferenceSettings(refine_iterations=options.refine, test_time_flips=not options.no_flips, device=device)
    step = _named(progress, f"{name}: {case.name}")
    step(0.0)
    try:
        row, picture = evaluate_case(case, weights, settings, step, not options.no_pictures)
        if picture is not None:
            place = folder / "pictures" / (_file_name(name) if several else "")
            place.mkdir(parents=True, exist_ok=True)
            draw_cases([picture], place / f"{_file_name(case.name)}.png", f"{case.name}, {name}")
    except _FAILURES as error:
        print(f"error: {case.name} ({name}): {one_line(str(error))}", file=sys.stderr)
        moving = case.moving.visit if case.moving is not None else ""
        row = {
            "case": case.name,
            "subject": case.fixed.subject,
            "fixed_visit": case.fixed.visit,
            "moving_visit": moving,
            "error": one_line(str(error)),
        }
    return {"weights": name, **row}


def _named(progress: Progress, title: str) -> Progress:
    """Progress whose messages begin with a title."""

    def report(fraction: float, message: str = "") -> None:
        progress(fraction, f"{title}: {message}" if message else title)

    return report


def _write(rows: list[dict[str, Any]], names: list[str], folder: Path, report: Report) -> None:
    """cases.csv, summary.csv, summary.json, variants.csv, overview.png and report.json."""
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
    failed = [{key: row[key] for key in ("weights", "case", "error")} for row in rows if "error" in row]
    write_text(json.dumps({"variants": summary, "failed": failed}, indent=2) + "\n", folder / "summary.json")
    cases = len({row["case"] for row in rows})
    draw_overview(good, folder / "overview.png", _cases(cases))
    report.summary |= {"cases": cases, "failed": failed, "variants": summary}
    report.write(folder)


def _cases(count: int) -> str:
    return "1 case" if count == 1 else f"{count} cases"


def _file_name(text: str) -> str:
    """``text`` with what file systems do not like replaced."""
    return "".join(letter if letter.isalnum() or letter in "-._" else "_" for letter in text) or "case"
