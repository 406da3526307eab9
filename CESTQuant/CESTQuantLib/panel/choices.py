"""What the panel calls the values to choose from."""

from slicer.i18n import tr as _

from NeuroCESTLib.panel.titled_choices import TitledChoices, device_titles


class ChoicesPage(TitledChoices):
    """Shows titles for the short names that the Logic and the commands take."""

    def titles(self):
        """Return the titles by parameter and value."""
        return {
            "fieldMethod": {"wasabi": _("WASABI (B0 and B1)"), "wassr": _("WASSR (B0)")},
            "lorentzianPreset": {
                "3T": _("3 T"),
                "7T": _("7 T"),
                "preclinical": _("Bodies of rodents, 7 to 11.7 T"),
                "3T_two_step": _("3 T, background first (two steps)"),
                "plof_3T": _("PLOF, 3 T"),
            },
            "relaxationKind": {
                "inversion-recovery": _("Inversion recovery (T1)"),
                "saturation-recovery": _("Saturation recovery (T1)"),
                "variable-flip-angle": _("Variable flip angles (T1)"),
                "multi-echo": _("Several echoes (T2)"),
            },
            "quass": {
                "none": _("No correction"),
                "equilibrium": _("QUASS, fully relaxed M0"),
                "same-delay": _("QUASS, M0 with the delay of the others"),
            },
            "normalization": {
                "as in the protocol": _("As in the protocol"),
                "m0": _("Relative to M0"),
                "l2": _("By the norm of the spectrum (L2)"),
                "none": _("None, the signals are normalised"),
            },
            "m0OverTime": {"interpolated": _("Interpolated over time"), "mean": _("Mean of all")},
            "device": device_titles(),
        }
