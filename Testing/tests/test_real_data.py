"""Real acquisitions: skipped where the shared data are absent."""

from __future__ import annotations

import pytest
import torch

pytest.importorskip("SimpleITK")
import SimpleITK as sitk
from CESTQuantLib.model_fit import fit_tissue_model
from CESTQuantLib.protocol import read_protocol
from CESTQuantLib.quantification import Settings, quantify
from CESTQuantLib.signal import normalise
from CESTQuantLib.tissue_model import tissue_model_from_dict

VOXELS_A_VIAL = 20
# independent matrix-exponential fits of the vial means with T1 fixed at 2.5 s: mM, its error, rate in Hz
INDEPENDENT = [(48.2, 6.1, 191), (51.2, 3.8, 260), (54.4, 1.4, 404)]


def read(path) -> torch.Tensor:
    return torch.from_numpy(sitk.GetArrayFromImage(sitk.ReadImage(str(path))).astype("float64"))


def vials(mask: torch.Tensor) -> list[torch.Tensor]:
    """Flat indices of voxels of each vial."""
    image = sitk.ConnectedComponent(sitk.GetImageFromArray((mask > 0).numpy().astype("uint8")))
    labels = torch.from_numpy(sitk.GetArrayFromImage(image).astype("int64")).flatten()
    sizes = torch.bincount(labels)
    return [torch.nonzero(labels == i).flatten() for i in range(1, len(sizes)) if sizes[i] > 100]


def test_larginine_vials_hold_50_mm_and_their_rates_rise_with_ph(shared_data):
    folder = shared_data("data/cest/larginine_9p4T_mrf")
    raw = read(folder / "signal.nii.gz").reshape(30, -1).T
    protocol = read_protocol(folder / "protocol.json")
    amine = {"name": "amine", "protons": 3, "dw_ppm": 3.0, "T1_s": 2.8, "T2_s": 0.04}
    amine["fraction"] = {"fit": True, "start": 1e-3, "bounds": [1e-5, 0.01]}
    amine["k_Hz"] = {"fit": True, "start": 300, "bounds": [5, 1500]}
    water = {"T1_s": 2.5, "T2_s": {"fit": True, "start": 1.0, "bounds": [0.3, 2.5]}}
    model = tissue_model_from_dict({"water": water, "solutes": [amine], "semisolid": None})
    found = []
    for voxels in vials(read(folder / "mask.nii.gz").squeeze()):
        chosen = voxels[:: len(voxels) // VOXELS_A_VIAL]
        spectra = normalise(raw[chosen], protocol, None)
        fit = fit_tissue_model(spectra.signal, protocol, model, engine="bloch-mcconnell")
        values = [float(fit.quantities[f"amine_{n}"].nanmedian()) for n in ("concentration_mM", "exchange_rate_Hz")]
        found.append((values[1], values[0]))
    found.sort()
    for (rate, concentration), (expected, error, expected_rate) in zip(found, INDEPENDENT, strict=True):
        assert concentration == pytest.approx(50, rel=0.12)  # 20 of some 330 voxels; all of them lie within 10 %
        assert concentration == pytest.approx(expected, abs=max(error, 2.0))
        assert rate == pytest.approx(expected_rate, rel=0.06)


def test_brain_at_7t_shows_white_over_grey_matter_and_centred_water(shared_data):
    folder = shared_data("data/cest/brain_7T_zspectrum")
    raw, m0 = (read(folder / f"{name}.nii.gz").reshape(57, -1).T for name in ("mz", "m0"))
    b0, t1 = (read(folder / f"{name}.nii.gz").flatten() for name in ("b0_shift_ppm", "t1_ms"))
    rows, columns = torch.meshgrid(torch.linspace(-1, 1, 108), torch.linspace(-1, 1, 128), indexing="ij")
    centre = (rows**2 + columns**2).flatten() < 0.6**2  # within the brain, away from the scalp
    brain = centre & (t1 > 900) & (t1 < 2300) & (b0 != 0)
    protocol = read_protocol(folder / "protocol.json")
    spectra = normalise(raw[brain], protocol, m0[brain])
    settings = Settings(lorentzian="lorentzian_7T")
    result = quantify(spectra, "lorentzian", b0_shift_ppm=b0[brain], settings=settings).quantities
    white, grey = (t1[brain] < t1[brain].quantile(0.3)), (t1[brain] > t1[brain].quantile(0.7))
    for pool in ("mt", "noe"):
        amplitude = result[f"{pool}_amplitude"]
        assert float(amplitude[white].nanmedian()) > 1.1 * float(amplitude[grey].nanmedian())
    assert abs(float(result["water_position_ppm"].nanmedian())) < 0.05  # offsets are 0.5 ppm apart there
