"""Stand-ins for the ctk widgets of the panels; the real classes have every public name that is here."""

from __future__ import annotations

import re
from typing import ClassVar

from PySide6 import QtCore, QtGui, QtWidgets
from PySide6.QtCore import Property, Signal


class ctkCollapsibleButton(QtWidgets.QAbstractButton):  # noqa: N801
    """A titled section whose contents are hidden while it is collapsed."""

    contentsCollapsed = Signal(bool)

    def __init__(self, parent: QtWidgets.QWidget | None = None) -> None:
        super().__init__(parent)
        self._hidden_children: list[QtWidgets.QWidget] = []
        self._forcing = False
        self.setCheckable(True)
        self.setChecked(True)
        self.setSizePolicy(QtWidgets.QSizePolicy.Preferred, QtWidgets.QSizePolicy.Preferred)
        self.setContentsMargins(0, self._headerHeight(), 0, 0)
        self.toggled.connect(lambda _: self._showContents())

    def _headerHeight(self) -> int:
        return self.fontMetrics().height() + 8

    def _collapsed(self) -> bool:
        return not self.isChecked()

    def setCollapsed(self, collapsed: bool) -> None:
        """Hide or show the contents."""
        self.setChecked(not collapsed)

    collapsed = Property(bool, _collapsed, setCollapsed)

    def _showContents(self) -> None:
        if self.collapsed:
            children = [child for child in self.children() if isinstance(child, QtWidgets.QWidget)]
            self._hidden_children += [child for child in children if not child.isHidden()]
            for child in children:
                child.installEventFilter(self)
        for child in self._hidden_children:
            self._force(child, not self.collapsed)
        if not self.collapsed:
            self._hidden_children = []
        self.setMaximumHeight(self._headerHeight() if self.collapsed else 16777215)
        self.contentsCollapsed.emit(self.collapsed)

    def _force(self, child: QtWidgets.QWidget, visible: bool) -> None:
        """Show or hide a child, which can still be hidden or shown explicitly afterwards."""
        self._forcing = True
        child.setVisible(visible)
        child.setAttribute(QtCore.Qt.WA_WState_ExplicitShowHide, False)
        self._forcing = False

    def eventFilter(self, child: QtCore.QObject, event: QtCore.QEvent) -> bool:
        """Remember which children are hidden or shown explicitly while the section is collapsed."""
        shown, hidden = QtCore.QEvent.ShowToParent, QtCore.QEvent.HideToParent
        if self.collapsed and not self._forcing and event.type() in (shown, hidden):
            self._hidden_children = [other for other in self._hidden_children if other is not child]
            if event.type() == shown:
                self._hidden_children.append(child)
                self._force(child, False)
        return False

    def hitButton(self, position: QtCore.QPoint) -> bool:
        """Return whether the mouse is on the header, the only part that reacts to it."""
        return position.y() < self._headerHeight()

    def paintEvent(self, event: QtGui.QPaintEvent) -> None:
        """Draw a header with an arrow and the title, and a frame around the contents."""
        painter = QtWidgets.QStylePainter(self)
        palette, height = self.palette, self._headerHeight()
        painter.setPen(palette.color(QtGui.QPalette.Mid))
        painter.drawRect(0, 0, self.width - 1, self.height - 1)
        painter.fillRect(0, 0, self.width, height, palette.color(QtGui.QPalette.Button).darker(108))
        arrow = QtWidgets.QStyleOption()
        arrow.initFrom(self)
        arrow.rect = QtCore.QRect(6, (height - 10) // 2, 10, 10)
        direction = "PE_IndicatorArrowRight" if self.collapsed else "PE_IndicatorArrowDown"
        painter.drawPrimitive(getattr(QtWidgets.QStyle, direction), arrow)
        painter.setPen(palette.color(QtGui.QPalette.ButtonText))
        painter.drawText(24, 0, self.width, height, QtCore.Qt.AlignVCenter | QtCore.Qt.AlignLeft, self.text)


class ctkPathLineEdit(QtWidgets.QWidget):  # noqa: N801
    """Line edit for a path, with a browse button."""

    Dirs, Files, Drives, Readable, Writable, Executable = 0x1, 0x2, 0x4, 0x10, 0x20, 0x40
    NoDot, NoDotDot, NoDotAndDotDot = 0x2000, 0x4000, 0x1000

    currentPathChanged = Signal(str)
    validInputChanged = Signal(bool)

    def __init__(self, parent: QtWidgets.QWidget | None = None) -> None:
        super().__init__(parent)
        self._filters = self.Dirs | self.Files | self.Drives | self.NoDotAndDotDot | self.Readable
        self._name_filters: list[str] = []
        self._setting_key = ""
        self._valid = False
        self._combo_box = QtWidgets.QComboBox(self)
        self._combo_box.setEditable(True)
        self._combo_box.setSizePolicy(QtWidgets.QSizePolicy.Expanding, QtWidgets.QSizePolicy.Fixed)
        self._browse_button = QtWidgets.QToolButton(self)
        self._browse_button.setText("...")
        layout = QtWidgets.QHBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self._combo_box)
        layout.addWidget(self._browse_button)
        self._combo_box.editTextChanged.connect(self._onTextChanged)

    def comboBox(self) -> QtWidgets.QComboBox:
        """Return the combo box inside."""
        return self._combo_box

    def _onTextChanged(self, path: str) -> None:
        """Say that the path has changed, as the real class does: only where the name filters accept the text."""
        valid = re.fullmatch(self._accepted(), path) is not None
        if valid:
            self.currentPathChanged.emit(path)
        if valid != self._valid:
            self._valid = valid
            self.validInputChanged.emit(valid)

    def _accepted(self) -> str:
        """Return the regular expression that the real class makes of its name filters; it never accepts no text.

        Of each wildcard it uses the first ending alone, whose last letter it makes optional.
        """
        endings = re.findall(r"\*\.(\w+)[^\s;)]*", " ".join(self._name_filters))
        return "|".join(rf".*\.{ending}?" for ending in endings) or ".+"

    def _currentPath(self) -> str:
        return self._combo_box.currentText

    def setCurrentPath(self, path: str) -> None:
        """Set the path."""
        if not isinstance(path, str):
            raise ValueError(f"ctkPathLineEdit.currentPath takes a QString, not {path!r}")
        self._combo_box.setEditText(path)

    def _getFilters(self) -> int:
        return self._filters

    def setFilters(self, filters: int) -> None:
        """Set which kinds of entries can be chosen."""
        self._filters = filters

    def _nameFilters(self) -> list[str]:
        return self._name_filters

    def setNameFilters(self, filters: list[str]) -> None:
        """Set the wildcards of the file dialogue."""
        self._name_filters = list(filters)

    def _settingKey(self) -> str:
        return self._setting_key

    def setSettingKey(self, key: str) -> None:
        """Set the key under which the history of paths is stored; this stand-in keeps no history."""
        self._setting_key = key

    def _showBrowseButton(self) -> bool:
        return not self._browse_button.isHidden()

    def setShowBrowseButton(self, shown: bool) -> None:
        """Show or hide the browse button."""
        self._browse_button.setVisible(shown)

    currentPath = Property(str, _currentPath, setCurrentPath)
    filters = Property(int, _getFilters, setFilters)
    nameFilters = Property("QStringList", _nameFilters, setNameFilters)
    settingKey = Property(str, _settingKey, setSettingKey)
    showBrowseButton = Property(bool, _showBrowseButton, setShowBrowseButton)

    _SLOTS: ClassVar = ("setCurrentPath(QString)",)
    _SIGNALS: ClassVar = {"currentPathChanged(QString)": "currentPathChanged"}
