"""The registry of methods, and the one entry that runs them.

A further method is a file of this folder with its ``METHODS``, named in ``_FAMILIES``. The command line, the panel, the
display of the maps and the report take everything that they know about methods from here.
"""

from __future__ import annotations

import re
from collections.abc import Container, Iterable, Iterator, Mapping
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from NeuroCESTLib.core.messages.input_errors import InputError
from NeuroCESTLib.core.progress import Progress, silent

from . import asymmetry, exchange, fields, line_fits, lorentzian, model_fit, multi_power, ratios, simulated
from .base import Input, Method, Quantification, Settings
from .quantities import Quantity

if TYPE_CHECKING:
    import torch

    from ..tissue.spectra import ZSpectra

_FAMILIES = (asymmetry, lorentzian, line_fits, multi_power, exchange, ratios, model_fit, simulated)

_NUMBER = re.compile(r"[-+]?\d+(\.\d*)?(ppm|uT)?")
"""An offset or power in the name of a map."""

METHODS: dict[str, Method] = {method.name: method for family in _FAMILIES for method in family.METHODS}
"""Methods that quantify an acquisition, by name."""

FIELD_METHODS: dict[str, Method] = {method.name: method for method in fields.METHODS}
"""Methods that map B0 and B1 from separate acquisitions for that purpose, by name."""


def method_named(name: str, methods: Mapping[str, Method] = METHODS) -> Method:
    """Return a method by its name.

    Raises:
        ValueError: There is no such method; the message lists the known ones.
    """
    if name not in methods:
        raise InputError("method", f"method '{name}' is unknown; use one of {', '.join(methods)}")
    return methods[name]


def methods_using(what: Input) -> tuple[str, ...]:
    """Return the names of the methods that need or take an input."""
    return tuple(name for name, method in METHODS.items() if method.uses(what))


def require_spatial(method: Method) -> None:
    """Check that a method can fit under the spatial prior.

    Raises:
        ValueError: It fits no parameters to every voxel; the message lists the methods that do.
    """
    if not method.spatial:
        known = ", ".join(name for name, other in METHODS.items() if other.spatial)
        raise InputError(
            "method", f"the method {method.name} has no fit for the spatial prior; methods with one are {known}"
        )


def quantity_named(name: str) -> Quantity:
    """Return unit and display of a map.

    Args:
        name: Name of the map; a standard error (``<name>_sd``) has the unit of its quantity.

    Returns:
        The quantity of the first method that gives such maps; an unknown one is dimensionless.
    """
    base = name.removesuffix("_sd")
    quantity = next((quantity for quantity in _quantities() if fnmatchcase(base, quantity.pattern)), Quantity(base))
    return quantity if name == base else quantity.of_standard_error()


def words_of(names: Iterable[str]) -> set[str]:
    """Return the words of the program among the names of maps: those of known quantities, and their pools."""
    words = set()
    for name in names:
        for parts in _parts_of(name):
            words |= {name, *filter(None, parts[:1])}
    return words


def is_quantity_of(name: str, pools: Container[str]) -> bool:
    """Whether the name of a map says nothing but a known quantity, one of the pools, and numbers."""
    return any(
        all(part.strip("_") in pools or _NUMBER.fullmatch(part) for part in parts if part) for parts in _parts_of(name)
    )


def _parts_of(name: str) -> Iterator[tuple[str, ...]]:
    """What the stars in the patterns of known quantities stand for in the name of a map, for each that fits."""
    for quantity in _quantities():
        pattern = re.escape(quantity.pattern).replace(r"\*", "(.*?)")
        if found := re.fullmatch(pattern, name.removesuffix("_sd")):
            yield found.groups()


def _quantities() -> Iterator[Quantity]:
    return (quantity for method in (*METHODS.values(), *FIELD_METHODS.values()) for quantity in method.quantities)


def quantify(
    spectra: ZSpectra,
    method: str,
    settings: Settings | None = None,
    *,
    device: torch.device | str = "cpu",
    progress: Progress = silent,
) -> Quantification:
    """Run a method.

    Args:
        spectra: Normalised spectra with the maps of their voxels.
        method: Name in :data:`METHODS`.
        settings: Settings of the method; by default those of :class:`Settings`.
        device: Device to compute on.
        progress: Called with the fraction done (0 … 1) and a message; may raise to cancel.

    Returns:
        Maps with standard errors, on the device.

    Raises:
        ValueError: The method is unknown, something that it needs is not given, or it cannot work with the
            acquisition; the message says which.
    """
    return _run(method_named(method), spectra, settings or Settings(), device, progress)


def map_fields(
    spectra: ZSpectra, method: str = "wasabi", settings: Settings | None = None, *, progress: Progress = silent
) -> Quantification:
    """Map B0, and with WASABI relative B1, from an acquisition for that purpose.

    Args:
        spectra: Normalised spectra of the field-mapping acquisition.
        method: Name in :data:`FIELD_METHODS`.
        settings: Limits of the fields; by default those of the method.
        progress: Called with the fraction done (0 … 1) and a message; may raise to cancel.

    Returns:
        ``b0_shift_ppm`` and, with WASABI, ``b1_relative`` with their standard errors.

    Raises:
        ValueError: The method is unknown, or the protocol lacks the pulse that WASABI needs.
    """
    return _run(method_named(method, FIELD_METHODS), spectra, settings or Settings(), "cpu", progress)


def _run(
    method: Method, spectra: ZSpectra, settings: Settings, device: torch.device | str, progress: Progress
) -> Quantification:
    method.require(_given(spectra, settings))
    if method.physical:
        spectra.protocol.require_known(method.name)
    return method.run(spectra.to(device), settings, progress)


def _given(spectra: ZSpectra, settings: Settings) -> set[Input]:
    values = {
        Input.B0: spectra.b0_shift_ppm,
        Input.B1: spectra.b1_relative,
        Input.T1: spectra.t1_s,
        Input.MODEL: settings.model,
        Input.LORENTZIAN: settings.lorentzian,
        Input.ASYMMETRY_OFFSET: settings.asymmetry_offsets_ppm or None,
        Input.POWER: settings.power_uT,
        Input.NETWORK: settings.network or None,
        Input.CONFIG: settings.config or None,
        Input.CALIBRATION: settings.calibration or None,
    }
    return {what for what, value in values.items() if value is not None}
