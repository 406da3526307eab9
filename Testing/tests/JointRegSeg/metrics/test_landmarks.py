"""Landmark files of every kind become LPS coordinates, and errors are distances in mm."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import pytest
import SimpleITK as sitk
import vtk

from JointRegSegLib.metrics.landmarks import Landmarks, landmark_errors, read_landmarks


@pytest.mark.parametrize(
    "text",
    [
        "name,x,y,z\na,1,2,3\nb,4,5,6\n",
        "name;x;y;z\na;1;2;3\nb;4;5;6\n",
        "name\tx\ty\tz\na\t1\t2\t3\nb\t4\t5\t6\n",
        "label,r,a,s\na,-1,-2,3\nb,-4,-5,6\n",
        "label,l,p,s\na,1,2,3\nb,4,5,6\n",
        "id,x,y,z\na,1,2,3\nb,4,5,6\n",
        "Landmark_ID,x,y,z\na,1,2,3\nb,4,5,6\n",
        "x,y,z,Point\n1,2,3,a\n4,5,6,b\n",
        "# Markups fiducial file version = 5.6\n# CoordinateSystem = RAS\n"
        "# columns = id,x,y,z,ow,ox,oy,oz,vis,sel,lock,label,desc\n"
        "1,-1,-2,3,0,0,0,1,1,1,0,a,\n2,-4,-5,6,0,0,0,1,1,1,0,b,\n",
        "# CoordinateSystem = 1\n# columns = id,x,y,z,ow,ox,oy,oz,vis,sel,lock,label\n1,1,2,3,0,0,0,1,1,1,0,a\n"
        "2,4,5,6,0,0,0,1,1,1,0,b\n",
    ],
)
def test_landmarks_of_any_file_are_converted_to_lps(tmp_path: Path, text: str) -> None:
    (tmp_path / "points.csv").write_text(text)
    assert read_landmarks(tmp_path / "points.csv").points == {"a": (1, 2, 3), "b": (4, 5, 6)}


@pytest.mark.parametrize("written_by", ["storage node", "table"])
def test_points_of_slicer_without_a_position_are_left_out(slicer: ModuleType, tmp_path: Path, written_by: str) -> None:
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLMarkupsFiducialNode", "P")
    for number in range(4):
        node.AddControlPoint(vtk.vtkVector3d(10 * number, 2, 3), f"p{number}")
    node.UnsetNthControlPointPosition(1)
    node.SetNthControlPointPositionMissing(3)
    if written_by == "table":
        file = tmp_path / "points.csv"
        assert slicer.vtkSlicerMarkupsLogic().ExportControlPointsToCSV(node, str(file))
    else:
        file = tmp_path / "points.fcsv"
        storage = slicer.vtkMRMLMarkupsFiducialStorageNode()
        storage.SetFileName(str(file))
        assert storage.WriteData(node)
    assert read_landmarks(file).points == {"p0": (0, -2, 3), "p2": (-20, -2, 3)}


def test_a_file_of_points_without_a_position_has_no_landmark(tmp_path: Path) -> None:
    (tmp_path / "points.csv").write_text("label,l,p,s,defined\na,,,,0\n")
    with pytest.raises(ValueError, match="no point"):
        read_landmarks(tmp_path / "points.csv")


def test_landmarks_without_names_are_numbered(tmp_path: Path) -> None:
    (tmp_path / "points.csv").write_text("x,y,z\n1,2,3\n4,5,6\n")
    assert list(read_landmarks(tmp_path / "points.csv").points) == ["1", "2"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a,b,c\n1,2,3\n", "columns x, y, z"),
        ("x,y,z\n1,2\n", "row 1"),
        ("x,y,z\n1,2,nan\n", "not finite"),
        ("name,x,y,z\na,1,2,3\na,1,2,3\n", "'a' occurs twice"),
        ("x,y,z\n", "no point"),
        ("", "columns x, y, z"),
        ("# CoordinateSystem = IJK\nx,y,z\n1,2,3\n", "'IJK'"),
    ],
)
def test_the_message_names_an_unusable_file(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "points.csv").write_text(text)
    with pytest.raises(ValueError, match=words) as error:
        read_landmarks(tmp_path / "points.csv")
    assert "points.csv" in str(error.value)
    with pytest.raises(ValueError, match=r"none\.csv"):
        read_landmarks(tmp_path / "none.csv")


def test_errors_compare_mapped_fixed_landmarks_with_moving_ones() -> None:
    fixed = Landmarks({"a": (1, 0, 0), "b": (0, 2, 0), "only here": (9, 9, 9)})
    moving = Landmarks({"b": (0, 2, 7), "a": (1, 0, 3)})
    assert landmark_errors(fixed, moving, None) == pytest.approx([3, 7])
    shift = sitk.TranslationTransform(3, (0, 0, 3.0))
    assert landmark_errors(fixed, moving, shift) == pytest.approx([0, 4])
    with pytest.raises(ValueError, match="no name in common"):
        landmark_errors(fixed, Landmarks({"c": (0, 0, 0)}), None)


def test_landmarks_without_names_are_matched_only_where_both_files_have_as_many_rows(tmp_path: Path) -> None:
    texts = {
        "three": "x,y,z\n0,0,0\n10,0,0\n20,0,0\n",
        "two": "x,y,z\n10,0,0\n20,0,0\n",
        "missing": "x,y,z,defined\n0,0,3,1\n10,0,3,0\n20,0,3,1\n",
        "named": "id,x,y,z\n1,0,0,0\n2,10,0,0\n",
    }
    points = {}
    for name, text in texts.items():
        (tmp_path / f"{name}.csv").write_text(text)
        points[name] = read_landmarks(tmp_path / f"{name}.csv")
    assert landmark_errors(points["three"], points["missing"], None) == pytest.approx([3, 3])
    with pytest.raises(ValueError, match=r"three.csv' and '.*two.csv' cannot be matched: 3 rows .* 2 rows .* name the"):
        landmark_errors(points["three"], points["two"], None)
    with pytest.raises(ValueError, match="3 rows without names and 2 points with names"):
        landmark_errors(points["three"], points["named"], None)


def _errors(folder: Path, fixed: str, moving: str) -> list[float]:
    (folder / "fixed.csv").write_text(fixed)
    (folder / "moving.csv").write_text(moving)
    return landmark_errors(read_landmarks(folder / "fixed.csv"), read_landmarks(folder / "moving.csv"), None).tolist()


def test_a_point_without_a_name_is_left_out_where_others_have_one(tmp_path: Path) -> None:
    fixed, moving = "name,x,y,z\na,0,0,0\nb,5,0,0\n", "name,x,y,z\n,9,9,9\na,0,0,3\nb,5,0,4\n"
    assert _errors(tmp_path, fixed, moving) == [3, 4]
    with pytest.raises(ValueError, match="3 rows without names and 2 points with names"):
        _errors(tmp_path, "x,y,z\n9,9,9\n0,0,0\n5,0,0\n", moving)


@pytest.mark.parametrize(
    ("fixed", "moving"),
    [("PPP", "PPP"), ("abc", "def"), ("PPP", "abc"), ("012", "   "), ("123", "   "), ("   ", "123")],
)
def test_the_rows_match_landmarks_whose_ids_are_no_names(tmp_path: Path, fixed: str, moving: str) -> None:
    files = [
        "id,x,y,z\n" + "".join(f"{key.strip()},{10 * row},0,{z}\n" for row, key in enumerate(keys))
        for keys, z in ((fixed, 0), (moving, 3))
    ]
    assert _errors(tmp_path, *files) == [3, 3, 3]


@pytest.mark.parametrize("column", ["name", "id"])
def test_names_that_are_the_numbers_of_the_rows_match_a_file_without_names(tmp_path: Path, column: str) -> None:
    numbered = f"{column},x,y,z\n2,10,0,0\n1,0,0,0\n"
    assert _errors(tmp_path, numbered, "x,y,z\n0,0,3\n10,0,4\n") == [4, 3]


def test_ids_that_both_files_have_match_the_points_in_any_order(tmp_path: Path) -> None:
    assert _errors(tmp_path, "id,x,y,z\nu,0,0,0\nv,5,0,0\n", "id,x,y,z\nw,9,9,9\nv,5,0,4\nu,0,0,3\n") == [3, 4]
    with pytest.raises(ValueError, match="no name in common"):
        _errors(tmp_path, "id,x,y,z\nu,0,0,0\nv,5,0,0\n", "id,x,y,z\nw,0,0,0\n")
