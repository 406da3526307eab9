"""The moving average of the weights."""

from __future__ import annotations

import torch
from joint_training_cases import toy_config

from JointRegSegLib.training.initial import new_network
from JointRegSegLib.training.updates.averaging import AveragedNetwork


def test_averaged_weights_follow_their_formula() -> None:
    network = new_network(toy_config())
    average, expected = AveragedNetwork(network, 0.3), next(network.parameters()).detach().clone()
    for update in (1, 2, 3):
        with torch.no_grad():
            next(network.parameters()).add_(update)
        average.update(network)
        decay = min(0.3, (1 + update) / (10 + update))
        expected = decay * expected + (1 - decay) * next(network.parameters()).detach()
    torch.testing.assert_close(next(average.network.parameters()), expected)
