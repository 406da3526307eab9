"""Free anatomical templates as tissue probabilities: what synthetic patients are made of."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import SimpleITK as sitk
import torch
import torch.nn.functional as F
from torch import Tensor

TISSUES = ("csf", "gm", "wm")
_ICBM = "mni_icbm152_{}_tal_nlin_sym_09a_converted.nii.gz"


@dataclass(frozen=True)
class Template:
    """Tissue probabilities (3, D, H, W) of CSF, grey and white matter on a RAS grid of ``spacing_mm``."""

    tissues: Tensor
    spacing_mm: float
    name: str

    def at(self, spacing_mm: float) -> Template:
        """The template on a grid coarser by a whole factor, averaged so that mixed voxels stay mixed."""
        factor = round(spacing_mm / self.spacing_mm)
        if factor < 1 or abs(factor * self.spacing_mm - spacing_mm) > 1e-3 * spacing_mm:
            raise ValueError(f"spacing_mm {spacing_mm:g} is no whole multiple of the template's {self.spacing_mm:g}")
        tissues = F.avg_pool3d(self.tissues[None], factor)[0] if factor > 1 else self.tissues
        return Template(tissues, spacing_mm, self.name)


def load_templates(folder: str | Path | None = None) -> list[Template]:
    """The MNI ICBM152 template of the ``nilearn`` package, and every skull-stripped T1 image in a folder.

    A folder's image (.nii, .nii.gz, .nrrd) is divided into three tissues by its intensities (Otsu), such as
    ``ch2bet.nii.gz``, Colin27 of Debian's mricron-data.

    Raises:
        ValueError: there is neither nilearn nor a folder with images.
    """
    templates = []
    if package := importlib.util.find_spec("nilearn"):
        data = Path(package.submodule_search_locations[0]) / "datasets" / "data"
        if (data / _ICBM.format("gm")).is_file():
            templates.append(_icbm152(data))
    if folder is not None:
        files = sorted(f for f in Path(folder).glob("*") if f.name.endswith((".nii", ".nii.gz", ".nrrd")))
        if not files:
            raise ValueError(f"'{folder}' holds no image: put skull-stripped T1 templates (.nii.gz) there")
        templates += [_classified(file) for file in files]
    if not templates:
        raise ValueError("no anatomical template: install the package nilearn, or name a folder with --templates")
    return templates


def _icbm152(data: Path) -> Template:
    t1, gm, wm = (_ras(sitk.ReadImage(str(data / _ICBM.format(kind)))) for kind in ("t1", "gm", "wm"))
    gm, wm = gm / 255.0, wm / 255.0
    brain = _filled((t1 > 0) | (gm + wm > 0.3))
    return Template(torch.from_numpy(np.stack([np.clip(brain - gm - wm, 0, 1), gm, wm])), 1.0, "ICBM152")


def _classified(file: Path) -> Template:
    try:
        image = sitk.DICOMOrient(sitk.ReadImage(str(file), sitk.sitkFloat32), "RAS")
    except RuntimeError as error:
        raise ValueError(f"'{file}' cannot be read as an image: {str(error).splitlines()[-1]}") from None
    spacing = image.GetSpacing()
    if max(spacing) - min(spacing) > 0.01:
        raise ValueError(f"'{file}' has the spacing {spacing} mm: a template needs isotropic voxels")
    brain = sitk.GetImageFromArray(_filled(sitk.GetArrayViewFromImage(image) > 0).astype(np.uint8))
    brain.CopyInformation(image)
    smooth = sitk.CurvatureFlow(image, timeStep=0.05, numberOfIterations=3)
    values = sitk.GetArrayViewFromImage(smooth)[sitk.GetArrayViewFromImage(brain) > 0]
    strip = sitk.GetImageFromArray(values[None, None])
    limits = [float(t) for t in _otsu(strip)]
    classes = np.digitize(sitk.GetArrayFromImage(smooth), limits)
    inside = sitk.GetArrayFromImage(brain) > 0
    tissues = torch.from_numpy(np.stack([(classes == k) & inside for k in range(3)]).astype(np.float32))
    soft = F.avg_pool3d(F.pad(tissues[None], (1,) * 6, mode="replicate"), 3, 1)[0]
    return Template((tissues + soft) / 2, float(spacing[0]), file.name.split(".")[0])


def _otsu(strip: sitk.Image) -> tuple[float, ...]:
    otsu = sitk.OtsuMultipleThresholdsImageFilter()
    otsu.SetNumberOfThresholds(2)
    otsu.Execute(strip)
    return otsu.GetThresholds()


def _ras(image: sitk.Image) -> np.ndarray:
    return sitk.GetArrayFromImage(sitk.DICOMOrient(image, "RAS")).astype(np.float32)


def _filled(mask: np.ndarray) -> np.ndarray:
    closed = sitk.BinaryMorphologicalClosing(sitk.GetImageFromArray(mask.astype(np.uint8)), (6, 6, 6))
    return sitk.GetArrayFromImage(sitk.BinaryFillhole(closed)).astype(np.float32)
