"""The registry of methods: one place from which the commands, the panel and the display of maps derive."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from fnmatch import fnmatchcase
from pathlib import Path

import further_contrast
import pytest
import torch
from paths import ROOT
from studies import Acquisition, read_image

from CESTQuantLib.batch import main
from CESTQuantLib.fitting.marquardt import Status
from CESTQuantLib.formats.presets import pool_names
from CESTQuantLib.methods.base import Input, Settings
from CESTQuantLib.methods.registry import (
    FIELD_METHODS,
    METHODS,
    is_quantity_of,
    map_fields,
    method_named,
    quantify,
    quantity_named,
)
from CESTQuantLib.physics.protocol import Protocol
from CESTQuantLib.physics.simulation import simulate
from CESTQuantLib.tissue.model import tissue_model_from_dict
from CESTQuantLib.tissue.spectra import ZSpectra
from NeuroCESTLib.scene.display import COLOR_MAPS

ALL = (*METHODS.values(), *FIELD_METHODS.values())


def spectra(**maps: torch.Tensor) -> ZSpectra:
    """Two voxels at three offsets."""
    signal = torch.tensor([[0.9, 0.1, 0.8], [0.9, 0.2, 0.7]], dtype=torch.float64)
    return ZSpectra(signal, Protocol(3.0, [-3.5, 0.0, 3.5], 1.0, 2.0), **maps)


def test_names_and_titles_are_unique() -> None:
    assert len({method.name for method in ALL}) == len(ALL)
    assert len({method.title for method in ALL}) == len(ALL)


@pytest.mark.parametrize("method", ALL, ids=lambda method: method.name)
def test_every_method_describes_itself(method) -> None:
    assert method.summary.endswith(".")
    assert method.run.__doc__
    assert method.publications
    assert method.quantities
    assert {quantity.color_map for quantity in method.quantities} <= set(COLOR_MAPS)
    assert not set(method.needs) & set(method.takes)


def test_every_input_is_used_by_a_method() -> None:
    assert {what for method in ALL for what in (*method.needs, *method.takes)} == set(Input)


def test_methods_agree_on_the_display_of_a_quantity() -> None:
    shown: dict[str, object] = {}
    for quantity in (quantity for method in ALL for quantity in method.quantities):
        assert shown.setdefault(quantity.pattern, quantity) == quantity


@pytest.mark.parametrize(
    ("name", "unit", "color_map"),
    [
        ("amide_exchange_rate_Hz", "Hz", "inferno"),
        ("amide_concentration_mM", "mM", "viridis"),
        ("mtr_asym_3.5ppm", "", "diverging"),
        ("rmse_expected", "", "inferno"),
        ("reliable_fraction", "", "viridis"),  # of a pool called 'reliable'
        ("something_else", "", "viridis"),
    ],
)
def test_quantities_are_recognised_by_their_names(name: str, unit: str, color_map: str) -> None:
    quantity, error = quantity_named(name), quantity_named(f"{name}_sd")
    assert (quantity.unit, quantity.color_map) == (unit, color_map)
    assert (error.unit, error.color_map, error.centered) == (unit, "inferno", False)
    assert error.rank > quantity.rank


@pytest.mark.parametrize(
    ("name", "known"),
    [
        ("amide_amplitude", True),
        ("amide_amplitude_1.5uT_sd", True),
        ("semisolid_fraction", True),
        ("mtr_asym_3.5ppm", True),
        ("b0_shift_ppm", True),
        ("rmse", True),
        ("DOE_JANE_amplitude", False),
        ("DOE_JANE_amide_amplitude", False),
        ("rmse_DOE", False),
        ("DOE_b0_shift_ppm", False),
    ],
)
def test_a_name_that_says_more_than_quantity_pool_and_numbers_is_told_from_others(name: str, known: bool) -> None:
    assert is_quantity_of(name, pool_names()) is known


def test_an_unknown_method_is_an_error_that_lists_the_known_ones() -> None:
    with pytest.raises(ValueError, match="method 'magic' is unknown; use one of mtrasym, aptw, mtrasym-spline"):
        quantify(spectra(), "magic")
    with pytest.raises(ValueError, match="method 'quesp' is unknown; use one of wasabi, wassr"):
        map_fields(spectra(), "quesp")
    assert method_named("quesp") is METHODS["quesp"]


@pytest.mark.parametrize(
    ("method", "words"),
    [
        ("r1rho", r"the method r1rho needs a tissue model file \(--model MODEL\.json\)"),
        ("network", r"the method network needs a network file \(--network NETWORK\.pt\)"),
        ("dictionary", r"the method dictionary needs a configuration of .* \(--config CONFIG\.json\)"),
    ],
)
def test_a_method_says_what_it_lacks(method: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        quantify(spectra(), method)


def test_physical_methods_need_the_saturation() -> None:
    offsets_only = replace(spectra(), protocol=Protocol(3.0, [-3.5, 0.0, 3.5], 0.0, 0.0))
    needs_nothing = [method for method in METHODS.values() if method.physical and not method.needs]
    assert needs_nothing
    for method in needs_nothing:
        with pytest.raises(ValueError, match=f"no saturation time and B1; {method.name} needs a protocol.json or .seq"):
            quantify(offsets_only, method.name)


RELATIVE_B1 = torch.tensor([1.0, 0.0, -1.0, torch.nan, torch.inf, 0.9], dtype=torch.float64)
AMINE = {"name": "amine", "T1_s": 2.0, "T2_s": 0.5, "dw_ppm": 3.0}
POWERS = torch.tensor([0.5, 1.0, 2.0, 3.0], dtype=torch.float64)
FEW = torch.linspace(2.0, 4.0, 5, dtype=torch.float64)
PAIRS = Protocol(9.4, [3.0] * 4 + [-3.0] * 4, POWERS.repeat(2), 8.0)
AROUND_TARGET = Protocol(9.4, FEW.repeat(4), POWERS.repeat_interleave(5), 8.0)
GRADIENT_ECHO = Protocol(
    *(3.0, [10.0], 4.0, 0.01), recovery_time_s=0.02, readout_flip_angle_deg=6.0, magnetisation_carried_over=True
)
B1_STUDIES = {
    "plof": Protocol(9.4, torch.linspace(-8, 8, 65, dtype=torch.float64), 0.8, 3.0),
    "quesp": PAIRS,
    "omega-plot": PAIRS,
    "qucesop": AROUND_TARGET,
    "mtsat": GRADIENT_ECHO,
    "r1rho": AROUND_TARGET,
    "bloch-mcconnell": AROUND_TARGET,
}
"""Protocols for the physical methods that take a B1 map; the network has a test of its own."""


def amine_study(method: str, **maps: torch.Tensor) -> tuple[ZSpectra, Settings]:
    """Six voxels of amine in water, as acquired for a method, and the model of them."""
    water, protocol = {"T1_s": 3.0, "T2_s": 1.5}, B1_STUDIES[method]
    truth = tissue_model_from_dict({"water": water, "solutes": [{**AMINE, "fraction": 0.001, "k_Hz": 300}]})
    fitted = {"fraction": {"fit": True, "start": 5e-4, "bounds": [1e-5, 0.01]}}
    fitted |= {"k_Hz": {"fit": True, "start": 200, "bounds": [5, 2000]}}
    model = tissue_model_from_dict({"water": {**water, "T1_s": {"map": "t1"}}, "solutes": [{**AMINE, **fitted}]})
    signal = simulate(truth.tissue(truth.values({}, {})), protocol, engine="r1rho").expand(6, -1)
    t1_s = torch.full((6,), 3.0, dtype=torch.float64)
    return ZSpectra(signal, protocol, **{"t1_s": t1_s, **maps}), Settings(model=model)


def test_there_is_a_study_of_every_physical_method_that_uses_b1() -> None:
    using = {method.name for method in METHODS.values() if method.physical and method.uses(Input.B1)}
    assert using - {"network"} == set(B1_STUDIES)


@pytest.mark.parametrize("method", B1_STUDIES)
@pytest.mark.parametrize("name", ["b1_relative", "t1_s"])
def test_voxels_whose_b1_or_t1_is_impossible_are_not_quantified(method: str, name: str) -> None:
    study, settings = amine_study(method, **{name: RELATIVE_B1 * (3.0 if name == "t1_s" else 1.0)})
    found = quantify(study, method, settings)
    invalid = found.status == Status.INVALID_DATA
    assert invalid.tolist() == [False, True, True, True, True, False]
    assert all(values[invalid].isnan().all() for key, values in found.quantities.items() if key != "b0_shift_ppm")


WITHOUT_ERRORS = ("mtr_rex_*", "mtr_ld_*", "arex_*", "ld_*", "plof_dz_*", "mtsat_*")
"""Values that are calculated from fitted lines or from the signals."""


@pytest.mark.parametrize("method", [*B1_STUDIES, "lorentzian", "mtr-rex", "ld", "mplf"])
def test_every_fitted_value_has_a_standard_error_and_the_page_says_which_values_have_none(method: str) -> None:
    study, settings = amine_study(method if method in B1_STUDIES else "plof")
    if method == "mplf":
        b1_uT = torch.tensor([0.8, 1.6], dtype=torch.float64).repeat_interleave(65)
        two_powers = Protocol(9.4, study.protocol.offsets_ppm.repeat(2), b1_uT, 3.0)
        study = replace(study, signal=study.signal.repeat(1, 2), protocol=two_powers)
    names = set(quantify(study, method, settings).quantities)
    values = {name for name in names if not name.endswith("_sd") and not quantity_named(name).quality}
    without = {name for name in values if f"{name}_sd" not in names} - {"b0_shift_ppm"}
    assert without == {name for name in values if any(fnmatchcase(name, pattern) for pattern in WITHOUT_ERRORS)}
    page = (ROOT / "docs" / "cestquant.md").read_text(encoding="utf-8")
    assert all(f"`{pattern}`" in page for pattern in (*WITHOUT_ERRORS, "b0_shift_ppm"))


def test_a_b1_map_leaves_single_contrasts_alone_where_it_is_impossible() -> None:
    study = spectra(b1_relative=torch.tensor([0.0, 1.0], dtype=torch.float64))
    assert quantify(study, "mtrasym").status.tolist() == [Status.CONVERGED] * 2


def test_listing_the_methods_and_building_the_command_loads_nothing_heavy() -> None:
    """The panel lists the methods where torch may not be installed yet, and ``--help`` should answer at once."""
    code = (
        "import sys; from CESTQuantLib.batch import _parser; _parser()\n"
        "print(sorted({'torch', 'numpy', 'scipy', 'SimpleITK', 'matplotlib', 'vtk', 'slicer'} & set(sys.modules)))"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "CESTQuant")])}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert (done.stdout.strip(), done.stderr) == ("[]", "")


@pytest.fixture
def depth(monkeypatch: pytest.MonkeyPatch) -> str:
    """Name of a further contrast, which is in the registry during the test."""
    (method,) = further_contrast.METHODS
    monkeypatch.setitem(METHODS, method.name, method)
    return method.name


def test_a_further_contrast_runs_through_the_registry(depth: str) -> None:
    result = quantify(spectra(), depth, Settings(asymmetry_offsets_ppm=(3.5,)))
    assert result.quantities["depth_3.5ppm"].tolist() == pytest.approx([20.0, 30.0])
    assert (quantity_named("depth_3.5ppm").unit, quantity_named("depth_3.5ppm_sd").unit) == ("%", "%")


def test_a_further_contrast_is_a_method_of_the_command(
    depth: str, quantified: Callable, acquisition: Acquisition, good: Path, capfd: pytest.CaptureFixture
) -> None:
    assert main(["fit", "--help"]) == 0
    text = " ".join(capfd.readouterr().out.split())
    assert "depth: Loss of signal at the offset, in percent." in text
    assert "(default: 3.5) (used by mtrasym, " in text
    assert ", depth)" in text
    output = quantified(good, depth, asymmetry_offset=3, segmentation=good / "mask.nii.gz")
    expected = 100 * (1 - acquisition.signal[15] / acquisition.m0)  # 3 ppm is the sixteenth of 21 offsets
    assert read_image(output / "depth_3ppm.nii.gz").ravel() == pytest.approx(expected.ravel(), rel=1e-4)
    assert "depth_3ppm,%," in (output / "roi.csv").read_text()
    report = json.loads((output / "report.json").read_text())
    assert report["summary"]["publications"] == list(METHODS[depth].publications)
