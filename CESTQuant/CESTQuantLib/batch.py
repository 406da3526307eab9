"""The command ``cestquant``: simulation, quantification, field maps, networks and schedules without a panel.

Runs as a console script and, in the application, with ``Slicer --no-splash --no-main-window --python-script``; the
headless host is started only where no application runs.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

if __package__ in (None, ""):  # run as a file: make the packages importable
    _library, _module_folder, _root = Path(__file__).resolve().parents[:3]
    # without the folder of the file, so that none of its modules hides one of the standard library
    sys.path[:] = [str(_module_folder), str(_root), *(p for p in sys.path if Path(p).resolve() != _library)]
    __package__ = "CESTQuantLib"

from NeuroCESTLib.batch.frame import CommandParser, check_arguments, run, run_chosen

from .commands import compartments, fields, fit, optimize_schedule, phantom, relaxation, scanner, simulate, training

_COMMANDS = (simulate, scanner, fit, fields, relaxation, compartments, phantom, training, optimize_schedule)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run ``cestquant``.

    Args:
        arguments: Arguments after the name of the command; by default those of the process.

    Returns:
        Exit status: 0 for success, 2 for unusable arguments or input, 1 for failure or cancel.
    """
    return run(_main, arguments)


def check(arguments: Sequence[str]) -> None:
    """Check arguments as ``main`` does before it reads any image; nothing is run.

    Args:
        arguments: Arguments after the name of the command.

    Raises:
        ValueError: The command would refuse them; the message is the one that it would print.
    """
    check_arguments(_parser(), arguments)


def _main(arguments: Sequence[str]) -> int | None:
    options = _parser().parse_args(arguments)
    return run_chosen(options)


def _parser() -> CommandParser:
    """Return the parser of the command with all its subcommands."""
    parser = CommandParser(prog="cestquant", description="Quantitative CEST-MRI: maps in physical units.")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    for command in _COMMANDS:
        command.add(commands)
    return parser


if __name__ == "__main__":
    sys.exit(main())
