"""Which nodes go with an acquisition, by their names."""

from __future__ import annotations

from types import ModuleType

import pytest

from CESTQuantLib.scene.naming import inputs_by_name

VOLUME, LABELS, SEGMENTATION = "vtkMRMLScalarVolumeNode", "vtkMRMLLabelMapVolumeNode", "vtkMRMLSegmentationNode"


@pytest.mark.parametrize(
    ("signal", "nodes", "expected"),
    [
        (
            "CEST phantom",
            [
                ("CEST phantom M0", VOLUME),
                ("CEST phantom B0", VOLUME),
                ("CEST phantom B1", VOLUME),
                ("CEST phantom T1", VOLUME),
                ("CEST phantom mask", LABELS),
                ("CEST phantom regions", SEGMENTATION),
            ],
            {"reference": 0, "b0": 1, "b1": 2, "t1": 3, "mask": 4, "segmentation": 5},
        ),
        ("cest", [("m0", VOLUME), ("B0_map", VOLUME), ("T1 map", VOLUME)], {"reference": 0, "b0": 1, "t1": 2}),
        ("cest", [("T1", VOLUME), ("t1_mprage", VOLUME)], {}),  # T1-weighted images
        ("visit 2", [("visit 1 M0", VOLUME), ("visit 2 M0", VOLUME)], {"reference": 1}),
        ("cest", [("b1", VOLUME), ("B1", VOLUME)], {}),  # which of them?
        ("cest", [("mask", VOLUME), ("m0", LABELS)], {}),  # of the wrong kind
        ("cest", [("amide b0 corrected", VOLUME)], {}),
    ],
)
def test_nodes_are_recognised_by_their_names(
    slicer: ModuleType, signal: str, nodes: list[tuple[str, str]], expected: dict[str, int]
) -> None:
    sequence = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSequenceNode", signal)
    added = [slicer.mrmlScene.AddNewNodeByClass(kind, name) for name, kind in nodes]
    assert inputs_by_name(sequence) == {role: added[number] for role, number in expected.items()}
