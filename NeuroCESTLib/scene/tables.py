"""Table nodes with one column for each quantity, and CSV files of them."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from NeuroCESTLib.core.whole_files import write_csv
from NeuroCESTLib.scene.image_files import existing_file
from NeuroCESTLib.scene.volumes import load


def add_table(columns: Mapping[str, Sequence[Any]], name: str) -> Any:
    """Add a table node to the scene.

    Args:
        columns: Values of each column by its title: numbers or texts, all columns of the same length.
        name: Name of the node.

    Returns:
        The table node.

    Raises:
        ValueError: The columns have different lengths.
    """
    import slicer
    import vtk

    lengths = {title: len(values) for title, values in columns.items()}
    if len(set(lengths.values())) > 1:
        raise ValueError(f"the columns of table '{name}' have different lengths: {lengths}")
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLTableNode", name)
    node.SetUseColumnTitleAsColumnHeader(True)
    for title, values in columns.items():
        array = np.asarray(values)
        if array.dtype.kind in "iu":
            column = vtk.vtkIntArray()
        elif array.dtype.kind in "fb":
            column = vtk.vtkDoubleArray()
        else:
            column = vtk.vtkStringArray()
        column.SetName(title)
        for value in array.tolist():
            column.InsertNextValue(value)
        node.AddColumn(column)
        node.SetColumnProperty(title, "title", title)
    return node


def table_columns(node: Any) -> dict[str, list[Any]]:
    """Return the columns of a table node by title, as lists of numbers or texts."""
    table = node.GetTable()
    columns = {}
    for i in range(table.GetNumberOfColumns()):
        column = table.GetColumn(i)
        columns[column.GetName()] = [column.GetValue(row) for row in range(column.GetNumberOfValues())]
    return columns


def write_table(node: Any, path: str | os.PathLike, digits: int = 8) -> Path:
    """Write a table node as a comma-separated file with a header line, whole or not at all.

    A number that is NaN is an empty field.

    Args:
        node: Table node.
        path: File to write (``.csv``).
        digits: Significant digits of numbers that are not integers.

    Returns:
        The path of the file.

    Raises:
        ValueError: The file cannot be written; the message names it.
    """
    columns = table_columns(node)
    rows = ([_field(value, digits) for value in row] for row in zip(*columns.values(), strict=True))
    return write_csv(list(columns), rows, path)


def _field(value: Any, digits: int) -> Any:
    if not isinstance(value, float):
        return value
    return "" if math.isnan(value) else f"{value:.{digits}g}"


def read_table(path: str | os.PathLike) -> Any:
    """Read a ``.csv`` or ``.tsv`` file into the scene as a table node.

    Raises:
        ValueError: The file is missing or cannot be read.
    """
    return load(existing_file(path), "TableFile", {})
