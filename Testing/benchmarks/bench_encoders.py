"""Encoders and blocks of the tissue segmentation on one study: parameters, multiply-adds, time and memory.

Every case runs in a process of its own; the fastest of several runs counts, in processor time. The peak memory is that
of a training step over that of the process before it.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
from typing import Any

import torch
from benchmarking import seconds
from torch.utils.flop_counter import FlopCounterMode

from JointRegSegLib.multitask.config import study_network
from JointRegSegLib.multitask.network import MultiTaskNetwork
from JointRegSegLib.multitask.objective import task_losses
from JointRegSegLib.multitask.studies import StudyBatch
from JointRegSegLib.tasks.tissue import Tissue

SIZE = (80, 96, 80)
CHANNELS = {"channels": [8, 16, 32, 64, 64]}
CASES: dict[str, dict[str, Any]] = {
    "estienne2020": {"base": "estienne2020"},
    "neurocest": {"base": "neurocest"},
    "resnet10": {"base": "resnet10"},
    "resnet18": {"base": "resnet18"},
    "residual_unet": {"base": "residual_unet"},
    "small: neurocest with 8 to 64 channels": CHANNELS,
    "small, residual units": CHANNELS | {"residual_units": True},
    "small, separable": CHANNELS | {"convolution": "separable"},
    "small, dynamic": CHANNELS | {"convolution": "dynamic"},
    "small, context attention": CHANNELS | {"context_attention": True},
    "small, dropout 0.1": CHANNELS | {"dropout": 0.1},
    "small, maximum pooling": CHANNELS | {"down": "max"},
    "small, average pooling": CHANNELS | {"down": "average"},
}


def measure(case: str, repeats: int) -> dict[str, float]:
    """Measure a case; called in a process of its own."""
    values = {"base": "neurocest", "modalities": ["t1"], **CASES[case]}
    torch.manual_seed(0)
    task = Tissue(class_weights=(1.0,) * 8)
    network = MultiTaskNetwork(study_network(values, "benchmark"), [task])
    study = torch.randn(1, 1, *SIZE)
    labels = torch.randint(0, 8, (1, *SIZE), dtype=torch.uint8)
    batch = StudyBatch(study, labels, torch.ones(1, *SIZE, dtype=torch.bool), ({},), ("study",))
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network.eval()(study)

    @torch.no_grad()
    def predict() -> None:
        network.eval()(study)

    def train() -> None:
        network.train().zero_grad()
        loss = task_losses(task, network(study)[task.name], batch)[0]
        assert loss is not None
        loss.backward()

    forward, _ = seconds(predict, repeats)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    step, _ = seconds(train, repeats)
    return {
        "parameters": network.parameter_count,
        "multiply_adds": counter.get_total_flops() / 2,
        "forward_s": forward.processor,
        "step_s": step.processor,
        "memory_mb": (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024,
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--case", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.case:
        print(json.dumps(measure(arguments.case, arguments.repeats)))
        return 0
    print(f"## Tissue segmentation of one image of {' x '.join(map(str, SIZE))} voxels in float32\n")
    print(f"{torch.get_num_threads()} threads, load {os.getloadavg()[0]:.1f}, torch {torch.__version__}\n")
    print("| network | parameters | multiply-adds | prediction, processor s | training step, processor s | memory |")
    print("| --- | --- | --- | --- | --- | --- |", flush=True)
    failed = False
    for case in CASES:
        command = [sys.executable, __file__, "--case", case, "--repeats", str(arguments.repeats)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            failed = True
            print(f"| {case} | failed: {done.stderr.strip().splitlines()[-1]} | | | | |", flush=True)
            continue
        found = json.loads(done.stdout.strip().splitlines()[-1])
        print(
            f"| {case} | {found['parameters'] / 1e6:.2f} M | {found['multiply_adds'] / 1e9:.1f} G | "
            f"{found['forward_s']:.2f} | {found['step_s']:.2f} | {found['memory_mb']:.0f} MB |",
            flush=True,
        )
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
