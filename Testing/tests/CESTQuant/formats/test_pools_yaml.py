"""Pool files of the pulseq-cest community."""

from __future__ import annotations

import math
import re
import warnings
from pathlib import Path

import pytest
from arbitrary_values import one_line
from pool_files import POOLS, pools_file

from CESTQuantLib.formats.pools_yaml import read_pools

pytest.importorskip("yaml")


def unusable(path: Path) -> str:
    """Message about a file that cannot be used, one line that begins with its name."""
    with pytest.raises(ValueError, match=re.escape(str(path))) as caught:
        read_pools(path)
    one_line(caught.value, str(path))
    return str(caught.value)


def test_pools_are_read_with_times_rates_and_quotients(tmp_path: Path) -> None:
    text = POOLS.replace("r1: 1.0, t2: 0.1", "r1: 1/1.25, r2: 10").replace("b0_inhom: 0.0", "b0_inhom: 0.2")
    found = read_pools(pools_file(tmp_path, text))
    amide, amine = found.tissue.solutes
    assert (amide.T1_s, amide.T2_s, amide.dw_ppm) == pytest.approx((1.25, 0.1, 3.5))
    assert amine.k_Hz == 900
    assert found.tissue.semisolid.lineshape == "lorentzian"
    assert found.b0_shift_ppm == 0.2
    assert not found.magnetisation_carried_over


def test_fractions_are_relative_to_water(tmp_path: Path) -> None:
    found = read_pools(pools_file(tmp_path, POOLS.replace("water_pool: {f: 1.0", "water_pool: {f: 2.0")))
    assert found.tissue.solutes[0].fraction == pytest.approx(0.00045)


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("water_pool: {f: 1.0, t1: 1.3, t2: 0.075}", "", "'water_pool' is missing"),
        ("f: 0.0009,", "", "'f' is missing"),
        ("t1: 1.3, ", "", "r1"),
        ("k: 40", "k: fast", "fast"),
        ("k: 40", "k: -40", "-40"),
        ("t2: 0.03", "t2: 0", "0"),
        ("t2: 0.03", "r2: 1/0", "1/0"),
        ("lineshape: Lorentzian", "lineshape: Voigt", "voigt"),
        ("b0: 3", "b0: [3", "YAML"),
        ("b0: 3", "b0: [3", "(line 8:"),
        ("  amide", "\tamide", "(line 4: a tab at the start of a line; indent with spaces)"),
        ("rel_b1: 1.0", "rel_b1: 1.0\nrelb1: 0.5", "relb1 is 0.5 and rel_b1 is 1.0, which mean the same; give one"),
        ("t2: 0.075", "t2: 0.075, isochromats: 30", "isochromats needs t2star"),
        ("t2: 0.075", "t2: 0.075, t2star: 0.1, isochromats: 30", "t2star is 0.1 but must be shorter than t2"),
        ("t2: 0.075", "t2: 0.075, t2star: 0.05, isochromats: 0.5", "isochromats is 0.5"),
        ("k: 40", "k: .nan", "nan"),
        ("b0: 3\n", "b0: -3\n", "b0"),
        ("rel_b1: 1.0", "rel_b1: .inf", "rel_b1"),
        ("t2: 0.075", "t2: 0.075, dw: 1.0", "water_pool: dw is 1 but must be 0"),
        ("t1: 1.3", "t1: 1.3, r1: 3", "water_pool: t1 is 1.3 but 1/r1 is 0.3333; remove the wrong one of them"),
        ("t1: 1.3", "t1: 1300", "water_pool: t1 is 1300 s, which no tissue has: give times in s, not in ms"),
        ("r1: 1.0", "r1: 0.001", "amide: 1/r1 is 1000 s, which no tissue has"),
        ("scale: 1.0", "scale: 50", "scale is 50 but must lie between -1 and 1"),
        ("gamma: 267.5154109126009", "gamma: 42.5764", "gamma is 42.5764, which is that of 1H in MHz/T: give 267.52"),
        ("b0: 3\n", "b0: 127.7\n", "b0 is 127.7, which no magnet has"),
        ("reset_init_mag: True", "reset_init_mag: 'false'", "reset_init_mag is 'false' but must be true or false"),
        ("{f: 0.0009, r1: 1.0, t2: 0.1, k: 40, dw: 3.5}", "", "amide is empty but must be a mapping"),
        ("{f: 1.0, t1: 1.3, t2: 0.075}", "[1, 2]", "water_pool is [1, 2] but must be a mapping"),
        ("mt_pool: {", "mt_pool: [1]\nother: {", "mt_pool is [1] but must be a mapping"),
        ("lineshape: Lorentzian", "lineshape: null", "lineshape is empty: give SuperLorentzian, Lorentzian or 'None'"),
        ("b0: 3\n", "b0:\n", "'b0' is missing or empty"),
    ],
)
def test_unusable_pool_files_are_named(tmp_path: Path, old: str, new: str, words: str) -> None:
    assert words in unusable(pools_file(tmp_path, POOLS.replace(old, new)))


@pytest.mark.parametrize("key", ["gamma: 267.5154109126009", "b0_inhom: 0.0", "rel_b1: 1.0", "scale: 1.0"])
def test_an_optional_key_without_a_value_has_its_default(tmp_path: Path, key: str) -> None:
    usual = read_pools(pools_file(tmp_path))
    assert read_pools(pools_file(tmp_path, POOLS.replace(key, key.split()[0]))) == usual


@pytest.mark.parametrize(
    ("written", "carried"), [("", False), ("True", False), ("1", False), ("0", True), ("no", True)]
)
def test_only_an_explicit_no_carries_the_magnetisation_over(tmp_path: Path, written: str, carried: bool) -> None:
    text = POOLS.replace("reset_init_mag: True", f"reset_init_mag: {written}")
    assert read_pools(pools_file(tmp_path, text)).magnetisation_carried_over is carried


def test_a_relative_b1_in_percent_is_told(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match=r"pools\.yaml: rel_b1 is 110, which is unusual: .* not in percent"):
        read_pools(pools_file(tmp_path, POOLS.replace("rel_b1: 1.0", "rel_b1: 110")))


def test_relaxation_may_be_given_twice_where_it_is_the_same(tmp_path: Path) -> None:
    found = read_pools(pools_file(tmp_path, POOLS.replace("t1: 1.3", "t1: 1.3, r1: 0.769")))
    assert found.tissue.water.T1_s == 1.3


@pytest.mark.parametrize(
    "content", ["", "3", "- a\n- b\n", "water_pool: 3\n", "water_pool: {t1: 1, t2: 1}\ncest_pool: 4"]
)
def test_yaml_of_another_kind_is_named(tmp_path: Path, content: str) -> None:
    unusable(pools_file(tmp_path, content))
    unusable(tmp_path / "absent.yaml")


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("b0_inhom", "b0_inhomogen", ": unknown keys are ignored: b0_inhomogen"),
        ("k: 40", "k: 40, kex: 40", ": amide: unknown keys are ignored: kex"),
        ("lineshape", "line_shape", ": mt_pool: unknown keys are ignored: line_shape"),
    ],
)
def test_unknown_keys_are_named_in_a_warning(tmp_path: Path, old: str, new: str, words: str) -> None:
    path = pools_file(tmp_path, POOLS.replace(old, new))
    with pytest.warns(UserWarning, match=re.escape(f"{path}{words}")):
        read_pools(path)


def test_the_keys_of_the_community_are_known(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        read_pools(pools_file(tmp_path))


@pytest.mark.parametrize(
    ("old", "new", "name", "value"),
    [
        ("rel_b1: 1.0", "relb1: 0.5", "b1_relative", 0.5),
        ("b0_inhom: 0.0", "b0_inhomogeneity: 0.3", "b0_shift_ppm", 0.3),
    ],
)
def test_other_names_of_keys_are_understood(tmp_path: Path, old: str, new: str, name: str, value: float) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert getattr(read_pools(pools_file(tmp_path, POOLS.replace(old, new))), name) == value


def test_pools_may_be_a_list(tmp_path: Path) -> None:
    text = POOLS.replace("  amide", "  - amide").replace("  amine", "  - amine")
    assert [pool.name for pool in read_pools(pools_file(tmp_path, text)).tissue.solutes] == ["amide", "amine"]


def test_a_semisolid_pool_without_a_lineshape_exchanges_only(tmp_path: Path) -> None:
    import torch

    from CESTQuantLib.physics.lineshapes import saturation_rate

    text = POOLS.replace("lineshape: Lorentzian", "lineshape: 'None'")
    pool = read_pools(pools_file(tmp_path, text)).tissue.semisolid
    assert (pool.fraction, pool.k_Hz) == (0.1, 30)
    w1, offset, T2 = (torch.tensor(value, dtype=torch.float64) for value in (1000.0, 0.0, pool.T2_s))
    assert float(saturation_rate(pool.lineshape, w1, offset, T2, 0.0)) < 1e-8


@pytest.mark.parametrize("where", ["water_pool", "file"])
def test_isochromats_are_quantiles_of_a_lorentzian_line(tmp_path: Path, where: str) -> None:
    keys = "t2star: 0.03, isochromats: 101"
    text = POOLS.replace("t2: 0.075", f"t2: 0.075, {keys}")
    if where == "file":
        text = POOLS.replace("t2: 0.075", "t2: 0.075, t2star: 0.03") + "isochromats: 101\n"
    shifts = read_pools(pools_file(tmp_path, text)).isochromat_shifts_ppm
    assert len(shifts) == 101
    assert sum(shifts) == pytest.approx(0, abs=1e-12)
    # the quarter of the cut line lies at 0.9 / 4 of a turn from its centre
    half_width_ppm = (1 / 0.03 - 1 / 0.075) / (267.5154109126009 * 3)
    assert shifts[75] == pytest.approx(half_width_ppm * math.tan(0.9 * math.pi * (75.5 / 101 - 0.5)), rel=1e-12)
