"""The structure and types of values in stored files, checked where the files are read.

A form describes values: a type (``float`` takes whole numbers too, neither takes booleans), None, a list with one form
for all its items, a dictionary with a form for each key that must be there, a tuple of alternatives, or ``Numbers`` for
arrays and tensors::

    check_stored(values, {"step": int, "best": (float, None), "weights": {}, "images": Numbers("f", 4)}, "'last.pt'")
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from NeuroCESTLib.core.checked_json import shortened

if TYPE_CHECKING:
    from torch import Tensor
    from torch.optim import Optimizer


_SCHEDULED = ("lr", "betas", "momentum")
"""Settings of an optimiser that schedules change during a training."""


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


def check_weights(state: Any, like: Mapping[str, Tensor], where: str) -> None:
    """Check that stored weights are finite and exactly those of a network.

    Args:
        state: Weights as read from a file.
        like: Weights of the network, whose values do not matter.
        where: File, with which the message begins.

    Raises:
        ValueError: They are not; the message names the first entry that does not fit.
    """
    import torch

    check_stored(state, {}, where)
    if missing := [name for name in like if name not in state]:
        raise ValueError(f"{where}: {len(missing)} weights are missing, such as {missing[0]}")
    if foreign := [name for name in state if name not in like]:
        raise ValueError(
            f"{where}: {len(foreign)} weights do not belong to the network, such as {shortened(foreign[0])}"
        )
    for name, value in like.items():
        kind, stored = _tensor_kind(value), state[name]
        if not Numbers(kind or "f").fits(stored) or not isinstance(stored, torch.Tensor):
            numbers = "floating-point numbers" if kind == "f" else "logical values" if kind == "b" else "whole numbers"
            raise ValueError(f"{where}: {name} is not a tensor of {numbers}")
        if stored.shape != value.shape:
            raise ValueError(f"{where}: {name} has the shape {tuple(stored.shape)}, not {tuple(value.shape)}")
        if not bool(torch.isfinite(stored).all()):
            raise ValueError(f"{where}: {name} has weights that are not finite")


def check_optimizer(state: Any, optimizer: Optimizer, where: str) -> None:
    """Check that the stored state of an optimiser is that of the same optimiser with the same parameters.

    Args:
        state: State as read from a file.
        optimizer: Optimiser that is to go on from it; its learning rate may differ.
        where: File, with which the message begins.

    Raises:
        ValueError: It is not; the message says what does not fit.
    """
    import torch

    check_stored(state, {"state": {}, "param_groups": [{"params": [int]}]}, where)
    own = optimizer.state_dict()["param_groups"]
    stored = state["param_groups"]
    if [group["params"] for group in stored] != [group["params"] for group in own]:
        raise ValueError(f"{where}: the optimiser has other parameters")
    for group, like in zip(stored, own, strict=True):
        for name, value in like.items():
            if not (_is_rate(group.get(name)) if name in _SCHEDULED else group.get(name) == value):
                raise ValueError(f"{where}: the optimiser has another '{name}'")
    parameters = dict(enumerate(p for group in optimizer.param_groups for p in group["params"]))
    for index, values in state["state"].items():
        if index not in parameters or not isinstance(values, Mapping):
            raise ValueError(f"{where}: the optimiser has other parameters")
        for name, value in values.items():
            sound = _is_finite_number(value) or value is None
            if isinstance(value, torch.Tensor):
                sound = value.layout == torch.strided and not value.is_complex() and bool(torch.isfinite(value).all())
                sound = sound and (value.ndim == 0 or value.shape == parameters[index].shape)
            if not sound:
                raise ValueError(f"{where}: '{name}' of the optimiser is damaged")


def _is_rate(value: Any) -> bool:
    """Whether a value is a finite number or several of them."""
    return all(map(_is_finite_number, value)) if isinstance(value, list | tuple) else _is_finite_number(value)


def _is_finite_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


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
