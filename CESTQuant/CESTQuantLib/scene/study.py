"""An acquisition in the scene as arrays: signal, reference, mask and maps on one voxel grid."""

from __future__ import annotations

import json
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from NeuroCESTLib.scene import volumes
from NeuroCESTLib.scene.geometry import Geometry
from NeuroCESTLib.scene.segmentations import masks_on
from NeuroCESTLib.scene.sequences import sequence_to_array

if TYPE_CHECKING:
    import torch

    from ..physics.protocol import Protocol

PROTOCOL_ATTRIBUTE = "NeuroCEST.protocol"
"""Attribute of a sequence node that holds the text of its protocol.json."""


@dataclass(frozen=True)
class Study:
    """The acquisition as arrays: raw (measurement, K, J, I), and the flat indices of the voxels to fit."""

    name: str
    raw: np.ndarray
    geometry: Geometry
    protocol: Protocol
    reference: np.ndarray | None
    voxels: np.ndarray
    warnings: tuple[str, ...] = ()

    @classmethod
    def of(cls, signalNode, protocol, reference, mask, normalisation: str | None) -> Study:
        if signalNode is None:
            raise ValueError("no signal is chosen; give a sequence node with one volume a measurement")
        if not signalNode.IsA("vtkMRMLSequenceNode"):
            raise ValueError(
                f"'{signalNode.GetName()}' is one volume; the signal must be a sequence, one a measurement"
            )
        raw, geometry, index = sequence_to_array(signalNode)
        name = signalNode.GetName()
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", UserWarning)
            protocol = _protocol(protocol, signalNode, index, normalisation)
        noted = tuple(" ".join(str(warning.message).split()) for warning in caught if warning.category is UserWarning)
        if len(raw) != protocol.measurement_count:
            raise ValueError(
                f"the protocol has {protocol.measurement_count} offsets but '{name}' has {len(raw)} measurements"
            )
        raw = raw[_order(signalNode, index, protocol, name)]
        reference_array = None if reference is None else _reference(reference, geometry)
        chosen = np.ones(geometry.shape, bool) if mask is None else _mask(mask, geometry)
        return cls(name, raw, geometry, protocol, reference_array, np.flatnonzero(chosen), noted)

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

        from ..preprocessing.normalization import normalise

        def at_voxels(array: np.ndarray) -> torch.Tensor:
            return torch.from_numpy(array.reshape(len(array), -1)[:, self.voxels].T.astype(np.float32))

        reference = None if self.reference is None else at_voxels(self.reference)
        return normalise(at_voxels(self.raw), self.protocol, reference, where=f"'{self.name}'")


def _protocol(protocol, node, index: np.ndarray, normalisation: str | None):
    from dataclasses import replace

    from ..formats.protocol_files import read_protocol
    from ..formats.protocol_json import protocol_from_dict
    from ..physics.protocol import Protocol

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
