"""Data sets in the layout of the Medical Segmentation Decathlon and of nnU-Net: images as channels.

The Decathlon has one four-dimensional file for each patient (``imagesTr/BRATS_001.nii.gz``), nnU-Net a file for each
channel (``imagesTr/BRATS_001_0000.nii.gz``); both have the labels in ``labelsTr``. What the channels are stands in
``dataset.json``.
"""

from __future__ import annotations

import re
import warnings
from pathlib import Path

from NeuroCESTLib.core.checked_json import read_json
from NeuroCESTLib.core.labels.conventions import convention_of_name

from ..images.modalities import IMAGE_ENDINGS, MODALITIES, TITLES, modality
from ..images.reading import channel_path
from .studies import StudyRecord

_IMAGES = re.compile(r"images(Tr|Ts|Val)")
_CHANNEL = re.compile(r"(?P<name>.+)_(?P<channel>\d{4})")
_DECATHLON = ("flair", "t1", "t1ce", "t2")
"""Order of the channels in Task01 of the Decathlon."""
_ALL = -1
"""Number that stands for a file with all channels."""
_ABOUT_CONTRAST = {
    *("contrast", "gd", "gadolinium", "enhanced", "agent"),
    *("with", "post", "pre", "no", "non", "without"),
}
UNKNOWN_CHANNEL = "a channel that dataset.json does not name as one of the four images"
"""Reason for which channels are not taken."""
_DECATHLON_NAME = re.compile(r"BRATS_\d{3}")


def channel_studies(
    places: list[tuple[Path, list[str]]], top: Path
) -> tuple[list[StudyRecord], set[Path], list[tuple[Path, str]]]:
    """Find the studies of such data sets.

    Args:
        places: Folders with the names of their files.
        top: Folder that was searched, for messages.

    Returns:
        The studies, each of a subject of its own; the image and label files of these data sets; and the channels that
        are not taken, with the reason.

    Raises:
        ValueError: ``dataset.json`` cannot be read, does not tell what the channels are, or names one of the four
            images twice.
    """
    by_place = dict(places)
    records: list[StudyRecord] = []
    taken: set[Path] = set()
    ignored: list[tuple[Path, str]] = []
    known: dict[Path, dict[int, str | None]] = {}
    for place, names in places:
        kind = _IMAGES.fullmatch(place.name)
        if kind is None or "dataset.json" not in by_place.get(place.parent, []):
            continue
        dataset = place.parent / "dataset.json"
        if dataset not in known:
            known[dataset] = _channel_titles(dataset)
        labels = place.parent / f"labels{kind[1]}"
        label_names = by_place.get(labels, [])
        taken |= {labels / name for name in label_names}
        for name, files in sorted(_patients(place, names).items()):
            titles = known[dataset] or _decathlon_titles(dataset, name)
            taken |= set(files.values())
            if list(files) == [_ALL]:
                files = {number: channel_path(files[_ALL], number) for number in titles}
            images = {title: files[number] for number, title in titles.items() if title and number in files}
            ignored += [(file, UNKNOWN_CHANNEL) for number, file in files.items() if not titles.get(number)]
            if not images:
                continue
            images = {each: images[each] for each in MODALITIES if each in images}
            label = next((labels / each for each in label_names if _stem(each) == name), None)
            convention = None if label is None else convention_of_name(str(label))
            records.append(
                StudyRecord(name, "1", images, label, convention="" if convention is None else convention.name)
            )
    return records, taken, ignored


def _patients(place: Path, names: list[str]) -> dict[str, dict[int, Path]]:
    """Files of each patient by channel; ``_ALL`` for a file with all channels."""
    found: dict[str, dict[int, Path]] = {}
    for name in sorted(names):
        stem = _stem(name)
        if stem is None or name.startswith("."):
            continue
        part = _CHANNEL.fullmatch(stem)
        if part is None:
            found[stem] = {_ALL: place / name}
        else:
            found.setdefault(part["name"], {})[int(part["channel"])] = place / name
    return found


def _decathlon_titles(dataset: Path, name: str) -> dict[int, str | None]:
    """Modality by number of the channel where the file does not tell it, but the name of a patient does."""
    if not _DECATHLON_NAME.fullmatch(name):
        raise ValueError(
            f"'{dataset}' does not tell what the channels of '{name}' are: add "
            '"channel_names": {"0": "T1", ...} to it'
        )
    warnings.warn(
        f"'{dataset}' does not tell what the channels are; they are taken as in Task01 of the Medical Segmentation "
        f"Decathlon: {', '.join(_DECATHLON)}",
        stacklevel=4,
    )
    return dict(enumerate(_DECATHLON))


def _channel_titles(dataset: Path) -> dict[int, str | None]:
    """Modality by number of the channel, None for one that is none of the four; empty where the file tells nothing."""
    content = read_json(dataset)
    if not isinstance(content, dict):
        return {}
    listed = content.get("channel_names") or content.get("modality") or {}
    titles: dict[int, str | None] = {}
    named: dict[str, str] = {}
    foreign = []
    for number, title in listed.items() if isinstance(listed, dict) else ():
        if not str(number).isdecimal():
            continue
        found = _modality_of(str(title))
        titles[int(number)] = found
        if found is None:
            foreign.append(f"'{title}'")
        elif found in named:
            raise ValueError(
                f"'{dataset}' has the channels '{named[found]}' and '{title}', which are both {TITLES[found]}: correct "
                "the names of the channels"
            )
        else:
            named[found] = str(title)
    if titles and not named:
        raise ValueError(
            f"'{dataset}' does not tell which channels are {', '.join(TITLES.values())}: it has {', '.join(foreign)}; "
            'write "channel_names": {"0": "T1", ...}'
        )
    if foreign:
        warnings.warn(
            f"'{dataset}' has channels that are none of {', '.join(TITLES.values())} and are left out: "
            f"{', '.join(foreign)}; correct their names if they are",
            stacklevel=4,
        )
    return titles


def _modality_of(title: str) -> str | None:
    """Modality that the title of a channel names, such as ``T1-weighted with contrast``; None for another image."""
    words = re.findall(r"[a-z0-9]+", title.lower().replace("weighted", " "))
    told = {"contrast", "gd", "gadolinium"} & {*words}
    word = "".join(word for word in words if not told or word not in _ABOUT_CONTRAST)
    try:
        found = modality(word)
    except ValueError:
        return None
    enhanced = told and not {"pre", "no", "non", "without"} & {*words}
    return "t1ce" if found == "t1" and enhanced else found


def _stem(name: str) -> str | None:
    ending = next((ending for ending in IMAGE_ENDINGS if name.lower().endswith(ending)), None)
    return None if ending is None else name[: -len(ending)]
