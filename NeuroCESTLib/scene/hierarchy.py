"""One subject-hierarchy folder for the nodes of a run."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any


def make_folder(name: str) -> int:
    """New folder at the top of the subject hierarchy, with a name that is not taken; its item ID."""
    hierarchy, top = _hierarchy()
    taken = set(_child_names(hierarchy, top))
    unique, count = name, 1
    while unique in taken:
        count += 1
        unique = f"{name} ({count})"
    return hierarchy.CreateFolderItem(top, unique)


def put(nodes: Iterable[Any], folder: int) -> None:
    """Put nodes into a folder. CreateItem makes a new item or moves the existing one, in either host."""
    hierarchy, _ = _hierarchy()
    for node in nodes:
        hierarchy.CreateItem(folder, node)


def nodes_in(folder: int) -> list[Any]:
    """Nodes directly in a folder, in order."""
    import vtk

    hierarchy, _ = _hierarchy()
    items = vtk.vtkIdList()
    hierarchy.GetItemChildren(folder, items, False)
    nodes = (hierarchy.GetItemDataNode(items.GetId(i)) for i in range(items.GetNumberOfIds()))
    return [node for node in nodes if node is not None]


def folder_named(name: str) -> int | None:
    """Item ID of the top folder called ``name``, or None."""
    hierarchy, top = _hierarchy()
    item = hierarchy.GetItemChildWithName(top, name)
    return item or None


def top_items() -> set[int]:
    """IDs of all items at the top of the subject hierarchy."""
    import vtk

    hierarchy, top = _hierarchy()
    items = vtk.vtkIdList()
    hierarchy.GetItemChildren(top, items, False)
    return {items.GetId(i) for i in range(items.GetNumberOfIds())}


def remove_item(item: int) -> None:
    """Remove an item of the subject hierarchy, if it is still there; data nodes stay."""
    hierarchy, _ = _hierarchy()
    hierarchy.RemoveItem(item, False, False)


def _hierarchy() -> tuple[Any, int]:
    import slicer

    node = slicer.mrmlScene.GetSubjectHierarchyNode()
    return node, node.GetSceneItemID()


def _child_names(hierarchy: Any, parent: int) -> list[str]:
    import vtk

    items = vtk.vtkIdList()
    hierarchy.GetItemChildren(parent, items, False)
    return [hierarchy.GetItemName(items.GetId(i)) for i in range(items.GetNumberOfIds())]
