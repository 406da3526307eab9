"""Relaxation maps of a sequence in the scene, as nodes that fits take at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from NeuroCESTLib.core.background import in_background
from NeuroCESTLib.core.messages.input_errors import InputError
from NeuroCESTLib.core.progress import Progress
from NeuroCESTLib.core.whole_files import keep_words
from NeuroCESTLib.scene import display, hierarchy, volumes
from NeuroCESTLib.scene.geometry import Geometry
from NeuroCESTLib.scene.messages import called
from NeuroCESTLib.scene.sequences import sequence_to_array
from NeuroCESTLib.scene.transaction import scene_unchanged_on_error

from .results import is_unusable, unusable_warnings, voxels_by_status
from .study import mask_of

SHORTEST_REPETITION_S = 0.001
"""No sequence excites faster; repetition times below this are given in another unit."""


@dataclass(frozen=True)
class RelaxationMaps:
    """Relaxation maps in the scene.

    Attributes:
        nodes: Volume nodes by name: ``t1_s`` or ``t2_s``, its standard error ``…_sd``, ``rmse`` and ``status``.
        folderItemID: Their folder in the subject hierarchy.
        report: Numbers for ``report.json``.
        anatomy: Image (K, J, I) under the maps of the report picture.
        geometry: Voxel grid.
    """

    nodes: dict[str, Any]
    folderItemID: int
    report: dict[str, Any]
    anatomy: np.ndarray
    geometry: Geometry


def map_relaxation(
    signal: Any,
    kind: str,
    values: Sequence[float],
    *,
    repetition_time_s: float | None,
    b1: Any,
    mask: Any,
    folder: str,
    progress: Progress,
) -> RelaxationMaps:
    """Map T1 or T2 of a sequence; after an error the scene is as it was.

    Args:
        signal: Sequence node, one volume for each value.
        kind: One of ``CESTQuantLib.preprocessing.relaxation.KINDS``.
        values: Times in s, or flip angles in degrees, in the order of the measurements.
        repetition_time_s: Time between excitations, for flip angles.
        b1: Volume of the relative B1, which scales flip angles, or None.
        mask: Volume, label map or segmentation of the voxels to fit, or None for all that have a signal.
        folder: Name of the folder.
        progress: Called with the fraction done and a message; may raise to cancel.

    Raises:
        ValueError: An argument is missing, does not belong to the kind, or does not fit the signal.
    """
    import torch

    from ..preprocessing.magnitudes import b1_relative, bright_voxels
    from ..preprocessing.relaxation import FLIP_ANGLES, KINDS, MODELS, fit_relaxation, flip_angle_model

    if kind not in KINDS:
        raise ValueError(f"the kind '{kind}' is unknown; use one of {', '.join(KINDS)}")
    if signal is None or not signal.IsA("vtkMRMLSequenceNode"):
        raise ValueError("the signal must be a sequence with one volume per measurement")
    array, geometry, _ = sequence_to_array(signal)
    if len(values) != len(array):
        raise ValueError(f"{len(values)} values are given but {called(signal)} has {len(array)} measurements")
    numbers = torch.tensor(list(values), dtype=torch.float64)
    if not bool((torch.isfinite(numbers) & (numbers > 0)).all()):
        raise InputError("values", "times and flip angles must be positive numbers")
    has_signal = np.abs(array).sum(0) > 0
    if not has_signal.any():
        raise ValueError(f"{called(signal)} has no voxel with a signal: check the file and its scaling")
    inside = has_signal if mask is None else mask_of(mask, geometry)
    voxels = np.flatnonzero(inside)
    warnings: list[str] = []
    if kind == FLIP_ANGLES:
        if repetition_time_s is None or not repetition_time_s > 0:
            raise InputError("repetition-time-ms", "flip angles need the repetition time, a positive number")
        model, settings = flip_angle_model(repetition_time_s), torch.deg2rad(numbers)
        given = "flip angles and the repetition time"
        if b1 is not None:
            relative = volumes.array_on(b1, geometry).reshape(-1)[voxels].astype(np.float64)
            scale, noted = b1_relative(torch.from_numpy(relative), called(b1))
            settings, warnings = scale[:, None] * settings, list(noted)
        else:
            warnings = ["no B1 map is given: T1 from flip angles is wrong by about twice the error of B1"]
        if repetition_time_s < SHORTEST_REPETITION_S:
            warnings.append(
                f"the repetition time is short ({1e3 * repetition_time_s:.3g} ms): check that it is in ms and not in s"
            )
    else:
        if b1 is not None or repetition_time_s is not None:
            role = "repetition-time-ms" if b1 is None else "b1"
            raise InputError(role, f"{kind} uses neither B1 nor a repetition time: leave them out")
        model, settings, given = MODELS[kind], numbers, "times"
        if float(numbers.max()) < model.limits_s[0]:
            longest = 1e3 * float(numbers.max())
            warnings = [
                f"all times are short (the longest is {longest:.3g} ms): check that they are in ms and not in s"
            ]
    at_voxels = torch.from_numpy(array.reshape(len(array), -1)[:, voxels].T.astype(np.float64))
    fit = in_background(lambda report: fit_relaxation(at_voxels, settings, model, progress=report), progress)

    brightness = at_voxels.abs().amax(1).nan_to_num(0.0)
    bright = (brightness > 0) & bright_voxels(brightness)
    shortest_s, longest_s = model.limits_s
    limits = f"{model.quantity[:2].upper()} from {1e3 * shortest_s:g} ms to {longest_s:g} s"
    check = f"mask, kind and the order and unit of the {given}"
    warnings += unusable_warnings(fit.status.numpy(), bright.numpy(), check, limits)

    def on_grid(found: torch.Tensor, elsewhere: float, dtype: type) -> np.ndarray:
        full = np.full(inside.size, elsewhere, dtype=dtype)
        full[voxels] = found.numpy().astype(dtype)
        return full.reshape(geometry.shape)

    found = {model.quantity: fit.time_s, f"{model.quantity}_sd": fit.error_s, "rmse": fit.rmse}
    keep_words("status", *found)
    with scene_unchanged_on_error():
        nodes = {}
        for name, map_values in found.items():
            node = nodes[name] = volumes.add_volume(on_grid(map_values, np.nan, np.float32), geometry, name)
            unit, colors = (
                ("", "inferno") if name == "rmse" else ("s", "viridis" if name == model.quantity else "inferno")
            )
            display.show_map(node, unit, colors)
        nodes["status"] = volumes.add_volume(on_grid(fit.status, 0, np.uint8), geometry, "status", label=True)
        item = hierarchy.make_folder(folder or f"{signal.GetName()} {kind}")
        hierarchy.put(nodes.values(), item)
    estimated = torch.from_numpy(~is_unusable(fit.status.numpy(), of_a_search=True))
    report = {
        "model": model.title,
        "voxels": voxels_by_status(fit.status, inside.size - len(voxels)),
        "medians": {name: float(map_values[estimated].nanmedian()) for name, map_values in found.items()},
        "publications": [model.publication] if model.publication else [],
        "warnings": warnings,
    }
    return RelaxationMaps(nodes, item, report, np.abs(array).mean(0).astype(np.float32), geometry)
