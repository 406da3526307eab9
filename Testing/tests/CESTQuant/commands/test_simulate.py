"""``cestquant simulate``: spectra of scenarios and of the community's formats, and what it refuses."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from sequence_files import SequenceText
from studies import AMIDE_SCENARIO, checksums, read_spectrum, write_json

from CESTQuantLib.batch import main
from CESTQuantLib.formats.pools_yaml import read_pools
from NeuroCESTLib.core.output.lock import only_run


def steady_z(offset_ppm: float, k: float, fraction: float) -> float:
    """Return Z of the scenario in the steady state, with Zaiss and Bachert's R1rho written out independently."""
    w1, scale = 267.5153 * 2.0, 267.5153 * 3.0
    water, pool = offset_ppm * scale, (offset_ppm - 3.5) * scale
    sin2 = w1**2 / (w1**2 + water**2)
    r2 = 1 / 0.1
    width2 = (r2 + k) / k * w1**2 + (r2 + k) ** 2  # square of the half width
    rex = fraction * k * w1**2 / (w1**2 + k * (k + r2)) * width2 / (width2 + pool**2)
    r1rho = (1 - sin2) / 1.5 + sin2 / 0.08 + rex
    return (1 - sin2) / 1.5 / r1rho


def test_simulated_spectra_show_the_pool_at_its_offset(tmp_path: Path) -> None:
    write_json(AMIDE_SCENARIO, tmp_path / "s.json")
    assert main(["simulate", str(tmp_path / "s.json"), "--output", str(tmp_path / "z.csv")]) == 0
    z = read_spectrum(tmp_path / "z.csv")
    np.testing.assert_array_equal(z[:, 0], AMIDE_SCENARIO["offsets_ppm"])
    np.testing.assert_allclose(z[:, 1], [steady_z(offset, 50.0, 0.001) for offset in z[:, 0]], atol=3e-3)
    assert z[1, 1] - z[2, 1] > 0.02


@pytest.mark.parametrize(
    ("options", "limit"), [(["--engine", "r1rho"], 2e-3), (["--dtype", "float32"], 1e-4), ([], 0.0)]
)
def test_engines_and_precisions_agree(tmp_path: Path, options: list[str], limit: float) -> None:
    write_json(AMIDE_SCENARIO, tmp_path / "s.json")
    for name, chosen in (("exact", []), ("other", options)):
        assert main(["simulate", str(tmp_path / "s.json"), "--output", str(tmp_path / name), *chosen]) == 0
    exact, other = read_spectrum(tmp_path / "exact"), read_spectrum(tmp_path / "other")
    np.testing.assert_allclose(other, exact, atol=limit, rtol=0)
    assert (limit == 0) == bool((other == exact).all())


POOLS = """
water_pool: {f: 1, t1: 1.5, t2: 0.08}
cest_pool:
  amide: {f: 0.001, t1: 1.5, t2: 0.1, k: 50, dw: 3.5}
b0: 3
gamma: 267.5153
scale: 1
"""


def test_community_formats_give_what_the_scenario_gives(tmp_path: Path) -> None:
    pytest.importorskip("pypulseq")
    from CESTQuantLib.formats.pulseq.write import write_seq
    from CESTQuantLib.physics.protocol import Protocol

    (tmp_path / "p.yaml").write_text(POOLS)
    write_seq(Protocol(3.0, AMIDE_SCENARIO["offsets_ppm"], 2.0, 10.0), tmp_path / "p.seq")
    write_json(AMIDE_SCENARIO, tmp_path / "s.json")
    files = ["--pools", str(tmp_path / "p.yaml"), "--sequence", str(tmp_path / "p.seq")]
    assert main(["simulate", *files, "--output", str(tmp_path / "a.csv")]) == 0
    assert main(["simulate", str(tmp_path / "s.json"), "--output", str(tmp_path / "b.csv")]) == 0
    np.testing.assert_allclose(read_spectrum(tmp_path / "a.csv"), read_spectrum(tmp_path / "b.csv"), atol=1e-4)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"water": ...}, "s.json: the key 'water' is missing"),
        ({"offsets_ppm": "far"}, "s.json: "),
        ({"preparation": {"type": "magic"}}, "preparation type 'magic' is unknown"),
        ({"preparation": {"type": "CW block", "B1_uT": -2.0, "tsat_s": 1.0}}, "b1_uT contains the negative value -2"),
        ({"water": {"T1_s": 0, "T2_s": 0.1}}, "T1_s is 0 but must be greater than 0"),
        ({"water": 3}, "s.json: "),
        ({"preparation": []}, "s.json: "),
    ],
)
def test_unusable_scenarios(tmp_path: Path, capfd: pytest.CaptureFixture, change: dict, words: str) -> None:
    values = {key: value for key, value in (AMIDE_SCENARIO | change).items() if value is not ...}
    write_json(values, tmp_path / "s.json")
    assert main(["simulate", str(tmp_path / "s.json"), "--output", str(tmp_path / "z.csv")]) == 2
    (line,) = capfd.readouterr().err.splitlines()
    assert line.startswith("error: ")
    assert words in line
    assert checksums(tmp_path).keys() == {"s.json"}


def test_exactly_one_kind_of_input_is_needed(tmp_path: Path, capfd: pytest.CaptureFixture) -> None:
    for arguments in ([], ["--pools", "p.yaml"], ["s.json", "--pools", "p.yaml", "--sequence", "p.seq"]):
        assert main(["simulate", *arguments, "--output", str(tmp_path / "z.csv")]) == 2
        assert "give either SCENARIO.json, or --pools POOLS.yaml with --sequence" in capfd.readouterr().err
    assert main(["simulate", "absent.json", "--output", str(tmp_path / "z.csv")]) == 2
    assert "absent.json" in capfd.readouterr().err
    write_json(AMIDE_SCENARIO, tmp_path / "s.json")
    assert main(["simulate", str(tmp_path / "s.json"), "--output", str(tmp_path / "no" / "z.csv")]) == 2
    assert "does not exist" in capfd.readouterr().err


def test_the_analytic_engine_warns_outside_its_regime(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A pulse of 5 ms near water, for which it gives 0.08 and the truth is 0.78."""
    preparation = {"type": "CW block", "B1_uT": 5, "tsat_s": 0.005}
    write_json(AMIDE_SCENARIO | {"offsets_ppm": [-0.5, 0.5, 2.0], "preparation": preparation}, tmp_path / "s.json")
    files = ["simulate", str(tmp_path / "s.json"), "--output", str(tmp_path / "z.csv")]
    assert main([*files, "--engine", "r1rho"]) == 0
    assert (
        "s.json: in 3 of 3 measurements, up to 2 ppm from water, the saturation is short against T2"
        in capsys.readouterr().err
    )
    assert main(files) == 0
    assert "warning" not in capsys.readouterr().err


def sequence_with_pools(folder: Path, pools: str, excitation: bool = False) -> list[str]:
    file = SequenceText(5, B0=3, offsets_ppm="-1 0 1")
    for offset in (-1.0, 0.0, 1.0):
        file.pulse(1.0, 0.5, offset)
        if excitation:
            file.pulse(10.0, 1e-3, use="e")
        file.sample()
    (folder / "p.yaml").write_text(pools)
    return ["simulate", "--pools", str(folder / "p.yaml"), "--sequence", str(file.write(folder)), "--output"]


def test_isochromats_give_the_mean_over_their_shifts(tmp_path: Path) -> None:
    text = POOLS.replace("t2: 0.08}", "t2: 0.08, t2star: 0.03, isochromats: 3}")
    assert main([*sequence_with_pools(tmp_path, text), str(tmp_path / "mean.csv")]) == 0
    shifts = read_pools(tmp_path / "p.yaml").isochromat_shifts_ppm
    single = []
    for shift in shifts:
        files = sequence_with_pools(tmp_path, POOLS + f"b0_inhom: {shift!r}\n")
        assert main([*files, str(tmp_path / "one.csv")]) == 0
        single.append(read_spectrum(tmp_path / "one.csv")[:, 1])
    np.testing.assert_allclose(read_spectrum(tmp_path / "mean.csv")[:, 1], np.mean(single, 0), rtol=0, atol=1e-12)


def test_isochromats_with_an_excitation_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = POOLS.replace("t2: 0.08}", "t2: 0.08, t2star: 0.03, isochromats: 3}")
    assert main([*sequence_with_pools(tmp_path, text, excitation=True), str(tmp_path / "z.csv")]) == 2
    assert "isochromats are not supported for sequences with an excitation" in capsys.readouterr().err
    assert not (tmp_path / "z.csv").exists()


def test_a_pool_file_at_another_field_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = sequence_with_pools(tmp_path, POOLS.replace("b0: 3", "b0: 7"))
    assert main([*files, str(tmp_path / "z.csv")]) == 0
    assert "made for 3 T but is played at 7 T" in capsys.readouterr().err
    np.testing.assert_allclose(read_spectrum(tmp_path / "z.csv")[:, 0], [-3 / 7, 0, 3 / 7], atol=1e-4)


def test_a_second_run_into_the_same_table_stops(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    write_json(AMIDE_SCENARIO, tmp_path / "s.json")
    with only_run(tmp_path / "z.csv"):
        assert main(["simulate", str(tmp_path / "s.json"), "--output", str(tmp_path / "z.csv")]) == 2
    assert f"is writing to '{tmp_path / 'z.csv'}': wait until it has ended" in capsys.readouterr().err
    assert not (tmp_path / "z.csv").exists()


def test_the_table_replaces_no_input(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    scenario = write_json(AMIDE_SCENARIO, tmp_path / "s.json")
    pools, sequence = tmp_path / "p.yaml", tmp_path / "p.seq"
    pools.write_text("pools")
    sequence.write_text("sequence")
    (tmp_path / "link.json").symlink_to(scenario)
    before = checksums(tmp_path)
    monkeypatch.setattr("CESTQuantLib.physics.simulation.simulate", None)  # it is refused before it is computed
    community = ["--pools", str(pools), "--sequence", str(sequence)]
    for given, output in (
        ([str(scenario)], scenario),
        ([str(tmp_path / "link.json")], scenario),
        (community, pools),
        (community, sequence),
    ):
        assert main(["simulate", *given, "--output", str(output)]) == 2
        assert "is an input of this run and would be replaced: choose another --output" in capsys.readouterr().err
    assert checksums(tmp_path) == before
