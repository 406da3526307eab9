"""Apply, and the update from corrected segmentations."""

from slicer.i18n import tr as _

from NeuroCESTLib.panel.page import Page


class RunPage(Page):
    """Segments and registers the chosen studies."""

    def setup(self):
        """Connect the button that runs again with corrected segmentations."""
        self.ui.updateButton.connect("clicked(bool)", lambda checked: self.panel.work(self.update))

    def show(self):
        """Offer the update where there are segmentations to correct."""
        corrected = self.corrected()
        self.ui.updateButton.enabled = bool(corrected) and not self.panel.missingInputs()

    def corrected(self):
        """Return the segmentations of the compared results by study, which the user may have corrected."""
        nodes = self.panel.compare.results()
        found = {"fixed": nodes.get("fixed segmentation"), "moving": nodes.get("moving segmentation")}
        return {which: node for which, node in found.items() if node is not None}

    def apply(self, progress):
        """Segment and register, and show the warped image over the fixed one; return where the results are.

        Without images of the moving study, the fixed one is segmented alone.
        """
        parameters, study = self.parameters, self.panel.studies.study
        if not study("moving"):
            return self.segmentAlone(progress)
        tumors = {"fixedTumor": parameters.fixedTumor, "movingTumor": parameters.movingTumor}
        return self.register(progress, parameters.folderName, tumors)

    def update(self, progress):
        """Register again with the corrected segmentations in place of the network's; return where the results are."""
        corrected = self.corrected()
        tumors = {f"{which}Tumor": node for which, node in corrected.items()}
        return self.register(progress, _("{name} corrected").format(name=self.panel.compare.folder()), tumors)

    def register(self, progress, folder, tumors):
        """Process both studies.

        Args:
            progress: Progress to report to.
            folder: Name of the folder of the results.
            tumors: Segmentations that are given.
        """
        from NeuroCESTLib.scene import display

        parameters, study = self.parameters, self.panel.studies.study
        result = self.logic.process(
            study("fixed"),
            study("moving"),
            fixedMask=parameters.fixedMask,
            movingMask=parameters.movingMask,
            **tumors,
            labels=parameters.labels.strip() or None,
            weights=(parameters.weightsPath or None) if parameters.segment else "none",
            affine=parameters.affine.value,
            refine=None if parameters.refineIterations < 0 else parameters.refineIterations,
            similarity=parameters.similarity or None,
            flips=parameters.flips,
            coregister=parameters.coregister,
            carry=parameters.carry,
            folderName=folder,
            progress=progress,
        )
        modality = next((name for name in result.warped if name in study("fixed")), None)
        if modality:
            display.show_over(result.warped[modality], study("fixed")[modality], 0.5)
            self.panel.compare.choose(study("fixed")[modality], result.warped[modality])
        where = _("The results are in the folder '{name}'.").format(name=self.panel.folderName(result))
        return " ".join([where, *result.warnings])

    def segmentAlone(self, progress):
        """Segment the fixed study; return where the results are."""
        parameters = self.parameters
        result = self.logic.segment(
            self.panel.studies.study("fixed"),
            mask=parameters.fixedMask,
            weights=parameters.weightsPath or None,
            flips=parameters.flips,
            coregister=parameters.coregister,
            folderName=parameters.folderName,
            progress=progress,
        )
        where = _("The fixed study was segmented alone; the results are in the folder '{name}'.")
        return " ".join([where.format(name=self.panel.folderName(result)), *result.warnings])
