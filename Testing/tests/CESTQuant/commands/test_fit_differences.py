"""In what the maps of two visits were made otherwise, and what is no difference."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from CESTQuantLib.commands.fit_differences import differences
from NeuroCESTLib.core.checksum import sha256

PROTOCOL = {"field_strength_T": 3.0, "offsets_ppm": [-300, 1], "b1_uT": 2.0}


def fitted(folder: Path, protocol: dict[str, Any]) -> Path:
    """Return the folder of maps of a fit with this protocol, which lies beside it."""
    file, output = folder / "protocol.json", folder / "maps"
    output.mkdir(parents=True)
    file.write_text(json.dumps(protocol))
    report = {
        "command": "cestquant fit",
        "settings": {"method": "lorentzian", "protocol": str(file)},
        "inputs": [{"role": "protocol", "path": str(file), "sha256": sha256(file)}],
    }
    (output / "report.json").write_text(json.dumps(report))
    return output


@pytest.mark.parametrize("gone", [(), ("a",), ("b",), ("a", "b")])
def test_equal_protocols_are_equal_wherever_their_files_are_now(tmp_path: Path, gone: tuple[str, ...]) -> None:
    folders = [str(fitted(tmp_path / visit, PROTOCOL)) for visit in "ab"]
    for visit in gone:
        (tmp_path / visit / "protocol.json").unlink()
    assert differences(*folders) == []


@pytest.mark.parametrize(("key", "value", "told"), [("note", "second", []), ("b1_uT", 1.0, ["protocol"])])
def test_protocols_are_compared_by_the_keys_that_do_not_belong_to_a_session(
    tmp_path: Path, key: str, value: Any, told: list[str]
) -> None:
    first, second = fitted(tmp_path / "a", PROTOCOL), fitted(tmp_path / "b", {**PROTOCOL, key: value})
    assert differences(str(first), str(second)) == told


@pytest.mark.parametrize("gone", ["a", "ab"])
def test_protocols_that_differ_in_an_unknown_way_are_told_as_such(tmp_path: Path, gone: str) -> None:
    first, second = fitted(tmp_path / "a", PROTOCOL), fitted(tmp_path / "b", {**PROTOCOL, "note": "second"})
    for visit in gone:
        (tmp_path / visit / "protocol.json").unlink()
    (sentence,) = differences(str(first), str(second))
    assert "cannot be compared" in sentence
