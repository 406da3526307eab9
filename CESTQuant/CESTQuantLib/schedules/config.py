"""CONFIG.json of ``cestquant optimize-schedule``; what data sets and trainings use too is read in the same way."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from NeuroCESTLib.core.checked_json import check_keys, number, read_json, settings_from_json, whole_number

from ..networks.architecture import network_options
from ..networks.config import (
    FALSE_ALARM_RATE,
    SAMPLES,
    check_config_keys,
    config_file,
    config_protocol,
    engine_warnings,
    errors_naming,
    false_alarm_rate,
    m0_warnings,
    names,
    noise_limits,
)
from ..networks.settings import TrainingSettings
from ..tissue.distributions import TissueDistribution
from .bound import BoundSettings
from .cramer_rao import OBJECTIVES as BOUNDS
from .design import JOINT_TRAINING, OBJECTIVES, Design
from .limits import Limits
from .problem import EstimationProblem
from .quantities import trained_names

_FLIP_ANGLES_WITH_M0 = (
    "readout_flip_angle_deg is trained although signal_normalisation is m0: noise is then simulated relative to M0, so "
    "that a small flip angle costs nothing here, whereas in a scan it costs signal, and spectra are noisier: "
    "set signal_normalisation of the protocol to none or l2, or do not train the flip angle"
)


def read_design(path: str | Path) -> Design:
    """Read a design.

    Args:
        path: A file, or the name of a bundled configuration.

    Raises:
        ValueError: The file cannot be used; the message names it and the key.
    """
    path = config_file(path)
    return design_from_dict(read_json(path), str(path), path.parent)


def design_from_dict(values: Any, source: str = "configuration", folder: Path | None = None) -> Design:
    """Check the values of a CONFIG.json for the optimisation of a schedule.

    - Required are ``protocol`` (inline, a file relative to ``folder``, or the name of a sampling strategy), ``tissue``
      and ``targets``.
    - ``target_weights``: how much each target counts in the optimisation and in the choice of the schedule that is
      kept, by path (1).
    - ``noise_sd``: a number or [low, high], relative to the equilibrium signal (0.002).
    - ``samples`` of an epoch (100,000), ``epochs`` (100), ``batch_size`` (256), ``learning_rate`` (0.001),
      ``schedule_learning_rate`` (0.0001), ``seed`` (0), ``patience`` in epochs (20; 0 trains to the end),
      ``head_start``: epochs of joint training in which the network learns alone (a quarter of ``epochs``), after which
      the patience begins.
    - ``network``: ``width``, ``depth``, ``dropout``, ``activation``.
    - ``trainable`` (offsets and B1), ``limits``, ``engine``.
    - ``objective``: one of ``design.OBJECTIVES`` or a list of them (``crlb-a``, then ``network``).
    - ``crlb``: ``steps``, ``starts``, ``first_steps``, ``voxels``, ``rate``.
    - ``held_out``: voxels of the final comparison (20,000).
    - ``false_alarm_rate`` of the reliability map of the final network (0.05).

    Args:
        values: Object as read from JSON.
        source: Name that opens every message.
        folder: Folder that paths in the configuration are relative to; by default the current one.

    Raises:
        ValueError: A key is unknown, is missing or has an unusable value, or no schedule can keep the limits; the
            message names ``source`` and the key.
    """
    values = check_config_keys(values, source, ("protocol", "tissue", "targets"))
    with errors_naming(source):
        targets = names(values["targets"])
        problem = EstimationProblem(
            tissue=TissueDistribution.from_dict(values["tissue"], f"{source}: tissue"),
            targets=targets,
            noise_sd=noise_limits(values.get("noise_sd", 0.002)),
            engine=values.get("engine", "r1rho"),
            weights=_weights(values.get("target_weights"), targets),
        )
        design = Design(
            protocol=config_protocol(values["protocol"], source, folder or Path()),
            problem=problem,
            trainable=trained_names(values.get("trainable", ["offsets_ppm", "b1_uT"])),
            limits=Limits.from_dict(values.get("limits")),
            objective=_objectives(values.get("objective", ["crlb-a", JOINT_TRAINING])),
            samples=whole_number(values.get("samples", SAMPLES), "samples", 1),
            network=network_options(values.get("network") or {}),
            training=_training(values),
            bound=settings_from_json(BoundSettings, values.get("crlb") or {}, "crlb"),
            held_out=whole_number(values.get("held_out", 20_000), "held_out", 2),
            false_alarm_rate=false_alarm_rate(values.get("false_alarm_rate", FALSE_ALARM_RATE)),
        )
        if problem.mean_noise_sd == 0 and set(design.objective) & set(BOUNDS):
            raise ValueError("noise_sd is 0, for which there is no Cramér-Rao bound; give a positive number")
        design.schedule()
        if "readout_flip_angle_deg" in design.trainable and design.protocol.signal_normalisation == "m0":
            warnings.warn(f"{source}: {_FLIP_ANGLES_WITH_M0}", stacklevel=2)
        for warning in m0_warnings(design.protocol, problem.tissue, problem.engine):
            warnings.warn(f"{source}: {warning}", stacklevel=2)
        for warning in engine_warnings(design.protocol, problem.tissue, problem.engine):
            warnings.warn(f"{source}: {warning}", stacklevel=2)
    return design


def _objectives(value: Any) -> tuple[str, ...]:
    objectives = names(value)
    if not objectives or set(objectives) - set(OBJECTIVES):
        raise ValueError(f"objective is {', '.join(objectives) or 'empty'}; use {', '.join(OBJECTIVES)}, or a list")
    return objectives


def _training(values: Mapping[str, Any]) -> TrainingSettings:
    training = TrainingSettings.from_config(values)
    return replace(training, head_start=whole_number(values.get("head_start", training.epochs // 4), "head_start", 0))


def _weights(values: Any, targets: Sequence[str]) -> tuple[float, ...] | None:
    if values is None:
        return None
    given = check_keys(values, targets, "target_weights")
    weights = tuple(number(given.get(path, 1.0), f"target_weights: {path}") for path in targets)
    if not all(weight >= 0 for weight in weights) or not any(weights):
        raise ValueError(f"target_weights are {', '.join(f'{w:g}' for w in weights)} but must be positive or 0")
    return weights
