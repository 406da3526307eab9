"""The studies of a cohort: the files of each visit, its split and the convention of its labels."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from NeuroCESTLib.core.labels.conventions import LabelConvention, convention_of_name

from ..images.label_conventions import declared_convention

SPLITS = ("train", "val", "test")
_SHOWN = 5
"""Most studies that a message names."""


@dataclass(frozen=True)
class StudyRecord:
    """Files of one study.

    Attributes:
        subject: Name of the subject.
        visit: Name of the visit; may be empty.
        images: File of each modality, in the order of ``MODALITIES``.
        label: Tumour classes, or None.
        mask: Brain mask, or None.
        landmarks: Points, or None.
        split: One of ``SPLITS``.
        convention: Declared meaning of the numbers in ``label``, see ``label_conventions.declared_convention``; empty
            to recognize it.
        target_files: Files of the further columns that tasks ask for, by column.
        target_values: Fields of such columns that are numbers or texts, by column.
    """

    subject: str
    visit: str
    images: Mapping[str, Path]
    label: Path | None = None
    mask: Path | None = None
    landmarks: Path | None = None
    split: str = "train"
    convention: str = ""
    target_files: Mapping[str, Path] = field(default_factory=dict)
    target_values: Mapping[str, str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Subject and visit, for messages and file names."""
        return f"{self.subject} {self.visit}" if self.visit else self.subject

    @property
    def files(self) -> dict[str, Path]:
        """All files by column of the manifest."""
        others = {"label": self.label, "mask": self.mask, "landmarks": self.landmarks}
        return (
            dict(self.images)
            | {column: path for column, path in others.items() if path is not None}
            | dict(self.target_files)
        )

    @property
    def told_convention(self) -> LabelConvention | None:
        """Convention of the label file, declared or told by its name; None where its numbers have to be recognized."""
        if self.convention:
            return declared_convention(self.convention)
        return None if self.label is None else convention_of_name(str(self.label))


@dataclass(frozen=True)
class Cohort:
    """The studies of a manifest.

    Attributes:
        source: The manifest or folder, for messages.
        studies: The studies in the order of the manifest.
        ignored: Image files of the folder that were not taken, with the reason.
    """

    source: str
    studies: tuple[StudyRecord, ...]
    ignored: tuple[tuple[Path, str], ...] = ()

    def __len__(self) -> int:
        return len(self.studies)

    def of_split(self, split: str) -> Cohort:
        """Select the studies of one split.

        Raises:
            ValueError: The split is unknown or has no study.
        """
        if split not in SPLITS:
            raise ValueError(f"unknown split '{split}'; use {', '.join(SPLITS)}")
        chosen = tuple(study for study in self.studies if study.split == split)
        if not chosen:
            counts = Counter(study.split for study in self.studies)
            shown = ", ".join(f"{count} in '{name}'" for name, count in counts.items())
            raise ValueError(f"'{self.source}' has no study in the split '{split}' ({shown})")
        return replace(self, studies=chosen)

    def require_modalities(self, known: Sequence[str]) -> None:
        """Check that every study has an image that a network can use.

        Args:
            known: Modalities of the network.

        Raises:
            ValueError: Some studies have none of these modalities; the message names them and what they have.
        """
        lacking = [study for study in self.studies if not set(known) & set(study.images)]
        if lacking:
            named = ", ".join(f"'{study.name}' ({', '.join(study.images)})" for study in lacking[:_SHOWN])
            more = f" and {len(lacking) - _SHOWN} more" if len(lacking) > _SHOWN else ""
            raise ValueError(
                f"'{self.source}' lists studies without any modality that the network knows ({', '.join(known)}): "
                f"{named}{more}; add such images, or leave these studies out of the manifest"
            )

    def with_convention(self, convention: str | None) -> Cohort:
        """Return the cohort with a convention of the label files for the studies that declare none.

        Args:
            convention: Name or numbers, see ``label_conventions.declared_convention``; None changes nothing.

        Raises:
            ValueError: The convention is unknown.
        """
        if convention is None:
            return self
        declared_convention(convention)
        studies = tuple(
            replace(study, convention=convention) if study.label is not None and not study.convention else study
            for study in self.studies
        )
        return replace(self, studies=studies)

    def conventions(self) -> dict[str, int]:
        """Count the label files by their convention: declared, told by a file name, or still to be recognized."""
        return dict(Counter(_convention_of(study) for study in self.studies if study.label is not None))

    def visits(self) -> dict[str, list[StudyRecord]]:
        """Group the visits by subject; subjects and visits are in the order of the manifest."""
        subjects: dict[str, list[StudyRecord]] = {}
        for study in self.studies:
            subjects.setdefault(study.subject, []).append(study)
        return subjects


def _convention_of(study: StudyRecord) -> str:
    told = study.told_convention
    if told is None:
        return "recognized by numbers and arrangement"
    return f"{told.name} ({'declared' if study.convention else 'file name'})"
