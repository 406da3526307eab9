"""Fixed and warped images against each other, and the change of the compartments."""

from slicer.i18n import tr as _

from NeuroCESTLib.panel.page import Page
from NeuroCESTLib.panel.tables import fitHeight

ROW_HEIGHT = 22
"""Height of a row of the table in pixels."""
FLICKER_MS = 500
"""Time in ms for which the flicker shows each image."""
MODES = (
    ("fade", _("Fade")),
    ("flicker", _("Flicker")),
    ("side", _("Side by side, linked")),
    ("checkerboard", _("Checkerboard")),
    ("difference", _("Difference")),
    ("jacobian", _("Local volume change (Jacobian)")),
    ("uncertainty", _("Uncertainty of the segmentations, side by side")),
    ("grid", _("Deformation grid")),
)
"""Ways to compare, with their texts."""
FADED = ("fade", "jacobian", "uncertainty", "grid")
"""Ways to compare in which the opacity of what lies above can be chosen."""
UNCERTAINTY = {"fixed uncertainty", "moving uncertainty", "moving to fixed"}
"""Names of the results that the comparison of the uncertainties needs."""
COLUMNS = {
    "region": _("Region"),
    "fixed_ml": _("Fixed, ml"),
    "moving_ml": _("Moving, ml"),
    "change_ml": _("Change, ml"),
    "change_percent": _("%"),
}
"""Shown columns of the table of changes and their headings."""
BOUNDS = {"fixed_ml": "fixed_bound", "moving_ml": "moving_bound"}
"""Columns that tell for which volumes the images show only the least one."""


class ComparePage(Page):
    """Shows the chosen pair of images in one of several ways; a run chooses its images, and others can be chosen."""

    _pair = None
    _layout = None
    _grid = None

    def setup(self):
        """List the ways to compare and connect the widgets."""
        import qt

        ui = self.ui
        for name, text in MODES:
            ui.compareModeComboBox.addItem(text, name)
        ui.compareModeComboBox.connect("currentIndexChanged(int)", self.compare)
        ui.fadeSlider.connect("valueChanged(int)", self.onFaded)
        ui.tileSpinBox.connect("valueChanged(int)", self.compare)
        ui.changesTable.horizontalHeader().setSectionResizeMode(qt.QHeaderView.ResizeToContents)
        fitHeight(ui.changesTable)
        ui.changesTable.verticalHeader().setVisible(False)
        ui.changesTable.verticalHeader().setDefaultSectionSize(ROW_HEIGHT)
        ui.changesTable.setEditTriggers(qt.QAbstractItemView.NoEditTriggers)
        self.timer = qt.QTimer()
        self.timer.setInterval(FLICKER_MS)
        self.timer.connect("timeout()", self.flicker)

    def show(self):
        """Show what belongs to the pair and the mode; compare again where the pair has changed."""
        pair = self.pair()
        if pair != self._pair:
            self._pair = pair
            self._showChanges()
            self.compare()
        self._showRows()

    def bound(self):
        """Show the table of the scene, as soon as a scene that has been loaded has its folders."""
        import qt

        self._showChanges()
        qt.QTimer.singleShot(0, self._showChanges)

    def leave(self):
        """Stop the flicker and go back to the earlier layout; what is ended so begins again on return."""
        if self._end():
            self._pair = None

    def pair(self):
        """Return the fixed and the warped volume node; None for what is not chosen."""
        return (self.parameters.comparedFixed, self.parameters.comparedWarped) if self.parameters else (None, None)

    def choose(self, fixed, warped):
        """Choose the images of a run, which shows them faded."""
        if not self.parameters:  # the module has been left during the run
            return
        self.ui.compareModeComboBox.currentIndex = 0
        self.ui.fadeSlider.value = 50
        self.parameters.comparedFixed, self.parameters.comparedWarped = fixed, warped
        self._showChanges()

    def mode(self):
        """Return the chosen way to compare."""
        return self.ui.compareModeComboBox.currentData

    def results(self):
        """Return the nodes beside the warped image in its folder, by name; see ``scene.results.results_in``."""
        from NeuroCESTLib.scene import hierarchy

        from ..scene.results import results_in

        warped = self.pair()[1]
        folder = hierarchy.nearest_folder_of(warped) if warped else 0
        return results_in(folder) if folder else {}

    def folder(self):
        """Return the name of the folder of the warped image; empty without one."""
        from NeuroCESTLib.scene import hierarchy

        warped = self.pair()[1]
        return hierarchy.folder_of(warped) if warped else ""

    def compare(self, _value=None):
        """Show the pair in the chosen way."""
        self._end()
        self._showRows()
        fixed, warped = self.pair()
        if fixed is None or warped is None:
            return
        self.ui.compareNoteLabel.text = ""
        try:
            self._show(fixed, warped)
        except ValueError as error:  # such as a volume without an image, or under a transform that is not linear
            self.ui.compareNoteLabel.text = str(error)
            self._showRows()

    def _show(self, fixed, warped):
        """Show a pair in the chosen way; raise ValueError where a volume cannot be shown so."""
        from ..scene import comparison

        mode, opacity, results = self.mode(), self.ui.fadeSlider.value / 100, self.results()
        comparison.show_outlines(results.values())
        comparison.show_in_robust_window(fixed)
        if mode == "side":
            self._showSideBySide(fixed, warped)
        elif mode == "uncertainty" and results.keys() >= UNCERTAINTY:
            self._showSideBySide(fixed, warped)
            maps = (results["fixed uncertainty"], results["moving uncertainty"])
            comparison.show_uncertainty(*maps, results["moving to fixed"], opacity)
        elif mode == "checkerboard":
            comparison.show_checkerboard(fixed, warped, self.ui.tileSpinBox.value)
        elif mode == "difference":
            comparison.show_difference(fixed, warped)
        elif mode == "jacobian" and "Jacobian determinant" in results:
            comparison.show_jacobian(fixed, results["Jacobian determinant"], opacity)
        elif mode == "grid" and "moving to fixed" in results:
            comparison.show_faded(fixed, warped, opacity)
            self._grid = results["moving to fixed"]
            comparison.show_grid(self._grid, True)
        else:
            comparison.show_faded(fixed, warped, opacity)
            if mode == "flicker":
                self.timer.start()
            elif mode != "fade":
                self.ui.compareNoteLabel.text = _("The folder of the warped image holds no result of this kind.")

    def _showSideBySide(self, fixed, warped):
        from NeuroCESTLib.scene.plots import SideBySideLayout

        from ..scene import comparison

        self._layout = SideBySideLayout()
        self._layout.enter()
        comparison.show_side_by_side(fixed, warped)

    def onFaded(self, value):
        """Take over another opacity of the image above."""
        from ..scene import comparison

        if self.mode() in FADED:
            comparison.set_opacity(value / 100)

    def flicker(self):
        """Show the other of the two images."""
        from ..scene import comparison

        self._warped_shown = not getattr(self, "_warped_shown", False)
        comparison.set_opacity(1.0 if self._warped_shown else 0.0)

    def _end(self):
        """End what the earlier way of comparing has started; return whether there was something to end."""
        from ..scene import comparison

        flickers = self.timer.isActive()
        ended = flickers or self._layout is not None or self._grid is not None
        if flickers:
            self.timer.stop()
            comparison.set_opacity(self.ui.fadeSlider.value / 100)
        if self._layout is not None:
            self._layout.leave()
            self._layout = None
        if self._grid is not None and self._grid.GetScene() is not None:
            comparison.show_grid(self._grid, False)
        self._grid = None
        return ended

    def _showRows(self):
        """Show the settings that the chosen way has."""
        mode, ui = self.mode(), self.ui
        for widget, used in (
            ("fadeSlider", mode in FADED),
            ("tileSpinBox", mode == "checkerboard"),
        ):
            getattr(ui, widget).visible = used
            getattr(ui, f"{widget}Label").visible = used
        ui.compareNoteLabel.visible = bool(ui.compareNoteLabel.text)

    def _showChanges(self):
        """Fill the table with the change of the compartments of the run."""
        import math

        import qt

        from NeuroCESTLib.scene.tables import table_columns

        table, widget = self.results().get("changes"), self.ui.changesTable
        columns = table_columns(table) if table else {}
        # A table of changes beside a map of another module has other columns.
        rows = len(columns["region"]) if COLUMNS.keys() <= columns.keys() else 0
        widget.visible = rows > 0
        widget.rowCount, widget.columnCount = rows, len(COLUMNS)
        widget.setHorizontalHeaderLabels(list(COLUMNS.values()))
        for column, name in enumerate(COLUMNS):
            bounds = columns.get(BOUNDS.get(name, ""), [""] * rows)
            for row in range(rows):
                value = columns[name][row]
                number = "" if isinstance(value, str) or math.isnan(value) else f"{value:.3g}"
                text = _words(value) if isinstance(value, str) else f"≥ {number}" if number and bounds[row] else number
                widget.setItem(row, column, qt.QTableWidgetItem(text))


def _words(region):
    """Return the name of a region in tables as words."""
    return region.replace("_", " ").replace("tumor", "tumour").replace("edema", "oedema").capitalize()
