"""Where to compute."""

from __future__ import annotations

from typing import Any

DEVICES = ("auto", "cpu", "cuda")


def choose_device(name: str = "auto") -> Any:
    """The torch device of a name: 'auto' is CUDA where there is one, else the processor.

    Raises:
        ValueError: an unknown name, or CUDA where there is none.
    """
    import torch

    if name not in DEVICES:
        raise ValueError(f"device '{name}' is unknown; use one of {', '.join(DEVICES)}")
    available = torch.cuda.is_available()
    if name == "cuda" and not available:
        raise ValueError("device 'cuda' is not available on this machine; use cpu or auto")
    return torch.device("cuda" if available and name != "cpu" else "cpu")
