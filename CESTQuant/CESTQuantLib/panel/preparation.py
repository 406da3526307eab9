"""What is done to the spectra before they are quantified; all of it is optional and recorded in the report."""

from slicer.i18n import tr as _

from NeuroCESTLib.panel.page import Page

NO_CORRECTION = "none"
"""Choice of no correction for finite saturation time and recovery."""


class PreparationPage(Page):
    """Correction of motion, denoising, smoothing and correction to the steady state."""

    def needsT1(self):
        """Whether the preparation uses the T1 map, whatever the method does."""
        return bool(self.parameters) and self.parameters.quass != NO_CORRECTION

    def missing(self):
        """Return what the preparation lacks."""
        if self.needsT1() and not self.parameters.t1:
            return [_("Choose the T1 map: the correction to the steady state needs it.")]
        return []

    def ofSpectra(self):
        """Return what is done to each spectrum by itself, by the name of the argument."""
        return {
            "smoothing_ppm": self.parameters.smoothing_ppm or None,
            "quass": self.parameters.quass if self.needsT1() else None,
        }

    def options(self):
        """Return what is done to the acquisition, by the name of the argument."""
        return {
            "motionCorrection": self.parameters.motionCorrection,
            "denoising": self.parameters.denoising,
            **self.ofSpectra(),
        }
