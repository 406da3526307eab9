"""Apply, and the update from corrected segmentations."""

import slicer
from slicer.i18n import tr as _

from NeuroCESTLib.panel.page import Page

CARRIED = "carriedAlong"
"""Role of the references from the parameter node to the nodes that are carried along."""
OF_RUN = "{}Images"
"""Role of the references from the transform of a run to the images of its fixed and of its moving study."""


class RunPage(Page):
    """Segments and registers the chosen studies, and carries further nodes of the moving visit along."""

    _showing = False
    _tip = ""

    def setup(self):
        """Connect the choice of nodes to carry along, and the button that runs again with corrected segmentations."""
        self.ui.carrySelector.connect("checkedNodesChanged()", self.onCarriedChosen)
        self.ui.updateButton.connect("clicked(bool)", lambda checked: self.panel.work(self.update))
        self._tip = self.ui.updateButton.toolTip

    def bound(self):
        """Show the ticks of the scene, as soon as the selector lists the nodes of a scene that has been loaded."""
        import qt

        qt.QTimer.singleShot(0, lambda: self.parameters and self._showCarried())

    def carried(self):
        """Return the nodes that are carried along."""
        node = self.parameters.parameterNode
        nodes = [node.GetNthNodeReference(CARRIED, n) for n in range(node.GetNumberOfNodeReferences(CARRIED))]
        return [found for found in nodes if found is not None]

    def onCarriedChosen(self):
        """Take over which nodes the user has ticked."""
        if self._showing or not self.parameters:
            return
        node = self.parameters.parameterNode
        with slicer.util.NodeModify(node):
            node.RemoveNodeReferenceIDs(CARRIED)
            for chosen in self.ui.carrySelector.checkedNodes():
                node.AddNodeReferenceID(CARRIED, chosen.GetID())
            node.Modified()

    def _showCarried(self):
        import qt

        selector, carried = self.ui.carrySelector, {node.GetID() for node in self.carried()}
        self._showing = True
        try:
            for number in range(selector.nodeCount()):
                node = selector.nodeFromIndex(number)
                state = qt.Qt.Checked if node.GetID() in carried else qt.Qt.Unchecked
                if selector.checkState(node) != state:
                    selector.setCheckState(node, state)
        finally:
            self._showing = False

    def show(self):
        """Show which nodes are carried along, and offer the update where there are segmentations to correct."""
        self._showCarried()
        corrected = self.corrected()
        self.ui.updateButton.enabled = bool(corrected) and not self.panel.missingInputs()
        names = _(" and ").join(f"'{node.GetName()}'" for node in corrected.values())
        used = _("Now these are {names}.").format(names=names) if names else ""
        self.ui.updateButton.toolTip = f"{self._tip} {used}".strip()

    def corrected(self):
        """Return the segmentations of the compared results by study, which the user may have corrected."""
        nodes = self.panel.compare.results()
        if not self._areOfChosen(nodes.get("moving to fixed")):
            return {}
        found = {"fixed": nodes.get("fixed segmentation"), "moving": nodes.get("moving segmentation")}
        return {which: node for which, node in found.items() if node is not None}

    def _areOfChosen(self, transform):
        """Tell whether the run of a transform was one of the chosen images; one that does not tell is taken for it."""
        if transform is None:
            return False
        for which in ("fixed", "moving"):
            role = OF_RUN.format(which)
            used = {transform.GetNthNodeReferenceID(role, n) for n in range(transform.GetNumberOfNodeReferences(role))}
            if used and used != {node.GetID() for node in self.panel.studies.study(which).values()}:
                return False
        return True

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

        # The page may be left before the run ends, and then has no parameters.
        parameters = self.parameters
        fixed, moving = (self.panel.studies.study(which) for which in ("fixed", "moving"))
        result = self.logic.process(
            fixed,
            moving,
            fixedMask=parameters.fixedMask,
            movingMask=parameters.movingMask,
            **tumors,
            labels=parameters.labels.strip() or None,
            weights=self.panel.method.weights() if parameters.segment else "none",
            affine=parameters.affine.value,
            refine=None if parameters.refineIterations < 0 else parameters.refineIterations,
            similarity=parameters.similarity or None,
            regulariser=parameters.regulariser.value,
            regularisation=parameters.regularisation,
            timeLimit_s=parameters.timeLimit or None,
            device=parameters.device,
            flips=parameters.flips,
            coregister=parameters.coregister,
            carry=self.carried(),
            folderName=folder,
            progress=progress,
        )
        for which, nodes in (("fixed", fixed), ("moving", moving)):
            for node in nodes.values():
                result.transform.AddNodeReferenceID(OF_RUN.format(which), node.GetID())
        modality = next((name for name in result.warped if name in fixed), None)
        if modality:
            display.show_over(result.warped[modality], fixed[modality], 0.5)
            self.panel.compare.choose(fixed[modality], result.warped[modality])
        where = _("The results are in the folder '{name}'.").format(name=self.panel.folderName(result))
        return " ".join([where, *result.warnings])

    def segmentAlone(self, progress):
        """Segment the fixed study; return where the results are."""
        parameters = self.parameters
        result = self.logic.segment(
            self.panel.studies.study("fixed"),
            mask=parameters.fixedMask,
            weights=self.panel.method.weights(),
            flips=parameters.flips,
            coregister=parameters.coregister,
            device=parameters.device,
            folderName=parameters.folderName,
            progress=progress,
        )
        where = _("The fixed study was segmented alone; the results are in the folder '{name}'.")
        return " ".join([where.format(name=self.panel.folderName(result)), *result.warnings])
