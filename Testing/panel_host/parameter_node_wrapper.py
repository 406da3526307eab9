"""Stand-in for ``slicer.parameterNodeWrapper``: typed parameters in a parameter node, bound to widgets."""

from __future__ import annotations

import typing
from typing import Any

import slicer
import vtk
from PySide6 import QtWidgets

from panel_host.gui_connectors import GuiConnector, create_connector
from panel_host.parameter_values import (
    Choice,
    Default,
    Parameter,
    Validator,
    WithinRange,
)

__all__ = [
    "Choice",
    "Default",
    "SlicerParameterNamePropertyName",
    "Validator",
    "WithinRange",
    "isParameterNodeWrapper",
    "parameterNodeWrapper",
]

SlicerParameterNamePropertyName = "SlicerParameterName"


def parameterNodeWrapper(wrapped: type | None = None) -> Any:
    """Decorate a class so that its annotated members become parameters of a parameter node."""
    return _wrap if wrapped is None else _wrap(wrapped)


def isParameterNodeWrapper(wrapper: Any) -> bool:
    """Whether a class, or the class of an object, was decorated with ``parameterNodeWrapper``."""
    return getattr(wrapper, "_is_parameter_node_wrapper", False)


def _wrap(wrapped: type) -> type:
    members = typing.get_type_hints(wrapped, include_extras=True)
    parameters = {name: Parameter(name, kind, getattr(wrapped, name, None)) for name, kind in members.items()}
    for name, parameter in parameters.items():
        setattr(wrapped, name, _as_property(parameter))
    wrapped.allParameters = parameters
    wrapped._is_parameter_node_wrapper = True
    for name, method in vars(_Wrapper).items():
        if callable(method):
            setattr(wrapped, name, method)
    return wrapped


def _as_property(parameter: Parameter) -> property:
    return property(
        lambda self: parameter.read(self.parameterNode),
        lambda self, value: parameter.write(self.parameterNode, value),
    )


class _Wrapper:
    """Methods that a decorated class receives."""

    allParameters: dict[str, Parameter]

    def __init__(self, parameterNode: Any) -> None:
        self.parameterNode = parameterNode
        self._guis: dict[int, dict[str, GuiConnector]] = {}
        self._updating_gui = False
        for parameter in self.allParameters.values():
            if not parameter.is_in(parameterNode):
                parameter.write(parameterNode, parameter.default)

    def connectGui(self, gui: Any) -> int:
        """Bind every widget that has the property ``SlicerParameterName``; return a tag for ``disconnectGui``."""
        is_widget = isinstance(gui, QtWidgets.QWidget)
        widgets = gui.findChildren(QtWidgets.QWidget) if is_widget else vars(gui).values()
        named = {widget.property(SlicerParameterNamePropertyName): widget for widget in widgets}
        return self.connectParametersToGui({name: widget for name, widget in named.items() if name})

    def connectParametersToGui(self, mapping: dict[str, QtWidgets.QWidget]) -> int:
        """Bind widgets to parameters by the name of the parameter; return a tag for ``disconnectGui``."""
        for name in mapping:
            if name not in self.allParameters:
                raise ValueError(f"Cannot find a param with the given name: {name}")
        connectors = {name: create_connector(widget, self.allParameters[name]) for name, widget in mapping.items()}
        tag = len(self._guis)
        self._guis[tag] = connectors
        for name, connector in connectors.items():
            connector.write(getattr(self, name))
            connector.slot = self._make_slot(name, connector)
            connector.signal.connect(connector.slot)
        self.AddObserver(vtk.vtkCommand.ModifiedEvent, lambda caller, event: self._update_gui())
        return tag

    def disconnectGui(self, tag: int) -> None:
        """Undo a call of ``connectGui``, given by its tag."""
        for connector in self._guis.pop(tag, {}).values():
            connector.signal.disconnect(connector.slot)

    def _make_slot(self, name: str, connector: GuiConnector) -> Any:
        def slot(*_: Any) -> None:
            if not self._updating_gui:
                setattr(self, name, connector.read())

        return slot

    def _update_gui(self) -> None:
        if self._updating_gui:
            return
        self._updating_gui = True
        try:
            with slicer.util.NodeModify(self):
                for connectors in self._guis.values():
                    for name, connector in connectors.items():
                        connector.write(getattr(self, name))
        finally:
            self._updating_gui = False

    def StartModify(self) -> int:
        """Hold back Modified events."""
        return self.parameterNode.StartModify()

    def EndModify(self, wasModified: int) -> int:
        """Send the held-back Modified event."""
        return self.parameterNode.EndModify(wasModified)

    def AddObserver(self, event: Any, callback: Any, priority: float = 0.0) -> int:
        """Observe the parameter node."""
        return self.parameterNode.AddObserver(event, callback, priority)

    def RemoveObserver(self, tag: int) -> None:
        """Stop observing the parameter node."""
        self.parameterNode.RemoveObserver(tag)

    def Modified(self) -> None:
        """Send the Modified event."""
        self.parameterNode.Modified()
