"""Posteriors of the mean spectra of regions, as a table of the scene."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from NeuroCESTLib.core.messages.input_errors import InputError
from NeuroCESTLib.core.progress import Progress, part
from NeuroCESTLib.scene import hierarchy
from NeuroCESTLib.scene.tables import add_table

from .results import CESTQuantResult
from .study import Study

if TYPE_CHECKING:
    from ..methods.base import Settings
    from ..tissue.spectra import ZSpectra

METHODS = ("r1rho", "bloch-mcconnell")
"""Methods that have a posterior."""


def require_posterior(method: str, regions: Mapping[str, np.ndarray]) -> None:
    """Check that posteriors can be sampled.

    Raises:
        ValueError: The method fits no tissue model, or there is no region.
    """
    if method not in METHODS:
        raise InputError(
            "posterior", f"the posterior is that of a model fit ({' or '.join(METHODS)}), not of the method {method}"
        )
    if not regions:
        raise ValueError("the posterior is that of the mean spectra of regions: give a segmentation (--segmentation)")


def region_posteriors(
    study: Study,
    spectra: ZSpectra,
    regions: Mapping[str, np.ndarray],
    method: str,
    settings: Settings,
    progress: Progress,
) -> tuple[dict[str, list[Any]], list[str]]:
    """Sample the posterior of the mean spectrum of every region.

    Args:
        study: Acquisition.
        spectra: Its spectra with their maps.
        regions: Boolean masks (K, J, I) by name.
        method: One of ``METHODS``, which is the engine.
        settings: Model, and the noise of a voxel where it is known.
        progress: Called before every round of samples; what it raises cancels the work.

    Returns:
        Columns of the table, and sentences for the user.
    """
    import torch

    from ..tissue.confidence.posterior import NoPosteriorError, posterior_columns, posterior_of, warning_of

    assert settings.model is not None  # Method.needs
    found, warnings = {}, []
    usable = torch.isfinite(spectra.signal).all(1)
    for place, (name, mask) in enumerate(regions.items(), start=1):
        inside = torch.from_numpy(mask.ravel()[study.voxels]) & usable
        count = int(inside.sum())
        if count == 0:
            warnings.append(f"the region '{name}' has no usable voxel, so it has no posterior")
            continue
        mean = spectra.of_voxels(torch.nonzero(inside).flatten()).mean_voxel()
        noise_sd = None if settings.noise_sd is None else settings.noise_sd / count**0.5
        of_region = part(progress, (place - 1) / len(regions), place / len(regions), f"{name}: ")
        try:
            posterior = posterior_of(mean, settings.model, engine=method, noise_sd=noise_sd, progress=of_region)
        except NoPosteriorError as error:
            warnings.append(f"the region '{name}' has no posterior: {error}")
            continue
        found[name] = posterior
        warnings += [noted] if (noted := warning_of(posterior, name)) else []
    return posterior_columns(found), warnings


def with_posterior(result: CESTQuantResult, columns: dict[str, list[Any]]) -> CESTQuantResult:
    """Add the table of the posteriors to the folder of a result."""
    table = add_table(columns, "posterior")
    hierarchy.put([table], result.folderItemID)
    return replace(result, posterior=table)
