"""Forward pass of the joint network on two studies of 160 x 192 x 160: our fastest format against naive float32.

The peer is a plain implementation of the published network in float32, layer by layer, with the same weights. Every
case runs in a process of its own with the same number of threads; the fastest of several runs counts, and the peak
memory is that of the whole process. The network is first trained on spheres for a minute, so that Dice is meaningful:
its difference between the formats is the loss of accuracy. The default network is timed in its own fastest format.
"""

from __future__ import annotations

import argparse
import math
import os
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import torch
from benchmarking import Time, seconds
from torch import Tensor, nn
from torch.nn import functional as F

from JointRegSegLib.images.labels import REGIONS
from JointRegSegLib.network.configuration import load_network_config
from JointRegSegLib.network.joint import JointNetwork, JointOutput, build_network
from JointRegSegLib.network.precision import FLOAT32, candidate_precisions, fastest_precision, run_fast
from JointRegSegLib.network.weights import load_weights, save_weights
from JointRegSegLib.registration.deformation import cumulative_displacement
from JointRegSegLib.tasks.joint import joint_loss
from JointRegSegLib.tasks.protocol import StudyPair

SIZE = (160, 192, 160)
TARGET_MATRIX_UNITS, TARGET_ELSEWHERE = 3.0, 1.9
LARGEST_MB, LARGEST_DICE_LOSS = 2048, 0.002
TEST_SEEDS = (1_000_001, 1_000_002)
PEER = "plain float32"
MATRIX_UNITS = ("amx_bf16", "svebf16")
"""Names that the Linux kernel has for them, on x86 and on Arm."""


def spheres(size: tuple[int, int, int], seed: int) -> tuple[Tensor, Tensor]:
    """Return a study (1, 4, D, H, W) of smooth texture with layered spheres, and its labels (1, D, H, W)."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.randn(1, 4, *(max(2, n // 8) for n in size), generator=generator)
    study = F.interpolate(coarse, size=size, mode="trilinear") + 0.3 * torch.randn(1, 4, *size, generator=generator)
    axes = torch.meshgrid(*(torch.arange(n, dtype=torch.float32) for n in size), indexing="ij")
    labels = torch.zeros(1, *size, dtype=torch.uint8)
    for _ in range(max(2, round(math.prod(size) / 48**3))):
        place = torch.rand(3, generator=generator)
        radius = 5 + 5 * float(torch.rand(1, generator=generator))
        distance = sum((a - p * n) ** 2 for a, p, n in zip(axes, place.tolist(), size, strict=True)).sqrt()
        for share, label in ((1.0, 2), (0.75, 3), (0.5, 1)):
            labels[:, distance < share * radius] = label
    contrast = torch.tensor([[0.0, 0, 0, 0], [-2, -2, 1, 1], [-1, 0, 2, 2], [0, 3, 1, 1]])
    return study + contrast[labels.long()].movedim(-1, 1), labels


def trained(name: str, steps: int) -> JointNetwork:
    """Return a network after a few steps of training.

    It trains on one thread: small volumes gain nothing from more threads and lose much on a busy machine.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    network = build_network(load_network_config(name)).train()
    optimiser = torch.optim.Adam(network.parameters(), 2e-3)
    loss_config = replace(network.config.loss, segmentation="dice_cross_entropy")
    for step in range(steps):
        (fixed, fixed_labels), (moving, moving_labels) = (spheres((32, 32, 32), 2 * step + n) for n in range(2))
        pair = StudyPair(fixed, moving, fixed_labels, moving_labels)
        loss, _ = joint_loss(network(fixed, moving, stride=1), pair, loss_config)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    torch.set_num_threads(threads)
    return network.eval()


@torch.no_grad()
def plain(network: JointNetwork, fixed: Tensor, moving: Tensor) -> JointOutput:
    """Apply the published network, layer by layer as in the paper."""

    def convolved(units: nn.ModuleList, x: Tensor) -> Tensor:
        for unit in units:
            x = F.relu(unit.convolution(x))
        return x

    def encoded(study: Tensor) -> list[Tensor]:
        x, codes = network.encoder.stem(study), []
        for level, block in enumerate(network.encoder.blocks):
            if level:
                x = F.relu(network.encoder.downs[level - 1].unit.convolution(x))
            x = x + convolved(block.units, x)
            codes.append(x)
        return codes

    def decoded(head: nn.Module, codes: list[Tensor]) -> Tensor:
        x = codes[-1]
        for up, block, code in zip(head.decoder.ups, head.decoder.blocks, codes[-2::-1], strict=True):
            x = F.relu(up.unit.convolution(x))
            x = x + convolved(block.units, torch.cat([code, x], 1))
        return head.output(x)

    fixed_codes, moving_codes = encoded(fixed), encoded(moving)
    logits = [decoded(network.segmentation, codes) for codes in (fixed_codes, moving_codes)]
    merged = [m - f for m, f in zip(moving_codes, fixed_codes, strict=True)]
    displacement = cumulative_displacement(decoded(network.registration, merged).sigmoid())
    return JointOutput(*logits, displacement)  # only the field instead of a deformation


def measure(case: str, weights: Path, folder: Path, repeats: int) -> None:
    """Run a case and write its results; called in a process of its own."""
    network = load_weights(weights).network
    (fixed, _), (moving, _) = (spheres(SIZE, seed) for seed in TEST_SEEDS)
    begin = time.perf_counter()
    choices = {"fastest": fastest_precision, "float32 channels last": lambda: candidate_precisions()[1]}
    precision = choices.get(case, lambda: FLOAT32)()
    choice = time.perf_counter() - begin
    if case == PEER:
        time_, output = seconds(lambda: plain(network, fixed, moving), repeats)
        displacement = output.deformation
    else:
        time_, output = seconds(lambda: run_fast(network, fixed, moving, precision=precision), repeats)
        displacement = output.deformation.displacement
    found = {
        "wall": time_.wall,
        "processor": time_.processor,
        "form": str(precision),
        "choice": choice,
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }
    labels = torch.stack([x.argmax(1) for x in (output.fixed_logits, output.moving_logits)]).to(torch.uint8)
    torch.save({"labels": labels, "displacement": displacement, "found": found}, folder / "result.pt")


def run(case: str, weights: Path, folder: Path, repeats: int) -> dict:
    command = [sys.executable, __file__, "--case", case, "--weights", str(weights), "--folder", str(folder)]
    # Large pages of torch belong to our side of the comparison.
    environment = os.environ | ({"THP_MEM_ALLOC_ENABLE": "0"} if case == PEER else {})
    subprocess.run([*command, "--repeats", str(repeats)], check=True, env=environment)
    return torch.load(folder / "result.pt", weights_only=True)


def dice(labels: Tensor) -> Tensor:
    """Return Dice (2 studies, 3 regions) of predicted labels (2, 1, D, H, W) with the true ones."""
    rows = []
    for found, seed in zip(labels, TEST_SEEDS, strict=True):
        true = spheres(SIZE, seed)[1]
        for members in REGIONS.values():
            a, b = (torch.isin(x, torch.tensor(members, dtype=torch.uint8)) for x in (found, true))
            rows.append(2 * (a & b).sum() / (a.sum() + b.sum()))
    return torch.stack(rows).view(2, 3)


def has_matrix_units() -> bool:
    """Whether the processor has units that multiply bfloat16 matrices, not only vectors."""
    try:
        words = Path("/proc/cpuinfo").read_text(encoding="utf-8").split()
    except OSError:
        return False
    return any(word in words for word in MATRIX_UNITS)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=100, help="training steps before the measurement")
    parser.add_argument("--repeats", type=int, default=3)
    for name in ("--case", "--weights", "--folder"):
        parser.add_argument(name, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.case:
        measure(arguments.case, Path(arguments.weights), Path(arguments.folder), arguments.repeats)
        return 0
    target = TARGET_MATRIX_UNITS if has_matrix_units() else TARGET_ELSEWHERE
    print(f"## Forward pass of both studies, {' x '.join(map(str, SIZE))}, {torch.get_num_threads()} threads\n")
    print(f"load {os.getloadavg()[0]:.1f}, torch {torch.__version__}; targets: {target:g}x, peak <= {LARGEST_MB} MB, ")
    print(f"Dice lost <= {LARGEST_DICE_LOSS}\n")
    print(
        "| network | format | wall s | processor s | ratio (processor) | peak MB | Dice lost | displacement changed | |"
    )
    print("| --- | --- | --- | --- | --- | --- | --- | --- | --- |", flush=True)
    met = True
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        published = save_weights(folder / "published.pt", trained("estienne2020", arguments.steps), {})
        default = save_weights(folder / "default.pt", trained("neurocest", 1), {})
        peer = run(PEER, published, folder, arguments.repeats)
        reference = dice(peer["labels"])
        cases = (
            ("published", PEER, None),
            ("published", "float32 channels last", published),
            ("published", "fastest", published),
            ("default", "fastest", default),
        )
        for network, case, weights in cases:
            result = peer if weights is None else run(case, weights, folder, arguments.repeats)
            found, base = result["found"], peer["found"]
            took = Time(found["wall"], found["processor"])
            ratio, per_core = base["wall"] / took.wall, base["processor"] / took.processor
            lost = change = "-"
            verdict = True
            if weights is not None:
                verdict = found["peak_mb"] <= LARGEST_MB and (case != "fastest" or ratio >= target)
            if network == "published":
                difference = (reference - dice(result["labels"])).max().clamp_min(0)
                verdict = verdict and float(difference) <= LARGEST_DICE_LOSS
                moved = (result["displacement"] - peer["displacement"]).abs()
                lost, change = f"{float(difference):.4f}", f"mean {moved.mean():.4f}, most {moved.max():.2f} voxels"
            met = met and verdict
            form = PEER if case == PEER else found["form"] + (" (chosen)" if case == "fastest" else "")
            print(
                f"| {network} | {form} | {took.wall:.2f} | {took.processor:.2f} | {ratio:.2f}x ({per_core:.2f}x) | "
                f"{found['peak_mb']:.0f} | {lost} | {change} | {'met' if verdict else 'MISSED'} |",
                flush=True,
            )
    print(f"\nDice of the plain network: {', '.join(f'{d:.3f}' for d in reference.mean(0))} (whole, core, enhancing)")
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
