"""Choices of a panel that show a title, while the parameter node keeps the value that Logic and commands take."""

from typing import Any

from .page import Page


class TitledChoices(Page):
    """Fills combo boxes with the titles of their values, and binds them to text parameters.

    Slicer's own binding shows the values themselves, so that these combo boxes have no ``SlicerParameterName``.
    """

    def titles(self) -> dict[str, dict[str, str]]:
        """Return the title of every value, in the order of the list, by the name of the parameter.

        The combo box of a parameter is called like it, with ``ComboBox`` at the end.
        """
        raise NotImplementedError

    def setup(self) -> None:
        """List the titles."""
        for parameter, titles in self.titles().items():
            choices = self.box(parameter)
            choices.clear()
            for value, title in titles.items():
                choices.addItem(title, value)
            choices.connect("currentIndexChanged(int)", lambda index, name=parameter: self.on_chosen(name, index))

    def box(self, parameter: str) -> Any:
        """Return the combo box of a parameter."""
        return getattr(self.ui, f"{parameter}ComboBox")

    def on_chosen(self, parameter: str, index: int) -> None:
        """Take over the value that the user has chosen."""
        value = self.box(parameter).itemData(index)
        if self.parameters and value is not None and getattr(self.parameters, parameter) != value:
            setattr(self.parameters, parameter, value)

    def show(self) -> None:
        """Show the chosen values."""
        for parameter in self.titles():
            choices = self.box(parameter)
            choices.currentIndex = choices.findData(getattr(self.parameters, parameter))


def device_titles() -> dict[str, str]:
    """Return the titles of the devices to compute on."""
    from slicer.i18n import tr as _

    return {"auto": _("Automatic"), "cpu": _("Processor (CPU)"), "cuda": _("Graphics card (CUDA)")}
