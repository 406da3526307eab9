"""The selected value of the table of pools, edited in the fields under it."""

from slicer.i18n import tr as _

from NeuroCESTLib.panel.page import Page


class PoolValuePage(Page):
    """Fields under the table of the pools for the kind of the selected value and its numbers.

    Attributes:
        KINDS: Kinds of values with their texts, in the order of the choice.
    """

    KINDS = (
        ("fixed", _("Fixed")),
        ("fitted", _("Fitted, within bounds")),
        ("map", _("From a map, in each voxel")),
        ("tied", _("At a distance from the water")),
    )

    def setup(self):
        """Connect the widgets."""
        ui = self.ui
        for name in ("t1", "b0", "b1"):
            ui.cellMapComboBox.addItem(name)
        ui.poolTable.connect("currentCellChanged(int,int,int,int)", self.showCell)
        ui.cellKindComboBox.connect("activated(int)", self.onKindChosen)
        ui.cellMapComboBox.connect("currentTextChanged(QString)", self.onCellEdited)
        for name in ("Value", "Lower", "Upper", "PriorMean", "PriorSd"):
            getattr(ui, f"cell{name}LineEdit").connect("editingFinished()", self.onCellEdited)

    def showCell(self, *_place):
        """Show the parts of the selected value in the fields under the table."""
        from ..tables.cells import number_text

        ui, pools = self.ui, self.panel.pools
        row, key = pools.place()
        ui.cellBox.visible = bool(row and key) and pools.table().applies(pools.model, row, key)
        ui.cellBox.visible = not ui.cellBox.isHidden() and "word" not in pools.table().column(key).kinds
        if ui.cellBox.isHidden():
            return
        cell, column = pools.table().cell(pools.model, row, key), pools.table().column(key)
        kind = cell.kind if cell else "fixed"
        ui.cellBox.title = f"{row}: {_(column.title)}"
        choices = ui.cellKindComboBox
        choices.clear()
        for name, text in self.KINDS:
            if name in column.kinds:
                choices.addItem(text, name)
        choices.currentIndex = choices.findData(kind)
        ui.cellValueLineEditLabel.text = {
            "fitted": _("Start:"),
            "tied": _("Distance (ppm):"),
        }.get(kind, _("Value:"))
        has_prior = kind == "fitted" and "map" in column.kinds  # Lorentzian fits take none
        for names, visible in (
            (("cellValueLineEdit", "cellValueLineEditLabel"), kind != "map"),
            (("cellLowerLineEdit", "cellLowerLineEditLabel", "cellUpperLineEdit"), kind == "fitted"),
            (("cellPriorMeanLineEdit", "cellPriorMeanLineEditLabel", "cellPriorSdLineEdit"), has_prior),
            (("cellMapComboBox", "cellMapComboBoxLabel"), kind == "map"),
        ):
            for name in names:
                getattr(ui, name).visible = visible
        prior = cell.prior if cell and cell.prior else ("", "")
        bounds = cell.bounds if cell else ("", "")
        value = cell.value if cell else ""
        for name, number in zip(
            ("Value", "Lower", "Upper", "PriorMean", "PriorSd"), (value, *bounds, *prior), strict=True
        ):
            getattr(ui, f"cell{name}LineEdit").text = number_text(number) if number != "" else ""
        if cell and cell.sd:
            ui.cellValueLineEdit.text = cell.text()  # with its uncertainty
        if cell and kind == "map":
            blocked = ui.cellMapComboBox.blockSignals(True)
            ui.cellMapComboBox.setEditText(cell.name)
            ui.cellMapComboBox.blockSignals(blocked)

    def onKindChosen(self, index):
        """Make the selected value a fixed or fitted one, or take it from a map; its number stays."""
        from ..tables.cells import Cell

        pools = self.panel.pools
        row, key = pools.place()
        if not key:
            return
        kind, cell = self.ui.cellKindComboBox.itemData(index), pools.table().cell(pools.model, row, key)
        value = cell.value if cell else 0.0
        if cell and cell.kind == kind:
            return
        bounds = (min(0.5 * value, 2 * value), max(0.5 * value, 2 * value)) if value else (0.0, 1.0)
        name = "t1" if key == "T1_s" else {"B0 shift": "b0", "relative B1": "b1"}.get(row, "map.nii.gz")
        changed = Cell(kind, value, bounds, name=name if kind == "map" else "")
        pools.change(lambda table, model: table.with_cell(model, row, key, changed))

    def onCellEdited(self, *_text):
        """Take over the fields under the table."""
        pools = self.panel.pools
        row, key = pools.place()
        if not key or pools.model is None:
            return
        text = self._text_of_fields()
        if text and text != pools.table().text(pools.model, row, key):
            pools.change(lambda table, model: table.with_text(model, row, key, text))

    def _text_of_fields(self):
        """Return the fields under the table as the text of a cell; empty while one of them is empty."""
        ui = self.ui
        kind = ui.cellKindComboBox.currentData
        value, low, high, mean, sd = (
            getattr(ui, f"cell{name}LineEdit").text.strip()
            for name in ("Value", "Lower", "Upper", "PriorMean", "PriorSd")
        )
        if kind == "map":
            name = ui.cellMapComboBox.currentText.strip()
            return f"from {name}" if name else ""
        if kind == "tied":
            return f"water {'' if value.startswith('-') else '+'} {value}" if value else ""
        if kind == "fixed":
            return value
        prior = f" prior {mean} ± {sd}" if mean and sd else ""
        return f"{value} [{low}, {high}]{prior}" if value and low and high else ""
