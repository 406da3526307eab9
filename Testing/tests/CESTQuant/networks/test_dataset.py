"""Simulated data sets: reproducible, equal to the signals of the engines, written whole or not at all."""

from __future__ import annotations

import errno
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from training_configs import amide_tissue, protocol_7T, write_config

from CESTQuantLib.batch import main
from CESTQuantLib.formats.protocol_files import read_protocol
from CESTQuantLib.networks import dataset, shards
from CESTQuantLib.networks.config import FOLDER, config_from_dict, config_names, read_config
from CESTQuantLib.networks.dataset import noisy_signals, signals_of, simulate_dataset
from CESTQuantLib.networks.files import check_protocol
from CESTQuantLib.networks.shards import read_dataset
from CESTQuantLib.physics.simulation import simulate
from CESTQuantLib.tissue.phantom import phantom_protocol

CONFIG = {
    "protocol": protocol_7T([-3.5, 2.0, 3.0, 3.5]),
    "tissue": {
        **amide_tissue(),
        "b0_shift_ppm": {"uniform": [-0.1, 0.1]},
        "b1_relative": {"uniform": [0.8, 1.2]},
    },
    "targets": ["amide.fraction", "amide.k_Hz"],
    "samples": 3000,
    "seed": 4,
}


def simulated(threads: int = 1, **changes):
    config = config_from_dict({**CONFIG, **changes})
    data = simulate_dataset(
        config.distribution,
        config.protocol,
        config.samples,
        noise_sd=config.noise_sd,
        seed=config.settings.seed,
        engine=config.engine,
        threads=threads,
    )
    return config, data


@pytest.mark.parametrize("engine", ["r1rho", "bloch-mcconnell"])
def test_the_same_seed_gives_the_same_bits_on_any_number_of_threads(engine: str) -> None:
    config, one = simulated(1, engine=engine)
    _, two = simulated(2, engine=engine)
    assert torch.equal(one.clean, two.clean)
    assert torch.equal(noisy_signals(one, config.protocol, 4), noisy_signals(two, config.protocol, 4))


@pytest.mark.parametrize("engine", ["r1rho", "bloch-mcconnell"])
def test_clean_signals_are_those_of_the_engine(engine: str) -> None:
    config, data = simulated(2, engine=engine, samples=700)
    index = torch.tensor([0, 256, 699])
    values = {path: value[index] for path, value in data.values.items()}
    expected = simulate(
        config.distribution.tissue(values),
        config.protocol,
        engine=engine,
        b0_shift_ppm=values["b0_shift_ppm"],
        b1_relative=values["b1_relative"],
    )
    assert torch.allclose(data.clean[index].double(), expected, atol=2e-6)


def test_noise_has_the_standard_deviation_that_is_recorded() -> None:
    config, data = simulated(noise_sd=[0.002, 0.006])
    noise = noisy_signals(data, config.protocol, 4) - data.clean
    assert float(data.noise_sd.min()) >= 0.002
    assert float(data.noise_sd.max()) <= 0.006
    assert float((noise / data.noise_sd[:, None]).std()) == pytest.approx(1.0, abs=0.02)


def test_l2_normalised_signals_have_unit_norm_after_the_noise() -> None:
    config, data = simulated(protocol={**CONFIG["protocol"], "signal_normalisation": "l2"})
    norms = torch.linalg.vector_norm(noisy_signals(data, config.protocol, 4), dim=1)
    assert torch.allclose(norms, torch.ones_like(norms), atol=1e-5)


def test_data_sets_on_disk_are_memory_mapped_and_do_not_depend_on_the_shards(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = write_config(tmp_path, CONFIG)
    assert main(["dataset", str(config), "--output", str(tmp_path / "whole")]) == 0
    monkeypatch.setattr(shards, "SHARD_ROWS", 1024)
    assert main(["dataset", str(config), "--output", str(tmp_path / "parts")]) == 0
    whole, parts = read_dataset(tmp_path / "whole"), read_dataset(tmp_path / "parts")
    assert (len(whole.signal), len(parts.signal)) == (1, 3)
    assert all(isinstance(shard, np.memmap) for shard in parts.signal)
    assert np.array_equal(np.concatenate(whole.signal), np.concatenate(parts.signal))
    signal, values = parts.shard(1)
    assert torch.equal(values["amide.k_Hz"], torch.from_numpy(np.array(whole.parameters[0][1024:2048, 3])))
    assert len(signal) == 1024
    assert (tmp_path / "parts" / "report.json").is_file()


def test_a_data_set_of_a_simulated_steady_state_reads_back(tmp_path: Path) -> None:
    assert main(["dataset", str(write_config(tmp_path, CONFIG)), "--output", str(tmp_path / "d")]) == 0
    path = tmp_path / "d" / shards.MANIFEST
    manifest = json.loads(path.read_text())
    manifest["protocol"] |= {"saturation_type": "cw", "saturation_time_s": 100.0}
    path.write_text(json.dumps(manifest))
    assert read_dataset(tmp_path / "d").protocol.saturation_time_s.tolist() == [100.0] * 4


def test_a_smaller_data_set_leaves_no_shard_of_the_larger_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shards, "SHARD_ROWS", 1024)
    output = tmp_path / "out"
    assert main(["dataset", str(write_config(tmp_path, CONFIG)), "--output", str(output)]) == 0
    (output / "signal-notes.npy").write_text("the user's")
    assert len(list(output.glob("*-0000?.npy"))) == 3 * len(shards.ARRAYS)
    assert main(["dataset", str(write_config(tmp_path, CONFIG, samples=1500)), "--output", str(output)]) == 0
    assert len(list(output.glob("*-0000?.npy"))) == 2 * len(shards.ARRAYS)
    assert len(read_dataset(output)) == 1500
    assert (output / "signal-notes.npy").exists()


def test_a_full_disk_is_one_sentence_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    saved = []

    def save_until_full(path: Path, values: np.ndarray) -> None:
        saved.append(path)
        if len(saved) == 3:
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(np, "save", save_until_full)
    assert main(["dataset", str(write_config(tmp_path, CONFIG)), "--output", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert "full" in error
    assert str(tmp_path / "out") in error
    assert [path.name for path in tmp_path.iterdir()] == ["config.json"]


def test_incomplete_data_sets_are_refused(tmp_path: Path) -> None:
    main(["dataset", str(write_config(tmp_path, CONFIG)), "--output", str(tmp_path / "out")])
    (tmp_path / "out" / "noise_sd-00000.npy").unlink()
    with pytest.raises(ValueError, match="noise_sd-00000"):
        read_dataset(tmp_path / "out")
    np.save(tmp_path / "out" / "noise_sd-00000.npy", np.zeros(7))
    with pytest.raises(ValueError, match="damaged"):
        read_dataset(tmp_path / "out")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"targets": ["amide.dw_ppm"]}, "amide.dw_ppm"),
        ({"targets": ["amine.k_Hz"]}, "amine.k_Hz"),
        ({"samples": 0}, "samples"),
        ({"noise_sd": [0.01, 0.002]}, "noise_sd"),
        ({"engine": "bloch"}, "bloch"),
        ({"protocol": "strategy 9"}, "strategy 9"),
        ({"tissue": {}}, "water"),
        ({"network": {"depth": 30}}, "depth"),
        ({"false_alarm_rate": 1.5}, "false_alarm_rate"),
        ({"seed": 1.5}, "seed is 1.5 but must be a whole number"),
        ({"learning_rate": "fast"}, "learning_rate is 'fast', which is not a number"),
        ({"sampels": 100}, "unknown keys sampels; use protocol, tissue, targets, noise_sd, samples, epochs"),
    ],
)
def test_impossible_configurations_are_one_sentence(
    changes: dict, said: str, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    assert main(["dataset", str(write_config(tmp_path, CONFIG, **changes)), "--output", str(tmp_path / "out")]) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1
    assert said in lines[0]
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("number", "count"), [(1, 49), (2, 56), (3, 37)])
def test_sampling_strategies_are_presets(number: int, count: int) -> None:
    protocol = config_from_dict({**CONFIG, "protocol": f"strategy {number}"}).protocol
    offsets, b1 = protocol.offsets_ppm, protocol.b1_uT
    assert protocol.measurement_count == count
    assert set(protocol.saturation_time_s.tolist()) == {1.5}
    assert set((protocol.saturation_time_s + protocol.recovery_time_s).tolist()) == {2.0}
    if number == 1:
        assert offsets[:14].tolist() == pytest.approx([1.4 + 0.2 * i for i in range(14)])
        assert sorted(set(b1[14:].tolist())) == pytest.approx([0.3, 0.6, 0.9, 1.2, 1.5])
    if number == 2:
        assert sorted(set(b1.tolist())) == pytest.approx([0.3, 0.5, 0.7, 0.9, 1.1, 1.3, 1.5])
    if number == 3:
        assert 1.5 <= float(offsets[:20].min()) <= float(offsets[:20].max()) <= 2.9
        assert len(set(b1[:20].tolist())) == 20


def test_bundled_configurations_are_valid() -> None:
    assert config_names()
    for name in config_names():
        assert read_config(name).targets
    check_protocol(read_config("autocest_phantom").protocol, phantom_protocol())
    assert read_protocol(FOLDER / "strategy_3.json").measurement_count == 37


def test_tissues_without_a_finite_signal_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(distribution, values, protocol, **options) -> torch.Tensor:
        signal = signals_of(distribution, values, protocol, **options)
        signal[7, 2] = torch.nan
        return signal

    config = config_from_dict(CONFIG)
    monkeypatch.setattr(dataset, "signals_of", broken)
    with pytest.raises(ValueError, match=r"not finite for water\.T1_s \d"):
        simulate_dataset(config.distribution, config.protocol, 10)
