"""Files that are damaged anywhere are read, or refused by a sentence that names them; the program never fails."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
from dicom_files import write_enhanced
from paravision import write_scan

from CESTQuantLib.formats.scanner.sources import read_source

INSERTS = (b"99999999999", b"(", b")", b"<", b"@9*(1)", b" nan ", b"\xff\xff\xff\xff", b"##", b"=", b"0 ")


def damaged(content: bytes, draw: random.Random) -> bytes:
    """Content that is cut off, has lost or changed some bytes, or has gained some."""
    start = draw.randrange(len(content))
    end = min(len(content), start + draw.randrange(1, 40))
    changes = (
        content[:start],
        content[:start] + content[end:],
        content[:start] + draw.randbytes(end - start) + content[end:],
        content[:start] + draw.choice(INSERTS) + content[start:],
    )
    return draw.choice(changes)


def outcomes(source: Path, files: list[Path], trials: int) -> list[str]:
    """Damage one file at a time and return the messages; an empty one where the rest could be read."""
    draw, messages = random.Random(7), []
    for _ in range(trials):
        file = draw.choice(files)
        content = file.read_bytes()
        file.write_bytes(damaged(content, draw))
        try:
            read_source(source)
            messages.append("")
        except ValueError as error:
            messages.append(str(error))
        file.write_bytes(content)
    return messages


def test_damaged_paravision_scans(tmp_path: Path) -> None:
    scan = write_scan(tmp_path / "study" / "1")
    folder = scan / "pdata" / "1"
    files = [scan / "method", scan / "acqp", folder / "visu_pars", folder / "2dseq"]
    refused = [message for message in outcomes(scan, files, 120) if message]
    assert len(refused) > 40
    assert all(str(tmp_path / "study") in message and "\n" not in message for message in refused)


def test_damaged_dicom_files(tmp_path: Path) -> None:
    signal = np.arange(120, dtype=np.float64).reshape(3, 2, 4, 5)
    file = write_enhanced(tmp_path / "enhanced.dcm", signal, slopes=[1.0, 2.0, 3.0])
    refused = [message for message in outcomes(file, [file], 120) if message]
    assert len(refused) > 40
    assert all(str(tmp_path) in message and "\n" not in message for message in refused)
