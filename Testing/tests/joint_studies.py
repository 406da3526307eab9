"""Two visits of the digital head on grids of every orientation, as images, files and nodes, with their true values."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import SimpleITK as sitk
from geometries import rotation

from JointRegSegLib.findings.result import JointResult, RegionVolume, VolumeChange
from JointRegSegLib.images.grid import WorkingGrid
from JointRegSegLib.images.study import StudyImages
from JointRegSegLib.network.weights import LoadedWeights
from JointRegSegLib.synthesis.phantom import RADII_MM, PhantomVisit, make_visit, to_second_visit
from NeuroCESTLib.scene.geometry import Geometry
from NeuroCESTLib.scene.volumes import add_volume, volume_array

TURNS = {
    "axial": np.eye(3),
    "LPS": np.diag([-1.0, -1, 1]),
    "left-handed": np.diag([-1.0, 1, 1]),
    "sagittal": np.array([[0, 0, 1.0], [-1, 0, 0], [0, -1, 0]]),
    "oblique": rotation((12, -25, 40)),
    "left-handed oblique": rotation((5, 10, -33)) @ np.diag([1.0, -1, 1]),
}
SPACING_MM = (4.0, 4.4, 5.1)


def head_grid(turn: str, spacing_mm: tuple[float, float, float] = SPACING_MM) -> Geometry:
    """Grid of an orientation of ``TURNS`` around the head."""
    axes, spacing = TURNS[turn], np.array(spacing_mm)
    half_width = np.sqrt(((axes * RADII_MM[:, None]) ** 2).sum(axis=0)) + 10  # of the ellipsoid along each axis
    size = np.ceil(2 * half_width / spacing).astype(int) + 1
    corner = -axes @ (spacing * (size - 1) / 2)
    return Geometry.from_spacing(tuple(size[::-1]), tuple(spacing), tuple(corner), axes)


@dataclass(frozen=True)
class HeadStudy:
    """One visit, sampled on a grid."""

    grid: Geometry
    visit: PhantomVisit

    @classmethod
    def of(cls, turn: str, second: bool = False, spacing_mm: tuple[float, float, float] = SPACING_MM) -> HeadStudy:
        grid = head_grid(turn, spacing_mm)
        return cls(grid, make_visit(grid.shape, grid.ijk_to_ras, second))

    def image(self, modality: str) -> sitk.Image:
        return self.grid.to_sitk(self.visit.images[modality])

    @property
    def labels(self) -> sitk.Image:
        """True tumour classes."""
        return self.grid.to_sitk(self.visit.labels)

    @property
    def brain(self) -> sitk.Image:
        """True brain."""
        return self.grid.to_sitk(self.visit.brain.astype(np.uint8))

    def images(self, name: str, modalities: tuple[str, ...] = ("t1", "flair"), **more: Any) -> StudyImages:
        """Images as the science layer takes them; ``more`` are further fields of ``StudyImages``."""
        return StudyImages({m: self.image(m) for m in modalities}, name=name, **more)

    def nodes(self, name: str, modalities: tuple[str, ...] = ("t1", "flair"), parent: Any = None) -> dict[str, Any]:
        """Volume nodes; a ``parent`` (linear transform node) does not change where they lie in the world."""
        grid = self.grid
        if parent is not None:
            from NeuroCESTLib.scene.geometry import world_transform

            probe = add_volume(np.zeros((2, 2, 2), np.uint8), Geometry.from_spacing((2, 2, 2)), "probe")
            probe.SetAndObserveTransformNodeID(parent.GetID())
            grid = Geometry(grid.shape, np.linalg.inv(world_transform(probe)) @ grid.ijk_to_ras)
            probe.GetScene().RemoveNode(probe)
        nodes = {m: add_volume(self.visit.images[m], grid, f"{name} {m}") for m in modalities}
        for node in nodes.values():
            if parent is not None:
                node.SetAndObserveTransformNodeID(parent.GetID())
        return nodes

    def write(self, folder: Path, modalities: tuple[str, ...] = ("t1", "flair")) -> Path:
        """Write the images, ``labels.nii.gz`` and ``brain.nii.gz`` without Slicer; return the folder."""
        folder.mkdir(parents=True, exist_ok=True)
        for modality in modalities:
            sitk.WriteImage(self.image(modality), str(folder / f"{modality}.nii.gz"))
        sitk.WriteImage(self.labels, str(folder / "labels.nii.gz"))
        sitk.WriteImage(self.brain, str(folder / "brain.nii.gz"))
        return folder


def edited(image: sitk.Image, change) -> sitk.Image:
    """Return a copy of an image with a changed array."""
    array = sitk.GetArrayFromImage(image)
    changed = sitk.GetImageFromArray(change(array))
    changed.CopyInformation(image)
    return changed


def with_value(array: np.ndarray, index: tuple[int, ...], value: float) -> np.ndarray:
    """Set a voxel of an array."""
    array[index] = value
    return array


def ras_points(grid: WorkingGrid) -> np.ndarray:
    """Return the RAS positions (D, H, W, 3) in mm of the voxels of a working grid, by its definition."""
    k, j, i = np.meshgrid(*(np.arange(n) for n in grid.shape), indexing="ij")
    first = np.array(grid.origin_lps_mm) * [-1, -1, 1]
    return first + grid.spacing_mm * np.stack([i, j, k], axis=-1)


def rimmed_sphere() -> sitk.Image:
    """Tumour in 48 x 48 x 48 voxels of 1 mm: a core of 10 mm, an enhancing rim of 2 mm and oedema of 4 mm."""
    at = np.stack(np.meshgrid(*(np.arange(48),) * 3, indexing="ij"), axis=-1)
    distance = np.linalg.norm(at - (23.2, 23.6, 23.9), axis=-1)
    classes = np.select([distance < 10, distance < 12, distance < 16], [1, 3, 2])
    return sitk.GetImageFromArray(classes.astype(np.uint8))


def layered_tumor() -> np.ndarray:
    """Oedema that is largest in slices 3 to 5, and a small enhancing rim around a smaller core in slice 9."""
    labels = np.zeros((14, 20, 20), np.uint8)
    labels[3:6, 3:17, 3:17] = 2
    labels[6:10, 5:15, 5:15] = 2
    labels[9, 8:12, 8:12] = 3
    labels[9, 9:11, 9:11] = 1
    return labels


def points_in_head(count: int = 200, seed: int = 0) -> np.ndarray:
    """Random points (count, 3) in the head at the first visit, RAS mm."""
    generator = np.random.default_rng(seed)
    directions = generator.normal(size=(count, 3))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    return directions * generator.uniform(0, 0.9, (count, 1)) ** (1 / 3) * RADII_MM


def by_sitk(transform: sitk.Transform, points: np.ndarray) -> np.ndarray:
    """Map points (n, 3), RAS mm, by a transform of SimpleITK."""
    lps = np.array([-1.0, -1.0, 1.0])
    return np.array([transform.TransformPoint((p * lps).tolist()) for p in points]) * lps


def by_node(node: Any, points: np.ndarray, to_parent: bool) -> np.ndarray:
    """Map points (n, 3), RAS mm, by a transform node."""
    transform = node.GetTransformToParent() if to_parent else node.GetTransformFromParent()
    return np.array([transform.TransformPoint(p.tolist()) for p in points])


def registration_error(points: np.ndarray, found: np.ndarray) -> float:
    """Mean distance in mm between found and true positions, at the second visit, of points of the first visit."""
    return float(np.linalg.norm(found - to_second_visit(points), axis=1).mean())


def small_weights(path: Path, spacing_mm: float = 4.0, segmentation: bool = True) -> Path:
    """Save a small untrained network for voxels of ``spacing_mm``; its deformation is the identity."""
    import torch

    from JointRegSegLib.images.preprocessing.config import PreprocessingConfig
    from JointRegSegLib.network.configuration import NetworkConfig
    from JointRegSegLib.network.joint import build_network
    from JointRegSegLib.network.weights import save_weights

    torch.manual_seed(0)
    config = NetworkConfig(
        channels=(4, 8, 8),
        encoder_convolutions=(1, 1, 1),
        decoder_convolutions=(1, 1),
        auxiliary=0,
        stride=1,
        segmentation=segmentation,
    )
    preprocessing = PreprocessingConfig(spacing_mm=spacing_mm, multiple_of=8).to_dict()
    return save_weights(path, build_network(config), {"preprocessing": preprocessing})


def exact_result(fixed: HeadStudy, moving: HeadStudy, spacing_mm: float = 4.0) -> JointResult:
    """Result of a perfect run: the true map between the visits, and all that follows from it."""
    import torch

    from JointRegSegLib.images.grid import grid_around, mask_corners
    from JointRegSegLib.registration.deformation import Deformation
    from JointRegSegLib.registration.transforms import jacobian_image, pair_transform, warp_image, warp_label_image

    fixed_labels, moving_labels = fixed.labels, moving.labels
    masks = [s.grid.to_sitk(s.visit.brain.astype(np.uint8)) for s in (fixed, moving)]
    grid = grid_around(mask_corners(masks[0]), spacing_mm, 6.0, 8, (0.0, 0.0, 0.0))
    affine = sitk.AffineTransform(3)
    affine.SetTranslation((4.0, 3.0, -2.0))
    affine.Rotate(0, 1, 0.05)
    d, h, w = np.meshgrid(*(np.arange(n) for n in grid.shape), indexing="ij")
    first = np.stack([w, h, d], axis=-1) * spacing_mm - np.array(grid.origin_lps_mm) * [1, 1, -1]
    back = affine.GetInverse()
    wanted = by_sitk(back, to_second_visit(first).reshape(-1, 3)).reshape(first.shape)
    displacement = torch.from_numpy(np.ascontiguousarray((wanted - first)[..., ::-1]) / spacing_mm)
    displacement = displacement.permute(3, 0, 1, 2)[None].float()
    pair = pair_transform(Deformation(displacement, None, None, None), grid, affine)
    volumes, changes = [], []
    for number, region in ((1, "necrotic_core"), (2, "edema"), (3, "enhancing_tumor")):
        ml = [float((s.visit.labels == number).sum()) * s.grid.voxel_volume_mm3 / 1000 for s in (fixed, moving)]
        volumes.append(RegionVolume("fixed", region, ml[0], 0.9 * ml[0], 1.1 * ml[0]))
        volumes.append(RegionVolume("moving", region, ml[1]))
        percent = 100 * (ml[1] - ml[0]) / ml[0]
        changes.append(VolumeChange(region, *ml, ml[1] - ml[0], percent, None, None, ml[0], None))
    return JointResult(
        fixed_labels=fixed_labels,
        moving_labels=moving_labels,
        fixed_uncertainty=None,
        moving_uncertainty=None,
        fixed_mask=masks[0],
        moving_mask=masks[1],
        moving_to_fixed=pair.moving_to_fixed,
        fixed_to_moving=pair.fixed_to_moving,
        affine=affine,
        warped={m: warp_image(moving.image(m), fixed_labels, pair.moving_to_fixed) for m in ("t1", "flair")},
        warped_labels=warp_label_image(moving_labels, fixed_labels, pair.moving_to_fixed),
        jacobian=jacobian_image(pair, fixed_labels),
        volumes=tuple(volumes),
        changes=tuple(changes),
        summary={"folded_fraction": 0.0},
        warnings=(),
    )


def scene_contents(slicer: ModuleType) -> dict[str, str]:
    """Describe every node of the scene (with its voxels) and every item of the subject hierarchy, to compare scenes."""
    import vtk

    subjects, items = slicer.mrmlScene.GetSubjectHierarchyNode(), vtk.vtkIdList()
    found = {}
    for i in range(slicer.mrmlScene.GetNumberOfNodes()):
        node = slicer.mrmlScene.GetNthNode(i)
        text = node.GetName() or ""
        if node.IsA("vtkMRMLScalarVolumeNode") and node.GetImageData() is not None:
            matrix = vtk.vtkMatrix4x4()
            node.GetIJKToRASMatrix(matrix)
            text += f"{hash(volume_array(node).tobytes())} {slicer.util.arrayFromVTKMatrix(matrix)}"
        found[node.GetID()] = text
    subjects.GetItemChildren(subjects.GetSceneItemID(), items, True)
    for item in (items.GetId(i) for i in range(items.GetNumberOfIds())):
        found[f"item {item}"] = subjects.GetItemName(item)
    return found


def table_position(slicer: ModuleType) -> Any:
    """Linear transform node that rotates and shifts."""
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLinearTransformNode", "table position")
    matrix = np.eye(4)
    matrix[:3, :3], matrix[:3, 3] = rotation((10, 20, -30)), (15.0, -22.0, 31.0)
    node.SetMatrixTransformToParent(slicer.util.vtkMatrixFromArray(matrix))
    return node


def bent_transform(slicer: ModuleType) -> Any:
    """Transform node that is not linear."""
    import vtk

    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLTransformNode", "bent")
    spline = vtk.vtkThinPlateSplineTransform()
    for give, shift in ((spline.SetSourceLandmarks, 0), (spline.SetTargetLandmarks, 5)):
        landmarks = vtk.vtkPoints()
        for x, y, z in ((0, 0, 0), (50, 0, 0), (0, 50, 0), (0, 0, 50), (50, 50, 50)):
            landmarks.InsertNextPoint(x, y, z + shift * (x == y))
        give(landmarks)
    node.SetAndObserveTransformToParent(spline)
    return node


def doubting(weights: LoadedWeights, logit: float = 2.0) -> LoadedWeights:
    """Return weights for which background is more probable, so that they find healthy brain in noise."""
    import copy

    network = copy.deepcopy(weights.network)
    assert network.segmentation is not None
    network.segmentation.output.bias.data[0] += logit
    return replace(weights, network=network)


def judging_by_brightness(weights: LoadedWeights, dropout: float = 0.0) -> LoadedWeights:
    """Return weights that the rules on brightness apply to, from a training that dropped modalities."""
    configuration = {"data": {"augmentation": {"dropout_probability": dropout}}}
    changed = {"enhancing_by_brightness": True, "configuration": configuration}
    return replace(weights, metadata={**weights.metadata, **changed})
