"""The protocol of the acquisition as tables: one line for every measurement, and the settings of all."""

import json
import os

import slicer
from slicer.i18n import tr as _

from NeuroCESTLib.panel.edited_value import EditedValue
from NeuroCESTLib.panel.file_version import file_version
from NeuroCESTLib.panel.page import Page

ROW_HEIGHT = 22
"""Height of a row of the tables in pixels."""


class ProtocolPage(Page):
    """Shows the protocol that the acquisition has or that a file gives, and lets the user edit it in place.

    What is edited is kept as JSON text in the parameter ``protocol``. The section is closed at first, and reads nothing
    as long as it is.
    """

    edited = EditedValue("protocol")
    _shown = None
    _protocol = None
    _file = None
    _file_content = None

    def setup(self):
        """Connect the widgets."""
        import qt

        ui = self.ui
        ui.protocolSection.connect("contentsCollapsed(bool)", lambda collapsed: self.show())
        ui.rangesButton.connect("clicked(bool)", self.onRanges)
        ui.rangesLineEdit.connect("returnPressed()", self.onRanges)
        ui.measurementsTable.connect("cellChanged(int,int)", self.onMeasurementTyped)
        ui.settingsTable.connect("cellChanged(int,int)", self.onSettingTyped)
        ui.attachProtocolButton.connect("clicked(bool)", self.onAttach)
        ui.saveProtocolButton.connect("clicked(bool)", self.onSave)
        for table in (ui.measurementsTable, ui.settingsTable):
            table.horizontalHeader().setSectionResizeMode(qt.QHeaderView.ResizeToContents)
            table.horizontalHeader().setHighlightSections(False)
            table.verticalHeader().setDefaultSectionSize(ROW_HEIGHT)
        ui.settingsTable.horizontalHeader().setVisible(False)
        ui.settingsTable.horizontalHeader().setStretchLastSection(True)

    def source(self):
        """Return what the protocol comes from: the file and the acquisition."""
        return self.parameters.protocolPath, self.parameters.signal

    def given(self):
        """Return what the Logic gets: the edited protocol as dictionary, a file, or None for that of the acquisition.

        Raises:
            ValueError: The scene holds a damaged protocol.
        """
        edited = self.edited.get(self.parameters)
        return edited if edited is not None else self.parameters.protocolPath or None

    def show(self):
        """Show the protocol where it has changed and the section is open."""
        if not self.parameters or self.edited.given_up(self.parameters, *self.source()):
            return  # giving up the edited protocol has shown the other one
        if self.ui.protocolSection.collapsed:
            return
        path, signal = self.source()
        key = file_version(path), signal, self.parameters.protocol, signal and signal.GetMTime()
        if key == self._shown:
            return
        self._shown = key
        try:
            self._protocol, where = self._read()
        except ValueError as error:
            self._protocol, where = None, str(error)
        self._fill()
        self.say(where)

    def _read(self):
        """Return the protocol, None without one, and where it comes from."""
        from ..tables.protocols import new_protocol, readable_protocol

        signal, given = self.parameters.signal, self.given()
        if isinstance(given, dict):
            protocol = readable_protocol(given, _("the protocol of the scene"))
            return protocol, self._problem(protocol) or _("Edited here and saved with the scene.")
        if given and not os.path.isfile(given):
            return None, _("The protocol file {path} does not exist.").format(path=given)
        if given:
            return readable_protocol(_protocol_of_file(given), given), _("From the file {path}.").format(path=given)
        if not signal:
            return None, _("Choose an acquisition or a protocol file, or type offsets.")
        carried = self.logic.protocolOf(signal)
        if carried is not None:
            name = signal.GetName()
            return readable_protocol(carried, name), _("Carried by the acquisition '{name}'.").format(name=name)
        offsets = self.logic.offsetsOf(signal)
        if offsets is not None:
            return new_protocol(offsets), _(
                "Offsets from the index of the sequence. Field strength, B1 and saturation time are not known: 3 T is "
                "assumed, and model fits need the others."
            )
        return None, _("The acquisition does not say its protocol: choose a file, or type its offsets.")

    def missing(self):
        """Return what the chosen method needs to know about the saturation and the protocol does not say."""
        from ..methods.registry import METHODS

        method = METHODS.get(self.parameters.method)
        try:
            given = self.given()
        except ValueError:  # a damaged protocol, which is told elsewhere
            return []
        return [] if method is None else self.lacks(method, given, self.parameters.signal)

    def lacks(self, method, given, signal):
        """Return what a method needs to know about the saturation and a protocol does not say, as sentences.

        Args:
            method: Method of the registry.
            given: Protocol as dictionary or file; None for that of the acquisition.
            signal: Acquisition, or None.
        """
        from ..tables.open_values import open_saturation
        from ..tables.protocols import title_of

        protocol = self._saturation(given, signal) if method.physical else None
        open_ = [] if protocol is None else [title_of(key) for key in open_saturation(protocol)]
        if not open_:
            return []
        sentence = _(
            "{method} needs {what}, which the protocol does not say: fill it in, or choose a JSON or .seq file."
        )
        return [sentence.format(method=_(method.title), what=_(" and ").join(open_))]

    def _saturation(self, given, signal):
        """Return the keys of a protocol that describe the saturation; None where only a run finds out."""
        try:
            if isinstance(given, str):
                return self._saturation_of_file(given)
            if given is None and signal:
                given = self.logic.protocolOf(signal)
                return given if given is not None or self.logic.offsetsOf(signal) is None else {}
        except ValueError:  # a damaged protocol, which is told elsewhere
            return None
        return given

    def _saturation_of_file(self, path):
        """Return the content of a protocol file, read again where it has changed; nothing for a list of offsets."""
        from NeuroCESTLib.core.checked_json import read_json

        if path.lower().endswith(".seq") or not os.path.isfile(path):
            return None
        if not path.lower().endswith(".json"):
            return {}
        key = file_version(path)
        if self._file != key:
            self._file, self._file_content = key, None  # read once, even where it is damaged
            self._file_content = read_json(path)
        return self._file_content if isinstance(self._file_content, dict) else None

    def _problem(self, protocol):
        """Return why the protocol cannot be used or does not fit the acquisition; empty without a problem."""
        from ..formats.protocol_json import protocol_from_dict

        try:
            count = protocol_from_dict(protocol).measurement_count
        except ValueError as error:
            return str(error)
        signal = self.parameters.signal
        if signal and signal.GetNumberOfDataNodes() != count:
            return _("The protocol has {count} measurements, but '{name}' has {volumes} volumes.").format(
                count=count, name=signal.GetName(), volumes=signal.GetNumberOfDataNodes()
            )
        return ""

    def say(self, text):
        """Show a sentence under the tables."""
        self.ui.protocolNoteLabel.text = text

    def change(self, changed):
        """Change the protocol, and keep it in the parameter node.

        Args:
            changed: Function of the protocol that returns another one; it may raise ValueError.
        """
        if not self.parameters:
            return
        before = self._protocol
        self.show()
        if self._protocol != before:
            self.say(_("The file has changed and is shown as it is now: make your change again."))
            return
        try:
            protocol = changed(self._protocol)
        except ValueError as error:
            self._fill()
            self.say(str(error))
            return
        self.edited.keep(self.parameters, protocol, *self.source())

    def onRanges(self, checked=False):
        """Take over the offsets that the user has typed as numbers and ranges."""
        from ..tables.offsets import offsets_of_ranges, with_offsets

        text = self.ui.rangesLineEdit.text
        self.change(lambda protocol: with_offsets(protocol, offsets_of_ranges(text)))

    def onMeasurementTyped(self, row, column):
        """Take over a value that the user has typed; the first line is that of all measurements."""
        from ..tables.measurements import COLUMNS, with_measurement

        text = self.ui.measurementsTable.item(row, column).text()
        measurement = row - 1 if row else None
        self.change(lambda protocol: with_measurement(protocol, measurement, COLUMNS[column].key, text))

    def onSettingTyped(self, row, column):
        """Take over a setting that the user has typed."""
        from ..tables.settings import SETTINGS, with_setting

        text = self.ui.settingsTable.item(row, column).text()
        self.change(lambda protocol: with_setting(protocol, SETTINGS[row].key, text))

    def onAttach(self, checked=False):
        """Keep the protocol with the acquisition, which then carries it wherever it is saved."""
        with slicer.util.tryWithErrorDisplay(_("The protocol could not be kept with the acquisition.")):
            protocol = self._as_it_is_now()
            problem = self._problem(protocol)
            if problem:
                raise ValueError(problem)
            with slicer.util.NodeModify(self.parameters.parameterNode):
                self.logic.setProtocol(self.parameters.signal, protocol)
                self.parameters.protocol = ""
                self.parameters.protocolPath = ""

    def _as_it_is_now(self):
        """Return the protocol, read again where its file has changed; ValueError with the reason if there is none."""
        self.show()
        if self._protocol is None:
            raise ValueError(self.ui.protocolNoteLabel.text)
        return self._protocol

    def onSave(self, checked=False):
        """Ask for a file and write the protocol to it."""
        import qt

        path = qt.QFileDialog.getSaveFileName(None, _("Save the protocol"), "protocol.json", _("Protocol (*.json)"))
        if path:
            with slicer.util.tryWithErrorDisplay(_("The protocol could not be saved.")):
                self.save(path)

    def save(self, path):
        """Write the protocol to a file, as the batch commands take it.

        Raises:
            ValueError: There is no protocol, or its file is gone or damaged, or the new file cannot be written.
        """
        from NeuroCESTLib.core.whole_files import write_text

        write_text(json.dumps(self._as_it_is_now(), indent=1, ensure_ascii=False) + "\n", path)
        self.say(_("Saved as {path}.").format(path=path))

    def _fill(self):
        from ..tables.measurements import COLUMNS, column_texts, text_of_all
        from ..tables.settings import SETTINGS, setting_text

        ui, protocol = self.ui, self._protocol
        for widget in (ui.measurementsTable, ui.settingsTable, ui.attachProtocolButton, ui.saveProtocolButton):
            widget.visible = protocol is not None
        ui.attachProtocolButton.enabled = bool(self.parameters and self.parameters.signal)
        if protocol is None:
            return
        columns = [[text_of_all(protocol, c.key), *column_texts(protocol, c.key)] for c in COLUMNS]
        rows = [_("all"), *(str(number) for number in range(1, len(columns[0])))]
        heads = [(_(column.title), _(column.description)) for column in COLUMNS]
        _fill(ui.measurementsTable, heads, [(row, "") for row in rows], columns)
        ui.measurementsTable.setFixedHeight(ROW_HEIGHT * (min(len(rows), 10) + 2))
        settings = [setting_text(protocol, setting.key) for setting in SETTINGS]
        heads = [(_(setting.title), _(setting.description)) for setting in SETTINGS]
        _fill(ui.settingsTable, [("", "")], heads, [settings])
        train = setting_text(protocol, "saturation_type") == "pulse_train"
        hidden = [setting.of_train and not train for setting in SETTINGS]
        for row, hide in enumerate(hidden):
            ui.settingsTable.setRowHidden(row, hide)
        ui.settingsTable.setFixedHeight(ROW_HEIGHT * hidden.count(False) + 4)


def _fill(widget, columns, rows, texts):
    """Fill a table with texts by column; columns and rows have a heading and a tool tip each."""
    import qt

    blocked = widget.blockSignals(True)  # filling the table edits nothing
    place = widget.currentRow(), widget.currentColumn()
    widget.rowCount, widget.columnCount = len(rows), len(columns)
    for number, (title, tip) in enumerate(columns):
        widget.setHorizontalHeaderItem(number, _heading(title, tip))
    for number, (title, tip) in enumerate(rows):
        widget.setVerticalHeaderItem(number, _heading(title, tip))
    for column, values in enumerate(texts):
        for row, text in enumerate(values):
            item = qt.QTableWidgetItem(text)
            item.setToolTip(columns[column][1] or rows[row][1])
            widget.setItem(row, column, item)
    widget.setCurrentCell(*place)
    widget.blockSignals(blocked)


def _heading(title, tip):
    import qt

    item = qt.QTableWidgetItem(title)
    item.setToolTip(tip)
    return item


def _protocol_of_file(path):
    """Return the content of a protocol file as the keys of a ``protocol.json``."""
    from NeuroCESTLib.core.checked_json import read_json

    if path.lower().endswith(".json"):
        return read_json(path)
    from ..formats.protocol_files import read_protocol
    from ..formats.protocol_json import protocol_to_dict

    return protocol_to_dict(read_protocol(path))
