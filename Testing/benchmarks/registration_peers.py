"""Other registration programs for the benchmark: their deformable stage alone, with the settings they recommend.

Every function takes the fixed and the moving image and a folder for its files. It returns the displacement (3, D, H, W)
from the fixed to the moving image in voxels, its inverse where the program provides one, and its time in s.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

import numpy as np
import SimpleITK as sitk

Result = tuple[np.ndarray, np.ndarray | None, float]


def demons(fixed: sitk.Image, moving: sitk.Image, folder: Path) -> Result:
    """Register with SimpleITK's diffeomorphic demons on three levels after matching the histograms."""
    begin = time.perf_counter()
    matched = sitk.HistogramMatching(moving, fixed, 128, 10, True)
    field = None
    for shrink, iterations in ((4, 60), (2, 40), (1, 20)):
        level = [
            sitk.Shrink(sitk.SmoothingRecursiveGaussian(image, shrink / 2), [shrink] * 3) if shrink > 1 else image
            for image in (fixed, matched)
        ]
        demons = sitk.DiffeomorphicDemonsRegistrationFilter()
        demons.SetNumberOfIterations(iterations)
        demons.SetStandardDeviations(1.5)
        if field is None:
            field = demons.Execute(*level)
        else:
            field = demons.Execute(*level, sitk.Resample(field, level[0], sitk.Transform(), sitk.sitkLinear))
    elapsed = time.perf_counter() - begin
    return _voxels(field), None, elapsed


def elastix(fixed: sitk.Image, moving: sitk.Image, folder: Path) -> Result:
    """Register with itk-elastix: B-splines of 10 mm and its default parameters."""
    os.chdir(folder)  # elastix writes its field into the current folder
    from itk.support import helpers

    helpers._HAVE_TORCH = False  # itk imports torch where it is installed, and elastix then crashes
    import itk

    itk.MultiThreaderBase.SetGlobalDefaultNumberOfThreads(
        _threads()
    )  # elastix crashes if this is an argument of the registration
    images = [_to_itk(image, itk) for image in (fixed, moving)]
    parameters = itk.ParameterObject.New()
    parameters.AddParameterMap(parameters.GetDefaultParameterMap("bspline", 4, 10.0))
    begin = time.perf_counter()
    _, transform = itk.elastix_registration_method(*images, parameter_object=parameters, log_to_console=False)
    elapsed = time.perf_counter() - begin
    field = itk.transformix_deformation_field(images[1], transform)
    array = itk.array_from_image(field).astype(np.float32)
    return _channels_first(array, fixed.GetSpacing()), None, elapsed


def syn_mi(fixed: sitk.Image, moving: sitk.Image, folder: Path) -> Result:
    """Register with ANTs SyN and mutual information, iterations (40, 20, 0): the default of its Python package."""
    return _ants(fixed, moving, folder, type_of_transform="SyNOnly", initial_transform="Identity")


def syn_quick(fixed: sitk.Image, moving: sitk.Image, folder: Path) -> Result:
    """Register with ANTs' antsRegistrationSyNQuick, deformable stage alone."""
    return _ants(fixed, moving, folder, type_of_transform="antsRegistrationSyNQuick[so]")


PEERS = {
    "SimpleITK diffeomorphic demons": demons,
    "ANTs SyN-MI": syn_mi,
    "ANTs SyNQuick": syn_quick,
    "elastix B-spline 10 mm": elastix,
}


def _ants(fixed: sitk.Image, moving: sitk.Image, folder: Path, **settings: object) -> Result:
    import ants

    images = [ants.from_numpy(sitk.GetArrayFromImage(i).T.copy(), spacing=i.GetSpacing()) for i in (fixed, moving)]
    begin = time.perf_counter()
    found = ants.registration(*images, outprefix=str(folder / "ants_"), **settings)
    elapsed = time.perf_counter() - begin
    fields = []
    for name, order in (("fwdtransforms", images), ("invtransforms", images[::-1])):
        inverted = [str(t).endswith(".mat") for t in found[name]] if name == "invtransforms" else None
        composite = ants.apply_transforms(
            *order, found[name], whichtoinvert=inverted, compose=str(folder / f"ants_{name}_")
        )
        array = ants.image_read(composite).numpy()  # (x, y, z, component)
        fields.append(_channels_first(array.transpose(2, 1, 0, 3), fixed.GetSpacing()))
    return fields[0], fields[1], elapsed


def _threads() -> int:
    return int(os.environ.get("OMP_NUM_THREADS", os.cpu_count() or 1))


def _to_itk(image: sitk.Image, itk) -> object:
    converted = itk.image_from_array(sitk.GetArrayFromImage(image).astype(np.float32))
    converted.SetSpacing(image.GetSpacing())
    return converted


def _voxels(field: sitk.Image) -> np.ndarray:
    return _channels_first(sitk.GetArrayFromImage(field), field.GetSpacing())


def _channels_first(array: np.ndarray, spacing: tuple[float, ...]) -> np.ndarray:
    """Convert a field (D, H, W, xyz) in mm to (3, D, H, W) in voxels with channels in the order D, H, W."""
    return np.ascontiguousarray((array / np.asarray(spacing))[..., ::-1].transpose(3, 0, 1, 2), dtype=np.float32)
