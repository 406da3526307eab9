"""Adaptation of PySide6 classes to behave as under PythonQt, which Slicer's scripts use.

PythonQt makes Qt's properties attributes: ``button.text`` is a string, ``button.enabled = False`` sets a property, and
``button.text()`` fails because a string cannot be called. PySide6 has getters instead. The names come from Qt's own
meta-objects, so none of them is invented. PySide's ``true_property`` feature cannot be used instead, because it removes
setters such as ``setText``.
"""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

from PySide6 import QtCore, QtGui, QtWidgets

_QT_MODULES = (QtCore, QtGui, QtWidgets)
# These have static functions with the names of properties, which PySide6 itself and other libraries call.
_APPLICATION_CLASSES = (QtCore.QCoreApplication,)


class UnknownNameError(AttributeError):
    """A signal, property or widget class that does not exist in Qt or Slicer."""


def apply() -> None:
    """Adapt all QObject classes of QtCore, QtGui and QtWidgets; a second call changes nothing."""
    if hasattr(QtCore.QObject, "className"):
        return
    for module in _QT_MODULES:
        for qt_class in [getattr(module, name) for name in dir(module)]:
            if isinstance(qt_class, type) and issubclass(qt_class, QtCore.QObject):
                _publish_properties(qt_class)
    QtCore.QObject.name = _published_property(_meta_property(QtCore.QObject, "objectName"))
    QtCore.QObject.className = lambda self: self.metaObject().className()
    _replace_connect()


def make_qt_module() -> ModuleType:
    """Make the module ``qt``, which has the names of QtCore, QtGui and QtWidgets in one place as in Slicer."""
    module = ModuleType("qt", "Qt as Slicer's scripts import it, from PySide6.")
    for source in _QT_MODULES:
        for name in dir(source):
            if name.startswith("Q") and name not in {"QtCore", "QtGui", "QtWidgets"}:
                setattr(module, name, getattr(source, name))
    return module


def _publish_properties(qt_class: type) -> None:
    meta = qt_class.staticMetaObject
    if issubclass(qt_class, _APPLICATION_CLASSES):
        return
    for index in range(meta.propertyOffset(), meta.propertyCount()):
        name = meta.property(index).name()
        published = _published_property(meta.property(index))
        published.original = getattr(qt_class, name, None)
        setattr(qt_class, name, published)


def _meta_property(qt_class: type, name: str) -> QtCore.QMetaProperty:
    meta = qt_class.staticMetaObject
    return meta.property(meta.indexOfProperty(name))


class _PublishedProperty(property):
    """Property of the objects of a class, which itself keeps a static function of the same name.

    ``QTimer.singleShot`` is such a function. Some getters are virtual, such as ``sizeHint``. While such a property is
    read, Qt looks whether the Python object overrides the getter; it is then given PySide6's own method, which means
    that it does not.
    """

    original: Any = None

    def __get__(self, instance: Any, owner: type | None = None) -> Any:
        if instance is None:
            return self.original or self
        reading = (id(instance), id(self))
        if reading in _being_read:
            return self.original.__get__(instance, owner)
        _being_read.add(reading)
        try:
            return super().__get__(instance, owner)
        finally:
            _being_read.discard(reading)


_being_read: set[tuple[int, int]] = set()


def _published_property(meta_property: QtCore.QMetaProperty) -> _PublishedProperty:
    def read(self: QtCore.QObject) -> Any:
        return meta_property.read(self)

    def write(self: QtCore.QObject, value: Any) -> None:
        if not meta_property.write(self, value):
            raise ValueError(
                f"{self.className()}.{meta_property.name()} takes a {meta_property.typeName()}, not {value!r}"
            )

    return _PublishedProperty(read, write if meta_property.isWritable() else None)


def _replace_connect() -> None:
    """Give QObject PythonQt's ``connect("signal(type)", slot)`` and ``disconnect``.

    This takes ``__getattribute__``, because PySide6 resolves these two names before it looks at the class.
    """
    original = QtCore.QObject.__getattribute__

    def getattribute(self: QtCore.QObject, name: str) -> Any:
        if name == "connect":
            return lambda *arguments: _connect(self, *arguments)
        if name == "disconnect":
            return lambda *arguments: _disconnect(self, *arguments)
        return original(self, name)

    for qt_class in (QtCore.QObject, QtCore.QProcess):  # a process resolves the names before its base class does
        qt_class.__getattribute__ = getattribute


def signal_of(sender: QtCore.QObject, signature: str) -> Any:
    """Return the bound signal of an object with a C++ signature such as ``clicked(bool)``.

    Stand-ins list the signatures of the real class in ``_SIGNALS``, because PySide6 cannot declare signals with VTK
    arguments; the meta-objects of Qt's own classes know theirs.

    Raises:
        UnknownNameError: The class has no such signal.
    """
    normalized = bytes(QtCore.QMetaObject.normalizedSignature(signature)).decode()
    for base in type(sender).__mro__:
        published = vars(base).get("_SIGNALS", {})
        if normalized in published:
            return getattr(sender, published[normalized])
    if sender.metaObject().indexOfSignal(normalized) < 0 or "PyObject" in normalized:
        raise UnknownNameError(f"{sender.className()} has no signal {signature!r}")
    name, _, types = normalized.partition("(")
    bound = getattr(sender, name)
    try:
        return bound[tuple(types[:-1].split(","))] if types != ")" else bound
    except (IndexError, KeyError):
        return bound


def _connect(sender: QtCore.QObject, signature: str, *target: Any) -> bool:
    signal_of(sender, signature).connect(_slot(target))
    return True


def _disconnect(sender: QtCore.QObject, signature: str, *target: Any) -> bool:
    signal_of(sender, signature).disconnect(_slot(target))
    return True


def _slot(target: tuple) -> Callable:
    """Callable of ``connect(signal, callable)`` or of ``connect(signal, receiver, "slot(type)")``."""
    if len(target) == 1 and callable(target[0]):
        return target[0]
    if len(target) == 2 and isinstance(target[1], str):
        return slot_of(*target)
    raise TypeError(f"connect takes a callable, or a receiver and a slot, not {target!r}")


def slot_of(receiver: QtCore.QObject, signature: str) -> Callable:
    """Return the bound slot of an object with a C++ signature such as ``setVisible(bool)``.

    Raises:
        UnknownNameError: The class has no such slot.
    """
    normalized = bytes(QtCore.QMetaObject.normalizedSignature(signature)).decode()
    published = [name for base in type(receiver).__mro__ for name in vars(base).get("_SLOTS", ())]
    if normalized not in published and receiver.metaObject().indexOfSlot(normalized) < 0:
        raise UnknownNameError(f"{receiver.className()} has no slot {signature!r}")
    return getattr(receiver, normalized.partition("(")[0])
