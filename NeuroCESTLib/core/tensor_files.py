"""Files of tensors and plain values in torch's format; loading one never executes code."""

from __future__ import annotations

import io
import pickle
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from NeuroCESTLib.core.whole_files import whole_file


def save_tensors(values: Mapping[str, Any], path: str | Path) -> Path:
    """Write tensors and plain values, whole or not at all.

    Args:
        values: Tensors, numbers, texts, and lists and dictionaries of these.
        path: File to write.

    Returns:
        The path of the file.

    Raises:
        ValueError: The file cannot be written; the message names it and says why.
    """
    path = Path(path)
    buffer = io.BytesIO()  # torch's own writer does not say why it failed
    torch.save(dict(values), buffer)
    with whole_file(path) as temporary:
        temporary.write_bytes(buffer.getbuffer())
    return path


def load_tensors(path: str | Path, what: str, *, mapped: bool = False) -> dict[str, Any]:
    """Read tensors and plain values without executing code of the file.

    Args:
        path: File to read.
        what: What the file should be, such as ``"network file"``; used in messages.
        mapped: Map the file into memory instead of reading it, so that only the parts in use are read.

    Returns:
        The values of the file, on the CPU.

    Raises:
        ValueError: The file is missing, damaged or of another kind, or holds more than tensors and plain values.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"'{path}': no such {what}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about foreign files, which are refused below
            values = torch.load(path, map_location="cpu", weights_only=True, mmap=True if mapped else None)
    except pickle.UnpicklingError:
        raise ValueError(f"'{path}' holds more than tensors and plain values, or is damaged: not loaded") from None
    except (
        RuntimeError,
        EOFError,
        OSError,
        ValueError,
        KeyError,
        IndexError,
        AttributeError,
        TypeError,
        MemoryError,
        zipfile.BadZipFile,
    ):
        raise ValueError(f"'{path}' is damaged, or not a {what}") from None
    if not isinstance(values, dict):
        raise ValueError(f"'{path}' is not a {what}")
    return values
