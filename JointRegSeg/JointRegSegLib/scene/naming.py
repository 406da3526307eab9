"""The studies of a scene, recognised by the names of their volumes."""

from __future__ import annotations

import re
from typing import Any

from ..images.modalities import MODALITIES, split_name


def studies_by_name() -> dict[str, dict[str, Any]]:
    """Group the volumes of the scene into studies by their names, such as 'visit 1 T1' and 'visit 1 FLAIR'.

    Volumes of the same study and modality are ambiguous and left out, and so are volumes whose names show no modality.

    Returns:
        Volume nodes by modality, by the name of the study in natural order.
    """
    found = _volumes_by_name()
    studies = {}
    for study in sorted(found, key=_natural):
        single = {role: nodes[0] for role, nodes in found[study].items() if len(nodes) == 1}
        if single:
            studies[study] = {role: single[role] for role in MODALITIES if role in single}
    return studies


def ambiguous_names() -> list[str]:
    """Return the names of volumes that are left out because several are of the same study and modality."""
    found = _volumes_by_name()
    several = [nodes for study in sorted(found, key=_natural) for nodes in found[study].values() if len(nodes) > 1]
    return list(dict.fromkeys(node.GetName() for nodes in several for node in nodes))


def _volumes_by_name() -> dict[str, dict[str, list[Any]]]:
    import slicer

    found: dict[str, dict[str, list[Any]]] = {}
    for node in slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode"):
        if node.IsA("vtkMRMLLabelMapVolumeNode"):
            continue
        study, role = split_name(f"{node.GetName()}.nii.gz")
        if role in MODALITIES:
            found.setdefault(study, {}).setdefault(role, []).append(node)
    return found


def _natural(name: str) -> list[tuple[int, str]]:
    """Key that sorts 'visit 2' before 'visit 10'."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", name.lower())]
