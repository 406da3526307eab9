"""The task of reconstructing a study from a short code; what the code cannot say is unusual."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import SimpleITK as sitk
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..metrics.image_similarity import ssim
from ..metrics.prediction import roc_auc
from ..network.bottleneck import CodeHead
from ..network.configuration import NetworkConfig
from .image_target import ImageTarget, coronal, masked_mean, mean_scores, similarity
from .study_task import FILE, TEXT, StudyTask, require_number, row

LOSSES = ("l2", "l1", "ssim")


@dataclass(frozen=True, kw_only=True)
class Autoencoder(StudyTask):
    """Reconstruction from a code without skip connections.

    Attributes:
        code_size: Numbers of the code.
        variational: Whether the code is drawn from a normal distribution in training (Kingma and Welling 2014).
        kl_weight: Weight of the divergence of that distribution from the standard normal one, per number of the code.
        loss_name: ``l2``, ``l1`` or ``ssim``. In a configuration the key is ``loss``.
        lesions: Column of the manifest with maps of abnormal voxels, which do not train and judge the anomaly map;
            empty for none.
        lesion_numbers: Numbers of the abnormal voxels in these maps; empty for all above 0.
        probe: Column of the manifest that an evaluation predicts from the code by a linear model; empty for none.
    """

    kind: ClassVar[str] = "autoencoder"
    title: ClassVar[str] = "Autoencoder"
    quality_name: ClassVar[str] = "PSNR in dB"
    from_image: ClassVar[bool] = True

    code_size: int = 128
    variational: bool = False
    kl_weight: float = 1e-3
    loss_name: str = "l2"
    lesions: str = ""
    lesion_numbers: tuple[int, ...] = ()
    probe: str = ""

    def __post_init__(self) -> None:
        super().__post_init__()
        if type(self.code_size) is not int or not 1 <= self.code_size <= 65536:
            raise ValueError(f"code_size is {self.code_size!r} but must be a whole number from 1 to 65536")
        if not isinstance(self.variational, bool):
            raise ValueError(f"variational is {self.variational!r} but must be true or false")
        if self.loss_name not in LOSSES:
            raise ValueError(f"loss is {self.loss_name!r} but must be one of {', '.join(LOSSES)}")
        for name in ("lesions", "probe"):
            if not isinstance(getattr(self, name), str):
                raise ValueError(f"{name} is {getattr(self, name)!r} but must be the name of a column")
        numbers = self.lesion_numbers
        if not isinstance(numbers, list | tuple) or not all(type(n) is int and n > 0 for n in numbers):
            raise ValueError(f"lesion_numbers is {numbers!r} but must be a list of whole numbers above 0")
        object.__setattr__(self, "lesion_numbers", tuple(numbers))
        require_number(self, "kl_weight", 0)

    @property
    def columns(self) -> Mapping[str, str]:
        """The columns of abnormal voxels and of the linear probe."""
        found = {self.lesions: FILE, self.probe: TEXT}
        return {column: kind for column, kind in found.items() if column}

    @property
    def offer(self) -> str:
        """The images, the map and the code."""
        return f"reconstruction, map of anomalies and code of {self.code_size} numbers"

    @property
    def main_score(self) -> tuple[str, str]:
        """Peak signal-to-noise ratio."""
        return "psnr", "PSNR of the reconstruction in dB"

    @property
    def map_classes(self) -> int:
        """Two, normal and abnormal, where there are maps of abnormal voxels."""
        return 2 if self.lesions else 0

    def map_target(self, labels: sitk.Image, source: str) -> sitk.Image | None:
        """Return 1 where a voxel is abnormal."""
        voxels = sitk.GetArrayViewFromImage(labels)
        abnormal = np.isin(voxels, self.lesion_numbers) if self.lesion_numbers else voxels > 0
        found = sitk.GetImageFromArray(abnormal.astype(np.uint8))
        found.CopyInformation(labels)
        return found

    def value_target(self, text: str, where: str) -> str | None:
        """Read the field of the column of the linear probe; an empty one, '-', 'NaN', 'NA' or 'n/a' is missing."""
        return None if text.strip().lower() in ("", "-", "nan", "na", "n/a", "none") else text.strip()

    def fitted(self, targets: Sequence[Any], source: str) -> Autoencoder:
        """Return the task itself, which learns nothing from the targets."""
        return self

    def head(self, network: NetworkConfig) -> nn.Module:
        """Build the bottleneck and the decoder."""
        return CodeHead(network, self.code_size, self.variational)

    def loss(self, output: Any, target: Any, mask: Tensor) -> Tensor:
        """Compute the difference of the images in the normal brain, and the divergence of the code."""
        images, mean, logarithm = output
        normal = mask if target.lesions is None else mask & ~target.lesions
        total = images.new_zeros(())
        for n in target.present:
            if self.loss_name == "ssim":
                if not bool(normal.any()):
                    continue  # nothing to compare, as for the other losses
                true = target.images[n].float()
                total = total + 1 - ssim(torch.where(mask, images[0, n], true), true, normal)
            else:
                difference = images[0, n] - target.images[n]
                error = difference.abs() if self.loss_name == "l1" else difference.square()
                total = total + masked_mean(error, normal)
        total = total / max(len(target.present), 1)
        if self.variational:
            divergence = 0.5 * (mean.square() + logarithm.exp() - 1 - logarithm).mean()
            total = total + self.kl_weight * divergence
        return total

    def decode(self, output: Any) -> dict[str, np.ndarray]:
        """Return the reconstruction (C, D, H, W) as ``images`` and the ``code``."""
        return {"images": output[0][0].float().cpu().numpy(), "code": output[1][0].float().cpu().double().numpy()}

    def rows(self, prediction: Any, target: ImageTarget) -> list[dict[str, Any]]:
        """Return how near the reconstruction is to the images, and the numbers of the code."""
        scores = similarity(prediction["images"], target)
        return [
            row("PSNR of the reconstruction", scores["psnr"], unit="dB"),
            row("SSIM of the reconstruction", scores["ssim"]),
            *(row(f"code {number}", float(value)) for number, value in enumerate(prediction["code"], 1)),
        ]

    def maps(self, prediction: Any, target: ImageTarget, modalities: Sequence[str]) -> dict[str, np.ndarray]:
        """Return the anomaly and the reconstructed images that the study has."""
        images = {f"reconstruction_{modalities[n]}": prediction["images"][n] for n in target.present}
        return {"anomaly": anomaly(prediction["images"], target)} | images

    def compact(self, prediction: Any, target: Any) -> dict[str, Any]:
        """Return the scores, the code, and slices for pictures."""
        images, code = (
            (prediction["images"], prediction["code"]) if isinstance(prediction, dict) else (prediction, None)
        )
        truth = target.images.float().cpu()
        error = anomaly(images, target)
        auc = float("nan")
        mask = target.mask.cpu().numpy()
        if target.lesions is not None:
            abnormal = target.lesions.cpu().numpy()[mask]
            if abnormal.any() and not abnormal.all():
                auc = roc_auc(error[mask], abnormal)
        slices = {
            "true": coronal(truth, target),
            "reconstructed": coronal(images, target),
            "anomaly": error[:, error.shape[1] // 2].copy(),
        }
        return similarity(images, target) | {"anomaly_auc": auc, "code": code, "slices": slices}

    def quality(self, prediction: Any, target: Any, spacing_mm: float) -> float:
        """Return the peak signal-to-noise ratio in dB."""
        return float(prediction["psnr"])

    def scores(self, predictions: Sequence[Any], targets: Sequence[Any], spacing_mm: float) -> dict[str, float]:
        """Average PSNR, structural similarity, and the area under the ROC curve of the anomaly of abnormal voxels."""
        names = ("psnr", "ssim", "anomaly_auc") if self.lesions else ("psnr", "ssim")
        return mean_scores(predictions, names)


def anomaly(images: np.ndarray, target: ImageTarget) -> np.ndarray:
    """Compute how far a study is from its reconstruction: the smoothed absolute difference, a mean over the images.

    Args:
        images: Reconstruction (C, D, H, W).
        target: The study.

    Returns:
        Anomaly (D, H, W) in standard deviations of the brain, 0 outside.
    """
    mask = target.mask.cpu()
    present = target.present
    difference = (torch.from_numpy(images[present]) - target.images[present].float().cpu()).abs().mean(0) * mask
    smooth = [F.avg_pool3d(values[None, None].float(), 3, 1, 1)[0, 0] for values in (difference, mask)]
    return (torch.where(mask, smooth[0] / smooth[1].clamp_min(1e-6), 0)).numpy()
