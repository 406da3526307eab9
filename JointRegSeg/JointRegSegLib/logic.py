"""Scene layer of JointRegSeg: MRML nodes in, MRML nodes out; the same for panel, console and batch commands."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from NeuroCESTLib.core.device import choose_device
from NeuroCESTLib.core.progress import Progress, part
from NeuroCESTLib.scene import hierarchy
from NeuroCESTLib.scene.geometry import Geometry
from NeuroCESTLib.scene.volumes import add_volume

from .images.modalities import TITLES
from .scene.carrying import carried_along, require_carryable
from .scene.results import JointRegSegResult, add_tumor, into_scene
from .scene.study import study_of

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
        timeLimit_s: float | None = None,
        regulariser: str | None = None,
        regularisation: float | None = None,
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
        iterations of the instance optimisation a level, 0 for none, None for the default. timeLimit_s:
        it ends after this time. regulariser, regularisation: 'curvature' (the default) or 'diffusion', and its weight.
        flips: average the segmentation over mirrored images, which also gives intervals. carry: node or nodes of the
        moving visit (CEST maps, segmentations) to bring onto the fixed study. device: 'auto' (CUDA where there is one),
        'cpu' or 'cuda'. progress(fraction, message) may raise to cancel.

        Raises ValueError with one sentence that names the node or file.
        """
        report = progress or (lambda fraction, message: None)
        report(0.0, "reading")
        fixed, shown = study_of(fixedStudy, fixedMask, fixedTumor, "fixed")
        moving, sources = study_of(movingStudy, movingMask, movingTumor, "moving")
        extra = [] if carry is None else list(carry) if isinstance(carry, (list, tuple)) else [carry]
        for node in extra:
            require_carryable(node)
        from .inference.pipeline import process_pair
        from .inference.settings import InferenceSettings

        settings = InferenceSettings(
            affine=affine,
            refine_iterations=refine,
            time_limit_s=timeLimit_s,
            regulariser=regulariser,
            regularisation=regularisation,
            test_time_flips=flips,
            device=str(choose_device(device)),
        )
        joint = process_pair(fixed, moving, load_network(weights), settings, part(report, 0.02, 0.92))
        report(0.92, "bringing the results into the scene")
        carried = [carried_along(n, joint.moving_to_fixed, fixed.reference, moving.reference) for n in extra]
        folder = folderName or " and ".join(next(iter(nodes.values())).GetName() for nodes in (shown, sources))
        result = into_scene(joint, {"fixed": fixed, "moving": moving}, sources, carried, folder)
        report(1.0, "done")
        return result

    def addPhantom(self, *, spacing_mm: float = 2.0) -> dict[str, dict[str, Any]]:
        """Add the head of formulas at two visits to the scene; nodes by modality (and 'tumor'), by study.

        The second visit lies on another grid, turned and of other spacing, as visits do.
        """
        from .synthesis.phantom import RADII_MM, make_visit

        studies = {}
        for which, second, turn_deg, spacing in (
            ("fixed", False, 0.0, np.full(3, spacing_mm)),
            ("moving", True, 8.0, spacing_mm * np.array([1.0, 1.1, 1.2])),
        ):
            angle = np.radians(turn_deg)
            turn = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
            size = np.ceil(2 * (RADII_MM + 6 + 4 * second) / spacing).astype(int)
            corner = -turn @ np.diag(spacing) @ ((size - 1) / 2)
            geometry = Geometry.from_spacing(tuple(size[::-1]), spacing, corner, turn)
            visit = make_visit(geometry.shape, geometry.ijk_to_ras, second)
            name = f"phantom visit {1 + second}"
            nodes = {m: add_volume(array, geometry, f"{name} {TITLES[m]}") for m, array in visit.images.items()}
            nodes["tumor"] = add_tumor(geometry.to_sitk(visit.labels), f"{name} tumour")
            hierarchy.put(nodes.values(), hierarchy.make_folder(name))
            studies[which] = nodes
        return studies


def load_network(weights: str | Path | None):
    """The network of a weights file (None: the module's own), or None for 'none'.

    Raises:
        ValueError: the file is missing or unusable.
    """
    if weights is not None and str(weights) == NO_NETWORK:
        return None
    from .network.weights import default_weights_path, load_weights

    path = Path(weights) if weights is not None else default_weights_path()
    if weights is None and not path.is_file():
        raise ValueError(
            f"the weights that come with the module are missing ('{path.name}'): give a weights file, or 'none' to "
            "register without segmenting"
        )
    return load_weights(path)
