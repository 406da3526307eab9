"""Protocols as tables: typed offsets, values of measurements and settings."""

import copy

import pytest

from CESTQuantLib.formats.presets import FOLDER
from CESTQuantLib.formats.protocol_json import protocol_from_dict
from CESTQuantLib.formats.scanner.saturation import ASSUMPTIONS
from CESTQuantLib.tables.measurements import COLUMNS, column_texts, measurement_count, text_of_all, with_measurement
from CESTQuantLib.tables.offsets import offsets_of_ranges, with_offsets
from CESTQuantLib.tables.open_values import open_saturation
from CESTQuantLib.tables.protocols import new_protocol, readable_protocol
from CESTQuantLib.tables.settings import SETTINGS, setting_text, with_setting
from NeuroCESTLib.core.checked_json import read_json

STRATEGY = read_json(FOLDER / "strategy_1.json")


@pytest.mark.parametrize(
    ("text", "count", "first", "last"),
    [
        ("-6:0.25:6", 49, -6.0, 6.0),
        ("-300, −6:0.25:6", 50, -300.0, 6.0),
        ("6:-0.5:-6", 25, 6.0, -6.0),
        ("0.1:0.1:0.3", 3, 0.1, 0.3),
        ("3.5; -3.5 0", 3, 3.5, 0.0),
        ("1:2:2", 1, 1.0, 1.0),
    ],
)
def test_offsets_are_typed_as_numbers_and_ranges(text, count, first, last):
    offsets = offsets_of_ranges(text)
    assert (len(offsets), offsets[0], offsets[-1]) == (count, first, last)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "type offsets in ppm"),
        ("-6:6", "a range is from:step:to"),
        ("-6:-1:6", "do not lead from -6 to 6"),
        ("1:0:2", "do not lead"),
        ("a", "'a' is not a number"),
        ("0:1e-9:9", "too many"),
        ("inf", "not finite"),
    ],
)
def test_texts_that_are_no_offsets_are_refused(text, reason):
    with pytest.raises(ValueError, match=reason):
        offsets_of_ranges(text)


def test_changes_give_protocols_that_can_be_read_and_leave_the_earlier_one_as_it_was():
    protocol = with_offsets(None, offsets_of_ranges("-4:1:4"))
    before = copy.deepcopy(protocol)
    changed = with_measurement(protocol, None, "b1_uT", "2")
    changed = with_measurement(changed, 2, "b1_uT", "3")
    changed = with_measurement(changed, None, "recovery_time_s", "1")
    changed = with_setting(changed, "signal_normalisation", "l2")
    changed = with_setting(changed, "magnetisation_carried_over", "yes")
    changed = with_setting(changed, "readout.echo_time_s", "0.02")
    changed = with_setting(changed, "m0_measurements", "1, 2")
    assert protocol == before
    read = protocol_from_dict(changed)
    assert read.b1_uT.tolist() == [2, 2, 3, 2, 2, 2, 2, 2, 2]
    assert (read.echo_time_s, read.m0_measurements, read.magnetisation_carried_over) == (0.02, (1, 2), True)
    assert text_of_all(changed, "b1_uT") == ""
    assert text_of_all(changed, "recovery_time_s") == "1"
    assert setting_text(changed, "m0_measurements") == "1, 2"
    without = with_setting(with_measurement(changed, None, "recovery_time_s", ""), "readout.echo_time_s", "")
    assert "recovery_time_s" not in without
    assert "readout" not in without


def test_a_pulse_train_is_typed():
    protocol = new_protocol([-1.0, 0.0, 1.0])
    for key, text in (("saturation_type", "pulse_train"), ("n_pulses", "20"), ("pulse_duration_s", "0.05")):
        protocol = with_setting(protocol, key, text)
    protocol = with_setting(with_setting(protocol, "duty_cycle", "0.5"), "pulse_shape", "gaussian")
    train = protocol_from_dict(with_measurement(protocol, None, "b1_uT", "2")).pulses
    assert (train.n_pulses, train.delay_s) == (20, 0.05)


@pytest.mark.parametrize(
    ("row", "key", "text", "reason"),
    [
        (1, "b1_uT", "strong", "measurement 2, B1 .*'strong' is not a number"),
        (None, "b1_uT", "-1", "negative"),
        (None, "offsets_ppm", "", "not a number"),
        (0, "post_delay_s", "1", "in the line 'all'"),
    ],
)
def test_values_that_cannot_be_used_are_refused_by_place(row, key, text, reason):
    with pytest.raises(ValueError, match=reason):
        with_measurement(new_protocol([0.0, 1.0]), row, key, text)


@pytest.mark.parametrize(
    ("key", "text", "reason"),
    [
        ("saturation_type", "spin lock", "use cw or pulse_train"),
        ("magnetisation_carried_over", "maybe", "type yes or no"),
        ("field_strength_T", "", "not a number"),
        ("duty_cycle", "-0.5", "negative"),
        ("pulse_shape", "{", "cannot be read"),
    ],
)
def test_settings_that_cannot_be_used_are_refused_by_name(key, text, reason):
    with pytest.raises(ValueError, match=reason):
        with_setting(new_protocol([0.0]), key, text)


def test_another_number_of_offsets_needs_single_values():
    protocol = new_protocol([0.0, 1.0]) | {"b1_uT": [1.0, 2.0], "saturation_time_s": [2.0, 2.0]}
    with pytest.raises(ValueError, match=r"B1 .* each of 2 measurements, but 3 offsets"):
        with_offsets(protocol, [0.0, 1.0, 2.0])
    changed = with_offsets(with_measurement(protocol, None, "b1_uT", "1"), [0.0, 1.0, 2.0])
    assert protocol_from_dict(changed).saturation_time_s.tolist() == [2.0, 2.0, 2.0]


def test_one_description_of_the_gaps_replaces_the_other():
    protocol = new_protocol([1.0]) | {"b1_uT": 1.0, "n_pulses": 2, "pulse_duration_s": 0.1, "pulse_delay_s": 0.0}
    del protocol["saturation_time_s"]
    protocol["saturation_type"] = "pulse_train"
    changed = with_setting(protocol, "duty_cycle", "0.25")
    assert "pulse_delay_s" not in changed
    assert protocol_from_dict(changed).duty_cycle == pytest.approx(0.25)
    back = with_setting(changed, "pulse_delay_s", "0.1")
    assert "duty_cycle" not in back
    assert protocol_from_dict(back).duty_cycle == 0.5


def test_offsets_in_another_order_drop_the_numbers_of_the_m0_measurements():
    protocol = new_protocol([-300.0, -3.5, 3.5]) | {"b1_uT": [0.0, 1.0, 1.0], "m0_measurements": [1]}
    assert with_offsets(protocol, [-300.0, -2.0, 2.0])["m0_measurements"] == [1]
    assert "m0_measurements" not in with_offsets(protocol, [-3.5, 3.5, -300.0])


EVENTS = {
    "field_strength_T": 3.0,
    "offsets_ppm": [-3.5, 3.5],
    "b1_uT": 2.0,
    "saturation_time_s": 0.1,
    "post_delay_s": 0.0,
    "events": {
        "pulses": [{"amplitude_uT": [2.0], "phase_rad": [0.0], "duration_s": [0.1]}],
        "measurements": [
            [["play", 0, -447.07, 0.0], ["sample", "longitudinal"]],
            [["play", 0, 447.07, 0.0], ["sample", "longitudinal"]],
        ],
    },
}


@pytest.mark.parametrize(
    "change",
    [
        lambda protocol: with_measurement(protocol, None, "b1_uT", "0.1"),
        lambda protocol: with_measurement(protocol, 1, "offsets_ppm", "2"),
        lambda protocol: with_measurement(protocol, None, "saturation_time_s", "1"),
        lambda protocol: with_measurement(protocol, None, "post_delay_s", ""),
        lambda protocol: with_measurement(protocol, None, "recovery_time_s", "1"),
        lambda protocol: with_measurement(protocol, None, "readout_flip_angle_deg", "90"),
        lambda protocol: with_setting(protocol, "n_pulses", "3"),
        lambda protocol: with_setting(protocol, "saturation_type", "pulse_train"),
        lambda protocol: with_setting(protocol, "readout.echo_time_s", "0.01"),
        lambda protocol: with_offsets(protocol, [-3.5, 2.0]),
        lambda protocol: with_offsets(protocol, [-3.5, 3.5, 0.0]),
    ],
)
def test_what_only_describes_the_events_cannot_be_edited(change):
    """What is played are the events, so that another description would change nothing."""
    with pytest.raises(ValueError, match="describes the events of every measurement: edit its file instead"):
        change(EVENTS)


def test_what_the_events_do_not_say_can_be_edited():
    assert with_setting(EVENTS, "signal_normalisation", "none")["signal_normalisation"] == "none"
    assert with_setting(EVENTS, "note", "a spin lock")["note"] == "a spin lock"
    assert with_measurement(EVENTS, 0, "b1_uT", "2")["b1_uT"] == [2.0, 2.0]
    assert with_offsets(EVENTS, [-3.5, 3.5]) == EVENTS


def test_the_b1_of_a_train_is_called_what_the_protocol_means():
    meant = "root mean square over its pulses and the gaps between them"
    assert meant in next(column.description for column in COLUMNS if column.key == "b1_uT")
    assert meant in ASSUMPTIONS["b1_uT"]


def test_every_value_of_a_bundled_protocol_can_be_typed_as_it_is_shown():
    protocol = readable_protocol(STRATEGY, "strategy_1")
    for column in COLUMNS:
        for row, text in enumerate(column_texts(protocol, column.key)):
            if text:
                changed = with_measurement(protocol, row, column.key, text)
                assert column_texts(changed, column.key) == column_texts(protocol, column.key)
    for setting in SETTINGS:
        if setting_text(protocol, setting.key):
            assert with_setting(protocol, setting.key, setting_text(protocol, setting.key)) == protocol


@pytest.mark.parametrize("content", [[], {"b1_uT": 1}, {"offsets_ppm": "near"}, {"offsets_ppm": [1], "readout": 3}])
def test_files_that_hold_no_protocol_are_refused_by_name(content):
    with pytest.raises(ValueError, match=r"p\.json: this is not a protocol"):
        readable_protocol(content, "p.json")


def test_protocols_of_measured_data_are_shown(shared_data):
    files = sorted(shared_data("data/cest").rglob("*protocol*.json"))
    assert files
    for file in files:
        assert measurement_count(readable_protocol(read_json(file), str(file))) > 0


@pytest.mark.parametrize(
    ("changes", "keys"),
    [
        ({"b1_uT": 2.0, "saturation_time_s": 1.0}, []),
        ({"b1_uT": [2.0, 0.0], "saturation_time_s": [1.0, 1.0]}, []),
        ({"b1_uT": 0.0, "saturation_time_s": 1.0}, []),
        ({}, ["b1_uT", "saturation_time_s"]),
        ({"b1_uT": 0.0, "saturation_time_s": 0.0}, ["b1_uT", "saturation_time_s"]),
        ({"b1_uT": None, "saturation_time_s": 1.0}, ["b1_uT"]),
        ({"b1_uT": 2.0, "saturation_time_s": None}, ["saturation_time_s"]),
        ({"b1_uT": 2.0, "n_pulses": 10, "pulse_duration_s": 0.1}, []),
        ({"pulse_shape": {"samples_uT": [1.0]}, "n_pulses": 10, "pulse_duration_s": 0.1}, []),
        ({"events": {"pulses": []}}, []),
    ],
)
def test_what_a_simulation_of_the_saturation_needs_is_named(changes: dict, keys: list[str]) -> None:
    assert open_saturation({"field_strength_T": 3.0, "offsets_ppm": [1.0, 2.0], **changes}) == keys
