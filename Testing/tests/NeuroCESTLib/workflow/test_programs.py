"""Commands as processes: what they said at their end, and profiles of clusters."""

from __future__ import annotations

from pathlib import Path

import pytest

from NeuroCESTLib.workflow.engine import forcing, profile_folder
from NeuroCESTLib.workflow.programs import last_error, options, run_program


@pytest.mark.parametrize(
    ("printed", "sentence"),
    [
        ("10 %\nwarning: dark\nerror: 'mz.nii' is no image: convert it\n", "'mz.nii' is no image: convert it"),
        ("cestquant fit: the following arguments are required: --method (see ...)\n", "cestquant fit: the following"),
        ("10 % reading\n 63 % fitting\n", "it ended without a message after '63 % fitting': it was stopped, perhaps"),
        ("", ""),
    ],
)
def test_the_sentence_of_a_command_is_found_in_what_it_printed(printed: str, sentence: str) -> None:
    assert last_error(printed).startswith(sentence)
    assert bool(last_error(printed)) == bool(sentence)


def test_an_unusable_argument_of_a_command_is_told(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"cestquant simulate: .*none.json.*"):
        run_program("cestquant", "simulate", tmp_path / "none.json", "--output", tmp_path / "z.csv")


def test_options_without_a_value_are_left_out() -> None:
    assert options({"--a": "x", "--b": None, "--c": (1, 2.5), "--d": ""}) == ["--a", "x", "--c", "1", "2.5"]


@pytest.mark.parametrize(
    ("given", "forced"),
    [
        (["--cores", "1"], ["--cores", "1", "--forcerun", "a/maps"]),
        (["-R", "compartments", "--until", "fit"], ["-R", "a/maps", "compartments", "--until", "fit"]),
        (["--forcerun=fit"], ["--forcerun", "a/maps", "fit"]),
    ],
)
def test_what_the_user_forces_is_forced_too(given: list[str], forced: list[str]) -> None:
    assert forcing(given, ["a/maps"]) == forced
    assert forcing(given, []) == given


def test_profiles_are_folders_or_bundled_ones(tmp_path: Path) -> None:
    (tmp_path / "config.v8+.yaml").write_text("jobs: 3")
    assert profile_folder(str(tmp_path)) == str(tmp_path)
    assert (Path(profile_folder("slurm")) / "config.yaml").is_file()
    with pytest.raises(ValueError, match=r"'pbs' is no profile: .* one of slurm"):
        profile_folder("pbs")
