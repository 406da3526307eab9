"""Draw the pictures of the tutorial of JointRegSeg: its panel, and what the slice views show, off screen.

The sample data are registered by the panel as a user would do it. Panels are drawn with stand-in widgets, see
``panel_picture.py``; slice views by Slicer's own slice logic and displayable managers, see ``view_picture.py``.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import panel_picture
import view_picture

REPOSITORY = Path(__file__).parents[1]
SECTIONS = (
    *("fixedSection", "movingSection", "methodSection", "outputsSection", "compareSection", "predictSection"),
    "trainingSection",
)
SHOWN = "t1ce"
"""Modality that is compared."""
ALONE = ("fade", "flicker", "checkerboard", "difference", "jacobian", "grid")
BESIDE = ("side", "uncertainty")
"""Ways to compare that show one view, and two."""


def main() -> int:
    """Register the sample data in the panel and draw every step."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("output", type=Path, help="folder for the pictures")
    parser.add_argument("--scene", type=Path, help="scene (.mrb) with the results of a run, instead of a new run")
    options = parser.parse_args()
    output = options.output.resolve()
    os.environ["QT_SCALE_FACTOR"] = str(panel_picture.SCALE)
    sys.path[:0] = [str(REPOSITORY), str(REPOSITORY / "Testing")]
    import panel_host

    slicer = panel_host.start()
    panel_host.load_module(REPOSITORY / "JointRegSeg" / "JointRegSeg.py")
    panel = slicer.util.getModuleWidget("JointRegSeg")
    panel.enter()
    if slicer.mrmlScene.GetFirstNodeByClass("vtkMRMLLayoutNode") is None:
        slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLayoutNode")
    views = {tag: view_picture.SliceView(tag, "Axial") for tag in ("Red", "Yellow")}
    if options.scene:
        slicer.util.loadScene(str(options.scene))
    else:
        panel.logic.addPhantom()
        panel.studies.chooseByName()
        panel.ui.folderNameLineEdit.text = "two visits"
        panel.ui.applyButton.click()
    slicer.app.processEvents()
    _draw_panel(panel, slicer, output)
    _draw_views(panel, slicer, views, output)
    return 0


def _draw_panel(panel: Any, slicer: Any, output: Path) -> None:
    """Draw the sections of each step."""
    fixed = slicer.util.getNode(f"phantom visit 1 {_title()}")
    panel.parameters.comparedFixed = fixed
    panel.parameters.comparedWarped = slicer.util.getNode(f"{_title()} warped")
    panel.studies.chooseByName()
    steps = {
        "joint_inputs": ("fixedSection", "movingSection"),
        "joint_method": ("methodSection", "advancedSection", "outputsSection"),
        "joint_compare": ("compareSection",),
        "joint_training": ("trainingSection",),
    }
    for name, sections in steps.items():
        for section in (*SECTIONS, "advancedSection"):
            getattr(panel.ui, section).visible = section in sections
            getattr(panel.ui, section).collapsed = section not in sections
        caption = panel_picture.CAPTION.format(module="JointRegSeg")
        picture = panel_picture._with_caption(panel_picture._grab(panel.parent, slicer), caption)
        picture.save(str(output / f"{name}.png"))
        for section in sections:
            getattr(panel.ui, section).collapsed = section in ("advancedSection", "trainingSection")


def _draw_views(panel: Any, slicer: Any, views: dict[str, view_picture.SliceView], output: Path) -> None:
    """Draw the slice views of every way to compare, through the middle of the tumour."""
    from NeuroCESTLib.scene.segmentations import show_segmentation

    for visit in (1, 2):
        show_segmentation(slicer.util.getNode(f"phantom visit {visit} tumour"), False)  # the truth, not a result
    place = _middle_of_tumor(slicer)
    pictures: dict[str, Any] = {}
    for name in (*ALONE, *BESIDE):
        choices = panel.ui.compareModeComboBox
        choices.currentIndex = choices.findData(name)
        panel.compare.compare()
        slicer.app.processEvents()
        if name == "flicker":
            panel.compare.timer.stop()
            panel.compare.flicker()  # to the warped image
        for view in views.values():
            view.fit()
            view.node.JumpSliceByOffsetting(*place)
        shown = ("Red", "Yellow") if name in BESIDE else ("Red",)
        views["Yellow"].node.SetFieldOfView(*views["Red"].node.GetFieldOfView())  # as linked views have it
        pictures[name] = np.concatenate([views[tag].picture() for tag in shown], axis=1)
    rows = [[pictures[name] for name in names] for names in (ALONE[:3], ALONE[3:])]
    whole = np.concatenate([np.concatenate(row, axis=1) for row in rows])
    view_picture.save([np.ascontiguousarray(whole[::2, ::2])], output / "joint_views.png")
    beside = np.concatenate([pictures[name] for name in BESIDE])
    view_picture.save([beside], output / "joint_side_by_side.png")


def _title() -> str:
    from JointRegSegLib.images.modalities import TITLES

    return TITLES[SHOWN]


def _middle_of_tumor(slicer: Any) -> np.ndarray:
    """Middle of the fixed visit's tumour, right, anterior and superior in mm."""
    from NeuroCESTLib.scene.geometry import Geometry
    from NeuroCESTLib.scene.segmentations import masks_on

    grid = Geometry.of(slicer.util.getNode(f"phantom visit 1 {_title()}"))
    masks = masks_on(slicer.util.getNode("fixed segmentation"), grid)
    index = np.argwhere(np.any(list(masks.values()), axis=0)).mean(axis=0)[::-1]
    return (grid.ijk_to_ras @ np.append(index, 1.0))[:3]


if __name__ == "__main__":
    sys.exit(main())
