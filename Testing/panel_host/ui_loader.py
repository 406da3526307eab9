"""Qt's own ``QUiLoader``, extended to refuse what it would silently skip and to make the connections."""

from __future__ import annotations

from xml.etree import ElementTree

from PySide6 import QtCore, QtUiTools, QtWidgets

from panel_host import ctk_widgets, mrml_widgets
from panel_host.pythonqt import UnknownNameError, signal_of, slot_of

STAND_INS: dict[str, type[QtWidgets.QWidget]] = {
    stand_in.__name__: stand_in
    for stand_in in (
        ctk_widgets.ctkCollapsibleButton,
        ctk_widgets.ctkPathLineEdit,
        mrml_widgets.qMRMLCheckableNodeComboBox,
        mrml_widgets.qMRMLNodeComboBox,
        mrml_widgets.qMRMLWidget,
    )
}


# Properties that exist in .ui files only and that the loader handles itself.
_OF_THE_LOADER = {("Line", "orientation"), ("QLabel", "buddy")}


class QUiLoader(QtUiTools.QUiLoader):
    """Loader of ``.ui`` files that raises an error at any unknown class, property, connection, signal or slot."""

    def __init__(self, parent: QtCore.QObject | None = None) -> None:
        super().__init__(parent)
        for stand_in in STAND_INS.values():
            self.registerCustomWidget(stand_in)

    def load(self, file: QtCore.QIODevice, parent: QtWidgets.QWidget | None = None) -> QtWidgets.QWidget:
        """Build the widget that a ``.ui`` file describes.

        Raises:
            UnknownNameError: The file uses a class, property, signal, slot or name that does not exist.
        """
        root = ElementTree.fromstring(bytes(file.readAll().data()))
        for element in root.iter("widget"):
            _verify_widget(element)
        enumerations = _take_enumerations(root)
        connections = _take_connections(root)
        buffer = QtCore.QBuffer()
        buffer.setData(ElementTree.tostring(root))
        buffer.open(QtCore.QIODevice.ReadOnly)
        widget = super().load(buffer, parent)
        if widget is None:
            raise RuntimeError(f"the .ui file cannot be loaded: {self.errorString()}")
        for name, property_name, value in enumerations:
            setattr(_named(widget, name), property_name, value)
        for section in widget.findChildren(ctk_widgets.ctkCollapsibleButton):
            if section.collapsed:
                section._showContents()  # the property was set before there were any children to hide
        for connection in connections:
            sender, receiver = _named(widget, connection["sender"]), _named(widget, connection["receiver"])
            signal_of(sender, connection["signal"]).connect(slot_of(receiver, connection["slot"]))
        return widget


def _class_named(name: str) -> type[QtWidgets.QWidget]:
    widget_class = STAND_INS.get(name) or getattr(QtWidgets, "QFrame" if name == "Line" else name, None)
    if widget_class is None:
        raise UnknownNameError(f"the .ui file asks for the unknown widget class {name!r}")
    return widget_class


def _verify_widget(element: ElementTree.Element) -> None:
    widget_class = _class_named(element.get("class", ""))
    for entry in element.findall("property"):
        name = entry.get("name", "")
        if entry.get("stdset") == "0" or (element.get("class"), name) in _OF_THE_LOADER:
            continue
        if widget_class.staticMetaObject.indexOfProperty(name) < 0:
            raise UnknownNameError(f"{widget_class.__name__} {element.get('name')!r} has no property {name!r}")


def _take_enumerations(root: ElementTree.Element) -> list[tuple[str, str, int]]:
    """Take the values of the stand-ins' enumerations out of the file, because Qt cannot translate their names."""
    taken = []
    for element in root.iter("widget"):
        stand_in = STAND_INS.get(element.get("class", ""))
        for entry in list(element.findall("property")) if stand_in else []:
            name, value = entry.get("name", ""), entry.find("set")
            if value is not None and name in vars(stand_in):
                names = [part.split("::")[-1] for part in (value.text or "").split("|")]
                taken.append((element.get("name", ""), name, sum(getattr(stand_in, part) for part in names)))
                element.remove(entry)
    return taken


def _take_connections(root: ElementTree.Element) -> list[dict[str, str]]:
    block = root.find("connections")
    if block is None:
        return []
    root.remove(block)
    return [{part.tag: part.text or "" for part in connection} for connection in block.findall("connection")]


def _named(widget: QtWidgets.QWidget, name: str) -> QtCore.QObject:
    found = widget if widget.objectName == name else widget.findChild(QtCore.QObject, name)
    if found is None:
        raise UnknownNameError(f"the .ui file connects {name!r}, which it does not contain")
    return found
