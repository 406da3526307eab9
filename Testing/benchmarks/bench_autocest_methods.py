"""Network against least squares and dictionary on identical held-out data: errors and times.

The data are those of an L-arginine phantom at 9.4 T (17 measurements, L2-normalised; T1, T2, B0 and B1 are unknown as
well) with noise of 0.002 to 0.006. The network and the dictionary learn from the same simulated distribution. Least
squares fits every parameter that varies, within the same range, and takes the normal distributions of the fields as
priors. The times to simulate 100,000 spectra (30 measurements, six pools) and to reconstruct 100,000 voxels are
measured as well:

    python Testing/benchmarks/bench_autocest_methods.py [--config autocest_larginine] [--voxels 2000] [--quick]
"""

from __future__ import annotations

import argparse
import copy
import os
from dataclasses import replace

import torch
from benchmarking import Time, duration, seconds

from CESTQuantLib.networks.config import TrainingConfig, read_config
from CESTQuantLib.networks.dataset import noisy_signals, simulate_dataset
from CESTQuantLib.networks.dictionary import match_dictionary
from CESTQuantLib.networks.fixed_protocol import train_from_config
from CESTQuantLib.networks.reconstruction import reconstruct
from CESTQuantLib.physics.units import concentration_mM
from CESTQuantLib.tissue.fit import fit_tissue_model
from CESTQuantLib.tissue.model import tissue_model_from_dict
from CESTQuantLib.tissue.spectra import ZSpectra

MANY = 100_000
RECONSTRUCTION_S, DATA_SET_S = 0.3, 10.0


def fitted(config: TrainingConfig) -> dict:
    """Return the tissue as a model for least squares, in which every distribution becomes a fitted parameter."""
    entries = config.distribution.entries
    tissue = copy.deepcopy(config.tissue)
    solutes = ((solute, f"{solute['name']}.") for solute in tissue["solutes"])
    for node, prefix in ((tissue, ""), (tissue["water"], "water."), *solutes):
        for key in node:
            entry = entries.get(f"{prefix}{key}")
            if entry is not None and entry.varies:
                low, high = entry.range
                node[key] = {"fit": True, "start": (low + high) / 2, "bounds": [low, high]}
                if entry.kind == "normal":
                    node[key]["prior"] = {"mean": entry.first, "sd": entry.second}
    return tissue


def row(name: str, config: TrainingConfig, found: dict, truth: dict, time_s: float, voxels: int) -> None:
    cells = []
    for path in config.targets:
        estimate, true, unit = found[path].double(), truth[path], "Hz" if path.endswith("k_Hz") else ""
        pool = path.rpartition(".")[0]
        if path.endswith(".fraction") and pool in config.distribution.structure.protons:
            protons, unit = config.distribution.structure.protons[pool], "mM"
            estimate, true = concentration_mM(estimate, protons), concentration_mM(true, protons)
        usable = torch.isfinite(estimate)
        error = (estimate - true)[usable].abs()
        r = float(torch.corrcoef(torch.stack([estimate[usable], true[usable]]))[0, 1])
        cells.append(f"{float(error.mean()):.3g} {unit} (median {float(error.median()):.3g}), r {r:.4f}")
    print(f"| {name} | {' | '.join(cells)} | {duration(time_s * MANY / voxels)} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", default="autocest_larginine", help="protocol, tissue and training")
    parser.add_argument("--voxels", type=int, default=2000, help="held-out voxels")
    parser.add_argument("--quick", action="store_true", help="little training, few voxels: only shows that it runs")
    options = parser.parse_args()
    config = read_config(options.config)
    if options.quick:
        options.voxels = 200
        config = replace(config, samples=6400, settings=replace(config.settings, epochs=3))
    training, (file, _) = seconds(lambda: train_from_config(config))
    data = simulate_dataset(config.distribution, config.protocol, options.voxels, noise_sd=config.noise_sd, seed=991)
    signal, truth = noisy_signals(data, config.protocol, 991), data.values

    print(
        f"\n{os.cpu_count()} cores, {torch.get_num_threads()} threads, load {os.getloadavg()[0]:.1f}; training "
        f"{config.samples} spectra, {len(file.training['loss'])} epochs: {training.wall:.0f} s "
        f"({training.processor:.0f} s of processor time)\n"
    )
    print(f"| method | {' | '.join(config.targets)} | {MANY} voxels |")
    print(f"| --- {'| --- ' * len(config.targets)}| --- |")
    reconstruct(file.network, signal)
    time, found = seconds(lambda: reconstruct(file.network, signal), 5)
    values = {path: found.mean[:, i] for i, path in enumerate(config.outputs)}
    row("network", config, values, truth, time.wall, options.voxels)
    model = tissue_model_from_dict(fitted(config), "tissue")
    time, fit = seconds(lambda: fit_tissue_model(ZSpectra(signal, config.protocol), model, engine=config.engine))
    values = {p.path: fit.result.parameters[:, i] for i, p in enumerate(model.parameters)}
    row("least squares", config, values, truth, time.wall, options.voxels)
    time, match = seconds(lambda: match_dictionary(signal, config))
    row(f"dictionary of {config.samples}", config, match.values, truth, time.wall, options.voxels)

    many = signal.repeat(MANY // len(signal) + 1, 1)[:MANY]
    time, _ = seconds(lambda: reconstruct(file.network, many), 5)
    report("network on 100,000 voxels", time, RECONSTRUCTION_S)
    six = read_config("autocest_guanidinium_7T")
    protocol = six.protocol.select(torch.arange(30))
    time, _ = seconds(lambda: simulate_dataset(six.distribution, protocol, MANY), 1 if options.quick else 3)
    report("data set of 100,000 spectra, 30 measurements, 6 pools", time, DATA_SET_S)


def report(what: str, time: Time, target: float) -> None:
    verdict = "met" if time.wall <= target else "MISSED"
    print(
        f"{what}: {time.wall:.3g} s ({time.processor:.3g} s of processor time), target {target:g} s {verdict}",
        flush=True,
    )


if __name__ == "__main__":
    main()
