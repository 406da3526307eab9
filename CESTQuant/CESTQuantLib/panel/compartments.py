"""CEST numbers of the compartments of a tumour, from maps that are in the scene."""

from slicer.i18n import tr as _

from NeuroCESTLib.panel.page import Page

VISITS = ("visit", "later")
"""How the parameters of the visits begin."""


class CompartmentsPage(Page):
    """Analyses one visit or two; a run of CESTQuant is chosen by any of its maps."""

    def setup(self):
        """Connect the button."""
        self.ui.compartmentsButton.connect("clicked(bool)", lambda checked: self.panel.work(self.compute))

    def show(self):
        """Say on the button what is missing."""
        missing = self.missingHere()
        self.ui.compartmentsButton.enabled = not missing
        self.ui.compartmentsButton.toolTip = missing or _("Give the numbers of each compartment, and their change.")

    def missingHere(self):
        """Return what the analysis still needs, as a sentence; empty without a lack."""
        parameters = self.parameters
        if not parameters.visitMap:
            return _("Choose any map of the visit.")
        if not parameters.visitSegmentation:
            return _("Choose the segmentation of the visit.")
        if parameters.laterMap and not parameters.laterSegmentation:
            return _("Choose the segmentation of the later visit.")
        if parameters.between and not parameters.laterSegmentation:
            return _("Choose the later visit that the transform belongs to.")
        for which in VISITS if parameters.registerCest else ():
            needed = [getattr(parameters, f"{which}{what}") for what in ("Anatomy", "Reference")]
            if getattr(parameters, f"{which}Map") and not all(needed):
                return _("Choose anatomy and M0 of each visit: the registration needs them.")
        return ""

    def visit(self, which, name):
        """Return a visit as the logic takes it; None where nothing of it is chosen."""
        from ..scene.compartments.inputs import CompartmentVisit
        from ..scene.compartments.nodes import maps_beside

        def given(what):
            return getattr(self.parameters, f"{which}{what}")

        shown, segmentation = given("Map"), given("Segmentation")
        if not shown and not segmentation:
            return None
        return CompartmentVisit(
            name,
            maps_beside(shown) if shown else {},
            segmentation,
            [given("Anatomy")] if given("Anatomy") else (),
            register=self.parameters.registerCest and bool(shown),
            unsaturated=given("Reference"),
        )

    def compute(self, progress):
        """Analyse the visits and return what was done."""
        first, second = self.visit("visit", _("first visit")), self.visit("later", _("later visit"))
        result = self.logic.compartments(
            first, second, between=self.parameters.between, rim_mm=self.parameters.rim_mm, progress=progress
        )
        self.panel.results.warn(result.analysis.warnings)
        return _("The tables of {count} regions are in the folder '{folder}'.").format(
            count=len(result.analysis.visits[0].regions), folder=self.panel.folderName(result)
        )
