"""The alignment on real brains: a slab lies on its own patient's anatomy, and on no other's."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from geometries import rotation

from CESTQuantLib.compartments.anatomy.alignment import align
from CESTQuantLib.compartments.anatomy.structure import head_of
from CESTQuantLib.compartments.grid import Grid
from CESTQuantLib.compartments.inputs import CestMaps, Image, VisitInput
from CESTQuantLib.compartments.sampling import on_grid

BRATS, TCGA = (
    "data/brain/BraTS2021_00006/BraTS2021_00006_{}.nii.gz",
    "data/brain/TCGA-FG-6692/TCGA-FG-6692_{}_bet.nii.gz",
)


def image_of(path: Path) -> Image:
    image = sitk.DICOMOrient(sitk.ReadImage(str(path), sitk.sitkFloat32), "RAS")
    matrix = np.eye(4)
    matrix[:3, :3] = np.array(image.GetDirection()).reshape(3, 3) * np.array(image.GetSpacing())
    matrix[:3, 3] = image.GetOrigin()
    array = sitk.GetArrayFromImage(image)
    return Image(path.name, array, Grid(array.shape, np.diag([-1.0, -1.0, 1.0, 1.0]) @ matrix))


def moved_slab(image: Image, slices: int) -> tuple[CestMaps, np.ndarray]:
    """A slab through an image whose header is off by 6 mm and 4 degrees, and the true alignment."""
    center = image.grid.at((np.array(image.array.shape[::-1])[None] - 1) / 2)[0]
    true = np.eye(4)
    true[:3, :3], true[:3, 3] = np.diag([2.5, 2.5, 5.0]), center - np.array([100.0, 100.0, 2.5 * (slices - 1)])
    values = on_grid(image.array, image.grid, Grid((slices, 81, 81), true), np.eye(4), 0.0)
    motion = np.eye(4)
    motion[:3, :3] = rotation((2.0, -2.0, 3.0))
    motion[:3, 3] = center + np.array([4.0, -3.0, 3.0]) - motion[:3, :3] @ center
    grid = Grid(values.shape, np.linalg.inv(motion) @ true)
    return CestMaps("maps", grid, {"m0": values}, {}, values), motion


@pytest.mark.slow
def test_a_slab_finds_its_own_patient_and_refuses_another(shared_data: Callable[[str], Path]) -> None:
    cest, motion = moved_slab(image_of(shared_data(BRATS.format("t2"))), 5)
    own, other = image_of(shared_data(BRATS.format("t1"))), image_of(shared_data(TCGA.format("t1")))
    found = align(VisitInput("visit", cest, None, (own,), register=True))
    assert found is not None
    points = cest.grid.points()[head_of(cest.maps["m0"]).ravel()]
    error = points @ (found.cest_to_anatomy - motion)[:3, :3].T + (found.cest_to_anatomy - motion)[:3, 3]
    assert np.linalg.norm(error, axis=1).mean() < 2.0
    assert found.verdict == "good"
    with pytest.raises(ValueError, match=r"of one patient"):
        align(VisitInput("visit", cest, None, (other,), register=True))
