"""Configuration files of ``cestquant optimize-schedule``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path

from NeuroCESTLib.core.checked_json import read_json

from ..networks.config import config_file, config_protocol
from ..networks.training import TrainingSettings
from ..physics.protocol import Protocol
from ..tissue.distributions import TissueDistribution
from .bound import BoundSettings
from .chain import Problem
from .design import OBJECTIVES, Design
from .limits import TRAINABLE, Limits

KEYS = (
    "protocol",
    "tissue",
    "targets",
    "target_weights",
    "noise_sd",
    "samples",
    "epochs",
    "seed",
    "network",
    "trainable",
    "limits",
    "objective",
    "batch_size",
    "learning_rate",
    "schedule_learning_rate",
    "patience",
    "head_start",
    "crlb",
    "held_out",
    "engine",
    "note",
)
_NETWORK_KEYS = ("width", "depth", "dropout", "activation")
_TRAINING = {"learning_rate": "learning_rate", "schedule_learning_rate": "schedule_rate"}


def read_design(path: str | Path) -> Design:
    """Design from a configuration file, or one that comes along by its name; ValueError names the file and the key."""
    path = config_file(path)
    return design_from_dict(read_json(path), str(path), path.parent)


def design_from_dict(values: dict, source: str = "configuration", folder: Path | None = None) -> Design:
    """Design from the keys of a configuration.

    Required: ``protocol`` (inline, or a file relative to ``folder``), ``tissue``, ``targets``. Optional:
    ``target_weights`` (by target, how much it counts in the optimisation), ``noise_sd`` (number or [low, high];
    default 0.002), ``samples`` (an epoch, 100,000), ``epochs`` (100), ``seed``, ``network``
    (``width``, ``depth``, ``dropout``, ``activation``), ``trainable`` (default: offsets and B1), ``limits``,
    ``objective`` (one of OBJECTIVES or a list, default crlb-a then network), ``batch_size`` (256), ``learning_rate``
    (0.001), ``schedule_learning_rate`` (0.0001), ``patience`` (epochs, 20; 0 trains to the end), ``head_start`` (epochs
    of joint training in which the network learns alone, a quarter), ``crlb`` (``steps``, ``starts``, ``first_steps``,
    ``voxels``, ``rate``), ``held_out`` (voxels, 20,000), ``engine``.

    Raises ValueError naming ``source`` and the key, also for limits that no schedule can keep.
    """
    if not isinstance(values, dict):
        raise ValueError(f"{source}: a configuration is a JSON object with the keys protocol, tissue and targets")
    unknown = sorted(set(values) - set(KEYS))
    if unknown:
        raise ValueError(f"{source}: unknown keys {', '.join(unknown)}; use {', '.join(KEYS)}")
    for key in ("protocol", "tissue", "targets"):
        if key not in values:
            raise ValueError(f"{source}: the key {key} is missing")
    tissue = TissueDistribution.from_dict(values["tissue"], f"{source}: tissue")
    protocol = config_protocol(values["protocol"], source, folder or Path())
    try:
        design = _design(values, protocol, tissue)
        design.schedule()
    except (ValueError, TypeError) as error:
        raise ValueError(f"{source}: {error}") from None
    return design


def _design(values: dict, protocol: Protocol, tissue: TissueDistribution) -> Design:
    noise = values.get("noise_sd", 0.002)
    noise = tuple(float(sd) for sd in noise) if isinstance(noise, list | tuple) else (float(noise), float(noise))
    if len(noise) != 2:
        raise ValueError("noise_sd is a number or the lowest and the highest")
    targets = tuple([values["targets"]] if isinstance(values["targets"], str) else values["targets"])
    problem = Problem(
        tissue, targets, noise, values.get("engine", "r1rho"), _weights(values.get("target_weights"), targets)
    )
    objective = values.get("objective", ["crlb-a", "network"])
    objective = (objective,) if isinstance(objective, str) else tuple(objective)
    if not objective or set(objective) - set(OBJECTIVES):
        raise ValueError(f"objective is {', '.join(objective) or 'empty'}; use {', '.join(OBJECTIVES)}, or a list")
    trainable = values.get("trainable", ["offsets_ppm", "b1_uT"])
    if not isinstance(trainable, Mapping):
        trainable = dict.fromkeys([trainable] if isinstance(trainable, str) else trainable, True)
    training = {name: float(values[key]) for key, name in _TRAINING.items() if key in values}
    whole = {"epochs": 1, "batch_size": 1, "seed": 0, "patience": 0, "head_start": 0}
    training |= {key: _whole(values[key], key, least) for key, least in whole.items() if key in values}
    training.setdefault("head_start", training.get("epochs", TrainingSettings.epochs) // 4)
    bound = _known(values.get("crlb", {}), "crlb", [field.name for field in fields(BoundSettings)])
    if unknown := sorted(set(trainable) - set(TRAINABLE)):
        raise ValueError(f"trainable: unknown quantities {', '.join(unknown)}; use {', '.join(TRAINABLE)}")
    return Design(
        protocol,
        problem,
        trainable,
        Limits.from_dict(values.get("limits")),
        objective,
        samples=_whole(values.get("samples", 100_000), "samples", 1),
        network=_known(values.get("network", {}), "network", _NETWORK_KEYS),
        training=TrainingSettings(**training),
        bound=BoundSettings(**bound),
        held_out=_whole(values.get("held_out", 20_000), "held_out", 2),
    )


def _weights(values, targets: tuple[str, ...]) -> tuple[float, ...] | None:
    if values is None:
        return None
    given = _known(values, "target_weights", targets)
    weights = tuple(float(given.get(path, 1.0)) for path in targets)
    if not all(weight >= 0 for weight in weights) or not any(weights):
        raise ValueError(f"target_weights are {', '.join(f'{w:g}' for w in weights)} but must be positive or 0")
    return weights


def _known(values, name: str, keys) -> dict:
    if not isinstance(values, Mapping):
        raise ValueError(f"{name} is an object with some of the keys {', '.join(keys)}")
    unknown = sorted(set(values) - set(keys))
    if unknown:
        raise ValueError(f"{name}: unknown keys {', '.join(unknown)}; use {', '.join(keys)}")
    return dict(values)


def _whole(value, name: str, least: int = 0) -> int:
    if isinstance(value, bool) or not isinstance(value, int | float) or value != int(value) or value < least:
        raise ValueError(f"{name} is {value!r} but must be a whole number of at least {least}")
    return int(value)
