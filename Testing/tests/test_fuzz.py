"""The short form of ``make fuzz``: some damaged files for every reader, and the judgement of what readers answer."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest
from fuzzing.mutations import mutate
from fuzzing.workers import is_sentence
from paths import ROOT

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="processes are forked and limited as on Linux")
READERS = 63


@pytest.mark.slow
def test_readers_read_or_refuse_damaged_files(tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / "Testing" / "fuzz.py"), "--seed", "20261128", "--workers", "1"]
    done = subprocess.run(
        [*command, "--quick", "--inputs", str(2 * READERS), "--output", str(tmp_path)],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["inputs"] == 2 * READERS
    assert len(summary["readers"]) == READERS
    assert summary["answers"]["refused"] > READERS
    assert summary["findings"] == []


@pytest.mark.parametrize("name", ["pools.yaml", "volume.nii", "volume.nrrd", "cohort.csv", "prep.seq"])
def test_the_same_seed_gives_the_same_variant(name: str) -> None:
    content = bytes(range(32, 127)) * 5 + b"\nsizes: 1 2 3\n\n" + bytes(100)
    first, second = (mutate(content, name, random.Random("1-reader-2")) for _ in range(2))
    assert first == second
    assert len({mutate(content, name, random.Random(f"1-reader-{number}")) for number in range(20)}) > 15


@pytest.mark.parametrize(
    ("answer", "good"),
    [
        ("{path}: water_pool: f must be positive", True),
        ("the manifest '{path}' is empty", True),
        ("water_pool: f must be positive", False),  # which file?
        ("{path}: 'NoneType' object is not iterable", False),
        ("{path}: invalid literal for int() with base 10: 'x'", False),
        ("{path}: damaged\nat line 3", False),
        ("{path}: the direction is [[ 1. 0.] [0. nan]], which is not usable", False),
        ("{path}: " + "x " * 400, False),
        ("{path}: no", False),
    ],
)
def test_an_answer_is_a_sentence_that_names_the_file(answer: str, good: bool, tmp_path: Path) -> None:
    path = tmp_path / "pools.yaml"
    assert is_sentence(answer.format(path=path), path) is good
