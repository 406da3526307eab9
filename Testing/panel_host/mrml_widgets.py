"""Stand-ins for the qMRML widgets of the panels; they work on the real scene."""

from __future__ import annotations

from typing import Any, ClassVar

import vtk
from PySide6 import QtWidgets
from PySide6.QtCore import Property, Qt, Signal


class qMRMLWidget(QtWidgets.QWidget):  # noqa: N801
    """Widget that passes its scene on to its children through ``mrmlSceneChanged``."""

    mrmlSceneChanged = Signal(object)
    _SIGNALS: ClassVar = {"mrmlSceneChanged(vtkMRMLScene*)": "mrmlSceneChanged"}
    _SLOTS: ClassVar = ("setMRMLScene(vtkMRMLScene*)",)

    def __init__(self, parent: QtWidgets.QWidget | None = None) -> None:
        super().__init__(parent)
        self._scene: Any = None

    def mrmlScene(self) -> Any:
        """Return the scene, or None."""
        return self._scene

    def setMRMLScene(self, scene: Any) -> None:
        """Set the scene and pass it on."""
        if scene is not self._scene:
            self._scene = scene
            self.mrmlSceneChanged.emit(scene)


class qMRMLNodeComboBox(QtWidgets.QWidget):  # noqa: N801
    """Selector for nodes of certain classes, which follows the scene."""

    currentNodeChanged = Signal(object)
    _currentNodeValid = Signal(bool)
    nodeAddedByUser = Signal(object)
    _SIGNALS: ClassVar = {
        "currentNodeChanged(vtkMRMLNode*)": "currentNodeChanged",
        "currentNodeChanged(bool)": "_currentNodeValid",
        "nodeAddedByUser(vtkMRMLNode*)": "nodeAddedByUser",
    }
    _SLOTS: ClassVar = (
        "setMRMLScene(vtkMRMLScene*)",
        "setCurrentNode(vtkMRMLNode*)",
        "setCurrentNodeID(QString)",
    )

    def __init__(self, parent: QtWidgets.QWidget | None = None) -> None:
        super().__init__(parent)
        self._scene: Any = None
        self._observations: list[tuple[Any, int]] = []
        self._nodes: list[Any] = []
        self._current: Any = None
        self._settings: dict[str, Any] = {
            "nodeTypes": [],
            "hideChildNodeTypes": [],
            "showHidden": False,
            "showChildNodeTypes": True,
            "noneEnabled": False,
            "noneDisplay": "None",
            "addEnabled": True,
            "removeEnabled": True,
            "renameEnabled": False,
            "editEnabled": False,
            "selectNodeUponCreation": True,
            "baseName": "",
        }
        self._combo_box = QtWidgets.QComboBox(self)
        self._combo_box.setSizePolicy(QtWidgets.QSizePolicy.Expanding, QtWidgets.QSizePolicy.Fixed)
        layout = QtWidgets.QHBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self._combo_box)
        self._combo_box.currentIndexChanged.connect(self._onIndexChanged)
        self._combo_box.setEnabled(False)

    def _setting(name: str, qt_type: Any) -> Property:  # noqa: N805
        def read(self: qMRMLNodeComboBox) -> Any:
            return self._settings[name]

        def write(self: qMRMLNodeComboBox, value: Any) -> None:
            self._settings[name] = list(value) if isinstance(value, (list, tuple)) else value
            self._update()

        return Property(qt_type, read, write)

    nodeTypes = _setting("nodeTypes", "QStringList")
    hideChildNodeTypes = _setting("hideChildNodeTypes", "QStringList")
    showHidden = _setting("showHidden", bool)
    showChildNodeTypes = _setting("showChildNodeTypes", bool)
    noneEnabled = _setting("noneEnabled", bool)
    noneDisplay = _setting("noneDisplay", str)
    addEnabled = _setting("addEnabled", bool)
    removeEnabled = _setting("removeEnabled", bool)
    renameEnabled = _setting("renameEnabled", bool)
    editEnabled = _setting("editEnabled", bool)
    selectNodeUponCreation = _setting("selectNodeUponCreation", bool)
    baseName = _setting("baseName", str)
    del _setting

    def mrmlScene(self) -> Any:
        """Return the scene, or None."""
        return self._scene

    def setMRMLScene(self, scene: Any) -> None:
        """Set the scene whose nodes can be chosen."""
        for observed, tag in self._observations:
            observed.RemoveObserver(tag)
        self._scene = scene
        self._observations = []
        if scene is not None:
            events = {scene.NodeAddedEvent: self._onNode, scene.NodeRemovedEvent: self._onNode}
            events |= {scene.EndBatchProcessEvent: self._onBatchEnd}
            self._observations = [(scene, scene.AddObserver(event, slot)) for event, slot in events.items()]
        self._combo_box.setEnabled(scene is not None)
        self._update()

    def nodeCount(self) -> int:
        """Return the number of nodes to choose from."""
        return len(self._nodes)

    def nodeFromIndex(self, index: int) -> Any:
        """Return the node at a place in the list, or None."""
        return self._nodes[index] if 0 <= index < len(self._nodes) else None

    def currentNode(self) -> Any:
        """Return the chosen node, or None."""
        return self._current

    def setCurrentNode(self, node: Any) -> None:
        """Choose a node; None and nodes that are not in the list clear the choice."""
        if node is not None and not isinstance(node, vtk.vtkObject):
            raise ValueError(f"qMRMLNodeComboBox.setCurrentNode takes a vtkMRMLNode, not {node!r}")
        row = self._nodes.index(node) if node in self._nodes else None
        offset = int(self.noneEnabled)
        self._combo_box.setCurrentIndex(offset - 1 if row is None else row + offset)

    def setCurrentNodeID(self, node_id: str) -> None:
        """Choose a node by its ID."""
        self.setCurrentNode(self._scene.GetNodeByID(node_id) if self._scene and node_id else None)

    def setCurrentNodeIndex(self, index: int) -> None:
        """Choose a node by its place in the list."""
        self.setCurrentNode(self.nodeFromIndex(index))

    def _currentNodeID(self) -> str:
        return self._current.GetID() if self._current is not None else ""

    currentNodeID = Property(str, _currentNodeID, setCurrentNodeID)

    def addNode(self, node_type: str = "") -> Any:
        """Make a node as the entry "Create new..." does."""
        node_type = node_type or self.nodeTypes[0]
        if node_type not in self.nodeTypes:
            return None
        name = self.baseName or self._scene.GetTagByClassName(node_type)
        node = self._scene.AddNewNodeByClass(node_type, self._scene.GenerateUniqueName(name))
        if self.selectNodeUponCreation:
            self.setCurrentNode(node)
        self.nodeAddedByUser.emit(node)
        return node

    def removeCurrentNode(self) -> None:
        """Remove the chosen node from the scene."""
        if self._current is not None:
            self._scene.RemoveNode(self._current)

    @vtk.calldata_type(vtk.VTK_OBJECT)
    def _onNode(self, caller: Any, event: str, node: Any) -> None:
        if not caller.IsBatchProcessing() and self._isOfClass(node):
            self._update()

    def _onBatchEnd(self, caller: Any, event: str) -> None:
        if not caller.IsBatchProcessing():
            self._update()

    def _isOfClass(self, node: Any) -> bool:
        """Whether a node may be listed by its class; scenes have many nodes of other classes."""
        return self.showChildNodeTypes or node.GetClassName() in self.nodeTypes

    def _isListed(self, node: Any) -> bool:
        if node.GetHideFromEditors() and not self.showHidden:
            return False
        if any(node.IsA(excluded) for excluded in self.hideChildNodeTypes):
            return False
        if self.showChildNodeTypes:
            return any(node.IsA(node_type) for node_type in self.nodeTypes)
        return node.GetClassName() in self.nodeTypes

    def _update(self) -> None:
        """List the scene's nodes again; the chosen node stays chosen while it is in the list."""
        scene = self._scene
        nodes = list(scene.GetNodes()) if scene else []
        if not self.showChildNodeTypes:
            types = set(self.nodeTypes)
            nodes = [node for node in nodes if node.GetClassName() in types]
        self._nodes = [node for node in nodes if self._isListed(node)]
        wanted = self._current
        self._combo_box.blockSignals(True)
        self._combo_box.clear()
        if self.noneEnabled:
            self._combo_box.addItem(self.noneDisplay)
        self._combo_box.addItems([node.GetName() or "" for node in self._nodes])
        if wanted in self._nodes:
            self._combo_box.setCurrentIndex(self._nodes.index(wanted) + int(self.noneEnabled))
        self._combo_box.blockSignals(False)
        self._onIndexChanged(self._combo_box.currentIndex)

    def _onIndexChanged(self, index: int) -> None:
        node = self.nodeFromIndex(index - int(self.noneEnabled))
        if node is not self._current:
            self._current = node
            self.currentNodeChanged.emit(node)
            self._currentNodeValid.emit(node is not None)


class qMRMLCheckableNodeComboBox(qMRMLNodeComboBox):  # noqa: N801
    """Selector for any number of nodes, each of which the user ticks; it cannot make, rename or remove nodes."""

    checkedNodesChanged = Signal()
    _SIGNALS: ClassVar = {**qMRMLNodeComboBox._SIGNALS, "checkedNodesChanged()": "checkedNodesChanged"}

    def __init__(self, parent: QtWidgets.QWidget | None = None) -> None:
        self._checked: list[Any] = []
        super().__init__(parent)
        self._settings |= {"addEnabled": False, "removeEnabled": False}
        self._combo_box.setPlaceholderText("(No selection)")

    def checkedNodes(self) -> list[Any]:
        """Return the nodes that are ticked, in the order of the list."""
        return [node for node in self._nodes if node in self._checked]

    def uncheckedNodes(self) -> list[Any]:
        """Return the nodes that are not ticked."""
        return [node for node in self._nodes if node not in self._checked]

    def allChecked(self) -> bool:
        """Whether every node is ticked."""
        return not self.uncheckedNodes()

    def noneChecked(self) -> bool:
        """Whether no node is ticked."""
        return not self.checkedNodes()

    def checkState(self, node: Any) -> Any:
        """Return whether a node is ticked, as ``Qt.Checked`` or ``Qt.Unchecked``; a foreign one is not."""
        return Qt.Checked if node in self.checkedNodes() else Qt.Unchecked

    def setCheckState(self, node: Any, check: Any) -> None:
        """Tick a node or take the tick away; does nothing for a node that is not in the list."""
        if node not in self._nodes or self.checkState(node) == check:
            return
        self._checked = [*self._checked, node] if check == Qt.Checked else [n for n in self._checked if n is not node]
        self._showChecked()
        self.checkedNodesChanged.emit()

    def _update(self) -> None:
        """List the scene's nodes again; ticks of nodes that are gone are forgotten."""
        super()._update()
        self._checked = self.checkedNodes()
        self._showChecked()

    def _showChecked(self) -> None:
        """Show the names of the ticked nodes, as the real widget does where it is closed."""
        names = ", ".join(node.GetName() or "" for node in self.checkedNodes())
        self._combo_box.setCurrentIndex(-1)
        self._combo_box.setPlaceholderText(names or "(No selection)")
