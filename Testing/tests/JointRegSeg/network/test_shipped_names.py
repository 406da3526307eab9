"""Names of the weights of the package, and paths of others."""

from __future__ import annotations

from pathlib import Path

import pytest

from JointRegSegLib.network.shipped import FOLDER, SHIPPED, default_weights_path, weights_path


def test_names_stand_for_files_of_the_package():
    assert weights_path(None) == weights_path("default") == weights_path("neurocest") == default_weights_path()
    for name in SHIPPED:
        assert weights_path(name) == FOLDER / f"{name}.pt"
        assert weights_path(name).with_suffix(".md").is_file()


def test_paths_stay_paths_even_with_the_name_of_weights_of_the_package():
    for path in ("./neurocest", "run/neurocest.pt", "weights.pt"):
        assert weights_path(path) == Path(path)


def test_an_unknown_name_is_refused_with_the_known_ones():
    with pytest.raises(ValueError, match=r"there are no weights 'neurocset': .*'neurocest' \(necrotic core"):
        weights_path("neurocset")
