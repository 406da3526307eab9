"""Network, alignment and refinement."""

import os

from slicer.i18n import tr as _

from NeuroCESTLib.panel.page import Page

OF_REFINEMENT = ("similarityComboBox", "regulariserComboBox", "regularisationSpinBox", "timeLimitSpinBox")
"""Widgets that only a refinement needs."""


class MethodPage(Page):
    """Settings of segmentation and registration; the registry of similarities says what the refinement can maximise."""

    def setup(self):
        """List the similarities."""
        import qt

        from ..registration.similarity import SIMILARITIES

        choices = self.ui.similarityComboBox
        choices.addItem(_("Default"), "")
        for name, similarity in SIMILARITIES.items():
            choices.addItem(_(similarity.title), name)
            choices.setItemData(
                choices.count - 1, _("For {images}.").format(images=similarity.suits), qt.Qt.ToolTipRole
            )
        choices.connect("currentIndexChanged(int)", self.onSimilarityChosen)

    def onSimilarityChosen(self, index):
        """Take over the similarity that the user has chosen."""
        name = self.ui.similarityComboBox.itemData(index)
        if self.parameters and name is not None and self.parameters.similarity != name:
            self.parameters.similarity = name

    def show(self):
        """Show the chosen similarity, and the rows that the other choices leave to choose."""
        ui, parameters = self.ui, self.parameters
        ui.similarityComboBox.currentIndex = ui.similarityComboBox.findData(parameters.similarity)
        tumors = (parameters.fixedTumor, parameters.movingTumor)
        for widget, used in (
            *((name, parameters.refineIterations != 0) for name in OF_REFINEMENT),
            ("weightsPathLineEdit", parameters.segment),
            ("labelsLineEdit", any(node and node.IsA("vtkMRMLLabelMapVolumeNode") for node in tumors)),
        ):
            getattr(ui, widget).visible = used
            getattr(ui, f"{widget}Label").visible = used
        ui.flipsCheckBox.visible = parameters.segment

    def missing(self):
        """Return what is wrong with the network."""
        if not self.parameters.segment:
            return []
        path = self.parameters.weightsPath
        if path and not os.path.isfile(path):
            return [_("The weights file {path} does not exist.").format(path=path)]
        if not path and not os.path.isfile(self.logic.shippedWeights()):
            return [_("Choose a weights file, or switch the segmentation off: the bundled weights are missing.")]
        return []
