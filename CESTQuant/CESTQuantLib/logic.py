"""Scene layer of CESTQuant: MRML nodes in, MRML nodes out; the same for panel, console and batch commands."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from NeuroCESTLib import display, hierarchy, progress, volumes
from NeuroCESTLib.device import choose_device
from NeuroCESTLib.geometry import Geometry
from NeuroCESTLib.segmentations import add_segmentation, masks_on
from NeuroCESTLib.sequences import array_to_sequence, sequence_to_array
from NeuroCESTLib.tables import add_table

if TYPE_CHECKING:
    from .protocol import Protocol
    from .quantification import Quantification

Progress = Callable[[float, str], None]
PROTOCOL_ATTRIBUTE = "NeuroCEST.protocol"
"""Attribute of a sequence node that holds the text of its protocol.json."""
MILLISECONDS_ABOVE_S = 50.0
"""No T1 in s is this long: a map with such a median is in ms."""


@dataclass
class CESTQuantResult:
    """Nodes of a run by quantity, their subject-hierarchy folder, the table of regions, and what to report.

    ``drawing`` is what :func:`CESTQuantLib.report.draw_report` needs.
    """

    nodes: dict[str, Any]
    folderItemID: int
    table: Any = None
    report: dict[str, Any] = field(default_factory=dict)
    drawing: Drawing | None = None


@dataclass(frozen=True)
class Drawing:
    """Arrays behind a report picture: (K, J, I) on ``geometry``; ``voxels`` are flat indices of the fitted ones."""

    geometry: Geometry
    anatomy: np.ndarray
    voxels: np.ndarray
    regions: dict[str, np.ndarray]
    quantification: Quantification
    maps: dict[str, np.ndarray]


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
        of several powers a contrast uses. device: 'auto' (CUDA where there is one), 'cpu' or 'cuda'.
        progress(fraction, message) may raise to cancel.

        Raises ValueError with one sentence that names the node or file.
        """
        report = progress or (lambda fraction, message: None)
        report(0.0, "reading")
        study = _Study.of(signalNode, protocol, reference, mask, signalNormalisation)
        quantification, warnings = self._quantify(
            study, method, model, (b0, b1, t1), asymmetryOffset_ppm, lorentzianPreset, power_uT, device, report
        )
        regions = masks_on(segmentation, study.geometry) if segmentation is not None else {}
        report(0.95, "writing maps into the scene")
        return _into_scene(study, quantification, warnings, regions, folderName or f"{signalNode.GetName()} {method}")

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
        from .field_methods import map_fields

        report = progress or (lambda fraction, message: None)
        report(0.0, "reading")
        study = _Study.of(signalNode, protocol, reference, mask, signalNormalisation)
        quantification = map_fields(study.spectra(), method, _part(report))
        report(0.95, "writing maps into the scene")
        return _into_scene(study, quantification, (), {}, folderName or f"{signalNode.GetName()} {method}")

    def hasProtocol(self, signalNode) -> bool:
        """Whether the acquisition carries its protocol, as the sample data do."""
        return signalNode is not None and bool(signalNode.GetAttribute(PROTOCOL_ATTRIBUTE))

    def addPhantom(self, *, seed: int = 1, noise_sd: float = 0.002, progress: Progress | None = None) -> dict[str, Any]:
        """Simulate the digital brain phantom and add it to the scene; nodes by name, in one folder."""
        from .phantom import REGIONS, make_phantom
        from .protocol import protocol_to_dict

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
        study: _Study,
        method: str,
        model,
        maps: tuple,
        asymmetryOffset_ppm,
        lorentzianPreset,
        power_uT,
        device,
        report,
    ) -> tuple[Quantification, tuple[str, ...]]:
        import torch

        from .quantification import METHODS, Settings, quantify

        if method not in METHODS:
            raise ValueError(f"method '{method}' is unknown; use one of {', '.join(METHODS)}")
        tissue = _tissue_model(model)
        warnings: list[str] = []
        b0, b1, t1 = (None if node is None else study.values(node) for node in maps)
        t1 = _in_seconds(t1, maps[2], warnings)
        known = {"b0": b0, "b1": b1, "t1": t1}
        named = {}
        for name in tissue.map_names if tissue is not None else []:
            values = known[name] if name in known else study.values_of_file(name)
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
        )
        spectra = study.spectra()
        if not bool(torch.isfinite(spectra.signal).all(1).any()):
            raise ValueError(f"'{study.name}' has no voxel with a usable signal and M0: check the reference and mask")
        result = quantify(
            spectra,
            method,
            b0_shift_ppm=b0,
            b1_relative=b1,
            t1_s=t1,
            settings=settings,
            device=choose_device(device),
            progress=_part(report),
        )
        return result, (*warnings, *result.warnings)


def phantom_geometry() -> Geometry:
    """Grid of the phantom: oblique, as brain slices are planned."""
    from .phantom import SHAPE, SPACING_MM

    angle = np.deg2rad(12.0)
    tilt = np.array([[1, 0, 0], [0, np.cos(angle), -np.sin(angle)], [0, np.sin(angle), np.cos(angle)]])
    matrix = np.eye(4)
    matrix[:3, :3] = tilt @ np.diag([-1.0, -1.0, 1.0]) @ np.diag(SPACING_MM)
    matrix[:3, 3] = -matrix[:3, :3] @ (np.array(SHAPE[::-1]) - 1) / 2
    return Geometry(SHAPE, matrix)


@dataclass(frozen=True)
class _Study:
    """The acquisition as arrays: raw (measurement, K, J, I), and the flat indices of the voxels to fit."""

    name: str
    raw: np.ndarray
    geometry: Geometry
    protocol: Protocol
    reference: np.ndarray | None
    voxels: np.ndarray

    @classmethod
    def of(cls, signalNode, protocol, reference, mask, normalisation: str | None) -> _Study:
        if signalNode is None:
            raise ValueError("no signal is chosen; give a sequence node with one volume a measurement")
        if not signalNode.IsA("vtkMRMLSequenceNode"):
            raise ValueError(
                f"'{signalNode.GetName()}' is one volume; the signal must be a sequence, one a measurement"
            )
        raw, geometry, index = sequence_to_array(signalNode)
        name = signalNode.GetName()
        protocol = _protocol(protocol, signalNode, index, normalisation)
        if len(raw) != protocol.measurement_count:
            raise ValueError(
                f"the protocol has {protocol.measurement_count} offsets but '{name}' has {len(raw)} measurements"
            )
        raw = raw[_order(signalNode, index, protocol, name)]
        reference_array = None if reference is None else _reference(reference, geometry)
        chosen = np.ones(geometry.shape, bool) if mask is None else _mask(mask, geometry)
        return cls(name, raw, geometry, protocol, reference_array, np.flatnonzero(chosen))

    def values(self, node):
        """Values (voxel,) of a volume node at the voxels to fit, float64 tensor."""
        import torch

        array = volumes.array_on(node, self.geometry)
        return torch.from_numpy(array.reshape(-1)[self.voxels].astype(np.float64))

    def values_of_file(self, path: str):
        node = volumes.read_volume(path)
        try:
            return self.values(node)
        finally:
            volumes.remove(node)

    def spectra(self):
        import torch

        from .signal import normalise

        def at_voxels(array: np.ndarray) -> torch.Tensor:
            return torch.from_numpy(array.reshape(len(array), -1)[:, self.voxels].T.astype(np.float32))

        reference = None if self.reference is None else at_voxels(self.reference)
        return normalise(at_voxels(self.raw), self.protocol, reference, where=f"'{self.name}'")


def _protocol(protocol, node, index: np.ndarray, normalisation: str | None):
    from dataclasses import replace

    from .protocol import Protocol, protocol_from_dict, read_protocol

    if protocol is None and node.GetAttribute(PROTOCOL_ATTRIBUTE):
        protocol = json.loads(node.GetAttribute(PROTOCOL_ATTRIBUTE))
    if protocol is None:
        if not np.isfinite(index).all() or node.GetIndexUnit() != "ppm":
            raise ValueError(f"'{node.GetName()}' does not say its offsets in ppm; give a protocol")
        protocol = Protocol(3.0, index, b1_uT=0.0, saturation_time_s=0.0)
    elif isinstance(protocol, dict):
        protocol = protocol_from_dict(protocol)
    elif not isinstance(protocol, Protocol):
        protocol = read_protocol(Path(protocol))
    return protocol if normalisation is None else replace(protocol, signal_normalisation=normalisation)


def _order(node, index: np.ndarray, protocol, name: str) -> np.ndarray:
    """Order of the sequence's measurements in the protocol: Slicer sorts sequences by a numeric index."""
    as_stored = np.arange(len(index))
    offsets = protocol.offsets_ppm.detach().numpy()
    if node.GetIndexUnit() != "ppm" or not np.isfinite(index).all() or np.allclose(index, offsets, atol=2e-3):
        return as_stored
    by_index, by_offset = np.argsort(index, kind="stable"), np.argsort(offsets, kind="stable")
    if not np.allclose(index[by_index], offsets[by_offset], atol=2e-3):
        raise ValueError(f"the offsets of '{name}' ({index[0]:g}, {index[1]:g}, …) are not those of the protocol")
    if (np.diff(offsets[by_offset]) < 2e-3).any():
        raise ValueError(f"'{name}' is ordered otherwise than the protocol, and repeated offsets leave the order open")
    order = np.empty(len(index), dtype=np.int64)
    order[by_offset] = by_index
    return order


def _reference(node, geometry: Geometry) -> np.ndarray:
    """Reference images (n, K, J, I) of an M0 volume or sequence."""
    if not node.IsA("vtkMRMLSequenceNode"):
        return volumes.array_on(node, geometry)[None]
    array, own, _ = sequence_to_array(node)
    if difference := geometry.difference(own):
        raise ValueError(f"the reference '{node.GetName()}' has another geometry than the signal: {difference}")
    return array


def _mask(node, geometry: Geometry) -> np.ndarray:
    if not node.IsA("vtkMRMLSegmentationNode"):
        return volumes.mask_on(node, geometry)
    mask = np.any(list(masks_on(node, geometry).values()), axis=0)
    if not mask.any():
        raise ValueError(f"the mask '{node.GetName()}' is empty where the signal is")
    return mask


def _tissue_model(model):
    from .tissue_model import TissueModel, read_tissue_model, tissue_model_from_dict

    if model is None or model == "" or isinstance(model, TissueModel):
        return model or None
    return tissue_model_from_dict(model) if isinstance(model, dict) else read_tissue_model(model)


def _lorentzian(preset: str | dict) -> str | dict:
    if isinstance(preset, dict):
        return preset
    if preset.endswith(".json"):
        from .protocol import read_json

        return read_json(preset)
    return preset if preset.startswith("lorentzian_") else f"lorentzian_{preset}"


def _in_seconds(t1, node, warnings: list[str]):
    if t1 is None:
        return None
    positive = t1[t1 > 0]
    if len(positive) and float(positive.median()) > MILLISECONDS_ABOVE_S:
        warnings.append(
            f"the T1 map '{node.GetName()}' has a median of {float(positive.median()):g} and is taken to be in ms"
        )
        return t1 / 1000
    return t1


def _part(report: Progress) -> Progress:
    return progress.part(report, 0.05, 0.95)


def _into_scene(
    study: _Study, result: Quantification, warnings: tuple[str, ...], regions: dict[str, np.ndarray], folder: str
) -> CESTQuantResult:
    from .quantity_style import style_of

    nodes, maps = {}, {}
    for name, values in result.quantities.items():
        full = np.full(study.raw[0].size, np.nan, dtype=np.float32)
        full[study.voxels] = values.detach().cpu().numpy()
        maps[name] = full.reshape(study.geometry.shape)
        nodes[name] = volumes.add_volume(maps[name], study.geometry, name)
        style = style_of(name)
        display.show_map(nodes[name], style.unit, style.color_map, _window(maps[name], style.centred))
    status = np.zeros(study.raw[0].size, dtype=np.uint8)
    status[study.voxels] = result.status.cpu().numpy()
    nodes["status"] = volumes.add_volume(status.reshape(study.geometry.shape), study.geometry, "status", label=True)
    table = add_table(_region_columns(maps, regions), "regions") if regions else None
    item = hierarchy.make_folder(folder)
    hierarchy.put([*nodes.values(), *([table] if table is not None else [])], item)
    anatomy = np.zeros(study.raw[0].size, dtype=np.float32)
    full_reference = study.raw if study.reference is None else study.reference
    anatomy = np.nan_to_num(full_reference.mean(0)).astype(np.float32)
    drawing = Drawing(study.geometry, anatomy, study.voxels, regions, result, maps)
    return CESTQuantResult(nodes, item, table, _report(result, warnings), drawing)


def _window(array: np.ndarray, centred: bool) -> tuple[float, float]:
    low, high = display.robust_window(array)
    reach = max(abs(low), abs(high))
    return (-reach, reach) if centred else (low, high)


def _region_columns(maps: dict[str, np.ndarray], regions: dict[str, np.ndarray]) -> dict[str, list]:
    import torch

    from .quantity_style import style_of
    from .signal import region_statistics

    columns: dict[str, list] = {"region": [], "quantity": [], "unit": []}
    for region, mask in regions.items():
        for name, array in maps.items():
            if name.endswith("_sd"):
                continue
            statistics = region_statistics(torch.from_numpy(array[mask]))
            for key, value in {"region": region, "quantity": name, "unit": style_of(name).unit, **statistics}.items():
                columns.setdefault(key, []).append(value)
    return columns


def _report(result: Quantification, warnings: tuple[str, ...]) -> dict[str, Any]:
    from .marquardt import Status

    counts = {status.name.lower(): int((result.status == status).sum()) for status in Status}
    medians = {n: float(v.nanmedian()) for n, v in result.quantities.items()}
    return {"voxels": counts, "medians": medians, **result.summary, "warnings": list(warnings)}
