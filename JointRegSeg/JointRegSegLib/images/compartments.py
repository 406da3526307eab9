"""Names, colours and terminology codes of the tumour compartments in scenes, tables and pictures."""

from __future__ import annotations

from dataclasses import dataclass

from .labels import CLASSES

# Slicer's context and category of lesions, with the brain as region, as in the text of a terminology entry.
_CONTEXT = "Segmentation category and type - DICOM master list"
_CATEGORY = "SCT^49755003^Morphologically Altered Structure"
_REGION = "Anatomic codes - DICOM master list~SCT^12738006^Brain~^^"


@dataclass(frozen=True)
class Compartment:
    """One class of the segmentation.

    Attributes:
        name: Name of the segment.
        color: Red, green and blue from 0 to 1.
        code: SNOMED CT code and meaning as in Slicer's list of lesions. That list has no enhancing tumour, which is
            therefore coded as primary neoplasm.
    """

    name: str
    color: tuple[float, float, float]
    code: tuple[str, str]

    @property
    def terminology(self) -> str:
        """Terminology entry as Slicer writes it into segments."""
        value, meaning = self.code
        return f"{_CONTEXT}~{_CATEGORY}~SCT^{value}^{meaning}~^^~{_REGION}"


COMPARTMENTS = {
    1: Compartment("Necrotic core", (0.84, 0.37, 0.0), ("6574001", "Necrosis")),
    2: Compartment("Oedema", (0.34, 0.71, 0.91), ("79654002", "Edema")),
    3: Compartment("Enhancing tumour", (0.94, 0.89, 0.26), ("86049000", "Neoplasm, Primary")),
}
"""Compartments by class number, in colours of Okabe and Ito that colour-blind readers can distinguish."""


def title_of(region: str) -> str:
    """Return the name of a class or region, such as ``whole_tumor``, in tables and pictures."""
    if region in CLASSES[1:]:
        return COMPARTMENTS[CLASSES.index(region)].name
    return region.replace("_", " ").replace("tumor", "tumour").capitalize()
