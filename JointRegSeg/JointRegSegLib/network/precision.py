"""Number format and memory order of convolutions, and which pair is fastest on a device."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor, nn

from ..registration.deformation import Deformation
from .brain_norm import TileStatistics
from .joint import JointNetwork, JointOutput

_Output = TypeVar("_Output", Tensor, Deformation)
_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass(frozen=True)
class Precision:
    """Number format of convolutions, and the order of their features in memory.

    Attributes:
        dtype: 'float32', 'bfloat16' or 'float16'.
        channels_last: Whether the channels of a voxel are contiguous in memory.
    """

    dtype: str = "float32"
    channels_last: bool = False

    def __post_init__(self) -> None:
        if self.dtype not in _DTYPES:
            raise ValueError(f"number format '{self.dtype}' is unknown; use one of {', '.join(_DTYPES)}")

    def __str__(self) -> str:
        return f"{self.dtype} channels last" if self.channels_last else self.dtype

    @property
    def torch_dtype(self) -> torch.dtype:
        """Number format as a dtype of torch."""
        return _DTYPES[self.dtype]

    @contextlib.contextmanager
    def autocast(self, device: torch.device) -> Iterator[None]:
        """Run convolutions in the number format within the context; weights, sums and losses stay in float32."""
        with torch.autocast(device.type, dtype=self.torch_dtype, enabled=self.dtype != "float32"):
            yield

    def arrange(self, volume: Tensor) -> Tensor:
        """Return a volume (B, C, D, H, W) in channels-last order if this is the memory order, else unchanged."""
        return volume.contiguous(memory_format=torch.channels_last_3d) if self.channels_last else volume

    def convert(self, volume: Tensor) -> Tensor:
        """Return a volume (B, C, D, H, W) in the number format and the memory order."""
        return volume.to(self.torch_dtype).contiguous(memory_format=self._memory_format)

    def arrange_weights(self, network: nn.Module) -> None:
        """Bring the kernels of the convolutions of a network into the memory order."""
        for parameter in network.parameters():
            if parameter.ndim == 5:
                parameter.data = parameter.data.contiguous(memory_format=self._memory_format)

    @property
    def _memory_format(self) -> torch.memory_format:
        return torch.channels_last_3d if self.channels_last else torch.contiguous_format


FLOAT32 = Precision()
"""The exact format, in which networks are stored."""
_CANDIDATES = (FLOAT32, Precision("float32", True), Precision("bfloat16", True))
_ON_GPU = (Precision("float16"), Precision("float16", True))


def candidate_precisions(device: torch.device | str = "cpu") -> tuple[Precision, ...]:
    """Return the formats that may be fastest on a device, starting with float32 in the usual order."""
    return _CANDIDATES + _ON_GPU if torch.device(device).type == "cuda" else _CANDIDATES


def fastest_precision(device: torch.device | str = "cpu") -> Precision:
    """Return the format that is fastest on such a device for networks of this kind.

    It follows from what the hardware can do and is not measured, so that results do not depend on how busy the machine
    is: bfloat16 on processors with instructions for it (AMX or AVX-512 BF16), float16 on GPUs with tensor cores, and
    float32 on others.
    """
    device = torch.device(device)
    if device.type == "cuda":
        has_tensor_cores = torch.cuda.get_device_capability(device) >= (7, 0)
        return Precision("float16" if has_tensor_cores else "float32", True)
    return Precision("bfloat16" if has_bfloat16_instructions() else "float32", True)


def has_bfloat16_instructions() -> bool:
    """Whether the processor computes with bfloat16 itself: by AMX tiles or by AVX-512 BF16."""
    return any(getattr(torch.cpu, name, bool)() for name in ("_is_amx_tile_supported", "_is_avx512_bf16_supported"))


def converted(network: JointNetwork, precision: Precision) -> JointNetwork:
    """Return a copy of a network for inference in a format.

    Normalisations and the output layer of the registration stay in float32, as sums of many small numbers need its
    precision.
    """
    network = copy.deepcopy(network).eval().requires_grad_(False)
    exact = None if network.registration is None else network.registration.output
    for module in network.modules():
        if isinstance(module, nn.Conv3d | nn.ConvTranspose3d):
            module.to(dtype=torch.float32 if module is exact else precision.torch_dtype)
    precision.arrange_weights(network)
    network.convert = precision.convert
    return network


@torch.no_grad()
def run_fast(
    network: JointNetwork,
    fixed: Tensor,
    moving: Tensor,
    stride: int | None = None,
    precision: Precision | None = None,
) -> JointOutput:
    """Run ``network(fixed, moving, stride)`` in evaluation mode, without gradients.

    Args:
        network: Network with weights in float32; it is not changed.
        fixed: Studies (B, C, D, H, W).
        moving: Studies of the same shape.
        stride: As for the network.
        precision: Format of the computation; None for the fastest one on the device.

    Returns:
        Output of the network, float32 and contiguous.

    Raises:
        ValueError: The shapes of the studies do not fit the network; see ``JointNetwork.forward``.
    """
    precision = fastest_precision(fixed.device) if precision is None else precision
    output = converted(network, precision)(fixed, moving, stride)
    return JointOutput(_plain(output.fixed_logits), _plain(output.moving_logits), output.deformation)


@torch.no_grad()
def register_fast(
    network: JointNetwork,
    fixed: Tensor,
    moving: Tensor,
    stride: int | None = None,
    precision: Precision | None = None,
) -> Deformation:
    """Run ``network.register(fixed, moving, stride)`` as ``run_fast`` does; raises as ``segment_fast`` does."""
    precision = fastest_precision(fixed.device) if precision is None else precision
    return _finite(network, precision, lambda net: net.register(fixed, moving, stride))


@torch.no_grad()
def segment_fast(
    network: JointNetwork,
    study: Tensor,
    stride: int | None = None,
    precision: Precision | None = None,
    statistics: TileStatistics | None = None,
) -> Tensor:
    """Run ``network.segment(study, stride, statistics)`` as ``run_fast`` does; the logits are float32, contiguous.

    Raises:
        ValueError: The result is not finite, even in float32.
    """

    def segment(net: JointNetwork) -> Tensor:
        if statistics is not None:
            statistics.restart()
        return net.segment(study, stride, statistics).float().contiguous()

    return _finite(network, fastest_precision(study.device) if precision is None else precision, segment)


def _finite(network: JointNetwork, precision: Precision, compute: Callable[[JointNetwork], _Output]) -> _Output:
    """Compute in a format, or again in float32 if a number was too large for it.

    Raises:
        ValueError: The result is not finite, even in float32.
    """
    output = compute(converted(network, precision))
    if precision.dtype != FLOAT32.dtype and not _is_finite(_values(output)):
        output = compute(converted(network, FLOAT32))
    require_finite(network.config.name, _values(output))
    return output


def require_finite(name: str, values: Tensor) -> None:
    """Refuse the output of a network that is not finite.

    Args:
        name: Name of the network.
        values: Its output, of any shape.

    Raises:
        ValueError: A value is infinite or not a number.
    """
    if not _is_finite(values):
        raise ValueError(
            f"the network '{name}' computes numbers that are not finite from these images: use other weights, or check "
            "the images for extreme intensities"
        )


def _is_finite(values: Tensor) -> bool:
    return bool(torch.stack(values.aminmax()).isfinite().all())  # needs no copy of the values


def _values(output: Tensor | Deformation) -> Tensor:
    return output if isinstance(output, Tensor) else output.displacement


def _plain(logits: Tensor | None) -> Tensor | None:
    return None if logits is None else logits.float().contiguous()
