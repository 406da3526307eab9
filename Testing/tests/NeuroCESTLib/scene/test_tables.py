"""Tables of the scene as comma-separated files."""

from __future__ import annotations

import math
from pathlib import Path
from types import ModuleType

from NeuroCESTLib.scene.tables import add_table, table_columns, write_table


def test_a_table_is_written_with_a_header_and_the_wanted_digits(slicer: ModuleType, tmp_path: Path) -> None:
    columns = {
        "region": ["core, necrotic", "oedema"],
        "voxels": [12, 7],
        "volume_ml": [math.pi, math.nan],
    }
    node = add_table(columns, "volumes")
    assert table_columns(node)["voxels"] == [12, 7]
    path = write_table(node, tmp_path / "volumes.csv", digits=6)
    assert path.read_text() == 'region,voxels,volume_ml\n"core, necrotic",12,3.14159\noedema,7,nan\n'
