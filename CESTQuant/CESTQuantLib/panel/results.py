"""The maps that the slice views show over the anatomy."""

import slicer

from NeuroCESTLib.panel.page import Page


class ResultsPage(Page):
    """Choice of the map that is shown, and how."""

    def setup(self):
        """Connect the choice of the map and its opacity."""
        self.ui.shownMapComboBox.connect("currentIndexChanged(int)", self.onMapChosen)
        self.ui.opacitySlider.connect("valueChanged(int)", self.onMapChosen)

    def bound(self):
        """List the maps of the scene."""
        self.offerMaps()

    def offerMaps(self, shown=None):
        """List the maps of the scene; where names repeat, with the folder of their run.

        Args:
            shown: Node of the map that the slice views show; None where they show none of them.
        """
        from NeuroCESTLib.scene import display, hierarchy

        choices = self.ui.shownMapComboBox
        blocked = choices.blockSignals(True)  # filling the list shows nothing
        choices.clear()
        maps = display.shown_maps()
        names = [node.GetName() for node in maps]
        for node in maps:
            folder = hierarchy.folder_of(node)
            title = f"{node.GetName()} ({folder})" if names.count(node.GetName()) > 1 and folder else node.GetName()
            choices.addItem(title, node.GetID())
        choices.currentIndex = choices.findData(shown.GetID()) if shown else -1
        self.ui.resultsSection.visible = bool(maps)
        choices.blockSignals(blocked)

    def onMapChosen(self, index=None):
        """Show the chosen map over the anatomy, in the chosen opacity."""
        from NeuroCESTLib.scene import display

        node = slicer.mrmlScene.GetNodeByID(self.ui.shownMapComboBox.currentData or "")
        if node and self.parameters:
            display.show_over(node, self.panel.inputs.anatomy(), self.ui.opacitySlider.value / 100)

    def showResult(self, result):
        """Show the main map of a result over the anatomy."""
        self.offerMaps(result.mainMap)
        self.onMapChosen()
