"""Field maps from acquisitions of their own."""

import os

import slicer
from slicer.i18n import tr as _

from NeuroCESTLib.panel.page import Page


class FieldsPage(Page):
    """Computes B0 and B1 maps from a WASABI or WASSR acquisition and chooses them for the quantification."""

    def setup(self):
        """Connect the button."""
        self.ui.fieldMapsButton.connect("clicked(bool)", lambda checked: self.panel.work(self.compute))

    def show(self):
        """Say on the button what is missing."""
        missing = self.missingHere()
        self.ui.fieldMapsButton.enabled = not missing
        self.ui.fieldMapsButton.toolTip = missing or _("Compute the field maps and choose them for the quantification.")

    def missingHere(self):
        """Return what the computation of field maps still needs, as a sentence; empty without a lack."""
        from ..methods.registry import FIELD_METHODS

        signal, path = self.parameters.fieldSignal, self.parameters.fieldProtocolPath
        if not signal:
            return _("Choose the WASABI or WASSR acquisition.")
        if path and not os.path.isfile(path):
            return _("The protocol file {path} does not exist.").format(path=path)
        if not path and not self.logic.hasProtocol(signal):
            return _("Choose the protocol of the field acquisition.")
        return "\n".join(self.panel.protocol.lacks(FIELD_METHODS[self.parameters.fieldMethod], path or None, signal))

    def compute(self, progress):
        """Compute the maps, choose them, and return what was done."""
        parameters, inputs = self.parameters, self.panel.inputs
        signal = parameters.fieldSignal
        result = self.logic.fieldMaps(
            signal,
            parameters.fieldProtocolPath or None,
            method=parameters.fieldMethod,
            reference=parameters.fieldReference,
            motionCorrection=parameters.motionCorrection,
            progress=progress,
        )
        found = {"b0": result.nodes.get("b0_shift_ppm"), "b1": result.nodes.get("b1_relative")}
        with slicer.util.NodeModify(parameters.parameterNode):
            for name, node in found.items():
                if node is not None:
                    node.SetNodeReferenceID(inputs.COMPUTED_FROM, signal.GetID())
                    inputs.choose(name, node)
        self.panel.results.showResult(result)
        names = ", ".join(f"'{node.GetName()}'" for node in found.values() if node is not None)
        return _("The maps {names} are in the folder '{folder}' and are used from now on.").format(
            names=names, folder=self.panel.folderName(result)
        )
