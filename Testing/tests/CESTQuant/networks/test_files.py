"""Network files: they read back, carry no code, are checked value by value, and name another protocol's difference."""

from __future__ import annotations

import os
import pickle
import resource
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from training_configs import amide_tissue, protocol_7T

from CESTQuantLib.formats.protocol_json import protocol_from_dict
from CESTQuantLib.networks.architecture import ReconstructionNetwork
from CESTQuantLib.networks.files import Calibration, NetworkFile, check_protocol, load_network, save_network
from CESTQuantLib.physics.events import EventPulse, Events, Play, Sample
from CESTQuantLib.preprocessing.normalization import normalize

PROTOCOL = protocol_7T([-3.5, 2.0, 3.0, 3.5])
OUTPUTS = ("amide.fraction", "amide.k_Hz", "water.T1_s")


def signals(count: int, seed: int = 3) -> torch.Tensor:
    return torch.rand(count, 4, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def file() -> NetworkFile:
    torch.manual_seed(0)
    network = ReconstructionNetwork(4, 3, width=16, depth=3, dropout=0.1)
    network.set_targets(
        {"amide.fraction": (1e-4, 1e-2), "amide.k_Hz": (20, 300), "water.T1_s": (1, 2)}, ["amide.fraction"]
    )
    network.set_inputs(signals(100), 0.01)
    return NetworkFile(
        network.eval(),
        protocol_from_dict(PROTOCOL),
        amide_tissue(fraction={"log_uniform": [1e-4, 1e-2]}),
        OUTPUTS[:2],
        OUTPUTS,
        engine="r1rho",
        noise_sd=(0.002, 0.006),
        calibration=Calibration(1.2, 0.05, 1000, 2 * torch.eye(4), (0.001, 0.01)),
        training={"samples": 10, "loss": [1.0, 0.5]},
    )


@pytest.fixture
def saved(file: NetworkFile, tmp_path: Path) -> Path:
    return save_network(file, tmp_path / "n.pt")


def test_network_files_read_back_to_the_same_network(file: NetworkFile, saved: Path) -> None:
    again = load_network(saved)
    signal = signals(6)
    assert torch.equal(again.network(signal), file.network(signal))
    assert again.outputs == file.outputs
    assert again.targets == file.targets
    residual, expected = signals(6, seed=4), torch.tensor([0.0, 0.001, 0.01, 0.02, 0.005, 0.003])
    assert torch.equal(again.calibration.misfit(residual, expected), file.calibration.misfit(residual, expected))
    assert (again.calibration.threshold, again.calibration.false_alarm_rate) == (1.2, 0.05)
    assert again.training == file.training
    assert again.units == {"amide.fraction": "", "amide.k_Hz": "Hz", "water.T1_s": "s"}
    check_protocol(again.protocol, file.protocol)
    assert [path.name for path in saved.parent.iterdir()] == ["n.pt"]


class Malicious:
    """What an attacker would put into a file."""

    def __reduce__(self) -> tuple:
        return os.mkdir, (os.environ["NEUROCEST_TEST_TRAP"],)


def test_a_network_for_a_simulated_steady_state_reads_back(file: NetworkFile, tmp_path: Path) -> None:
    steady = replace(file.protocol, saturation_time_s=torch.full((4,), 100.0, dtype=torch.float64), pulses=None)
    saved = save_network(replace(file, protocol=steady), tmp_path / "steady.pt")
    assert load_network(saved).protocol.saturation_time_s.tolist() == [100.0] * 4


def test_loading_a_malicious_file_executes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trap = tmp_path / "trap"
    monkeypatch.setenv("NEUROCEST_TEST_TRAP", str(trap))
    with open(tmp_path / "plain.pt", "wb") as file:
        pickle.dump({"kind": Malicious()}, file)
    torch.save({"kind": Malicious()}, tmp_path / "zipped.pt")
    for name in ("plain.pt", "zipped.pt"):
        with pytest.raises(ValueError, match=name) as error:
            load_network(tmp_path / name)
        assert "\n" not in str(error.value)
    assert not trap.exists()


def test_damaged_and_foreign_files_are_one_sentence(saved: Path, tmp_path: Path) -> None:
    whole = saved.read_bytes()
    (tmp_path / "cut.pt").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "empty.pt").write_bytes(b"")
    (tmp_path / "text.pt").write_text("no network")
    torch.save({"weights": torch.ones(2)}, tmp_path / "foreign.pt")
    torch.save(torch.ones(2), tmp_path / "tensor.pt")
    values = torch.load(saved, weights_only=True)
    for name, changes in (
        ("outputs", {"outputs": ["amide.fraction"]}),
        ("options", {"options": {"inputs": 4}}),
        ("format", {"format": 99}),
        ("state", {"state": {}}),
        ("nan", {"state": {**values["state"], "mean.bias": torch.full((3,), torch.nan)}}),
    ):
        torch.save({**values, **changes}, tmp_path / f"{name}.pt")
    names = ("cut", "empty", "text", "foreign", "tensor", "absent", "outputs", "options", "format", "state", "nan")
    for name in names:
        with pytest.raises(ValueError, match=rf"{name}\.pt") as error:
            load_network(tmp_path / f"{name}.pt")
        assert "\n" not in str(error.value), name


CALIBRATION = {
    "threshold": 1.2,
    "false_alarm_rate": 0.05,
    "voxels": 1000,
    "whitening": torch.eye(4),
    "expected_rmse": [0.001, 0.01],
}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"engine": "foo"}, "engine 'foo' is unknown"),
        ({"engine": ["r1rho"]}, r"engine '\['r1rho'\]' is unknown"),
        ({"noise_sd": ["a", "b"]}, "noise_sd is not a finite number"),
        ({"noise_sd": [0.006, 0.002]}, "noise_sd must lie"),
        ({"noise_sd": 0.002}, "noise_sd must be two numbers"),
        ({"training": None}, "summary of the training is not an object"),
        ({"training": {"mean_norm": "x"}}, "mean_norm is not a finite number"),
        ({"targets": []}, "targets is empty"),
        ({"targets": "amide.fraction"}, "targets is not a list of names"),
        ({"targets": ["water.T2_s"]}, "do not fit"),
        ({"outputs": ["amide.fraction", "amide.k_Hz", 3]}, "outputs is not a list of names"),
        ({"outputs": ["amide.fraction", "amide.k_Hz", "water.T2_s"]}, "do not fit"),
        ({"tissue": {"water": "wet"}}, "tissue"),
        ({"tissue": None}, "tissue"),
        ({"protocol": {**PROTOCOL, "offsets_ppm": "far"}}, "offsets_ppm"),
        ({"protocol": {**PROTOCOL, "offsets_ppm": [1.0, 2.0]}}, "do not fit"),
        ({"calibration": 3}, "'calibration' is of another kind"),
        ({"calibration": {**CALIBRATION, "threshold": "x"}}, "threshold is not a finite number"),
        ({"calibration": {**CALIBRATION, "threshold": float("nan")}}, "threshold is not a finite number"),
        ({"calibration": {**CALIBRATION, "false_alarm_rate": 2}}, "false_alarm_rate must lie"),
        ({"calibration": {**CALIBRATION, "whitening": torch.eye(3)}}, "another size"),
        ({"calibration": {**CALIBRATION, "whitening": torch.eye(4) / 0}}, "not finite"),
        ({"calibration": {**CALIBRATION, "whitening": torch.eye(4).to(torch.complex64)}}, "another type"),
        ({"calibration": {**CALIBRATION, "expected_rmse": [0, "x"]}}, "expected_rmse"),
        ({"calibration": {**CALIBRATION, "more": 1}}, "a value is of another kind"),
    ],
)
def test_every_value_of_a_network_file_is_checked_on_loading(
    changes: dict, said: str, saved: Path, tmp_path: Path
) -> None:
    values = torch.load(saved, weights_only=True)
    torch.save({**values, "calibration": CALIBRATION}, tmp_path / "crafted.pt")
    load_network(tmp_path / "crafted.pt")
    torch.save({**values, **changes}, tmp_path / "crafted.pt")
    with pytest.raises(ValueError, match=rf"crafted\.pt: a damaged network file \(.*{said}") as error:
        load_network(tmp_path / "crafted.pt")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("option", [{"depth": "a"}, {"depth": 1}, {"width": 10**9}, {"inputs": 4.0}, {"dropout": "x"}])
def test_impossible_options_of_a_network_file_name_the_file(option: dict, saved: Path, tmp_path: Path) -> None:
    values = torch.load(saved, weights_only=True)
    torch.save({**values, "options": {**values["options"], **option}}, tmp_path / "crafted.pt")
    with pytest.raises(ValueError, match=r"crafted\.pt: a damaged network file"):
        load_network(tmp_path / "crafted.pt")


@pytest.mark.parametrize("kind", [torch.complex64, torch.float64, torch.int64])
def test_weights_of_another_type_are_refused(kind: torch.dtype, saved: Path, tmp_path: Path) -> None:
    values = torch.load(saved, weights_only=True)
    values["state"]["mean.bias"] = values["state"]["mean.bias"].to(kind)
    torch.save(values, tmp_path / "crafted.pt")
    with pytest.raises(ValueError, match=r"crafted\.pt: .*the weights mean\.bias have another type"):
        load_network(tmp_path / "crafted.pt")


def test_what_could_not_be_loaded_again_is_not_saved(file: NetworkFile, saved: Path) -> None:
    before = saved.read_bytes()
    bad = [replace(file, calibration=replace(file.calibration, threshold=float("nan")))]
    bad += [replace(file, noise_sd=(0.1, float("inf"))), replace(file, engine="foo")]
    file.network.spread[2].weight.data[0, 0] = torch.nan
    for unusable in (*bad, file):
        with pytest.raises(ValueError, match=r"cannot write '.*n\.pt': .*network"):
            save_network(unusable, saved)
    assert saved.read_bytes() == before


def test_a_file_that_cannot_be_written_leaves_the_earlier_one(file: NetworkFile, saved: Path) -> None:
    before = saved.read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, limits[1]))  # as on a full disk, a part can be written
    try:
        with pytest.raises(ValueError, match=r"cannot write '.*n\.pt': the disk is full") as error:
            save_network(file, saved)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert "\n" not in str(error.value)
    assert saved.read_bytes() == before
    assert [path.name for path in saved.parent.iterdir()] == ["n.pt"]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"field_strength_T": 3.0}, "field_strength_T is 7, here 3"),
        ({"offsets_ppm": [-3.5, 2.0, 3.0, 3.6]}, "offsets_ppm of measurement 4 is 3.5, here 3.6"),
        ({"b1_uT": [1.0, 1.0, 1.2, 1.0]}, "b1_uT of measurement 3"),
        ({"offsets_ppm": [1.0, 2.0]}, "4 measurements, the signal has 2"),
        ({"signal_normalisation": "l2"}, "signal_normalisation"),
        ({"readout_flip_angle_deg": 60.0}, "readout_flip_angle_deg is not given, here 60"),
        ({"n_pulses": 4, "pulse_duration_s": 0.05, "saturation_type": "pulse_train"}, "saturation"),
    ],
)
def test_signals_of_another_protocol_are_refused_by_the_first_difference(changes: dict, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        check_protocol(protocol_from_dict(PROTOCOL), protocol_from_dict({**PROTOCOL, **changes}))


def test_a_played_sequence_is_refused_with_what_to_give_instead() -> None:
    """A ``.seq`` file that holds single events cannot be compared with values, nor values with it."""
    stated = protocol_from_dict(PROTOCOL)
    pulse = EventPulse((1.0,), (0.0,), (0.1,))
    events = Events((pulse,), ((Play(0, 900.0, 0.0), Sample()),) * 4)
    played = replace(stated, events=events)
    with pytest.raises(ValueError, match=r"here every event of a sequence is given.*: give a protocol\.json"):
        check_protocol(stated, played)
    with pytest.raises(ValueError, match=r"here only values are stated: give the \.seq file"):
        check_protocol(played, stated)


def test_protocols_that_differ_by_rounding_alone_are_the_same() -> None:
    protocol = protocol_from_dict(PROTOCOL)
    check_protocol(protocol, replace(protocol, offsets_ppm=protocol.offsets_ppm + 1e-6))


def test_a_network_for_another_start_is_refused_with_what_to_put_into_its_protocol() -> None:
    trained = protocol_from_dict(PROTOCOL)
    recovery_s = torch.full_like(trained.initial_recovery_s, 2.0)
    measured = replace(trained, initial_magnetisation=0.25, initial_recovery_s=recovery_s)
    with pytest.raises(ValueError, match=r"starts from 1 of the equilibrium, but here it starts from 0.25.* 2 s: put"):
        check_protocol(trained, measured)


M0_AS_SIGNAL = protocol_7T([-300.0, 2.0, 3.0, 3.5])


@pytest.mark.parametrize(
    ("m0_measurements", "remedy"),
    [((1,), "train or simulate again, or, if"), ((), "again with it named as m0_measurements in the protocol, or, if")],
)
def test_a_network_that_takes_m0_for_a_signal_is_refused_where_it_serves_as_m0(
    m0_measurements: tuple, remedy: str
) -> None:
    trained = protocol_from_dict(M0_AS_SIGNAL | {"m0_measurements": list(m0_measurements)})
    measured = normalize(torch.rand(2, 4), trained, None).protocol
    with pytest.raises(ValueError, match=rf"4 measurements, of which number 1 is an M0 .*{remedy} .* \(--reference\)"):
        check_protocol(trained, measured)
    check_protocol(trained, normalize(torch.rand(2, 4), trained, torch.ones(2)).protocol)


def test_m0_is_not_said_to_be_the_reason_where_the_spectra_differ_in_more() -> None:
    trained = protocol_from_dict(M0_AS_SIGNAL)
    with pytest.raises(ValueError, match="trained for 4 measurements, the signal has 3"):
        check_protocol(trained, protocol_from_dict(protocol_7T([2.0, 3.0, 4.0])))


def test_several_m0_measurements_are_named_in_the_plural() -> None:
    trained = protocol_from_dict(protocol_7T([-300.0, 2.0, 3.0, -300.0]))
    with pytest.raises(ValueError, match=r"of which numbers 1, 4 are M0 measurements .* with them named"):
        check_protocol(trained, normalize(torch.rand(2, 4), trained, None).protocol)
