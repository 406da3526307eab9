"""Numbers and names as they come from JSON files, checked and named in what is said about them."""

from __future__ import annotations

import math
import re
from numbers import Real

import torch
from torch import Tensor


def number(value, name: str) -> float:
    """A finite number; ValueError naming it otherwise."""
    if isinstance(value, bool) or not isinstance(value, Real):
        raise ValueError(f"{name} is {_shortened(value)}, which is not a number")
    try:
        result = float(value)
    except OverflowError:
        result = math.inf
    if not math.isfinite(result):
        raise ValueError(f"{name} is not finite")
    return result


def numbers(value, name: str) -> Tensor:
    """One or several numbers as a float tensor of shape (n,); a floating-point tensor keeps its dtype and graph."""
    try:
        tensor = value if isinstance(value, Tensor) else torch.as_tensor(value, dtype=torch.float64)
    except (TypeError, ValueError, RuntimeError, OverflowError) as error:
        raise ValueError(f"{name} must be a number or a list of numbers") from error
    if tensor.ndim > 1:
        raise ValueError(f"{name} must be a number or a list of numbers, not nested lists")
    return (tensor if tensor.is_floating_point() else tensor.to(torch.float64)).reshape(-1)


def require_file_name(name: str, what: str) -> None:
    """ValueError unless a name, of which maps are named, is fit for file names."""
    if not re.fullmatch(r"\w[\w .+-]*", name):
        raise ValueError(f"{what} '{name}' must consist of letters, digits, spaces, '_', '.', '+' and '-'")


def _shortened(value) -> str:
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:37]}..."
