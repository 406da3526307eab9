"""DICOM series in the layouts of scanners: volumes in order, their place, offsets from beside or private elements."""

from __future__ import annotations

import re
import shutil
import struct
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from dicom_files import elements, place, series, write_classic, write_dicom, write_enhanced

from CESTQuantLib.formats.scanner.dicom_elements import read_elements
from CESTQuantLib.formats.scanner.sources import describe_scans, read_source

SIGNAL = np.random.default_rng(5).integers(1, 1000, (4, 3, 6, 5)).astype(np.float32)
"""Measurement, slice, row, column."""
OFFSETS = [-300.0, -3.5, 0.0, 3.5]


def offsets_file(folder: Path, name: str = "offsets.txt") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text("\n".join(f"{offset:g}" for offset in OFFSETS))
    return folder / name


@pytest.mark.parametrize("numbered", [True, False])
def test_one_volume_for_each_acquisition(tmp_path: Path, numbered: bool) -> None:
    write_classic(tmp_path / "dicom", SIGNAL, numbered=numbered)
    found, chosen = read_source(tmp_path / "dicom")
    np.testing.assert_array_equal(found.images.array, SIGNAL)
    expected = "acquisition number" if numbered else "image numbers"
    assert f"4 volumes are in the order of the {expected}" in found.notes[0]
    assert chosen == ()
    assert found.protocol is not None
    assert found.protocol["larmor_frequency_MHz"] == 123.2
    assert found.protocol["field_strength_T"] == pytest.approx(123.2 / 42.5764, rel=1e-5)
    assert found.protocol["offsets_ppm"] is None
    assert "no file says the offsets" in found.notes[-1]


@pytest.mark.parametrize(
    ("frequency", "field", "expected", "told"),
    [
        ("123200000", "3", (2.8936, 123.2), "ImagingFrequency is 123200000, .*: it is taken to be in Hz, 123.2 MHz"),
        ("", "30000", (3.0, None), "MagneticFieldStrength is 30000, .*: it is taken to be in gauss, 3 T"),
        ("123200", "3", (3.0, None), "ImagingFrequency is 123200, which no magnet has in MHz, and is not used"),
        ("51.7", "3", (1.2143, 51.7), "ImagingFrequency is that of 1.214 T but MagneticFieldStrength is 3 T"),
        ("0", "0", (None, None), "no file says the offsets"),
    ],
)
def test_fields_that_no_magnet_has_are_told(
    tmp_path: Path, frequency: str, field: str, expected: tuple[float | None, float | None], told: str
) -> None:
    write_classic(tmp_path, SIGNAL, {(0x0018, 0x0084): ("DS", frequency), (0x0018, 0x0087): ("DS", field)})
    found, _ = read_source(tmp_path)
    assert found.protocol is not None
    protocol = found.protocol
    for value, of_file in zip((protocol["field_strength_T"], protocol["larmor_frequency_MHz"]), expected, strict=True):
        assert value == (of_file if of_file is None else pytest.approx(of_file, rel=1e-4))
    assert [note for note in found.notes if re.search(told, note)]


def test_a_single_volume_is_an_image_unless_offsets_are_given(tmp_path: Path) -> None:
    write_classic(tmp_path / "dicom", SIGNAL[:1])
    found, _ = read_source(tmp_path / "dicom")
    assert found.protocol is None
    assert found.notes[-1] == "no saturation was found, so this is an image: with --offsets it becomes a CEST signal"
    found, _ = read_source(tmp_path / "dicom", offsets=[3.5])
    assert found.protocol is not None
    assert found.protocol["offsets_ppm"] == [3.5]


def test_the_place_is_that_of_dicom(tmp_path: Path) -> None:
    """Slices are stacked along their normal, which for these sagittal rows and columns points to the right, -L."""
    write_classic(tmp_path / "dicom", SIGNAL)
    images = read_source(tmp_path / "dicom")[0].images
    np.testing.assert_allclose(images.ijk_to_lps, [[0, 0, -3, -10], [1.5, 0, 0, -20], [0, -2, 0, 30], [0, 0, 0, 1]])
    itk = sitk.ReadImage(sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(tmp_path / "dicom"))[0])
    np.testing.assert_allclose(np.array(itk.GetSpacing())[:2], np.linalg.norm(images.ijk_to_lps[:3, :2], axis=0))


def test_multi_frame_files_with_a_slope_for_each_frame(tmp_path: Path) -> None:
    slopes = [1.0, 0.5, 2.0, 0.25]
    write_enhanced(tmp_path / "enhanced.dcm", SIGNAL, slopes=slopes)
    found, _ = read_source(tmp_path / "enhanced.dcm")
    np.testing.assert_array_equal(found.images.array, SIGNAL * np.reshape(slopes, (4, 1, 1, 1)))
    np.testing.assert_allclose(found.images.ijk_to_lps[:3, 2], [-3, 0, 0])
    assert "in the order of the temporal position" in found.notes[0]


def test_a_multi_frame_file_for_each_measurement(tmp_path: Path) -> None:
    for m, volume in enumerate(SIGNAL):
        more = {(0x0020, 0x0013): ("IS", m + 1), (0x0020, 0x0012): ("IS", m + 1)}
        write_enhanced(tmp_path / "dicom" / f"{9 - m}.dcm", volume[None], slopes=[1.0], more=more)
    np.testing.assert_array_equal(read_source(tmp_path / "dicom")[0].images.array, SIGNAL)


def test_philips_display_scaling_is_undone(tmp_path: Path) -> None:
    """Measured value = (stored * slope + intercept) / (slope * private slope); display slopes differ between images."""
    for m, volume in enumerate(SIGNAL):
        more = {
            (0x0028, 0x1053): ("DS", 2.0 + m),
            (0x0028, 0x1052): ("DS", 0),
            (0x2005, 0x100E): ("FL", 0.5),
            (0x0020, 0x0100): ("IS", m + 1),
        }
        for k, image in enumerate(volume):
            write_dicom(
                tmp_path / "dicom" / f"{m}-{k}", {**series(manufacturer="Philips"), **place(k), **more}, image[None]
            )
    np.testing.assert_allclose(read_source(tmp_path / "dicom")[0].images.array, SIGNAL / 0.5)


@pytest.mark.parametrize("slope", [None, 4.0])
def test_philips_display_scaling_of_compressed_images_is_undone(tmp_path: Path, slope: float | None) -> None:
    pixels = np.random.default_rng(1).integers(0, 1000, (2, 64, 64)).astype(np.uint16)
    for m, private in enumerate([0.5, 0.25]):
        path = compressed(tmp_path / f"{m}.dcm", pixels[m], {"0020|0012": str(m + 1), "0008|0070": "Philips"})
        shown = {} if slope is None else {(0x0028, 0x1052): ("DS", "0"), (0x0028, 0x1053): ("DS", f"{slope:g}")}
        added = elements({**shown, (0x2005, 0x100E): ("FL", private)})
        content = path.read_bytes()
        place_of_pixels = content.rindex(bytes([0xE0, 0x7F, 0x10, 0x00]))
        path.write_bytes(content[:place_of_pixels] + added + content[place_of_pixels:])
    found = read_source(tmp_path)[0].images.array[:, 0]
    np.testing.assert_allclose(found, pixels / np.reshape([0.5, 0.25], (2, 1, 1)), rtol=1e-6)


@pytest.mark.parametrize("implicit", [True, False])
def test_private_sequences_of_an_unknown_type_are_read(tmp_path: Path, implicit: bool) -> None:
    """Anonymisers write the private sequence of Philips as UN, with the elements in it implicit as a rule."""
    slopes = [0.5, 0.25, 2.0, 1.0]

    def item(slope: float) -> bytes:
        if not implicit:
            return elements({(0x2005, 0x100E): ("FL", slope)})
        return struct.pack("<HHIf", 0x2005, 0x100E, 4, slope)

    def private(slope: float) -> bytes:
        return struct.pack("<HHI", 0xFFFE, 0xE000, len(item(slope))) + item(slope)

    of_frame = [{(0x2005, 0x140F): ("UN", private(slope))} for slope in slopes]
    path = tmp_path / "a.dcm"
    write_enhanced(path, SIGNAL, slopes=[1.0] * 4, of_frame=of_frame, more=series(manufacturer="Philips"))
    np.testing.assert_allclose(read_source(path)[0].images.array, SIGNAL / np.reshape(slopes, (4, 1, 1, 1)))


def test_offsets_beside_the_images(tmp_path: Path) -> None:
    write_classic(tmp_path / "dicom", SIGNAL)
    offsets_file(tmp_path / "dicom")
    found, _ = read_source(tmp_path / "dicom")
    assert found.protocol is not None
    assert found.protocol["offsets_ppm"] == OFFSETS
    assert "offsets.txt" in found.notes[-1]


@pytest.fixture
def two_series(tmp_path: Path) -> Path:
    """A study with series 5 in the folder ``aptw`` and series 6 in ``wassr``."""
    for number, folder in ((5, "aptw"), (6, "wassr")):
        write_classic(tmp_path / "study" / folder, SIGNAL, series(f"cest_{folder}", number))
    return tmp_path / "study"


def test_the_list_beside_the_images_of_a_series_is_that_of_this_series(two_series: Path) -> None:
    lists = {"5": OFFSETS, "6": [-300.0, -1.0, 0.0, 1.0]}
    for folder, offsets in zip(("aptw", "wassr"), lists.values(), strict=True):
        (two_series / folder / "offsets.txt").write_text(" ".join(map(str, offsets)))
    for number, offsets in lists.items():
        found, _ = read_source(two_series, number)
        assert found.protocol is not None
        assert found.protocol["offsets_ppm"] == offsets


@pytest.mark.parametrize("folder", ["aptw", "."])
def test_a_list_beside_the_images_of_another_series_is_told_and_not_used(two_series: Path, folder: str) -> None:
    for path in list((two_series / "aptw").iterdir()):
        path.rename(two_series / folder / path.name)
    name = offsets_file(two_series / folder).relative_to(two_series)
    found, _ = read_source(two_series, "6")
    assert found.protocol is not None
    assert found.protocol["offsets_ppm"] is None
    assert found.notes[-1].endswith(f"; beside images of other series, and not used: {name}")


@pytest.mark.parametrize("folder", [".", "lists"])
def test_a_list_that_is_not_beside_other_images_is_used(two_series: Path, folder: str) -> None:
    """It may lie above the folders of the images, as a DICOMDIR does, or in a folder of its own."""
    write_dicom(two_series / "DICOMDIR", {}, SIGNAL[0, :1])
    offsets_file(two_series / folder)
    found, _ = read_source(two_series, "6")
    assert found.protocol is not None
    assert found.protocol["offsets_ppm"] == OFFSETS


@pytest.mark.parametrize("folder", ["wassr", "lists"])
def test_several_lists_of_a_series_are_named(two_series: Path, folder: str) -> None:
    for name, offsets in (("offsets.txt", "1 2"), ("LIST.txt", "3 4")):
        (two_series / folder).mkdir(exist_ok=True)
        (two_series / folder / name).write_text(offsets)
    with pytest.raises(
        ValueError, match=rf"several lists of offsets \({folder}/LIST.txt, {folder}/offsets.txt\): give"
    ):
        read_source(two_series, "6")


def test_a_list_in_a_copy_of_the_folder_is_the_same_list(tmp_path: Path) -> None:
    write_classic(tmp_path / "dicom", SIGNAL)
    offsets_file(tmp_path / "dicom")
    shutil.copytree(tmp_path / "dicom", tmp_path / "dicom - copy")
    found, _ = read_source(tmp_path)
    assert found.protocol is not None
    assert found.protocol["offsets_ppm"] == OFFSETS


def test_a_pulseq_file_is_looked_for_beside_the_images_of_its_series(two_series: Path) -> None:
    from CESTQuantLib.formats.pulseq.write import write_seq
    from CESTQuantLib.physics.protocol import Protocol

    for folder, b1_uT in (("aptw", 2.0), ("wassr", 0.5)):
        played = Protocol(3.0, OFFSETS, b1_uT=b1_uT, saturation_time_s=1.0, recovery_time_s=1.0)
        write_seq(played, two_series / folder / f"{folder}.seq")
    found, _ = read_source(two_series, "6")
    assert found.protocol is not None
    assert found.protocol["b1_uT"] == pytest.approx(0.5, rel=1e-3)


def test_given_offsets_count(tmp_path: Path) -> None:
    write_classic(tmp_path / "dicom", SIGNAL)
    found, _ = read_source(tmp_path / "dicom", offsets=[-1.0, 1.0])
    assert found.protocol is not None
    assert found.protocol["offsets_ppm"] == [-1.0, 1.0, -1.0, 1.0]
    assert "the 2 offsets of the given list are taken as measured 2 times, one list after the other" in found.notes
    for wrong in ([-1.0, 0.0, 1.0], []):
        with pytest.raises(ValueError, match=rf"the given list has {len(wrong)} offsets but the series has 4 volumes"):
            read_source(tmp_path / "dicom", offsets=wrong)


def test_a_pulseq_file_beside_the_images_is_the_protocol(tmp_path: Path) -> None:
    from CESTQuantLib.formats.pulseq.write import write_seq
    from CESTQuantLib.physics.protocol import Protocol

    played = Protocol(3.0, OFFSETS, b1_uT=2.0, saturation_time_s=1.0, recovery_time_s=1.0, readout_flip_angle_deg=90.0)
    write_classic(tmp_path / "dicom", SIGNAL)
    write_seq(played, tmp_path / "dicom" / "apt.seq")
    found, _ = read_source(tmp_path / "dicom")
    assert found.protocol is not None
    np.testing.assert_allclose(found.protocol["offsets_ppm"], OFFSETS, atol=1e-3)
    assert found.protocol["b1_uT"] == pytest.approx(2.0, rel=1e-3)
    assert "the protocol is that of" in found.notes[1]
    write_seq(replace(played, b1_uT=played.b1_uT / 2), tmp_path / "dicom" / "other.seq")
    with pytest.raises(ValueError, match=r"several pulseq files \(apt.seq, other.seq\)"):
        read_source(tmp_path / "dicom")


@pytest.mark.parametrize(
    ("sampling", "offsets"),
    [(1, [-300, -4, 0, 4]), (2, [-300, 4, -4, 0]), (3, OFFSETS), (4, [-300, 4, 4, 4])],
)
def test_offsets_of_a_private_element(tmp_path: Path, sampling: int, offsets: list[float]) -> None:
    """Sequences CEST_Rev… of the DKFZ write kind and range of their offsets into Siemens' measurement protocol."""
    protocol = (
        'tSequenceFileName = "%CustomerSeq%\\CEST_Rev1522"\n'
        f"sWipMemBlock.alFree[7] = {sampling}\nsWipMemBlock.alFree[9] = 4\nsWipMemBlock.adFree[1] = 4.0\n"
    )
    text = f"binary\0### ASCCONV BEGIN ###\n{protocol}### ASCCONV END ###\0"
    write_classic(tmp_path / "dicom", SIGNAL, {(0x0029, 0x1020): ("OB", text.encode())})
    if sampling == 3:
        offsets_file(tmp_path / "dicom", "LIST.txt")
    found = read_source(tmp_path / "dicom")[0]
    assert found.protocol is not None
    assert found.protocol["offsets_ppm"] == offsets
    assert "private elements" in found.notes[-1]


@pytest.mark.parametrize("manufacturer", ["Philips Medical Systems", "GE MEDICAL SYSTEMS"])
def test_finished_maps_are_percent(tmp_path: Path, manufacturer: str) -> None:
    scaled = {
        (0x0008, 0x0008): ("CS", "DERIVED\\SECONDARY\\APTW"),
        (0x0028, 0x1053): ("DS", 0.02),
        (0x0028, 0x1052): ("DS", -10),
        (0x2005, 0x100E): ("FL", 3.0),
    }
    for k, image in enumerate(SIGNAL[0]):
        write_dicom(tmp_path / f"{k}.dcm", {**series("APTw map", 9, manufacturer), **place(k), **scaled}, image[None])
    found, _ = read_source(tmp_path)
    assert found.is_aptw_percent
    assert found.protocol is None
    np.testing.assert_allclose(found.images.array[0], SIGNAL[0] * 0.02 - 10, rtol=1e-5)
    assert "taken as percent" in found.notes[0]


def test_a_map_that_cannot_be_percent_is_told(tmp_path: Path) -> None:
    for k, image in enumerate(SIGNAL[0]):
        write_dicom(tmp_path / f"{k}.dcm", {**series("APTw", 9), **place(k)}, image[None])
    found, _ = read_source(tmp_path)
    assert not found.is_aptw_percent
    assert "are no percent" in found.notes[0]


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
    offsets_file(tmp_path)
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


@pytest.mark.parametrize("identified", [True, False])
def test_a_copy_of_the_files_is_read_once(tmp_path: Path, identified: bool) -> None:
    """Images that an anonymiser gave one and the same UID are no copies."""
    write_classic(tmp_path / "dicom", SIGNAL, {(0x0008, 0x0018): ("UI", "1.2.3.4")} if identified else None)
    shutil.copytree(tmp_path / "dicom", tmp_path / "dicom - copy")
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


@pytest.mark.parametrize("offsets", [None, OFFSETS])
def test_several_volumes_that_are_called_like_a_map_are_an_acquisition(
    tmp_path: Path, offsets: list[float] | None
) -> None:
    write_classic(tmp_path, SIGNAL, {**series("APTw_2uT"), (0x0008, 0x0008): ("CS", "DERIVED\\PRIMARY\\M\\DIS3D")})
    found, _ = read_source(tmp_path, offsets=offsets)
    np.testing.assert_array_equal(found.images.array, SIGNAL)
    assert found.protocol is not None
    assert found.protocol["offsets_ppm"] == offsets
    assert any("taken as an acquisition of 4 volumes" in note for note in found.notes)


def test_a_volume_that_is_called_like_a_map_is_a_measurement_with_offsets(tmp_path: Path) -> None:
    write_classic(tmp_path, SIGNAL[:1], series("amide"))
    assert read_source(tmp_path)[0].protocol is None
    found, _ = read_source(tmp_path, offsets=[3.5])
    assert found.protocol is not None
    assert found.protocol["offsets_ppm"] == [3.5]


def write_moving_slice(folder: Path, along_mm: float, across_mm: float) -> np.ndarray:
    """Write one slice six times that moves from image to image along its normal and in its plane; return the images."""
    images = np.arange(6 * 30).reshape(6, 1, 6, 5)
    for m, image in enumerate(images):
        position = {(0x0020, 0x0032): ("DS", f"{-10 - along_mm * m:g}\\{-20 - across_mm * m:g}\\30")}
        write_dicom(folder / f"{m}.dcm", {**series(), **place(0), **position, (0x0020, 0x0013): ("IS", m)}, image)
    return images


def test_a_slice_that_drifts_a_little_is_one_slice(tmp_path: Path) -> None:
    """A scanner that follows the motion of the patient moves the slices along."""
    images = write_moving_slice(tmp_path, along_mm=0.006, across_mm=0.0)
    found, _ = read_source(tmp_path)
    np.testing.assert_array_equal(found.images.array, images)
    assert any("lie up to 0.03 mm apart" in note for note in found.notes)


def test_a_slice_that_moves_far_is_refused(tmp_path: Path) -> None:
    write_moving_slice(tmp_path, along_mm=0.0, across_mm=1.0)
    with pytest.raises(ValueError, match="shifted against each other by up to 5 mm"):
        read_source(tmp_path)


def test_several_series_are_listed(tmp_path: Path) -> None:
    write_classic(tmp_path / "dicom", SIGNAL)
    for number, name in ((2, "t1_mprage"), (3, "t2_flair")):
        write_dicom(tmp_path / "dicom" / name, {**series(name, number), **place(0)}, SIGNAL[0, :1])
    (tmp_path / "dicom" / "notes.txt").write_text("no image")
    assert describe_scans(tmp_path / "dicom") == [
        "2: t1_mprage (SIEMENS, 1 images)",
        "3: t2_flair (SIEMENS, 1 images)",
        "5: cest (SIEMENS, 12 images)",
    ]
    found, chosen = read_source(tmp_path / "dicom")
    assert found.name == "5"
    assert "only one that is called after CEST" in chosen[0]
    assert read_source(tmp_path / "dicom", "t2_flair")[0].protocol is None
    with pytest.raises(ValueError, match="has no series 8; its series are 2: t1_mprage"):
        read_source(tmp_path / "dicom", "8")


def test_a_series_for_each_measurement_is_joined(tmp_path: Path) -> None:
    for m, volume in enumerate(SIGNAL):
        write_classic(tmp_path / "dicom" / str(m), volume[None], series("pulseq", 9 + m))
    with pytest.raises(ValueError, match="has 4 series; choose one with --scan: 9: pulseq"):
        read_source(tmp_path / "dicom")
    found, chosen = read_source(tmp_path / "dicom", "9-12")
    np.testing.assert_array_equal(found.images.array, SIGNAL)
    assert chosen == ("4 series are joined in the order of their numbers: 9-12",)


def test_a_scanner_of_another_field_than_the_pulseq_file_is_told(tmp_path: Path) -> None:
    from CESTQuantLib.formats.pulseq.write import write_seq
    from CESTQuantLib.physics.protocol import Protocol

    played = Protocol(3.0, OFFSETS, b1_uT=2.0, saturation_time_s=1.0, recovery_time_s=1.0, readout_flip_angle_deg=90.0)
    for field, larmor_MHz in ((3, 127.73), (2.9, 123.25), (7, 297.2)):
        folder = tmp_path / str(field)
        magnet = {(0x0018, 0x0084): ("DS", f"{larmor_MHz}"), (0x0018, 0x0087): ("DS", f"{field}")}
        write_classic(folder, SIGNAL, magnet)
        write_seq(played, folder / "apt.seq")
    notes = {field: [n for n in read_source(tmp_path / str(field))[0].notes if "T but" in n] for field in (3, 2.9, 7)}
    assert notes[3] == []
    assert "was written for 3 T but the images are from a scanner of 2.895 T" in notes[2.9][0]
    assert "the offsets in ppm are 3.6 % larger" in notes[2.9][0]
    assert "57.0 % smaller" in notes[7][0]


def test_images_of_another_orientation_are_named(tmp_path: Path) -> None:
    write_classic(tmp_path / "dicom", SIGNAL)
    turned = {**series(), **place(0), (0x0020, 0x0037): ("DS", "1\\0\\0\\0\\1\\0")}
    write_dicom(tmp_path / "dicom" / "zz.dcm", turned, SIGNAL[0, :1])
    with pytest.raises(ValueError, match=r"zz\.dcm' have different orientations or voxel sizes: leave out the series"):
        read_source(tmp_path / "dicom")


def test_incomplete_series_are_refused(tmp_path: Path) -> None:
    write_classic(tmp_path / "dicom", SIGNAL)
    next((tmp_path / "dicom").iterdir()).unlink()
    with pytest.raises(ValueError, match="is incomplete: its 3 slices have 3 to 4 images"):
        read_source(tmp_path / "dicom")


def test_a_missing_slice_is_refused(tmp_path: Path) -> None:
    for k in (0, 1, 3):
        write_dicom(tmp_path / f"{k}.dcm", {**series(), **place(k)}, SIGNAL[0, :1])
    with pytest.raises(ValueError, match="do not have equal distances"):
        read_source(tmp_path)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({(0x0008, 0x0008): ("CS", "ORIGINAL\\PRIMARY\\M\\MOSAIC")}, "is a mosaic"),
        ({(0x0028, 0x0002): ("US", 3)}, "is a coloured picture"),
        ({(0x0020, 0x0032): ("DS", "a\\b\\c")}, "has no numbers"),
        ({(0x0020, 0x0032): ("DS", "inf\\0\\0")}, "has no numbers"),
        ({(0x0020, 0x0032): ("DS", "")}, "does not say where its images lie"),
        ({(0x0028, 0x0010): ("US", 600)}, "is cut off: its pixels have"),
        ({(0x0028, 0x0100): ("US", 12)}, "has 12 bits a voxel"),
        ({(0x0028, 0x0008): ("IS", 3)}, "has 3 frames without their places"),
    ],
)
def test_unusable_files_are_named(tmp_path: Path, more: dict, message: str) -> None:
    write_dicom(tmp_path / "a.dcm", {**series(), **place(0), **more}, SIGNAL[0, :1])
    with pytest.raises(ValueError, match=message):
        read_source(tmp_path)


def test_cut_off_files_are_named(tmp_path: Path) -> None:
    path = write_enhanced(tmp_path / "a.dcm", SIGNAL, slopes=[1.0] * 4)
    content = path.read_bytes()
    for length in range(132, len(content), 97):
        path.write_bytes(content[:length])
        with pytest.raises(ValueError, match=r"a.dcm|no DICOM images"):
            read_source(tmp_path)


def compressed(path: Path, pixels: np.ndarray, more: dict[str, str]) -> Path:
    """Write one image (row, column) as GDCM does: compressed pixels, and no sequences."""
    image = sitk.GetImageFromArray(pixels[None])
    tags = {"0008|0060": "MR", "0020|000e": "1.2.3", "0020|0032": "1\\2\\3", "0020|0037": "1\\0\\0\\0\\1\\0"}
    for tag, value in {**tags, **more}.items():
        image.SetMetaData(tag, value)
    writer = sitk.ImageFileWriter()
    writer.KeepOriginalImageUIDOn()
    writer.SetFileName(str(path))
    writer.UseCompressionOn()
    writer.SetCompressor("JPEG2000")
    writer.Execute(image)
    return path


def test_elements_of_other_writers_are_read(tmp_path: Path) -> None:
    pixels = np.random.default_rng(1).integers(0, 1000, (1, 64, 64)).astype(np.uint16)
    compressed(tmp_path / "itk.dcm", pixels[0], {})
    assert read_elements(tmp_path / "itk.dcm").plain_byte_order is None
    found, _ = read_source(tmp_path)
    np.testing.assert_array_equal(found.images.array[0], pixels)
