"""Cancel runs of the modules' logic at random moments, and watch the memory of repeated ones.

The progress callback of a run raises at the n-th call, which a seed draws; the kind of exception changes from run to
run. Afterwards every node, with its values and attributes, the selection, the layouts, the subject hierarchy and the
threads are as before. Last, a small fit is run many times, and the memory that the process holds must not grow.

    python Testing/reliability/cancel.py [--moments 200] [--fits 100] [--seed 1]
"""

from __future__ import annotations

import argparse
import gc
import os
import re
import sys
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
for _folder in (ROOT / "Testing" / "tests", ROOT / "CESTQuant", ROOT / "JointRegSeg", ROOT):
    if str(_folder) not in sys.path:
        sys.path.insert(0, str(_folder))

UNSEEN = re.compile(
    r"^\s*(Modified Time|.*MTime): .*\n|^\s*\w+( \[\w+\])?: \(none\)\n|0x[0-9a-f]+|\(\d+ bytes\)", re.MULTILINE
)
"""What a description of a node says about times, addresses and empty references; MRML may list the last ones late."""
WATCHED = ("vtkMRMLSelectionNode", "vtkMRMLInteractionNode", "vtkMRMLLayoutNode", "vtkMRMLSliceCompositeNode")
"""Nodes that stand for what the user sees and has chosen; they are compared in full."""

Run = Callable[[Callable[..., None]], object]
"""A run of the logic that takes a progress callback."""


def state(slicer: ModuleType) -> dict[str, Any]:
    """Describe all of the scene that a user would notice, and the threads of the process."""
    from joint_studies import scene_contents

    from NeuroCESTLib.scene.sequences import sequence_to_array

    found: dict[str, Any] = dict(scene_contents(slicer))
    for index in range(slicer.mrmlScene.GetNumberOfNodes()):
        node = slicer.mrmlScene.GetNthNode(index)
        attributes = {name: node.GetAttribute(name) for name in node.GetAttributeNames()}
        found[f"attributes of {node.GetID()}"] = attributes
        if node.IsA("vtkMRMLSequenceNode"):
            found[f"values of {node.GetID()}"] = hash(sequence_to_array(node)[0].tobytes())
        if any(node.IsA(kind) for kind in WATCHED):
            found[f"text of {node.GetID()}"] = UNSEEN.sub("", str(node))
    found["threads"] = threading.active_count()
    return found


def changes(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    """Return what differs between two states, by name."""
    return [name for name in sorted(before.keys() | after.keys()) if before.get(name) != after.get(name)]


def calls_of(run: Run) -> int:
    """Return how often an undisturbed run calls back."""
    count = 0

    def progress(fraction: float, message: str = "") -> None:
        nonlocal count
        count += 1

    run(progress)
    return count


def cancelled(run: Run, at: int, error: type[BaseException]) -> bool:
    """Raise at a call of the progress callback; returns whether the run ended with that very exception."""
    left = at

    def progress(fraction: float, message: str = "") -> None:
        nonlocal left
        left -= 1
        if left == 0:
            raise error

    try:
        run(progress)
    except error:
        return True
    return False


def cancel_at_random(slicer: ModuleType, runs: dict[str, Run], moments: int, seed: int) -> list[str]:
    """Cancel every run in turn.

    Args:
        slicer: The host.
        runs: Runs by name; each adds its results to the scene where nothing stops it.
        moments: Number of cancelled runs in all.
        seed: Seed of the moments.

    Returns:
        What was wrong, in sentences.
    """
    from NeuroCESTLib.core.progress import Cancelled

    errors = (Cancelled, KeyboardInterrupt, SystemExit, ZeroDivisionError, StopIteration, GeneratorExit, OSError)
    random = np.random.default_rng(seed)
    counts = {name: calls_of(run) for name, run in runs.items()}
    before, problems = state(slicer), list[str]()
    for number in range(moments):
        name, error = list(runs)[number % len(runs)], errors[number // len(runs) % len(errors)]
        at = int(random.integers(1, counts[name] + 1))
        where = f"{name}, {error.__name__} at call {at} of {counts[name]}"
        if not cancelled(runs[name], at, error):
            problems.append(f"{where}: the run went on")
        after = state(slicer)
        if different := changes(before, after):
            problems.append(f"{where}: changed {', '.join(different)}")
            before = after
    return problems


def cest_runs() -> dict[str, Run]:
    """Add a small acquisition to the scene; returns fits of it."""
    from studies import acquire, amine_model, spectrum_protocol

    from CESTQuantLib.logic import CESTQuantLogic
    from NeuroCESTLib.scene.segmentations import add_segmentation
    from NeuroCESTLib.scene.sequences import array_to_sequence
    from NeuroCESTLib.scene.volumes import add_volume

    data = acquire(spectrum_protocol(count=21))
    grid = data.geometry
    signal = array_to_sequence(data.signal, grid, "cest", data.protocol.offsets_ppm.numpy())
    half = np.zeros(grid.shape, bool)
    half[:2] = True
    inputs = {
        "reference": add_volume(data.m0, grid, "m0"),
        "segmentation": add_segmentation({"half": half}, grid, "regions"),
        "t1": add_volume(data.maps["t1"], grid, "t1"),
        "device": "cpu",
    }

    def fit(method: str, **more: Any) -> Run:
        return lambda progress: CESTQuantLogic().fit(
            signal, data.protocol, method=method, progress=progress, **inputs, **more
        )

    return {"fit mtr-rex": fit("mtr-rex"), "fit r1rho": fit("r1rho", model=amine_model())}


def joint_runs(folder: Path) -> dict[str, Run]:
    """Add two small visits to the scene; returns a segmentation of one and a registration of both."""
    from joint_studies import HeadStudy, small_weights

    from JointRegSegLib.logic import JointRegSegLogic

    weights = {name: small_weights(folder / f"{name}.pt", segmentation=name == "both") for name in ("both", "one")}
    spacing_mm = (8.0, 8.0, 8.0)
    first = HeadStudy.of("left-handed oblique", spacing_mm=spacing_mm).nodes("first")
    second = HeadStudy.of("LPS", second=True, spacing_mm=spacing_mm).nodes("second")
    options: dict[str, Any] = {"flips": False, "device": "cpu"}

    def segment(progress: Callable[..., None]) -> object:
        return JointRegSegLogic().segment(first, weights=weights["both"], progress=progress, **options)

    def process(progress: Callable[..., None]) -> object:
        settings = {"weights": weights["one"], "affine": "none", "refine": 2, **options}
        return JointRegSegLogic().process(first, second, progress=progress, **settings)

    return {"segment": segment, "process": process}


def resident_mb() -> float:
    """Return the memory that this process holds, in MB (Linux)."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def memory_over(slicer: ModuleType, run: Run, fits: int) -> list[float]:
    """Return the memory in MB after each of a number of fits, the results of which are removed again."""
    from NeuroCESTLib.scene.hierarchy import remove_empty_top_items, top_items
    from NeuroCESTLib.scene.volumes import remove

    held, kept = [], top_items()
    for _ in range(fits):
        result: Any = run(lambda fraction, message="": None)
        for node in [*result.nodes.values(), result.table]:
            remove(node)
        remove_empty_top_items(kept)
        del result, node
        gc.collect()
        held.append(resident_mb())
    return held


def main() -> int:
    """Run the trial; returns 1 where something was left or the memory grew."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--moments", type=int, default=200, help="cancelled runs of each logic")
    parser.add_argument("--fits", type=int, default=100, help="fits over which the memory is watched")
    parser.add_argument("--seed", type=int, default=1, help="seed of the moments")
    options = parser.parse_args()
    import torch

    from NeuroCESTLib.scene import host

    torch.set_num_threads(1)
    slicer, problems = host.start(), []
    with tempfile.TemporaryDirectory() as folder:
        for name, runs in (("CESTQuantLogic", cest_runs()), ("JointRegSegLogic", joint_runs(Path(folder)))):
            found = cancel_at_random(slicer, runs, options.moments, options.seed)
            print(f"{name}: {options.moments} runs cancelled, {len(found)} problems", flush=True)
            problems += found
            if name == "CESTQuantLogic" and options.fits:
                held = memory_over(slicer, runs["fit mtr-rex"], options.fits)
                settled = held[len(held) // 5 :]
                growth = settled[-1] - settled[0]
                print(f"memory over {options.fits} fits: {held[0]:.0f} MB, {settled[0]:.0f} MB, {held[-1]:.0f} MB")
                if growth > 20:
                    problems.append(f"the memory grew by {growth:.0f} MB")
    print(*problems, sep="\n")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
