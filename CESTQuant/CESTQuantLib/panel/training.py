"""Networks and schedules that are computed beside the application."""

import os
import re

import slicer
from slicer.i18n import tr as _

from NeuroCESTLib.panel.training import BackgroundTrainingPage

TRAIN = "train"
KINDS = {
    TRAIN: _("Network for a fixed protocol"),
    "optimize-schedule": _("Schedule and network as one"),
}
"""Commands with their texts."""
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
BLUE, GRAY = (0.0, 0.45, 0.7), (0.6, 0.6, 0.6)


class TrainingPage(BackgroundTrainingPage):
    """Starts ``cestquant train`` and ``optimize-schedule``; draws the schedule while it changes."""

    STEP = _("step")
    BUNDLED = ("autocest_phantom", "autocest_larginine", "autocest_guanidinium_7T", "larginine_9p4T")
    PACKAGE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

    _started = TRAIN
    _output = ""
    _record = None

    def titles(self):
        """Return the titles of the commands and of the configurations."""
        return {"trainingKind": KINDS, **super().titles()}

    def setup(self):
        """Fill and connect the widgets."""
        import qt

        from NeuroCESTLib.scene.plots import SpectrumChart

        ui = self.ui
        self.scheduleChart = SpectrumChart("Schedule", _("measurement"), "", reversed_x=False)
        self.look = qt.QTimer()
        self.look.setInterval(LOOK_MS)
        self.look.connect("timeout()", self.showSchedule)
        super().setup()
        ui.trainingQuantityComboBox.connect("currentIndexChanged(int)", lambda index: self.drawSchedule())

    def makeLayout(self):
        """Return the layout with the loss above the schedule."""
        from NeuroCESTLib.scene.plots import TwoPlotsLayout

        return TwoPlotsLayout()

    def showPlots(self):
        """Show the loss, and below it the schedule where one is optimised."""
        self.layout.show(self.chart.node, self.scheduleChart.node if self._started != TRAIN else None)

    def kind(self):
        """Return the name of the chosen command."""
        return self.parameters.trainingKind

    def result(self):
        """Return the network file that the command writes; empty without a chosen place."""
        return os.path.join(self.output(), "network.pt") if self.output() else ""

    def missingHere(self):
        """Return what is missing before the start, as a sentence; empty without a lack."""
        return self.missingConfig() or ("" if self.output() else _("Choose a folder for the results."))

    def arguments(self):
        """Return the arguments of the command."""
        target = self.result() if self.kind() == TRAIN else self.output()
        return [self.kind(), self.config(), "--output", target]

    def take(self, path):
        """Choose the network that a training has written."""
        self.parameters.networkPath = path

    def finishedText(self):
        """Return the sentence after a success, with a place for the path of the network."""
        if self._started == TRAIN:
            return super().finishedText()
        return _("Finished; the network {path} is chosen, and its schedule lies beside it as protocol.seq.")

    def refresh(self, _index=None):
        """Enable what can be clicked now."""
        super().refresh()
        for widget in (self.ui.trainingQuantityComboBox, self.ui.trainingQuantityComboBoxLabel):
            widget.visible = self._record is not None

    def start(self):
        """Start the chosen command."""
        self._output, self._started, self._record = self.output(), self.kind(), None
        super().start()
        if self._started != TRAIN:
            self.look.start()

    def bound(self):
        """Show a training that was left, with its schedule."""
        super().bound()
        self.drawSchedule()

    def points(self, message):
        """Return network or phase, epoch and losses of a message of the progress, see the base class."""
        found = re.search(r"(.*)epoch (\d+): loss ([-+\d.e]+)(?:, held out ([-+\d.e]+))?", message)
        if not found:
            return None
        values = {_("training"): float(found[3])}
        if found[4]:
            values[_("held out")] = float(found[4])
        return found[1].rstrip(": "), int(found[2]), values

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
            phase = record["phase"]
            self._curves[phase] = {phase: dict(zip(record["steps"], record["losses"], strict=True))}
            self.draw(phase)
        self.drawSchedule()
        self.refresh()

    def drawSchedule(self):
        """Draw the chosen quantity of the schedule, at the start and now, over the measurements."""
        import numpy as np

        from NeuroCESTLib.scene.plots import Curve

        name = self.ui.trainingQuantityComboBox.currentData
        if not self.isHere() or self._record is None or name not in self._record["schedule"]:
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
        """Say how the command ended, with its last schedule drawn."""
        self.look.stop()
        if self._started != TRAIN:
            self.showSchedule()
        super().onEnd(code)
