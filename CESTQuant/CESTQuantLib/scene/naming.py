"""The nodes that go with an acquisition, recognised by their names, and the folder of its maps."""

from __future__ import annotations

import re
from typing import Any

from NeuroCESTLib.scene import hierarchy

_ROLES = {
    "reference": {"m0", "s0", "reference"},
    "mask": {"mask", "brainmask"},
    "b0": {"b0", "db0", "deltab0", "b0map"},
    "b1": {"b1", "relb1", "b1map", "b1rel"},
    "t1": {"t1map", "qt1"},
    "segmentation": {"regions", "rois", "segmentation", "tumour", "tumor"},
}
"""Words that name each input."""
ROLES = tuple(_ROLES)
"""Inputs that go with an acquisition."""
_ROLES_WITH_THE_SIGNAL = {**_ROLES, "t1": _ROLES["t1"] | {"t1"}}
"""The same where the name also has the words of the signal's name: 'T1' alone is mostly a T1-weighted image."""

FIELD_METHODS = ("wasabi", "wassr")
"""Words that name an acquisition of the fields, which are also the names of the methods."""
QUALITY_FOLDER = "errors and quality"
"""Name of the folder of standard errors and of maps that say how far the others can be trusted."""


def folder_of_run(node: Any) -> int:
    """Return the item ID of the folder of the run that made a map or table; 0 where it lies in none."""
    return hierarchy.nearest_folder_of(node, part=QUALITY_FOLDER)


def inputs_by_name(signal: Any) -> dict[str, Any]:
    """Find the nodes of the scene that go with an acquisition by their names.

    The nodes that share the words of the signal's name, such as 'visit 2 B1' with 'visit 2', come first. A role for
    which there are several nodes is left out.

    Args:
        signal: Sequence node.

    Returns:
        Nodes by role: ``reference``, ``mask``, ``b0``, ``b1``, ``t1``, ``segmentation``.
    """
    import slicer

    own = set(_words(signal))
    nodes = [*slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode")]
    nodes += slicer.util.getNodesByClass("vtkMRMLSegmentationNode")
    found = {}
    for role in _ROLES:
        able = [node for node in nodes if _can_be(node, role)]
        together = [n for n in able if own <= set(_words(n)) and _named(n, own) & _ROLES_WITH_THE_SIGNAL[role]]
        alone = [node for node in able if _named(node, set()) & _ROLES[role] or _is_map(node, role)]
        candidates = together or alone
        if len(candidates) == 1:
            found[role] = candidates[0]
    return found


def field_method_of(sequence: Any) -> str:
    """Return how an acquisition maps the fields by its name, ``wasabi`` or ``wassr``; empty where it says neither."""
    return next((name for name in FIELD_METHODS if name in _words(sequence)), "")


def first_acquisition() -> Any:
    """Return the first sequence of the scene that is no field acquisition by its name; None without one."""
    import slicer

    sequences = slicer.util.getNodesByClass("vtkMRMLSequenceNode")
    return next((node for node in sequences if not field_method_of(node)), None)


def field_acquisition(signal: Any) -> Any:
    """Find the WASABI or WASSR acquisition that goes with an acquisition by its name.

    Args:
        signal: Sequence node.

    Returns:
        The sequence node; of several the one that shares the most words with the signal's name, such as the visit.
        None where no such sequence stands out.
    """
    import slicer

    sequences = slicer.util.getNodesByClass("vtkMRMLSequenceNode")
    own = set(_words(signal))
    shared = {node: len(own & set(_words(node))) for node in sequences if node is not signal and field_method_of(node)}
    best = [node for node, count in shared.items() if count == max(shared.values())]
    return best[0] if len(best) == 1 else None


def _words(node: Any) -> list[str]:
    return re.findall(r"[a-z0-9]+", (node.GetName() or "").lower())


def _named(node: Any, own: set[str]) -> set[str]:
    """Words of a node's name beside those of the signal; together they must say nothing else."""
    words = [word for word in _words(node) if word not in own and word != "map"]
    return set(words) if len(words) == 1 else set()


def _is_map(node: Any, role: str) -> bool:
    """Whether the name is that of a T1 map, such as 'T1 map'."""
    return role == "t1" and _words(node) == ["t1", "map"]


def _can_be(node: Any, role: str) -> bool:
    segmentation = node.IsA("vtkMRMLSegmentationNode")
    if role == "segmentation":
        return segmentation
    labels = node.IsA("vtkMRMLLabelMapVolumeNode")
    return (labels or segmentation) if role == "mask" else not (labels or segmentation)
