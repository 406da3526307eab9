"""The pools of the model as a table that is edited in place: tissue models and Lorentzian pools."""

import json
import os

import slicer
from slicer.i18n import tr as _

from NeuroCESTLib.panel.edited_value import EditedValue
from NeuroCESTLib.panel.file_version import file_version
from NeuroCESTLib.panel.page import Page
from NeuroCESTLib.panel.tables import fitHeight

ROW_HEIGHT = 24
"""Height of a row of the table in pixels."""


class PoolsPage(Page):
    """Table of the pools that the chosen method fits.

    The model is kept as JSON text in the parameter ``model`` or ``lorentzian``, and so it is saved with the scene. As
    long as nothing was edited, this text is empty, and the chosen file or preset is the model.

    Attributes:
        model: The model that is shown, or None.
    """

    edited = {name: EditedValue(name) for name in ("model", "lorentzian")}  # noqa: RUF012
    _shown = None
    model = None
    _has_peaks = False

    def setup(self):
        """List the models to start from and connect the widgets."""
        import qt

        from ..formats import presets

        ui, choices = self.ui, self.ui.modelPresetComboBox
        choices.addItem(_("Choose a tissue or phantom…"), "")
        for name in presets.model_names():
            choices.addItem(name[0].upper() + name[1:], name)
            choices.setItemData(choices.count - 1, presets.model_source(name), qt.Qt.ToolTipRole)
        choices.connect("activated(int)", self.onPresetChosen)
        ui.poolTable.connect("cellChanged(int,int)", self.onCellTyped)
        ui.addPoolButton.connect("clicked(bool)", lambda checked: self.change(lambda t, m: t.with_pool(m)))
        ui.addSemisolidButton.connect("clicked(bool)", lambda checked: self.change(lambda t, m: t.with_semisolid(m)))
        ui.removePoolButton.connect("clicked(bool)", self.onRemove)
        ui.savePoolsButton.connect("clicked(bool)", self.onSave)
        header = ui.poolTable.horizontalHeader()
        header.setSectionResizeMode(qt.QHeaderView.ResizeToContents)
        header.setHighlightSections(False)
        fitHeight(ui.poolTable)
        ui.poolTable.verticalHeader().setVisible(False)
        ui.poolTable.verticalHeader().setDefaultSectionSize(ROW_HEIGHT)

    def kind(self):
        """Return which model the chosen method fits: ``model``, ``lorentzian``, or none as an empty text."""
        used = self.panel.methods.used()
        return "lorentzian" if "lorentzian" in used else "model" if "model" in used else ""

    def table(self):
        """Return the table of the model that the chosen method fits."""
        from ..tables.peaks import PlofTable
        from ..tables.pools import LorentzianTable, TissueTable

        if self.kind() != "lorentzian":
            return TissueTable()
        return PlofTable() if self._has_peaks else LorentzianTable()

    def missing(self):
        """Return the maps that the model refers to and that are not chosen."""
        if self.kind() != "model" or self.model is None:
            return []
        from ..tables.cells import maps_of

        used = maps_of(self.model)
        return [
            _("Choose the {name} map: the model refers to it.").format(name=name.upper())
            for name in self.panel.methods.MAPS
            if name in used and not getattr(self.parameters, name)
        ]

    def given(self, kind):
        """Return what the Logic gets: the edited model as dictionary, else the file or preset; None without a model.

        Args:
            kind: ``model`` or ``lorentzian``.

        Raises:
            ValueError: The scene holds a damaged model.
        """
        edited = self.edited[kind].get(self.parameters)
        return edited if edited is not None else self.source(kind) or None

    def source(self, kind):
        """Return the chosen file of a tissue model, or preset of Lorentzian pools."""
        return self.parameters.modelPath if kind == "model" else self.parameters.lorentzianPreset

    def remember(self, presets):
        """Remember the Lorentzian pools, with what was edited, for the methods that can use these presets."""
        if presets:
            chosen = [self.parameters.lorentzianPreset, self.edited["lorentzian"].get(self.parameters)]
            self.parameters.parameterNode.SetAttribute(_remembered(presets), json.dumps(chosen))

    def recall(self, presets):
        """Choose Lorentzian pools that a method can use: those of last time, else the present ones or its default."""
        stored = self.parameters.parameterNode.GetAttribute(_remembered(presets))
        if stored is None and (not presets or self.parameters.lorentzianPreset in presets):
            return
        preset, pools = json.loads(stored) if stored else (presets[0], None)
        self.parameters.lorentzianPreset = preset
        self.parameters.lorentzian = ""
        if pools is not None:
            self.keep("lorentzian", pools)

    def keep(self, kind, model):
        """Keep an edited model in the parameter node."""
        self.edited[kind].keep(self.parameters, model, self.source(kind))

    def show(self):
        """Show the model where it has changed."""
        kind, parameters = self.kind(), self.parameters
        if any(edited.given_up(parameters, self.source(name)) for name, edited in self.edited.items()):
            return  # the change of the parameter has shown it
        self.ui.poolsSection.visible = bool(kind)
        for name in ("modelPresetComboBox", "modelPresetComboBoxLabel"):
            getattr(self.ui, name).visible = kind == "model"
        given = parameters.model, file_version(parameters.modelPath)
        key = kind, *given, parameters.lorentzian, parameters.lorentzianPreset
        if kind and key != self._shown:
            self._shown = key
            self._follow(kind)
            self._fill()

    def _follow(self, kind):
        """Take over the model from the parameters."""
        self.model = None
        self.say("")
        try:
            given = self.given(kind)
            self._has_peaks = "peaks" in given if isinstance(given, dict) else str(given).startswith("plof")
            self.model = self._read(kind, given)
        except ValueError as error:
            self.say(str(error))
            return
        if self.model is None:
            self.say(_("Choose a model to start from, or a model file; every value can then be edited here."))
        elif getattr(self.parameters, kind):
            self.say(_("Edited here and saved with the scene."))

    def _read(self, kind, given):
        """Return the model of a dictionary, a file or a preset; maps that lie beside a file are named by their path."""
        from NeuroCESTLib.core.checked_json import read_json

        from ..formats.presets import FOLDER
        from ..tables.pools import readable_model

        if given is None or isinstance(given, dict):
            return None if given is None else readable_model(self.table(), given, _("the model of the scene"))
        path = FOLDER / f"lorentzian_{given}.json" if kind == "lorentzian" else given
        if kind == "model" and not os.path.isfile(path):
            return None  # the page of the methods says so
        from ..scene.maps import with_paths

        return readable_model(self.table(), with_paths(read_json(path), path), str(path))

    def say(self, text):
        """Show a sentence under the table."""
        self.ui.poolsNoteLabel.text = text
        self.ui.poolsNoteLabel.visible = bool(text)

    def change(self, changed):
        """Change the model, and keep it in the parameter node.

        Args:
            changed: Function of table and model that returns another model; it may raise ValueError.
        """
        if self.model is None or not self.parameters:
            return
        before = self.model
        self.show()
        if self.model != before:
            self.say(_("The file has changed and is shown as it is now: make your change again."))
            return
        try:
            model = changed(self.table(), self.model)
        except ValueError as error:
            self._fill()
            self.say(str(error))
            return
        self.keep(self.kind(), model)

    def onPresetChosen(self, index):
        """Start from a model of the list."""
        from ..formats.presets import model_source, model_values

        name = self.ui.modelPresetComboBox.itemData(index)
        if name and self.parameters:
            with slicer.util.NodeModify(self.parameters.parameterNode):
                self.parameters.modelPath = ""
                self.keep("model", model_values(name))
            self.say(f"{name}: {model_source(name)}")

    def place(self):
        """Return the name of the row and the key of the column of the selected cell; the key is empty for the name."""
        table, rows = self.table(), self.table().rows(self.model) if self.model else []
        row, column = self.ui.poolTable.currentRow(), self.ui.poolTable.currentColumn()
        if not 0 <= row < len(rows) or not 0 <= column <= len(table.COLUMNS):
            return "", ""
        return rows[row], table.COLUMNS[column - 1].key if column else ""

    def onCellTyped(self, row, column):
        """Take over the name or the value that the user has typed into the table."""
        text, name = self.ui.poolTable.item(row, column).text(), self.table().rows(self.model)[row]
        if column == 0:
            self.change(lambda table, model: table.renamed(model, name, text))
        else:
            key = self.table().COLUMNS[column - 1].key
            self.change(lambda table, model: table.with_text(model, name, key, text))

    def onRemove(self, checked=False):
        """Remove the selected pool."""
        row, _key = self.place()
        self.change(lambda table, model: table.without(model, row))

    def onSave(self, checked=False):
        """Ask for a file and write the model to it."""
        import qt

        path = qt.QFileDialog.getSaveFileName(None, _("Save the model"), "model.json", _("Model (*.json)"))
        if path:
            with slicer.util.tryWithErrorDisplay(_("The model could not be saved.")):
                self.save(path)

    def save(self, path):
        """Write the model to a file, as the batch command takes it.

        Raises:
            ValueError: There is no model, or the file cannot be written.
        """
        from NeuroCESTLib.core.whole_files import write_text

        from ..tables.pools import model_text

        self.show()  # the file may have changed
        if self.model is None:
            raise ValueError(_("There is no model to save: choose one to start from."))
        write_text(model_text(self.model), path)
        self.say(_("Saved as {path}.").format(path=path))

    def _fill(self):
        """Fill the table; the selection stays where it was."""
        import qt

        table, widget = self.table(), self.ui.poolTable
        selected = widget.currentRow(), widget.currentColumn()
        blocked = widget.blockSignals(True)  # filling the table edits nothing
        rows = table.rows(self.model) if self.model else []
        widget.clear()
        widget.rowCount, widget.columnCount = len(rows), 1 + len(table.COLUMNS)
        widget.setHorizontalHeaderLabels([_("Pool"), *(_(column.title) for column in table.COLUMNS)])
        for number, column in enumerate(table.COLUMNS, start=1):
            widget.horizontalHeaderItem(number).setToolTip(_(column.description))
        for number, row in enumerate(rows):
            name = qt.QTableWidgetItem(row)
            name.setFlags(_flags(table.is_pool(self.model, row)))
            widget.setItem(number, 0, name)
            for place, column in enumerate(table.COLUMNS, start=1):
                widget.setItem(number, place, self._item(table, row, column))
        widget.setCurrentCell(*selected)
        widget.blockSignals(blocked)
        semisolid = getattr(table, "SEMISOLID", None)
        self.ui.addSemisolidButton.visible = semisolid is not None and semisolid not in rows
        for button in ("addPoolButton", "removePoolButton", "savePoolsButton", "addSemisolidButton"):
            getattr(self.ui, button).enabled = self.model is not None
        self.ui.poolTable.visible = self.model is not None
        self.panel.poolValue.showCell()

    def _item(self, table, row, column):
        """Return the item of a value: fitted ones and those from maps stand out, and what does not apply is grey."""
        import qt

        applies = table.applies(self.model, row, column.key)
        cell = table.cell(self.model, row, column.key) if applies else None
        item = qt.QTableWidgetItem(cell.text() if cell else "")
        item.setFlags(_flags(applies))
        color = {"fitted": "#cfe3f7", "map": "#d5edd6", "tied": "#d5edd6"}.get(cell.kind if cell else "")
        if color or not applies:
            item.setBackground(qt.QBrush(qt.QColor(color or "#e4e4e4")))
            item.setForeground(qt.QBrush(qt.QColor("#202020")))
        item.setToolTip(_(column.description) if applies else _("Does not apply to this row."))
        return item


def _remembered(presets):
    """Return the attribute of the parameter node with the pools of the methods that can use some presets."""
    return f"pools of {' '.join(presets)}"


def _flags(editable):
    import qt

    selectable = qt.Qt.ItemIsSelectable | qt.Qt.ItemIsEnabled
    return selectable | qt.Qt.ItemIsEditable if editable else selectable
