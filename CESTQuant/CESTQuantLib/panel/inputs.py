"""The acquisition, its protocol and the maps that go with it."""

import os

from slicer.i18n import tr as _

from NeuroCESTLib.panel.page import Page


class InputsPage(Page):
    """Choice of the acquisition; what goes with it is chosen by name and can be corrected.

    Attributes:
        CHOSEN_FOR: Attribute of the parameter node that holds the acquisition whose inputs were chosen by name.
    """

    CHOSEN_FOR = "inputsChosenFor"

    def bound(self):
        """Preselect the first acquisition."""
        if not self.parameters.signal:
            from ..scene.naming import first_acquisition

            self.parameters.signal = first_acquisition()

    def show(self):
        """Choose the empty inputs by the names of the nodes, once for every acquisition; say which."""
        from ..scene.naming import field_acquisition, field_method_of, inputs_by_name

        parameters = self.parameters
        node, signal = parameters.parameterNode, parameters.signal
        if not signal:
            self.ui.chosenByNameLabel.visible = False
        if not signal or node.GetAttribute(self.CHOSEN_FOR) == signal.GetID():
            return
        node.SetAttribute(self.CHOSEN_FOR, signal.GetID())
        chosen = {role: found for role, found in inputs_by_name(signal).items() if not getattr(parameters, role)}
        for role, found in chosen.items():
            setattr(parameters, role, found)
        fields = field_acquisition(signal) if not parameters.fieldSignal else None
        if fields is not None:
            parameters.fieldSignal, parameters.fieldMethod = fields, field_method_of(fields)
            chosen["fieldSignal"] = fields
        names = ", ".join(f"'{found.GetName()}'" for found in chosen.values())
        self.ui.chosenByNameLabel.text = _("Chosen by name: {names}.").format(names=names) if names else ""
        self.ui.chosenByNameLabel.visible = bool(names)

    def missing(self):
        """Return what the acquisition and its protocol lack."""
        signal, path = self.parameters.signal, self.parameters.protocolPath
        missing = []
        if not signal:
            missing.append(_("Choose the CEST acquisition, a sequence of volumes."))
        if self.parameters.protocol:
            return missing
        if not path and not self.logic.hasProtocol(signal):
            missing.append(
                _("Choose the protocol, a JSON file, a text file of offsets or a .seq file, or type offsets.")
            )
        elif path and not os.path.isfile(path):
            missing.append(_("The protocol file {path} does not exist.").format(path=path))
        return missing

    def anatomy(self):
        """Return the volume to show under the maps; None to keep what the views show."""
        reference = self.parameters.reference
        return reference if reference and reference.IsA("vtkMRMLScalarVolumeNode") else None
