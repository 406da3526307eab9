"""The devices that a computation can run on."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .messages.input_errors import InputError

if TYPE_CHECKING:
    import torch

DEVICES = ("auto", "cpu", "cuda")
"""Names that users may give."""


def choose_device(name: str = "auto") -> torch.device:
    """Return the torch device of a name.

    Args:
        name: One of ``DEVICES``; ``auto`` is CUDA where it is available and the CPU elsewhere.

    Raises:
        ValueError: The name is unknown, or CUDA is not available on this machine.
    """
    import torch

    if name not in DEVICES:
        raise InputError("device", f"device '{name}' is unknown; use one of {', '.join(DEVICES)}")
    available = torch.cuda.is_available()
    if name == "cuda" and not available:
        raise InputError("device", "device 'cuda' is not available on this machine; use cpu or auto")
    return torch.device("cuda" if available and name != "cpu" else "cpu")
