"""Configurations of small data sets and trainings (one amide pool in water at 7 T), and simulated scans for them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
from torch import Tensor

from CESTQuantLib.networks.config import TrainingConfig
from CESTQuantLib.networks.dataset import noisy_signals, simulate_dataset
from CESTQuantLib.tissue.distributions import TissueDistribution


def amide_tissue(
    k_Hz: tuple[float, float] = (20, 300), T2_s: float = 0.05, water_T1_s: tuple[float, float] = (1.0, 2.0), **pool: Any
) -> dict[str, Any]:
    """Tissue of water and an amide pool whose fraction and exchange rate vary; ``pool`` replaces entries of it."""
    amide = {
        "name": "amide",
        "fraction": {"uniform": [5e-4, 3e-3]},
        "k_Hz": {"uniform": list(k_Hz)},
        "T1_s": 1.0,
        "T2_s": T2_s,
        "dw_ppm": 3.5,
    }
    return {"water": {"T1_s": {"uniform": list(water_T1_s)}, "T2_s": 0.05}, "solutes": [{**amide, **pool}]}


def protocol_7T(offsets_ppm: list[float], b1_uT: float | list[float] = 1.0, **changes: Any) -> dict[str, Any]:
    """Protocol of continuous-wave saturation for 2 s."""
    return {
        "field_strength_T": 7.0,
        "offsets_ppm": offsets_ppm,
        "b1_uT": b1_uT,
        "saturation_time_s": 2.0,
        **changes,
    }


def write_config(folder: Path, config: dict[str, Any], **changes: Any) -> Path:
    """Write ``config.json`` with some keys changed."""
    path = folder / "config.json"
    path.write_text(json.dumps({**config, **changes}))
    return path


SCAN_CONFIG = {
    "protocol": protocol_7T(
        [-3.5, 1.5, 2.0, 2.5, 3.0, 3.5, 4.0, 4.5] * 2 + [2.5, 3.0, 3.5, 4.0], [0.6] * 8 + [1.2] * 8 + [2.0] * 4
    ),
    "tissue": {
        **amide_tissue(k_Hz=(40, 300), T2_s=0.03, water_T1_s=(1.2, 1.8), protons=2),
        "b0_shift_ppm": {"uniform": [-0.1, 0.1]},
    },
    "targets": ["amide.fraction", "amide.k_Hz"],
    "samples": 12000,
    "epochs": 15,
    "seed": 4,
    "noise_sd": 0.002,
    "network": {"width": 100},
}
"""A training that learns well in some seconds, for a protocol of 20 measurements."""


def scan(config: TrainingConfig, count: int = 1500, seed: int = 99, tissue: dict | None = None) -> tuple[Tensor, dict]:
    """Noisy signals of tissues, and their true values."""
    distribution = TissueDistribution.from_dict(tissue or config.tissue)
    data = simulate_dataset(distribution, config.protocol, count, noise_sd=config.noise_sd, seed=seed)
    return noisy_signals(data, config.protocol, seed), data.values


def write_scan(folder: Path, config: TrainingConfig) -> tuple[list[str], dict]:
    """Write a 4-D acquisition, its M0 and protocol; returns what to give a command, and the true values."""
    signal, truth = scan(config, 5 * 8 * 8)
    images = [sitk.GetImageFromArray(900 * column.reshape(5, 8, 8).numpy()) for column in signal.T]
    sitk.WriteImage(sitk.JoinSeries(images), str(folder / "z.nii.gz"))
    sitk.WriteImage(sitk.GetImageFromArray(np.full((5, 8, 8), 900, np.float32)), str(folder / "m0.nii.gz"))
    (folder / "protocol.json").write_text(json.dumps(SCAN_CONFIG["protocol"]))
    files = {"signal": "z.nii.gz", "reference": "m0.nii.gz"}
    return [word for role, name in files.items() for word in (f"--{role}", str(folder / name))], truth
