"""Text files of offsets: how people and programs write them, their units, and what cannot be read."""

from __future__ import annotations

from pathlib import Path

import pytest
from arbitrary_values import one_line

from CESTQuantLib.formats.offset_lists import read_offsets
from CESTQuantLib.formats.protocol_files import read_protocol


def test_offsets_file_with_comments_blank_lines_and_commas(tmp_path: Path) -> None:
    path = tmp_path / "offsets.txt"
    path.write_text("# ppm\n-3.5\n\n0, 1.5  # two on a line\n3.5e0\n")
    assert read_offsets(path).tolist() == [-3.5, 0.0, 1.5, 3.5]
    protocol = read_protocol(path)
    assert protocol.saturation_time_s.tolist() == [0.0] * 4


@pytest.mark.parametrize(
    "content",
    [
        "\ufeff-3.5\n0\n3.5\n",  # byte-order mark
        "offset_ppm\n-3.5\n0\n3.5\n",
        "offset_ppm,exchange_kHz\n-3.5,1\n0,1\n3.5,1\n",
        '"offset (ppm)"\r\n-3.5\r\n0\r\n3.5\r\n',
        "offsets ppm\n-3.5 0 3.5\n",
        "index,offset_ppm\n1,-3.5\n2,0\n3,3.5\n",
        "B1_uT;offset\n2;-3.5\n2;0\n2;3.5\n",
        "\u22123.5\n0\n3.5\n",  # typographic minus
        "-3.5; 0; 3.5",
        ",offset_ppm\n0,-3.5\n1,0\n2,3.5\n",  # a first column without a name
        "\toffset_ppm\n0\t-3.5\n1\t0\n2\t3.5\n",
        "Nr;Offset, ppm;Remark\n1;-3.5;\n2;0;water\n3;3.5;;\n",
        "index, offset_ppm\n1 -3.5\n2 0\n3 3.5\n",
    ],
)
def test_offsets_are_read_as_spreadsheets_and_editors_write_them(tmp_path: Path, content: str) -> None:
    for name, encoding in (("offsets.txt", "utf-8"), ("OFFSETS.CSV", "utf-8"), ("utf16.txt", "utf-16")):
        path = tmp_path / name
        path.write_bytes(content.encode(encoding))
        assert read_offsets(path).tolist() == [-3.5, 0.0, 3.5]


@pytest.mark.parametrize(
    "content",
    [
        "300,0\n-3,5\n0,0\n3,5\n",
        "# 2 uT\nOffset (ppm)\n300\n-3,5\n0\n3,5\n",
        "300 -3,5 0 3,5\n",
        "300; -3,5; 0; 3,5\n",
        "Nr;Offset (ppm)\n1;300\n2;-3,5\n3;0\n4;3,5\n",
        "Nr\tOffset (ppm)\n1\t300\n2\t-3,5\n3\t0,0\n4\t3,5e0\n",
        "B1;Offset, ppm\n2.0;300\n2.0;-3,5\n2.0;0\n2.0;3,5\n",
        '"300,0"\n"-3,5"\n"0,0"\n"3,5"\n',
    ],
)
def test_decimal_commas_are_read_and_told(tmp_path: Path, content: str) -> None:
    path = tmp_path / "offsets.csv"
    path.write_text(content)
    with pytest.warns(UserWarning, match=r"offsets\.csv: commas are read as decimal signs, so that (300,0|-3,5) is"):
        assert read_offsets(path).tolist() == [300.0, -3.5, 0.0, 3.5]


@pytest.mark.parametrize(
    "content", ["3,-3\n5,-5\n", "3, -3\n5, -5\n", "3,-3,5,-5", "3,\n-3,\n5,-5\n", "3,-3.0\n5\n-5\n"]
)
def test_commas_that_are_not_all_within_numbers_separate_offsets(tmp_path: Path, content: str) -> None:
    path = tmp_path / "offsets.txt"
    path.write_text(content)
    assert read_offsets(path).tolist() == [3.0, -3.0, 5.0, -5.0]


@pytest.mark.parametrize(
    "content", ["Nr;Offset\n1;300\n2\n", "Nr,Offset\n1,300\n2,-3,5\n", "Nr,B1,Offset\n1,300\n2,3\n", "a;ppm\n1;2;3\n"]
)
def test_a_row_with_other_cells_than_the_header_is_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "table.csv"
    path.write_text(content)
    with pytest.raises(ValueError, match=r"table\.csv: line \d has \d cells but the header has \d; correct the row"):
        read_offsets(path)


@pytest.mark.parametrize(
    "content",
    [
        "1 300\n2 -3.5\n3 0\n",
        "0,300.0\n1,-3.5\n",
        "1;300;2\n2;-3,5;2\n",
        "# index offset\n1\t300\n2\t-3.5\n",
        "# offset_ppm, b1_uT\n300 0\n-3.5 2\n",
        "% offset_ppm; b1_uT\n300; 0\n-3.5; 2\n",
        "# saturation offset (ppm), B1 [uT]\n300 0\n-3.5 2\n",
        "# offset in ppm, peak B1 uT\n300 0\n-3.5 2\n",
    ],
)
@pytest.mark.filterwarnings("ignore:.*commas are read as decimal signs")
def test_rows_that_may_be_those_of_a_table_without_header_are_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "offsets.txt"
    path.write_text(content)
    with pytest.raises(
        ValueError, match=r"offsets\.txt: rows of [23] numbers .* first line, such as 'index offset_ppm'"
    ):
        read_offsets(path)


@pytest.mark.parametrize(
    "sentence",
    ["offsets in ppm, APT protocol", "offsets in ppm, from water to fat", "APT of the brain; offsets in ppm"],
)
def test_a_sentence_about_the_offsets_does_not_make_their_rows_a_table(tmp_path: Path, sentence: str) -> None:
    path = tmp_path / "offsets.txt"
    path.write_text(f"# {sentence}\n3.5 -3.5\n4 -4\n")
    assert read_offsets(path).tolist() == [3.5, -3.5, 4.0, -4.0]


def test_a_header_without_comment_mark_names_the_columns_of_a_table(tmp_path: Path) -> None:
    path = tmp_path / "offsets.txt"
    path.write_text("index offset_ppm\n1 300\n2 -3.5\n")
    assert read_offsets(path).tolist() == [300.0, -3.5]


@pytest.mark.parametrize(
    "content",
    [
        "% 2 uT\n// M0 first\n300 -3.5\n",
        "300 // M0\n-3.5\n",
        "% offsets in ppm\n300\n-3.5\n",
        "Offset,Z %\n300,100\n-3.5,98\n",
    ],
)
def test_comments_of_other_languages_are_left_out(tmp_path: Path, content: str) -> None:
    path = tmp_path / "offsets.txt"
    path.write_text(content)
    assert read_offsets(path).tolist() == [300.0, -3.5]


@pytest.mark.parametrize("line", ["// Hz", "% offsets in Hz", "Offset\n// Hz", "% saturation at\n% offsets in Hz"])
@pytest.mark.filterwarnings("ignore:.*the offsets are read in Hz")
def test_units_in_comments_of_other_languages_count(tmp_path: Path, line: str) -> None:
    path = tmp_path / "offsets.txt"
    path.write_text(f"{line}\n300 -300 447.05 0\n")
    assert read_offsets(path, 3.0)[2].item() == pytest.approx(3.5, abs=1e-3)


def test_a_table_must_name_its_column_of_offsets(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    path.write_text("measurement,b1\n1,2\n2,2\n")
    with pytest.raises(ValueError, match="line 2: the header does not name one column of offsets"):
        read_offsets(path)


@pytest.mark.parametrize(
    "header",
    [
        "offset_Hz",
        "# offsets in Hz",
        "# Hz",
        "# offsets of -1000 Hz to 1000 Hz",
        "# 5 Hz offsets",
        "# offsets in Hz, bandwidth 200 Hz/pixel",
        "# offsets in Hz (converted from ppm)",
        "# offsets in Hz\n# B0 drift 0.1 ppm",
        "# offsets in Hz; 1 ppm = 127.7 Hz",
    ],
)
@pytest.mark.filterwarnings("ignore:.*the offsets are read in Hz")
def test_offsets_that_say_hz_are_converted_with_the_field(tmp_path: Path, header: str) -> None:
    path = tmp_path / "offsets.txt"
    path.write_text(f"{header}\n-447.05\n0\n447.05\n")
    with pytest.raises(ValueError, match="the offsets are in Hz: give the field strength"):
        read_protocol(path)
    protocol = read_protocol(path, 3.0)
    assert protocol.offsets_ppm.tolist() == pytest.approx([-3.5, 0.0, 3.5], abs=1e-3)
    assert protocol.field_strength_T == 3.0


@pytest.mark.parametrize(
    "header",
    [
        "Offset (rad/s)",
        "offset_rad_per_s",
        "Nr;Offset (rad / s)",
        "Offset;B1 (rad/s)\n# offsets in rad/s",
        "# offsets in radians per second",
        "# rad/s",
        "# Offsets in rad/s (gamma 267.5e6 rad/s/T, bandwidth 200 Hz)",
    ],
)
@pytest.mark.filterwarnings("ignore:.*the offsets are read in rad/s")
def test_offsets_in_radians_are_converted_with_the_field(tmp_path: Path, header: str) -> None:
    path = tmp_path / "offsets.txt"
    row = {"N": "1;{}", "O": "{};1"}[header[0]] if ";" in header else "{}"
    path.write_text("\n".join([header, *(row.format(value) for value in (-2808.9, 0, 2808.9))]))
    with pytest.raises(ValueError, match=r"in rad/s: give the field strength.*divided by 2 pi times the Larmor"):
        read_offsets(path)
    assert read_offsets(path, 3.0).tolist() == pytest.approx([-3.5, 0.0, 3.5], abs=1e-3)


@pytest.mark.parametrize(
    "content",
    ["# gamma 267.5e6 rad/s/T\n3.5", "# gamma_rad_per_s_per_uT = 267.5\n3.5", "Offset;B1 (rad/s)\n3.5;500\n"],
)
def test_radians_of_something_else_are_not_the_unit_of_the_offsets(tmp_path: Path, content: str) -> None:
    path = tmp_path / "offsets.txt"
    path.write_text(content)
    assert read_offsets(path).tolist() == [3.5]


@pytest.mark.parametrize(
    "comment",
    [
        "pulse bandwidth 200 Hz",
        "bandwidth in Hz: 200",
        "bandwidth (Hz) = 200",
        "BW 200 Hz/pixel",
        "gamma 42.577e6 Hz/T",
        "offsets in ppm (1 ppm = 127.7 Hz)",
        "offsets in ppm\n# exchange at 30 Hz",
        "offset step: 25 Hz\n# offsets in ppm",
        "offsets, ppm; spectral width 4000 Hz",
        "offsets (ppm); bandwidth (Hz): 200",
        "offsets (ppm) bandwidth (Hz) = 200",
        "offsets (ppm), Hz at 3 T: see below",
        "offset ppm (converted from Hz)",
        "offsets in ppm, converted from Hz",
        "B1=2uT, TR=5 s offsets in ppm; pixel bandwidth in Hz",
        "B1=2uT offsets in ppm; drift in Hz",
        "offsets in ppm (ppm = Hz / 127.7)",
        "offsets ppm from Hz",
        "Offsets in ppm. B1 in Hz.",
        "B1 in Hz. Offsets in ppm.",
        "offsets in ppm | B1 in Hz",
        "offsets in ppm: B1 in Hz",
        "offsets in ppm and B1 in Hz",
        "B1 in Hz offsets in ppm",
        "offsets in ppm not Hz",
        "offsets in ppm converted from Hz",
        "Offsets in ppm - sampling in Hz of gradient",
        "offsets in ppm (multiply by 127.7 to convert to Hz)",
        "offsets in ppm; to convert to Hz, multiply by 127.7",
        "offsets in ppm; ppm->Hz: x127.7",
        "offset list, B1 = 85 Hz",
        "offset list, B1 = 2 uT (85 Hz)",
        "offset list, B1 rms [Hz]: 85",
        "B1 = 85 Hz",
        "B1 in Hz",
        "offset list, B1 = 535 rad/s",
        "offset list, B1 = 535 rad/s = 85 Hz",
        "offsets of the scan with w1 = 535 rad/s",
        "offsets at a power of 535 radians per second",
        "offset list, omega_1 [rad/s]: 535",
        "B1 = 535 rad/s, tsat 2 s",
        "B1 in rad/s",
    ],
)
def test_the_frequency_of_something_else_in_a_comment_is_not_the_unit_of_the_offsets(
    tmp_path: Path, comment: str
) -> None:
    path = tmp_path / "offsets.txt"
    path.write_text(f"# {comment}\n-300\n-3.5\n3.5\n")
    with pytest.warns(UserWarning, match=r"offsets\.txt: with these comments the offsets are read in ppm"):
        assert read_protocol(path, 3.0).offsets_ppm.tolist() == [-300.0, -3.5, 3.5]


@pytest.mark.parametrize(
    "comment",
    [
        "200 Hz",
        "exchange rate (Hz) = 30",
        "offsets in kHz",
        "offsets from 1 ppm to 447 Hz",
        "ppm = offset Hz / 127.7",
        "offset Hz converted to ppm",
        "offset Hz, converted to ppm",
        "offset Hz to ppm",
        "offset (Hz) -> ppm",
        "offset (Hz) (\u2192 ppm)",
        "offsets Hz divided by 127.7 to ppm",
        "offsets Hz divided by 127.7",
        "offset ppm = f [Hz] / 123.2",
        "offset [ppm] = offset [Hz] / 127.7",
        "offsets in Hz / 127.7 = ppm",
        "offset_hz = 127.7 * offset_ppm",
        "offset (ppm), offset (Hz)",
        "offset in MHz",
        "offset [1/s]",
        "offset (rad/s) = 2 pi offset (Hz)",
    ],
)
def test_a_comment_that_leaves_the_unit_open_is_refused(tmp_path: Path, comment: str) -> None:
    path = tmp_path / "offsets.txt"
    path.write_text(f"# {comment}\n-3.5\n3.5\n", encoding="utf-8")
    with pytest.raises(ValueError, match=r"offsets\.txt: '.*' leaves open .* say ppm or Hz") as caught:
        read_protocol(path, 3.0)
    one_line(caught.value, str(path))


@pytest.mark.parametrize("comment", ["saturation 535 rad/s", "offset list, saturation 535 rad/s", "offset (krad/s)"])
def test_a_comment_that_leaves_open_whether_offsets_are_in_radians_names_this_unit(
    tmp_path: Path, comment: str
) -> None:
    path = tmp_path / "offsets.txt"
    path.write_text(f"# {comment}\n-3.5\n3.5\n")
    with pytest.raises(ValueError, match=r"offsets\.txt: '.*' leaves open .* in ppm or in rad/s; say ppm or rad/s"):
        read_protocol(path, 3.0)


def test_a_column_of_powers_is_not_read_as_offsets(tmp_path: Path) -> None:
    path = tmp_path / "powers.txt"
    path.write_text("B1 (rad/s)\n535\n267\n")
    with pytest.raises(ValueError, match=r"powers\.txt: 'B1 \(rad/s\)' leaves open"):
        read_offsets(path, 3.0)


def test_comments_that_contradict_each_other_about_the_unit_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "offsets.txt"
    path.write_text("# offsets in Hz\n# all offsets in ppm\n3.5\n")
    with pytest.raises(ValueError, match="both ppm and Hz; say ppm or Hz"):
        read_protocol(path, 3.0)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("1\n2\nthree\n", "line 3 holds 'three'"),
        ("", "no offsets found"),
        ("# none\n", "no offsets found"),
        ("1\nnan\n", "not finite"),
        ("1\ninf\n", "not finite"),
    ],
)
def test_unusable_offsets_files_are_named(tmp_path: Path, content: str, words: str) -> None:
    path = tmp_path / "offsets.txt"
    path.write_text(content)
    with pytest.raises(ValueError, match=words) as caught:
        read_protocol(path)
    one_line(caught.value, str(path))
