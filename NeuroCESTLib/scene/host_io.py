"""File I/O of the headless host, in place of ``slicer.app.coreIOManager()`` of the application.

Every file is read and written by the module logics and storage nodes that the application uses as well.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from NeuroCESTLib.core.headers.checks import check_file
from NeuroCESTLib.core.headers.library_messages import library_lines_caught
from NeuroCESTLib.scene.image_files import node_name
from NeuroCESTLib.scene.messages import quiet_vtk

# Type of a file by its extension, of which the longest match counts; other files are volumes, as in the application.
_TYPE_OF_EXTENSION = {
    ".mrml": "SceneFile",
    ".mrb": "SceneFile",
    ".seg.nrrd": "SegmentationFile",
    ".seg.nhdr": "SegmentationFile",
    ".seq.nrrd": "SequenceFile",
    ".seq.nhdr": "SequenceFile",
    ".seq.mrb": "SequenceFile",
    ".csv": "TableFile",
    ".tsv": "TableFile",
    ".h5": "TransformFile",
    ".tfm": "TransformFile",
    ".ctbl": "ColorTableFile",
    ".txt": "TextFile",
    ".vtk": "ModelFile",
    ".stl": "ModelFile",
    ".mrk.json": "MarkupsFile",
}


class CoreIOManager:
    """Reading and writing of nodes with the signatures of ``qSlicerCoreIOManager``."""

    def __init__(self, scene: Any, logic: Callable[[str], Any]) -> None:
        """Read into and write from a scene.

        Args:
            scene: The ``vtkMRMLScene``.
            logic: Function that returns the logic of a module by its name in lower case.
        """
        self._scene = scene
        self._logic = logic
        self._readers: dict[str, Callable[[str, dict[str, Any], Any], Any]] = {
            "VolumeFile": self._load_volume,
            "SegmentationFile": self._load_segmentation,
            "SequenceFile": self._load_sequence,
            "TableFile": self._load_table,
            "TransformFile": self._load_transform,
            "ColorTableFile": self._load_color_table,
            "TextFile": self._load_text,
            "ModelFile": self._load_model,
            "MarkupsFile": self._load_markups,
        }

    def addReader(self, file_type: str, reader: Callable[[str, dict[str, Any], Any], Any]) -> None:
        """Read files of a further type; only the host has this, the application finds readers by itself.

        Args:
            file_type: Type of the files.
            reader: Function of file name, properties and messages that returns the node, or None.
        """
        self._readers[file_type] = reader

    def fileType(self, filename: str | os.PathLike) -> str:
        """Return the type of the reader for a file, by its name."""
        name = str(filename).lower()
        matches = [extension for extension in _TYPE_OF_EXTENSION if name.endswith(extension)]
        return _TYPE_OF_EXTENSION[max(matches, key=len)] if matches else "VolumeFile"

    def fileWriterFileType(self, node: Any) -> str:
        """Return the type of the writer for a node: always ``NodeFile``, because storage nodes write all of them."""
        return "NodeFile"

    def loadNodes(self, file_type: str, properties: dict[str, Any], loaded: Any = None, messages: Any = None) -> bool:
        """Read a file into the scene.

        Args:
            file_type: Type of the reader, such as ``VolumeFile``.
            properties: ``fileName`` and further properties of the reader, such as ``name``.
            loaded: ``vtkCollection`` to which the node is added.
            messages: ``vtkMRMLMessageCollection`` for errors.

        Returns:
            Whether the file was read.
        """
        filename = str(properties.get("fileName", ""))
        if not os.path.exists(filename):
            _report(messages, f"file not found: {filename}")
            return False
        if (problem := _problem(filename)) is not None:
            _report(messages, problem)
            return False
        if file_type == "SceneFile":
            return self.loadScene(filename, not properties.get("clear", True), messages)
        reader = self._readers.get(file_type)
        if reader is None:
            _report(messages, f"no reader for files of type {file_type}: {filename}")
            return False
        with quiet_vtk(), library_lines_caught():
            node = reader(filename, properties, messages)
        if node is None:
            return False
        if loaded is not None:
            loaded.AddItem(node)
        return True

    def saveNodes(self, file_type: str, properties: dict[str, Any], messages: Any = None) -> bool:
        """Write a node or the scene to a file.

        Args:
            file_type: ``SceneFile`` for the scene; anything else is a node.
            properties: ``fileName``, for nodes ``nodeID``, and ``useCompression`` where it matters.
            messages: ``vtkMRMLMessageCollection`` for errors.

        Returns:
            Whether the file was written.
        """
        filename = str(properties["fileName"])
        if file_type == "SceneFile":
            return self.saveScene(filename, messages)
        node = self._scene.GetNodeByID(properties["nodeID"])
        if node is None:
            _report(messages, f"no node with ID {properties['nodeID']} in the scene")
            return False
        if node.GetStorageNode() is None:
            node.AddDefaultStorageNode(filename)
        storage = node.GetStorageNode()
        if storage is None:
            _report(messages, f"nodes of class {node.GetClassName()} cannot be saved to a file")
            return False
        storage.SetFileName(filename)
        storage.SetURI(None)
        if "useCompression" in properties:
            storage.SetUseCompression(int(bool(properties["useCompression"])))
        written = bool(storage.WriteData(node))
        if messages is not None:
            messages.AddMessages(storage.GetUserMessages())
        return written

    def loadScene(self, filename: str, add: bool = False, messages: Any = None) -> bool:
        """Read a ``.mrml`` or ``.mrb`` file; ``add`` keeps the nodes that are in the scene already."""
        if (problem := _problem(filename)) is not None:
            _report(messages, problem)
            return False
        with quiet_vtk(), library_lines_caught():
            if filename.lower().endswith(".mrb"):
                return bool(self._scene.ReadFromMRB(filename, not add, messages))
            self._scene.SetURL(filename)
            return bool(self._scene.Import(messages) if add else self._scene.Connect(messages))

    def saveScene(self, filename: str, messages: Any = None) -> bool:
        """Write the scene as an ``.mrb`` bundle, as an ``.mrml`` file, or as a folder with all data."""
        if filename.lower().endswith(".mrb"):
            return bool(self._scene.WriteToMRB(filename, None, messages))
        if filename.lower().endswith(".mrml"):
            self._scene.SetURL(filename)
            self._scene.SetRootDirectory(str(Path(filename).parent))
            return bool(self._scene.Commit(filename, messages))
        os.makedirs(filename, exist_ok=True)
        return bool(self._scene.SaveSceneToSlicerDataBundleDirectory(filename, None, messages))

    def _load_volume(self, filename: str, properties: dict[str, Any], messages: Any) -> Any:
        import vtk

        # Bits of vtkSlicerVolumesLogic::LoadingOptions
        options = (
            1 * bool(properties.get("labelmap", False))
            + 2 * bool(properties.get("center", False))
            + 4 * bool(properties.get("singleFile", False))
            + 8 * bool(properties.get("autoWindowLevel", True))
            + 16 * bool(properties.get("discardOrientation", False))
        )
        files = vtk.vtkStringArray()
        for name in properties.get("fileNames", []):
            files.InsertNextValue(str(name))
        name = properties.get("name") or node_name(filename)
        return self._logic("volumes").AddArchetypeVolume(filename, name, options, files, messages)

    def _load_segmentation(self, filename: str, properties: dict[str, Any], messages: Any) -> Any:
        color_node = self._scene.GetNodeByID(properties.get("colorNodeID", ""))
        name = properties.get("name") or node_name(filename)
        logic = self._logic("segmentations")
        return logic.LoadSegmentationFromFile(
            filename, bool(properties.get("autoOpacities", True)), name, color_node, messages
        )

    def _load_sequence(self, filename: str, properties: dict[str, Any], messages: Any) -> Any:
        node = self._logic("sequences").AddSequence(filename, messages)
        if node is not None and properties.get("name"):
            node.SetName(properties["name"])
        return node

    def _load_table(self, filename: str, properties: dict[str, Any], messages: Any) -> Any:
        name = properties.get("name") or node_name(filename)
        return self._logic("tables").AddTable(filename, name, True, "", messages)

    def _load_transform(self, filename: str, properties: dict[str, Any], messages: Any) -> Any:
        return self._logic("transforms").AddTransform(filename, self._scene, messages)

    def _load_color_table(self, filename: str, properties: dict[str, Any], messages: Any) -> Any:
        return self._logic("colors").LoadColorFile(filename, node_name(filename), messages)

    def _load_model(self, filename: str, properties: dict[str, Any], messages: Any) -> Any:
        import slicer

        system = properties.get("coordinateSystem", slicer.vtkMRMLStorageNode.CoordinateSystemLPS)
        return self._logic("models").AddModel(filename, system, messages)

    def _load_markups(self, filename: str, properties: dict[str, Any], messages: Any) -> Any:
        node_id = self._logic("markups").LoadMarkups(filename, node_name(filename), messages)
        return self._scene.GetNodeByID(node_id) if node_id else None

    def _load_text(self, filename: str, properties: dict[str, Any], messages: Any) -> Any:
        node = self._scene.AddNewNodeByClass("vtkMRMLTextNode", node_name(filename))
        storage = self._scene.AddNewNodeByClass("vtkMRMLTextStorageNode")
        storage.SetFileName(filename)
        node.SetAndObserveStorageNodeID(storage.GetID())
        if storage.ReadData(node):
            return node
        self._scene.RemoveNode(storage)
        self._scene.RemoveNode(node)
        return None


def _problem(filename: str) -> str | None:
    """Why a file must not be given to its reader; None for a sound one."""
    try:
        check_file(filename)
    except (ValueError, OSError) as error:
        return str(error)
    return None


def _report(messages: Any, text: str) -> None:
    import vtk

    if messages is not None:
        messages.AddMessage(vtk.vtkCommand.ErrorEvent, text)
