"""The joint network: an encoder for both studies, a head that segments each study, and a head that registers them.

Source: Estienne et al., Deep learning-based concurrent brain registration and tumor segmentation, Frontiers in
Computational Neuroscience 14:17 (2020). The configuration 'estienne2020' is the published network, and 'neurocest' is
derived from it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..registration.deformation import Deformation, cumulative_displacement, integrate_velocity, resize_displacement
from .brain_norm import Brains, TileStatistics
from .configuration import NetworkConfig
from .encoder import Encoder
from .heads import RegistrationHead, SegmentationHead

Codes = tuple[list[Tensor], Brains | None]
"""Features of a study at every level, finest first, and its brain where the network normalises by it."""


@dataclass(frozen=True)
class JointOutput:
    """Output of the network for pairs of studies.

    Attributes:
        fixed_logits: Class scores (B, classes, D, H, W) of the fixed studies; None without a segmentation head.
        moving_logits: The same for the moving studies.
        deformation: Deformation between the studies on the grid of the input; None without a registration head.
        fixed_auxiliary: In training, class scores (B, classes, d, h, w) of the coarser levels for deep supervision,
            finest first, each on its own grid.
        moving_auxiliary: The same for the moving studies.
    """

    fixed_logits: Tensor | None = None
    moving_logits: Tensor | None = None
    deformation: Deformation | None = None
    fixed_auxiliary: tuple[Tensor, ...] = ()
    moving_auxiliary: tuple[Tensor, ...] = ()

    def select(self, pair: int) -> JointOutput:
        """Return the output for the pair with the given index, as a batch of one."""

        def part(scores: Tensor | None) -> Tensor | None:
            return None if scores is None else scores[pair : pair + 1]

        return JointOutput(
            part(self.fixed_logits),
            part(self.moving_logits),
            None if self.deformation is None else self.deformation.select(pair),
            tuple(level[pair : pair + 1] for level in self.fixed_auxiliary),
            tuple(level[pair : pair + 1] for level in self.moving_auxiliary),
        )


class JointNetwork(nn.Module):
    """Network for segmentation, registration or both, as its configuration says; see ``build_network``.

    The input is averaged over blocks of ``stride`` voxels along each axis, and the outputs are interpolated back to the
    grid of the input. The weights do not depend on the stride, so that a network trained on 2 mm data with stride 1 can
    be used for 1 mm data with stride 2.

    Attributes:
        config: Configuration of the network.
        encoder: Encoder of both studies.
        segmentation: Segmentation head, or None.
        registration: Registration head, or None.
        convert: Function that brings a study into the number format and memory order of the weights; None for float32
            in the usual order.
    """

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = Encoder(config)
        self.segmentation = SegmentationHead(config) if config.segmentation else None
        self.registration = RegistrationHead(config) if config.registration else None
        self.convert: Callable[[Tensor], Tensor] | None = None
        self._initialize()

    def forward(self, fixed: Tensor, moving: Tensor, stride: int | None = None) -> JointOutput:
        """Segment and register pairs of studies.

        Args:
            fixed: Fixed studies (B, C, D, H, W) with the modalities of the configuration as channels.
            moving: Moving studies, of the same shape.
            stride: Edge in voxels of the blocks that are averaged; None for that of the configuration.

        Returns:
            Class scores and deformation on the grid of the input.

        Raises:
            ValueError: The shapes differ, the number of channels is wrong, or a size is not a multiple of
                ``config.multiple`` times the stride.
        """
        fixed_codes, moving_codes = self._codes_of_pair(fixed, moving, stride)
        shape = fixed.shape[2:]
        fixed_logits = moving_logits = deformation = None
        fixed_auxiliary: tuple[Tensor, ...] = ()
        moving_auxiliary: tuple[Tensor, ...] = ()
        if self.segmentation is not None:
            fixed_logits, fixed_auxiliary = self.segmentation(list(fixed_codes[0]), fixed_codes[1])
            moving_logits, moving_auxiliary = self.segmentation(list(moving_codes[0]), moving_codes[1])
            fixed_logits, moving_logits = _resized(fixed_logits, shape), _resized(moving_logits, shape)
        if self.registration is not None:
            deformation = self._registered(self.registration, fixed_codes, moving_codes, shape)
        return JointOutput(fixed_logits, moving_logits, deformation, fixed_auxiliary, moving_auxiliary)

    def register(self, fixed: Tensor, moving: Tensor, stride: int | None = None) -> Deformation:
        """Register pairs of studies without segmenting them.

        Args:
            fixed: As for ``forward``.
            moving: As for ``forward``.
            stride: As for ``forward``.

        Returns:
            Deformation on the grid of the input.

        Raises:
            ValueError: The network has no registration head, or as for ``forward``.
        """
        if self.registration is None:
            raise ValueError(f"the network '{self.config.name}' has no registration head")
        return self._registered(self.registration, *self._codes_of_pair(fixed, moving, stride), fixed.shape[2:])

    def segment(self, study: Tensor, stride: int | None = None, statistics: TileStatistics | None = None) -> Tensor:
        """Segment studies.

        Args:
            study: Studies (B, C, D, H, W) with the modalities of the configuration as channels.
            stride: As for ``forward``.
            statistics: Statistics with which a tile of a larger study is normalised by the brain; None for those of the
                study itself. Networks with another normalisation do not use them.

        Returns:
            Class scores (B, classes, D, H, W).

        Raises:
            ValueError: The network has no segmentation head, the number of channels is wrong, or a size is not a
                multiple of ``config.multiple`` times the stride.
        """
        return self.segment_levels(study, stride, statistics)[0]

    def segment_levels(
        self, study: Tensor, stride: int | None = None, statistics: TileStatistics | None = None
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Segment studies as ``segment`` does; in training, also return the scores of coarser levels, finest first."""
        if self.segmentation is None:
            raise ValueError(f"the network '{self.config.name}' has no segmentation head")
        stride = self._checked_stride(study, stride)
        logits, auxiliary = self.segmentation(*self._codes(study, stride, statistics))
        return _resized(logits, study.shape[2:]), auxiliary

    @property
    def parameter_count(self) -> int:
        """Number of trainable parameters."""
        return sum(parameter.numel() for parameter in self.parameters())

    def _codes_of_pair(self, fixed: Tensor, moving: Tensor, stride: int | None) -> tuple[Codes, Codes]:
        if fixed.shape != moving.shape:
            raise ValueError(
                f"the fixed study has the shape {tuple(fixed.shape)}, the moving one {tuple(moving.shape)}; "
                "resample both to one grid"
            )
        stride = self._checked_stride(fixed, stride)
        return self._codes(fixed, stride), self._codes(moving, stride)

    def _registered(self, head: RegistrationHead, fixed: Codes, moving: Codes, shape: torch.Size) -> Deformation:
        """Return the deformation on a grid of ``shape``; the lists of the codes are empty afterwards."""
        (fixed_codes, fixed_brains), (moving_codes, moving_brains) = fixed, moving
        both = None if fixed_brains is None or moving_brains is None else fixed_brains | moving_brains
        predicted = self._predicted(head, moving_codes, fixed_codes, both)
        with torch.autocast(predicted.device.type, enabled=False):  # bfloat16 resolves positions only to 0.5 voxels
            return self._deformation(predicted, shape)

    def _codes(self, study: Tensor, stride: int, statistics: TileStatistics | None = None) -> Codes:
        """Average a study over blocks of ``stride`` voxels and encode it; also return its brain where it is needed."""
        if stride > 1:
            with torch.autocast(study.device.type, enabled=False):
                study = F.avg_pool3d(study, stride)
        by_brain = self.config.normalisation == "brain"
        brains = Brains.of_studies(study, self.config.levels, statistics) if by_brain else None
        return self.encoder(study if self.convert is None else self.convert(study), brains), brains

    def _predicted(
        self, head: RegistrationHead, moving_codes: list[Tensor], fixed_codes: list[Tensor], brains: Brains | None
    ) -> Tensor:
        """Return the raw output (B, 3, d, h, w) of the registration head at its level, and empty both lists."""
        merged = head.merge(moving_codes, fixed_codes)
        exchanged: list[Tensor] = []
        if self.config.antisymmetric:
            subtracted = self.config.merge == "subtract"
            exchanged = [-m for m in merged] if subtracted else head.merge(fixed_codes, moving_codes)
        moving_codes.clear()
        fixed_codes.clear()
        predicted = head(merged, brains)
        return predicted - head(exchanged, brains) if exchanged else predicted

    def _deformation(self, predicted: Tensor, shape: torch.Size) -> Deformation:
        """Turn the raw output into a deformation on a grid of ``shape``, in at least float32."""
        if predicted.dtype in (torch.float16, torch.bfloat16):
            predicted = predicted.float()
        if self.config.deformation == "displacement":
            return Deformation(resize_displacement(predicted, shape))
        if self.config.deformation == "cumulative":
            gradients = predicted.sigmoid()
            displacement = resize_displacement(cumulative_displacement(gradients), shape)
            return Deformation(displacement, gradients=gradients)
        steps = self.config.integration_steps
        forward, backward = (integrate_velocity(velocity, steps) for velocity in (predicted, -predicted))
        return Deformation(
            resize_displacement(forward, shape), inverse=resize_displacement(backward, shape), velocity=predicted
        )

    def _checked_stride(self, study: Tensor, stride: int | None) -> int:
        """Return the stride to use, after checking that the network can take studies with it."""
        stride = self.config.stride if stride is None else stride
        if isinstance(stride, bool) or not isinstance(stride, int) or stride < 1:
            raise ValueError(f"stride is {stride!r} but must be a whole number of at least 1")
        channels = len(self.config.modalities)
        if study.ndim != 5 or study.shape[1] != channels:
            names = ", ".join(self.config.modalities)
            raise ValueError(
                f"the network '{self.config.name}' takes studies of shape (B, {channels}, D, H, W) with the "
                f"channels {names}; this study has the shape {tuple(study.shape)}"
            )
        multiple = self.config.multiple * stride
        if any(size % multiple or not size for size in study.shape[2:]):
            raise ValueError(
                f"the study has {' x '.join(map(str, study.shape[2:]))} voxels but the network '{self.config.name}' "
                f"needs multiples of {multiple}; pad or crop it"
            )
        return stride

    def _initialize(self) -> None:
        """Draw weights by the method of Glorot without normalisation (as published), else of He; set biases to zero.

        Weights without memory (on the device 'meta') are left alone; torch would load its compiler for them.
        """
        for module in self.modules():
            if isinstance(module, nn.Conv3d | nn.ConvTranspose3d) and not module.weight.is_meta:
                if self.config.normalisation == "none":
                    nn.init.xavier_uniform_(module.weight)
                else:
                    nn.init.kaiming_normal_(module.weight, a=0.01)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        if self.registration is not None and self.config.zero_output and not self.registration.output.weight.is_meta:
            nn.init.zeros_(self.registration.output.weight)


def build_network(config: NetworkConfig) -> JointNetwork:
    """Build an untrained network; its weights are drawn from the global random generator of torch."""
    return JointNetwork(config)


def _resized(logits: Tensor, shape: torch.Size) -> Tensor:
    """Interpolate class scores to ``shape``, in at least float32."""
    if logits.shape[2:] == shape:
        return logits
    logits = logits.float() if logits.dtype in (torch.float16, torch.bfloat16) else logits
    return F.interpolate(logits, size=tuple(shape), mode="trilinear", align_corners=False)
