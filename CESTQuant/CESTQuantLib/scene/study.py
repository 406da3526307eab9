"""An acquisition in the scene as arrays: signal, reference and mask on one voxel grid."""

from __future__ import annotations

import json
import math
import warnings
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from NeuroCESTLib.core.checked_json import parse_json
from NeuroCESTLib.core.messages.input_errors import InputError
from NeuroCESTLib.scene import volumes
from NeuroCESTLib.scene.geometry import Geometry
from NeuroCESTLib.scene.messages import called
from NeuroCESTLib.scene.segmentations import masks_on
from NeuroCESTLib.scene.sequences import index_values, sequence_to_array

if TYPE_CHECKING:
    import torch

    from ..fitting.spatial.neighbors import Neighbors
    from ..physics.protocol import Protocol
    from ..preprocessing.magnitudes import Larmor
    from ..preprocessing.reference import M0Measurements
    from ..tissue.spectra import ZSpectra

PROTOCOL_ATTRIBUTE = "NeuroCEST.protocol"
"""Attribute of a sequence node that holds the text of its ``protocol.json``."""
OFFSET_TOLERANCE_PPM = 2e-3
"""Offsets of a sequence and of its protocol that differ by less are the same."""


@dataclass(frozen=True)
class Study:
    """An acquisition as arrays.

    Attributes:
        name: Name of the signal node.
        title: What messages call it, in quotation marks: its file or its name.
        raw: Signals (measurement, K, J, I) in the order of the protocol.
        geometry: Voxel grid.
        protocol: Protocol of the measurements.
        reference: M0 images (n, K, J, I), or None.
        voxels: Flat indices of the voxels to quantify.
        warnings: Sentences for the user about the protocol.
        reference_name: Name of the reference node; empty without one.
        m0_over_time: How several references act: ``interpolated`` in time, or their ``mean``.
        field_known: Whether the field strength was given; otherwise that of the protocol is only assumed.
    """

    name: str
    title: str
    raw: np.ndarray
    geometry: Geometry
    protocol: Protocol
    reference: np.ndarray | None
    voxels: np.ndarray
    warnings: tuple[str, ...] = ()
    reference_name: str = ""
    m0_over_time: str = "interpolated"
    field_known: bool = True

    @classmethod
    def of(
        cls,
        signal: Any,
        protocol: Any,
        reference: Any,
        mask: Any,
        normalization: str | None,
        *,
        m0_over_time: str = "interpolated",
        field_strength_T: float | None = None,
    ) -> Study:
        """Take an acquisition from the scene.

        Offsets that can only be meant in Hz are converted to ppm, with a warning.

        Args:
            signal: Sequence node with one volume per measurement.
            protocol: Path, dictionary or ``Protocol``; None for what the sequence carries.
            reference: Volume or sequence node of M0, or None.
            mask: Volume, label map or segmentation node; None for all voxels.
            normalization: ``m0``, ``l2`` or ``none`` instead of what the protocol says; None to keep it.
            m0_over_time: How several references act: ``interpolated`` in time, or their ``mean``.
            field_strength_T: Static field in T where the protocol gives only offsets.

        Raises:
            ValueError: A node or the protocol cannot be used, or they do not belong together.
        """
        from ..preprocessing.magnitudes import offsets_in_ppm

        if signal is None:
            raise ValueError("no signal is chosen; give a sequence node with one volume per measurement")
        if not signal.IsA("vtkMRMLSequenceNode"):
            raise ValueError(
                f"{called(signal)} is one volume; the signal must be a sequence with one volume per measurement"
            )
        raw, geometry, index = sequence_to_array(signal)
        name = signal.GetName()
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", UserWarning)
            read, field_known = _protocol(protocol, signal, index, field_strength_T)
        noted = [" ".join(str(warning.message).split()) for warning in caught if warning.category is UserWarning]
        if normalization is not None:
            read = replace(read, signal_normalisation=normalization)
        if len(raw) != read.measurement_count:
            file = f" '{protocol}'" if isinstance(protocol, str | Path) else ""
            raise ValueError(
                f"the protocol{file} has {read.measurement_count} offsets but {called(signal)} has {len(raw)} "
                "measurements"
            )
        by_index = protocol is None and not signal.GetAttribute(PROTOCOL_ATTRIBUTE)
        as_given = read
        read, converted = offsets_in_ppm(read, field_known, _protocol_name(protocol, called(signal)))
        if not by_index:
            same_unit = _has_offsets(index, as_given)
            raw = raw[acquisition_order(signal, index, as_given if same_unit else read)]
        reference_array = None if reference is None else _reference(reference, geometry)
        chosen = np.ones(geometry.shape, bool) if mask is None else mask_of(mask, geometry)
        return cls(
            name,
            called(signal),
            raw,
            geometry,
            read,
            reference_array,
            np.flatnonzero(chosen),
            (*noted, *converted),
            "" if reference is None else reference.GetName(),
            m0_over_time,
            field_known,
        )

    @property
    def larmor(self) -> Larmor:
        """Larmor frequency of the acquisition."""
        from ..preprocessing.magnitudes import Larmor

        return Larmor.of(self.protocol, self.field_known)

    def at_slice(self, position_RAS: tuple[float, float, float]) -> Study:
        """Return the same acquisition, of which only the slice through a place, or the nearest one, is quantified.

        Args:
            position_RAS: Place in world coordinates, in mm.

        Raises:
            ValueError: The mask has no voxel in this slice.
        """
        slices, rows, columns = self.geometry.shape
        k = (np.linalg.inv(self.geometry.ijk_to_ras) @ (*position_RAS, 1.0))[2]
        number = int(np.clip(np.rint(k), 0, slices - 1))
        voxels = self.voxels[self.voxels // (rows * columns) == number]
        if len(voxels) == 0:
            raise ValueError(f"the mask has no voxel in slice {number + 1} of {self.title}: choose another slice")
        return replace(self, voxels=voxels)

    def neighbors(self) -> Neighbors:
        """Return which of the voxels to quantify are neighbours."""
        from ..fitting.spatial.neighbors import Neighbors

        return Neighbors.of_mask(self.voxels, self.geometry.shape, self.geometry.spacing[::-1].tolist())

    def values(self, node: Any) -> torch.Tensor:
        """Return the values (voxel,) of a volume node at the voxels to quantify, float64."""
        import torch

        array = volumes.array_on(node, self.geometry)
        return torch.from_numpy(array.reshape(-1)[self.voxels].astype(np.float64))

    def values_of_file(self, path: str | Path) -> torch.Tensor:
        """Return the values (voxel,) of a volume file at the voxels to quantify, float64."""
        node = volumes.read_volume(path)
        try:
            return self.values(node)
        finally:
            volumes.remove(node)

    def spectra(self) -> tuple[ZSpectra, tuple[str, ...]]:
        """Return the normalised spectra of the voxels to quantify, and sentences for the user about their reference.

        Raises:
            ValueError: There is no reference or one of another scale, or no voxel has a usable signal.
        """
        import torch

        from ..preprocessing.magnitudes import plausible_z
        from ..preprocessing.normalization import normalize
        from ..preprocessing.reference import INTERPOLATED, gap_warnings, step_warnings

        def at_voxels(array: np.ndarray) -> torch.Tensor:
            return torch.from_numpy(array.reshape(len(array), -1)[:, self.voxels].T.astype(np.float32))

        raw, where = at_voxels(self.raw), self.title
        reference = None if self.reference is None else at_voxels(self.reference)
        spectra = normalize(raw, self.protocol, reference, over_time=self.m0_over_time, where=where)
        if not bool(torch.isfinite(spectra.signal).all(1).any()):
            raise ValueError(f"{self.title} has no voxel with a usable signal and M0: check the reference and mask")
        own = self._has_own_reference()
        brightness = raw.abs().amax(1)
        spectra, noted = plausible_z(replace(spectra, brightness=brightness), brightness, own, where)
        found = self._own_reference(where) if own else None
        m0 = reference if found is None else raw[:, found.index]
        if m0 is None or self.protocol.signal_normalisation != "m0":
            return spectra, tuple(noted) if found is None else (*found.warnings, *noted)
        spectra = replace(spectra, m0=torch.where(m0 > 0, m0, torch.nan).nanmean(1))
        index = None if found is None else found.index
        stepped = step_warnings(m0, index, self.protocol, self.m0_over_time, where)
        each_its_own = index is None and m0.shape[1] == self.protocol.measurement_count
        each_its_own &= self.m0_over_time == INTERPOLATED
        empty = () if each_its_own else gap_warnings(m0, index, where)
        return spectra, (*(() if found is None else found.warnings), *empty, *stepped, *noted)

    def m0_record(self) -> dict[str, Any]:
        """Return what served as M0 reference, for the report."""
        if self.protocol.signal_normalisation != "m0":
            return {"source": f"none: signal_normalisation is '{self.protocol.signal_normalisation}'"}
        if self.reference is not None:
            record: dict[str, Any] = {"source": f"image '{self.reference_name}'", "images": len(self.reference)}
        else:
            own = self._own_reference(self.title)
            record = {
                "source": "measurements of the signal",
                "measurements": [index + 1 for index in own.index.tolist()],
                "offsets_ppm": own.offsets_ppm.tolist(),
            }
        count = record.get("images") or len(record["measurements"])
        return record | ({"over_time": self.m0_over_time} if count > 1 else {})

    def _has_own_reference(self) -> bool:
        return self.protocol.signal_normalisation == "m0" and self.reference is None

    def _own_reference(self, where: str) -> M0Measurements:
        from ..preprocessing.reference import m0_measurements

        return m0_measurements(self.protocol, where)


def knows_its_offsets(node: Any) -> bool:
    """Whether a sequence node carries its protocol, or has its offsets in ppm as index."""
    return bool(node.GetAttribute(PROTOCOL_ATTRIBUTE)) or _index_is_offsets(node, index_values(node))


def carried_protocol(node: Any) -> dict[str, Any] | None:
    """Return the protocol that a sequence node carries, as the keys of a ``protocol.json``; None without one.

    Raises:
        ValueError: What it carries is no JSON object; the message names the node.
    """
    text = node.GetAttribute(PROTOCOL_ATTRIBUTE)
    if not text:
        return None
    try:
        values = json.loads(text)
    except ValueError:
        values = None
    if not isinstance(values, dict):
        raise ValueError(f"the protocol that {called(node)} carries is damaged; give a protocol")
    return values


def offsets_of_index(node: Any) -> list[float] | None:
    """Return the offsets in ppm that are the index of a sequence node; None where its index is something else."""
    index = index_values(node)
    return index.tolist() if _index_is_offsets(node, index) else None


def carry_protocol(node: Any, protocol: Any) -> None:
    """Let a sequence node carry a protocol: a path, a dictionary or a ``Protocol``.

    Raises:
        ValueError: The protocol cannot be used, or is that of another number of measurements.
    """
    from ..formats.protocol_json import protocol_to_dict

    read, _known = _protocol(protocol, node, index_values(node), None)
    if read.measurement_count != node.GetNumberOfDataNodes():
        raise ValueError(
            f"the protocol has {read.measurement_count} offsets but {called(node)} has "
            f"{node.GetNumberOfDataNodes()} measurements"
        )
    node.SetAttribute(PROTOCOL_ATTRIBUTE, json.dumps(protocol_to_dict(read)))


def _index_is_offsets(node: Any, index: np.ndarray) -> bool:
    return node.GetIndexUnit() == "ppm" and len(index) > 0 and bool(np.isfinite(index).all())


def _has_offsets(index: np.ndarray, protocol: Protocol) -> bool:
    """Whether index values (measurement,) are the offsets of a protocol in some order."""
    offsets = protocol.offsets_ppm.detach().numpy()
    return np.allclose(np.sort(index), np.sort(offsets), atol=OFFSET_TOLERANCE_PPM)


def _protocol(protocol: Any, node: Any, index: np.ndarray, field_strength_T: float | None) -> tuple[Protocol, bool]:
    """Return the protocol, and whether its field strength is given rather than assumed."""
    import torch

    from ..formats.protocol_files import ASSUMED_FIELD_T, gives_field, read_protocol
    from ..formats.protocol_json import protocol_from_dict
    from ..formats.pulseq.field import SAME_FIELD
    from ..physics.protocol import Protocol

    if field_strength_T is not None and not 0 < field_strength_T < math.inf:
        raise InputError(
            "field-strength", f"the field strength must be a positive number of T, not {field_strength_T:g}"
        )
    if protocol is None and node.GetAttribute(PROTOCOL_ATTRIBUTE):
        protocol = _carried_protocol(node)
    if protocol is None:
        if not _index_is_offsets(node, index):
            raise ValueError(f"{called(node)} does not say its offsets in ppm; give a protocol")
        offsets = torch.as_tensor(index, dtype=torch.float64)
        unknown = torch.zeros_like(offsets)
        field_T = ASSUMED_FIELD_T if field_strength_T is None else field_strength_T
        return Protocol(field_T, offsets, b1_uT=unknown, saturation_time_s=unknown), field_strength_T is not None
    if isinstance(protocol, Protocol):
        return protocol, True
    if isinstance(protocol, dict):
        return protocol_from_dict(protocol), True
    known = field_strength_T is not None or gives_field(protocol)
    read = read_protocol(Path(protocol), field_strength_T)
    if field_strength_T is not None and not math.isclose(read.field_strength_T, field_strength_T, rel_tol=SAME_FIELD):
        warnings.warn(
            f"the field strength is given as {field_strength_T:g} T but '{protocol}' says {read.field_strength_T:g} T, "
            "which counts",
            stacklevel=2,
        )
    return read, known


def _carried_protocol(node: Any) -> Any:
    """Return the protocol that a sequence node carries as text."""
    where = f"the protocol that {called(node)} carries"
    try:
        return parse_json(node.GetAttribute(PROTOCOL_ATTRIBUTE), where)
    except json.JSONDecodeError:
        raise ValueError(f"{where} is not valid JSON: give a protocol file") from None


def _protocol_name(protocol: Any, signal: str) -> str:
    """Return the name of the protocol in messages: its file, else the signal that carries it."""
    return f"'{protocol}'" if isinstance(protocol, str | Path) else signal


def acquisition_order(node: Any, index: np.ndarray, protocol: Protocol) -> np.ndarray:
    """Find the order in which the volumes of a sequence were acquired; Slicer sorts sequences by a numeric index.

    Args:
        node: Sequence node.
        index: Index values (measurement,) of the sequence as stored.
        protocol: Protocol in the order of the acquisition.

    Returns:
        For every measurement of the protocol, its position in the sequence.

    Raises:
        ValueError: The offsets are not those of the protocol, or repeated offsets leave the order open.
    """
    as_stored = np.arange(len(index))
    offsets = protocol.offsets_ppm.detach().numpy()
    tolerance = OFFSET_TOLERANCE_PPM
    if node.GetIndexUnit() != "ppm" or not np.isfinite(index).all() or np.allclose(index, offsets, atol=tolerance):
        return as_stored
    by_index, by_offset = np.argsort(index, kind="stable"), np.argsort(offsets, kind="stable")
    if not _has_offsets(index, protocol):
        some = ", ".join(f"{offset:g}" for offset in index[:2]) + (", …" if len(index) > 2 else "")
        raise ValueError(f"the offsets of {called(node)} ({some}) are not those of the protocol")
    if (np.diff(offsets[by_offset]) < tolerance).any():
        raise ValueError(
            f"{called(node)} has another order than the protocol, and repeated offsets leave the order open"
        )
    order = np.empty(len(index), dtype=np.int64)
    order[by_offset] = by_index
    return order


def _reference(node: Any, geometry: Geometry) -> np.ndarray:
    """Return the images (n, K, J, I) of an M0 volume or sequence."""
    if not node.IsA("vtkMRMLSequenceNode"):
        return volumes.array_on(node, geometry)[None]
    array, found, _ = sequence_to_array(node)
    if difference := geometry.difference(found):
        raise ValueError(f"the reference {called(node)} has another geometry than the signal: {difference}")
    return array


def mask_of(node: Any, geometry: Geometry) -> np.ndarray:
    """Return the voxels (K, J, I) of a volume, label map or segmentation node, all segments together.

    Raises:
        ValueError: No voxel is set, or the node is on another grid.
    """
    if not node.IsA("vtkMRMLSegmentationNode"):
        return volumes.mask_on(node, geometry)
    mask = np.any(list(masks_on(node, geometry).values()), axis=0)
    if not mask.any():
        raise ValueError(f"the mask {called(node)} is empty where the signal is")
    return mask
