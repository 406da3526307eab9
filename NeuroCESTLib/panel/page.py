"""A page of a panel: the widgets that serve one purpose, and what they do."""

from typing import Any


class Page:
    """Part of a panel, made once when the panel is built.

    A page connects its widgets in ``setup``, and the panel tells it when the parameters change and when the user
    leaves.

    Args:
        panel: The panel that shows it.
    """

    def __init__(self, panel: Any) -> None:
        self.panel = panel
        self.ui = panel.ui

    @property
    def parameters(self) -> Any:
        """Parameter node that the panel is bound to; None where it is bound to none."""
        return self.panel.parameters

    @property
    def logic(self) -> Any:
        """Logic of the module."""
        return self.panel.logic

    def setup(self) -> None:
        """Fill and connect the widgets; called once, before there are parameters."""

    def bound(self) -> None:
        """Look at the scene; called each time the panel has been bound to the parameters of a scene."""

    def show(self) -> None:
        """Show the parameters in the widgets; called after each change of the parameters, never without any."""

    def missing(self) -> list[str]:
        """Return what still has to be chosen before Apply, as sentences; never called without parameters."""
        return []

    def leave(self) -> None:
        """Stop what follows the user; called when the module is left, the scene is closed or the application ends."""
