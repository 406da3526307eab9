"""The head of tasks that give numbers for a whole study."""

from __future__ import annotations

import torch

from JointRegSegLib.network.configuration import NetworkConfig
from JointRegSegLib.tasks.pooling import PoolingHead

SMALL = NetworkConfig(
    channels=(4, 6), encoder_convolutions=(1, 1), decoder_convolutions=(1,), registration_level=0, auxiliary=0
)


def codes(values: torch.Tensor) -> list[torch.Tensor]:
    """Codes of studies that differ by a thousandth of what they have in common."""
    common = [torch.linspace(-3, 5, channels)[None, :, None, None, None] for channels in SMALL.channels]
    return [(c + 1e-3 * values[:, None, None, None, None]).expand(-1, -1, 2, 2, 2) for c in common]


def test_small_differences_between_studies_are_learnt_in_few_steps() -> None:
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(1)
    head = PoolingHead(SMALL, 1)
    optimizer = torch.optim.Adam(head.parameters(), lr=0.05)
    for _ in range(100):
        values = torch.randn(4, generator=generator)
        loss = (head(codes(values))[:, 0] - values).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    values = torch.randn(50, generator=generator)
    error = head.eval()(codes(values))[:, 0].detach() - values
    assert float(error.square().mean()) < 0.05


def test_a_prediction_does_not_depend_on_the_other_studies_of_its_batch() -> None:
    generator = torch.Generator().manual_seed(2)
    head = PoolingHead(SMALL, 2)
    for _ in range(5):
        head(codes(torch.randn(3, generator=generator)))
    values = torch.randn(4, generator=generator)
    together = head.eval()(codes(values))
    alone = torch.cat([head(codes(value[None])) for value in values])
    assert torch.allclose(together, alone, atol=1e-5)
