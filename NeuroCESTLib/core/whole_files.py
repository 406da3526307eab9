"""Files that are written whole or not at all.

A file is first written under its own name into a temporary folder next to its final place and then moved there, so
that an interrupted or failed run leaves an earlier file as it was.
"""

from __future__ import annotations

import contextlib
import csv
import errno
import io
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from .output.hidden import make_hidden, remove_left_behind
from .output.inputs import require_inputs_kept


def _as_it_is(text: str) -> str:
    return text


written_as: ContextVar[Callable[[str], str]] = ContextVar("written_as", default=_as_it_is)
"""How texts about the run stand in reports, tables, pictures and scenes: as they are, or without paths and names."""


def is_anonymous() -> bool:
    """Whether texts are written without paths and names, as with ``--anonymous``."""
    return written_as.get() is not _as_it_is


def hide_path(path: str | os.PathLike) -> None:
    """Leave the path of a file that was read out of the texts, where they are written without paths."""
    learn = getattr(written_as.get(), "learn", None)
    if learn is not None:
        learn(path)


def hide_name(name: str, path: str | os.PathLike) -> None:
    """Leave the name of what was read from a file out of the texts, where they are written without paths."""
    learn_name = getattr(written_as.get(), "learn_name", None)
    if learn_name is not None:
        learn_name(name, path)


def keep_words(*words: str) -> None:
    """Leave words of the program, such as names of methods, maps and result files, in the texts.

    They stay where texts are written without names, also if an input is called the same.
    """
    keep = getattr(written_as.get(), "keep", None)
    if keep is not None:
        keep(words)


@contextlib.contextmanager
def whole_file(path: str | os.PathLike) -> Iterator[Path]:
    """Provide a temporary path to write to, and move what was written to ``path`` if the block ends without error.

    Companions that a writer puts next to the file, such as the schema of a table, are moved along with it.

    Args:
        path: File to write; a complete file replaces an earlier one.

    Yields:
        A path of the same name in a temporary folder beside ``path``.

    Raises:
        ValueError: The folder is missing, read-only or full, nothing was written, or the file is an input of the
            command; the message names the file.
    """
    path = Path(path)
    if path.is_dir():
        raise ValueError(f"cannot write '{path}': it is a folder")
    require_inputs_kept(path.parent, lambda place: place == Path(path.name))
    with write_errors(path):
        # A temporary folder, not a temporary name: some formats store the name of the file in the file.
        remove_left_behind(path.parent, path.name)
        folder = make_hidden(path.parent, path.name)
    try:
        with write_errors(path):
            yield folder / path.name
            # Companions first, the file itself last.
            written = sorted(folder.iterdir(), key=lambda file: file.name == path.name)
            if not written or written[-1].name != path.name:
                raise ValueError(f"cannot write '{path}': nothing was written")
            for file in written:
                os.replace(file, path.parent / file.name)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def write_errors(path: str | os.PathLike) -> Iterator[None]:
    """Turn file-system errors that occur while ``path`` is written into a ValueError of one sentence.

    Args:
        path: File or folder that is written.

    Raises:
        ValueError: The file system refused; the message names ``path`` and says why.
        FileNotFoundError: The block looked for another file, which does not exist.
    """
    folder = Path(path).parent
    try:
        yield
    except (FileNotFoundError, NotADirectoryError):
        if folder.is_dir():
            raise
        problem = f"'{folder}' is not a folder" if folder.exists() else f"the folder '{folder}' does not exist"
        raise ValueError(f"cannot write '{path}': {problem}") from None
    except OSError as error:
        raise ValueError(f"cannot write '{path}': {reason(error)}") from None


def reason(error: OSError) -> str:
    """Return why the file system refused to write, in words and with the remedy."""
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return "the folder is read-only, choose another one"
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return "the disk is full or its quota used up, free some space"
    return error.strerror or str(error)


def write_text(text: str, path: str | os.PathLike) -> Path:
    """Write a UTF-8 text file, whole or not at all.

    Raises:
        ValueError: The file cannot be written; the message names it.
    """
    path = Path(path)
    with whole_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return path


def write_csv(header: Sequence[str], rows: Iterable[Sequence[Any]], path: str | os.PathLike) -> Path:
    """Write a comma-separated table with a header line, whole or not at all.

    Args:
        header: Names of the columns.
        rows: Values of each row; what is not a text is written as ``str`` shows it.
        path: File to write.

    Returns:
        The path of the file.

    Raises:
        ValueError: The file cannot be written; the message names it.
    """
    return write_text(csv_text(header, rows), path)


def csv_text(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """Return a comma-separated table with a header line; values that contain commas or quotes are quoted."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    return text.getvalue()


def write_rows(rows: Sequence[Mapping[str, Any]], path: str | os.PathLike) -> Path:
    """Write rows of named values as a comma-separated table, whole or not at all.

    The columns are those of all rows, in the order in which they first occur. Numbers have 7 digits; a value that is
    missing, None or NaN is an empty field.

    Raises:
        ValueError: The file cannot be written; the message names it.
    """
    columns = list(dict.fromkeys(name for row in rows for name in row))
    return write_csv(columns, ([_field(row.get(name)) for name in columns] for row in rows), path)


def _field(value: Any) -> Any:
    if value is None or value != value:
        return ""
    if isinstance(value, str):
        return written_as.get()(value)
    return f"{value:.7g}" if isinstance(value, float) else value
