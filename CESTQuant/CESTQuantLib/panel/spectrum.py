"""The spectrum under the mouse."""

import contextlib

import slicer
import vtk
from slicer.i18n import tr as _

from NeuroCESTLib.panel.file_version import file_version
from NeuroCESTLib.panel.page import Page


class SpectrumPage(Page):
    """A plot that follows the mouse in the slice views, and the values of the fit beside it."""

    live = None
    _spectra = None
    _pins = None
    _pinned_node = None
    _signal = None

    def setup(self):
        """Connect the switch."""
        self.showValues("")
        self.ui.liveSpectrumCheckBox.connect("toggled(bool)", self.onToggled)
        self.ui.offsetSlider.connect("valueChanged(int)", self.onMeasurementChosen)

    def show(self):
        """Take over other pins, and offer the measurements of another acquisition."""
        pins, signal = self.parameters.pins, self.parameters.signal
        if pins is not self._pinned_node:
            self._follow(pins)
            self.refresh()
        if signal is not self._signal:
            self._signal = signal
            slider = self.ui.offsetSlider
            blocked = slider.blockSignals(True)
            slider.maximum = max(signal.GetNumberOfDataNodes() - 1, 0) if signal else 0
            slider.value = 0
            slider.blockSignals(blocked)
            slider.enabled = slider.maximum > 0
            self.ui.offsetLabel.text = ""

    def refresh(self):
        """Show the spectra again, after pins or settings have changed."""
        if self.live is not None:
            self.live.refresh()

    def _follow(self, pins):
        """Observe the node of the pins, so that moved points and edited segments are shown at once."""
        self.panel.removeObservers(self.onPinsChanged)
        self._pinned_node, self._pins = pins, None
        if pins is None:
            return
        events = [vtk.vtkCommand.ModifiedEvent]
        if pins.IsA("vtkMRMLMarkupsNode"):
            events += [pins.PointModifiedEvent, pins.PointPositionDefinedEvent, pins.PointRemovedEvent]
        else:
            events.append(slicer.vtkSegmentation.SourceRepresentationModified)
        for event in events:
            self.panel.addObserver(pins, event, self.onPinsChanged)

    def onPinsChanged(self, caller=None, event=None):
        """Show pins that have changed."""
        self._pins = None
        self.refresh()

    def pinned(self):
        """Return the spectra of the chosen points or segments; of a segment the mean and standard deviation."""
        spectra, node = self.spectra(), self.parameters.pins
        if node is None:
            return []
        if self._pins is None or self._pins[0] is not spectra:
            self._pins = (
                spectra,
                _of_points(spectra, node) if node.IsA("vtkMRMLMarkupsNode") else _of_segments(spectra, node),
            )
        return self._pins[1]

    def onMeasurementChosen(self, number):
        """Show the volume of a measurement in the slice views, and its offset beside the slider."""
        from NeuroCESTLib.scene import sequences

        signal = self.parameters.signal if self.parameters else None
        if signal is None:
            return
        volume = sequences.browse(signal, number)
        index = f"{signal.GetNthIndexValue(number)} {signal.GetIndexUnit() or ''}".strip()
        self.ui.offsetLabel.text = f"{index} ({number + 1}/{signal.GetNumberOfDataNodes()})"
        slicer.util.setSliceViewerLayers(background=volume, foreground=None, label=None)

    def leave(self):
        """Stop following the mouse."""
        self.ui.liveSpectrumCheckBox.checked = False

    def onToggled(self, checked):
        """Show the spectrum under the mouse, or stop doing so."""
        from NeuroCESTLib.panel.live_spectrum import LiveSpectrum
        from NeuroCESTLib.panel.torch_extension import ensure_torch

        if self.live is None:
            self.live = LiveSpectrum(self.measured, self.fitted, self.showValues, self.pinned)
        self._spectra = None
        self.showValues("")
        if not checked:
            self.live.stop()
            return
        with slicer.util.tryWithErrorDisplay(_("The spectrum cannot be shown.")):
            ensure_torch(self.panel.moduleName)
            self._showSomething()
            self.live.start()

    def _showSomething(self):
        """Show the anatomy, or the first image of the acquisition, where the slice views are empty."""
        from NeuroCESTLib.scene import display, sequences

        signal = self.parameters.signal if self.parameters else None
        if signal is not None and display.views_are_empty():
            shown = self.panel.results.anatomy() or sequences.browse(signal, 0)
            display.turn_views(shown)
            display.show_over(None, shown)

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
        key = [node and (node.GetID(), node.GetMTime(), _place(node)) for node in (parameters.signal, *chosen.values())]
        treated = {**self.panel.runs.ofNormalization(), **self.panel.preparation.ofSpectra()}
        key += [file_version(protocol), file_version(model), treated]
        if self._spectra is None or self._spectra[0] != key:
            self._spectra = key, self.logic.spectra(parameters.signal, protocol, model=model, **chosen, **treated)
        return self._spectra[1]

    def measured(self, place):
        """Return the measured spectrum at a place (RAS, mm)."""
        return self.spectra().at(place)

    def fitted(self, place):
        """Return the spectrum at a place with the fit by the chosen method; None while the method lacks an input."""
        methods = self.panel.methods
        if self.panel.missingInputs():
            return None
        options = {name: value for name, value in self.panel.runs.options().items() if name not in methods.MAPS}
        settings = self.logic.settings(
            **options,
            noise_sd=self.parameters.noise_sd or None,
            dictionaryEntries=self.parameters.dictionaryEntries or None,
        )
        return self.spectra().at(place, self.parameters.method, settings)


def _place(node):
    """Return the world transform of a volume or sequence, for comparison."""
    from NeuroCESTLib.scene.geometry import world_transform
    from NeuroCESTLib.scene.sequences import proxy_transform

    found = proxy_transform(node) if node.IsA("vtkMRMLSequenceNode") else world_transform(node)
    return found.tolist()


def _of_points(spectra, node):
    """Return the spectra of the voxels at markup points; points outside of the acquisition are left out."""
    from dataclasses import replace

    found = []
    for number in range(node.GetNumberOfControlPoints()):
        place = [0.0, 0.0, 0.0]
        node.GetNthControlPointPositionWorld(number, place)
        with contextlib.suppress(ValueError):
            found.append(replace(spectra.at(tuple(place)), name=node.GetNthControlPointLabel(number)))
    return found


def _of_segments(spectra, node):
    """Return the mean spectra of segments; those without usable voxels of the acquisition are left out."""
    from NeuroCESTLib.scene.segmentations import masks_on

    found = []
    for name, mask in masks_on(node, spectra.geometry).items():
        with contextlib.suppress(ValueError):
            found.append(spectra.over(mask, name))
    return found
