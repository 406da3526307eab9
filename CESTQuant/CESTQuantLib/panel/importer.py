"""Scanner files into the scene: which series a folder has, and what their files do not say of the protocol."""

import os

import slicer
from slicer.i18n import tr as _

from NeuroCESTLib.panel.page import Page

ROW_HEIGHT = 22
"""Height of a row of the tables in pixels."""
MOST_ROWS = 8
"""Rows of the list of series that are seen at once."""


class ImportPage(Page):
    """Imports a series and lets the user fill in what the scanner files leave open.

    What is open is read from the acquisition that is chosen, so it is saved with the scene and can be filled in later.

    Attributes:
        found: Series of the folder, in the order of the table.
        chosen_source: Folder that they are in.
    """

    def setup(self):
        """Connect the widgets."""
        import qt

        self.found, self.chosen_source, self._refused = [], "", ""
        ui = self.ui
        for table, columns in ((ui.seriesTable, [_("Series")]), (ui.openValuesTable, [_("Value")])):
            table.columnCount = len(columns)
            table.setHorizontalHeaderLabels(columns)
            table.verticalHeader().setDefaultSectionSize(ROW_HEIGHT)
            table.horizontalHeader().setStretchLastSection(True)
            table.horizontalHeader().setVisible(False)
        ui.seriesTable.verticalHeader().setVisible(False)
        ui.seriesTable.setEditTriggers(qt.QAbstractItemView.NoEditTriggers)
        ui.seriesTable.visible = False
        self.say("")
        ui.findSeriesButton.connect("clicked(bool)", lambda checked: self.panel.work(self.find))
        ui.importButton.connect("clicked(bool)", lambda checked: self.panel.work(self.importChosen))
        ui.seriesTable.connect("itemSelectionChanged()", self.enable)
        ui.openValuesTable.connect("cellChanged(int,int)", self.onValueTyped)

    def show(self):
        """Enable what can be clicked, and show what the chosen acquisition leaves open."""
        if self.parameters.importSourcePath != self.chosen_source:
            self._list([], "")
        self.enable()
        self._showOpenValues()

    def enable(self):
        """Enable the buttons, which say in their tool tips what is missing."""
        ui, source = self.ui, self.parameters.importSourcePath if self.parameters else ""
        exists = os.path.exists(source)
        ui.findSeriesButton.enabled = exists
        ui.findSeriesButton.toolTip = (
            _("Look for the series in the folder.") if exists else _("Choose the folder of the scanner files.")
        )
        missing = self.missingHere()
        ui.importButton.enabled = not missing
        ui.importButton.toolTip = missing or _("Put the chosen series into the scene.")
        refused = missing if len(self.selected()) > 1 else ""
        if refused or ui.importNoteLabel.text == self._refused:  # other notes stay
            self.say(refused)
        self._refused = refused

    def missingHere(self):
        """Return why the chosen series cannot be imported, as a sentence; empty where they can."""
        chosen = self.selected()
        if not chosen:
            return _("List the series and choose one.")
        if len(chosen) == 1:
            return ""
        if not all(entry.can_be_joined for entry in chosen):
            return _("Choose one: only DICOM series with numbers can be joined to one acquisition.")
        first, last = int(chosen[0].scan), int(chosen[-1].scan)
        between = [each for each in self.found if each.can_be_joined and first <= int(each.scan) <= last]
        if between != chosen:
            return _("Choose series that follow each other without a gap: series {first} to {last} are joined.").format(
                first=first, last=last
            )
        return ""

    def say(self, text):
        """Show a sentence under the tables."""
        self.ui.importNoteLabel.text = text
        self.ui.importNoteLabel.visible = bool(text)

    def selected(self):
        """Return the series that are chosen in the table."""
        rows = {index.row() for index in self.ui.seriesTable.selectedIndexes()}
        return [self.found[row] for row in sorted(rows) if row < len(self.found)]

    def find(self, progress):
        """List the series of the folder, and choose the first one of CEST; return how many there are."""
        from NeuroCESTLib.core.background import in_background

        from ..formats.scanner.sources import list_scans

        source = self.parameters.importSourcePath
        found = in_background(lambda report: list_scans(source), progress)
        self._list(found, source)
        cest = [row for row, entry in enumerate(found) if entry.is_cest]
        self.ui.seriesTable.selectRow(cest[0] if cest else 0)
        return _("{count} series, {cest} of them of CEST: choose one and import it.").format(
            count=len(found), cest=len(cest)
        )

    def _list(self, found, source):
        """Show series of a folder."""
        import qt

        self.found, self.chosen_source = found, source
        table = self.ui.seriesTable
        table.rowCount = len(found)
        for row, entry in enumerate(found):
            item = qt.QTableWidgetItem(entry.title)
            item.setToolTip(entry.title)
            table.setItem(row, 0, item)
        table.visible = bool(found)
        table.setFixedHeight(ROW_HEIGHT * min(len(found), MOST_ROWS) + 4)

    def importChosen(self, progress):
        """Import the chosen series, choose it as the acquisition if it is one, and return what was done."""
        entries = self.selected()
        scan = entries[0].scan
        if len(entries) > 1:  # acquisitions of which every measurement is a series of its own
            scan = f"{scan}-{entries[-1].scan}"
        imported = self.logic.importScan(
            entries[0].source, scan=scan, offsets=self.parameters.importOffsetsPath or None, progress=progress
        )
        self.say("\n".join(f"⚠ {sentence}" for sentence in imported.warnings))
        name = imported.node.GetName()
        if imported.protocol is None:
            return _("The images '{name}' are in the scene; they have no saturation offsets.").format(name=name)
        with slicer.util.NodeModify(self.parameters.parameterNode):
            self.parameters.signal = imported.node
            self.parameters.protocolPath = ""
            self.parameters.protocol = ""
        if imported.open:
            return _("The acquisition '{name}' is in the scene; fill in what its files do not say.").format(name=name)
        return _("The acquisition '{name}' is in the scene with its protocol.").format(name=name)

    def _showOpenValues(self):
        """Show what the protocol of the chosen acquisition leaves open."""
        import qt

        from ..formats.scanner.saturation import ASSUMPTIONS

        signal, table = self.parameters.signal, self.ui.openValuesTable
        try:
            self._open = self.logic.openValues(signal) if signal else {}
        except ValueError:
            self._open = {}  # the page of the protocol says that it is damaged
        for widget in (self.ui.openValuesLabel, table):
            widget.visible = bool(self._open)
        blocked = table.blockSignals(True)  # filling the table edits nothing
        table.rowCount = len(self._open)
        for row, (key, title) in enumerate(self._open.items()):
            heading, item = qt.QTableWidgetItem(_(title)), qt.QTableWidgetItem("")
            for each in (heading, item):
                each.setToolTip(_(ASSUMPTIONS.get(key, title)))
            table.setVerticalHeaderItem(row, heading)
            table.setItem(row, 0, item)
        table.setFixedHeight(ROW_HEIGHT * len(self._open) + 4)
        table.blockSignals(blocked)

    def onValueTyped(self, row, column):
        """Keep a value that the user has typed with the acquisition."""
        key, text = list(self._open)[row], self.ui.openValuesTable.item(row, column).text()
        try:
            self.logic.fillIn(self.parameters.signal, key, text)
            self.say(_("{what} is kept with the acquisition.").format(what=_(self._open[key])))
        except ValueError as error:
            self.say(str(error))
        self.panel.refresh()
