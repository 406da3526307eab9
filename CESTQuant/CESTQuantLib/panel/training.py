"""Networks and schedules that are computed beside the application."""

import os
import re

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


class TrainingPage(Page):
    """Starts ``cestquant train`` and ``optimize-schedule`` as processes, and shows their log and loss while they run.

    The process goes on when the module is left. A stopped one continues where it was when it is started again.
    """

    def setup(self):
        """Fill and connect the widgets."""
        from NeuroCESTLib.panel.background_command import BackgroundCommand
        from NeuroCESTLib.scene.plots import SpectrumChart

        ui = self.ui
        for name, text in KINDS:
            ui.trainingKindComboBox.addItem(text, name)
        ui.trainingPresetComboBox.addItem(_("From a file"), "")
        for name in BUNDLED:
            ui.trainingPresetComboBox.addItem(name, name)
        self.command = BackgroundCommand(self.onLine, self.onEnd)
        self.chart = SpectrumChart("Training", _("epoch"), _("loss"), reversed_x=False)
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
        from_file = not ui.trainingPresetComboBox.currentData
        ui.trainingConfigPathLineEdit.visible = from_file
        ui.trainingConfigPathLineEditLabel.visible = from_file

    def start(self):
        """Start the chosen command."""
        output = self.parameters.trainingOutputPath
        self._result, self._loss, self._held_out = self.result(), {}, {}
        self.ui.trainingLog.clear()
        self.ui.trainingLog.visible = True
        self.ui.trainingProgressBar.value = 0
        self.ui.trainingNoteLabel.text = _("Running…")
        script = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "batch.py")
        target = self._result if self.kind() == "train" else output
        self.command.start(script, [self.kind(), self.config(), "--output", target])
        self.refresh()

    def onLine(self, line):
        """Show a line of the log, and take progress and loss from it."""
        from NeuroCESTLib.core.progress import progress_of_line

        self.ui.trainingLog.appendPlainText(line)
        progress = progress_of_line(line)
        if progress is None:
            return
        self.ui.trainingProgressBar.value = round(100 * progress[0])
        found = re.search(r"epoch (\d+): loss ([-+\d.e]+)(?:, held out ([-+\d.e]+))?", progress[1])
        if found:
            epoch = int(found[1])
            self._loss[epoch] = float(found[2])
            if found[3]:
                self._held_out[epoch] = float(found[3])
            self._draw()

    def _draw(self):
        """Draw the loss over the epochs."""
        import numpy as np

        from NeuroCESTLib.scene.plots import Curve

        curves = [
            Curve(name, np.array(list(values), float), np.array(list(values.values())), color)
            for name, values, color in (
                (_("training"), self._loss, (0.0, 0.45, 0.7)),
                (_("held out"), self._held_out, (0.84, 0.37, 0.0)),
            )
            if values
        ]
        self.chart.show(_("loss"), curves, (0, max(self._loss)))

    def onEnd(self, code):
        """Choose the network of a command that has succeeded; say how it ended."""
        lines = [line for line in self.ui.trainingLog.plainText.split("\n") if line.strip()]
        if code == 0 and os.path.isfile(self._result):
            self.ui.trainingNoteLabel.text = _("Finished; the network {path} is chosen.").format(path=self._result)
            if self.parameters:
                self.parameters.networkPath = self._result
        elif code is None or code < 0 or code >= 128:
            self.ui.trainingNoteLabel.text = _("Stopped; Start continues where it was.")
        else:
            self.ui.trainingNoteLabel.text = (
                lines[-1] if lines else _("The command failed with status {code}.").format(code=code)
            )
        self.refresh()
