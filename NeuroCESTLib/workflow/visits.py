"""The visits of a cohort, with their files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

MODALITIES = ("t1", "t1ce", "t2", "flair")
FILE_COLUMNS = {
    **{
        name: f"{title} image"
        for name, title in zip(MODALITIES, ("T1", "T1 with contrast", "T2", "FLAIR"), strict=True)
    },
    "brain_mask": "brain on the grid of the structural images",
    "segmentation": "tumour compartments, instead of the network's",
    "cest": "CEST acquisition: image file, or folder of scanner files",
    "protocol": "protocol of the CEST acquisition",
    "m0": "M0 image",
    "cest_mask": "mask on the CEST grid",
    "b0": "B0 shift in ppm",
    "b1": "relative B1",
    "t1_map": "water T1 in s",
    "wasabi": "WASABI acquisition, for B0 and B1 maps",
    "wasabi_protocol": "its protocol",
    "wassr": "WASSR acquisition, for a B0 map",
    "wassr_protocol": "its protocol",
    "to_anatomy": "transform that moves the CEST images onto the anatomy, instead of a registration",
}
"""Columns that name files, with what they hold."""
DATE = "date"
"""Attribute with the day of a visit, by which their order is checked."""


@dataclass(frozen=True)
class Visit:
    """One line of the manifest.

    Attributes:
        subject: Name of the subject.
        name: Name of the visit.
        files: Absolute path of each file by column.
        attributes: Values of all other columns, such as ``group``.
    """

    subject: str
    name: str
    files: Mapping[str, str]
    attributes: Mapping[str, str]

    @property
    def has_cest(self) -> bool:
        """Whether there is a CEST acquisition."""
        return "cest" in self.files


@dataclass(frozen=True)
class CohortManifest:
    """The visits of a cohort.

    Attributes:
        source: The manifest.
        visits: Visits in the order of the file.
        attributes: Names of the columns that are neither names nor files.
    """

    source: str
    visits: tuple[Visit, ...]
    attributes: tuple[str, ...] = field(default=())

    def subjects(self) -> dict[str, list[Visit]]:
        """Group the visits by subject; both are in the order of the manifest."""
        found: dict[str, list[Visit]] = {}
        for visit in self.visits:
            found.setdefault(visit.subject, []).append(visit)
        return found
