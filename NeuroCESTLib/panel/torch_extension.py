"""PyTorch in the application, where the PyTorch extension installs it; pip never does."""

from __future__ import annotations

TORCH_REQUIREMENT = ">=2.2"
"""Versions of PyTorch that work."""


def ensure_torch(module: str) -> None:
    """Make sure that torch can be imported; the user is asked before anything is installed.

    Args:
        module: Name of the module that needs it, for messages.

    Raises:
        RuntimeError: The PyTorch extension is missing, the user declined to install PyTorch, or the version that is
            installed is too old.
    """
    import importlib.metadata
    import importlib.util

    if importlib.util.find_spec("torch"):
        version = importlib.metadata.version("torch")
        if _release(version) < _release(TORCH_REQUIREMENT):
            raise RuntimeError(
                f"{module} needs PyTorch {TORCH_REQUIREMENT}, but {version} is installed: uninstall it in the module "
                "'PyTorch Utils', restart and press Apply again."
            )
        return
    try:
        import PyTorchUtils
    except ImportError:
        raise RuntimeError(
            f"{module} needs the PyTorch extension: install it in the Extensions Manager and restart."
        ) from None
    logic = PyTorchUtils.PyTorchUtilsLogic()
    if not logic.torchInstalled() and not logic.installTorch(
        askConfirmation=True, torchVersionRequirement=TORCH_REQUIREMENT
    ):
        raise RuntimeError(f"PyTorch was not installed; {module} cannot compute without it.")


def _release(version: str) -> tuple[int, ...]:
    """Return the numbers of the major and minor version, for comparison."""
    import re

    return tuple(int(number) for number in re.findall(r"\d+", version)[:2])
