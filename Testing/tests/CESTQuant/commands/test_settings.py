"""Unusable settings of the commands: protocols, models, pools and methods are refused with the reason."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
from studies import amine_model, checksums, fit, fit_arguments, spectrum_protocol, write_json

from CESTQuantLib.batch import main
from CESTQuantLib.formats.protocol_json import protocol_to_dict

SPECTRUM = spectrum_protocol(count=21)
OFFSETS = SPECTRUM.offsets_ppm.tolist()


@pytest.fixture
def protocol(tmp_path: Path) -> Callable[..., Path]:
    """Return a function that writes a protocol file with changed keys; the value ... leaves a key out."""

    def write(**changes: object) -> Path:
        values = {k: v for k, v in (protocol_to_dict(SPECTRUM) | changes).items() if v is not ...}
        return write_json(values, tmp_path / "p.json")

    return write


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"offsets_ppm": OFFSETS[:-1]}, "p.json' has 20 offsets but '{signal}' has 21 measurements"),
        ({"offsets_ppm": ["a"] * 21}, "p.json: offsets_ppm must be"),
        ({"offsets_ppm": [float("nan")] * 21}, "p.json: offsets_ppm"),
        ({"offsets_ppm": ...}, "p.json: the key 'offsets_ppm' is missing"),
        ({"b1_uT": -1.0}, "p.json: b1_uT contains the negative value -1"),
        ({"b1_uT": [1.0, 2.0]}, "p.json: b1_uT has 2 values but offsets_ppm has 21"),
        ({"field_strength_T": 0}, "p.json: field_strength_T"),
        ({"signal_normalisation": "best"}, "signal_normalisation 'best' is unknown"),
        ({"readout": [1]}, "p.json: readout"),
        ({"pulse_shape": "magic", "n_pulses": 2, "pulse_duration_s": 0.1, "saturation_type": "pulse_train"}, "magic"),
    ],
)
def test_unusable_protocols(refused: Callable, protocol: Callable, good: Path, changes: dict, words: str) -> None:
    assert words.replace("{signal}", str(good / "signal.nii.gz")) in refused(protocol=protocol(**changes))


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("damaged.json", b'{"offsets_ppm": [1, 2', "damaged.json: not valid JSON (line 1"),
        ("list.json", b"[1, 2]", "list.json: a protocol is a JSON object"),
        ("binary.json", b"\xff\xfe\x00", "binary.json: not a readable text file"),
        ("empty.json", b"", "empty.json' is empty"),
        ("offsets.txt", b"1\n2\nx\n", "offsets.txt: line 3 holds 'x'"),
        ("none.txt", b"# nothing\n", "none.txt: no offsets found"),
        ("garbage.seq", b"garbage", "garbage.seq"),
        ("binary.seq", b"\xff\xfe\x00\x01", "binary.seq"),
    ],
)
def test_damaged_protocol_files(refused: Callable, tmp_path: Path, name: str, content: bytes, words: str) -> None:
    (tmp_path / name).write_bytes(content)
    assert words in refused(protocol=tmp_path / name)


def test_unknown_methods_and_options(refused: Callable) -> None:
    assert "--method: method 'magic' is unknown; use one of mtrasym, aptw" in refused("magic")
    assert "required: --signal (see 'cestquant fit --help')" in refused(signal=None)
    assert "unrecognized arguments: --magic" in refused(magic="1")
    assert "invalid float value: 'x'" in refused(asymmetry_offset="x")


def test_options_that_the_method_does_not_use_are_named(quantified: Callable, good: Path) -> None:
    words = (
        "the method mtrasym does not use --t1, which is for "
        "mtr-rex, plof, mplf, quesp, omega-plot, qucesop, mtsat, r1rho, ",
        "the method mtrasym does not use --model, which is for quesp, omega-plot, qucesop, r1rho, bloch-mcconnell",
    )
    files = {name: good / f"{name}.nii.gz" for name in ("b0", "t1")}
    output = quantified(good, "mtrasym", words, model=good / "model.json", **files)
    noted = json.loads((output / "report.json").read_text())["warnings"]
    assert all(word in line for word, line in zip(words, noted, strict=True))


def test_messages_about_options_open_with_the_option(refused: Callable) -> None:
    assert refused("lorentzian", threads=0) == "error: --threads: the number of threads must be at least 1, not 0"


@pytest.mark.parametrize("field_T", ["nan", "inf", -3, 0])
def test_a_field_strength_is_a_positive_number(refused: Callable, tmp_path: Path, field_T: object) -> None:
    (tmp_path / "offsets.txt").write_text("\n".join(str(offset) for offset in range(-10, 11)))
    words = "error: --field-strength: the field strength must be a positive number of T, not "
    for protocol in ({}, {"protocol": tmp_path / "offsets.txt"}):
        assert refused("mtrasym", field_strength=f"{field_T}", **protocol).startswith(words)


def test_a_missing_gpu_is_no_fault_of_the_signal(refused: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    words = "error: --device: device 'cuda' is not available on this machine; use cpu or auto"
    assert refused("mtrasym", device="cuda") == words


@pytest.mark.parametrize("offset", [50.0, -3.5, 0.0, "nan"])
def test_offsets_without_an_asymmetry(refused: Callable, offset: object) -> None:
    words = "±50 ppm" if offset == 50 else "must be a positive number of ppm"
    assert words in refused(asymmetry_offset=[3.5, offset])


def change(path: str, value: object) -> dict:
    """Return the model with one key changed ('solute' is the first solute); ... removes the key."""
    model = json.loads(json.dumps(amine_model()))
    *owners, key = path.split(".")
    place = model
    for owner in owners:
        place = model["solutes"][0] if owner == "solute" else place[owner]
    if value is ...:
        del place[key]
    else:
        place[key] = value
    return model


@pytest.mark.parametrize(
    ("model", "words"),
    [
        (change("solute.fraction", 0.001) | {"solutes": []}, "the model has no fitted value"),
        (change("solute.kHz", 30), "m.json: amine: unknown keys kHz; use fraction, k_Hz"),
        (change("solute.k_Hz", ...), "m.json: amine: the key k_Hz is missing"),
        (change("pools", []), "m.json: unknown keys pools"),
        (change("water.T2_s", {"map": "t2.nii.gz"}), "file not found: 't2.nii.gz'"),
        (change("water.T2_s", -1), "m.json: water T2_s is -1"),
        (change("water.T2_s", "long"), "m.json: water.T2_s is 'long', which is not a number"),
        (change("water.T2_s", float("nan")), "m.json: water.T2_s"),
        (change("solute.fraction", fit(3, 0, 1)), "the start 3 lies outside its bounds"),
        (change("solute.fraction", {"fit": True, "bounds": [1, 0]}), "amine.fraction: bounds must be two numbers"),
        (change("solute.fraction", fit(0.1, 0, 1) | {"prior": {"mean": 1}}), "m.json: amine.fraction: "),
        (change("solutes", ["amide"]), "m.json: solute1: must be an object with the keys"),
        (change("water", 3), "m.json: water"),
        (change("semisolid", True), "m.json: semisolid: must be an object with the keys"),
        (change("solute.name", "../../amine"), "m.json: solute name '../../amine' must consist of"),
        (change("solute.protons", -3), "m.json: amine: protons is -3 but must be positive"),
        ([1], "m.json: must be an object with the keys water, solutes, semisolid"),
    ],
)
def test_unusable_models(refused: Callable, good: Path, tmp_path: Path, model: object, words: str) -> None:
    assert words in refused("r1rho", model=write_json(model, tmp_path / "m.json"), t1=good / "t1.nii.gz")


def test_models_that_are_damaged_or_missing_or_lack_a_map(refused: Callable, good: Path, tmp_path: Path) -> None:
    (tmp_path / "m.json").write_text('{"water": ')
    assert "m.json: not valid JSON" in refused("r1rho", model=tmp_path / "m.json")
    for method in ("r1rho", "bloch-mcconnell"):
        assert f"the method {method} needs a tissue model file" in refused(method)
    line = refused("r1rho", model=good / "model.json")
    assert line == f"error: '{good / 'model.json'}' refers to the map 't1', which is not given"


def test_more_fitted_values_than_measurements(refused: Callable, good: Path, tmp_path: Path) -> None:
    pool = amine_model()["solutes"][0]
    model = amine_model() | {"solutes": [pool | {"name": f"p{i}", "dw_ppm": 1.0 + i} for i in range(6)]}
    line = refused("r1rho", good / "pairs", model=write_json(model, tmp_path / "m.json"), t1=good / "pairs/t1.nii.gz")
    assert line == f"error: '{tmp_path / 'm.json'}': 10 different measurements do not determine 12 fitted values"


@pytest.mark.parametrize("method", ["quesp", "omega-plot", "qucesop", "r1rho", "bloch-mcconnell"])
def test_physical_methods_refuse_a_list_of_offsets(refused: Callable, good: Path, tmp_path: Path, method: str) -> None:
    (tmp_path / "offsets.txt").write_text("\n".join(map(str, OFFSETS)))
    files = {"protocol": tmp_path / "offsets.txt", "model": good / "model.json", "t1": good / "t1.nii.gz"}
    assert "the protocol gives no saturation time and B1" in refused(method, **files)


def test_quesp_says_what_it_lacks(refused: Callable, good: Path) -> None:
    files = {"model": good / "model.json", "t1": good / "t1.nii.gz"}
    for method in ("quesp", "omega-plot"):
        assert "needs at least two pairs of measurements at +3 and -3 ppm" in refused(method, **files)
        assert "give a model file that names the target solute" in refused(method, t1=good / "t1.nii.gz")
        assert "give a T1 map" in refused(method, good / "pairs")
        shifted = f"'{good / 'b0.nii.gz'}': pairs of single offsets cannot be shifted by a B0 map"
        assert shifted in refused(method, good / "pairs", b0=good / "b0.nii.gz", **files)


@pytest.mark.parametrize("method", ["mtrasym", "lorentzian", "mtr-rex"])
def test_one_of_several_powers_must_be_chosen_for_a_contrast(
    refused: Callable, protocol: Callable, method: str
) -> None:
    two = protocol(b1_uT=[1.0, 2.0] * 10 + [1.0])
    assert f"'{two}': the protocol has 2 powers (1, 2 uT); choose one" in refused(method, protocol=two)
    assert "no measurement at 7 uT; the powers are 1, 2 uT" in refused(method, protocol=two, power=7)
    assert "--power: no measurement at 7 uT; the only power is 1 uT" in refused(method, power=7)


@pytest.mark.parametrize(
    ("pools", "words"),
    [
        ("9T", "preset '9T' is unknown; use 3T, 7T, preclinical, 3T_two_step, plof_3T or"),
        ("3T_one_step", "preset '3T_one_step' is unknown"),
        ("absent.json", "file not found: 'absent.json'"),
        ({}, "pools.json: pools must be a list of objects"),
        ({"pools": [{"name": "water"}]}, "pools.json: pool 'water': amplitude must be three numbers"),
        ({"pools": [{"name": "../w"}]}, "pools.json: pool name '../w'"),
        ({"residual_pools": []}, "pools.json: excluded_from_background_ppm must be a list of ranges"),
        ({"pools": [], "baseline": [1, 1, 1]}, "pools.json: a Lorentzian model has 1 to 6 pools"),
    ],
)
def test_unusable_lorentzian_pools(refused: Callable, tmp_path: Path, pools: object, words: str) -> None:
    given = write_json(pools, tmp_path / "pools.json") if isinstance(pools, dict) else pools
    for method in ("lorentzian", "mtr-rex"):
        assert words in refused(method, lorentzian=given)


def test_an_input_in_the_place_of_a_map_is_refused_before_anything_is_computed(
    slicer: ModuleType, good: Path, tmp_path: Path, capfd: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "out"
    output.mkdir()
    inputs = {"mask": output / "aptw.nii.gz", "b0": output / "b0_shift_ppm.nii.gz"}
    for file in inputs.values():
        shutil.copy(good / "b0.nii.gz", file)
    before = checksums(tmp_path)
    monkeypatch.setattr("CESTQuantLib.logic.CESTQuantLogic.fit", None)
    assert main(fit_arguments(good, output, "aptw", **inputs)) == 2
    error = capfd.readouterr().err
    assert f"'{inputs['mask']}' is an input of this run and would be replaced: choose another --output" in error
    assert checksums(tmp_path) == before


def test_a_b0_map_of_the_same_folder_is_not_replaced(slicer: ModuleType, good: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    output.mkdir()
    given = shutil.copy(good / "b0.nii.gz", output / "b0_shift_ppm.nii.gz")
    before = checksums(output)
    assert main(fit_arguments(good, output, "mtrasym", b0=given)) == 0
    assert checksums(output).items() >= before.items()
