"""The maps that the slice views show over the anatomy, their numbers over regions, and what a run warns of."""

import slicer
from slicer.i18n import tr as _

from NeuroCESTLib.panel.page import Page
from NeuroCESTLib.panel.tables import fitHeight

ROW_HEIGHT = 22
"""Height of a row of the table in pixels."""
STATISTICS = {"region": _("Region"), "n": _("Voxels"), "mean": _("Mean"), "sd": _("SD"), "median": _("Median")}
"""Shown columns of the table of regions and their headings."""


class ResultsPage(Page):
    """Choice of the map that is shown, and how."""

    _anatomy = None

    def setup(self):
        """Connect the choice of the map, its opacity and its colour range."""
        import qt

        ui = self.ui
        ui.shownMapComboBox.connect("currentIndexChanged(int)", self.onMapChosen)
        ui.opacitySlider.connect("valueChanged(int)", lambda value: self.onMapChosen())
        for edit in (ui.windowLowLineEdit, ui.windowHighLineEdit):
            edit.connect("editingFinished()", self.onWindowTyped)
        ui.regionsTable.horizontalHeader().setSectionResizeMode(qt.QHeaderView.ResizeToContents)
        fitHeight(ui.regionsTable)
        ui.regionsTable.verticalHeader().setVisible(False)
        ui.regionsTable.verticalHeader().setDefaultSectionSize(ROW_HEIGHT)
        ui.regionsTable.setEditTriggers(qt.QAbstractItemView.NoEditTriggers)
        self.warn(())

    def bound(self):
        """List the maps of the scene."""
        self._anatomy = self.parameters.anatomy
        self.offerMaps()

    def show(self):
        """Show the chosen map over another anatomy."""
        if self.parameters.anatomy is not self._anatomy:
            self._anatomy = self.parameters.anatomy
            self.onMapChosen()

    def anatomy(self):
        """Return the volume to show under the maps; None to keep what the views show."""
        return self.parameters.anatomy or self.panel.inputs.anatomy()

    def offerMaps(self, shown=None):
        """List the maps of the scene; where names repeat, with the folder of their run.

        Args:
            shown: Node of the map that the slice views show; None where they show none of them.
        """
        from NeuroCESTLib.scene import display

        from ..scene.naming import folder_of_run

        choices = self.ui.shownMapComboBox
        blocked = choices.blockSignals(True)  # filling the list shows nothing
        choices.clear()
        maps = display.shown_maps()
        names = [node.GetName() for node in maps]
        for node in maps:
            run = folder_of_run(node)
            folder = slicer.mrmlScene.GetSubjectHierarchyNode().GetItemName(run) if run else ""
            title = f"{node.GetName()} ({folder})" if names.count(node.GetName()) > 1 and folder else node.GetName()
            choices.addItem(title, node.GetID())
        choices.currentIndex = choices.findData(shown.GetID()) if shown else -1
        self.ui.resultsSection.visible = bool(maps)
        choices.blockSignals(blocked)
        self._showDetails()

    def shownMap(self):
        """Return the node of the chosen map, or None."""
        return slicer.mrmlScene.GetNodeByID(self.ui.shownMapComboBox.currentData or "")

    def onMapChosen(self, index=None, fit=False):
        """Show the chosen map over the anatomy, in the chosen opacity, with its range and regions.

        Args:
            index: Number of the map in the list, as the widget tells it.
            fit: Whether to fit the slice views to the map; otherwise they stay where the user has brought them.
        """
        from NeuroCESTLib.scene import display

        node = self.shownMap()
        if fit:
            display.turn_views(node)
        if node and self.parameters:
            display.show_over(node, self.anatomy(), self.ui.opacitySlider.value / 100, fit=fit)
        self._showDetails()

    def onWindowTyped(self):
        """Spread the colours over the range that the user has typed."""
        from NeuroCESTLib.scene import display

        node = self.shownMap()
        try:
            low, high = (float(edit.text) for edit in (self.ui.windowLowLineEdit, self.ui.windowHighLineEdit))
            if node:
                display.set_window(node, low, high)
        except ValueError:
            self._showDetails()  # as it was

    def showResult(self, result):
        """Show the main map of a result over the anatomy, and its warnings."""
        from NeuroCESTLib.scene import display

        self.warn(result.report["warnings"])
        if self.parameters.segmentation:
            display.outline(self.parameters.segmentation)
        self.offerMaps(result.mainMap)
        self.onMapChosen(fit=True)

    def warn(self, sentences):
        """Show the warnings of a run."""
        self.ui.warningsLabel.text = "\n".join(f"⚠ {sentence}" for sentence in sentences)
        self.ui.warningsLabel.visible = bool(sentences)

    def _showDetails(self):
        """Show colour range, unit and regions of the chosen map."""
        from NeuroCESTLib.scene import display

        node, ui = self.shownMap(), self.ui
        shown = node.GetScalarVolumeDisplayNode() if node else None
        for edit, value in (
            (ui.windowLowLineEdit, shown and shown.GetWindowLevelMin()),
            (ui.windowHighLineEdit, shown and shown.GetWindowLevelMax()),
        ):
            edit.text = "" if shown is None else f"{value:.4g}"
            edit.enabled = shown is not None
        ui.windowUnitLabel.text = display.unit_of(node) if node else ""
        self._showRegions(node)

    def _showRegions(self, node):
        """Fill the table with the rows of the map in the table of its run."""
        import qt

        rows, widget = _rows_of(node) if node else [], self.ui.regionsTable
        widget.visible = bool(rows)
        widget.rowCount, widget.columnCount = len(rows), len(STATISTICS)
        widget.setHorizontalHeaderLabels(list(STATISTICS.values()))
        for number, row in enumerate(rows):
            for column, name in enumerate(STATISTICS):
                text = f"{row[name]:.4g}" if isinstance(row[name], float) else str(row[name])
                widget.setItem(number, column, qt.QTableWidgetItem(text))


def _rows_of(node):
    """Return the rows of a map in the table of regions that lies in the same folder."""
    from NeuroCESTLib.scene import hierarchy, tables

    from ..scene.naming import folder_of_run

    folder = folder_of_run(node)
    for table in hierarchy.nodes_in(folder) if folder else []:
        if table.IsA("vtkMRMLTableNode"):
            columns = tables.table_columns(table)
            if {"quantity", *STATISTICS} <= set(columns):
                chosen = [i for i, name in enumerate(columns["quantity"]) if name == node.GetName()]
                return [{name: columns[name][i] for name in STATISTICS} for i in chosen]
    return []
