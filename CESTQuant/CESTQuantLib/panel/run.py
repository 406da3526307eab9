"""Apply and the preview of a slice."""

import slicer
from slicer.i18n import tr as _

from NeuroCESTLib.panel.page import Page

PREVIEW_MARK = "NeuroCEST.preview"
"""Mark of the nodes of a preview, which the next preview or run removes; copies of them stay."""


class RunPage(Page):
    """Runs the chosen method over the acquisition, or over one of its slices."""

    def setup(self):
        """Connect the button of the preview."""
        self.ui.previewButton.connect("clicked(bool)", lambda checked: self.panel.work(self.preview))

    def missing(self):
        """Return what is wrong with the advanced settings."""
        try:
            offsets = self.offsets()
        except ValueError as error:
            return [_("Further offsets: {reason}.").format(reason=error)]
        if "asymmetry-offset" in self.panel.methods.used() and min(offsets) <= 0:
            return [
                _("Give the offset of the asymmetry as a positive number of ppm, not {offset:g}.").format(
                    offset=min(offsets)
                )
            ]
        if self.wantsPosterior() and not self.parameters.segmentation:
            return [_("Choose the regions under Outputs: the posterior is that of their mean spectra.")]
        return []

    def show(self):
        """Show the advanced settings that the chosen method uses."""
        from ..scene.posterior import METHODS

        ui = self.ui
        ui.posteriorCheckBox.visible = self.parameters.method in METHODS
        ui.spatialPriorCheckBox.visible = self.isSpatial()
        for widget in (ui.dictionarySpinBox, ui.dictionarySpinBoxLabel):
            widget.visible = "config" in self.panel.methods.used()

    def wantsPosterior(self):
        """Whether the posterior of the regions is asked for and the method has one."""
        from ..scene.posterior import METHODS

        return self.parameters.posterior and self.parameters.method in METHODS

    def wantsSpatialPrior(self):
        """Whether the spatial prior is asked for and the method has a fit for it."""
        return self.parameters.spatialPrior and self.isSpatial()

    def isSpatial(self):
        """Whether the chosen method is installed and has a fit with a spatial prior."""
        from ..methods.registry import METHODS

        method = METHODS.get(self.parameters.method)
        return method is not None and method.spatial

    def offsets(self):
        """Return the offsets of asymmetries in ppm, the main one first.

        Raises:
            ValueError: What was typed holds no offsets.
        """
        from ..tables.offsets import offsets_of_ranges

        further = self.parameters.furtherOffsets
        return (self.parameters.asymmetryOffset_ppm, *(offsets_of_ranges(further) if further.strip() else ()))

    def options(self):
        """Return what the chosen method gets, by the name of the argument."""
        options = self.panel.methods.options()
        if "asymmetryOffset_ppm" in options:
            options["asymmetryOffset_ppm"] = self.offsets()
        return options

    def ofNormalization(self):
        """Return how signals are normalised, by the name of the argument."""
        chosen = self.parameters.normalization
        return {
            "signalNormalisation": None if chosen == "as in the protocol" else chosen,
            "m0OverTime": self.parameters.m0OverTime,
        }

    def fit(self, progress, **place):
        """Quantify the acquisition.

        Args:
            progress: Progress to report to.
            place: ``folderName``, and ``slice_RAS`` for one slice alone.
        """
        parameters = self.parameters
        options = {
            "method": parameters.method,
            "reference": parameters.reference,
            "mask": parameters.mask,
            "segmentation": parameters.segmentation,
            **self.ofNormalization(),
            **self.panel.preparation.options(),
            "noise_sd": parameters.noise_sd or None,
            "posterior": self.wantsPosterior(),
            "spatialPrior": self.wantsSpatialPrior(),
            "dictionaryEntries": parameters.dictionaryEntries or None,
            "threads": parameters.threads or None,
            "device": parameters.device,
            "progress": progress,
        }
        protocol = self.panel.protocol.given()
        return self.logic.fit(parameters.signal, protocol, **options, **self.options(), **place)

    def apply(self, progress):
        """Compute the maps and show the main one over the anatomy; return where they are."""
        result = self.fit(progress, folderName=self.parameters.folderName)
        remove_preview()
        self.panel.results.showResult(result)
        where = _("{count} maps are in the folder '{folder}'.")
        return where.format(count=len(result.nodes), folder=self.panel.folderName(result))

    def preview(self, progress):
        """Compute and show the maps of one slice in place of an earlier preview; return where they are."""
        from NeuroCESTLib.scene import hierarchy

        signal = self.parameters.signal
        place = self.place()
        result = self.fit(progress, slice_RAS=place, folderName=_("{name} preview").format(name=signal.GetName()))
        remove_preview()
        tables = [table for table in (result.table, result.posterior) if table is not None]
        for node in [*result.nodes.values(), *tables]:
            hierarchy.mark(node, PREVIEW_MARK, "1")
        self.panel.results.showResult(result)
        return _("The maps of one slice are in the folder '{folder}'; the next run removes them.").format(
            folder=self.panel.folderName(result)
        )

    def place(self):
        """Return the place (RAS, mm) in the middle of the red slice view; None where there is no such view."""
        view = slicer.mrmlScene.GetNodeByID("vtkMRMLSliceNodeRed")
        if view is None:
            return None
        matrix = view.GetSliceToRAS()
        return tuple(matrix.GetElement(row, 3) for row in range(3))


def remove_preview():
    """Remove the nodes of the preview, and its folder where nothing else was put into it."""
    from NeuroCESTLib.scene import hierarchy, volumes

    from ..scene.naming import folder_of_run

    nodes = [node for node in slicer.util.getNodesByClass("vtkMRMLNode") if hierarchy.marked(node, PREVIEW_MARK)]
    folders = {folder_of_run(node) for node in nodes} - {0}
    for node in nodes:
        volumes.remove(node)
    for folder in folders:
        hierarchy.remove_empty_item(folder)
