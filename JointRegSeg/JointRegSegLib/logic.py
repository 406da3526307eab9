"""Logic of JointRegSeg: MRML nodes in, MRML nodes out; the same for the panel, the console and the batch commands."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from NeuroCESTLib.core.background import in_background
from NeuroCESTLib.core.device import choose_device
from NeuroCESTLib.core.messages.input_errors import InputError, naming
from NeuroCESTLib.core.progress import Progress, part, silent
from NeuroCESTLib.scene import hierarchy
from NeuroCESTLib.scene.geometry import Geometry
from NeuroCESTLib.scene.messages import called
from NeuroCESTLib.scene.segmentations import show_segmentation
from NeuroCESTLib.scene.tables import add_table
from NeuroCESTLib.scene.transaction import scene_unchanged_on_error

from .inference.settings import NO_NETWORK, InferenceSettings
from .scene.carrying import (
    absent_from_brain,
    carried_along,
    carrying_transforms,
    check_place,
    lost_beyond,
    node_to_carry,
)
from .scene.results import JointRegSegResult, into_scene, tell_label_readings
from .scene.study import misplaced_images, study_of

if TYPE_CHECKING:
    from .findings.result import JointResult, StudyResult
    from .multitask.prediction import StudyPrediction
    from .network.weights import LoadedWeights
    from .scene.follow_up import FollowUpResult
    from .scene.prediction import PredictionResult
    from .scene.single_study import SegmentationResult


class JointRegSegLogic:
    """Segmentation and registration of studies that are nodes of the scene."""

    def process(
        self,
        fixedStudy: Mapping[str, Any] | Sequence[Any],
        movingStudy: Mapping[str, Any] | Sequence[Any],
        *,
        fixedMask: Any = None,
        movingMask: Any = None,
        fixedTumor: Any = None,
        movingTumor: Any = None,
        labels: str | None = None,
        weights: str | Path | None = None,
        affine: str = "affine",
        refine: int | None = None,
        timeLimit_s: float | None = None,
        similarity: str | None = None,
        regulariser: str | None = None,
        regularisation: float | None = None,
        flips: bool = True,
        coregister: bool = True,
        carry: Any = None,
        folderName: str = "",
        device: str = "auto",
        movingIsEarlier: bool = False,
        progress: Progress | None = None,
    ) -> JointRegSegResult:
        """Segment and register two visits; the scene gains one folder of results, or nothing after an error or cancel.

        The results are in world coordinates.

        Args:
            fixedStudy: Volume nodes by modality ('t1', 't1ce', 't2', 'flair'), or a list in that order with None for
                each modality that is missing. One image is enough to register. Images may have any geometry; linear
                parent transforms are applied.
            movingStudy: The same for the visit that is registered to the fixed one.
            fixedMask: Brain of the fixed study (label map, segmentation, or volume that is not zero there); None to
                have it estimated.
            movingMask: The same for the moving study.
            fixedTumor: Segmentation or label map of the fixed study, to use instead of the network's; None for the
                network's.
            movingTumor: The same for the moving study.
            labels: Convention of the numbers in label maps of the tumour, such as 'brats2021' or
                '1=core,2=oedema,4=enhancing', see ``images.label_conventions``; None to recognize it.
            weights: Weights file of a network; None for the bundled one, 'none' to register without segmenting.
            affine: Linear alignment before the deformation: 'affine', 'rigid' or 'none'.
            refine: Iterations of the instance optimisation on each level; 0 for none, None for the default.
            timeLimit_s: Time in seconds after which the instance optimisation ends.
            similarity: Name of the similarity measure that the instance optimisation maximises, see
                ``similarity.SIMILARITIES``; None for the default, local normalised cross-correlation.
            regulariser: Penalty that keeps the velocity field smooth: 'curvature' (the default) or 'diffusion'.
            regularisation: Weight of that penalty.
            flips: Average the segmentation over variants of the images, which also gives intervals of the volumes.
            coregister: Align the images of a visit rigidly with the one whose voxels its results have where the patient
                has moved between them; the nodes stay where they are.
            carry: Node, or list of nodes, of the moving visit (CEST maps, segmentations) to bring onto the fixed study.
            folderName: Name of the subject-hierarchy folder; by default it is made of the names of the studies.
            device: 'auto' (CUDA where there is one), 'cpu' or 'cuda'.
            movingIsEarlier: Whether the moving study is the earlier one; lesions are then told from it to the fixed
                study. Changes remain moving minus fixed.
            progress: Called with the fraction done and a message; may raise to cancel.

        Raises:
            ValueError: A node, file or setting cannot be used; one sentence that names it.
        """
        report = progress or silent
        report(0.0, "reading")
        fixed, fixed_nodes = study_of(fixedStudy, fixedMask, fixedTumor, "fixed", labels)
        moving, moving_nodes = study_of(movingStudy, movingMask, movingTumor, "moving", labels)
        nodes_to_carry = [] if carry is None else list(carry) if isinstance(carry, (list, tuple)) else [carry]
        first_grid = Geometry.of(next(iter(moving_nodes.values())))
        to_carry = [node_to_carry(node, first_grid) for node in nodes_to_carry]
        for each in to_carry:
            check_place(each, moving)
        from .inference.pipeline import process_pair

        settings = InferenceSettings(
            affine=affine,
            refine_iterations=refine,
            time_limit_s=timeLimit_s,
            similarity=similarity,
            regulariser=regulariser,
            regularisation=regularisation,
            test_time_flips=flips,
            coregister=coregister,
            device=str(choose_device(device)),
            moving_is_earlier=movingIsEarlier,
        )

        def compute(report: Progress) -> JointResult:
            with _naming(weights, fixed=fixed_nodes, moving=moving_nodes):
                return process_pair(fixed, moving, load_network(weights), settings, part(report, 0.02, 0.92))

        joint = in_background(compute, report)
        report(0.92, "adding the results to the scene")
        fixed_image = joint.positioned["fixed"].reference
        carried, of_carried = [], []
        for each in to_carry:
            forth, back, notes = carrying_transforms(each, moving, joint)
            carried.append(carried_along(each, forth, fixed_image))
            of_carried += notes
            if each.labels or each.voxels is None:
                of_carried += lost_beyond(each, back, fixed_image)
            else:
                of_carried += absent_from_brain(each, forth, joint.fixed_mask)
        names = (next(iter(nodes.values())).GetName() for nodes in (fixed_nodes, moving_nodes))
        folder = folderName or " and ".join(names)
        with scene_unchanged_on_error():
            result = into_scene(joint, {"fixed": fixed, "moving": moving}, moving_nodes, carried, folder)
            tell_label_readings(result)
            result.warnings += misplaced_images(fixed_nodes, "fixed") + misplaced_images(moving_nodes, "moving")
            result.warnings += of_carried
            result.warnings += [
                f"{each.title} holds labels, so it is brought onto the fixed study by the nearest voxel"
                for each in to_carry
                if each.labels and not each.node.IsA("vtkMRMLLabelMapVolumeNode")
            ]
            report(1.0, "done")
        for node in (fixedTumor, movingTumor, movingMask, *nodes_to_carry):
            if node is not None and node.GetScene() is not None and node.IsA("vtkMRMLSegmentationNode"):
                show_segmentation(node, False)  # a copy is shown, or it lies in the space of the moving visit
        return result

    def segment(
        self,
        study: Mapping[str, Any] | Sequence[Any],
        *,
        mask: Any = None,
        weights: str | Path | None = None,
        flips: bool = True,
        coregister: bool = True,
        folderName: str = "",
        device: str = "auto",
        progress: Progress | None = None,
    ) -> SegmentationResult:
        """Segment one visit; the scene gains one folder of results, or nothing after an error or cancel.

        Args:
            study: Volume nodes by modality ('t1', 't1ce', 't2', 'flair'), or a list in that order with None for each
                modality that is missing.
            mask: Brain (label map, segmentation, or volume that is not zero there); None to have it estimated.
            weights: Weights file of a network; None for the bundled one.
            flips: Average the segmentation over variants of the images, which also gives intervals of the volumes.
            coregister: Align the images rigidly with the one whose voxels the results have where the patient has moved
                between them; the nodes stay where they are.
            folderName: Name of the subject-hierarchy folder; by default that of the first image.
            device: 'auto' (CUDA where there is one), 'cpu' or 'cuda'.
            progress: Called with the fraction done and a message; may raise to cancel.

        Raises:
            ValueError: A node, file or setting cannot be used; one sentence that names it.
        """
        report = progress or silent
        report(0.0, "reading")
        images, nodes = study_of(study, mask, None, "given")
        from .inference.single_study import process_study
        from .scene.single_study import segmentation_into_scene

        settings = InferenceSettings(test_time_flips=flips, coregister=coregister, device=str(choose_device(device)))

        def compute(report: Progress) -> StudyResult:
            network = load_network(weights)
            if network is None:
                raise InputError(
                    "weights", f"a segmentation needs a network: give a weights file instead of '{NO_NETWORK}'"
                )
            with _naming(weights, given=nodes):
                return process_study(images, network, settings, part(report, 0.02, 0.95))

        found = in_background(compute, report)
        report(0.95, "adding the results to the scene")
        with scene_unchanged_on_error():
            result = segmentation_into_scene(found, images, folderName or next(iter(nodes.values())).GetName())
            result.warnings += misplaced_images(nodes, "given")
            report(1.0, "done")
        return result

    def predict(
        self,
        study: Mapping[str, Any] | Sequence[Any],
        weights: str | Path,
        *,
        mask: Any = None,
        coregister: bool = True,
        folderName: str = "",
        device: str = "auto",
        progress: Progress | None = None,
    ) -> PredictionResult:
        """Predict tissues, numbers, classes, smaller voxels or anomalies of one visit, whatever the weights can do.

        The scene gains one folder of results, or nothing.

        Args:
            study: Volume nodes by modality ('t1', 't1ce', 't2', 'flair'), or a list in that order with None for each
                modality that is missing.
            weights: Weights file of tasks on single studies, as `jointregseg train` makes it, or the name of weights of
                the package: 'tissue' or 'super_resolution'.
            mask: Brain (label map, segmentation, or volume that is not zero there); None to have it estimated.
            coregister: Align the images rigidly with the one whose voxels the results have where the patient has moved
                between them; the nodes stay where they are.
            folderName: Name of the subject-hierarchy folder; by default that of the first image.
            device: 'auto' (CUDA where there is one), 'cpu' or 'cuda'.
            progress: Called with the fraction done and a message; may raise to cancel.

        Raises:
            ValueError: A node, file or setting cannot be used; one sentence that names it.
        """
        report = progress or silent
        report(0.0, "reading")
        images, nodes = study_of(study, mask, None, "given")
        from .multitask.prediction import predict_study
        from .multitask.shipped import weights_file
        from .multitask.weights import load_study_weights
        from .scene.prediction import prediction_into_scene

        chosen, path = str(choose_device(device)), weights_file(weights)

        def compute(report: Progress) -> StudyPrediction:
            with _naming(path, given=nodes):
                network = load_study_weights(path)
                return predict_study(images, network, chosen, part(report, 0.02, 0.95), not coregister)

        found = in_background(compute, report)
        report(0.95, "adding the results to the scene")
        with scene_unchanged_on_error():
            result = prediction_into_scene(found, folderName or next(iter(nodes.values())).GetName())
            result.warnings += misplaced_images(nodes, "given")
            report(1.0, "done")
        return result

    def follow(
        self,
        visits: Sequence[Mapping[str, Any] | Sequence[Any]],
        *,
        reference: int = 1,
        masks: Sequence[Any] | None = None,
        folderName: str = "",
        progress: Progress | None = None,
        **options: Any,
    ) -> FollowUpResult:
        """Segment two or more visits and register each to one of them; the scene gains all results, or nothing.

        Args:
            visits: The visits in the order of time, each as the studies of `process`.
            reference: Number of the visit, from 1, that is the fixed study of every pair.
            masks: Brain of each visit, None for those that are estimated; None for all of them.
            folderName: Name in front of the names of the subject-hierarchy folders, one for each pair.
            progress: Called with the fraction done and a message; may raise to cancel.
            options: Further options of `process`, such as ``weights`` and ``refine``.

        Raises:
            ValueError: A visit or setting cannot be used; one sentence that names it.
        """
        from .findings.follow_up import follow_up, reference_warnings, sentences_of_visits
        from .scene.follow_up import FollowUpResult, follow_up_columns

        if len(visits) < 2:
            raise ValueError("a follow-up needs at least two visits")
        if not 1 <= reference <= len(visits):
            raise ValueError(f"the reference visit is {reference}, but the visits have the numbers 1 to {len(visits)}")
        brains = [None] * len(visits) if masks is None else list(masks)
        if len(brains) != len(visits):
            raise ValueError(
                f"there are {len(visits)} visits but {len(brains)} brain masks: give one for each, or None"
            )
        report = progress or silent
        others = [number for number in range(1, len(visits) + 1) if number != reference]
        result = FollowUpResult(reference)
        with scene_unchanged_on_error():
            for done, number in enumerate(others):
                pair = self.process(
                    visits[reference - 1],
                    visits[number - 1],
                    fixedMask=brains[reference - 1],
                    movingMask=brains[number - 1],
                    movingIsEarlier=number < reference,
                    folderName=f"{folderName} visit {number} to visit {reference}".strip(),
                    progress=part(report, done / len(others), (done + 1) / len(others)),
                    **options,
                )
                result.pairs[number] = pair
            joints = {number: pair.joint for number, pair in result.pairs.items()}
            result.rows = follow_up(joints, reference)
            result.warnings += sentences_of_visits({n: pair.warnings for n, pair in result.pairs.items()}, reference)
            result.warnings += reference_warnings(joints, reference)
            if result.rows:
                result.changes = add_table(follow_up_columns(result.rows), f"{folderName} volumes over time".strip())
                hierarchy.put([result.changes], result.pairs[others[0]].folderItemID)
        return result

    def addPhantom(self, *, spacing_mm: float = 2.0, progress: Progress | None = None) -> dict[str, dict[str, Any]]:
        """Add a digital head with a tumour at two visits to the scene.

        The second visit lies on another grid, rotated and with another spacing, as real visits do.

        Args:
            spacing_mm: Voxel size of the first visit.
            progress: Called with the fraction done and a message; may raise to cancel.

        Returns:
            Nodes by modality (and 'tumor') of each study ('fixed', 'moving').
        """
        from .scene.phantom import add_phantom

        return add_phantom(spacing_mm, progress or silent)


def load_network(weights: str | Path | None) -> LoadedWeights | None:
    """Load a network.

    Args:
        weights: Weights file or name of weights of the package, see `network.shipped`; None for the default ones,
            'none' for no network.

    Returns:
        The network, or None for 'none'.

    Raises:
        ValueError: The file is missing or cannot be used.
    """
    if weights is not None and str(weights) == NO_NETWORK:
        return None
    from .network.shipped import weights_path
    from .network.weights import load_weights

    path = weights_path(weights)
    if weights is None and not path.is_file():
        raise InputError(
            "weights",
            f"the bundled weights ('{path.name}') are missing: give a weights file, or '{NO_NETWORK}' to register "
            "without segmenting",
        )
    return load_weights(path)


def _naming(weights: str | Path | None, **studies: Mapping[str, Any]) -> contextlib.AbstractContextManager[None]:
    """Put the first image of a study, or the weights, in front of messages about them; the nodes are by modality."""
    names = {} if weights in (None, NO_NETWORK) else {"weights": f"'{weights}'"}
    names |= {f"{study} {key}": called(node) for study, nodes in studies.items() for key, node in nodes.items()}
    for study, nodes in studies.items():
        more = f" and {len(nodes) - 1} more" if len(nodes) > 1 else ""
        names[study] = f"{called(next(iter(nodes.values())))}{more}"
    return naming(names, names[next(reversed(studies))])
