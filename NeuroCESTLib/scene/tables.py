"""Table nodes: one column a quantity."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from NeuroCESTLib.scene.image_files import existing_file
from NeuroCESTLib.scene.volumes import load


def add_table(columns: Mapping[str, Sequence[Any]], name: str) -> Any:
    """New table node with the given columns: numbers or texts, all of one length.

    Raises:
        ValueError: columns of different lengths.
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


def table_columns(node: Any) -> dict[str, list]:
    """Columns of a table node by name: lists of numbers or texts."""
    table = node.GetTable()
    columns = {}
    for i in range(table.GetNumberOfColumns()):
        column = table.GetColumn(i)
        columns[column.GetName()] = [column.GetValue(row) for row in range(column.GetNumberOfValues())]
    return columns


def read_table(path: str | os.PathLike) -> Any:
    """Read a ``.csv`` or ``.tsv`` file as a table node.

    Raises:
        ValueError: the file is missing or cannot be read.
    """
    return load(existing_file(path), "TableFile", {})
