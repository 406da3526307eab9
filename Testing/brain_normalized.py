"""Turn weights with the normalisation 'instance' into weights with the normalisation 'brain' that do nearly the same.

A normalisation over the whole block depends on the background around the brain; one over the brain does not. For each
normalisation, the scale and shift are changed so that both agree on the average of some studies::

    python Testing/brain_normalized.py --manifest patients.csv --weights old.pt --output new.pt
"""

from __future__ import annotations

import argparse
from dataclasses import replace

import torch
from torch import Tensor

from JointRegSegLib.cohort.manifest import read_manifest
from JointRegSegLib.cohort.preparation import PreparationConfig, StudyPreparer
from JointRegSegLib.cohort.sample import OUTSIDE
from JointRegSegLib.images.grid import block_around
from JointRegSegLib.images.preprocessing.config import PreprocessingConfig
from JointRegSegLib.network.blocks import InstanceNorm
from JointRegSegLib.network.brain_norm import Brains
from JointRegSegLib.network.joint import JointNetwork, build_network
from JointRegSegLib.network.weights import load_weights, save_weights


def with_brain_statistics(network: JointNetwork, blocks: list[Tensor]) -> JointNetwork:
    """Return a network with the normalisation 'brain' that agrees on the average over studies.

    Args:
        network: Network with the normalisation 'instance'.
        blocks: Studies (1, C, D, H, W) with as much background as the network expects.
    """
    found: dict[str, list[tuple[Tensor, Tensor, Tensor, Tensor]]] = {}
    brains: Brains | None = None

    def record(name: str):
        def hook(module: InstanceNorm, inputs: tuple[Tensor, ...]) -> None:
            x = inputs[0][0].flatten(1).double()
            inside = brains.at(inputs[0])[0, 0].flatten() > 0
            found.setdefault(name, []).append((x.mean(1), x.std(1), x[:, inside].mean(1), x[:, inside].std(1)))

        return hook

    names = {name: module for name, module in network.named_modules() if isinstance(module, InstanceNorm)}
    hooks = [module.register_forward_pre_hook(record(name)) for name, module in names.items()]
    with torch.no_grad():
        for number, block in enumerate(blocks):
            other = blocks[(number + 1) % len(blocks)]
            own = Brains.of_studies(block, network.config.levels)
            brains = own
            if other.shape == block.shape:
                brains = own | Brains.of_studies(other, network.config.levels)
            network.segment(block, 1)
            if network.registration is not None and other.shape == block.shape:
                network(block, other, 1)
    for hook in hooks:
        hook.remove()
    result = build_network(replace(network.config, normalisation="brain"))
    result.load_state_dict(network.state_dict())
    modules = dict(result.named_modules())
    with torch.no_grad():
        for name, statistics in found.items():
            mean, sd, brain_mean, brain_sd = (torch.stack(values) for values in zip(*statistics, strict=True))
            module = modules[name]
            weight = module.weight.double()
            module.bias.add_((weight * ((brain_mean - mean) / sd).mean(0)).float())
            module.weight.mul_((brain_sd / sd).mean(0).float())
    return result.eval()


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name in ("--manifest", "--weights", "--output"):
        parser.add_argument(name, required=True)
    options = parser.parse_args()
    weights = load_weights(options.weights)
    config = PreparationConfig(PreprocessingConfig(spacing_mm=2.0))
    prepare = StudyPreparer(read_manifest(options.manifest).of_split("train"), config)
    blocks = []
    for index in range(len(prepare)):
        sample = prepare(index)
        block = block_around(sample.mask, weights.config.multiple, weights.brain_share)
        images = block.take(sample.images[None], OUTSIDE)
        blocks.append(images)
        dropped = images.clone()
        dropped[:, [0, 2]] = OUTSIDE
        blocks.append(dropped if index % 2 else images.flip(-1))
    network = with_brain_statistics(weights.network, blocks)
    metadata = {name: value for name, value in weights.metadata.items() if name != "brain_share"}
    save_weights(options.output, network, metadata)


if __name__ == "__main__":
    main()
