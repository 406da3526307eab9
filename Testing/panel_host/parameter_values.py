"""Typed parameters, checked and stored in a ``vtkMRMLScriptedModuleNode``.

Keys and texts are those of Slicer's own ``parameterNodeWrapper``, so that a scene that is saved with this stand-in can
be opened in the application, and the other way round.
"""

from __future__ import annotations

import enum
import typing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import slicer


@dataclass
class Default:
    """Annotation with the value of a parameter that was never set."""

    value: Any = None


class Validator:
    """Annotation that refuses values by raising ValueError."""

    def validate(self, value: Any) -> None:
        """Raise ValueError where a value is not allowed."""
        raise NotImplementedError


@dataclass
class WithinRange(Validator):
    """Annotation with the limits of a number, both included."""

    minimum: float
    maximum: float

    def validate(self, value: Any) -> None:
        if not self.minimum <= value <= self.maximum:
            raise ValueError(f"Value must be within range [{self.minimum}, {self.maximum}], is {value}")


@dataclass
class Choice(Validator):
    """Annotation with the allowed values."""

    choices: list

    def validate(self, value: Any) -> None:
        if value not in self.choices:
            raise ValueError(f"Value is {value}, but must be in one of the following: {self.choices}")


def split_annotations(annotated: Any) -> tuple[Any, tuple]:
    """Return the type and the annotations of ``Annotated[type, ...]``, or of a plain type."""
    if hasattr(annotated, "__metadata__"):
        return typing.get_args(annotated)[0], annotated.__metadata__
    return annotated, ()


def node_classes(value_type: Any) -> list[type]:
    """Return the node classes of a type: of one class, or of a ``Union`` of classes and None; empty for other types."""
    members = typing.get_args(value_type) if typing.get_origin(value_type) is typing.Union else (value_type,)
    members = [member for member in members if member is not type(None)]
    are_nodes = all(isinstance(member, type) and issubclass(member, slicer.vtkMRMLNode) for member in members)
    return list(members) if are_nodes else []


class Parameter:
    """One typed parameter of a parameter node."""

    def __init__(self, name: str, annotated: Any, default: Any = None) -> None:
        self.name = name
        self.annotated = annotated
        self.type, annotations = split_annotations(annotated)
        self.validators = [entry for entry in annotations if isinstance(entry, Validator)]
        self.is_union = typing.get_origin(self.type) is typing.Union
        self.node_classes = node_classes(self.type)
        if not self.node_classes and self.type not in (int, float, bool, str, Path) and not self._is_enum():
            raise TypeError(f"Unable to create serializer for {name}: {self.type}")
        defaults = [entry.value for entry in annotations if isinstance(entry, Default)]
        self.default = default if default is not None else (defaults[0] if defaults else self._default_of_type())

    def _is_enum(self) -> bool:
        return isinstance(self.type, type) and issubclass(self.type, enum.Enum)

    def _default_of_type(self) -> Any:
        if self.node_classes:
            return None
        return next(iter(self.type)) if self._is_enum() else self.type()

    def _keys(self) -> list[str]:
        """Keys in the node; each member of a union has one, and None has the last one."""
        members = len(self.node_classes) + 1 if self.is_union else 1
        return [f"{self.name}_{index}" for index in range(members)] if self.is_union else [self.name]

    def is_in(self, node: Any) -> bool:
        """Whether the parameter was ever written to a node."""
        return any(node.HasParameter(key) for key in self._keys())

    def write(self, node: Any, value: Any) -> None:
        """Check a value and write it to a node."""
        self._check(value)
        with slicer.util.NodeModify(node):
            if self.node_classes:
                self._write_node(node, value)
            else:
                node.SetParameter(self.name, value.name if self._is_enum() else str(value))

    def _write_node(self, node: Any, value: Any) -> None:
        for key in self._keys():
            node.UnsetParameter(key)
            node.RemoveNodeReferenceIDs(key)
        if not self.is_union:
            key = self.name
        elif value is None:
            key = self._keys()[-1]
        else:
            key = self._keys()[[isinstance(value, kind) for kind in self.node_classes].index(True)]
        node.SetParameter(key, "True" if self.is_union and value is None else "")
        if value is not None:
            node.SetNodeReferenceID(key, value.GetID())

    def read(self, node: Any) -> Any:
        """Return the value in a node; the default where none was written."""
        if not self.is_in(node):
            self.write(node, self.default)
        if self.node_classes:
            return next((found for key in self._keys() if (found := node.GetNodeReference(key))), None)
        text = node.GetParameter(self.name)
        if self._is_enum():
            return self.type[text]
        return text == "True" if self.type is bool else self.type(text)

    def _check(self, value: Any) -> None:
        if value is None and not self.node_classes:
            raise ValueError(f"{self.name}: Value must not be None")
        expected = tuple(self.node_classes) or ((int, float) if self.type is float else self.type)
        if value is not None and not isinstance(value, expected):
            raise TypeError(f"{self.name}: Value must be of type '{expected}', is '{value!r}'")
        for validator in self.validators:
            validator.validate(value)
