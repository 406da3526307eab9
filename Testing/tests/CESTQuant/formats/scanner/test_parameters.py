"""JCAMP-DX files of ParaVision: arrays, structures, abbreviations, and damage that is named."""

from __future__ import annotations

from pathlib import Path

import pytest
from paravision import write_parameters

from CESTQuantLib.formats.scanner.parameters import ParameterFile


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("On", "On"),
        ("300.5", 300.5),
        ("( 3 )\n1 -2e3 \n+0.5", [1.0, -2000.0, 0.5]),
        ("( 5 )\n@3*(0.25) 1 2", [0.25, 0.25, 0.25, 1.0, 2.0]),
        ("( 2, 65 )\n<mm> <m m>", ["mm", "m m"]),
        ("( 64 )\n<one, two (three)\\\n>", ["one, two (three)"]),
        ("(0, 1)", [0.0, 1.0]),
        ("( 2 )\n(4, <FG_SLICE>, <>, 0, 2) \n(3, <A B>, <a>)", [[4, "FG_SLICE", "", 0, 2], [3, "A B", "a"]]),
        ("(((1 0, 2), No))", [[[[1.0, 0.0], 2.0], "No"]]),
    ],
)  # fmt: skip
def test_values_are_read_as_they_are_written(tmp_path: Path, text: str, value: object) -> None:
    write_parameters(tmp_path / "method", {"Name": text})
    assert ParameterFile.read(tmp_path / "method").value("Name") == value


@pytest.mark.parametrize(
    "text", ["( 4 )\n1 2 3", "( 2 )\n1 2 3", "(1, 2", "1)", "( 1 )\n@99999999*(1)", "(" * 50, "<open"]
)
def test_a_damaged_value_is_named(tmp_path: Path, text: str) -> None:
    write_parameters(tmp_path / "method", {"First": "1", "Broken": text})
    file = ParameterFile.read(tmp_path / "method")
    assert file.number("First") == 1
    with pytest.raises(ValueError, match=r"method': .*Broken is damaged"):
        file.value("Broken")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is not a parameter file of ParaVision"),
        (b"\x00\x01\xff" * 50, "is not a parameter file of ParaVision"),
        (b"text\n##$A=1\n##END=\n", "is not a parameter file of ParaVision"),
        (b"##TITLE=x\n##$A=( 200 )\n1 2 3", "is cut off"),
    ],
)
def test_other_files_and_cut_off_ones_are_refused(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "visu_pars").write_bytes(content)
    with pytest.raises(ValueError, match=f"visu_pars' {message}"):
        ParameterFile.read(tmp_path / "visu_pars")


def test_a_missing_file_and_parameter_are_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="acqp' is missing"):
        ParameterFile.read(tmp_path / "acqp")
    write_parameters(tmp_path / "acqp", {"A": "( 2 )\n1 nan", "B": "<text>"})
    file = ParameterFile.read(tmp_path / "acqp")
    for call, message in (
        (lambda: file.number("C"), "C is missing"),
        (lambda: file.numbers("A"), "A must be a list of numbers"),
        (lambda: file.numbers("B"), "B must be a list of numbers"),
    ):
        with pytest.raises(ValueError, match=message):
            call()
    assert (file.text("B"), file.text("C"), file.structure("C")) == ("text", "", [])


def test_every_file_of_real_studies_is_read(shared_data) -> None:
    names = ("method", "acqp", "visu_pars", "reco")
    files = [path for path in shared_data("data/scanner").rglob("*") if path.name in names]
    assert len(files) > 20
    for path in files:
        read = ParameterFile.read(path)
        for name in read.texts:
            read.value(name)
