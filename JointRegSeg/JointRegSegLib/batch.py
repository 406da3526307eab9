"""The command ``jointregseg``: segmentation and registration of two visits without a panel.

Runs as a console script and, in the application, with ``Slicer --no-splash --no-main-window --python-script``; the
headless host is started only where no application runs.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path

if __package__ in (None, ""):  # run as a file: make the packages importable
    _library, _module_folder, _root = Path(__file__).resolve().parents[:3]
    # without the folder of the file, whose modules could stand for Python's own
    sys.path[:] = [str(_module_folder), str(_root), *(p for p in sys.path if Path(p).resolve() != _library)]

from NeuroCESTLib.batch.frame import CommandParser, run

from .commands.apply import add_apply
from .commands.evaluate import add_evaluate
from .commands.manifest import add_manifest
from .commands.synthesize import add_synthesize
from .commands.train import add_train


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit status (0 success, 2 unusable arguments or input, 1 failure)."""
    # Large tensors of torch lie in huge pages where the system offers them (Linux): with small ones the kernel spends
    # as much time on handing out fresh pages as a convolution needs to fill them. Read at torch's first allocation.
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
    return run(_main, arguments)


def _main(arguments: Sequence[str]) -> int | None:
    options = _parser().parse_args(arguments)
    return options.command(options)


def _parser() -> CommandParser:
    parser = CommandParser(
        prog="jointregseg", description="Tumour segmentation and registration of two brain MR studies."
    )
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    add_apply(commands)
    add_evaluate(commands)
    add_manifest(commands)
    add_synthesize(commands)
    add_train(commands)
    return parser


if __name__ == "__main__":
    sys.exit(main())
