"""What the compartments of a tumour are called, coloured and coded, in scenes, tables and pictures."""

from __future__ import annotations

from dataclasses import dataclass

from .labels import CLASSES

# Slicer's context and category of lesions, and the brain as its region, in the text form of a terminology entry.
_CONTEXT = "Segmentation category and type - DICOM master list"
_CATEGORY = "SCT^49755003^Morphologically Altered Structure"
_REGION = "Anatomic codes - DICOM master list~SCT^12738006^Brain~^^"


@dataclass(frozen=True)
class Compartment:
    """One class of the segmentation.

    color: red, green, blue in 0 … 1. code: SNOMED CT code and meaning as in Slicer's list of lesions, which has no
    enhancing tumour: that one is coded as primary neoplasm, its name tells the rest.
    """

    name: str
    color: tuple[float, float, float]
    code: tuple[str, str]

    @property
    def terminology(self) -> str:
        """The entry as Slicer writes it into segments."""
        value, meaning = self.code
        return f"{_CONTEXT}~{_CATEGORY}~SCT^{value}^{meaning}~^^~{_REGION}"


COMPARTMENTS = {
    1: Compartment("Necrotic core", (0.84, 0.37, 0.0), ("6574001", "Necrosis")),
    2: Compartment("Oedema", (0.34, 0.71, 0.91), ("79654002", "Edema")),
    3: Compartment("Enhancing tumour", (0.94, 0.89, 0.26), ("86049000", "Neoplasm, Primary")),
}
"""By class number; colours of Okabe and Ito, which colour-blind readers can tell apart."""


def title_of(region: str) -> str:
    """What tables and pictures call a class or region, such as ``whole_tumor``."""
    if region in CLASSES[1:]:
        return COMPARTMENTS[CLASSES.index(region)].name
    return region.replace("_", " ").replace("tumor", "tumour").capitalize()
