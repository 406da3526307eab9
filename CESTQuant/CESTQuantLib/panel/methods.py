"""The choice of the method, and the settings and inputs that it uses."""

import os

import slicer
from slicer.i18n import tr as _

from NeuroCESTLib.panel.page import Page


class MethodsPage(Page):
    """Offers the methods of the registry and shows what the chosen one uses.

    Attributes:
        INPUTS: Parameter and widget of every input that only some methods use, by its name in the registry of methods.
        OPTIONAL_SECTIONS: Sections that are hidden if the method uses none of their inputs.
        MAPS: Inputs that are maps.
        FILES: Inputs that are files.
        TABLES: Inputs that the page of the pools shows as tables.
    """

    INPUTS = {  # noqa: RUF012
        "b0": ("b0", "b0Selector"),
        "b1": ("b1", "b1Selector"),
        "t1": ("t1", "t1Selector"),
        "lorentzian": ("lorentzianPreset", "lorentzianPresetComboBox"),
        "asymmetry-offset": ("asymmetryOffset_ppm", "asymmetryOffsetSpinBox"),
        "power": ("power_uT", "powerSpinBox"),
        "model": ("modelPath", "modelPathLineEdit"),
        "network": ("networkPath", "networkPathLineEdit"),
        "config": ("configPath", "configPathLineEdit"),
        "calibration": ("calibrationPath", "calibrationPathLineEdit"),
    }
    OPTIONAL_SECTIONS = {  # noqa: RUF012
        "mapsSection": ("b0", "b1", "t1"),
        "modelSection": ("network", "config", "calibration"),
    }
    MAPS = ("b0", "b1", "t1")
    FILES = ("model", "network", "config", "calibration")
    TABLES = ("model", "lorentzian")

    def setup(self):
        """List the methods."""
        self.list()
        self.ui.methodComboBox.connect("currentIndexChanged(int)", self.onMethodChosen)

    def list(self):
        """List the methods of the registry."""
        import qt

        from ..methods.registry import METHODS

        choices = self.ui.methodComboBox
        blocked = choices.blockSignals(True)  # filling the list chooses nothing
        choices.clear()
        for method in METHODS.values():
            choices.addItem(_(method.title), method.name)
            choices.setItemData(choices.count - 1, _(method.summary), qt.Qt.ToolTipRole)
        choices.blockSignals(blocked)

    def onMethodChosen(self, index):
        """Take over the method that the user has chosen, with pools that it can use."""
        from ..methods.registry import METHODS

        name = self.ui.methodComboBox.itemData(index)
        if self.parameters and name and self.parameters.method != name:
            before = METHODS.get(self.parameters.method)
            with slicer.util.NodeModify(self.parameters.parameterNode):
                if before is not None:
                    self.panel.pools.remember(before.pool_presets)
                self.parameters.method = name
                self.panel.pools.recall(METHODS[name].pool_presets)

    def used(self):
        """Return the names of the inputs that the chosen method uses."""
        from ..methods.base import Input
        from ..methods.registry import METHODS

        method = METHODS.get(self.parameters.method)
        used = {what.value for what in Input if method and method.uses(what)}
        return used | {"t1"} if self.panel.preparation.needsT1() else used

    def show(self):
        """Show the chosen method and the inputs that it uses."""
        choices = self.ui.methodComboBox
        choices.currentIndex = choices.findData(self.parameters.method)
        used = self.used()
        for name, (_parameter, widget) in self.INPUTS.items():
            getattr(self.ui, widget).visible = name in used
            getattr(self.ui, f"{widget}Label").visible = name in used
        for section, names in self.OPTIONAL_SECTIONS.items():
            getattr(self.ui, section).visible = not used.isdisjoint(names)

    def missing(self):
        """Return what the chosen method lacks."""
        from ..methods.registry import METHODS

        parameters = self.parameters
        method = METHODS.get(parameters.method)
        if method is None:
            return [_("The method {name} is not installed: choose another one.").format(name=parameters.method)]
        given = {what for what in self.INPUTS if self.value(what)}
        missing = [
            _("Choose {what}: the method needs it.").format(what=what.title)
            for what in method.needs
            if what.value not in given
        ]
        for name in self.used() & {*self.FILES} & given:
            path = self.value(name)
            if isinstance(path, str) and not os.path.isfile(path):
                missing.append(_("The file {path} does not exist.").format(path=path))
        return missing

    def options(self):
        """Return what the panel gives to the chosen method, by the name of the argument."""
        chosen = {self.INPUTS[name][0].removesuffix("Path"): self.value(name) for name in self.used()}
        if chosen.get("power_uT") == 0:  # the single acquired power
            del chosen["power_uT"]
        return {name: value for name, value in chosen.items() if value is not None and value != ""}

    def value(self, name):
        """Return what the panel gives for an input, by its name in the registry; a model is a file or its content."""
        if name in self.TABLES:
            return self.panel.pools.given(name)
        return getattr(self.parameters, self.INPUTS[name][0])

    def maps(self):
        """Return the maps that are chosen and used, by the name of the argument."""
        used = self.used()
        return {name: getattr(self.parameters, name) for name in self.MAPS if name in used}
