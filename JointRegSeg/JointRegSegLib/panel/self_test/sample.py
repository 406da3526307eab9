"""The digital head at two visits on which the tests work."""

import os

import slicer

from NeuroCESTLib.panel.self_test import PanelTest

from ..choices import IMAGES, STUDIES, Affine


class SampleTest(PanelTest):
    """What the tests of all pages share."""

    MODULE = "JointRegSeg"
    CANCEL_AT = 20

    def setUp(self):
        """Leave the choice of images to the test."""
        super().setUp()
        parameters = self.widget.logic.getParameterNode()
        for which in STUDIES:
            for suffix in IMAGES.values():
                setattr(parameters, which + suffix, None)

    def addSampleNodes(self):
        """The digital head at two visits, on small grids."""
        self.studies = self.widget.logic.addPhantom(spacing_mm=5.0)

    def chooseInputs(self, modalities=("t1", "flair"), affine=Affine.NONE):
        """Make the choices of a user before Apply, with a small network for coarse voxels."""
        for which in STUDIES:
            for modality in modalities:
                selector = getattr(self.ui, f"{which}{IMAGES[modality]}Selector")
                selector.setCurrentNode(self.studies[which][modality])
        self.ui.weightsPathLineEdit.currentPath = self.saveSmallNetwork()
        self.ui.affineComboBox.currentIndex = list(Affine).index(affine)
        self.ui.flipsCheckBox.checked = False
        self.ui.refineSpinBox.value = 5

    def saveSmallNetwork(self):
        """Save an untrained network for voxels of 4 mm and return its path."""
        from JointRegSegLib.network.configuration import NetworkConfig
        from JointRegSegLib.network.joint import build_network
        from JointRegSegLib.network.weights import save_weights

        path = os.path.join(self.directory, "small.pt")
        config = NetworkConfig(
            channels=(4, 8, 8), encoder_convolutions=(1, 1, 1), decoder_convolutions=(1, 1), auxiliary=0, stride=1
        )
        save_weights(path, build_network(config), {"preprocessing": {"spacing_mm": 4.0}})
        return path

    def visibleSegmentations(self):
        nodes = slicer.util.getNodesByClass("vtkMRMLSegmentationNode")
        return {node.GetName() for node in nodes if node.GetDisplayNode().GetVisibility()}

    def difference(self, first, second):
        """Return the mean absolute difference of two volumes where both have values."""
        import numpy as np

        from NeuroCESTLib.scene.geometry import Geometry
        from NeuroCESTLib.scene.volumes import array_on

        grid = Geometry.of(first)
        return float(np.nanmean(np.abs(array_on(first, grid) - array_on(second, grid))))

    def addViews(self):
        """Add the two slice views and the layout of an application with a main window, where there are none."""
        scene = slicer.mrmlScene
        if scene.GetFirstNodeByClass("vtkMRMLLayoutNode") is None:
            scene.AddNewNodeByClass("vtkMRMLLayoutNode")
        for name in ("Red", "Yellow"):
            if self.view(name) is None:
                view = scene.AddNewNodeByClass("vtkMRMLSliceCompositeNode", name)
                view.SetLayoutName(name)

    def view(self, name):
        nodes = slicer.util.getNodesByClass("vtkMRMLSliceCompositeNode")
        return next((node for node in nodes if node.GetLayoutName() == name), None)
