"""The analysis of visits in the scene."""

from __future__ import annotations

from types import ModuleType

import numpy as np

from CESTQuantLib.logic import CESTQuantLogic
from CESTQuantLib.scene.compartments.inputs import CompartmentVisit
from CESTQuantLib.scene.compartments.nodes import maps_beside
from CESTQuantLib.scene.patient_report.material import material_of
from NeuroCESTLib.scene import hierarchy
from NeuroCESTLib.scene.geometry import Geometry
from NeuroCESTLib.scene.segmentations import add_segmentation
from NeuroCESTLib.scene.sequences import array_to_sequence
from NeuroCESTLib.scene.volumes import add_volume

GRID = Geometry.from_spacing((4, 8, 8), (2.0, 2.0, 5.0))
AWAY = Geometry.from_spacing((4, 8, 8), (2.0, 2.0, 5.0), (3.0, 0.0, 0.0))


def test_the_report_shows_no_name_of_a_node(slicer: ModuleType) -> None:
    offsets = np.linspace(-5.0, 5.0, 21)
    spectrum = 1000 * (1 - 0.9 / (1 + (offsets / 0.7) ** 2))
    signal = array_to_sequence(np.tile(spectrum[:, None, None, None], (1, *GRID.shape)), GRID, "Doe O'Hara", [*offsets])
    reference = add_volume(np.full(GRID.shape, 1000.0), GRID, "Doe M0")
    maps = {
        "mtr_asym_3.5ppm": add_volume(np.ones(GRID.shape), AWAY, "Doe asymmetry"),
        "amide_amplitude": add_volume(np.full(GRID.shape, np.nan), AWAY, "Doe empty"),
    }
    mask = np.zeros(GRID.shape, bool)
    mask[1:3, 2:6, 2:6] = True
    tumor = add_segmentation({"enhancing tumor": mask}, AWAY, "Doe tumour")
    fit = {"signalNode": signal, "reference": reference, "method": "mtrasym"}
    result = CESTQuantLogic().compartments(
        CompartmentVisit("first", maps, tumor, fit=fit), rim_mm=0, draws=50, perturbations=0
    )
    told = " ".join(result.analysis.warnings)
    assert "the spectra of 'Doe O'Hara' are on another grid" in told
    assert "the map 'Doe empty' has no value" in told
    text = " ".join(material_of(result).warnings())
    assert "Doe" not in text
    assert "the spectra of the acquisition of first are on another grid" in text
    assert "the map amide_amplitude of first has no value" in text


def test_label_maps_in_the_folder_of_a_run_are_no_quantities(slicer: ModuleType) -> None:
    """The status of the fits stays with the maps: it says which voxels have no usable estimate."""
    amide = add_volume(np.ones(GRID.shape), GRID, "amide_amplitude")
    error = add_volume(np.ones(GRID.shape), GRID, "amide_amplitude_sd")
    mask, status = (add_volume(np.ones(GRID.shape, np.uint8), GRID, name, label=True) for name in ("mask", "status"))
    hierarchy.put([amide, error, mask, status], hierarchy.make_folder("maps"))
    assert maps_beside(amide) == {"amide_amplitude": amide, "amide_amplitude_sd": error, "status": status}
