"""How well the panels follow their user: the time for which no event is handled, the live spectrum, the sample data.

Both panels run in the panel host with their sample data, and every kind of work is started by its button. A timer of Qt
notes whenever events are handled. The longest time between two of its calls is told as wall time and as processor time
of the main thread: on a machine that others use, only the second one belongs to the panel. Work that takes longer than
``--limit`` is cancelled, as by a click, and the time until it has stopped is told.
"""

from __future__ import annotations

import argparse
import itertools
import os
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")

import libraries

sys.path.append(str(libraries.ROOT / "Testing"))

TARGET_S = 0.5
"""Longest time without events that the panels may have, in s."""
MOVES = 200
"""Movements of the mouse of which the rate is told."""
FITS = 10
"""Fits of single voxels of which the time is told."""


class Watch:
    """Watches how often events are handled.

    Args:
        cancel: Function that cancels the work.
        limit_s: Processor time in s after which it is called.
    """

    def __init__(self, cancel: Callable[[], object], limit_s: float) -> None:
        import qt

        self._cancel, self._limit_s = cancel, limit_s
        self.longest = 0.0
        self._timer = qt.QTimer()
        self._timer.setInterval(0)
        self._timer.connect("timeout()", self._note)

    def during(self, name: str, work: Callable[[], object]) -> None:
        """Do some work and print how long it took, in all and at most without events."""
        self._processor, self._wall = [time.thread_time()], [time.perf_counter()]
        self._cancelled: float | None = None
        self._begin = time.process_time()
        self._timer.start()
        failed = ""
        try:
            work()
        except ValueError as error:  # what a method lacks
            failed = f"  {error}"
        self._note(cancels=False)
        self._timer.stop()
        gaps = [max(b - a for a, b in itertools.pairwise(t)) for t in (self._processor, self._wall)]
        self.longest = max(self.longest, gaps[0])
        stopped = (
            ""
            if self._cancelled is None
            else f"  stopped {time.process_time() - self._cancelled:.2f} s of processor time after Cancel"
        )
        print(
            f"{name:44s} {gaps[0]:6.2f} {gaps[1]:6.2f} {self._wall[-1] - self._wall[0]:8.1f} "
            f"{time.process_time() - self._begin:8.1f}{stopped}{failed}",
            flush=True,
        )

    def _note(self, *, cancels: bool = True) -> None:
        self._processor.append(time.thread_time())
        self._wall.append(time.perf_counter())
        if cancels and self._cancelled is None and time.process_time() - self._begin > self._limit_s:
            self._cancelled = time.process_time()
            self._cancel()


def heading(title: str) -> None:
    """Print the head of a table."""
    print(f"\n{title:44s} {'longest without events':>13s} {'in all (s)':>18s}")
    print(f"{'':44s} {'proc.':>6s} {'wall':>6s} {'wall':>8s} {'proc.':>8s}")


def watch_of(panel: Any, limit_s: float) -> Watch:
    """Return the watch of a panel, which cancels with its button."""
    return Watch(panel.ui.cancelButton.click, limit_s)


def choose(choices: Any, data: str) -> None:
    """Choose an entry of a combo box."""
    choices.currentIndex = choices.findData(data)


def cestquant(panel_host: Any, slicer: Any, limit_s: float) -> float:
    """Measure the panel of CESTQuant and return its longest time without events, in s of processor time."""
    module = panel_host.load_module(libraries.ROOT / "CESTQuant" / "CESTQuant.py")
    panel = slicer.util.getModuleWidget("CESTQuant")
    watch = watch_of(panel, limit_s)
    heading("CESTQuant")
    watch.during("sample phantom, with the libraries", module.addSamplePhantom)
    slicer.mrmlScene.Clear()
    watch.during("sample phantom, again", module.addSamplePhantom)
    watch.during("open the module", panel.enter)
    from CESTQuantLib.methods.registry import METHODS

    ui, parameters = panel.ui, panel.parameters
    ui.powerSpinBox.value = 1.0
    for method in METHODS.values():
        choose(ui.methodComboBox, method.name)
        if panel.pools.kind() == "model":
            choose(ui.modelPresetComboBox, "digital phantom 3T")
            panel.pools.onPresetChosen(ui.modelPresetComboBox.currentIndex)
        if missing := panel.missingInputs():
            print(f"{method.name:44s} {missing[0]}")
            continue
        watch.during(f"Apply: {method.name}", ui.applyButton.click)
    choose(ui.methodComboBox, "r1rho")
    watch.during("Preview: r1rho", ui.previewButton.click)
    parameters.posterior = True
    watch.during("Apply: r1rho with posterior", ui.applyButton.click)
    parameters.posterior = False
    choose(ui.methodComboBox, "lorentzian")
    for name in ("spatialPrior", "denoising", "motionCorrection"):
        setattr(parameters, name, True)
        watch.during(f"Apply: lorentzian with {name}", ui.applyButton.click)
        setattr(parameters, name, False)
    parameters.visitMap = slicer.util.getNode("water_amplitude")
    parameters.visitSegmentation = parameters.segmentation
    watch.during("Compartments", ui.compartmentsButton.click)
    _live_spectrum(panel, slicer)
    panel.exit()
    return watch.longest


def _live_spectrum(panel: Any, slicer: Any) -> None:
    """Tell how fast the spectrum follows the mouse, and how long the fit of a voxel takes."""
    import numpy as np

    from NeuroCESTLib.scene.geometry import Geometry

    grid = Geometry.of(panel.parameters.reference)
    crosshair = slicer.mrmlScene.GetFirstNodeByClass("vtkMRMLCrosshairNode")
    generator = np.random.default_rng(1)

    def move() -> None:
        voxel = generator.integers((14, 16, 1), (34, 40, 2), 3)
        crosshair.SetCursorPositionRAS((grid.ijk_to_ras @ (*voxel, 1.0))[:3])

    print()
    for method in ("lorentzian", "r1rho", "bloch-mcconnell"):
        choose(panel.ui.methodComboBox, method)
        panel.ui.liveSpectrumCheckBox.checked = True
        move()
        begin = time.process_time()
        for _ in range(MOVES):
            move()
        rate = MOVES / (time.process_time() - begin)
        times = []
        for number in range(FITS + 1):
            move()
            begin = time.process_time()
            panel.spectrum.live.fit()
            if number:  # the first one compiles and loads
                times.append(time.process_time() - begin)
        panel.ui.liveSpectrumCheckBox.checked = False
        print(
            f"live spectrum, {method}: {rate:.0f} updates a second of processor time; fit of a voxel "
            f"{1e3 * statistics.median(times):.0f} ms (longest {1e3 * max(times):.0f} ms)",
            flush=True,
        )


def jointregseg(panel_host: Any, slicer: Any, limit_s: float) -> float:
    """Measure the panel of JointRegSeg and return its longest time without events, in s of processor time."""
    module = panel_host.load_module(libraries.ROOT / "JointRegSeg" / "JointRegSeg.py")
    slicer.mrmlScene.Clear()
    panel = slicer.util.getModuleWidget("JointRegSeg")
    watch = watch_of(panel, limit_s)
    heading("JointRegSeg")
    watch.during("sample phantom", module.addSamplePhantom)
    watch.during("open the module", panel.enter)
    ui = panel.ui
    if slicer.mrmlScene.GetFirstNodeByClass("vtkMRMLLayoutNode") is None:
        slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLayoutNode")
    panel.studies.chooseByName()
    panel.parameters.flips = False
    watch.during("Apply: segment and register", ui.applyButton.click)
    if ui.updateButton.enabled:
        watch.during("Update from corrected segmentations", ui.updateButton.click)
    choices = ui.compareModeComboBox
    for number in range(choices.count):
        name = choices.itemData(number)
        watch.during(f"Compare: {name}", lambda number=number: setattr(choices, "currentIndex", number))
    panel.exit()
    return watch.longest


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--limit", type=float, default=60.0, help="processor time in s after which work is cancelled")
    parser.add_argument("--module", choices=("CESTQuant", "JointRegSeg"), help="one panel alone")
    options = parser.parse_args()
    import panel_host

    slicer = panel_host.start()
    longest = [
        measure(panel_host, slicer, options.limit)
        for name, measure in (("CESTQuant", cestquant), ("JointRegSeg", jointregseg))
        if options.module in (None, name)
    ]
    print(f"\nlongest time without events: {max(longest):.2f} s of processor time (target {TARGET_S} s)")
    return 0


if __name__ == "__main__":
    sys.exit(main())
