"""What other networks than that of the tumour find in the fixed study."""

from slicer.i18n import tr as _

from NeuroCESTLib.panel.file_version import file_version
from NeuroCESTLib.panel.page import Page

from .choices import IMAGES


class PredictionPage(Page):
    """Says what the chosen weights can do, and does it to the images of the fixed study."""

    _seen = None
    _offers: tuple[str, ...] = ()
    _modalities: tuple[str, ...] = ()
    _problem = ""

    def setup(self):
        """List the weights of the package, and connect the widgets."""
        import qt

        from ..multitask.shipped import SHIPPED

        choices = self.ui.predictModelComboBox
        for name, finds in SHIPPED.items():
            choices.addItem(_(name.replace("_", "-").capitalize()), name)
            choices.setItemData(choices.count - 1, _("Finds {what}.").format(what=_(finds)), qt.Qt.ToolTipRole)
        choices.addItem(_("From a file…"), "")
        choices.connect("currentIndexChanged(int)", self.onModelChosen)
        self.ui.predictButton.connect("clicked(bool)", lambda checked: self.panel.work(self.predict))

    def onModelChosen(self, index):
        """Take over the weights that the user has chosen."""
        name = self.ui.predictModelComboBox.itemData(index)
        if self.parameters and name is not None and self.parameters.predictModel != name:
            self.parameters.predictModel = name

    def weights(self):
        """Return the name of the chosen weights of the package, or the path of the file; empty without a file."""
        from ..multitask.shipped import SHIPPED

        name = self.parameters.predictModel
        return name if name in SHIPPED else self.parameters.predictWeightsPath

    def show(self):
        """Say what the weights find, and what is missing before they can."""
        self._read()
        ui = self.ui
        choices = ui.predictModelComboBox
        chosen = choices.findData(self.parameters.predictModel)
        choices.currentIndex = chosen if chosen >= 0 else choices.count - 1
        for widget in (ui.predictWeightsPathLineEdit, ui.predictWeightsPathLineEditLabel):
            widget.visible = not choices.itemData(choices.currentIndex)
        found = "; ".join(self._offers)
        self.ui.predictOfferLabel.text = (
            _("These weights find: {found}.").format(found=found) if found else self._problem
        )
        self.ui.predictOfferLabel.visible = bool(self.ui.predictOfferLabel.text)
        missing = self.missingHere()
        self.ui.predictButton.enabled = not missing
        self.ui.predictButton.toolTip = missing or _("Apply these weights to the images of the fixed study.")

    def study(self):
        """Return the images of the fixed study that the weights know, by modality."""
        images = self.panel.studies.study("fixed")
        return {name: node for name, node in images.items() if name in self._modalities}

    def missingHere(self):
        """Return what is missing before the prediction, as a sentence; empty without a lack."""
        if not self.weights():
            return _("Choose weights that 'jointregseg train' made for tasks on single studies.")
        if self._problem:
            return self._problem
        if not self.study():
            names = ", ".join(IMAGES[name] for name in self._modalities)
            return _("Choose an image of the fixed study that these weights know: {names}.").format(names=names)
        return ""

    def predict(self, progress):
        """Apply the weights; return where the results are."""
        parameters = self.parameters
        study = self.study()
        result = self.logic.predict(
            study,
            self.weights(),
            mask=parameters.fixedMask,
            coregister=parameters.coregister,
            device=parameters.device,
            folderName=parameters.folderName or _("{name} predicted").format(name=next(iter(study.values())).GetName()),
            progress=progress,
        )
        self._display(result, study)
        where = _("The results are in the folder '{name}'.").format(name=self.panel.folderName(result))
        return " ".join([where, *result.warnings])

    def _display(self, result, study):
        """Show the first volume that was found."""
        from NeuroCESTLib.scene import display

        if result.volumes:
            name, node = next(iter(result.volumes.items()))
            display.show_over(node, next(iter(study.values())), 0.5 if name == "anomaly" else 1.0)

    def _read(self):
        """Read what the chosen file says of itself, where another one is chosen or it has changed."""
        from ..multitask.shipped import SHIPPED, weights_file

        given = self.weights()
        path = str(weights_file(given)) if given in SHIPPED else given
        seen = file_version(path)
        if seen == self._seen:
            return
        self._seen, self._offers, self._modalities, self._problem = seen, (), (), ""
        if not path:
            return
        from ..multitask.weights import offer_of

        try:
            offers, self._modalities = offer_of(path)
        except ValueError as error:
            self._problem = str(error)
        else:
            self._offers = tuple(offers)
