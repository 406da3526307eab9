"""A fit of fraction and exchange rate for the tests: protocols, model file, simulated voxels and their true values."""

from __future__ import annotations

import copy

import torch

from CESTQuantLib.physics.protocol import Protocol
from CESTQuantLib.physics.simulation import simulate
from CESTQuantLib.tissue.fit import ModelFit, fit_tissue_model
from CESTQuantLib.tissue.model import tissue_model_from_dict
from CESTQuantLib.tissue.spectra import ZSpectra

OFFSETS = torch.tensor([2.0, 2.5, 3.0, 3.5, 4.0, -3.0], dtype=torch.float64).repeat(5)
B1 = torch.tensor([0.7, 1.5, 2.5, 4.0, 6.0], dtype=torch.float64).repeat_interleave(6)
PROTOCOL = Protocol(9.4, OFFSETS, B1, 3.0)
SCHEDULE = Protocol(
    9.4,
    3.0 + 0 * B1,
    B1[torch.randperm(30, generator=torch.Generator().manual_seed(4))],
    2.5,
    recovery_time_s=1.0,
    readout_flip_angle_deg=60.0,
    magnetisation_carried_over=True,
    signal_normalisation="l2",
)
"""Measurements that carry their magnetisation over to the next one."""


def fitted(start: float, low: float, high: float, **prior) -> dict:
    """A fitted value as a model file has it."""
    return {"fit": True, "start": start, "bounds": [low, high], **prior}


MODEL = {
    "water": {"T1_s": 2.5, "T2_s": 0.6},
    "solutes": [
        {
            "name": "amine",
            "protons": 3,
            "dw_ppm": 3.0,
            "T1_s": 2.8,
            "T2_s": 0.04,
            "fraction": fitted(1e-3, 1e-5, 1e-2),
            "k_Hz": fitted(300, 5, 1500),
        },
    ],
    "semisolid": None,
}
SEMISOLID = {"fraction": 0.08, "k_Hz": 30.0, "T1_s": 1.0, "T2_s": 1e-5, "dw_ppm": -2.4, "lineshape": "superlorentzian"}


def model_with(**changes) -> dict:
    """MODEL with entries replaced, by paths such as water__T1_s, amine__k_Hz or semisolid."""
    values = copy.deepcopy(MODEL)
    for path, value in changes.items():
        owner, _, key = path.partition("__")
        if not key:
            values[owner] = value
        elif owner == "amine":
            values["solutes"][0][key] = value
        else:
            values[owner][key] = value
    return values


def uniform(low: float, high: float, voxels: int, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return low + (high - low) * torch.rand(voxels, generator=generator, dtype=torch.float64)


def study(voxels: int, engine: str, model: dict = MODEL, protocol: Protocol = PROTOCOL, noise=0.0, maps=None, **fields):
    """Signals (voxel, measurement) of random fractions and rates, and their true values by path."""
    described = tissue_model_from_dict(model)
    truth = {"amine.fraction": uniform(5e-4, 3e-3, voxels, 1), "amine.k_Hz": uniform(120, 700, voxels, 2)}
    for parameter in described.parameters:
        if parameter.path not in truth:
            width = parameter.upper - parameter.lower
            low, high = parameter.lower + 0.35 * width, parameter.lower + 0.6 * width
            truth[parameter.path] = uniform(low, high, voxels, 3 + len(truth))
    values = described.values(truth, maps or {})
    of_model = {name: values[name] for name in ("b0_shift_ppm", "b1_relative") if name in described.entries}
    signal = simulate(described.tissue(values), protocol, engine=engine, **(of_model | fields))
    generator = torch.Generator().manual_seed(9)
    return signal + noise * torch.randn(signal.shape, generator=generator, dtype=torch.float64), truth


def fit(
    signal: torch.Tensor,
    model: dict = MODEL,
    protocol: Protocol = PROTOCOL,
    engine: str = "r1rho",
    noise_sd: float | None = None,
    **known: object,
) -> ModelFit:
    """The fit of a model to signals (voxel, measurement); ``known`` are validity, fields and maps of the voxels."""
    spectra = ZSpectra(signal, protocol, **known)
    return fit_tissue_model(spectra, tissue_model_from_dict(model), engine=engine, noise_sd=noise_sd)


def errors(found: ModelFit, truth: dict, model: dict) -> dict[str, float]:
    """Largest relative error of every fitted value, by path."""
    paths = [p.path for p in tissue_model_from_dict(model).parameters]
    values = found.result.parameters.double()
    return {path: float(((values[:, i] - truth[path]) / truth[path]).abs().max()) for i, path in enumerate(paths)}
