"""The command ``neurocest``: the whole way from images to compartment numbers, for many patients."""

from __future__ import annotations

import sys
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path

from NeuroCESTLib.batch.frame import CommandParser, OutputFolder, run, settings_of
from NeuroCESTLib.core.progress import terminal_progress


def main(arguments: Sequence[str] | None = None) -> int:
    """Run ``neurocest``.

    Args:
        arguments: Arguments after the name of the command; by default those of the process.

    Returns:
        Exit status: 0 for success, 2 for unusable arguments or input, 1 for failure or cancel.
    """
    return run(_main, arguments)


def _main(arguments: Sequence[str]) -> int | None:
    options = _parser().parse_args(arguments)
    return options.command(options)


def _parser() -> CommandParser:
    """Return the parser of the command with all its subcommands."""
    parser = CommandParser(prog="neurocest", description="CEST numbers of tumour compartments for whole cohorts.")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
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
    demo.set_defaults(command=_demo_cohort)
    return parser


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
