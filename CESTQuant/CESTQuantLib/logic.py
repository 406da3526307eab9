"""Scene layer of CESTQuant: MRML nodes in, MRML nodes out; the same for panel, console and batch commands."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from NeuroCESTLib.core import progress
from NeuroCESTLib.core.device import choose_device
from NeuroCESTLib.core.progress import Progress
from NeuroCESTLib.scene import display, hierarchy, volumes
from NeuroCESTLib.scene.geometry import Geometry
from NeuroCESTLib.scene.segmentations import add_segmentation, masks_on
from NeuroCESTLib.scene.sequences import array_to_sequence

from .scene.results import CESTQuantResult, into_scene
from .scene.study import PROTOCOL_ATTRIBUTE, Study

if TYPE_CHECKING:
    from .methods.registry import Quantification
MILLISECONDS_ABOVE_S = 50.0
"""No T1 in s is this long: a map with such a median is in ms."""
LORENTZIAN_PRESETS = ("3T", "7T")
PERCENT_ABOVE = 10.0
"""No relative B1 is this high: a map with such a median is in percent."""


class CESTQuantLogic:
    """Maps from nodes."""

    def fit(
        self,
        signalNode,
        protocol,
        *,
        method: str = "lorentzian",
        model=None,
        reference=None,
        mask=None,
        b0=None,
        b1=None,
        t1=None,
        segmentation=None,
        folderName: str = "",
        asymmetryOffset_ppm: float | tuple[float, ...] = 3.5,
        lorentzianPreset: str = "3T",
        power_uT: float | None = None,
        network: str | None = None,
        config: str | None = None,
        signalNormalisation: str | None = None,
        device: str = "auto",
        progress: Progress | None = None,
    ) -> CESTQuantResult:
        """Quantify an acquisition; the scene gains one folder of maps, or nothing at all after an error or cancel.

        signalNode: vtkMRMLSequenceNode, one volume a measurement. protocol: path (.json, .seq, offsets text), dict,
        Protocol, or None for what the sequence carries: a protocol, or else its offsets (ppm). model: path or dict of a
        tissue model. reference: M0 volume or sequence. mask: volume, label map or segmentation on the signal's grid.
        b0 (ppm), b1 (relative), t1 (s): volumes, resampled to the signal. segmentation: regions of the table.
        asymmetryOffset_ppm: for mtrasym. lorentzianPreset: '3T', '7T' or a path to a pool description. power_uT: which
        of several powers a contrast uses. network: network file (method network). config: configuration of the
        simulated data (method dictionary). device: 'auto' (CUDA where there is one), 'cpu' or 'cuda'.
        progress(fraction, message) may raise to cancel.

        Raises ValueError with one sentence that names the node or file.
        """
        report = progress or (lambda fraction, message: None)
        report(0.0, "reading")
        study = Study.of(signalNode, protocol, reference, mask, signalNormalisation)
        quantification, warnings = self._quantify(
            study,
            method,
            model,
            (b0, b1, t1),
            asymmetryOffset_ppm,
            lorentzianPreset,
            power_uT,
            device,
            report,
            network,
            config,
        )
        regions = masks_on(segmentation, study.geometry) if segmentation is not None else {}
        report(0.95, "writing maps into the scene")
        return into_scene(study, quantification, warnings, regions, folderName or f"{signalNode.GetName()} {method}")

    def fieldMaps(
        self,
        signalNode,
        protocol,
        *,
        method: str = "wasabi",
        reference=None,
        mask=None,
        folderName: str = "",
        signalNormalisation: str | None = None,
        progress: Progress | None = None,
    ) -> CESTQuantResult:
        """B0 (and with 'wasabi' relative B1) from an acquisition of its own; arguments as in :meth:`fit`."""
        from .methods.fields import map_fields

        report = progress or (lambda fraction, message: None)
        report(0.0, "reading")
        study = Study.of(signalNode, protocol, reference, mask, signalNormalisation)
        quantification = map_fields(_usable_spectra(study), method, _part(report))
        _require_fitted(study, quantification)
        report(0.95, "writing maps into the scene")
        return into_scene(study, quantification, study.warnings, {}, folderName or f"{signalNode.GetName()} {method}")

    def hasProtocol(self, signalNode) -> bool:
        """Whether the acquisition carries its protocol, as the sample data do."""
        return signalNode is not None and bool(signalNode.GetAttribute(PROTOCOL_ATTRIBUTE))

    def addPhantom(self, *, seed: int = 1, noise_sd: float = 0.002, progress: Progress | None = None) -> dict[str, Any]:
        """Simulate the digital brain phantom and add it to the scene; nodes by name, in one folder."""
        from .formats.protocol_json import protocol_to_dict
        from .tissue.phantom import REGIONS, make_phantom

        phantom = make_phantom(noise_sd=noise_sd, seed=seed, progress=progress)
        geometry = phantom_geometry()
        offsets = phantom.protocol.offsets_ppm.numpy()
        nodes = {
            "signal": array_to_sequence(phantom.signal, geometry, "CEST phantom", offsets),
            "m0": volumes.add_volume(phantom.m0, geometry, "CEST phantom M0"),
            "b0": volumes.add_volume(phantom.b0_shift_ppm, geometry, "CEST phantom B0"),
            "b1": volumes.add_volume(phantom.b1_relative, geometry, "CEST phantom B1"),
            "t1": volumes.add_volume(phantom.t1_s, geometry, "CEST phantom T1"),
            "mask": volumes.add_volume(phantom.labels > 0, geometry, "CEST phantom mask", label=True),
        }
        nodes["signal"].SetAttribute(PROTOCOL_ATTRIBUTE, json.dumps(protocol_to_dict(phantom.protocol)))
        masks = {name: phantom.labels == label for label, (name, _) in REGIONS.items()}
        nodes["segmentation"] = add_segmentation(masks, geometry, "CEST phantom regions")
        for name, unit, color_map in (("b0", "ppm", "diverging"), ("b1", "", "viridis"), ("t1", "s", "viridis")):
            display.show_map(nodes[name], unit, color_map)
        hierarchy.put(nodes.values(), hierarchy.make_folder("CEST phantom"))
        return nodes

    def _quantify(
        self,
        study: Study,
        method: str,
        model,
        maps: tuple,
        asymmetryOffset_ppm,
        lorentzianPreset,
        power_uT,
        device,
        report,
        network=None,
        config=None,
    ) -> tuple[Quantification, tuple[str, ...]]:
        from .methods.registry import METHODS, Settings, quantify

        if method not in METHODS:
            raise ValueError(f"method '{method}' is unknown; use one of {', '.join(METHODS)}")
        tissue = _tissue_model(model)
        warnings = list(study.warnings)
        b0, b1, t1 = (None if node is None else study.values(node) for node in maps)
        b1 = _rescaled(b1, maps[1], "B1", PERCENT_ABOVE, 100, "%", warnings)
        t1 = _rescaled(t1, maps[2], "T1", MILLISECONDS_ABOVE_S, 1000, "ms", warnings)
        known = {"b0": b0, "b1": b1, "t1": t1}
        named = {}
        for name in tissue.map_names if tissue is not None else []:
            values = known[name] if name in known else study.values_of_file(map_file(name, model))
            if values is None:
                raise ValueError(f"the model refers to the map '{name}', which is not given")
            named[name] = values
        offsets = asymmetryOffset_ppm if isinstance(asymmetryOffset_ppm, tuple | list) else (asymmetryOffset_ppm,)
        settings = Settings(
            model=tissue,
            lorentzian=_lorentzian(lorentzianPreset),
            asymmetry_offsets_ppm=tuple(float(o) for o in offsets),
            power_uT=power_uT,
            maps=named,
            network=network,
            config=config,
        )
        result = quantify(
            _usable_spectra(study),
            method,
            b0_shift_ppm=b0,
            b1_relative=b1,
            t1_s=t1,
            settings=settings,
            device=choose_device(device),
            progress=_part(report),
        )
        _require_fitted(study, result)
        return result, (*warnings, *result.warnings)


def phantom_geometry() -> Geometry:
    """Grid of the phantom: oblique, as brain slices are planned."""
    from .tissue.phantom import SHAPE, SPACING_MM

    angle = np.deg2rad(12.0)
    tilt = np.array([[1, 0, 0], [0, np.cos(angle), -np.sin(angle)], [0, np.sin(angle), np.cos(angle)]])
    matrix = np.eye(4)
    matrix[:3, :3] = tilt @ np.diag([-1.0, -1.0, 1.0]) @ np.diag(SPACING_MM)
    matrix[:3, 3] = -matrix[:3, :3] @ (np.array(SHAPE[::-1]) - 1) / 2
    return Geometry(SHAPE, matrix)


def map_file(name: str, model) -> Path:
    """Where a model file finds a map: as it says, else beside the model file."""
    beside = Path(model).parent / name if isinstance(model, str | Path) else Path(name)
    return beside if beside.exists() and not Path(name).exists() else Path(name)


def _usable_spectra(study: Study):
    import torch

    spectra = study.spectra()
    if not bool(torch.isfinite(spectra.signal).all(1).any()):
        raise ValueError(f"'{study.name}' has no voxel with a usable signal and M0: check the reference and mask")
    return spectra


def _require_fitted(study: Study, result: Quantification) -> None:
    """ValueError where no voxel has a result, with the number of voxels for each reason."""
    from .fitting.marquardt import Status

    reasons = {
        Status.INVALID_DATA: "with unusable signal, M0 or maps",
        Status.NOT_ENOUGH_POINTS: "with too few measurements",
        Status.FAILED: "where the method gives no value",
    }
    counts = {reason: int((result.status == status).sum()) for status, reason in reasons.items()}
    if sum(counts.values()) == len(result.status):
        found = ", ".join(f"{count} {reason}" for reason, count in counts.items() if count)
        raise ValueError(f"no voxel of '{study.name}' could be quantified ({found}): check the maps, mask and protocol")


def _tissue_model(model):
    from .tissue.model import TissueModel, read_tissue_model, tissue_model_from_dict

    if model is None or model == "" or isinstance(model, TissueModel):
        return model or None
    return tissue_model_from_dict(model) if isinstance(model, dict) else read_tissue_model(model)


def _lorentzian(preset: str | dict) -> str | dict:
    if isinstance(preset, dict):
        return preset
    if str(preset).endswith(".json"):
        from NeuroCESTLib.core.checked_json import read_json

        from .tissue.lorentzian_model import LorentzianModel

        description = read_json(preset)
        LorentzianModel.from_dict(description, str(preset))
        return description
    name = preset.removeprefix("lorentzian_")
    if name not in LORENTZIAN_PRESETS:
        known = ", ".join(LORENTZIAN_PRESETS)
        raise ValueError(f"Lorentzian preset '{name}' is unknown; use {known} or a pool description .json")
    return f"lorentzian_{name}"


def _rescaled(values, node, name: str, above: float, factor: float, unit: str, warnings: list[str]):
    """A map in its proper unit, with a warning where its values can only be meant in another."""
    if values is None:
        return None
    positive = values[values > 0]
    if len(positive) and float(positive.median()) > above:
        median = f"{float(positive.median()):g}"
        warnings.append(f"the {name} map '{node.GetName()}' has a median of {median} and is taken to be in {unit}")
        return values / factor
    return values


def _part(report: Progress) -> Progress:
    return progress.part(report, 0.05, 0.95)
