"""Networks that are trained beside the application."""

import os
import re

from slicer.i18n import tr as _

from NeuroCESTLib.panel.training import BackgroundTrainingPage


class TrainingPage(BackgroundTrainingPage):
    """Starts ``jointregseg train``; a folder that holds a stopped training is continued."""

    STEP = _("step")
    BUNDLED = (
        "neurocest",
        "neurocest_cavity",
        "estienne2020",
        "estienne2020_add",
        "estienne2020_concatenate",
        "registration_only",
        "vnet",
        "voxelmorph",
    )
    PACKAGE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

    def result(self):
        """Return the weights file that the command writes; empty without a chosen place."""
        return os.path.join(self.output(), "weights.pt") if self.output() else ""

    def manifest(self):
        """Return the table of the studies; empty without a chosen one."""
        return self.parameters.trainingManifestPath if self.parameters else ""

    def needsManifest(self):
        """Whether the configuration takes its studies from a table; only synthetic patients need none."""
        config = self.config()
        if config in self.BUNDLED:
            return True
        from NeuroCESTLib.core.checked_json import read_json

        try:
            values = read_json(config)
        except ValueError:
            return False  # the command says what is wrong with the file
        data = values.get("data") if isinstance(values, dict) else None
        return not (isinstance(data, dict) and data.get("path") == "synthetic")

    def missingHere(self):
        """Return what is missing before the start, as a sentence; empty without a lack."""
        if missing := self.missingConfig():
            return missing
        manifest = self.manifest()
        if manifest and not os.path.isfile(manifest):
            return _("The table of studies {path} does not exist.").format(path=manifest)
        if not manifest and self.needsManifest():
            return _("Choose the table of studies, or a configuration with synthetic patients.")
        return "" if self.output() else _("Choose a folder for the results.")

    def arguments(self):
        """Return the arguments of the command."""
        arguments = ["train", "--config", self.config(), "--output", self.output()]
        if self.manifest():
            arguments += ["--manifest", self.manifest()]
        if os.path.isfile(os.path.join(self.output(), "last.pt")):
            arguments.append("--resume")
        return arguments

    def take(self, path):
        """Choose the weights that a training has written."""
        from ..multitask.weights import is_study_weights

        if is_study_weights(path):
            self.parameters.predictModel, self.parameters.predictWeightsPath = "", path
            return
        self.parameters.segment = True
        self.parameters.weightsPath = path

    def points(self, message):
        """Return step, loss and Dice of a message of the progress, see the base class."""
        found = re.search(r"step (\d+): loss ([-+\d.e]+)(?:, Dice ([-+\d.e]+))?", message)
        if not found:
            return None
        values = {_("training loss"): float(found[2])}
        if found[3]:
            values[_("Dice of the validation")] = float(found[3])
        return "", int(found[1]), values
