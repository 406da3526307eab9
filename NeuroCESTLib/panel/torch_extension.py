"""PyTorch in the application: it comes through the PyTorch extension, never through pip."""

from __future__ import annotations

TORCH_REQUIREMENT = ">=2.2"


def ensure_torch(module: str) -> None:
    """Make torch importable for the module of that name; the user is asked before anything is installed.

    Raises:
        RuntimeError: the PyTorch extension is missing, or the user refused.
    """
    import importlib.util

    if importlib.util.find_spec("torch"):
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
