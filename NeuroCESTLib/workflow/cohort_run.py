"""A run of a cohort, from manifest and settings to table and page."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

from NeuroCESTLib.core.output.inputs import add_input_of_run, require_inputs_kept
from NeuroCESTLib.core.whole_files import is_anonymous, whole_file, write_errors, write_text

from .engine import (
    INTERRUPTED,
    PLAN,
    STATE,
    engine_command,
    engine_environment,
    forcing,
    only_run,
    profile_folder,
    require_engine,
    run_engine,
    states_of_logs,
    targets_of,
)
from .kept_files import require_files_kept
from .manifest import read_cohort
from .plan import Job, Plan, program_of
from .programs import check_program
from .record import folders_to_redo, update_record
from .results.collection import attributes_of, collect, write_tables
from .results.comparisons import groups_of
from .results.failures import NOT_DONE
from .results.page import write_cohort_page
from .results.rows import MEAN
from .settings import Settings, read_settings
from .visits import CohortManifest, Visit

Read = TypeVar("Read")
_RESULTS = ("cohort.csv", "changes.csv", "comparison.csv", "report.html")
_GRAPHVIZ = (".svg", ".pdf", ".png")
_CLOCK_SKEW_S = 3.0
"""By how much the clocks of a network may differ; no stage is done sooner."""
_ENGINE_FAILED = "not done: Snakemake failed before any stage was started, see its messages"


@dataclass(frozen=True)
class RunOptions:
    """How a cohort is run.

    Attributes:
        settings: File with the settings; None for the defaults.
        cores: Cores of this machine to use; None for all, or what the profile says.
        profile: Profile of Snakemake for a cluster; None for this machine.
        compare: Column of the manifest whose groups are compared; None for none.
        statistic: Statistic that is compared and drawn, see ``rows.STATISTICS``.
        dry_run: Only list what would be done.
        dag: File for the graph of jobs, which is drawn instead of running them; None for none.
        engine: Further arguments of Snakemake.
    """

    settings: str | None = None
    cores: int | None = None
    profile: str | None = None
    compare: str | None = None
    statistic: str = MEAN
    dry_run: bool = False
    dag: str | None = None
    engine: tuple[str, ...] = ()


def run_cohort(manifest: str, output: str, options: RunOptions) -> int:
    """Run a cohort.

    Args:
        manifest: CSV file, see ``manifest.read_cohort``.
        output: Folder for the results.
        options: How to run.

    Returns:
        Exit status: 0 if every subject has its results, otherwise 1.

    Raises:
        ValueError: The manifest or the settings have mistakes, a command would refuse its arguments, Snakemake is
            missing, or the folder is in use or holds files of the user that would be removed.
    """
    for path in (manifest, options.settings):
        if path is not None:
            add_input_of_run(path)
    cohort, settings = _read_both(manifest, options.settings)
    _require_column(options.compare, cohort.attributes, cohort.source)
    require_engine()
    arguments = _arguments(options)
    plan = Plan.of(cohort, replace(settings, anonymous=is_anonymous()))
    groups_of(plan, options.compare)
    stages = [
        (stage, visit, plan.job(stage, visit.subject, visit.name))
        for subject in plan.visits
        for stage, visit in plan.stages(subject)
    ]
    jobs = [job for _, _, job in stages]
    _require_usable_arguments(stages, output, [file for file in (manifest, options.settings) if file])
    _require_no_braces(jobs)
    _require_past_times(jobs)
    folder = Path(output)
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"'{folder}' is a file: choose a folder for the results")
    require_files_kept(folder, plan)
    if options.dry_run or options.dag:
        return _look(plan, folder, arguments, options)
    require_inputs_kept(folder, lambda place: str(place) in _RESULTS)
    with write_errors(folder / "results"):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / STATE).mkdir(exist_ok=True)
    with only_run(folder) as lock:
        file = folder / PLAN
        update_record(folder, _earlier_plan(file))
        plan.write(file)
        before = states_of_logs(folder)
        forced = forcing(arguments, folders_to_redo(folder, plan, targets_of(options.engine)))
        status = run_engine(folder, file, [*forced, "--keep-going", "--rerun-incomplete"], lock)
        has_failed = status not in (0, INTERRUPTED) and states_of_logs(folder) == before
        not_done = _ENGINE_FAILED if has_failed else NOT_DONE
        failed = summarize_cohort(output, options.compare, options.statistic, not_done, status == INTERRUPTED)
    if status and not failed:
        print("error: Snakemake has failed, though every subject has its results: see its messages", file=sys.stderr)
    return 1 if status or failed else 0


def summarize_cohort(
    output: str, compare: str | None, statistic: str = MEAN, not_done: str = NOT_DONE, interrupted: bool = False
) -> int:
    """Write table, comparison and page of a cohort from the results that there are.

    Args:
        output: Output folder of ``run_cohort``.
        compare: Column of the manifest whose groups are compared; None for none.
        statistic: Statistic that is compared and drawn, see ``rows.STATISTICS``.
        not_done: What is said of results that are missing although no stage has failed.
        interrupted: Whether the user has stopped the run.

    Returns:
        1 if a subject has no result, otherwise 0.

    Raises:
        ValueError: The folder holds no run, or its manifest has no such column.
    """
    folder = Path(output)
    file = folder / PLAN
    if not file.is_file():
        raise ValueError(f"'{folder}' is no output folder of 'neurocest run'")
    plan = Plan.read(file)
    _require_column(compare, attributes_of(plan), str(file))
    groups_of(plan, compare)
    update_record(folder, plan)
    results = collect(folder, plan, compare, statistic, not_done, interrupted)
    write_tables(folder, plan, results)
    write_cohort_page(folder, plan, results, compare)
    for warning in results.warnings:
        print(f"warning: {warning}", file=sys.stderr)
    for failure in results.failures:
        print(f"failed: {failure.subject} {failure.visit}: {failure.sentence}", file=sys.stderr)
    print(f"{folder / 'cohort.csv'} and {folder / 'report.html'} written", file=sys.stderr)
    return 1 if results.failures else 0


def _earlier_plan(file: Path) -> Plan | None:
    """The plan of the run before; None where there was none, or one of another version."""
    try:
        return Plan.read(file) if file.is_file() else None
    except ValueError:
        return None


def _read_both(manifest: str, settings: str | None) -> tuple[CohortManifest, Settings]:
    """Read manifest and settings; the mistakes of both are told at once."""
    problems: list[str] = []

    def attempt(read: Callable[[], Read]) -> Read | None:
        try:
            return read()
        except ValueError as error:
            problems.append(str(error))
            return None

    cohort, values = attempt(lambda: read_cohort(manifest)), attempt(lambda: read_settings(settings))
    if cohort is None or values is None:
        raise ValueError("; ".join(problems))
    return cohort, values


def _require_column(column: str | None, known: Sequence[str], source: str) -> None:
    if column is not None and column not in known:
        others = f"it has {', '.join(known)}" if known else "it has no further column"
        raise ValueError(f"--compare {column}: '{source}' has no such column; {others}")


def _require_usable_arguments(stages: Sequence[tuple[str, Visit, Job]], output: str, sources: Sequence[str]) -> None:
    """Let the commands check their arguments, once for all visits with the same options; all mistakes are told."""
    kinds: dict[tuple[str, ...], tuple[str, Visit, Job]] = {}
    for stage, visit, job in stages:
        kinds.setdefault((stage, *(word for word in job.arguments if word.startswith("--"))), (stage, visit, job))
    problems: dict[str, str] = {}
    for stage, visit, job in kinds.values():
        try:
            check_program(program_of(stage), *job.arguments, "--output", output)
        except ValueError as error:
            problems.setdefault(str(error), f"{stage} of {visit.subject} {visit.name}: {error}")
    if problems:
        files = " and ".join(f"'{source}'" for source in sources)
        raise ValueError(f"the commands cannot run with {files}: {'; '.join(problems.values())}")


def _require_no_braces(jobs: Sequence[Job]) -> None:
    """Refuse files whose path Snakemake would take for a pattern, for which it has no escape."""
    braced = dict.fromkeys(file for job in jobs for file in job.inputs if re.search(r"\{.*\}", file))
    if braced:
        more = f" and {len(braced) - 1} more files have" if len(braced) > 1 else " has"
        raise ValueError(
            f"'{next(iter(braced))}'{more} braces in the path, which Snakemake takes for a pattern: rename the file or "
            "its folder"
        )


def _require_past_times(jobs: Sequence[Job]) -> None:
    """Refuse files from the future: Snakemake removes results that are older than what they were made from."""
    latest = time.time() + _CLOCK_SKEW_S
    files = dict.fromkeys(file for job in jobs for file in job.inputs if os.path.isabs(file))
    future = [file for file in files if os.path.isfile(file) and os.stat(file).st_mtime > latest]
    if future:
        more = f" and of {len(future) - 1} more files" if len(future) > 1 else ""
        raise ValueError(
            f"the time of '{future[0]}'{more} lies in the future, and Snakemake would remove what is made from it: "
            "check the clock of this machine, or give the file the present time, as with 'touch'"
        )


def _arguments(options: RunOptions) -> list[str]:
    """Arguments of Snakemake."""
    arguments = ["--scheduler", "greedy", "--quiet", "rules", "host"]
    if options.profile:
        arguments += ["--profile", profile_folder(options.profile)]
    if options.cores or not options.profile:
        arguments += ["--cores", str(options.cores or os.cpu_count() or 1)]
    return [*arguments, *options.engine]


def _look(plan: Plan, folder: Path, arguments: Sequence[str], options: RunOptions) -> int:
    """List or draw what would be done, without changing anything."""
    with tempfile.TemporaryDirectory() as temporary:
        dag, place = options.dag, folder if folder.is_dir() else Path(temporary)
        file = plan.write(Path(temporary) / "plan.json")
        if dag is None:
            redo = folders_to_redo(folder, plan, targets_of(options.engine))
            return run_engine(place, file, [*forcing(arguments, redo), "--dry-run", "--rerun-incomplete"])
        kind = Path(dag).suffix.lower()
        if kind not in (".mmd", ".dot", *_GRAPHVIZ):
            raise ValueError(f"--dag {dag}: the name must end in .mmd, .dot, .svg, .pdf or .png")
        language = "mermaid-js" if kind == ".mmd" else "dot"
        command = [*engine_command(place), "--cores", "1", "--dag", language, "--forceall"]
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=engine_environment(file))
    if done.returncode:
        raise RuntimeError(f"Snakemake could not draw the graph: {done.stderr.strip().splitlines()[-1]}")
    _write_graph(done.stdout, Path(dag))
    return 0


def _write_graph(graph: str, path: Path) -> None:
    if path.suffix.lower() not in _GRAPHVIZ:
        write_text(graph, path)
        return
    with whole_file(path) as temporary:
        try:
            subprocess.run(
                ["dot", f"-T{path.suffix[1:].lower()}", "-o", str(temporary)], input=graph, text=True, check=True
            )
        except FileNotFoundError:
            raise ValueError(
                f"--dag {path}: Graphviz, which draws pictures, is not installed: install it, or give a name that ends "
                "in .mmd or .dot"
            ) from None
