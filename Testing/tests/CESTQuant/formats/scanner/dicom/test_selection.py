"""Which images of a DICOM series are read: magnitudes of one echo, and each of them once."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from dicom_files import OFFSETS, SIGNAL, place, series, write_classic, write_dicom, write_enhanced, write_offsets

from CESTQuantLib.formats.scanner.sources import describe_scans, read_source


def test_phase_images_are_left_out(tmp_path: Path) -> None:
    write_classic(tmp_path / "dicom", SIGNAL)
    phase = {**series(), **place(0), (0x0008, 0x0008): ("CS", "ORIGINAL\\PRIMARY\\P"), (0x0020, 0x0013): ("IS", 99)}
    write_dicom(tmp_path / "dicom" / "phase.dcm", phase, SIGNAL[0, :1])
    found, _ = read_source(tmp_path / "dicom")
    np.testing.assert_array_equal(found.images.array, SIGNAL)
    assert "1 phase, real or imaginary images were left out" in found.notes


def test_magnitudes_of_ge_are_told_from_their_private_element(tmp_path: Path) -> None:
    """GE writes magnitude, phase, real and imaginary part into one series, with equal words of the image type."""
    private = {**series(manufacturer="GE MEDICAL SYSTEMS"), (0x0043, 0x0010): ("LO", "GEMS_PARM_01")}
    for m, volume in enumerate(SIGNAL):
        for kind in range(4):
            own = {(0x0020, 0x0013): ("IS", 4 * m + kind), (0x0043, 0x102F): ("SS", kind)}
            write_dicom(tmp_path / f"{m}-{kind}", {**private, **place(0), **own}, volume[:1] * 0 + 100 * m + kind)
    found, _ = read_source(tmp_path, offsets=OFFSETS)
    np.testing.assert_array_equal(found.images.array[:, 0, 0, 0], [0, 100, 200, 300])
    assert "12 phase, real or imaginary images were left out" in found.notes


def test_the_component_of_a_multi_frame_image_is_read(tmp_path: Path) -> None:
    kinds = ["MAGNITUDE", "PHASE", "MAGNITUDE", "PHASE"]
    of_frame = [{(0x0018, 0x9226): ("SQ", [{(0x0008, 0x9208): ("CS", kind)}])} for kind in kinds]
    path = write_enhanced(tmp_path / "a.dcm", SIGNAL, slopes=[1.0] * 4, of_frame=of_frame)
    np.testing.assert_array_equal(read_source(path)[0].images.array, SIGNAL[::2])


def write_echoes(folder: Path, measurements: int, times_ms: tuple[float, ...] = (5.0, 10.0)) -> np.ndarray:
    """Write several echoes of every measurement, in the order in which they were acquired, and return the images."""
    signal = np.arange(measurements * len(times_ms) * 2 * 30).reshape(measurements, len(times_ms), 2, 6, 5)
    for number, (m, e, k) in enumerate(np.ndindex(*signal.shape[:3])):
        own = {
            (0x0020, 0x0012): ("IS", m + 1),
            (0x0020, 0x0013): ("IS", number),
            (0x0018, 0x0086): ("IS", e + 1),
            (0x0018, 0x0081): ("DS", times_ms[e]),
        }
        write_dicom(folder / f"{number}.dcm", {**series(), **place(k), **own}, signal[m, e, k][None])
    return signal


def test_of_several_echoes_the_first_is_taken(tmp_path: Path) -> None:
    signal = write_echoes(tmp_path, measurements=4)
    write_offsets(tmp_path)
    found, _ = read_source(tmp_path)
    np.testing.assert_array_equal(found.images.array, signal[:, 0])
    assert found.protocol is not None
    assert found.protocol["offsets_ppm"] == OFFSETS
    assert any("every measurement has 2 echoes (5 ms, 10 ms): the first one was taken" in note for note in found.notes)


def test_echoes_of_multi_frame_files_are_told_apart(tmp_path: Path) -> None:
    of_frame = [
        {
            (0x0020, 0x9111): ("SQ", [{(0x0020, 0x9128): ("UL", 1 + frame // 2)}]),
            (0x0018, 0x9114): ("SQ", [{(0x0018, 0x9082): ("FD", 5.0 + 5 * (frame % 2))}]),
        }
        for frame in range(4)
    ]
    path = write_enhanced(tmp_path / "a.dcm", SIGNAL, slopes=[1.0] * 4, of_frame=of_frame)
    np.testing.assert_array_equal(read_source(path, offsets=[-3.5, 3.5])[0].images.array, SIGNAL[::2])


def test_echoes_that_were_measured_once_are_images_for_a_t2_map(tmp_path: Path) -> None:
    signal = write_echoes(tmp_path, measurements=1, times_ms=(30.0, 10.0, 20.0))
    found, _ = read_source(tmp_path)
    np.testing.assert_array_equal(found.images.array, signal[0, [1, 2, 0]])
    assert found.protocol is None
    assert "the echo times in ms are 10 20 30" in found.notes
    found, _ = read_source(tmp_path, offsets=[3.5])
    np.testing.assert_array_equal(found.images.array, signal[:, 1])


def test_echo_numbers_of_one_echo_time_are_told(tmp_path: Path) -> None:
    write_echoes(tmp_path, measurements=2, times_ms=(5.0, 5.0))
    found, _ = read_source(tmp_path)
    assert len(found.images.array) == 4
    assert any("several echo numbers but the same echo time" in note for note in found.notes)


def test_a_volume_with_an_echo_time_of_its_own_stays_a_measurement(tmp_path: Path) -> None:
    for m, volume in enumerate(SIGNAL):
        time = {(0x0018, 0x0081): ("DS", 5 if m else 4), (0x0020, 0x0012): ("IS", m)}
        write_dicom(tmp_path / f"{m}.dcm", {**series(), **place(0), **time}, volume[:1])
    found, _ = read_source(tmp_path)
    np.testing.assert_array_equal(found.images.array, SIGNAL[:, :1])
    assert any(
        "unequal numbers of images" in note and "4 ms (1 images), 5 ms (3 images)" in note for note in found.notes
    )


@pytest.mark.parametrize("uids", [("1.2.3.4", "1.2.3.4"), ("1.2.3.4", "1.2.3.5"), ("", "")])
def test_a_copy_of_the_files_is_read_once(tmp_path: Path, uids: tuple[str, str]) -> None:
    """Images that an anonymiser gave one and the same UID are no copies; those that it gave two UIDs are."""
    for folder, uid in zip(("dicom", "dicom - copy"), uids, strict=True):
        write_classic(tmp_path / folder, SIGNAL, {(0x0008, 0x0018): ("UI", uid)})
    assert describe_scans(tmp_path) == ["5: cest (SIEMENS, 12 images)"]
    found, _ = read_source(tmp_path)
    np.testing.assert_array_equal(found.images.array, SIGNAL)
    assert any("12 files repeat others and were left out, such as" in note for note in found.notes)


def test_a_copy_with_other_pixels_is_refused(tmp_path: Path) -> None:
    image = {**series(), **place(0), (0x0008, 0x0018): ("UI", "1.2.3.4")}
    write_dicom(tmp_path / "a.dcm", image, SIGNAL[0, :1])
    write_dicom(tmp_path / "b.dcm", image, SIGNAL[1, :1])
    with pytest.raises(ValueError, match=r"a\.dcm' and '.*b\.dcm' say that they are the same image but have different"):
        read_source(tmp_path)


def test_images_with_the_same_pixels_at_another_time_are_no_copies(tmp_path: Path) -> None:
    """Slices beyond the head can be empty in every volume, and image numbers can restart in every volume."""
    for m, time in enumerate((100000, 100010)):
        own = {(0x0008, 0x0018): ("UI", f"1.2.{m}"), (0x0008, 0x0032): ("TM", time), (0x0020, 0x0013): ("IS", 1)}
        write_dicom(tmp_path / f"{m}.dcm", {**series(), **place(0), **own}, np.zeros((1, 6, 5)))
    assert len(read_source(tmp_path)[0].images.array) == 2
