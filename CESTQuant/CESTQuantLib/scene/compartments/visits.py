"""The analysis of the compartments of one or two visits in the scene."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from NeuroCESTLib.core.background import in_background
from NeuroCESTLib.core.messages.input_errors import naming
from NeuroCESTLib.core.progress import Progress, part
from NeuroCESTLib.scene.messages import called, names_of

from ...compartments.inputs import Settings
from ...methods.base import Settings as MethodSettings
from ..acquired import Preparation, acquired
from ..maps import MapNodes
from ..settings import method_settings
from ..study import Study
from .inputs import CompartmentVisit, between_transform, visit_input
from .nodes import CompartmentsResult, into_scene

FILES_OF_METHODS = {
    "protocol": "protocol",
    "model": "model",
    "lorentzian": "lorentzianPreset",
    "network": "network",
    "config": "config",
    "calibration": "calibration",
    "reference": "reference",
    "mask": "mask",
    "b0": "b0",
    "b1": "b1",
    "t1": "t1",
}
"""Argument of the Logic with the file or node that a message is about, by its role there."""
_SETTINGS = (
    "model",
    "asymmetryOffset_ppm",
    "lorentzianPreset",
    "power_uT",
    "network",
    "config",
    "calibration",
    "noise_sd",
)
"""Arguments of a fit that become settings of its method."""
_ROLES = {
    "signalNode": "acquisition",
    "protocol": "protocol",
    "reference": "M0 image",
    "mask": "mask",
    "b0": "B0 map",
    "b1": "B1 map",
    "t1": "T1 map",
    "model": "model",
    "network": "network",
    "config": "configuration",
    "calibration": "calibration",
}
"""What reports call the arguments of a fit that are nodes or files."""


def analyze_visits(
    first: CompartmentVisit,
    second: CompartmentVisit | None,
    between: Any,
    settings: Settings,
    folder: str,
    progress: Progress,
) -> CompartmentsResult:
    """Analyse the compartments of a tumour at one or two visits, and put the result into the scene.

    Args:
        first: The earlier visit.
        second: The later visit, or None.
        between: Transform node or file that moves the second visit onto the first one, or None.
        settings: Settings of the analysis.
        folder: Name of the folder of the result.
        progress: Called with the fraction done and a message; may raise to cancel.

    Raises:
        ValueError: Something is missing or unusable; one sentence that names the visit and the remedy.
    """
    from ...compartments.analysis import analyze

    visits = [first] if second is None else [first, second]
    inputs = [
        visit_input(visit, f"visit {number}", _acquisition(visit.fit, progress))
        for number, visit in enumerate(visits, start=1)
    ]
    transform = None if between is None else between_transform(between)
    later = inputs[1] if second is not None else None
    analysis = in_background(
        lambda report: analyze(inputs[0], later, settings, transform, progress=part(report, 0.05, 0.95)), progress
    )
    result = into_scene(analysis, folder)
    result.inputs, result.between = tuple(inputs), transform
    result.names = _names(visits, [each.name for each in inputs], between)
    return result


def _names(visits: list[CompartmentVisit], called: list[str], between: Any) -> dict[str, str]:
    """What stands for the names of the given nodes and files; maps that are called after their quantity keep it."""
    found: dict[str, str] = {}
    for visit, name in zip(visits, called, strict=True):
        fit = visit.fit or {}
        given: dict[str, Any] = {f"the {role} of {name}": fit.get(argument) for argument, role in _ROLES.items()}
        given |= {f"{quantity} of {name}": node for quantity, node in visit.maps.items()}
        given |= {f"the M0 image of {name}": visit.unsaturated, f"the alignment of {name}": visit.toAnatomy}
        for role, value in given.items():
            text = value.GetName() if hasattr(value, "GetName") else value
            if isinstance(text, str | Path) and str(text) not in visit.maps:
                found.setdefault(str(text), role)
    if between is not None:
        found[str(between.GetName() if hasattr(between, "GetName") else between)] = "the transform between the visits"
    return {text: role for text, role in found.items() if text}


def _acquisition(fit: Mapping[str, Any] | None, progress: Progress) -> tuple[Study, MethodSettings, Any] | None:
    """Return the prepared acquisition, settings and spectra of the fit that made maps, by the arguments of that fit."""
    if fit is None:
        return None
    arguments = {name: value for name, value in fit.items() if value is not None}
    with naming(names_of(arguments, FILES_OF_METHODS), called(arguments["signalNode"])):
        study = Study.of(
            arguments["signalNode"],
            arguments.get("protocol"),
            arguments.get("reference"),
            arguments.get("mask"),
            arguments.get("signalNormalisation"),
            m0_over_time=arguments.get("m0OverTime", "interpolated"),
            field_strength_T=arguments.get("fieldStrength_T"),
        )
        settings = method_settings(**{name: arguments[name] for name in _SETTINGS if name in arguments})
        nodes = MapNodes(*(arguments.get(name) for name in ("b0", "b1", "t1")))
        preparation = Preparation(
            motion_correction=bool(arguments.get("motionCorrection", False)),
            denoising=bool(arguments.get("denoising", False)),
            smoothing_ppm=arguments.get("smoothing_ppm"),
            quass=arguments.get("quass"),
        )
        model = arguments.get("model")
        ready = acquired(study, nodes, settings.model, model, preparation, part(progress, 0.0, 0.05))
        return ready.prepared.study, settings, ready.spectra
