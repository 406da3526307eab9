"""The images of the two visits."""

import slicer
from slicer.i18n import tr as _

from NeuroCESTLib.panel.page import Page

from .choices import IMAGES, STUDIES


class StudiesPage(Page):
    """Choice of the images; where nothing is chosen, they are chosen by their names and can be corrected.

    Attributes:
        CHOSEN: Attribute of the parameter node that says that the images were chosen by name once.
    """

    CHOSEN = "studiesChosenByName"

    def setup(self):
        """Connect the button."""
        self.ui.byNameButton.connect("clicked(bool)", lambda checked: self.chooseByName())
        self.say("")

    def bound(self):
        """Choose the images by their names where a scene with two visits is used for the first time."""
        node = self.parameters.parameterNode
        if node.GetAttribute(self.CHOSEN) or any(self.study(which) for which in STUDIES):
            return
        from ..scene.naming import studies_by_name

        if len(studies_by_name()) == 2:
            self.chooseByName()

    def chooseByName(self):
        """Choose the images of the first two studies by name, the first as the fixed one; say what was chosen."""
        from ..scene.naming import ambiguous_names, studies_by_name

        studies = studies_by_name()
        names = ", ".join(f"'{name}'" for name in ambiguous_names())
        twice = _("Several volumes are called {names}: rename all but one, or choose the images.").format(names=names)
        node = self.parameters.parameterNode
        node.SetAttribute(self.CHOSEN, "1")
        if not studies:
            nothing = _("No volume has a name that ends with T1, T1ce, T2 or FLAIR: choose the images.")
            self.say(twice if names else nothing)
            return
        with slicer.util.NodeModify(node):
            for which, images in zip(STUDIES, [*studies.values(), {}], strict=False):
                for modality, suffix in IMAGES.items():
                    setattr(self.parameters, which + suffix, images.get(modality))
        found = [f"'{name}'" for name in studies]
        text = _("Chosen by name: {fixed} is fixed").format(fixed=found[0])
        text += _(", {moving} is moving").format(moving=found[1]) if len(found) > 1 else ""
        left = _(" Not used: {names}.").format(names=", ".join(found[2:])) if len(found) > 2 else ""
        self.say(f"{text}.{left} {twice if names else ''}".strip())

    def say(self, text):
        """Show what was chosen."""
        self.ui.byNameLabel.text = text
        self.ui.byNameLabel.visible = bool(text)

    def study(self, which):
        """Return the chosen images of the fixed or moving study, by modality."""
        nodes = {name: getattr(self.parameters, which + suffix) for name, suffix in IMAGES.items()}
        return {name: node for name, node in nodes.items() if node}

    def missing(self):
        """Return what the studies lack."""
        fixed, moving = (self.study(which) for which in STUDIES)
        missing = []
        if not fixed:
            missing.append(_("Choose at least one image of the fixed study."))
        if not moving and not self.parameters.segment:
            missing.append(_("Choose at least one image of the moving study, or switch the segmentation on."))
        if fixed and not moving and self.parameters.segment and (unused := self._unusedAlone()):
            text = _(
                "Choose an image of the moving study, or leave out {names}, of which one study alone makes no use."
            )
            missing.append(text.format(names=", ".join(f"'{node.GetName()}'" for node in unused)))
        chosen = [node.GetID() for study in (fixed, moving) for node in study.values()]
        for node in [*fixed.values(), *moving.values()]:
            if chosen.count(node.GetID()) > 1:
                missing.append(_("The image '{name}' is chosen more than once.").format(name=node.GetName()))
                break
        return missing

    def _unusedAlone(self):
        """Return the chosen nodes that a segmentation of the fixed study alone leaves aside."""
        parameters = self.parameters
        nodes = [parameters.fixedTumor, parameters.movingTumor, parameters.movingMask, *self.panel.runs.carried()]
        return list({node.GetID(): node for node in nodes if node}.values())
