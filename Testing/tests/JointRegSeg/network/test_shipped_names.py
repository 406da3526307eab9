"""Names of the weights of the package, and paths of others."""

from __future__ import annotations

from pathlib import Path

import pytest

from JointRegSegLib.multitask.shipped import SHIPPED as OF_SINGLE_STUDIES
from JointRegSegLib.multitask.shipped import weights_file
from JointRegSegLib.multitask.weights import load_study_weights
from JointRegSegLib.network.shipped import FOLDER, SHIPPED, default_weights_path, weights_path
from JointRegSegLib.network.weights import load_weights


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


@pytest.mark.parametrize("name", OF_SINGLE_STUDIES)
def test_weights_of_the_package_for_single_studies_are_referred_to_predict(name: str):
    with pytest.raises(ValueError, match=rf"{name}\.pt' holds .* use 'jointregseg predict' with it"):
        load_weights(weights_path(name))


@pytest.mark.parametrize("name", SHIPPED)
def test_weights_of_the_package_that_segment_are_referred_to_segment_and_apply(name: str):
    with pytest.raises(ValueError, match=rf"{name}\.pt' holds .* use 'jointregseg segment' or"):
        load_study_weights(weights_file(name))
