"""The command ``jointregseg``: segmentation and registration of two visits without a panel.

It runs as a console script and, in the application, with ``Slicer --no-splash --no-main-window --python-script``. The
headless host is started only if no application is running.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path

if __package__ in (None, ""):  # run as a file: the packages must be made importable
    _library, _module_folder, _root = Path(__file__).resolve().parents[:3]
    # Python puts the folder of the file first; its modules could hide modules of the standard library.
    sys.path[:] = [str(_module_folder), str(_root), *(p for p in sys.path if Path(p).resolve() != _library)]
    __package__ = "JointRegSegLib"

from NeuroCESTLib.batch.frame import CommandParser, check_arguments, run, run_chosen

from .commands import apply, evaluate, manifest, predict, segment, synthesize, train

_COMMANDS = (apply, segment, predict, evaluate, manifest, synthesize, train)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        arguments: Arguments; those of the process by default.

    Returns:
        Exit status: 0 for success, 2 for unusable arguments or input, 1 for a failure.
    """
    # On Linux, let torch place large tensors in huge pages: with small pages the kernel spends as much time on handing
    # out fresh pages as a convolution needs to fill them. torch reads the variable at its first allocation.
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
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
    parser = CommandParser(
        prog="jointregseg", description="Tumour segmentation and registration of two brain MR studies."
    )
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    for command in _COMMANDS:
        command.add(commands)
    return parser


if __name__ == "__main__":
    sys.exit(main())
