"""A training that runs beside the application."""

import os

from slicer.i18n import tr as _

from NeuroCESTLib.panel.titled_choices import TitledChoices

MOST_LINES = 500
"""Lines of the log that are kept."""
COLORS = ((0.0, 0.45, 0.7), (0.84, 0.37, 0.0))
"""Colours of the curves, in their order."""


class BackgroundTrainingPage(TitledChoices):
    """Starts a command as a process, and shows its log and the curves of its training while it runs.

    The process goes on when the module is left. A stopped one continues where it was when it is started again. A module
    implements ``missingHere``, ``arguments``, ``result``, ``take`` and ``points``; where it shows more than the curves,
    it overrides ``makeLayout`` and ``showPlots``.

    Attributes:
        STEP: Title of the x axis of the curves: what ``points`` counts.
        BUNDLED: Names of the configurations that come with the module.
        PACKAGE: Folder of the module's library, in which its ``batch.py`` lies.
        STARTED: Attribute of the parameter node with the network that a training writes that was started from its
            scene: other scenes get neither the network nor the curves.
    """

    STEP = ""
    BUNDLED: tuple[str, ...] = ()
    PACKAGE = ""
    STARTED = "trainingStarted"

    _result = ""
    _finished = False
    _stopping = False
    _curves: dict[str, dict[str, dict[float, float]]] = {}  # noqa: RUF012  by part and name, values by step

    def missingHere(self):
        """Return what is missing before the start, as a sentence; empty without a lack."""
        raise NotImplementedError

    def arguments(self):
        """Return the arguments of the command."""
        raise NotImplementedError

    def result(self):
        """Return the file with the network that the command writes; empty without a chosen place."""
        raise NotImplementedError

    def take(self, path):
        """Choose the network that a training has written."""
        raise NotImplementedError

    def points(self, message):
        """Return what a message of the progress says of the training; None for other messages.

        Returns:
            The part of the training, which has curves of its own (empty where there is one part only), the step in it,
            and values by curve.
        """
        raise NotImplementedError

    def makeLayout(self):
        """Return the layout that shows the curves."""
        from NeuroCESTLib.scene.plots import PlotLayout

        return PlotLayout()

    def showPlots(self):
        """Show the curves in the layout."""
        self.layout.show(self.chart.node)

    def finishedText(self):
        """Return the sentence after a success, with a place for the path of the network."""
        return _("Finished; the network {path} is chosen.")

    def titles(self):
        """Return the titles of the configurations; that of the empty name stands for a file."""
        return {"trainingPreset": {"": _("From a file"), **{name: name for name in self.BUNDLED}}}

    def setup(self):
        """Fill and connect the widgets."""
        from NeuroCESTLib.panel.background_command import BackgroundCommand
        from NeuroCESTLib.scene.plots import SpectrumChart

        super().setup()
        ui = self.ui
        self.command = BackgroundCommand(self.onLine, self.onEnd)
        self.chart = SpectrumChart("Training", self.STEP, _("loss"), reversed_x=False)
        self.layout = self.makeLayout()
        ui.startTrainingButton.connect("clicked(bool)", lambda checked: self.start())
        ui.stopTrainingButton.connect("clicked(bool)", lambda checked: self.stop())
        ui.trainingLog.setMaximumBlockCount(MOST_LINES)
        self.say("")
        ui.trainingLog.visible = False
        self.refresh()

    def show(self):
        """Show what is chosen and what can be started."""
        super().show()
        self.refresh()

    def say(self, text):
        """Show a sentence under the log."""
        self.ui.trainingNoteLabel.text = text
        self.ui.trainingNoteLabel.visible = bool(text)

    def config(self):
        """Return the configuration: a file, or the name of a bundled one."""
        return self.parameters.trainingPreset or self.parameters.trainingConfigPath if self.parameters else ""

    def output(self):
        """Return the folder for the results; empty without a chosen one."""
        return self.parameters.trainingOutputPath if self.parameters else ""

    def missingConfig(self):
        """Return what is wrong with the configuration, as a sentence; empty if nothing is."""
        config = self.config()
        if not config:
            return _("Choose a configuration: a file or a bundled one.")
        if config not in self.BUNDLED and not os.path.isfile(config):
            return _("The configuration {path} does not exist.").format(path=config)
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
        self._result, self._curves, self._stopping, self._finished = self.result(), {}, False, False
        self.parameters.parameterNode.SetAttribute(self.STARTED, self._result)
        self.ui.trainingLog.clear()
        self.ui.trainingLog.visible = True
        self.ui.trainingProgressBar.value = 0
        self.say(_("Running…"))
        self.command.start(os.path.join(self.PACKAGE, "batch.py"), self.arguments())
        self.showPlots()
        self.refresh()

    def bound(self):
        """Show a training that still runs, or has ended after the module was left and whose network is chosen now."""
        if not self.isHere() or not (self.command.running or self._finished):
            return
        for part in self._curves:
            self.draw(part)
        if self.command.running:
            self.showPlots()
        if self._finished:
            self._choose()

    def isHere(self):
        """Whether the panel is open, with the scene that the training was started from."""
        return bool(self.parameters) and self.parameters.parameterNode.GetAttribute(self.STARTED) == self._result

    def leave(self):
        """Go back to the layout of before; the training goes on."""
        self.layout.leave()

    def stop(self):
        """Ask the command to stop, which keeps what it has learned so far."""
        self._stopping = True
        self.command.stop()

    def onLine(self, line):
        """Show a line of the log, and take progress and curves from it."""
        from NeuroCESTLib.core.progress import progress_of_line

        self.ui.trainingLog.appendPlainText(line)
        progress = progress_of_line(line)
        if progress is None:
            return
        self.ui.trainingProgressBar.value = round(100 * progress[0])
        found = self.points(progress[1])
        if found:
            part, step, values = found
            for name, value in values.items():
                self._curves.setdefault(part, {}).setdefault(name, {})[step] = value
            self.draw(part)

    def draw(self, part):
        """Draw the curves of a part of the training over its steps, in the scene that it was started from."""
        import numpy as np

        from NeuroCESTLib.scene.plots import Curve

        if not self.isHere():
            return

        curves = [
            Curve(name, np.array(list(values), float), np.array(list(values.values())), color)
            for (name, values), color in zip(self._curves[part].items(), COLORS, strict=False)
        ]
        title = f"{part}: {_('loss')}" if part else _("Training")
        self.chart.show(title, curves, (0, max(max(values) for values in self._curves[part].values())))

    def onEnd(self, code):
        """Choose the network of a command that has succeeded, if its scene is here; say how it ended."""
        lines = [line for line in self.ui.trainingLog.plainText.split("\n") if line.strip()]
        if code == 0 and os.path.isfile(self._result):
            self._finished = True
            self.say(_("Finished; the network is in {path}.").format(path=self._result))
            if self.isHere():
                self._choose()
        elif self._stopping or code is None or code < 0 or code >= 128:
            self.say(_("Stopped; Start continues where it was."))
        else:
            self.say(lines[-1] if lines else _("The command failed with status {code}.").format(code=code))
        self.refresh()

    def _choose(self):
        """Choose the network of the training that has finished."""
        self._finished = False
        self.take(self._result)
        self.say(self.finishedText().format(path=self._result))
