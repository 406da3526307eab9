"""Connections between widgets and typed parameters, as strict as those of ``slicer.parameterNodeWrapper``."""

from __future__ import annotations

import enum
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PySide6 import QtWidgets

from panel_host.ctk_widgets import ctkPathLineEdit
from panel_host.mrml_widgets import qMRMLNodeComboBox
from panel_host.parameter_values import (
    Choice,
    Parameter,
    WithinRange,
    split_annotations,
)


@dataclass
class GuiConnector:
    """Connection of one widget.

    Attributes:
        widget: The widget.
        signal: Signal that the widget emits when its value changes.
        read: Function that returns the value of the widget.
        write: Function that sets the value of the widget.
        slot: Slot that is connected to the signal, or None.
    """

    widget: QtWidgets.QWidget
    signal: Any
    read: Callable[[], Any]
    write: Callable[[Any], object]
    slot: Callable[..., None] | None = None


def create_connector(widget: QtWidgets.QWidget, parameter: Parameter) -> GuiConnector:
    """Return the connector for a parameter and a widget, whose class must be exactly one that can show it.

    Raises:
        RuntimeError: The widget cannot show the parameter.
    """
    kind, value_type = type(widget), parameter.type
    if kind is qMRMLNodeComboBox and parameter.node_classes:
        widget.nodeTypes = [node_class().GetClassName() for node_class in parameter.node_classes]
        return GuiConnector(widget, widget.currentNodeChanged, widget.currentNode, widget.setCurrentNode)
    if kind in (QtWidgets.QCheckBox, QtWidgets.QPushButton) and value_type is bool:
        return _of_property(widget, widget.toggled, "checked")
    if kind is QtWidgets.QDoubleSpinBox and value_type is float:
        _set_up_spin_box(widget, parameter)
        return _of_property(widget, widget.valueChanged, "value")
    if kind in (QtWidgets.QSpinBox, QtWidgets.QSlider) and value_type is int:
        _set_up_spin_box(widget, parameter)
        return _of_property(widget, widget.valueChanged, "value")
    if kind is QtWidgets.QComboBox:
        return _of_combo_box(widget, parameter)
    if kind is QtWidgets.QLineEdit and value_type is str:
        return _of_property(widget, widget.textChanged, "text")
    if kind is ctkPathLineEdit and value_type is Path:
        read = lambda: Path(widget.currentPath)  # noqa: E731
        return GuiConnector(widget, widget.currentPathChanged, read, lambda v: widget.setCurrentPath(str(v)))
    raise RuntimeError(f"Unable to create GUI connector from datatype '{value_type}' to widget type '{kind}'")


def _of_property(widget: QtWidgets.QWidget, signal: Any, name: str) -> GuiConnector:
    return GuiConnector(widget, signal, lambda: getattr(widget, name), lambda v: setattr(widget, name, v))


def _set_up_spin_box(widget: QtWidgets.QWidget, parameter: Parameter) -> None:
    limits = float("inf") if parameter.type is float else 2**31 - 1
    bounded = False
    for entry in split_annotations(parameter.annotated)[1]:
        if isinstance(entry, WithinRange):
            widget.setRange(entry.minimum, entry.maximum)
            bounded = True
    if not bounded:
        if isinstance(widget, QtWidgets.QSlider):
            raise RuntimeError(f"the slider of {parameter.name} needs a bounded number")
        widget.setRange(-limits, limits)


def _of_combo_box(widget: QtWidgets.QComboBox, parameter: Parameter) -> GuiConnector:
    if isinstance(parameter.type, type) and issubclass(parameter.type, enum.Enum):
        values = list(parameter.type)
        label = getattr(parameter.type, "label", lambda value: value.name)
    else:
        choices = [entry for entry in parameter.validators if isinstance(entry, Choice)]
        if not choices:
            raise RuntimeError(f"the combo box of {parameter.name} needs the Choice annotation")
        values, label = list(choices[0].choices), str
    widget.clear()
    widget.addItems([label(value) for value in values])

    def write(value: Any) -> None:
        widget.currentIndex = values.index(value)

    return GuiConnector(widget, widget.currentIndexChanged, lambda: values[widget.currentIndex], write)
