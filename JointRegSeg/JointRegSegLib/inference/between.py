"""Both studies of a pair, sampled half-way between them for the registration."""

from __future__ import annotations

from dataclasses import dataclass, replace

import SimpleITK as sitk
import torch
from torch import Tensor

from NeuroCESTLib.core.progress import Progress, silent

from ..images.grid import LARGEST_TILED_GRID, WorkingGrid
from ..images.preprocessing.brain_grid import brain_grid
from ..images.preprocessing.config import PreprocessingConfig
from ..images.preprocessing.preparation import prepare_checked
from ..images.preprocessing.prepared_study import PreparedStudy
from ..registration.deformation import Deformation, resize_displacement
from ..registration.transforms import on_other_grid
from .checks import CheckedPair
from .summary import OfBoth


@dataclass(frozen=True)
class Between:
    """Both studies sampled half-way between them, so that neither is interpolated more than the other.

    An exchange of the visits exchanges the studies here and nothing else.

    Attributes:
        fixed: Fixed study half-way.
        moving: Moving study half-way.
        outer: Working grid of the pair, in the space of the fixed study.
        half: Map from points of the fixed space to points half-way, and from there to points of the moving space.
        back: Its inverse.
    """

    fixed: PreparedStudy
    moving: PreparedStudy
    outer: WorkingGrid
    half: sitk.AffineTransform
    back: sitk.AffineTransform

    @classmethod
    def of(
        cls,
        pair: CheckedPair,
        half: sitk.AffineTransform,
        outer: WorkingGrid,
        configs: tuple[PreprocessingConfig, PreprocessingConfig],
        progress: Progress = silent,
    ) -> Between:
        """Prepare the images that drive the registration, each study as on the working grid of the pair.

        Args:
            pair: Both studies.
            half: Half of their linear alignment, the square root of the map from fixed to moving points.
            outer: Working grid of the pair.
            configs: Preprocessing of the fixed and of the moving study.
            progress: May raise to cancel.
        """
        back = sitk.AffineTransform(half.GetInverse())
        config = PreprocessingConfig(spacing_mm=outer.spacing_mm)
        sides = (pair.fixed, back), (pair.moving, half)
        brains = [(side.brain, to_side) for side, to_side in sides]
        grid = brain_grid(brains, config, sitk.Image(1, 1, 1, sitk.sitkUInt8), LARGEST_TILED_GRID)
        prepared = []
        for number, ((side, to_side), own) in enumerate(zip(sides, configs, strict=True)):
            progress(number / 2, "resampling half-way between the visits")
            study = replace(side.study, images={m: side.study.images[m] for m in pair.driving})
            prepared.append(prepare_checked(study, side.brain, own, grid, to_side, side.coverage))
        progress(1.0, "resampling half-way between the visits")
        return cls(prepared[0], prepared[1], outer, half, back)

    def start(self, deformation: Deformation) -> Deformation:
        """Express the network's deformation half-way."""
        fields = deformation.displacement, deformation.inverse, deformation.velocity
        whole = (None if f is None else resize_displacement(f, self.outer.shape) for f in fields)
        moved = [None if f is None else on_other_grid(f, self.outer, self.back, self.fixed.grid) for f in whole]
        assert moved[0] is not None
        return Deformation(moved[0], moved[1], moved[2])

    def masks(self, tumors: OfBoth) -> OfBoth:
        """Resample tumours (1, 1, D, H, W) of the working grid."""
        first, second = (None if tumor is None else self._mask(tumor) for tumor in tumors)
        return first, second

    def _mask(self, tumor: Tensor) -> Tensor:
        image = self.fixed.grid.resample(self.outer.to_sitk(tumor[0, 0].float()), self.back)
        return torch.from_numpy(sitk.GetArrayFromImage(image) >= 0.5)[None, None]

    def result(self, refined: Deformation) -> Deformation:
        """Express a deformation and its inverse on the working grid of the pair."""
        assert refined.inverse is not None
        forward, inverse = (
            on_other_grid(f, self.fixed.grid, self.half, self.outer) for f in (refined.displacement, refined.inverse)
        )
        return Deformation(forward, inverse)
