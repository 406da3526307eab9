"""Relaxation maps from acquisitions of their own."""

import slicer
from slicer.i18n import tr as _

from NeuroCESTLib.panel.page import Page

FLIP_ANGLES = "variable-flip-angle"


class RelaxationPage(Page):
    """Computes T1 or T2 maps and chooses a T1 map for the quantification."""

    def setup(self):
        """Connect the button."""
        self.ui.relaxationButton.connect("clicked(bool)", lambda checked: self.panel.work(self.compute))

    def show(self):
        """Show the fields of the chosen kind, and say on the button what is missing."""
        ui, angles = self.ui, self.parameters.relaxationKind == FLIP_ANGLES
        ui.relaxationValuesLineEditLabel.text = _("Flip angles (°):") if angles else _("Times (ms):")
        for widget in (ui.repetitionTimeSpinBox, ui.repetitionTimeSpinBoxLabel):
            widget.visible = angles
        missing = self.missingHere()
        ui.relaxationButton.enabled = not missing
        ui.relaxationButton.toolTip = missing or _("Compute the map; a T1 map is used for the quantification.")

    def values(self):
        """Return the times in s or the flip angles in degrees.

        Raises:
            ValueError: What was typed holds no numbers.
        """
        from ..tables.offsets import offsets_of_ranges

        scale = 1.0 if self.parameters.relaxationKind == FLIP_ANGLES else 1e-3
        return [scale * value for value in offsets_of_ranges(self.parameters.relaxationValues)]

    def missingHere(self):
        """Return what the map still needs, as a sentence; empty without a lack."""
        parameters = self.parameters
        if not parameters.relaxationSignal:
            return _("Choose the images, a sequence with one volume for each time or flip angle.")
        if not parameters.relaxationValues.strip():
            return _("Type the time or flip angle of each volume.")
        try:
            count, volumes = len(self.values()), parameters.relaxationSignal.GetNumberOfDataNodes()
        except ValueError as error:
            return str(error)
        if count != volumes:
            return _("{count} values are typed, but '{name}' has {volumes} volumes.").format(
                count=count, name=parameters.relaxationSignal.GetName(), volumes=volumes
            )
        if parameters.relaxationKind == FLIP_ANGLES and not parameters.repetitionTime_ms:
            return _("Give the repetition time, which flip angles need.")
        return ""

    def compute(self, progress):
        """Compute the map, choose a T1 map for the quantification, and return what was done."""
        parameters = self.parameters
        angles = parameters.relaxationKind == FLIP_ANGLES
        maps = self.logic.relaxation(
            parameters.relaxationSignal,
            parameters.relaxationKind,
            self.values(),
            repetitionTime_s=1e-3 * parameters.repetitionTime_ms if angles else None,
            b1=parameters.b1 if angles else None,
            progress=progress,
        )
        t1 = maps.nodes.get("t1_s")
        if t1 is not None:
            with slicer.util.NodeModify(parameters.parameterNode):
                parameters.t1 = t1
        self.panel.results.warn(maps.report["warnings"])
        self.panel.results.offerMaps(t1 or maps.nodes["t2_s"])
        self.panel.results.onMapChosen(fit=True)
        folder = self.panel.folderName(maps)
        if t1 is None:
            return _("The T2 map is in the folder '{folder}'.").format(folder=folder)
        return _("The T1 map is in the folder '{folder}' and is used from now on.").format(folder=folder)
