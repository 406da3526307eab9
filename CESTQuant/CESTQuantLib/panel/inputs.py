"""The acquisition, its protocol and the maps that go with it."""

import os

import slicer
from slicer.i18n import tr as _

from NeuroCESTLib.panel.page import Page


class InputsPage(Page):
    """Choice of the acquisition; what goes with it is chosen by name and can be corrected.

    Attributes:
        CHOSEN_FOR: Role of the reference from the parameter node to the acquisition whose inputs were chosen by name.
        BY_NAME: Roles of the references to the inputs that were chosen so, or that the panel has computed.
        COMPUTED_FROM: Role of the reference from such a map to the field acquisition that it was computed from.
    """

    CHOSEN_FOR = "inputsChosenFor"
    BY_NAME = "{}ByName"
    COMPUTED_FROM = "computedFrom"

    def bound(self):
        """Preselect the first acquisition."""
        if not self.parameters.signal:
            from ..scene.naming import first_acquisition

            self.parameters.signal = first_acquisition()

    def show(self):
        """Choose inputs by the names of the nodes, once for every acquisition; say which, and which stay.

        What the user has chosen stays; what was chosen by name for another acquisition does not. Maps that the panel
        has computed stay where the field acquisition does, unless maps of this acquisition are found.
        """
        from ..scene.naming import ROLES, field_acquisition, field_method_of, inputs_by_name

        parameters = self.parameters
        node, signal = parameters.parameterNode, parameters.signal
        if not signal:
            self.ui.chosenByNameLabel.visible = False
        if not signal or node.GetNodeReference(self.CHOSEN_FOR) is signal or slicer.mrmlScene.IsBatchProcessing():
            return
        node.SetNodeReferenceID(self.CHOSEN_FOR, signal.GetID())
        found = {**inputs_by_name(signal), "fieldSignal": field_acquisition(signal)}
        chosen, kept = [], []
        for role in ("fieldSignal", "fieldReference", *ROLES):
            current, new = getattr(parameters, role), found.get(role)
            if current and not (self._follows(role) and (new or not self._of_field_acquisition(current))):
                kept.append(current.GetName())
                continue
            self.choose(role, new)
            if new:
                chosen.append(new.GetName())
            if new and role == "fieldSignal":
                parameters.fieldMethod = field_method_of(new)
        if parameters.fieldProtocolPath:
            kept.append(os.path.basename(parameters.fieldProtocolPath))
        sentences = ((_("Chosen by name: {names}."), chosen), (_("Kept as chosen before: {names}."), kept))
        told = [text.format(names=", ".join(f"'{name}'" for name in names)) for text, names in sentences if names]
        self.ui.chosenByNameLabel.text = " ".join(told)
        self.ui.chosenByNameLabel.visible = bool(told)

    def choose(self, role, node):
        """Choose an input, or none, for the present acquisition alone: another one gets its own.

        Args:
            role: Name of the parameter.
            node: Node, or None.
        """
        setattr(self.parameters, role, node)
        self.parameters.parameterNode.SetNodeReferenceID(self.BY_NAME.format(role), node.GetID() if node else None)

    def _follows(self, role):
        """Return whether an input was chosen by name or computed, not by the user."""
        by_name = self.parameters.parameterNode.GetNodeReference(self.BY_NAME.format(role))
        return getattr(self.parameters, role) is by_name

    def _of_field_acquisition(self, node):
        """Return whether a map was computed from the chosen field acquisition."""
        source = node.GetNodeReference(self.COMPUTED_FROM)
        return source is not None and source is self.parameters.fieldSignal

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
