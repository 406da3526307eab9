"""The spectrum under the mouse."""

import slicer
from slicer.i18n import tr as _

from NeuroCESTLib.panel.page import Page


class SpectrumPage(Page):
    """A plot that follows the mouse in the slice views, and the values of the fit beside it."""

    live = None
    _spectra = None

    def setup(self):
        """Connect the switch."""
        self.showValues("")
        self.ui.liveSpectrumCheckBox.connect("toggled(bool)", self.onToggled)

    def leave(self):
        """Stop following the mouse."""
        self.ui.liveSpectrumCheckBox.checked = False

    def onToggled(self, checked):
        """Show the spectrum under the mouse, or stop doing so."""
        from NeuroCESTLib.panel.live_spectrum import LiveSpectrum
        from NeuroCESTLib.panel.torch_extension import ensure_torch

        if self.live is None:
            self.live = LiveSpectrum(self.measured, self.fitted, self.showValues)
        self._spectra = None
        self.showValues("")
        if not checked:
            self.live.stop()
            return
        with slicer.util.tryWithErrorDisplay(_("The spectrum cannot be shown.")):
            ensure_torch(self.panel.moduleName)
            self.live.start()

    def showValues(self, text):
        """Show the values of the fit beside the plot."""
        self.ui.spectrumValuesLabel.text = text
        self.ui.spectrumValuesLabel.visible = bool(text)

    def spectra(self):
        """Return the spectra of the chosen acquisition, which are prepared again after another choice.

        Raises:
            ValueError: The acquisition cannot be used, or something is not chosen yet.
        """
        parameters, methods = self.parameters, self.panel.methods
        if not parameters or not parameters.signal:
            raise ValueError(_("Choose the CEST acquisition, a sequence of volumes."))
        chosen = {"reference": parameters.reference, **methods.maps()}
        protocol, model = self.panel.protocol.given(), methods.options().get("model")
        key = [node and (node.GetID(), node.GetMTime()) for node in (parameters.signal, *chosen.values())]
        key += [protocol, model]
        if self._spectra is None or self._spectra[0] != key:
            self._spectra = key, self.logic.spectra(parameters.signal, protocol, model=model, **chosen)
        return self._spectra[1]

    def measured(self, place):
        """Return the measured spectrum at a place (RAS, mm)."""
        return self.spectra().at(place)

    def fitted(self, place):
        """Return the spectrum at a place with the fit by the chosen method; None while the method lacks an input."""
        methods = self.panel.methods
        if self.panel.missingInputs():
            return None
        options = {name: value for name, value in methods.options().items() if name not in methods.MAPS}
        return self.spectra().at(place, self.parameters.method, self.logic.settings(**options))
