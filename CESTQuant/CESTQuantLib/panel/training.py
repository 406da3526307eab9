"""Networks and schedules that are computed beside the application."""

import os
import re

import slicer
from slicer.i18n import tr as _

from NeuroCESTLib.panel.page import Page

KINDS = (
    ("train", _("Network for a fixed protocol")),
    ("optimize-schedule", _("Schedule and network as one")),
)
"""Commands with their texts."""
BUNDLED = ("autocest_phantom", "autocest_larginine", "autocest_guanidinium_7T", "larginine_9p4T")
"""Names of the bundled configurations."""
MOST_LINES = 500
"""Lines of the log that are kept."""
LOOK_MS = 1000
"""Time in ms between two looks at the schedule of a running optimisation."""
QUANTITIES = {
    "offsets_ppm": _("offset (ppm)"),
    "b1_uT": _("B1 (µT)"),
    "saturation_time_s": _("saturation time (s)"),
    "recovery_time_s": _("recovery time (s)"),
    "readout_flip_angle_deg": _("flip angle (°)"),
}
"""Quantities of a schedule that can be optimised, with their texts."""
BLUE, ORANGE, GRAY = (0.0, 0.45, 0.7), (0.84, 0.37, 0.0), (0.6, 0.6, 0.6)


class TrainingPage(Page):
    """Starts ``cestquant train`` and ``optimize-schedule`` as processes; shows log, loss and schedule while they run.

    The process goes on when the module is left. A stopped one continues where it was when it is started again.
    """

    def setup(self):
        """Fill and connect the widgets."""
        import qt

        from NeuroCESTLib.panel.background_command import BackgroundCommand
        from NeuroCESTLib.scene.plots import SpectrumChart, TwoPlotsLayout

        ui = self.ui
        for name, text in KINDS:
            ui.trainingKindComboBox.addItem(text, name)
        ui.trainingPresetComboBox.addItem(_("From a file"), "")
        for name in BUNDLED:
            ui.trainingPresetComboBox.addItem(name, name)
        self.command = BackgroundCommand(self.onLine, self.onEnd)
        self.chart = SpectrumChart("Training", _("step"), _("loss"), reversed_x=False)
        self.scheduleChart = SpectrumChart("Schedule", _("measurement"), "", reversed_x=False)
        self.layout = TwoPlotsLayout()
        self._output, self._started, self._record = "", "", None
        self._curves = {}
        self.look = qt.QTimer()
        self.look.setInterval(LOOK_MS)
        self.look.connect("timeout()", self.showSchedule)
        ui.trainingQuantityComboBox.connect("currentIndexChanged(int)", lambda index: self.drawSchedule())
        for choices in (ui.trainingKindComboBox, ui.trainingPresetComboBox):
            choices.connect("currentIndexChanged(int)", self.refresh)
        ui.startTrainingButton.connect("clicked(bool)", lambda checked: self.start())
        ui.stopTrainingButton.connect("clicked(bool)", lambda checked: self.command.stop())
        ui.trainingLog.setMaximumBlockCount(MOST_LINES)
        ui.trainingNoteLabel.text = ""
        ui.trainingLog.visible = False
        self.refresh()

    def show(self):
        """Show what can be started."""
        self.refresh()

    def kind(self):
        """Return the name of the chosen command."""
        return self.ui.trainingKindComboBox.currentData

    def config(self):
        """Return the configuration: a file, or the name of a bundled one."""
        return self.ui.trainingPresetComboBox.currentData or (
            self.parameters.trainingConfigPath if self.parameters else ""
        )

    def result(self):
        """Return the network file that the command writes; empty without a chosen place."""
        output = self.parameters.trainingOutputPath if self.parameters else ""
        if not output:
            return ""
        return os.path.join(output, "network.pt")

    def missingHere(self):
        """Return what is missing before the start, as a sentence; empty without a lack."""
        config = self.config()
        if not config:
            return _("Choose a configuration: a file or a bundled one.")
        if config not in BUNDLED and not os.path.isfile(config):
            return _("The configuration {path} does not exist.").format(path=config)
        if not self.result():
            return _("Choose a folder for the results.")
        return ""

    def refresh(self, _index=None):
        """Enable what can be clicked now."""
        ui, running, missing = self.ui, self.command.running, self.missingHere()
        ui.startTrainingButton.enabled = not missing and not running
        ui.startTrainingButton.toolTip = missing or _("Start the training beside the application.")
        ui.stopTrainingButton.enabled = running
        ui.trainingProgressBar.visible = running
        for widget in (ui.trainingQuantityComboBox, ui.trainingQuantityComboBoxLabel):
            widget.visible = self._record is not None
        from_file = not ui.trainingPresetComboBox.currentData
        ui.trainingConfigPathLineEdit.visible = from_file
        ui.trainingConfigPathLineEditLabel.visible = from_file

    def start(self):
        """Start the chosen command."""
        output = self.parameters.trainingOutputPath
        self._result, self._output, self._started = self.result(), output, self.kind()
        self._record, self._curves = None, {}
        self.ui.trainingLog.clear()
        self.ui.trainingLog.visible = True
        self.ui.trainingProgressBar.value = 0
        self.ui.trainingNoteLabel.text = _("Running…")
        script = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "batch.py")
        target = self._result if self.kind() == "train" else output
        self.command.start(script, [self.kind(), self.config(), "--output", target])
        if self._started != "train":
            self.look.start()
        self._showPlots()
        self.refresh()

    def bound(self):
        """Show the plots of a command that still runs, after the module has been left."""
        if self.command.running:
            self._showPlots()

    def leave(self):
        """Go back to the layout of before; the command goes on."""
        self.layout.leave()

    def _showPlots(self):
        self.layout.show(self.chart.node, self.scheduleChart.node if self._started != "train" else None)

    def onLine(self, line):
        """Show a line of the log, and take progress and loss from it."""
        from NeuroCESTLib.core.progress import progress_of_line

        self.ui.trainingLog.appendPlainText(line)
        progress = progress_of_line(line)
        if progress is None:
            return
        self.ui.trainingProgressBar.value = round(100 * progress[0])
        found = re.search(r"(.*)epoch (\d+): loss ([-+\d.e]+)(?:, held out ([-+\d.e]+))?", progress[1])
        if found:
            which, epoch = found[1].rstrip(": "), int(found[2])
            self._point(which, _("training"), epoch, float(found[3]), BLUE)
            if found[4]:
                self._point(which, _("held out"), epoch, float(found[4]), ORANGE)
            self._draw(which)

    def _point(self, which, name, step, loss, color):
        """Add a point to a curve of the loss; ``which`` is the network or phase that it belongs to."""
        self._curves.setdefault(which, {}).setdefault(name, (color, {}))[1][step] = loss

    def _draw(self, which):
        """Draw the loss of a network or phase over its epochs or steps."""
        import numpy as np

        from NeuroCESTLib.scene.plots import Curve

        shown = self._curves[which]
        curves = [
            Curve(name, np.array(list(points), float), np.array(list(points.values())), color)
            for name, (color, points) in shown.items()
        ]
        last = max(max(points) for _color, points in shown.values())
        self.chart.show(f"{which}: {_('loss')}" if which else _("loss"), curves, (0, last))

    def showSchedule(self):
        """Draw the schedule as the optimisation has it now, and the loss of its phase."""
        from ..schedules.progress_file import progress_of_run

        record = progress_of_run(self._output)
        if record is None or record == self._record:
            return
        self._record = record
        choices, names = self.ui.trainingQuantityComboBox, list(record["schedule"])
        if [choices.itemData(number) for number in range(choices.count)] != names:
            blocked = choices.blockSignals(True)  # filling the list draws nothing
            choices.clear()
            for name in names:
                choices.addItem(QUANTITIES.get(name, name), name)
            choices.blockSignals(blocked)
        if record["steps"]:
            points = dict(zip(record["steps"], record["losses"], strict=True))
            self._curves[record["phase"]] = {record["phase"]: (BLUE, points)}
            self._draw(record["phase"])
        self.drawSchedule()
        self.refresh()

    def drawSchedule(self):
        """Draw the chosen quantity of the schedule, at the start and now, over the measurements."""
        import numpy as np

        from NeuroCESTLib.scene.plots import Curve

        name = self.ui.trainingQuantityComboBox.currentData
        if self._record is None or name not in self._record["schedule"]:
            return
        curves = []
        for title, values, color in ((_("start"), "start", GRAY), (_("now"), "schedule", BLUE)):
            y = np.array(self._record[values][name], float)
            curves.append(Curve(title, np.arange(1, len(y) + 1, dtype=float), y, color))
        chart = self.scheduleChart.node
        with slicer.util.NodeModify(chart):
            chart.SetYAxisTitle(QUANTITIES.get(name, name))
            self.scheduleChart.show(self._record["phase"], curves, (0, len(curves[0].x) + 1))

    def onEnd(self, code):
        """Choose the network of a command that has succeeded; say how it ended."""
        self.look.stop()
        if self._started != "train":
            self.showSchedule()
        lines = [line for line in self.ui.trainingLog.plainText.split("\n") if line.strip()]
        if code == 0 and os.path.isfile(self._result):
            text = _("Finished; the network {path} is chosen.")
            if self._started != "train":
                text = _("Finished; the network {path} is chosen, and its schedule lies beside it as protocol.seq.")
            self.ui.trainingNoteLabel.text = text.format(path=self._result)
            if self.parameters:
                self.parameters.networkPath = self._result
        elif code is None or code < 0 or code >= 128:
            self.ui.trainingNoteLabel.text = _("Stopped; Start continues where it was.")
        else:
            self.ui.trainingNoteLabel.text = (
                lines[-1] if lines else _("The command failed with status {code}.").format(code=code)
            )
        self.refresh()
