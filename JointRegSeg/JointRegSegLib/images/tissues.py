"""Tissues and parts of the brain in a tissue label map: their numbers, names, colours and terminology."""

from __future__ import annotations

from dataclasses import dataclass

_CONTEXT = "Segmentation category and type - DICOM master list"
_ANATOMY = "SCT^123037004^Anatomical Structure"
_ALTERED = "SCT^49755003^Morphologically Altered Structure"
_REGION = "Anatomic codes - DICOM master list~SCT^12738006^Brain~^^"


@dataclass(frozen=True)
class Tissue:
    """One label of a tissue map.

    Attributes:
        title: Name of the segment.
        color: Red, green and blue from 0 to 1.
        code: SNOMED CT code and meaning.
        altered: Whether it is a lesion and not anatomy.
    """

    title: str
    color: tuple[float, float, float]
    code: tuple[str, str]
    altered: bool = False

    @property
    def terminology(self) -> str:
        """Terminology entry as Slicer writes it into segments."""
        value, meaning = self.code
        category = _ALTERED if self.altered else _ANATOMY
        return f"{_CONTEXT}~{category}~SCT^{value}^{meaning}~^^~{_REGION}"


TISSUES = {
    "csf": Tissue("Cerebrospinal fluid", (0.34, 0.71, 0.91), ("65216001", "Cerebrospinal fluid")),
    "gm": Tissue("Grey matter", (0.55, 0.55, 0.55), ("389081007", "Gray matter")),
    "wm": Tissue("White matter", (0.94, 0.90, 0.80), ("389080008", "White matter")),
    "cerebellum": Tissue("Cerebellum", (0.90, 0.62, 0.0), ("113305005", "Cerebellum")),
    "brain_stem": Tissue("Brain stem", (0.0, 0.62, 0.45), ("15926001", "Brainstem")),
    "ventricles": Tissue("Ventricles", (0.0, 0.45, 0.70), ("35764002", "Brain ventricle")),
    "lesion": Tissue("Lesion", (0.84, 0.37, 0.0), ("52988006", "Lesion"), True),
}
"""Tissues by their names in configurations; the number of each in label maps is its place, from 1."""


def tissue(name: str) -> Tissue:
    """Return the tissue of a name; a name of the user's own is a segment with that name, coded as brain.

    Args:
        name: Name in a configuration.
    """
    hue = sum(map(ord, name)) % 7 / 7
    return TISSUES.get(name) or Tissue(name, (0.3 + 0.7 * hue, 0.8 - 0.5 * hue, 0.6), ("12738006", "Brain"))
