"""Runs that leave the scene unchanged unless they succeed."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator


@contextlib.contextmanager
def scene_unchanged_on_error() -> Iterator[None]:
    """Remove the nodes and folders that the block added if it raises an exception, ``Cancelled`` included."""
    import slicer

    from NeuroCESTLib.scene import hierarchy, volumes

    scene = slicer.mrmlScene
    nodes = {scene.GetNthNode(i).GetID() for i in range(scene.GetNumberOfNodes())}
    items = hierarchy.top_items()
    try:
        yield
    except BaseException:
        for node in [scene.GetNthNode(i) for i in range(scene.GetNumberOfNodes())]:
            if node.GetScene() is not None and node.GetID() not in nodes:
                volumes.remove(node)
        hierarchy.remove_empty_top_items(kept=items)
        raise
