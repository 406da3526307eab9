"""The structure and types of values in stored files, checked where the files are read.

A form describes values: a type (``float`` takes whole numbers too, neither takes booleans), None, a list with one form
for all its items, a dictionary with a form for each key that must be there, a tuple of alternatives, or ``Numbers`` for
arrays and tensors::

    check_stored(values, {"step": int, "best": (float, None), "weights": {}, "images": Numbers("f", 4)}, "'last.pt'")
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Numbers:
    """Form of a numpy array or a tensor on the CPU.

    Attributes:
        kinds: Kinds of its numbers, as in numpy: f floating point, i and u whole, b true or false.
        dimensions: Number of its dimensions; None for any number.
    """

    kinds: str
    dimensions: int | None = None

    def fits(self, value: Any) -> bool:
        """Whether a value is such an array or tensor."""
        kind = getattr(getattr(value, "dtype", None), "kind", None) or _tensor_kind(value)
        return kind is not None and kind in self.kinds and self.dimensions in (None, value.ndim)


def check_stored(values: Any, form: Any, where: str) -> None:
    """Check that values have a form.

    Args:
        values: Values as read from a file.
        form: Form that they must have; see above.
        where: File, with which the message begins.

    Raises:
        ValueError: They do not; the message names the first entry that does not fit.
    """
    if misfit := _misfit(values, form, ""):
        raise ValueError(f"{where}: {misfit}")


def _misfit(value: Any, form: Any, name: str) -> str:
    """Say what does not fit; empty where everything does."""
    title = f"'{name}'" if name else "its content"
    if isinstance(form, tuple):
        return "" if any(not _misfit(value, each, name) for each in form) else f"{title} is of another kind"
    if isinstance(form, dict):
        if not isinstance(value, Mapping):
            return f"{title} is not an object"
        if missing := [key for key in form if key not in value]:
            return f"'{f'{name}.{missing[0]}'.lstrip('.')}' is missing"
        found = (_misfit(value[key], each, f"{name}.{key}".lstrip(".")) for key, each in form.items())
    elif isinstance(form, list):
        if not isinstance(value, list | tuple):
            return f"{title} is not a list"
        found = (_misfit(item, form[0], f"{name}[{index}]") for index, item in enumerate(value))
    else:
        return "" if _is(value, form) else f"{title} is of another kind"
    return next((misfit for misfit in found if misfit), "")


def _is(value: Any, form: Any) -> bool:
    if form is None or value is None:
        return value is form
    if isinstance(form, Numbers):
        return form.fits(value)
    if isinstance(value, bool):
        return form is bool
    return isinstance(value, (int, float) if form is float else form)


def _tensor_kind(value: Any) -> str | None:
    """Kind of a tensor's numbers, as in numpy; None for other values and for sparse or quantised tensors."""
    import torch

    if not isinstance(value, torch.Tensor) or value.layout != torch.strided or value.is_quantized:
        return None
    if value.dtype.is_floating_point:
        return "f"
    return "b" if value.dtype == torch.bool else "c" if value.dtype.is_complex else "i"
