"""The chain from acquisition to estimate: gradients, noise, and batches shared by processes."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from schedule_configs import AMINE_TISSUE, SCHEDULE_CONFIG

from CESTQuantLib.networks.architecture import ReconstructionNetwork
from CESTQuantLib.schedules.chain import Chain, ChainBatches
from CESTQuantLib.schedules.config import design_from_dict
from CESTQuantLib.schedules.limits import TRAINABLE
from CESTQuantLib.schedules.problem import EstimationProblem
from CESTQuantLib.tissue.distributions import TissueDistribution
from NeuroCESTLib.core.processes import Processes


def exact_chain() -> tuple[Chain, dict, torch.Tensor]:
    design = design_from_dict(SCHEDULE_CONFIG)
    torch.manual_seed(0)
    network = ReconstructionNetwork(6, 2, width=20).double()
    network.set_targets({p: design.problem.tissue.ranges()[p] for p in SCHEDULE_CONFIG["targets"]}, ["amine.k_Hz"])
    chain = Chain(design.schedule(), network, design.problem, design.problem.targets, torch.float64)
    values = design.problem.draw(40, torch.Generator().manual_seed(1))
    network.set_inputs(chain.signal(values).detach())
    return chain, values, design.problem.noise(40, 6, torch.Generator().manual_seed(2)).double()


def test_gradients_of_the_loss_in_every_acquisition_parameter_pass_finite_differences() -> None:
    chain, values, noise = exact_chain()
    base = replace(chain.acquisition.start, post_delay_s=torch.full((6,), 0.01, dtype=torch.float64))

    def loss(**changes: torch.Tensor) -> torch.Tensor:
        fixed = Chain(replace(base, **changes), chain.network, chain.problem, chain.outputs, torch.float64)
        return fixed.loss(values, noise)

    for name in (*TRAINABLE, "post_delay_s"):
        value = getattr(base, name).clone().requires_grad_()
        (gradient,) = torch.autograd.grad(loss(**{name: value}), value)
        assert bool((gradient[:-1] != 0).all()), name  # nothing follows the recovery of the last one
        for m in (0, 3, 5):
            step = torch.zeros(6, dtype=torch.float64)
            step[m] = 1e-5
            up, down = (float(loss(**{name: value.detach() + s * step}).detach()) for s in (1, -1))
            assert float(gradient[m]) == pytest.approx((up - down) / 2e-5, rel=1e-4, abs=1e-8), name


def test_gradients_of_the_loss_in_every_raw_parameter_pass_finite_differences() -> None:
    chain, values, noise = exact_chain()
    chain.loss(values, noise).backward()
    for name, raw in chain.acquisition.raw.items():
        for m in (0, len(raw) - 1):
            ends = []
            for sign in (1, -1):
                with torch.no_grad():
                    raw[m] += sign * 1e-7
                    ends.append(float(chain.loss(values, noise)))
                    raw[m] -= sign * 1e-7
            assert float(raw.grad[m]) == pytest.approx((ends[0] - ends[1]) / 2e-7, rel=1e-3, abs=1e-6), name


def test_noise_is_injected_before_the_normalisation() -> None:
    chain, values, noise = exact_chain()
    clean = chain.problem.signal(values, chain.protocol(), torch.float64)
    expected = clean + noise
    torch.testing.assert_close(chain.signal(values, noise), expected / expected.norm(dim=1, keepdim=True))


def test_processes_share_the_batch_of_one_process() -> None:
    chain, _, _ = exact_chain()
    whole = next(iter(ChainBatches(chain, 8, 8, 4, 0).epoch(torch.Generator().manual_seed(3))))
    shares = [
        next(iter(ChainBatches(chain, 8, 8, 4, 0, Processes(rank, 2)).epoch(torch.Generator().manual_seed(3))))
        for rank in (0, 1)
    ]
    for part in range(3):
        torch.testing.assert_close(torch.cat([share[part] for share in shares]), whole[part])
    with pytest.raises(ValueError, match="cannot be shared equally by 3 processes"):
        ChainBatches(chain, 8, 8, 4, 0, Processes(0, 3))


def test_targets_that_do_not_vary_are_refused() -> None:
    with pytest.raises(ValueError, match=r"targets: water\.R9; choose among what varies"):
        EstimationProblem(TissueDistribution.from_dict(AMINE_TISSUE), ("water.R9",))
