"""The frame of every batch command: arguments, exit status, output folder.

The exit status is 0 for success, 2 for unusable arguments or input, and 1 for a failure or a cancelled run. Standard
error gets one line that says what went wrong; only ``--debug`` adds a traceback.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NoReturn, TextIO

from NeuroCESTLib.batch.memory import keep_freed_memory
from NeuroCESTLib.core.messages.input_errors import InputError, naming
from NeuroCESTLib.core.output.inputs import inputs_of_run
from NeuroCESTLib.core.output.result_folder import OutputFolder as OutputFolder
from NeuroCESTLib.core.progress import Cancelled
from NeuroCESTLib.core.whole_files import keep_words
from NeuroCESTLib.scene.messages import files_of_nodes

SUCCESS, FAILURE, UNUSABLE = 0, 1, 2

# Exceptions that bad arguments and bad files raise; any other one is a failure of the program.
_BAD_INPUT = (ValueError, FileNotFoundError, NotADirectoryError, IsADirectoryError, PermissionError)

_SAID_BY = {"protocol": ("sequence", "scenario", "config"), "model": ("pools", "scenario", "config")}
"""Arguments that may hold an input which has no argument of its own."""
_MAIN_INPUTS = ("scenario", "sequence", "signal", "config", "moving", "images", "maps", "maps2", "regions", "manifest")
"""Arguments that a message is about where nothing else is said, the likeliest first."""
CANCELLED = "cancelled, nothing written"
"""What a cancelled command ends with."""
ANONYMOUS = "--anonymous"
_EVERYWHERE = (
    f"Every command takes {ANONYMOUS}, which leaves paths, user and machine, and names of nodes that come from files "
    "out of report, tables, pictures and scene, and --debug, which shows where an error arose."
)
"""What the help of every command ends with."""
_REMEDIES = {
    "torch": "PyTorch is not installed: in Slicer, install the extension PyTorch and press 'Install PyTorch' in its "
    "module 'PyTorch Utils'; elsewhere run 'pip install torch'",
    "SimpleITK": "SimpleITK is not installed: run 'pip install SimpleITK' (Slicer brings its own)",
}
"""What to do about a package that is missing, by its name."""


class _Help(argparse.ArgumentDefaultsHelpFormatter):
    """Help that adds the default of an option where it is informative and the text does not mention it yet."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        if action.default in (None, False, [], "") or "(default" in (action.help or ""):
            return action.help
        return super()._get_help_string(action)


class CommandParser(argparse.ArgumentParser):
    """Argument parser whose errors are one line and whose options cannot be abbreviated.

    It takes the arguments of ``argparse.ArgumentParser``.
    """

    def __init__(self, **settings: Any) -> None:
        epilog = " ".join(filter(None, (settings.pop("epilog", None), _EVERYWHERE)))
        super().__init__(**{"formatter_class": _Help, "allow_abbrev": False, **settings}, epilog=epilog)

    def error(self, message: str) -> NoReturn:
        """Print one line that says what is wrong and how to get help, and exit with status 2."""
        self.exit(UNUSABLE, f"{self.prog}: {one_line(message)} (see '{self.prog} --help')\n")

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> tuple[Any, list[str]]:
        """Parse arguments, as ``argparse`` does. The values of options with choices are no names of files."""
        options, further = super().parse_known_args(args, namespace)
        chosen = [getattr(options, action.dest, None) for action in self._actions if action.choices is not None]
        keep_words(*(value for value in chosen if isinstance(value, str)))
        return options, further


def run(main: Callable[[Sequence[str]], int | None], arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit status.

    Args:
        main: The command. It takes the arguments without ``--debug`` and ``--anonymous``, and returns an exit status,
            or None for 0.
        arguments: Arguments of the command line; ``sys.argv[1:]`` by default. ``--anonymous`` leaves paths and the
            names that come from them out of what is written.

    Returns:
        0 for success, 2 for unusable arguments or input, 1 for a failure or a cancelled run.
    """
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    debug, hides_names = "--debug" in arguments, ANONYMOUS in arguments
    arguments = _without_common(arguments)
    if "slicer" not in sys.modules:  # the memory of the application is its own
        keep_freed_memory()
    token, inputs = files_of_nodes.set({}), inputs_of_run.set({})
    try:
        with _warnings_in_one_line(), _names_hidden(arguments) if hides_names else contextlib.nullcontext():
            return main(arguments) or SUCCESS
    except SystemExit as stop:
        return _exit_status(stop)
    except (Cancelled, KeyboardInterrupt):
        print(CANCELLED, file=sys.stderr)
        return FAILURE
    except Exception as error:  # whatever happened, a command ends with a sentence
        if debug:
            traceback.print_exc()
        status, line = _outcome(error)
        print(f"error: {one_line(line)}", file=sys.stderr)
        return status
    finally:
        files_of_nodes.reset(token)
        inputs_of_run.reset(inputs)


def run_chosen(options: argparse.Namespace) -> int | None:
    """Run the command that a command line has chosen; its messages open with the file that they are about.

    Args:
        options: Arguments of the command, with the function that runs it as ``command``, and where it has one that
            checks them before any image is read, with that one as ``check``.

    Returns:
        Exit status of the command, or None for 0.
    """
    files = {name.replace("_", "-"): _quoted_files(value) for name, value in vars(options).items()}
    names = {role: file for role, file in files.items() if file}
    for role, others in _SAID_BY.items():
        if file := next((names[other] for other in (role, *others) if other in names), ""):
            names[role] = file
    with naming(names, next((names[role] for role in _MAIN_INPUTS if role in names), "")):
        _check(options)
        return options.command(options)


def check_arguments(parser: CommandParser, arguments: Sequence[str]) -> None:
    """Check arguments as a command does before it reads any image; nothing is run.

    Args:
        parser: Parser of the command with all its subcommands.
        arguments: Arguments of the command line.

    Raises:
        ValueError: The command would refuse them; the message is the one that it would print.
    """
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            options = parser.parse_args(_without_common(arguments))
        _check(options)
    except SystemExit:
        raise ValueError(said.getvalue().strip() or "the arguments ask for the help alone") from None
    except _BAD_INPUT as error:
        raise ValueError(_sentence(error)) from error


def _check(options: argparse.Namespace) -> None:
    check = getattr(options, "check", None)
    if check is not None:
        check(options)


def _without_common(arguments: Sequence[str]) -> list[str]:
    """The arguments without those that every command takes."""
    return [argument for argument in arguments if argument not in ("--debug", ANONYMOUS)]


def _quoted_files(value: object) -> str:
    """What messages call the files that an argument gives; empty where it gives none."""
    files = [value] if isinstance(value, str) else value if isinstance(value, list) else []
    files = [file for file in files if isinstance(file, str) and os.path.exists(file)]
    more = f" and {len(files) - 1} more" if len(files) > 1 else ""
    return f"'{files[0]}'{more}" if files else ""


def _names_hidden(arguments: Sequence[str]) -> contextlib.AbstractContextManager[None]:
    from NeuroCESTLib.batch.anonymity import anonymous  # imports what a help text does not need

    return anonymous(arguments)


@contextlib.contextmanager
def _warnings_in_one_line() -> Iterator[None]:
    """Print warnings that are meant for the user as ``warning: …``, without the place in the code."""
    with warnings.catch_warnings():
        default = warnings.showwarning

        def show(
            message: Warning | str,
            category: type[Warning],
            filename: str,
            lineno: int,
            file: TextIO | None = None,
            line: str | None = None,
        ) -> None:
            if category is UserWarning:
                print(f"warning: {one_line(str(message))}", file=sys.stderr)
            else:
                default(message, category, filename, lineno, file, line)

        warnings.showwarning = show
        yield


def settings_of(options: argparse.Namespace) -> dict[str, object]:
    """Return the arguments of a command for its report, without the functions that run and check it."""
    return {name: value for name, value in vars(options).items() if name not in ("command", "check")}


def one_line(text: str) -> str:
    """Return the text on one line, with single spaces."""
    return " ".join(str(text).split())


def _outcome(error: Exception) -> tuple[int, str]:
    if isinstance(error, _BAD_INPUT):
        return UNUSABLE, _sentence(error)
    if isinstance(error, ModuleNotFoundError) and error.name in _REMEDIES:
        return FAILURE, _REMEDIES[error.name]
    if isinstance(error, MemoryError):
        return FAILURE, "not enough memory: use fewer voxels (a mask), or a machine with more"
    return FAILURE, f"{type(error).__name__}: {error}"


def _sentence(error: Exception) -> str:
    if isinstance(error, InputError):  # about an option, or a file that nothing has named
        return str(error) if f"--{error.role}" in str(error) else f"--{error.role}: {error}"
    if isinstance(error, FileNotFoundError) and error.filename:
        return f"file not found: '{error.filename}'"
    if isinstance(error, OSError) and error.filename:
        return f"'{error.filename}': {error.strerror}"
    return str(error) or type(error).__name__


def _exit_status(stop: SystemExit) -> int:
    if stop.code is None or isinstance(stop.code, int):
        return stop.code or SUCCESS
    print(f"error: {one_line(str(stop.code))}", file=sys.stderr)
    return FAILURE
