"""JSON and text files, and the values in them, are checked where they are read."""

from __future__ import annotations

import math
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from arbitrary_values import json_values, one_line, reads_or_explains
from hypothesis import given

from NeuroCESTLib.core.checked_json import (
    check_keys,
    number,
    numbers,
    read_json,
    read_text,
    require_file_name,
    whole_number,
)


def test_values_come_back_as_json_has_them(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"rate": 1e-3, "names": ["amine", "größe"], "none": null}', encoding="utf-8")
    assert read_json(tmp_path / "config.json") == {"rate": 1e-3, "names": ["amine", "größe"], "none": None}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{\n  "rate": 1,\n}', r"not valid JSON \(line 3: "),
        ('{"a": 1}\n{"b": 2}', r"not valid JSON \(line 2: Extra data\)"),
        ("", r"not valid JSON \(line 1: Expecting value\)"),
        ("[" * 100_000, r"not usable JSON \(a number too long or values nested too deep\)"),
        ("1" * 5_000, r"not usable JSON \(a number too long or values nested too deep\)"),
    ],
    ids=["comma", "two values", "empty", "deep", "long"],
)
def test_bad_json_is_refused_with_its_line(text: str, words: str, tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=words) as caught:
        read_json(path)
    one_line(caught.value, str(path))


def test_missing_and_unreadable_files_are_named_with_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no\.json: no such file; run 'cestquant phantom' first$"):
        read_json(tmp_path / "no.json", "run 'cestquant phantom' first")
    (tmp_path / "image.json").write_bytes(b"\xff\xfe\x00\x80")
    for path in (tmp_path / "image.json", tmp_path):
        with pytest.raises(ValueError, match=r"not a readable text file$"):
            read_text(path)


def test_unknown_keys_are_refused_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r"^'c\.json': training: unknown keys epoch, sead; use epochs, seed$"):
        check_keys({"sead": 1, "epochs": 3, "epoch": 2}, ("epochs", "seed"), "'c.json': training")


def test_known_keys_and_accepted_notes_pass() -> None:
    values = {"epochs": 3, "note": "a trial"}
    assert check_keys(values, ("epochs", "seed"), "c.json", also=("note",)) == values


@pytest.mark.parametrize("value", [None, 3, "epochs", ["epochs"]])
def test_what_is_no_object_is_refused_with_the_keys_that_it_needs(value: object) -> None:
    with pytest.raises(ValueError, match=r"^c\.json: must be an object with the keys epochs, seed$"):
        check_keys(value, ("epochs", "seed"), "c.json")


def test_numbers_are_finite_and_not_booleans_or_texts() -> None:
    assert number(3, "seed") == 3.0
    assert isinstance(number(3, "seed"), float)
    for value in (True, "3", None, [3], 3j):
        with pytest.raises(ValueError, match=r"^seed is .*, which is not a number$"):
            number(value, "seed")
    for value in (math.nan, math.inf, 10**400):
        with pytest.raises(ValueError, match=r"^seed is not finite$"):
            number(value, "seed")
    with pytest.raises(ValueError, match=r"^seed is 'x{36}\.\.\., which"):
        number("x" * 5000, "seed")


def test_whole_numbers_become_integers() -> None:
    assert [whole_number(value, "count") for value in (3, 3.0, -2)] == [3, 3, -2]
    assert isinstance(whole_number(3.0, "count"), int)
    assert whole_number(0, "count", 0) == 0


@pytest.mark.parametrize("value", [2.5, "3", True, None, [1], math.inf, math.nan])
def test_what_is_not_a_whole_number_is_refused_by_name(value: object) -> None:
    with pytest.raises(ValueError, match=r"^count is .* but must be a whole number$"):
        whole_number(value, "count")


def test_whole_numbers_that_no_float_holds_are_refused() -> None:
    with pytest.raises(ValueError, match=r"^seed is 10{36}\.\.\., which is too large$"):
        whole_number(10**400, "seed")


def test_whole_numbers_below_the_least_are_refused_with_it() -> None:
    with pytest.raises(ValueError, match=r"^epochs is 0 but must be a whole number of at least 1$"):
        whole_number(0, "epochs", 1)


def test_lists_of_numbers_become_float64_and_tensors_keep_their_type_and_graph() -> None:
    torch.testing.assert_close(numbers(2, "b1_uT"), torch.tensor([2.0], dtype=torch.float64))
    torch.testing.assert_close(numbers([1, 2.5], "b1_uT"), torch.tensor([1, 2.5], dtype=torch.float64))
    trained = torch.ones(3, dtype=torch.float32, requires_grad=True)
    assert numbers(trained, "b1_uT").dtype == torch.float32
    assert numbers(trained, "b1_uT").requires_grad


def test_arrays_become_tensors_of_their_own_also_where_they_are_reversed_or_read_only() -> None:
    array = np.array([3.0, 2.0, 1.0])
    found, reversed_ = numbers(array, "offsets_ppm"), numbers(array[::-1], "offsets_ppm")
    array[0] = 30.0
    assert found.tolist() == [3.0, 2.0, 1.0]
    assert reversed_.tolist() == [1.0, 2.0, 3.0]
    array.flags.writeable = False
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert numbers(array, "offsets_ppm").tolist() == [30.0, 2.0, 1.0]


@pytest.mark.parametrize("value", [None, "two", [[1, 2]], [1, "two"], {"a": 1}, [10**400]])
def test_what_is_no_list_of_numbers_is_refused(value: object) -> None:
    with pytest.raises(ValueError, match=r"^b1_uT must be a number or a list of numbers"):
        numbers(value, "b1_uT")


@pytest.mark.parametrize("name", ["amine", "NOE -3.5", "Größe_2+"])
def test_names_that_can_name_files_pass(name: str) -> None:
    require_file_name(name, "solute")


@pytest.mark.parametrize("name", ["", "../amine", "a/b", "-rf", " amine", "a:b", "a\nb"])
def test_names_that_cannot_name_files_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match="must consist of letters"):
        require_file_name(name, "solute")


@given(value=json_values)
def test_any_value_is_a_known_object_or_is_explained(value: object) -> None:
    reads_or_explains(lambda: check_keys(value, ("a",), "value"), "value")
