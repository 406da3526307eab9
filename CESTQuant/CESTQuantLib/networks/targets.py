"""What a network learns of a tissue: the targets, then everything else that varies in it."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from ..tissue.distributions import TissueDistribution
from .architecture import NetworkOptions, ReconstructionNetwork


def require_targets(targets: Sequence[str], tissue: TissueDistribution) -> None:
    """Check that there are targets, that all of them vary in the tissue, and that none is named twice.

    Raises:
        ValueError: A target cannot be learned; the message lists those that can.
    """
    fixed = [path for path in targets if path not in tissue.varied]
    if fixed or not targets:
        raise ValueError(
            f"targets: {', '.join(fixed) or 'none given'}; choose among what varies in the tissue: "
            f"{', '.join(tissue.varied)}"
        )
    if len(set(targets)) != len(targets):
        raise ValueError(f"targets: {', '.join(targets)} names an entry twice")


def outputs_of(targets: Sequence[str], distribution: TissueDistribution) -> tuple[str, ...]:
    """Return the paths of all entries of a tissue that vary, the targets first."""
    return (*targets, *(path for path in distribution.varied if path not in targets))


def new_network(
    measurements: int, outputs: Sequence[str], distribution: TissueDistribution, options: NetworkOptions, seed: int
) -> ReconstructionNetwork:
    """Make an untrained network whose outputs have the ranges of a distribution.

    Args:
        measurements: Number of inputs.
        outputs: Paths of the outputs.
        distribution: Distribution of the tissues.
        options: Options of the network.
        seed: Seed of the weights.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = ReconstructionNetwork(measurements, len(outputs), **options)
    ranges = distribution.ranges()
    logarithmic = [path for path in outputs if distribution.is_logarithmic(path)]
    network.set_targets({path: ranges[path] for path in outputs}, logarithmic)
    return network
