"""Table nodes, and CSV files of them."""

from __future__ import annotations

import math
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from NeuroCESTLib.scene.tables import add_table, read_table, table_columns, write_table
from NeuroCESTLib.scene.writing import write_node


def test_a_table_is_written_with_a_header_the_wanted_digits_and_empty_fields_for_nan(
    slicer: ModuleType, tmp_path: Path
) -> None:
    columns = {
        "region": ["core, necrotic", "oedema"],
        "voxels": [12, 7],
        "volume_ml": [math.pi, math.nan],
    }
    node = add_table(columns, "volumes")
    assert table_columns(node)["voxels"] == [12, 7]
    path = write_table(node, tmp_path / "volumes.csv", digits=6)
    assert path.read_text() == 'region,voxels,volume_ml\n"core, necrotic",12,3.14159\noedema,7,\n'


def test_tables_keep_names_types_and_nan(slicer: ModuleType, tmp_path: Path) -> None:
    columns = {"segment": ["tumour", "white, matter"], "mean": [1.25, float("nan")], "voxels": [12, 0]}
    write_node(add_table(columns, "roi"), tmp_path / "roi.csv")
    assert (tmp_path / "roi.csv").read_text().splitlines()[0] == '"segment","mean","voxels"'
    read = table_columns(read_table(tmp_path / "roi.csv"))
    assert read["segment"] == columns["segment"]
    assert read["voxels"] == [12, 0]
    np.testing.assert_array_equal(read["mean"], columns["mean"])


def test_columns_of_different_lengths_are_refused(slicer: ModuleType) -> None:
    with pytest.raises(ValueError, match="the columns of table 'bad' have different lengths: "):
        add_table({"a": [1], "b": [1, 2]}, "bad")
