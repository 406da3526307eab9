"""Free anatomical templates as tissue probabilities: what synthetic patients are made of."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import SimpleITK as sitk
import torch
import torch.nn.functional as F
from torch import Tensor

from NeuroCESTLib.core.messages.input_errors import InputError

CSF, GM, WM = range(3)
"""Channels of tissue probabilities: cerebrospinal fluid, grey and white matter."""
IMAGE_ENDINGS = (".nii", ".nii.gz", ".nrrd")
_ICBM = "mni_icbm152_{}_tal_nlin_sym_09a_converted.nii.gz"
_SHARPENING = 3
"""Power of the probabilities of ICBM152, a mean over 152 people that is more blurred than any of them.

No tissue reaches 80 % in half of its voxels. With this power that is so in 16 % of the voxels of 1 mm and 25 % of those
of 2 mm; in Colin27, a single person, in 12 and 26 %.
"""


@dataclass(frozen=True)
class Template:
    """Tissue probabilities on an isotropic grid.

    Attributes:
        tissues: Probabilities (3, D, H, W) of CSF, grey and white matter; the axes run to superior, anterior, right.
        spacing_mm: Voxel size in mm.
        name: Name of the template.
    """

    tissues: Tensor
    spacing_mm: float
    name: str

    @property
    def volume_mm3(self) -> float:
        """Volume of the brain, CSF on its surface included."""
        return float(self.tissues.sum(dtype=torch.float64)) * self.spacing_mm**3

    def at(self, spacing_mm: float) -> Template:
        """Average the template to larger voxels, so that mixed voxels stay mixed.

        Args:
            spacing_mm: Voxel size in mm; a whole multiple of the template's own.

        Raises:
            ValueError: The voxel size is not a whole multiple.
        """
        factor = round(spacing_mm / self.spacing_mm)
        if factor < 1 or abs(factor * self.spacing_mm - spacing_mm) > 1e-3 * spacing_mm:
            raise InputError(
                "spacing",
                f"spacing_mm is {spacing_mm:g} but must be a whole multiple of the {self.spacing_mm:g} mm of the "
                f"template '{self.name}'",
            )
        tissues = F.avg_pool3d(self.tissues[None], factor)[0] if factor > 1 else self.tissues
        return replace(self, tissues=tissues, spacing_mm=spacing_mm)


def load_templates(folder: str | Path | None = None) -> list[Template]:
    """Load the MNI ICBM152 template of the package ``nilearn``, and every skull-stripped T1 image in a folder.

    The images of a folder, such as ``ch2bet.nii.gz`` (Colin27 of Debian's mricron-data), are divided into three tissues
    by their intensities (Otsu).

    Args:
        folder: Folder with images (.nii, .nii.gz, .nrrd) of isotropic voxels, or None.

    Returns:
        The templates; there is at least one.

    Raises:
        ValueError: There is neither nilearn nor a folder with usable images.
    """
    templates = []
    package = importlib.util.find_spec("nilearn")
    if package is not None and package.submodule_search_locations:
        data = Path(package.submodule_search_locations[0]) / "datasets" / "data"
        if (data / _ICBM.format("gm")).is_file():
            templates.append(_icbm152(data))
    if folder is not None:
        files = sorted(f for f in Path(folder).glob("*") if f.name.endswith(IMAGE_ENDINGS))
        if not files:
            raise ValueError(f"'{folder}' contains no image: put skull-stripped T1 templates (.nii.gz) there")
        templates += [_classified(file) for file in files]
    if not templates:
        raise ValueError("no anatomical template: install the package nilearn, or name a folder with --templates")
    return templates


def _icbm152(data: Path) -> Template:
    """The template of nilearn: grey and white matter, and CSF as the rest of the brain, all sharpened."""
    t1, gm, wm = (_ras(sitk.ReadImage(str(data / _ICBM.format(kind)))) for kind in ("t1", "gm", "wm"))
    gm, wm = gm / 255.0, wm / 255.0
    brain = _filled((t1 > 0) | (gm + wm > 0.3))
    tissues = torch.from_numpy(np.stack([np.clip(brain - gm - wm, 0, 1), gm, wm]))
    return Template(_sharpened(tissues, _SHARPENING), 1.0, "ICBM152")


def _sharpened(tissues: Tensor, power: float) -> Tensor:
    """Probabilities (3, D, H, W) by a power of them, with the same sum in each voxel."""
    raised = tissues.clamp_min(0) ** power
    return raised / raised.sum(0).clamp_min(1e-6) * tissues.sum(0)


def _classified(file: Path) -> Template:
    """A skull-stripped T1 image, divided into CSF, grey and white matter from dark to bright."""
    try:
        image = sitk.DICOMOrient(sitk.ReadImage(str(file), sitk.sitkFloat32), "RAS")
    except RuntimeError as error:
        raise ValueError(f"'{file}' cannot be read as an image: {str(error).splitlines()[-1]}") from None
    spacing = image.GetSpacing()
    if max(spacing) - min(spacing) > 0.01:
        raise ValueError(f"'{file}' has voxels of {spacing} mm: a template needs isotropic voxels")
    inside = _filled(sitk.GetArrayViewFromImage(image) > 0) > 0
    smooth = sitk.GetArrayFromImage(sitk.CurvatureFlow(image, timeStep=0.05, numberOfIterations=3))
    classes = np.digitize(smooth, _otsu(smooth[inside]))
    tissues = torch.from_numpy(np.stack([(classes == k) & inside for k in range(3)]).astype(np.float32))
    soft = F.avg_pool3d(F.pad(tissues[None], (1,) * 6, mode="replicate"), 3, 1)[0]
    return Template((tissues + soft) / 2, float(spacing[0]), file.name.split(".")[0])


def _otsu(values: np.ndarray) -> list[float]:
    """Two thresholds that divide values (n,) into three classes."""
    otsu = sitk.OtsuMultipleThresholdsImageFilter()
    otsu.SetNumberOfThresholds(2)
    otsu.Execute(sitk.GetImageFromArray(values[None, None]))
    return [float(threshold) for threshold in otsu.GetThresholds()]


def _ras(image: sitk.Image) -> np.ndarray:
    """Array (D, H, W) float32 whose axes run to superior, anterior and right."""
    return sitk.GetArrayFromImage(sitk.DICOMOrient(image, "RAS")).astype(np.float32)


def _filled(mask: np.ndarray) -> np.ndarray:
    """The mask with small gaps closed and holes filled, float32."""
    closed = sitk.BinaryMorphologicalClosing(sitk.GetImageFromArray(mask.astype(np.uint8)), (6, 6, 6))
    return sitk.GetArrayFromImage(sitk.BinaryFillhole(closed)).astype(np.float32)
