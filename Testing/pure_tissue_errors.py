"""Which errors the values of pure tissue have, one source at a time, on patients of ``neurocest demo-cohort``.

    neurocest demo-cohort --output demo
    python Testing/pure_tissue_errors.py demo patient04 visit2

The tumour of a visit is simulated again and fitted, without noise and spread of the tissue, with either and with both,
and once more with the shares of the segmentation instead of the exact ones. For each compartment it prints the error of
the amide and the semisolid fraction in percent with its standard error, the error of the mean of its pure voxels, and
that of a regression in which tissues mix linearly.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import torch

from CESTQuantLib.compartments.grid import Grid
from CESTQuantLib.compartments.partial_volumes import partial_volumes
from CESTQuantLib.compartments.unmixing import LEAST_FILLED, Mixture
from CESTQuantLib.formats.presets import phantom_model
from CESTQuantLib.phantoms.patient import REGIONS, TUMOR, region_values, simulate_patient
from CESTQuantLib.scene import patient_phantom as phantom
from CESTQuantLib.tissue.fit import fit_tissue_model
from CESTQuantLib.tissue.model import tissue_model_from_dict
from CESTQuantLib.tissue.spectra import ZSpectra
from NeuroCESTLib.scene import host
from NeuroCESTLib.scene.geometry import Geometry
from NeuroCESTLib.scene.volumes import read_volume, volume_array

PATHS = {"amide_fraction": "amide.fraction", "semisolid_fraction": "semisolid.fraction"}
SEGMENTS = {"necrotic_core": 1, "edema": 2, "enhancing_tumor": 3}
PURE = 0.97
NO_SHIFTS = np.zeros((0, 3))


def fitted_maps(shares, positions_mm, values, noise_sd: float, spread: float) -> dict[str, np.ndarray]:
    """Simulate the voxels with tumour and fit them; maps (K, J, I), NaN elsewhere."""
    near = shares[[list(REGIONS).index(label) for label in TUMOR]].sum(0) > 0.02
    made = simulate_patient(
        shares[:, near][:, None, None], positions_mm[near][None, None], values, noise_sd=noise_sd, spread=spread
    )
    signal = (made.signal / made.m0).reshape(len(made.signal), -1).T

    def of(array: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(array.ravel().astype(np.float64))

    spectra = ZSpectra(
        torch.from_numpy(signal.astype(np.float64)),
        made.protocol,
        b0_shift_ppm=of(made.b0_shift_ppm),
        b1_relative=of(made.b1_relative),
        t1_s=of(made.t1_s),
    )
    found = fit_tissue_model(spectra, tissue_model_from_dict(phantom_model(), "model"), engine="r1rho").quantities
    maps = {}
    for name in PATHS:
        maps[name] = np.full(near.shape, np.nan)
        maps[name][near] = found[name].numpy()
    return maps


def straight(array: np.ndarray, shares: dict[str, np.ndarray]) -> dict[str, float]:
    """Return the values of the compartments if tissues mixed linearly."""
    parts = np.stack(list(shares.values()), -1)
    usable = np.isfinite(array) & (parts.sum(-1) >= LEAST_FILLED)
    found = np.linalg.lstsq(parts[usable].astype(np.float64), array[usable], rcond=None)[0]
    return dict(zip(shares, found, strict=True))


def line(maps: dict[str, np.ndarray], shares: dict[str, np.ndarray], true: dict[str, dict[str, float]]) -> str:
    """Return the errors of all compartments as text."""
    texts = []
    for name, path in PATHS.items():
        linear = straight(maps[name], shares)
        for region, pure in Mixture(shares, NO_SHIFTS).pure_values(maps[name]).items():
            truth = true[region][path]
            voxels = maps[name][shares[region] > PURE]
            mean = np.nanmean(voxels) if voxels.size else np.nan
            own, of_voxels, of_mixture = (100 * (value / truth - 1) for value in (pure.value, mean, linear[region]))
            error = f"{own:+.2f} ± {100 * pure.se / truth:.2f}"
            texts.append(f"{name} {region} {error} (pure voxels {of_voxels:+.2f}, linear {of_mixture:+.2f})")
    return "\n  ".join(["", *texts])


def main() -> None:
    """Simulate, fit and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("cohort", type=Path, help="folder of 'neurocest demo-cohort'")
    parser.add_argument("subject", help="subject, such as patient04")
    parser.add_argument("visit", help="visit, such as visit2")
    options = parser.parse_args()
    host.attach()
    start = options.cohort / options.subject / options.visit
    node, segmentation = (read_volume(f"{start}_{name}.nii.gz") for name in ("regions", "seg"))
    labels, grid = volume_array(node), Geometry.of(node)
    place = phantom._slab_geometry(labels, grid, phantom.Slab())
    shares = phantom._shares(labels, grid, place)
    positions = phantom._points(place) - phantom._center(labels > 0, grid)
    values = region_values(json.loads(Path(f"{start}_values.json").read_text()))
    true = {REGIONS[label]: dict(values[label]) for label in TUMOR}
    exact = {REGIONS[label]: shares[list(REGIONS).index(label)].astype(np.float32) for label in TUMOR}
    drawn = np.rint(volume_array(segmentation))
    masks = {name: drawn == value for name, value in SEGMENTS.items()}
    segmented = Geometry.of(segmentation)
    rough = partial_volumes(masks, Grid(segmented.shape, segmented.ijk_to_ras), Grid(place.shape, place.ijk_to_ras))
    for noise, spread in ((0.0, 0.0), (0.002, 0.0), (0.0, 0.03), (0.002, 0.03)):
        maps = fitted_maps(shares, positions, values, noise, spread)
        print(f"noise {noise:g}, spread {spread:g}, exact shares: {line(maps, exact, true)}")
        print(f"noise {noise:g}, spread {spread:g}, segmentation: {line(maps, rough, true)}", flush=True)


if __name__ == "__main__":
    main()
