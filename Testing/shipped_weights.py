"""Make the weights of a training ready for the package: in half precision, without paths of the machine.

The record of the training keeps everything but the place of weights that it was initialised with. The command prints
what a model card needs, parameters and multiply-adds, as Markdown::

    python Testing/shipped_weights.py tissue/weights.pt --output JointRegSeg/JointRegSegLib/weights/tissue.pt
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from JointRegSegLib.multitask.network import MultiTaskNetwork
from JointRegSegLib.multitask.weights import StudyWeights, load_study_weights, save_study_weights


def multiply_adds(network: MultiTaskNetwork, shape: tuple[int, ...]) -> float:
    """Count the multiply-adds of convolutions and linear layers for one study.

    Args:
        network: The network.
        shape: Voxels (D, H, W) of the grid of the training; a super-resolution sees fewer of them.
    """
    study = torch.zeros(1, len(network.config.modalities), *shape)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        network.eval()(study)
    return counter.get_total_flops() / 2


def grid_of(weights: StudyWeights) -> tuple[int, ...]:
    """Return the voxels (D, H, W) of a prepared study, padded to what the network needs."""
    multiple = weights.network.config.multiple
    return tuple(size + -size % multiple for size in weights.preparation.shape)


def without_paths(metadata: dict[str, Any]) -> dict[str, Any]:
    """Return the record of a training with the names of files in place of their paths."""
    found = dict(metadata)
    for part, key in (("configuration", "initialise"), ("training", "initialised")):
        values = dict(found.get(part) or {})
        if isinstance(values.get(key), dict):
            values[key] = values[key] | {"weights": Path(values[key]["weights"]).name}
        elif values.get(key):
            values[key] = Path(values[key]).name
        found[part] = values
    return found


def main() -> None:
    """Run the command."""
    assert __doc__ is not None
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("weights", help="weights file of tasks on single studies")
    parser.add_argument("--output", required=True, help="weights file to write")
    options = parser.parse_args()
    weights = load_study_weights(options.weights)
    path = save_study_weights(options.output, weights.network, without_paths(weights.metadata), half=True)
    shape = grid_of(weights)
    print("| | |\n| --- | --- |")
    print(f"| parameters | {weights.network.parameter_count / 1e6:.2f} million |")
    print(f"| grid | {' x '.join(map(str, shape))} voxels of {weights.preparation.preprocessing.spacing_mm:g} mm |")
    print(f"| multiply-adds for a study | {multiply_adds(weights.network, shape) / 1e9:.1f} billion |")
    print(f"| file | {path.stat().st_size / 1e6:.1f} MB |")


if __name__ == "__main__":
    main()
