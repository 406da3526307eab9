"""Network, alignment and refinement."""

import os

from slicer.i18n import tr as _

from NeuroCESTLib.panel.page import Page

TITLES = {"neurocest": "Tumour (bundled weights)"}
"""What the networks of the package are called."""
OF_REFINEMENT = ("similarityComboBox", "regulariserComboBox", "regularisationSpinBox", "timeLimitSpinBox")
"""Widgets that only a refinement needs."""


class MethodPage(Page):
    """Settings of segmentation and registration; the registry of similarities says what the refinement can maximise."""

    def setup(self):
        """List the networks and the similarities."""
        import qt

        from ..network.shipped import SHIPPED
        from ..registration.similarity import SIMILARITIES

        networks = self.ui.networkComboBox
        for name, knows in SHIPPED.items():
            networks.addItem(_(TITLES.get(name, name)), name)
            networks.setItemData(networks.count - 1, _("Knows {what}.").format(what=_(knows)), qt.Qt.ToolTipRole)
        networks.addItem(_("From a file…"), "")
        networks.connect("currentIndexChanged(int)", self.onNetworkChosen)
        choices = self.ui.similarityComboBox
        choices.addItem(_("Default"), "")
        for name, similarity in SIMILARITIES.items():
            choices.addItem(_(similarity.title), name)
            choices.setItemData(
                choices.count - 1, _("For {images}.").format(images=similarity.suits), qt.Qt.ToolTipRole
            )
        choices.connect("currentIndexChanged(int)", self.onSimilarityChosen)

    def onNetworkChosen(self, index):
        """Take over the network that the user has chosen."""
        name = self.ui.networkComboBox.itemData(index)
        if not self.parameters or name is None or name == self.chosen():
            return
        self.parameters.network = name
        if name:
            self.parameters.weightsPath = ""

    def chosen(self):
        """Return the name of the chosen weights of the package; empty for those of a file, which come first."""
        from ..network.shipped import SHIPPED

        name = self.parameters.network
        return name if name in SHIPPED and not self.parameters.weightsPath else ""

    def weights(self):
        """Return the name of the chosen weights of the package, or the path of the file; empty without a file."""
        return self.chosen() or self.parameters.weightsPath

    def onSimilarityChosen(self, index):
        """Take over the similarity that the user has chosen."""
        name = self.ui.similarityComboBox.itemData(index)
        if self.parameters and name is not None and self.parameters.similarity != name:
            self.parameters.similarity = name

    def show(self):
        """Show the chosen similarity, and the rows that the other choices leave to choose."""
        ui, parameters = self.ui, self.parameters
        ui.similarityComboBox.currentIndex = ui.similarityComboBox.findData(parameters.similarity)
        networks = ui.networkComboBox
        networks.currentIndex = networks.findData(self.chosen())
        from_file = not self.chosen()
        tumors = (parameters.fixedTumor, parameters.movingTumor)
        for widget, used in (
            *((name, parameters.refineIterations != 0) for name in OF_REFINEMENT),
            ("networkComboBox", parameters.segment),
            ("weightsPathLineEdit", parameters.segment and from_file),
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
        if not self.weights():
            return [_("Choose a weights file, or a network of the package.")]
        if path and not os.path.isfile(path):
            return [_("The weights file {path} does not exist.").format(path=path)]
        return []
