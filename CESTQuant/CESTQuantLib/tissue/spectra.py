"""Measured spectra together with everything that is known about their voxels."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from ..physics.protocol import Protocol

FIELD_MAPS = ("b0_shift_ppm", "b1_relative", "t1_s")
"""Maps that every method may use; each is a tensor of shape (voxel,) or None."""
_POSITIVE = ("b1_relative", "t1_s")
"""Fields whose values are positive wherever they are known."""
_POSITIVE_MAPS = ("b1", "t1")
"""The same fields as a tissue model refers to them."""


@dataclass(frozen=True)
class ZSpectra:
    """Normalised signals of the voxels to be quantified, with the protocol and the maps of these voxels.

    This one object goes from the scene through the preprocessing and the methods to the fits. Relative B1 and T1 that
    are not positive numbers, such as the zeros outside of a head, are unknown: they become NaN, so that neither a fit
    nor a mean counts them.

    Attributes:
        signal: Signals of shape (voxel, measurement), normalised as ``protocol.signal_normalisation`` says. NaN marks
            an unusable measurement.
        protocol: Protocol of these measurements.
        valid: Measurements that a fit uses, boolean of shape (voxel, measurement), or None for all. A voxel whose
            signal is NaN in a measurement that is used cannot be fitted.
        b0_shift_ppm: Position of the water resonance on the axis of the offsets in ppm, shape (voxel,), or None where
            it is unknown.
        b1_relative: Actual over nominal B1, shape (voxel,), or None where it is unknown.
        t1_s: Longitudinal relaxation time of water in s, shape (voxel,), or None where it is unknown.
        maps: Further maps of shape (voxel,) by the names with which a tissue model refers to them.
        reference_noise: Variance of M0 relative to that of one measurement, as far as all measurements of a voxel share
            it, see ``preprocessing/reference.py``; 0 where signals are not divided by M0.
        brightness: Largest signal in scanner units, shape (voxel,), which tells tissue from air; None if unknown.
        m0: Mean M0 in scanner units, shape (voxel,), by which the noise of an image becomes that of a normalised
            signal; None if unknown.
        smoothed: Whether the spectra were smoothed along their offsets, so that repeats are no longer independent.

    Raises:
        ValueError: The shapes of signal, protocol and maps do not belong together.
    """

    signal: Tensor
    protocol: Protocol
    valid: Tensor | None = None
    b0_shift_ppm: Tensor | None = None
    b1_relative: Tensor | None = None
    t1_s: Tensor | None = None
    maps: Mapping[str, Tensor] = field(default_factory=dict)
    reference_noise: float = 0.0
    brightness: Tensor | None = None
    m0: Tensor | None = None
    smoothed: bool = False

    def __post_init__(self) -> None:
        if self.signal.ndim != 2 or self.signal.shape[1] != self.protocol.measurement_count:
            raise ValueError(
                f"the signal must be (voxel, measurement) with the {self.protocol.measurement_count} measurements of "
                f"the protocol, not {tuple(self.signal.shape)}"
            )
        if self.valid is not None and self.valid.shape != self.signal.shape:
            raise ValueError(f"valid has the shape {tuple(self.valid.shape)}, the signal {tuple(self.signal.shape)}")
        fields = {name: value for name in FIELD_MAPS if (value := getattr(self, name)) is not None}
        for name, values in {**fields, **self.maps}.items():
            if values.shape != self.signal.shape[:1]:
                raise ValueError(f"the map '{name}' has the shape {tuple(values.shape)}, not ({self.voxel_count},)")
        for name in _POSITIVE:
            if name in fields:
                object.__setattr__(self, name, _known_where_positive(fields[name]))
        known = {name: _known_where_positive(self.maps[name]) for name in _POSITIVE_MAPS if name in self.maps}
        object.__setattr__(self, "maps", {**self.maps, **known})

    @property
    def voxel_count(self) -> int:
        """Number of voxels."""
        return len(self.signal)

    def select(self, measurements: Tensor) -> ZSpectra:
        """Return the spectra of a subset of the measurements.

        Args:
            measurements: Indices, or a boolean mask of shape (measurement,), on the CPU.

        Returns:
            Spectra with the same voxels and maps.
        """
        valid = None if self.valid is None else self.valid[:, measurements]
        return replace(
            self, signal=self.signal[:, measurements], protocol=self.protocol.select(measurements), valid=valid
        )

    def of_voxels(self, voxels: Tensor) -> ZSpectra:
        """Return the spectra of some of the voxels.

        Args:
            voxels: Indices (n,).

        Returns:
            Spectra with the same measurements, and with the maps of these voxels.
        """
        valid = None if self.valid is None else self.valid[voxels]
        return replace(self._each(lambda values: values[voxels]), valid=valid)

    def mean_voxel(self) -> ZSpectra:
        """Return the mean over all voxels as a single voxel; values that are not finite do not count."""

        def mean(values: Tensor) -> Tensor:
            return torch.where(torch.isfinite(values), values, torch.nan).nanmean(0, keepdim=True)

        valid = None if self.valid is None else self.valid.any(0, keepdim=True)
        return replace(self._each(mean), valid=valid)

    def _each(self, change: Callable[[Tensor], Tensor]) -> ZSpectra:
        """Return the spectra with changed voxels of signal and maps, and without ``valid``."""

        def changed(values: Tensor | None) -> Tensor | None:
            return None if values is None else change(values)

        return replace(
            self,
            signal=change(self.signal),
            valid=None,
            b0_shift_ppm=changed(self.b0_shift_ppm),
            b1_relative=changed(self.b1_relative),
            t1_s=changed(self.t1_s),
            maps={name: change(values) for name, values in self.maps.items()},
            brightness=changed(self.brightness),
            m0=changed(self.m0),
        )

    def to(self, device: torch.device | str) -> ZSpectra:
        """Return the spectra with signal, validity and maps on a device; the protocol stays on the CPU."""
        moved = {
            name: value.to(device)
            for name in ("signal", "valid", "brightness", "m0", *FIELD_MAPS)
            if (value := getattr(self, name)) is not None
        }
        return replace(self, **moved, maps={name: values.to(device) for name, values in self.maps.items()})


def _known_where_positive(values: Tensor) -> Tensor:
    """Return values with NaN where they are not positive numbers."""
    return torch.where(torch.isfinite(values) & (values > 0), values, torch.nan)
