"""CEST contrasts from label and reference: MTRasym, APTw, MTR_LD, MTR_Rex and AREX.

Zhou et al., Magn Reson Med 2022;88:546 (APTw); Zaiss et al., NMR Biomed 2014;27:240 (MTR_Rex, AREX).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from NeuroCESTLib.core.messages.input_errors import InputError

from ..fitting.interpolation import CHUNK_VOXELS, distinct_offsets, interpolate_parabolas, interpolate_spectra
from ..fitting.smoothing_splines import fit_smoothing_spline

APT_OFFSET_PPM = 3.5
WATER_LINE_PPM = 1.5
"""Distance from water up to which the curvature of its line spoils parabolas."""
SAME_OFFSET_PPM = 0.05
"""Distance up to which a single acquired offset counts as the wanted one."""


def mtr_asym(z: Tensor, offsets_ppm: Tensor, at_ppm: float | Tensor, b0_shift_ppm: Tensor | None = None) -> Tensor:
    """Compute MTRasym(D) = Z(-D) - Z(+D), interpolated between acquired offsets (PCHIP).

    Args:
        z: (voxel, offset) normalised signal.
        offsets_ppm: (offset,).
        at_ppm: D, one offset or (k,), positive for protons downfield of water.
        b0_shift_ppm: (voxel,) position of the water; D is then counted from there, in the same interpolation.

    Returns:
        (voxel, k); NaN where an offset lies outside the acquired range or in its ``water_gap``.

    Raises:
        ValueError: The numbers of offsets and measurements differ, or there are fewer than two different offsets.
    """
    at = torch.atleast_1d(torch.as_tensor(at_ppm)).to(z)
    both = torch.cat((-at, at))
    if b0_shift_ppm is not None:
        both = both + b0_shift_ppm.to(z).unsqueeze(1)
    upfield, downfield = interpolate_spectra(z, offsets_ppm, both).chunk(2, 1)
    return upfield - downfield


def smoothed_mtr_asym(
    z: Tensor, offsets_ppm: Tensor, at_ppm: float | Tensor, b0_shift_ppm: Tensor | None = None
) -> Tensor:
    """Compute MTRasym on smoothing splines through the spectra; arguments and result as in ``mtr_asym``.

    Raises:
        ValueError: There are fewer than five different offsets.
    """
    at = torch.atleast_1d(torch.as_tensor(at_ppm)).to(z)
    both = torch.cat((-at, at))
    if b0_shift_ppm is not None:
        both = both + b0_shift_ppm.to(z).unsqueeze(1)
    upfield, downfield = fit_smoothing_spline(z, offsets_ppm).at(both).to(z).chunk(2, 1)
    return upfield - downfield


def z_at(z: Tensor, offsets_ppm: Tensor, at_ppm: Tensor, b0_shift_ppm: Tensor | None = None) -> Tensor:
    """Read the spectra at offsets from water.

    Args:
        z: (voxel, offset) normalised signal.
        offsets_ppm: (offset,).
        at_ppm: (k,) offsets from water.
        b0_shift_ppm: (voxel,) position of the water; None for zero, which needs no further measurements beside the one
            at the offset.

    Returns:
        Z interpolated between acquired offsets, (voxel, k); NaN outside of them and in their ``water_gap``.
    """
    if b0_shift_ppm is None and len(distinct_offsets(offsets_ppm)) == 1:
        acquired = (at_ppm.to(z) - offsets_ppm[0].to(z)).abs() <= SAME_OFFSET_PPM
        return torch.where(acquired, z.mean(1, keepdim=True), torch.nan)
    at = at_ppm.to(z)
    return interpolate_spectra(z, offsets_ppm, at if b0_shift_ppm is None else at + b0_shift_ppm.to(z).unsqueeze(1))


def apt_weighted(z: Tensor, offsets_ppm: Tensor, b0_shift_ppm: Tensor | None = None) -> Tensor:
    """Compute APTw = MTRasym at 3.5 ppm.

    Each side of water is interpolated by itself, by parabolas through the three nearest offsets, because clinical
    protocols acquire few offsets around 3.5 ppm.

    Args:
        z: (voxel, offset) normalised signal.
        offsets_ppm: (offset,).
        b0_shift_ppm: (voxel,) position of the water.

    Returns:
        (voxel,); NaN where an offset lies outside the acquired range of its side.

    Raises:
        ValueError: A side has fewer than two different offsets beyond 1.5 ppm.
    """
    shift = torch.zeros_like(z[:, 0]) if b0_shift_ppm is None else b0_shift_ppm.to(z)
    sides = []
    for sign in (-1, 1):
        beyond_water = sign * offsets_ppm > WATER_LINE_PPM
        if len(distinct_offsets(offsets_ppm[beyond_water])) < 2:
            raise InputError(
                "protocol",
                f"APTw needs measurements on both sides of water, at {APT_OFFSET_PPM:g} ppm and around: at least two "
                f"different offsets beyond {WATER_LINE_PPM:g} ppm on each side; for a single pair use MTRasym",
            )
        at = sign * APT_OFFSET_PPM + shift.unsqueeze(1)
        sides.append(interpolate_parabolas(z[:, beyond_water], offsets_ppm[beyond_water], at).squeeze(1))
    return sides[0] - sides[1]


def contrast_errors(
    z: Tensor,
    contrast: Callable[[Tensor, Tensor | None], Tensor],
    b0_shift_ppm: Tensor | None,
    noise_sd: float | Tensor,
    reference_noise: float = 0.0,
) -> Tensor:
    """Propagate the noise of the signals and of M0 to a contrast.

    With the derivatives g of the contrast by the signals Z, its variance is ``noise_sd^2 (g.g + r (g.Z)^2)``: the noise
    of M0 changes all signals of a voxel in proportion, and r is its variance relative to that of a measurement. The
    uncertainty of the B0 shift is not part of it.

    Args:
        z: (voxel, offset) normalised signal.
        contrast: Function of spectra (n, offset) and their B0 shifts (n,), which gives (n, k).
        b0_shift_ppm: (voxel,) position of the water, or None.
        noise_sd: Standard deviation of a normalised signal, one value or (voxel,).
        reference_noise: r, see ``ZSpectra``.

    Returns:
        Standard errors (voxel, k); NaN where the contrast is.
    """
    parts = []
    noise = torch.as_tensor(noise_sd, dtype=torch.float64, device=z.device).expand(len(z)).unsqueeze(1)
    for first in range(0, len(z), CHUNK_VOXELS):
        some = slice(first, first + CHUNK_VOXELS)
        signal = z[some].detach().double().requires_grad_()
        with torch.enable_grad():
            values = contrast(signal, None if b0_shift_ppm is None else b0_shift_ppm[some].detach())
            slopes = torch.stack(
                [torch.autograd.grad(column.sum(), signal, retain_graph=True)[0] for column in values.T], 1
            )
        of_m0 = (slopes @ signal.detach().unsqueeze(2)).squeeze(2)
        variance = slopes.square().sum(2) + reference_noise * of_m0.square()
        parts.append(torch.where(values.detach().isnan(), torch.nan, noise[some] * variance.sqrt()))
    return torch.cat(parts) if parts else z.new_zeros(0, 1)


def mtr_ld(z_label: Tensor, z_reference: Tensor) -> Tensor:
    """Compute the linear difference MTR_LD = Zref - Zlab, elementwise."""
    return z_reference - z_label


def mtr_rex(z_label: Tensor, z_reference: Tensor) -> Tensor:
    """Compute the inverse difference MTR_Rex = 1/Zlab - 1/Zref, elementwise.

    In the steady state it is free of spill-over. It is NaN where a Z is not positive.
    """
    positive = (z_label > 0) & (z_reference > 0)
    return torch.where(positive, 1 / z_label - 1 / z_reference, torch.nan)


def arex(rex: Tensor, t1_s: Tensor, duty_cycle: float = 1.0) -> Tensor:
    """Compute the apparent exchange-dependent relaxation AREX = MTR_Rex / T1 / duty cycle.

    Args:
        rex: (voxel,) or (voxel, k) MTR_Rex.
        t1_s: (voxel,) water T1 in s.
        duty_cycle: Duty cycle of the saturation, above 0 and at most 1.

    Returns:
        AREX in 1/s, of the shape of ``rex``; NaN where T1 is not positive.

    Raises:
        ValueError: The duty cycle is out of range.
    """
    if not 0 < duty_cycle <= 1:
        raise ValueError(f"the duty cycle must be above 0 and at most 1, not {duty_cycle}")
    rate = torch.where(t1_s > 0, 1 / t1_s, torch.nan)
    return rex * rate.reshape(-1, *(1,) * (rex.ndim - 1)) / duty_cycle
