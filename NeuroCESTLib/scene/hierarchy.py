"""Folders of the subject hierarchy, of which the nodes of a run share one, and marks that tell these nodes apart."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any


def make_folder(name: str, parent: int | None = None) -> int:
    """Make a folder of the subject hierarchy.

    Args:
        name: Name of the folder; where it is taken already, a number in brackets is added.
        parent: Item ID of the folder around it; None for the top of the hierarchy.

    Returns:
        Item ID of the folder.
    """
    hierarchy, top = _hierarchy()
    top = top if parent is None else parent
    taken = {hierarchy.GetItemName(item) for item in _children(hierarchy, top)}
    unique, count = name, 1
    while unique in taken:
        count += 1
        unique = f"{name} ({count})"
    return hierarchy.CreateFolderItem(top, unique)


def put(nodes: Iterable[Any], folder: int) -> None:
    """Put nodes into a folder of the subject hierarchy, given by its item ID."""
    hierarchy, _ = _hierarchy()
    for node in nodes:
        # Makes a new item, or moves the existing one; both in the application and in the headless host.
        hierarchy.CreateItem(folder, node)


def nodes_in(folder: int, below: bool = False) -> list[Any]:
    """Return the nodes in a folder, in their order.

    Args:
        folder: Item ID of the folder.
        below: Whether those in the folders below it count too.
    """
    hierarchy, _ = _hierarchy()
    nodes = (hierarchy.GetItemDataNode(item) for item in _children(hierarchy, folder, below))
    return [node for node in nodes if node is not None]


def mark(node: Any, name: str, value: str) -> None:
    """Mark a node of the scene, whatever it is called later and when the scene is saved; see ``marked``.

    Args:
        node: Node of the scene.
        name: Name of the mark.
        value: What the mark says.
    """
    node.SetAttribute(name, value)
    # A copy has the attribute and the reference too, but its reference leads to the original.
    node.SetNodeReferenceID(name, node.GetID())


def marked(node: Any, name: str) -> str:
    """Return what a mark of a node says; empty without this mark, and for a copy of a marked node."""
    return (node.GetAttribute(name) or "") if node.GetNodeReferenceID(name) == node.GetID() else ""


def folder_of(node: Any) -> str:
    """Return the name of the folder that holds a node; empty where there is none."""
    folder = nearest_folder_of(node)
    return _hierarchy()[0].GetItemName(folder) if folder else ""


def nearest_folder_of(node: Any, part: str = "") -> int:
    """Return the item ID of the folder that holds a node, whatever lies around that folder; 0 where there is none.

    Args:
        node: Node of the scene.
        part: Name of folders that are a part of the folder around them, which is returned instead.
    """
    hierarchy, top = _hierarchy()
    item = hierarchy.GetItemByDataNode(node)
    folder = hierarchy.GetItemParent(item) if item else top
    if part and folder != top and hierarchy.GetItemName(folder) == part:
        folder = hierarchy.GetItemParent(folder)
    return 0 if folder == top else folder


def folder_named(name: str) -> int | None:
    """Return the item ID of the top folder called ``name``, or None where there is none."""
    hierarchy, top = _hierarchy()
    item = hierarchy.GetItemChildWithName(top, name)
    return item or None


def top_items() -> set[int]:
    """Return the IDs of all items at the top of the subject hierarchy."""
    return set(_children(*_hierarchy()))


def remove_item(item: int) -> None:
    """Remove an item of the subject hierarchy where it still exists.

    Its data node stays in the scene; items below it move to the top of the hierarchy.
    """
    hierarchy, _ = _hierarchy()
    hierarchy.RemoveItem(item, False, False)


def remove_empty_top_items(kept: set[int]) -> None:
    """Remove items at the top of the subject hierarchy that hold no node of the scene, and the items below them.

    Args:
        kept: IDs of items that stay in any case.
    """
    for item in top_items() - kept:
        remove_empty_item(item)


def remove_empty_item(item: int) -> None:
    """Remove an item of the subject hierarchy and the items below it, unless one of them holds a node of the scene."""
    hierarchy, _ = _hierarchy()
    nodes = (hierarchy.GetItemDataNode(each) for each in [item, *_children(hierarchy, item, below=True)])
    # The headless host keeps the items of nodes that have been removed from the scene.
    if all(node is None or node.GetScene() is None for node in nodes):
        hierarchy.RemoveItem(item, False, True)


def _hierarchy() -> tuple[Any, int]:
    """Subject-hierarchy node of the scene, and the item at its top."""
    import slicer

    node = slicer.mrmlScene.GetSubjectHierarchyNode()
    return node, node.GetSceneItemID()


def _children(hierarchy: Any, parent: int, below: bool = False) -> list[int]:
    import vtk

    items = vtk.vtkIdList()
    hierarchy.GetItemChildren(parent, items, below)
    return [items.GetId(i) for i in range(items.GetNumberOfIds())]
