"""The command ``neurocest``: the whole way from images to compartment numbers, for many patients."""

from __future__ import annotations

import sys
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from NeuroCESTLib.batch.frame import CommandParser, OutputFolder, run, run_chosen, settings_of
from NeuroCESTLib.core.progress import terminal_progress

if TYPE_CHECKING:
    from argparse import _SubParsersAction


def main(arguments: Sequence[str] | None = None) -> int:
    """Run ``neurocest``.

    Args:
        arguments: Arguments after the name of the command; by default those of the process.

    Returns:
        Exit status: 0 for success, 2 for unusable arguments or input, 1 for failure or cancel.
    """
    return run(_main, arguments)


def _main(arguments: Sequence[str]) -> int | None:
    arguments = list(arguments)
    own = arguments[: arguments.index("--")] if "--" in arguments else arguments
    options = _parser().parse_args(own)
    options.engine = arguments[len(own) + 1 :]
    return run_chosen(options)


def _parser() -> CommandParser:
    """Return the parser of the command with all its subcommands."""
    parser = CommandParser(prog="neurocest", description="CEST numbers of tumour compartments for whole cohorts.")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    _add_run(commands)
    _add_summarize(commands)
    _add_demo_cohort(commands)
    return parser


def _add_run(commands: _SubParsersAction[CommandParser]) -> None:
    parser = commands.add_parser(
        "run",
        help="the whole way for every patient of a cohort, with Snakemake",
        description="Import, field maps, fit, segmentation, registration and compartments for every visit of a "
        "manifest, then the table and the page of the cohort. What is finished is not done again; a run that was "
        "killed goes on where it stopped. A subject that fails does not stop the others: its row in cohort.csv says "
        "why, and the exit status is 1. What follows '--' is passed on to Snakemake.",
    )
    parser.add_argument("manifest", metavar="COHORT.csv", help="manifest: a line per visit, see the documentation")
    parser.add_argument(
        "--output", required=True, metavar="DIR", help="folder for DIR/SUBJECT/VISIT/..., table and page"
    )
    parser.add_argument("--settings", metavar="JSON", help="method, model and further arguments of the commands")
    parser.add_argument("--cores", type=int, metavar="N", help="cores of this machine to use (default: all)")
    parser.add_argument(
        "--profile", metavar="CLUSTER", help="profile of Snakemake for a cluster: a folder, or a bundled one (slurm)"
    )
    _add_comparison(parser)
    parser.add_argument("--dry-run", action="store_true", help="only list what would be done")
    parser.add_argument(
        "--dag",
        metavar="FILE",
        help="only draw the graph of jobs: .mmd (Mermaid), .dot, or .svg, .pdf and .png with Graphviz",
    )
    parser.set_defaults(command=_run)


def _add_summarize(commands: _SubParsersAction[CommandParser]) -> None:
    parser = commands.add_parser(
        "summarize",
        help="table, comparison and page of a cohort from what there is so far",
        description="Write cohort.csv, changes.csv, comparison.csv and report.html of an output folder of 'neurocest "
        "run' again, for example with another comparison.",
    )
    parser.add_argument("output", metavar="DIR", help="output folder of 'neurocest run'")
    _add_comparison(parser)
    parser.set_defaults(command=_summarize)


def _add_comparison(parser: CommandParser) -> None:
    parser.add_argument(
        "--compare",
        metavar="COLUMN",
        help="column of the manifest whose two or more groups are compared, such as group (default: none)",
    )
    parser.add_argument(
        "--statistic",
        choices=("mean", "median", "pure", "fit"),
        default="mean",
        help="what is compared and drawn: mean or median of the compartment, value of pure tissue without that of its "
        "neighbours in mixed voxels, or fit of the mean spectrum",
    )


def _add_demo_cohort(commands: _SubParsersAction[CommandParser]) -> None:
    demo = commands.add_parser(
        "demo-cohort",
        help="synthetic patients with two visits, CEST, structural images and the truth, as a cohort",
        description="Make a synthetic cohort: anatomy, tumour and deformation from 'jointregseg synthesize', CEST on "
        "that anatomy from 'cestquant phantom --regions', a manifest, and the true values.",
    )
    demo.add_argument("--output", required=True, metavar="DIR", help="folder for the cohort")
    demo.add_argument("--patients", type=int, default=4, metavar="N", help="number of patients")
    demo.add_argument("--seed", type=int, default=0, help="seed of tissue values, noise and misalignment")
    demo.add_argument("--spacing", type=float, default=2.0, metavar="MM", help="structural voxel size in mm")
    demo.add_argument("--voxel-size", type=float, default=3.0, metavar="MM", help="CEST in-plane voxel size in mm")
    demo.add_argument("--slices", type=int, default=3, metavar="N", help="number of CEST slices of 5 mm")
    demo.add_argument("--noise", type=float, default=0.002, help="noise SD relative to M0 of white matter")
    demo.add_argument(
        "--network-segmentation",
        action="store_true",
        help="leave the known segmentation out of the manifest, so that the network segments",
    )
    demo.set_defaults(command=_demo_cohort)


def _run(options: Namespace) -> int:
    """Run ``neurocest run``."""
    from .cohort_run import RunOptions, run_cohort

    if options.cores is not None and options.cores < 1:
        raise ValueError(f"--cores is {options.cores}; give at least 1")
    return run_cohort(
        options.manifest,
        options.output,
        RunOptions(
            settings=options.settings,
            cores=options.cores,
            profile=options.profile,
            compare=options.compare,
            statistic=options.statistic,
            dry_run=options.dry_run,
            dag=options.dag,
            engine=tuple(options.engine),
        ),
    )


def _summarize(options: Namespace) -> int:
    """Run ``neurocest summarize``."""
    from .cohort_run import summarize_cohort

    return summarize_cohort(options.output, options.compare, options.statistic)


def _demo_cohort(options: Namespace) -> None:
    """Run ``neurocest demo-cohort``."""
    from NeuroCESTLib.report.record import Report

    from .demo_cohort import DemoSettings, write_demo_cohort

    settings = DemoSettings(
        patients=options.patients,
        seed=options.seed,
        spacing_mm=options.spacing,
        voxel_mm=options.voxel_size,
        slices=options.slices,
        noise_sd=options.noise,
        known_segmentation=not options.network_segmentation,
    )
    with terminal_progress() as progress, OutputFolder(options.output) as folder:
        report = Report("neurocest demo-cohort", settings_of(options))
        write_demo_cohort(folder, settings, progress)
        report.write(folder)
    place = Path(options.output)
    print(
        f"{place / 'COHORT.csv'}: {settings.patients} patients, two visits each; next: neurocest run "
        f"{place / 'COHORT.csv'} --settings {place / 'settings.json'} --output DIR",
        file=sys.stderr,
    )


if __name__ == "__main__":
    sys.exit(main())
