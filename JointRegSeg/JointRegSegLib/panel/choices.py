"""What the panel offers to choose from."""

import enum

from slicer.i18n import tr as _

STUDIES = ("fixed", "moving")
# Selectors of a study by modality, in the order of the network's channels
IMAGES = {"t1": "T1", "t1ce": "T1ce", "t2": "T2", "flair": "Flair"}


class Regularizer(enum.Enum):
    """Penalty that keeps the deformation smooth; the values are the names that the logic and the batch command take."""

    CURVATURE = "curvature"
    DIFFUSION = "diffusion"

    def label(self):
        """Text in the panel."""
        return {
            Regularizer.CURVATURE: _("Curvature (second derivatives)"),
            Regularizer.DIFFUSION: _("Diffusion (first derivatives)"),
        }[self]


class Affine(enum.Enum):
    """Linear alignment before the deformation; the values are the names that the logic and the batch command take."""

    AFFINE = "affine"
    RIGID = "rigid"
    NONE = "none"

    def label(self):
        """Text in the panel."""
        return {
            Affine.AFFINE: _("Affine (rotation, shift, scale, shear)"),
            Affine.RIGID: _("Rigid (rotation, shift)"),
            Affine.NONE: _("None (already aligned)"),
        }[self]
