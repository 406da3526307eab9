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

from ..images.label_conventions import convention_of_name
from ..images.modalities import IMAGE_ENDINGS, MODALITIES, modality
from ..images.reading import channel_path
from .manifest import StudyRecord

_IMAGES = re.compile(r"images(Tr|Ts|Val)")
_CHANNEL = re.compile(r"(?P<name>.+)_(?P<channel>\d{4})")
_DECATHLON = ("flair", "t1", "t1ce", "t2")
"""Order of the channels in Task01 of the Decathlon."""
_DECATHLON_NAME = re.compile(r"BRATS_\d{3}")


def channel_studies(places: list[tuple[Path, list[str]]], top: Path) -> tuple[list[StudyRecord], set[Path]]:
    """Find the studies of such data sets.

    Args:
        places: Folders with the names of their files.
        top: Folder that was searched, for messages.

    Returns:
        The studies, each of a subject of its own, and the image and label files of these data sets.

    Raises:
        ValueError: ``dataset.json`` cannot be read, or does not tell what the channels are.
    """
    by_place = dict(places)
    records: list[StudyRecord] = []
    taken: set[Path] = set()
    for place, names in places:
        kind = _IMAGES.fullmatch(place.name)
        if kind is None or "dataset.json" not in by_place.get(place.parent, []):
            continue
        labels = place.parent / f"labels{kind[1]}"
        label_names = by_place.get(labels, [])
        taken |= {labels / name for name in label_names}
        for name, channels in sorted(_patients(place, names).items()):
            files = [file for _, file in channels]
            taken |= {Path(str(file).partition("#")[0]) for file in files}
            images = _images(place.parent / "dataset.json", name, channels)
            label = next((labels / each for each in label_names if _stem(each) == name), None)
            convention = None if label is None else convention_of_name(str(label))
            records.append(
                StudyRecord(name, "1", images, label, convention="" if convention is None else convention.name)
            )
    return records, taken


def _patients(place: Path, names: list[str]) -> dict[str, list[tuple[int, Path]]]:
    """Channels of each patient, as (number, file)."""
    found: dict[str, list[tuple[int, Path]]] = {}
    for name in sorted(names):
        stem = _stem(name)
        if stem is None or name.startswith("."):
            continue
        part = _CHANNEL.fullmatch(stem)
        if part is None:
            found[stem] = [(channel, channel_path(place / name, channel)) for channel in range(len(_DECATHLON))]
        else:
            found.setdefault(part["name"], []).append((int(part["channel"]), place / name))
    return found


def _images(dataset: Path, name: str, channels: list[tuple[int, Path]]) -> dict[str, Path]:
    titles = _channel_titles(dataset)
    if not titles:
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
        titles = dict(enumerate(_DECATHLON))
    found = {titles[number]: file for number, file in channels if number in titles}
    return {each: found[each] for each in MODALITIES if each in found}


def _channel_titles(dataset: Path) -> dict[int, str]:
    """Modality by number of the channel; empty where the file does not tell it."""
    content = read_json(dataset)
    if not isinstance(content, dict):
        return {}
    listed = content.get("channel_names") or content.get("modality") or {}
    titles = {}
    for number, title in listed.items() if isinstance(listed, dict) else ():
        try:
            titles[int(number)] = modality(str(title))
        except ValueError:
            continue  # a channel that is none of the four images
    return titles


def _stem(name: str) -> str | None:
    ending = next((ending for ending in IMAGE_ENDINGS if name.lower().endswith(ending)), None)
    return None if ending is None else name[: -len(ending)]
