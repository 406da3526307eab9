"""B0 and B1 in CEST: centre of the water line, WASSR, and correction of spectra for both fields.

Sign convention: ``b0_shift_ppm`` is the position of the water resonance on the axis of the acquired offsets. A voxel
whose water lies at +0.3 ppm has ``b0_shift_ppm = +0.3``, and its corrected spectrum at offset D is the acquired one at
D + 0.3.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from NeuroCESTLib.core.messages.input_errors import InputError
from NeuroCESTLib.core.progress import Progress

from ..fitting.interpolation import CHUNK_VOXELS, distinct_offsets, interpolate_spectra, sorted_spectra
from ..fitting.least_squares import levenberg_marquardt
from ..tissue.lorentzian_model import LorentzianModel, LorentzianPool, Range
from ..tissue.spectra import ZSpectra
from .reference import FAR_OFF_RESONANCE_PPM

SEARCH_PPM = 1.5
"""Largest distance of the water from 0 ppm where nothing else is asked for."""
FEWEST_NEAR_WATER = 3
"""Different offsets in the search range that the position of the water line needs."""
FEWEST_SHARED = 6
"""Different offsets that a spectrum and its mirror image must have in common for WASSR."""
LEAST_EXPLAINED = 0.8
"""Share of the variance around the smallest Z that a water line must explain to be one."""


def shift_spectra(z: Tensor, offsets_ppm: Tensor, b0_shift_ppm: Tensor) -> Tensor:
    """Move the water of each spectrum to 0 ppm.

    Args:
        z: Spectra (voxel, offset).
        offsets_ppm: Acquired offsets (offset,) in ppm, in any order.
        b0_shift_ppm: Position of the water (voxel,) in ppm.

    Returns:
        Spectra (voxel, offset) at the same offsets from water; NaN where the shifted offset was not acquired, also in
        the ``water_gap``.
    """
    at = offsets_ppm.to(z) + b0_shift_ppm.to(z).unsqueeze(1)
    return interpolate_spectra(z, offsets_ppm, at)


def centered_on_water(spectra: ZSpectra) -> ZSpectra:
    """Correct spectra for their B0 map, if they have one.

    Args:
        spectra: Spectra as acquired.

    Returns:
        Spectra with the water at 0 ppm. Offsets that the shift moves out of the acquired range, or onto a water line
        that was not acquired, are NaN and no longer valid. Voxels that were acquired with NaN are NaN throughout, for
        the fit to refuse. The mean of repeats is interpolated, and each keeps its deviation from it, so that a fit
        still sees the noise of single measurements.
    """
    shift = spectra.b0_shift_ppm
    if shift is None:
        return spectra
    complete = torch.isfinite(spectra.signal).all(1, keepdim=True)
    offsets = spectra.protocol.offsets_ppm
    signal = shift_spectra(spectra.signal, offsets, shift)
    if len(distinct_offsets(offsets)) < len(offsets):
        signal = signal + spectra.signal - interpolate_spectra(spectra.signal, offsets, offsets)
    signal = torch.where(complete, signal, torch.nan)
    valid = torch.isfinite(signal) | ~complete
    return replace(spectra, signal=signal, valid=valid, b0_shift_ppm=torch.zeros_like(shift))


def shows_water(offsets_ppm: Tensor) -> bool:
    """Whether enough different offsets (offset,) lie near 0 ppm to estimate the position of the water line."""
    return len(distinct_offsets(offsets_ppm[offsets_ppm.abs() <= SEARCH_PPM])) >= FEWEST_NEAR_WATER


def estimate_b0_shift(
    z: Tensor,
    offsets_ppm: Tensor,
    *,
    search_ppm: float = SEARCH_PPM,
    window_ppm: float = 1.0,
    threads: int | None = None,
    progress: Progress | None = None,
) -> Tensor:
    """Estimate the position of the water line from the Z-spectrum, with one Lorentzian fitted around the smallest Z.

    Args:
        z: Spectra (voxel, offset).
        offsets_ppm: Acquired offsets (offset,) in ppm.
        search_ppm: Largest distance of the water from 0 ppm.
        window_ppm: Half-width of the fitted range; it is widened where it would hold fewer than seven different ones.
        threads: Number of threads; by default as many as torch uses.
        progress: Called with the fraction done and a message; may raise to cancel.

    Returns:
        Position (voxel,) in ppm; NaN where the fit failed or ended at the edge of the search range.

    Raises:
        ValueError: Fewer than three different offsets lie in the search range.
    """
    limits = (-search_ppm, search_ppm)
    return _fit_water_line(z, offsets_ppm, limits, window_ppm, threads, progress)[0]


def _fit_water_line(
    z: Tensor,
    offsets_ppm: Tensor,
    limits_ppm: tuple[float, float],
    window_ppm: float,
    threads: int | None,
    progress: Progress | None,
) -> tuple[Tensor, Tensor]:
    """Return the position of the water line, NaN as in ``estimate_b0_shift``, and the share of variance it explains."""
    offsets = offsets_ppm.to(z)
    near = (offsets >= limits_ppm[0]) & (offsets <= limits_ppm[1])
    if len(distinct_offsets(offsets[near])) < FEWEST_NEAR_WATER:
        between = f"between {limits_ppm[0]:g} and {limits_ppm[1]:g} ppm"
        if limits_ppm[0] == -limits_ppm[1]:
            between = f"within {limits_ppm[1]:g} ppm of 0"
        raise InputError(
            "protocol", f"the water position needs at least {FEWEST_NEAR_WATER} different offsets {between}"
        )
    sampled = torch.where(near, z, torch.inf).nan_to_num(nan=torch.inf)
    lowest = offsets[sampled.argmin(1)]
    distance = (offsets - lowest.unsqueeze(1)).abs()
    different = distinct_offsets(offsets)
    around = (different - lowest.unsqueeze(1)).abs()
    reach = around.kthvalue(min(7, len(different)), dim=1).values.clamp_min(window_ppm)
    valid = (distance <= reach.unsqueeze(1) * (1 + 1e-6)) & z.isfinite()
    water = LorentzianPool("water", Range(0.02, 0.8, 1.2), Range(0.1, 1.5, 20.0), Range(-1.0, 0.0, 1.0))
    model = LorentzianModel((water,), Range(0.3, 1.0, 1.2))
    start, lower, upper = (limit.expand(len(z), -1).clone() for limit in model.limits())
    start[:, 3] = lowest
    lower[:, 3], upper[:, 3] = limits_ppm
    column = offsets.unsqueeze(1)
    fit = levenberg_marquardt(
        lambda parameters: model.predict(parameters, column),
        z,
        start,
        lower,
        upper,
        valid=valid,
        correlation=False,
        threads=threads,
        progress=progress,
    )
    position = fit.parameters[:, 3]
    inside = (position > limits_ppm[0]) & (position < limits_ppm[1])
    used = torch.where(valid, z, torch.nan)
    variance = (used - used.nanmean(1, keepdim=True)).square().nanmean(1)
    explained = 1 - fit.rmse.square() / variance
    return torch.where(inside, position, torch.nan), explained


def wassr(
    z: Tensor,
    offsets_ppm: Tensor,
    *,
    limits_ppm: tuple[float, float] | None = None,
    candidates: int = 21,
    threads: int | None = None,
    progress: Progress | None = None,
) -> Tensor:
    """Find B0 as the centre of symmetry of a water saturation shift reference (WASSR) acquisition.

    Kim et al., Magn Reson Med 2009;61:1441: the centre minimises the mean squared difference between the spectrum and
    its mirror image. Here the difference is taken over the overlap of the two, and the search starts from the fitted
    position of the line, with two refinements and a parabola through the best three candidates.

    Args:
        z: Spectra (voxel, offset), acquired at low power.
        offsets_ppm: Acquired offsets (offset,) in ppm; those 20 ppm or more from water are left out.
        limits_ppm: Lowest and highest B0 shift in ppm; by default the lowest and highest offset.
        candidates: Number of centres that are compared in each refinement.
        threads: Number of threads; by default as many as torch uses.
        progress: Called with the fraction done and a message; may raise to cancel.

    Returns:
        B0 shift (voxel,) in ppm; NaN where no centre is found: where the line is not symmetric within the acquired
        offsets, ends at a limit, or does not explain the signal.

    Raises:
        ValueError: Fewer than six different offsets lie near water, or fewer than three within the limits.
    """
    near = offsets_ppm.abs() < FAR_OFF_RESONANCE_PPM
    z, offsets = sorted_spectra(z[:, near], offsets_ppm.to(z)[near])
    if len(offsets) < FEWEST_SHARED:
        raise InputError(
            "protocol",
            f"WASSR needs at least {FEWEST_SHARED} different offsets near water, but there are {len(offsets)}",
        )
    if limits_ppm is None:
        limits_ppm = (offsets.min().item(), offsets.max().item())
    center, explained = _fit_water_line(z, offsets, limits_ppm, 0.5, threads, progress)
    center = torch.where(explained >= LEAST_EXPLAINED, center, torch.nan)
    reach = 2 * offsets.diff().median().item()
    parts = []
    for first in range(0, len(z), CHUNK_VOXELS // 8):
        chunk = slice(first, first + CHUNK_VOXELS // 8)
        middle, half = center[chunk], reach
        for _ in range(2):
            middle, half = _most_symmetric(z[chunk], offsets, middle, half, candidates)
        parts.append(middle)
    found = torch.cat(parts) if parts else center
    inside = (found > limits_ppm[0]) & (found < limits_ppm[1]) & ((found - center).abs() < reach)
    return torch.where(inside, found, torch.nan)


def _most_symmetric(z: Tensor, offsets: Tensor, middle: Tensor, half: float, candidates: int) -> tuple[Tensor, float]:
    """Return the best of the centres within ``half`` of the middle, refined by a parabola, and the next half-range."""
    steps = torch.linspace(-half, half, candidates, dtype=z.dtype, device=z.device)
    centers = middle.unsqueeze(1) + steps  # (voxel, candidate)
    mirrored = 2 * centers.unsqueeze(2) - offsets
    image = interpolate_spectra(z, offsets, mirrored.flatten(1)).view_as(mirrored)
    squared = (image - z.unsqueeze(1)).square()
    shared = squared.isfinite()
    asymmetry = torch.where(shared, squared, 0.0).sum(2) / shared.sum(2).clamp_min(1)
    asymmetry = torch.where(shared.sum(2) >= FEWEST_SHARED, asymmetry, torch.inf)
    best = asymmetry.argmin(1, keepdim=True).clamp(1, candidates - 2)
    below, at, above = (asymmetry.gather(1, best + move).squeeze(1) for move in (-1, 0, 1))
    curvature = below - 2 * at + above
    vertex = torch.where(curvature > 0, (below - above) / (2 * curvature), 0.0).nan_to_num(0.0).clamp(-1, 1)
    spacing = 2 * half / (candidates - 1)
    found = centers.gather(1, best).squeeze(1) + vertex * spacing
    enclosed = at.isfinite() & below.isfinite() & above.isfinite()
    return torch.where(enclosed, found, torch.nan), 2 * spacing


def interpolate_b1(z: Tensor, b1_nominal_uT: Tensor, b1_relative: Tensor, target_uT: float) -> Tensor:
    """Interpolate the spectrum at the wanted B1 from acquisitions at one or several powers.

    Windschuh et al., NMR Biomed 2015;28:529. The actual B1 of each acquisition was ``b1_relative`` times the nominal
    one. Between the actual powers, a parabola through the three nearest is used; beyond them, and for two powers, the
    line through the two nearest. A single power is joined linearly with Z = 1 at zero power, which is good enough only
    for small corrections.

    Args:
        z: Spectra (power, voxel, offset).
        b1_nominal_uT: Nominal B1 (power,) in uT, distinct and positive.
        b1_relative: Actual over nominal B1 (voxel,).
        target_uT: B1 in uT of the wanted spectrum.

    Returns:
        Spectra (voxel, offset) at ``target_uT``; NaN where ``b1_relative`` is not positive.

    Raises:
        ValueError: The shapes do not belong together, or the nominal powers are not positive and distinct.
    """
    powers = len(b1_nominal_uT)
    if z.shape[:2] != (powers, len(b1_relative)):
        raise ValueError(f"z must be ({powers} powers, {len(b1_relative)} voxels, offset), not {tuple(z.shape)}")
    if bool((b1_nominal_uT <= 0).any()) or len(b1_nominal_uT.unique()) < powers:
        raise ValueError("b1_nominal_uT must be positive and distinct")
    relative = torch.where(b1_relative > 0, b1_relative, torch.nan).to(z)
    real = b1_nominal_uT.to(z).unsqueeze(1) * relative  # (power, voxel)
    if powers == 1:
        return 1 - (1 - z[0]) * (target_uT / real[0]).unsqueeze(1)
    near = (real - target_uT).abs().nan_to_num(0.0).argsort(0)[: min(3, powers)]
    inside = (real.amin(0) <= target_uT) & (target_uT <= real.amax(0))
    used = inside | (torch.arange(len(near), device=z.device) < 2).unsqueeze(1)  # (node, voxel)
    nodes = real.gather(0, near)
    result = torch.zeros_like(z[0])
    for i in range(len(near)):
        weight = used[i].to(z)
        for j in range(len(near)):
            if j != i:
                factor = (target_uT - nodes[j]) / (nodes[i] - nodes[j])
                weight = weight * torch.where(used[j], factor, 1.0)
        values = z.gather(0, near[i][None, :, None].expand(1, -1, z.shape[2]))[0]
        result += weight.unsqueeze(1) * values
    return torch.where(relative.isnan().unsqueeze(1), torch.nan, result)
