"""What ParaVision scans say of their saturation, by Bruker's modules and by methods of laboratories."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from paravision import METHOD, write_parameters

from CESTQuantLib.formats.scanner.parameters import ParameterFile
from CESTQuantLib.formats.scanner.saturation import Saturation, is_saturated, saturation_of
from CESTQuantLib.formats.scanner.scan import FrameGroup


def method_file(folder: Path, **changes: str | None) -> ParameterFile:
    values = {name: value for name, value in {**METHOD, **changes}.items() if value is not None}
    write_parameters(folder / "method", values)
    return ParameterFile.read(folder / "method")


def saturation(folder: Path, measurements: int = 4, **changes: str | None) -> Saturation:
    return saturation_of(method_file(folder, **changes), 300.0, measurements)


MODULE_360 = {
    **dict.fromkeys((name for name in METHOD if "MagTrans" in name), None),
    "PVM_SatTransOnOff": "On",
    "PVM_SatTransFreqUnit": "unit_ppm",
    "PVM_SatTransFreqValues": "( 3 )\n-3.5 0 3.5",
    "PVM_SatTransFL": "( 3 )\n-1050 0 1050",
    "PVM_SatTransPulseAmpl_uT": "3",
    "PVM_SatTransPulseEnum": "<bp>",
    "PVM_SatTransPulse": "(100, 12, 90, Yes, 1, 1280)",
    "PVM_SatTransNPulses": "20",
    "PVM_SatTransInterPulseDelay": "50",
}


def test_a_block_of_paravision_6(tmp_path: Path) -> None:
    found = saturation(tmp_path)
    assert found.protocol == {
        "field_strength_T": pytest.approx(300 / 42.5764, rel=1e-5),
        "larmor_frequency_MHz": 300.0,
        "offsets_ppm": [-100.0, -3.5, 0.0, 3.5],
        "b1_uT": 2.5,
        "saturation_type": "cw",
        "saturation_time_s": 4.0,
        "post_delay_s": None,
        "magnetisation_carried_over": None,
        "recovery_time_s": None,
        "readout_flip_angle_deg": None,
        "signal_normalisation": "m0",
    }
    assert (found.repetitions, found.notes) == (1, ())


def test_a_train_of_paravision_360_has_the_mean_power(tmp_path: Path) -> None:
    """ParaVision gives the amplitude of the pulse, a protocol the root mean square over pulses and gaps."""
    protocol = saturation(tmp_path, 3, **MODULE_360).protocol
    assert protocol["offsets_ppm"] == [-3.5, 0.0, 3.5]
    assert protocol["b1_uT"] == pytest.approx(3 * (100 / 150) ** 0.5)
    train = {
        key: protocol[key]
        for key in ("saturation_type", "n_pulses", "pulse_duration_s", "pulse_delay_s", "pulse_shape")
    }
    assert train == {
        "saturation_type": "pulse_train",
        "n_pulses": 20,
        "pulse_duration_s": 0.1,
        "pulse_delay_s": 0.05,
        "pulse_shape": "block",
    }


def test_offsets_of_paravision_360_may_be_in_hertz(tmp_path: Path) -> None:
    changes = {**MODULE_360, "PVM_SatTransFreqUnit": "unit_hz", "PVM_SatTransFreqValues": "( 3 )\n-1050 0 1050"}
    assert saturation(tmp_path, 3, **changes).protocol["offsets_ppm"] == [-3.5, 0.0, 3.5]


def test_a_reference_scan_is_the_m0_reference(tmp_path: Path) -> None:
    found = saturation(tmp_path, 8, **MODULE_360, PVM_SatTransRefScan="Yes")
    assert found.protocol["offsets_ppm"] == [300.0, -3.5, 0.0, 3.5] * 2
    assert found.protocol["b1_uT"][0] == 0
    assert found.protocol["m0_measurements"] == [1, 5]
    assert "serves as M0" in found.notes[0]


def test_repetitions_follow_each_other(tmp_path: Path) -> None:
    found = saturation(tmp_path, 12)
    assert found.protocol["offsets_ppm"] == [-100.0, -3.5, 0.0, 3.5] * 3
    assert found.repetitions == 3
    assert "measured 3 times" in found.notes[0]


@pytest.mark.parametrize(
    ("counts", "offsets", "told"),
    [
        ((4, 2), [-100, -3.5, 0, 3.5, -100, -3.5, 0, 3.5], ["measured 2 times, one list after the other"]),
        ((2, 4), [-100, -100, -3.5, -3.5, 0, 0, 3.5, 3.5], ["measured 2 times in a row, in the loop 'FG_0'"]),
        ((2, 2, 2), [-100, -3.5, 0, 3.5, -100, -3.5, 0, 3.5], ["measured 2 times, one list after the other"]),
        ((2, 8), [-100, -100, -3.5, -3.5, 0, 0, 3.5, 3.5] * 2, ["2 times in a row", "2 times, one list after"]),
        ((8,), [-100, -3.5, 0, 3.5, -100, -3.5, 0, 3.5], ["measured 2 times, one list after the other"]),
    ],
)
def test_the_loops_of_the_images_say_what_is_repeated(
    tmp_path: Path, counts: tuple[int, ...], offsets: list[float], told: list[str]
) -> None:
    loops = [FrameGroup(f"FG_{i}", "", count) for i, count in enumerate(counts)]
    found = saturation_of(method_file(tmp_path), 300.0, math.prod(counts), loops=loops)
    assert found.protocol["offsets_ppm"] == offsets
    assert [words in note for words, note in zip(told, found.notes, strict=True)] == [True] * len(told)


def test_powers_and_reference_scans_follow_the_repeated_offsets(tmp_path: Path) -> None:
    loops = [FrameGroup("FG_REPETITION", "", 2), FrameGroup("FG_CYCLE", "", 4)]
    method = method_file(tmp_path, **MODULE_360, PVM_SatTransRefScan="Yes", Fp_SatPows="( 3 )\n1 2 3")
    protocol = saturation_of(method, 300.0, 8, loops=loops).protocol
    assert protocol["offsets_ppm"] == [300.0, 300.0, -3.5, -3.5, 0.0, 0.0, 3.5, 3.5]
    assert protocol["m0_measurements"] == [1, 2]
    share = (100 / 150) ** 0.5
    assert protocol["b1_uT"] == pytest.approx([0, 0, share, share, 2 * share, 2 * share, 3 * share, 3 * share])


@pytest.mark.parametrize(
    ("name", "text", "offsets"),
    [
        ("MT_Offsets_NoM0", "( 2 )\n-300 300", [-1.0, 1.0]),
        ("Cest_Offsets", "( 2 )\n-300 300", [-1.0, 1.0]),
        ("SatFreqList", "( 2 )\n-300 300", [-1.0, 1.0]),
        ("Fp_SatOffset", "( 2 )\n-1 1", [-1.0, 1.0]),
    ],
)
def test_lists_of_laboratories(tmp_path: Path, name: str, text: str, offsets: list[float]) -> None:
    assert saturation(tmp_path, 2, **{name: text, "PVM_MagTransFL": "( 1 )\n0"}).protocol["offsets_ppm"] == offsets


def test_powers_of_every_measurement(tmp_path: Path) -> None:
    assert saturation(tmp_path, 4, Fp_SatPows="( 4 )\n1 2 3 4").protocol["b1_uT"] == [1.0, 2.0, 3.0, 4.0]


def test_what_the_files_do_not_say_is_null(tmp_path: Path) -> None:
    protocol = saturation(tmp_path, PVM_MagTransPower=None, PVM_MagTransPulse1=None).protocol
    assert [key for key in ("b1_uT", "saturation_type", "saturation_time_s") if protocol[key] is None] == [
        "b1_uT",
        "saturation_type",
        "saturation_time_s",
    ]


def test_pulses_of_an_unknown_shape_leave_the_saturation_open(tmp_path: Path) -> None:
    protocol = saturation(tmp_path, PVM_MagTransPulse1Enum="<mine.exc>", PVM_MagTransPulsNumb="10").protocol
    assert (protocol["saturation_type"], protocol["pulse_shape"]) == (None, None)


def test_a_scan_without_saturation_has_no_offsets(tmp_path: Path) -> None:
    method = method_file(tmp_path, PVM_MagTransOnOff="Off")
    assert not is_saturated(method)
    assert saturation_of(method, 300.0, 4).protocol["offsets_ppm"] is None


@pytest.mark.parametrize(
    ("measurements", "larmor", "changes", "message"),
    [
        (5, 300.0, {}, "contradicts the images: PVM_MagTransFL has 4 offsets, but there are 5 measurements"),
        (4, None, {}, "PVM_MagTransFL is in Hz and no Larmor frequency is given"),
        (3, 300.0, {**MODULE_360, "PVM_SatTransFreqUnit": "other"}, "PVM_SatTransFreqValues has no unit"),
    ],
)
def test_contradictions_are_refused(
    tmp_path: Path, measurements: int, larmor: float | None, changes: dict[str, str | None], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        saturation_of(method_file(tmp_path, **changes), larmor, measurements)
