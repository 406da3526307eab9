"""Draw a panel off screen, to judge its layout.

The caption of the picture says "rendered with stand-in widgets", because Slicer's own widgets look a little different:
it is not a screenshot of Slicer.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).parents[1]
CAPTION = "{module} panel, rendered with stand-in widgets"
WIDTH = 440
"""Width of Slicer's module panel in pixels at normal resolution."""
SCALE = 2
"""Enlargement of the picture."""
MARGIN = 20
"""Empty space under the panel in pixels at normal resolution."""


def main() -> int:
    """Draw the panel of a module after some inputs have been chosen."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--module", choices=("CESTQuant", "JointRegSeg"), default="CESTQuant", help="whose panel")
    parser.add_argument("--method", default="lorentzian", help="method that is chosen in the panel of CESTQuant")
    parser.add_argument("--open", nargs="*", default=(), metavar="SECTION", help="closed sections to open")
    parser.add_argument("--only", nargs="*", default=(), metavar="SECTION", help="draw these sections alone")
    parser.add_argument("--all", action="store_true", help="write all pictures of the documentation into the folder")
    parser.add_argument("output", type=Path, help="picture to write (.png), or with --all a folder")
    options = parser.parse_args()
    output = options.output.resolve()
    if options.all:
        for name, arguments in PICTURES.items():
            command = [sys.executable, __file__, *arguments, "--", str(output / f"{name}.png")]
            subprocess.run(command, check=True)
        return 0
    os.environ["QT_SCALE_FACTOR"] = str(SCALE)
    sys.path[:0] = [str(REPOSITORY), str(REPOSITORY / "Testing")]
    import panel_host

    slicer = panel_host.start()
    panel_host.load_module(REPOSITORY / options.module / f"{options.module}.py")
    examples = {"CESTQuant": (CEST_NODES, _choose_cest), "JointRegSeg": (JOINT_NODES, _choose_joint)}
    nodes, choose = examples[options.module]
    for node_class, name in nodes:
        slicer.mrmlScene.AddNewNodeByClass(node_class, name)
    panel = slicer.util.getModuleWidget(options.module)
    panel.enter()
    with tempfile.TemporaryDirectory() as folder, slicer.util.chdir(folder):
        choose(panel, slicer, options)
        for name in options.open:
            getattr(panel.ui, name).collapsed = False
        for name, widget in vars(panel.ui).items():
            if options.only and name.endswith("Section") and name not in options.only:
                widget.visible = False
        picture = _with_caption(_grab(panel.parent, slicer), CAPTION.format(module=options.module))
    if not picture.save(str(output)):
        print(f"panel_picture: cannot write '{output}'", file=sys.stderr)
        return 1
    return 0


_RESULTS = ("spectrumSection", "outputsSection", "advancedSection")
PICTURES = {
    "panel": ("--module", "CESTQuant"),
    "panel_protocol": ("--open", "protocolSection", "--only", "inputsSection", "protocolSection"),
    "panel_import": ("--open", "importSection", "--only", "importSection"),
    "panel_preparation": (
        *("--open", "relaxationSection", "preparationSection"),
        *("--only", "mapsSection", "relaxationSection", "preparationSection"),
    ),
    "panel_pools": ("--method", "r1rho", "--only", "methodSection", "poolsSection"),
    "panel_fields": ("--open", "fieldsSection", "--only", "mapsSection", "fieldsSection"),
    "panel_results": ("--open", "advancedSection", "--only", *_RESULTS),
    "panel_training": ("--open", "trainingSection", "--only", "trainingSection"),
    "joint_panel": ("--module", "JointRegSeg"),
}
"""Arguments of the pictures in the documentation, by name."""
CEST_NODES = (
    ("vtkMRMLSequenceNode", "APT_CEST_3T"),
    ("vtkMRMLScalarVolumeNode", "M0"),
    ("vtkMRMLScalarVolumeNode", "B0 shift (WASABI)"),
    ("vtkMRMLScalarVolumeNode", "Relative B1 (WASABI)"),
    ("vtkMRMLLabelMapVolumeNode", "Brain mask"),
    ("vtkMRMLSegmentationNode", "Tumour"),
)
PROTOCOL = {
    "field_strength_T": 3.0,
    "offsets_ppm": [-300, *(step / 4 for step in range(-24, 25))],
    "b1_uT": 2.0,
    "saturation_type": "cw",
    "saturation_time_s": 2.0,
    "recovery_time_s": 3.5,
    "readout_flip_angle_deg": 90,
    "signal_normalisation": "m0",
    "m0_measurements": [1],
}
JOINT_NODES = (
    *(("vtkMRMLScalarVolumeNode", f"visit {v} {m}") for v in (1, 2) for m in ("T1", "T1 Gd", "T2", "FLAIR")),
    ("vtkMRMLLabelMapVolumeNode", "visit 1 brain"),
    ("vtkMRMLScalarVolumeNode", "visit 2 amide fraction"),
    ("vtkMRMLSegmentationNode", "visit 2 regions"),
)


def _choose_cest(panel: Any, slicer: Any, options: argparse.Namespace) -> None:
    ui = panel.ui
    ui.methodComboBox.currentIndex = ui.methodComboBox.findData(options.method)
    if panel.pools.kind() == "model":
        ui.modelPresetComboBox.currentIndex = ui.modelPresetComboBox.findData("white matter 3T")
        panel.pools.onPresetChosen(ui.modelPresetComboBox.currentIndex)
        ui.poolTable.setCurrentCell(1, 1)
    ui.protocolPathLineEdit.currentPath = _write("visit_1/protocol.json", json.dumps(PROTOCOL))
    if "importSection" in options.only:
        _import_study(ui)
    for selector, name in (
        (ui.referenceSelector, "M0"),
        (ui.maskSelector, "Brain mask"),
        (ui.b0Selector, "B0 shift (WASABI)"),
        (ui.b1Selector, "Relative B1 (WASABI)"),
        (ui.segmentationSelector, "Tumour"),
    ):
        selector.setCurrentNode(slicer.util.getNode(name))


def _import_study(ui: Any) -> None:
    """Import the CEST scan of a small ParaVision study, as a user does."""
    sys.path.append(str(REPOSITORY / "Testing" / "tests"))
    from paravision import stored_frames, write_scan

    off = {"PVM_MagTransOnOff": "Off", "Method": "<Bruker:RARE>"}
    write_scan(Path("mouse_study/2"), stored_frames(measurements=1), method=off)
    write_scan(Path("mouse_study/4"))
    ui.importSourcePathLineEdit.currentPath = "mouse_study"
    ui.findSeriesButton.click()
    ui.importButton.click()
    ui.openValuesTable.item(0, 0).setText("0.0065")


def _choose_joint(panel: Any, slicer: Any, options: argparse.Namespace) -> None:
    import qt

    ui = panel.ui
    ui.weightsPathLineEdit.currentPath = _write("networks/own_cohort.pt", "")
    for visit, which in ((1, "fixed"), (2, "moving")):
        for suffix, name in (("T1", "T1"), ("T1ce", "T1 Gd"), ("T2", "T2"), ("Flair", "FLAIR")):
            selector = getattr(ui, f"{which}{suffix}Selector")
            selector.setCurrentNode(slicer.util.getNode(f"visit {visit} {name}"))
    ui.fixedMaskSelector.setCurrentNode(slicer.util.getNode("visit 1 brain"))
    for name in ("visit 2 amide fraction", "visit 2 regions"):
        ui.carrySelector.setCheckState(slicer.util.getNode(name), qt.Qt.Checked)


def _write(path: str, text: str) -> str:
    """Make a file for the panel to find."""
    Path(path).parent.mkdir()
    Path(path).write_text(text)
    return path


def _grab(window: Any, slicer: Any) -> Any:
    slicer.app.processEvents()
    for _ in range(4):  # texts that wrap need more height than the layout says before it knows its width
        window.resize(WIDTH, max(window.minimumSizeHint.height(), window.layout().totalMinimumHeightForWidth(WIDTH)))
        slicer.app.processEvents()
    return _without_empty_end(window.grab())


def _without_empty_end(picture: Any) -> Any:
    """Cut the empty rows at the end, which a layout keeps of sections that are closed by now."""
    image = picture.toImage()
    background = image.pixel(0, image.height() - 1)

    def filled(row: int) -> bool:
        return any(image.pixel(column, row) != background for column in range(0, image.width(), 5))

    last = next((row for row in range(image.height() - 1, 0, -1) if filled(row)), image.height())
    return picture.copy(0, 0, image.width(), min(image.height(), last + MARGIN * SCALE))


def _with_caption(panel: Any, caption: str) -> Any:
    import qt

    height = 26 * SCALE
    picture = qt.QPixmap(panel.width(), panel.height() + height)
    picture.fill(qt.QColor("white"))
    painter = qt.QPainter(picture)
    panel.setDevicePixelRatio(1)
    painter.drawPixmap(0, 0, panel)
    font = painter.font()
    font.setPixelSize(11 * SCALE)
    font.setItalic(True)
    painter.setFont(font)
    painter.setPen(qt.QColor("#444444"))
    rectangle = qt.QRect(0, panel.height(), panel.width(), height)
    painter.drawText(rectangle, int(qt.Qt.AlignCenter), caption)
    painter.end()
    return picture


if __name__ == "__main__":
    sys.exit(main())
