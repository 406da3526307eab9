"""Scene layer of JointRegSeg: MRML nodes in, MRML nodes out; the same for panel, console and batch commands."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from NeuroCESTLib.device import choose_device
from NeuroCESTLib.progress import part

from .carrying import carried_along
from .results import JointRegSegResult, into_scene
from .study import study_of

Progress = Callable[[float, str], None]
NO_NETWORK = "none"
"""Instead of a weights file: registration alone."""


class JointRegSegLogic:
    """Segmentations and deformation from nodes."""

    def process(
        self,
        fixedStudy: Mapping[str, Any] | Sequence[Any],
        movingStudy: Mapping[str, Any] | Sequence[Any],
        *,
        fixedMask=None,
        movingMask=None,
        fixedTumor=None,
        movingTumor=None,
        weights: str | Path | None = None,
        affine: str = "affine",
        refine: int | None = None,
        flips: bool = True,
        carry=None,
        folderName: str = "",
        device: str = "auto",
        progress: Progress | None = None,
    ) -> JointRegSegResult:
        """Segment and register two visits; the scene gains one folder of results, or nothing after an error or cancel.

        fixedStudy, movingStudy: volume nodes by modality (t1, t1ce, t2, flair; one is enough to register), or a list in
        that order with None for what is missing. Any geometry; linear parent transforms are applied, results are in
        world coordinates. fixedMask, movingMask: brain (label map, segmentation or volume), estimated without.
        fixedTumor, movingTumor: segmentations to use instead of the network's. weights: file of a network; None: the
        one that comes with the module; 'none': registration alone. affine: 'affine', 'rigid' or 'none'. refine:
        iterations of the instance optimisation a level, 0 for none, None for the default. flips: average the
        segmentation over mirrored copies, which also gives the uncertainty. carry: node or nodes of the moving visit
        (CEST maps, segmentations) to bring onto the fixed study. device: 'auto' (CUDA where there is one), 'cpu' or
        'cuda'. progress(fraction, message) may raise to cancel.

        Raises ValueError with one sentence that names the node or file.
        """
        report = progress or (lambda fraction, message: None)
        report(0.0, "reading")
        fixed, shown = study_of(fixedStudy, fixedMask, fixedTumor, "fixed")
        moving, sources = study_of(movingStudy, movingMask, movingTumor, "moving")
        from .inference import InferenceSettings, process_pair

        settings = InferenceSettings(
            affine=affine, refine_iterations=refine, test_time_flips=flips, device=str(choose_device(device))
        )
        joint = process_pair(fixed, moving, load_network(weights), settings, part(report, 0.02, 0.92))
        report(0.92, "bringing the results into the scene")
        extra = [] if carry is None else list(carry) if isinstance(carry, (list, tuple)) else [carry]
        carried = [carried_along(n, joint.moving_to_fixed, fixed.reference, moving.reference) for n in extra]
        folder = folderName or " and ".join(next(iter(nodes.values())).GetName() for nodes in (shown, sources))
        result = into_scene(joint, {"fixed": fixed, "moving": moving}, sources, carried, folder)
        report(1.0, "done")
        return result


def shipped_weights() -> Path:
    """Where the weights lie that come with the module; they may be absent in a checkout without them."""
    return Path(__file__).resolve().parents[1] / "Resources" / "Weights" / "neurocest.pt"


def load_network(weights: str | Path | None):
    """The network of a weights file (None: the module's own), or None for 'none'.

    Raises:
        ValueError: the file is missing or unusable.
    """
    if weights is not None and str(weights) == NO_NETWORK:
        return None
    path = Path(weights) if weights is not None else shipped_weights()
    if weights is None and not path.is_file():
        raise ValueError(
            f"the weights that come with the module are missing ('{path.name}'): give a weights file, or 'none' to "
            "register without segmenting"
        )
    from .weights import load_weights

    return load_weights(path)
