"""YAML files are read as plain values; what repeats, nests or hides code is refused by name."""

from __future__ import annotations

from pathlib import Path

import pytest

from NeuroCESTLib.core.checked_yaml import read_yaml


def written(folder: Path, text: str) -> Path:
    path = folder / "pools.yaml"
    path.write_text(text)
    return path


def test_plain_values_and_aliases_are_read(tmp_path: Path) -> None:
    text = "water: &w {f: 1, t1: 1.5}\nother: *w\nmerged: {<<: *w, t1: 2}\nlist: [a, 1, null]\n"
    assert read_yaml(written(tmp_path, text)) == {
        "water": {"f": 1, "t1": 1.5},
        "other": {"f": 1, "t1": 1.5},
        "merged": {"f": 1, "t1": 2},
        "list": ["a", 1, None],
    }
    assert read_yaml(written(tmp_path, "")) is None


BOMB = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{new}: &{new} [{','.join([f'*{old}'] * 9)}]\n" for old, new in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (BOMB, "repeat without end"),
        ("&a [*a]", "contain themselves"),
        ("a: &a {b: *a}", "contain themselves"),
        ("[" * 100_000, "not a readable YAML file"),
        ("[" * 900 + "]" * 900, "nested more than 50 levels deep"),
        ("x: " + "y" * 300_000, "longer than 0.3 MB"),
        ("f: 1\nk: 2\nf: 3\n", r"the key 'f' occurs twice \(again in line 3\)"),
        ("a: {b: 1, b: 2}", "the key 'b' occurs twice"),
        ("a: !!python/object/apply:os.getcwd []", "not a readable YAML file"),
        ("? [a]\n: 1", "a list or mapping as a key"),
        ("a: 2001-99-99", "a date, number or key that cannot be read"),
    ],
    ids=lambda value: value[:20],
)
def test_everything_else_is_refused_in_one_sentence(text: str, words: str, tmp_path: Path) -> None:
    path = written(tmp_path, text)
    with pytest.raises(ValueError, match=words) as caught:
        read_yaml(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert len(str(caught.value)) < len(str(path)) + 200
