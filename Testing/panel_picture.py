"""Draw the CESTQuant panel off screen: ``panel_picture.py OUT.png``.

The picture is captioned "rendered with stand-in widgets", because that is what it shows: Slicer's own
widgets look a little different. It serves to judge the layout, not as a screenshot of Slicer.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).parents[1]
CAPTION = "CESTQuant panel, rendered with stand-in widgets"
WIDTH = 440  # of Slicer's module panel, in pixels at normal resolution
SCALE = 2


def main() -> int:
    """Draw the panel with an acquisition chosen."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("output", type=Path, help="picture to write (.png)")
    output = parser.parse_args().output.resolve()
    os.environ["QT_SCALE_FACTOR"] = str(SCALE)
    sys.path[:0] = [str(REPOSITORY), str(REPOSITORY / "Testing")]
    import panel_host

    slicer = panel_host.start()
    panel_host.load_module(REPOSITORY / "CESTQuant" / "CESTQuant.py")
    _add_example_nodes(slicer)
    panel = slicer.util.getModuleWidget("CESTQuant")
    panel.enter()
    with tempfile.TemporaryDirectory() as folder, slicer.util.chdir(folder):
        protocol = Path("visit_1", "protocol.json")
        protocol.parent.mkdir()
        protocol.touch()
        _choose(panel.ui, slicer, str(protocol))
        picture = _with_caption(_grab(panel.parent, slicer))
    if not picture.save(str(output)):
        print(f"panel_picture: cannot write '{output}'", file=sys.stderr)
        return 1
    return 0


def _add_example_nodes(slicer: Any) -> None:
    for node_class, name in (
        ("vtkMRMLSequenceNode", "APT_CEST_3T"),
        ("vtkMRMLScalarVolumeNode", "M0"),
        ("vtkMRMLScalarVolumeNode", "B0 shift (WASABI)"),
        ("vtkMRMLScalarVolumeNode", "Relative B1 (WASABI)"),
        ("vtkMRMLLabelMapVolumeNode", "Brain mask"),
        ("vtkMRMLSegmentationNode", "Tumour"),
    ):
        slicer.mrmlScene.AddNewNodeByClass(node_class, name)


def _choose(ui: Any, slicer: Any, protocol: str) -> None:
    ui.protocolPathLineEdit.currentPath = protocol
    for selector, name in (
        (ui.referenceSelector, "M0"),
        (ui.maskSelector, "Brain mask"),
        (ui.b0Selector, "B0 shift (WASABI)"),
        (ui.b1Selector, "Relative B1 (WASABI)"),
        (ui.segmentationSelector, "Tumour"),
    ):
        selector.setCurrentNode(slicer.util.getNode(name))


def _grab(window: Any, slicer: Any) -> Any:
    slicer.app.processEvents()
    window.resize(WIDTH, window.minimumSizeHint.height())
    return window.grab()


def _with_caption(panel: Any) -> Any:
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
    painter.drawText(rectangle, int(qt.Qt.AlignCenter), CAPTION)
    painter.end()
    return picture


if __name__ == "__main__":
    sys.exit(main())
