"""Detection of voxels that the model does not cover by the reliability map: areas under the ROC curve, and times.

Trains a network for the guanidinium configuration (7 T, six pools) on simulated data, then compares the misfit of
voxels that the model covers with that of voxels of another composition, all with noise of 0.002 to 0.006. With
``--constants`` it asks instead what the map says where a constant of an L-arginine phantom (9.4 T) is wrong, with
networks that hold the constants fixed and such that know them to be uncertain:

    python Testing/benchmarks/bench_reliability.py [--samples 40000] [--epochs 30] [--voxels 100000] [--quick]
    python Testing/benchmarks/bench_reliability.py --constants [--samples 40000] [--epochs 30]
"""

from __future__ import annotations

import argparse
import copy
import json
import sys
from dataclasses import replace

import libraries  # noqa: F401  (puts the libraries on the path)
import torch
from benchmarking import Time, seconds

from CESTQuantLib.networks.config import TrainingConfig, read_config
from CESTQuantLib.networks.dataset import noisy_signals, simulate_dataset
from CESTQuantLib.networks.dictionary import match_dictionary
from CESTQuantLib.networks.fixed_protocol import train_from_config
from CESTQuantLib.networks.reconstruction import reconstruct
from CESTQuantLib.networks.reliability import back_project
from CESTQuantLib.tissue.distributions import TissueDistribution

VOXELS = 4000
TARGET_AREA = 0.95


def area_under_roc(covered: torch.Tensor, others: torch.Tensor) -> float:
    """Return the probability that a voxel of the others has a larger value than one that the model covers."""
    ranks = torch.cat([covered, others]).argsort().argsort().double() + 1
    n, m = len(covered), len(others)
    return float((ranks[n:].sum() - m * (m + 1) / 2) / (n * m))


def other_tissues(tissue: dict) -> dict[str, dict]:
    """Return tissues that the network's model does not cover, by their difference from it."""
    cases = {}

    def case(name: str) -> dict:
        cases[name] = copy.deepcopy(tissue)
        return cases[name]

    extra = {"fraction": {"uniform": [0.001, 0.003]}, "k_Hz": {"uniform": [100, 400]}, "T1_s": 1.0, "T2_s": 0.02}
    for dw_ppm in (2.6, 1.6):
        case(f"extra pool at {dw_ppm} ppm")["solutes"].append({"name": "extra", **extra, "dw_ppm": dw_ppm})
    case("wrong background: B0 shift of 0.3 to 0.5 ppm")["b0_shift_ppm"] = {"uniform": [0.3, 0.5]}
    case("wrong background: semisolid with T2 of 0.1 ms")["semisolid"]["T2_s"] = 1e-4
    case("wrong background: water T2 of 8 to 12 ms")["water"]["T2_s"] = {"uniform": [0.008, 0.012]}
    case("wrong background: five times the amide")["solutes"][1]["fraction"] = {"uniform": [0.006, 0.012]}
    return cases


def misfit_and_rmse(file, config: TrainingConfig, tissue: dict, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    data = simulate_dataset(
        TissueDistribution.from_dict(tissue), config.protocol, VOXELS, noise_sd=config.noise_sd, seed=seed
    )
    signal = noisy_signals(data, config.protocol, seed)
    found = reconstruct(file.network, signal)
    back = back_project(file, signal, found)
    return file.calibration.misfit(signal - back.signal, found.expected_rmse), back.rmse


UNCERTAIN = {
    "T2_s": {"log_uniform": [0.001, 0.06]},
    "dw_ppm": {"uniform": [2.7, 3.3]},
    "b1_relative": {"normal": [1, 0.12]},
    "T1_s": {"uniform": [1.2, 3.5]},
}
"""What is known of the constants where they are not taken for certain."""


def phantoms(tissue: dict) -> dict[str, dict]:
    """Return L-arginine phantoms of 50 mM and 500 Hz, all but the first with a constant that is wrong."""
    cases = {}

    def case(name: str, b1_relative: float = 1.0, T1_s: float = 2.9, **amine: float) -> None:
        known = {"fraction": 50 * 3 / 110_000, "k_Hz": 500.0, **amine}
        cases[name] = {
            **copy.deepcopy(tissue),
            "water": {"T1_s": T1_s, "T2_s": 0.8},
            "solutes": [{**tissue["solutes"][0], **known}],
            "b1_relative": b1_relative,
        }

    case("constants as in the training")
    case("T2 of the pool 2 ms instead of 40", T2_s=0.002)
    case("B1 15 % too low", b1_relative=0.85)
    case("T1 of water 1.5 s instead of 2.5 to 3.3 s", T1_s=1.5)
    case("another agent: 2.8 instead of 3.0 ppm", dw_ppm=2.8)
    return cases


def wrong_constants(samples: int, epochs: int) -> None:
    """Print what networks with fixed and with uncertain constants say of phantoms whose constants are wrong."""
    config = read_config("autocest_larginine")
    certain = copy.deepcopy(config.tissue)
    certain["b1_relative"] = 1.0
    uncertain = copy.deepcopy(certain)
    uncertain["b1_relative"], uncertain["water"]["T1_s"] = UNCERTAIN["b1_relative"], UNCERTAIN["T1_s"]
    uncertain["solutes"][0] |= {key: UNCERTAIN[key] for key in ("T2_s", "dw_ppm")}
    settings = replace(config.settings, epochs=epochs)
    print("constants   voxels reliable  within 2 sd  error of the concentration  its sd  phantom of 50 mM")
    for name, tissue in (("fixed", certain), ("uncertain", uncertain)):
        trained = replace(config, tissue=tissue, samples=samples, settings=settings)
        file, _ = train_from_config(trained)
        for phantom, truth in phantoms(certain).items():
            data = simulate_dataset(
                TissueDistribution.from_dict(truth), config.protocol, VOXELS // 4, noise_sd=config.noise_sd, seed=5
            )
            signal = noisy_signals(data, config.protocol, 5)
            found = reconstruct(file.network, signal)
            misfit = file.calibration.misfit(signal - back_project(file, signal, found).signal, found.expected_rmse)
            reliable = float((misfit <= file.calibration.threshold).double().mean())
            to_mM = 110_000 / 3
            error, sd = found.mean[:, 0] * to_mM - 50, found.sd[:, 0] * to_mM
            covered = float((error.abs() <= 2 * sd).double().mean())
            print(
                f"{name:10} {100 * reliable:15.0f} % {100 * covered:10.0f} % {float(error.median()):24.1f} mM "
                f"{float(sd.median()):6.1f}  {phantom}",
                flush=True,
            )


def times(file, config: TrainingConfig, count: int) -> dict[str, Time]:
    """Return the times for ``count`` voxels; that of the dictionary is extrapolated from 4,096."""
    result = {}
    result["simulation"], data = seconds(
        lambda: simulate_dataset(config.distribution, config.protocol, count, noise_sd=config.noise_sd, seed=3)
    )
    signal = noisy_signals(data, config.protocol, 3)
    reconstruct(file.network, signal[:1000])
    result["network"], found = seconds(lambda: reconstruct(file.network, signal), 3)
    result["reliability"], _ = seconds(lambda: back_project(file, signal, found))
    few = replace(config, samples=20_000)
    match_dictionary(signal[:1000], few)
    matched, _ = seconds(lambda: match_dictionary(signal[:4096], few))
    result["dictionary of 20,000"] = matched * (count / 4096)
    return result


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=40_000)
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--voxels", type=int, default=100_000, help="voxels whose times are measured")
    parser.add_argument("--quick", action="store_true", help="10,000 samples, 6 epochs and the times of 4,096 voxels")
    parser.add_argument("--constants", action="store_true", help="phantoms with wrong constants instead")
    options = parser.parse_args()
    if options.quick:
        options.samples, options.epochs, options.voxels = 10_000, 6, 4096
    if options.constants:
        wrong_constants(options.samples, options.epochs)
        return 0
    config = read_config("autocest_guanidinium_7T")
    config = replace(config, samples=options.samples, settings=replace(config.settings, epochs=options.epochs))
    file, _ = train_from_config(config)
    training = {k: v for k, v in file.training.items() if k.endswith("_s") or k in ("samples", "epochs")}
    print(json.dumps({"training": training, "held_out": file.training["held_out"]}, indent=1))
    covered, rmse = misfit_and_rmse(file, config, config.tissue, seed=11)
    alarms = float((covered > file.calibration.threshold).double().mean())
    print(f"false alarms {100 * alarms:.1f} % (stated {100 * file.calibration.false_alarm_rate:g} %)")
    cases = other_tissues(config.tissue)
    for name, tissue in cases.items():
        others, their_rmse = misfit_and_rmse(file, config, tissue, seed=12)
        area, plain = area_under_roc(covered, others), area_under_roc(rmse, their_rmse)
        print(
            f"area under the ROC curve {area:.4f} ({'met' if area >= TARGET_AREA else 'MISSED'}), "
            f"of the RMSE alone {plain:.4f}  {name}"
        )
    for name, taken in times(file, config, options.voxels).items():
        print(f"{taken.wall:8.3f} s, {taken.processor:8.3f} s of processor time for {options.voxels:,} voxels  {name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
