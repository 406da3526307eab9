"""Checks of everything that computes on a GPU: CUDA against the processor, number formats, NCCL, and times.

Each check compares a number with its limit. The table goes to standard output and, with ``--output``, into a file; the
exit status is 1 where a check fails::

    python Testing/gpu/cuda_checks.py --output checks.csv
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from torch import Tensor
from torch import distributed as dist

from CESTQuantLib.physics.pools import Pool, Tissue, Water
from CESTQuantLib.physics.protocol import Protocol
from CESTQuantLib.physics.simulation import simulate
from CESTQuantLib.tissue.fit import ModelFit, fit_tissue_model
from CESTQuantLib.tissue.model import tissue_model_from_dict
from CESTQuantLib.tissue.spectra import ZSpectra
from JointRegSegLib.network.configuration import load_network_config
from JointRegSegLib.network.joint import JointNetwork
from JointRegSegLib.network.precision import FLOAT32, Precision, run_fast
from JointRegSegLib.registration.deformation import integrate_velocity, warp
from JointRegSegLib.registration.instance_optimization import refine
from JointRegSegLib.registration.local_correlation import lncc
from JointRegSegLib.registration.refinement_settings import RefinementSettings
from JointRegSegLib.training.batches import Batch
from JointRegSegLib.training.config import TrainingConfig
from JointRegSegLib.training.settings import TrainingSettings
from JointRegSegLib.training.step import batch_loss
from JointRegSegLib.training.updates.optimizer import WeightUpdater
from NeuroCESTLib.core.processes import Processes
from NeuroCESTLib.core.whole_files import write_csv

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
PLACES = (("processor", CPU), ("CUDA", CUDA))
FIELD_T = 3.0
PATCH = (64, 80, 64)
_COLUMNS = ("check", "value", "limit", "result")


@dataclass
class Table:
    """Results of the checks; a row without a limit is a time."""

    rows: list[dict[str, object]] = field(default_factory=list)

    def check(self, name: str, value: float, limit: float) -> None:
        """Compare a value with the limit that it may not exceed."""
        self._add(name, value, limit, "ok" if value <= limit else "FAILED")

    def time(self, name: str, seconds: float) -> None:
        """Note a time in s."""
        self._add(name, seconds, "", "s")

    def fail(self, name: str, error: Exception) -> None:
        """Note a check that ended with an error."""
        self._add(name, float("nan"), "", f"FAILED: {type(error).__name__}: {str(error)[:300]}")

    @property
    def failed(self) -> bool:
        """Whether any check failed."""
        return any(str(row["result"]).startswith("FAILED") for row in self.rows)

    def _add(self, name: str, value: float, limit: float | str, result: str) -> None:
        self.rows.append({"check": name, "value": f"{value:.4g}", "limit": limit, "result": result})
        print(f"{name:70s} {value:12.4g} {limit!s:>8} {result}", flush=True)


def seconds(function: Callable[[], object], repeats: int = 5) -> float:
    """Median time of a function in s, after one run that does not count."""
    function()
    times = []
    for _ in range(repeats):
        torch.cuda.synchronize()
        begin = time.perf_counter()
        function()
        torch.cuda.synchronize()
        times.append(time.perf_counter() - begin)
    return sorted(times)[len(times) // 2]


def difference(found: Tensor, expected: Tensor) -> float:
    """Norm of the difference of two tensors relative to that of the expected one."""
    found, expected = found.detach().cpu().double(), expected.detach().cpu().double()
    return float((found - expected).norm() / expected.norm())


def check_physics(table: Table) -> None:
    """Simulated spectra and their derivatives by both engines, and a fit."""
    generator = torch.Generator().manual_seed(1)
    fraction = 5e-4 + 2e-3 * torch.rand(2000, generator=generator, dtype=torch.float64)
    for engine in ("bloch-mcconnell", "r1rho"):
        found = {}
        for where, device in PLACES:
            values = fraction[:200].to(device).requires_grad_()
            b1_uT = torch.full((31,), 1.5, dtype=torch.float64, device=device).requires_grad_()
            offsets_ppm = torch.linspace(-4.5, 4.5, 31, dtype=torch.float64, device=device)
            protocol = Protocol(FIELD_T, offsets_ppm, b1_uT, 2.0)
            pool = Pool("amide", values, k_Hz=150.0, T1_s=1.0, T2_s=0.01, dw_ppm=3.5)
            signal = simulate(Tissue(Water(1.3, 0.08), (pool,)), protocol, engine=engine)
            found[where] = (signal, *torch.autograd.grad(signal.square().sum(), (values, b1_uT)))
        for name, on_cuda, on_cpu in zip(
            ("signal", "derivative in the tissue", "derivative in B1"), found["CUDA"], found["processor"], strict=True
        ):
            table.check(f"{engine}: {name}, CUDA against processor, float64", difference(on_cuda, on_cpu), 1e-9)
    results: dict[str, ModelFit] = {}
    for where, device in PLACES:
        spectra, model = _fit_problem(fraction.to(device))
        table.time(
            f"fit of {len(fraction)} voxels on {where}", seconds(lambda s=spectra, m=model: fit_tissue_model(s, m), 1)
        )
        results[where] = fit_tissue_model(spectra, model)
    apart = (results["CUDA"].result.parameters.cpu() / results["processor"].result.parameters - 1).abs()
    table.check("fit: median relative difference of the parameters", float(apart.median()), 1e-4)


def _fit_problem(fraction: Tensor) -> tuple[ZSpectra, object]:
    device = fraction.device
    offsets_ppm = torch.tensor([2.5, 3.0, 3.5, 4.0], dtype=torch.float64, device=device).repeat_interleave(5)
    b1_uT = torch.linspace(0.5, 4.0, 5, dtype=torch.float64, device=device).repeat(4)
    protocol = Protocol(FIELD_T, offsets_ppm, b1_uT, 2.0)
    free = {
        "fraction": {"fit": True, "start": 1e-3, "bounds": [1e-5, 1e-2]},
        "k_Hz": {"fit": True, "start": 150.0, "bounds": [5.0, 1000.0]},
    }
    solute = {"name": "amide", "dw_ppm": 3.5, "T1_s": 1.0, "T2_s": 0.01} | free
    model = tissue_model_from_dict({"water": {"T1_s": 1.3, "T2_s": 0.08}, "solutes": [solute]})
    values = model.values({"amide.fraction": fraction, "amide.k_Hz": 100 + 1e5 * fraction}, {})
    return ZSpectra(simulate(model.tissue(values), protocol), protocol), model


def check_network(table: Table, network: JointNetwork) -> None:
    """The network's output in each number format against float32 on the processor."""
    generator = torch.Generator().manual_seed(2)
    fixed, moving = (torch.randn(1, 4, *PATCH, generator=generator) for _ in range(2))
    with torch.no_grad():
        expected = network.eval()(fixed, moving, 1)
    on_gpu = _copy(network)
    inputs = fixed.to(CUDA), moving.to(CUDA)
    for precision in (FLOAT32, Precision("float32", True), Precision("bfloat16", True), Precision("float16", True)):
        found = run_fast(on_gpu, *inputs, 1, precision)
        exact = precision.dtype == "float32"
        limit = 1e-4 if exact else 0.12 if precision.dtype == "bfloat16" else 0.03
        table.check(
            f"network: logits on CUDA, {precision}", difference(found.fixed_logits, expected.fixed_logits), limit
        )
        other = (found.fixed_logits.argmax(1).cpu() != expected.fixed_logits.argmax(1)).float().mean()
        table.check(f"network: share of voxels of another class, {precision}", float(other), 1e-3 if exact else 0.06)
    whole = [torch.randn(1, 4, 160, 192, 160, device=CUDA) for _ in range(2)]
    for precision in (Precision("float32", True), Precision("bfloat16", True), Precision("float16", True)):
        taken = seconds(lambda p=precision: run_fast(on_gpu, *whole, None, p))
        table.time(f"network: two studies of 160 x 192 x 160, {precision}", taken)


def check_registration(table: Table) -> None:
    """Flow, warp, similarity and refinement."""
    generator = torch.Generator().manual_seed(3)
    velocity = 3 * torch.nn.functional.interpolate(
        torch.randn(1, 3, 6, 7, 6, generator=generator), PATCH, mode="trilinear"
    )
    image = torch.nn.functional.interpolate(torch.randn(1, 1, 20, 24, 20, generator=generator), PATCH, mode="trilinear")
    found = {}
    for where, device in PLACES:
        flow = integrate_velocity(velocity.to(device).requires_grad_(), 6)
        start = image.to(device).requires_grad_()
        moved = warp(start, flow)
        similarity = lncc(start.detach(), moved, 9).mean()
        found[where] = flow, moved, similarity, *torch.autograd.grad(similarity, start)
    names = ("flow of a velocity", "warped image", "LNCC", "derivative of LNCC")
    for name, on_cuda, on_cpu in zip(names, found["CUDA"], found["processor"], strict=True):
        table.check(f"registration: {name}, float32", difference(on_cuda, on_cpu), 2e-3)
    moving = found["processor"][1].detach()
    settings = RefinementSettings()
    refined = {}
    for where, device in PLACES:
        begin = time.perf_counter()
        result = refine(image.to(device), moving.to(device), settings=settings)
        torch.cuda.synchronize()
        table.time(f"registration: refinement of {' x '.join(map(str, PATCH))} on {where}", time.perf_counter() - begin)
        refined[where] = result.displacement.cpu()
    apart = (refined["CUDA"] - refined["processor"]).norm(dim=1)
    table.check("registration: mean difference of refined deformations in voxels", float(apart.mean()), 0.05)


def check_training(table: Table, network: JointNetwork) -> None:
    """The loss of a batch and its gradient, and that it falls in every number format."""
    config = TrainingConfig(network.config, network.config.loss, training=TrainingSettings(optimiser="adamw"), stride=1)
    batch = _batch(1)
    found = {}
    for where, device in PLACES:
        own = _copy(network, device)
        loss, _ = batch_loss(own, batch.to(device), config, True)
        loss.backward()
        gradient = torch.cat([p.grad.flatten() for p in own.parameters() if p.grad is not None])
        found[where] = loss, gradient
    table.check("training: loss of a pair, float32", difference(found["CUDA"][0], found["processor"][0]), 1e-4)
    table.check("training: gradient of the loss, float32", difference(found["CUDA"][1], found["processor"][1]), 2e-2)
    for dtype in ("float32", "bfloat16", "float16"):
        precision = Precision(dtype, True)
        own, losses = _copy(network), []
        updater = WeightUpdater(own, replace(config.training, gradient_clip=5.0), precision)
        for _ in range(15):
            loss, _ = batch_loss(own, batch.to(CUDA), config, True, precision)
            updater.backward(loss)
            updater.step(1e-3, Processes())
            losses.append(float(loss.detach()))
        table.check(f"training: loss after 15 steps relative to the first, {dtype}", losses[-1] / losses[0], 0.95)


def time_training(table: Table, network: JointNetwork) -> None:
    """Time of a training step by number of pairs and number format."""
    config = TrainingConfig(network.config, network.config.loss, training=TrainingSettings(optimiser="adamw"), stride=1)
    for dtype, last, pairs, registers in (
        ("float32", True, 4, False),
        ("bfloat16", False, 4, False),
        ("bfloat16", True, 4, False),
        ("bfloat16", True, 8, False),
        ("bfloat16", True, 8, True),
    ):
        precision = Precision(dtype, last)
        own, batch = _copy(network), _batch(pairs).to(CUDA)
        precision.arrange_weights(own)
        updater = WeightUpdater(own, config.training, precision)

        def step(own=own, batch=batch, updater=updater, precision=precision, registers=registers) -> None:
            loss, _ = batch_loss(own, batch, config, registers, precision)
            updater.backward(loss)
            updater.step(1e-4, Processes())

        what = "segmentation and registration" if registers else "segmentation"
        table.time(f"training step, {pairs} pairs, {precision}, {what}", seconds(step, 5))


def check_nccl(table: Table) -> None:
    """A process group of one process over NCCL."""
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29517", "RANK": "0", "WORLD_SIZE": "1"}
    dist.init_process_group("nccl", device_id=torch.device("cuda", 0))
    try:
        values = torch.arange(5.0, device=CUDA)
        dist.all_reduce(values)
        Processes(0, 1).average([values])
        dist.broadcast(values, 0)
        table.check("NCCL with one process: error of a sum", float((values.cpu() - torch.arange(5.0)).abs().max()), 0)
    finally:
        dist.destroy_process_group()


def _copy(network: JointNetwork, device: torch.device = CUDA) -> JointNetwork:
    own = JointNetwork(network.config)
    own.load_state_dict(network.state_dict())
    return own.to(device)


def _batch(pairs: int) -> Batch:
    """Pairs of smooth random images with labels."""
    generator = torch.Generator().manual_seed(4)
    coarse = torch.randn(2 * pairs, 4, *(n // 8 for n in PATCH), generator=generator)
    images = torch.nn.functional.interpolate(coarse, PATCH, mode="trilinear")
    labels = (images[:, 0] > 0.5).to(torch.uint8) * (1 + (images[:, 1] > 0).to(torch.uint8))
    mask = torch.ones(pairs, *PATCH, dtype=torch.bool)
    return Batch(
        images[:pairs], images[pairs:], labels[:pairs], labels[pairs:], mask, mask, (("fixed", "moving"),) * pairs
    )


@contextmanager
def noted(table: Table, name: str) -> Iterator[None]:
    """Note an error as a failed check, and go on with the next one."""
    try:
        yield
    except Exception as error:  # whatever a driver or a library reports
        table.fail(name, error)


def main() -> int:
    """Run the command."""
    assert __doc__ is not None
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, metavar="CHECKS.csv", help="table to write")
    options = parser.parse_args()
    if not torch.cuda.is_available():
        parser.error("there is no CUDA device on this machine")
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    print(f"torch {torch.__version__}, {torch.cuda.get_device_name()}, {os.cpu_count()} processor cores")
    torch.manual_seed(0)
    table, network = Table(), JointNetwork(load_network_config("neurocest"))
    checks: dict[str, Callable[[], None]] = {
        "physics": lambda: check_physics(table),
        "network": lambda: check_network(table, network),
        "registration": lambda: check_registration(table),
        "training": lambda: check_training(table, network),
        "NCCL": lambda: check_nccl(table),
        "times of the training": lambda: time_training(table, network),
    }
    for name, check in checks.items():
        with noted(table, name):
            check()
    if options.output is not None:
        write_csv(_COLUMNS, [list(row.values()) for row in table.rows], options.output)
    return int(table.failed)


if __name__ == "__main__":
    sys.exit(main())
