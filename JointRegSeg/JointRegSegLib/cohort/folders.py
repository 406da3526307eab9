"""A cohort from the folders of a data set."""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from NeuroCESTLib.core.labels.conventions import convention_of_name

from ..images.modalities import (
    FREESURFER_ENDINGS,
    IMAGE_ENDINGS,
    MODALITIES,
    SYNONYMS,
    headers_beside_images,
    says_no_part,
    split_name,
)
from .channels import channel_studies
from .consistency import require_consistent
from .guesses import tell_guesses, tell_similar_names
from .layouts import (
    dated_subjects,
    day_stands_first,
    natural_key,
    numbered_visits,
    study_folder,
    study_name,
    subject_and_visit,
    visit_key,
)
from .studies import Cohort, StudyRecord

_LANDMARKS = re.compile(r"(.*?)[-_. ]*landmarks?\.f?csv", re.IGNORECASE)
_AUTOMATIC = re.compile(r"auto|approx", re.IGNORECASE)
_BRATS_2015 = re.compile(r"VSD\.Brain(?:_\dmore)?\..*\.(?:MR_(?P<image>\w+)|(?P<label>OT))\.\d+", re.IGNORECASE)
_DERIVATIVES = "derivatives"
_SPACE = re.compile(r"_space-([A-Za-z0-9]+)(?=_|$)")
_OWN_SPACE = re.compile(
    rf"(?:ce)?(?:{'|'.join(word for modality in MODALITIES for word in SYNONYMS[modality])})(?:ce|gd)?"
    "|orig|native|individual|scanner|anat|subject"
)
"""Spaces in BIDS names, in lower case, that are those of the images themselves."""

NO_IMAGE = "not one of the four images, a tumour label or a brain mask"
NO_PART = "its name does not say that it shows tumour or the brain: rename it, or enter it in the manifest if it does"
FREESURFER = "an image of FreeSurfer, which is not read: convert it with mri_convert to .nii.gz"
DERIVED = "derived from the images of a study"
COPY = "a single file of the same name holds this image too"
SECOND = "another file of the same kind is taken"
OTHER_SPACE = "its name says another space than those of the images"
NO_STUDY = "no images of its study were found"
SEVERAL = "several studies have this name"
SEVERAL_BESIDE = "its name tells no study, and its folder may belong to several"
AUTOMATIC = "segmented by a program, not by a reader"
"""Reasons for which files are not taken."""

Ignored = tuple[Path, str]
"""A file that was not taken, with the reason."""


@dataclass
class _Group:
    """Files of one study in one folder by what they hold."""

    place: Path
    name: str
    files: dict[str, Path] = field(default_factory=dict)

    @property
    def has_image(self) -> bool:
        return any(modality in self.files for modality in MODALITIES)


def cohort_of_folder(folder: str | os.PathLike) -> Cohort:
    """Find all studies below a folder.

    A folder with recognized files (see ``images.modalities``) is one study, or several where the part of the file
    names before the modality differs. Subject and visit follow from the names, see ``layouts``:

    - Names of public collections (``BraTS-GLI-00000-001``, ``UPENN-GBM-00001_11``, ``sub-01_ses-02``) contain both.
    - A folder called like a visit (``ses-01``, ``week-012``, ``baseline``, ``001``), or whose name is or begins with a
      date, belongs to the subject that its parent folder is named after, unless a name with a number of its own follows
      the date (``20190102_P01``), see ``layouts.dated_subjects``.
    - Files called like a visit (``visit1_t1.nii.gz``), also after the name of their folder, belong to the subject that
      the folder is named after, unless that folder is itself called like a visit.
    - A name that ends like a visit (``P1_week-2``) contains both; any other one is the name of a subject.

    Labels, masks and landmarks in other folders belong to the study whose name they have. Where several studies have
    it, or the files have no name but that of their kind (``seg.nii.gz``), they belong to that in a folder above theirs,
    or in the folder of the same path in another tree (``images/P1`` and ``labels/P1``). ``NAME_landmarks.csv`` (or
    ``.fcsv``) beside the images is taken too. Four-dimensional files of the Medical Segmentation Decathlon and numbered
    channels of nnU-Net are taken channel by channel, see ``channels``.
    Links to folders are followed.

    Args:
        folder: Folder to search.

    Returns:
        The studies, subjects in the order of their names and visits in that of time, all in the split ``train``, with
        the image files that were not taken. Guesses are told in warnings.

    Raises:
        ValueError: The folder is missing or holds no recognized image, two files are of one modality, or two studies
            have the same subject and visit.
    """
    folder = Path(os.path.abspath(folder))
    if not folder.is_dir():
        if folder.exists():
            raise ValueError(f"'{folder}' is a file: give the folder that holds the studies")
        raise ValueError(f"the folder '{folder}' does not exist")
    places: list[tuple[Path, list[str]]] = []
    copies: list[Ignored] = []
    for place, names in _folders(folder):
        headers = headers_beside_images(names)
        places.append((place, [name for name in names if name not in headers]))
        copies += [(place / name, COPY) for name in headers]
    records, taken, left_out = channel_studies(places, folder)
    groups, ignored = _groups(places, taken, folder)
    studies, nested = _studies(groups, folder)
    ignored += [*copies, *nested, *left_out]
    without_images = [group for group in groups if not group.has_image]
    for group in sorted(without_images, key=lambda group: not any(_space(file.name) for file in group.files.values())):
        ignored += _attach(group, studies, folder)
    _tell_labels_in_other_spaces(studies.values(), ignored, folder)
    records += [_record(subject, visit, study.files) for (subject, visit), study in studies.items()]
    if not records:
        unread = sorted(path for path, reason in ignored if reason == FREESURFER)
        if unread:
            raise ValueError(
                f"no image of a study was found below '{folder}'; files such as '{unread[0].relative_to(folder)}' are "
                "images of FreeSurfer, which are not read: convert them with mri_convert to .nii.gz"
            )
        raise ValueError(
            f"no file below '{folder}' is named like an image of a study; expected are names as in BraTS, such as "
            "NAME_t1.nii.gz, NAME_t1ce.nii.gz, NAME_t2.nii.gz, NAME_flair.nii.gz and NAME_seg.nii.gz"
        )
    records = _visits_joined(records)
    visits = {
        subject: [visit.visit for visit in found] for subject, found in Cohort("", tuple(records)).visits().items()
    }
    tell_similar_names(list(visits))
    day_first = day_stands_first(visits)
    records.sort(key=lambda record: (natural_key(record.subject), visit_key(record.visit, day_first)))
    return require_consistent(Cohort(str(folder), tuple(records), tuple(sorted(ignored))))


def _folders(top: Path) -> Iterator[tuple[Path, list[str]]]:
    """A folder and all below it with the names of their files, each once however many links lead to it.

    Links come after the folders themselves, so that a folder is known by its own name where it has one. A link to a
    folder that contains ``top`` is not followed.
    """
    here, seen = Path(os.path.realpath(top)), set()
    waiting = [top]
    while waiting:
        links = []
        for start in waiting:
            for place, folders, names in os.walk(start):
                folders[:] = sorted(name for name in folders if not name.startswith("."))
                real = Path(os.path.realpath(place))
                if real in seen or real in here.parents:
                    folders.clear()
                    continue
                seen.add(real)
                links += [Path(place) / name for name in folders if os.path.islink(os.path.join(place, name))]
                yield Path(place), names
        waiting = links


def _groups(places: list[tuple[Path, list[str]]], taken: set[Path], top: Path) -> tuple[list[_Group], list[Ignored]]:
    """Files by folder and study, and the image files that hold nothing of use."""
    groups: dict[tuple[Path, str, str], _Group] = {}
    ignored: list[Ignored] = []
    for place, names in places:
        for name in sorted(names):
            path = place / name
            if name.startswith(".") or path in taken:
                continue
            home, prefix, role = _what_it_is(place, name)
            derived = _DERIVATIVES in place.relative_to(top).parts
            if role is None or (role in MODALITIES and derived):
                if name.lower().endswith(IMAGE_ENDINGS):
                    unknown = NO_PART if says_no_part(path) else NO_IMAGE
                    ignored.append((path, unknown if role is None else DERIVED))
                elif name.lower().endswith(FREESURFER_ENDINGS):
                    ignored.append((path, FREESURFER))
                continue
            key = (home, prefix, _space(name) if derived else "")
            group = groups.setdefault(key, _Group(home, prefix))
            if role in group.files and derived:  # the shorter name says that less was done to it
                kept, other = sorted((group.files[role], path), key=lambda file: (len(file.name), file.name))
                group.files[role] = kept
                ignored.append((other, SECOND))
                continue
            if role in group.files:
                raise ValueError(
                    f"'{home}' has two files for {role}, '{group.files[role].name}' and '{name}'; "
                    "keep only one of them there"
                )
            group.files[role] = path
    return _merged(list(groups.values())), ignored


def _what_it_is(place: Path, name: str) -> tuple[Path, str, str | None]:
    """Folder of the study, its name, and what a file holds."""
    landmarks = _LANDMARKS.fullmatch(name)
    if landmarks:
        return place, study_name(landmarks[1]), "landmarks"
    old = _BRATS_2015.match(name)
    if old:  # a folder for each image
        role = "label" if old["label"] else split_name(f"{old['image']}.mha")[1]
        return place.parent, place.parent.name, role
    prefix, role = split_name(name)
    return place, study_name(prefix), role


def _merged(groups: list[_Group]) -> list[_Group]:
    """Files of a folder that holds a single study belong to it, even if their names begin differently."""
    by_place: dict[Path, list[_Group]] = {}
    for group in groups:
        by_place.setdefault(group.place, []).append(group)
    merged = []
    for members in by_place.values():
        roles = [role for group in members for role in group.files]
        main = next((group for group in members if group.has_image), None)
        if main is not None and len(set(roles)) == len(roles):
            names = [f"'{group.name}'" for group in members if group.has_image]
            if len(names) > 1:
                warnings.warn(
                    f"the images of {' and '.join(names)} in '{main.place}' are taken as one study, because none "
                    "occurs twice: correct the manifest if they are not",
                    stacklevel=4,
                )
            for group in members:
                main.files.update(group.files)
            members = [main]
        merged += members
    return merged


def _studies(groups: list[_Group], top: Path) -> tuple[dict[tuple[str, str], _Group], list[Ignored]]:
    """Groups with images by subject and visit, and the files of folders inside of those of studies."""
    with_images = [group for group in groups if group.has_image]
    homes = {group.place for group in with_images if group.place != top}
    dated = dated_subjects({study_folder(group.place, top) for group in with_images}, top)
    studies: dict[tuple[str, str], _Group] = {}
    ignored: list[Ignored] = []
    for group in with_images:
        alone = group.place != top and sum(other.place == group.place for other in with_images) == 1
        subject, visit = subject_and_visit(group.place, group.name, alone, top, dated)
        inside = next((home for home in homes if home in group.place.parents), None)
        if inside is not None and subject != subject_and_visit(inside, "", True, top, dated)[0]:
            ignored += [(file, DERIVED) for file in group.files.values()]
            continue
        if (subject, visit) in studies:
            raise ValueError(
                f"'{studies[subject, visit].place}' and '{group.place}' both hold the study '{subject} {visit}'; "
                "rename one of the folders"
            )
        studies[subject, visit] = group
    tell_guesses({key: study_folder(group.place, top) for key, group in studies.items()}, top)
    return studies, ignored


def _attach(group: _Group, studies: Mapping[tuple[str, str], _Group], top: Path) -> list[Ignored]:
    """Give labels, masks and landmarks of other folders to the study of their name; return what is left."""
    named = [study for study in studies.values() if group.name in ("", study.name)]
    if not named:
        named = [study for study in studies.values() if group.name == _SPACE.sub("", study.name)]
    near = [study for study in named if _is_beside(group.place, study.place, top)]
    if group.name and len(named) < 2:
        near = named
    if len(near) != 1:
        several = (SEVERAL if named else "") if group.name else (SEVERAL_BESIDE if near else "")
        reason = AUTOMATIC if _AUTOMATIC.search(f"{group.place} {group.name}") else several or NO_STUDY
        return [(file, reason) for file in group.files.values()]
    study = near[0]
    space = _space(next(study.files[modality] for modality in MODALITIES if modality in study.files).name)
    left = []
    for role, file in group.files.items():
        if _SPACE.search(file.name) and _space(file.name) != space:
            left.append((file, OTHER_SPACE))
        elif role in study.files:
            left.append((file, SECOND))
        elif role == "label" and _AUTOMATIC.search(str(file.relative_to(os.path.commonpath((file, study.place))))):
            left.append((file, AUTOMATIC))
        else:
            study.files[role] = file
    return left


def _space(name: str) -> str:
    """Space that the BIDS name of a file says, in lower case; empty for none and for that of the images themselves."""
    found = _SPACE.search(name)
    space = found[1].lower() if found else ""
    return "" if _OWN_SPACE.fullmatch(space) else space


def _tell_labels_in_other_spaces(studies: Iterable[_Group], ignored: list[Ignored], top: Path) -> None:
    """Warn of tumor labels that were left out for their space where the study has no other label."""
    unlabeled = {study.name for study in studies if "label" not in study.files}
    labels = []
    for file, reason in ignored:
        _, name, role = _what_it_is(file.parent, file.name)
        if reason == OTHER_SPACE and role == "label" and name in unlabeled:
            labels.append(file)
    if labels:
        more = f" and {len(labels) - 1} more" if len(labels) > 1 else ""
        warnings.warn(
            f"the tumour label '{labels[0].relative_to(top)}'{more} is left out, because the space- in its name is not "
            "that of the images: enter it in the manifest if it lies on them",
            stacklevel=3,
        )


def _is_beside(place: Path, home: Path, top: Path) -> bool:
    """Whether a folder lies in that of a study, or has the same path in another tree below ``top``."""
    trees = [folder.relative_to(top).parts[1:] for folder in (place, home)]
    return home in place.parents or (trees[0] == trees[1] != ())


def _record(subject: str, visit: str, files: Mapping[str, Path]) -> StudyRecord:
    images = {modality: files[modality] for modality in MODALITIES if modality in files}
    label = files.get("label")
    convention = None if label is None else convention_of_name(str(label))
    return StudyRecord(
        subject,
        visit,
        images,
        label,
        files.get("mask"),
        files.get("landmarks"),
        convention="" if convention is None else convention.name,
    )


def _visits_joined(records: list[StudyRecord]) -> list[StudyRecord]:
    """Studies whose names differ in a last number alone become visits of one subject, which is told."""
    counts: dict[str, int] = {}
    for record in records:
        counts[record.subject] = counts.get(record.subject, 0) + 1
    found = numbered_visits([record.subject for record in records if counts[record.subject] == 1])
    for subject in sorted({subject for subject, _ in found.values()}):
        names = ", ".join(sorted(name for name, (whose, _) in found.items() if whose == subject))
        warnings.warn(
            f"{names} are taken as visits of one subject, '{subject}': correct the manifest if they are not",
            stacklevel=3,
        )
    return [
        replace(record, subject=found[record.subject][0], visit=found[record.subject][1])
        if record.subject in found
        else record
        for record in records
    ]
