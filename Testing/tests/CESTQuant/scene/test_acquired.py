"""From an acquisition in the scene to the spectra of a method: nothing that the preparation says is lost on the way."""

from __future__ import annotations

from types import ModuleType

import numpy as np

from CESTQuantLib.logic import CESTQuantLogic
from NeuroCESTLib.scene.geometry import Geometry
from NeuroCESTLib.scene.sequences import array_to_sequence

OFFSETS = np.linspace(-1.0, 1.0, 21)


def test_field_maps_tell_what_the_motion_correction_warns_of(slicer: ModuleType) -> None:
    rows, columns = np.indices((40, 40)) - 20
    head = np.where(np.hypot(rows, columns) < 15, 1 + 0.2 * np.sin(rows / 2) * np.cos(columns / 3), 0)
    z = 1 - 0.4 / (1 + (OFFSETS / 0.3) ** 2)
    images = 500 * z[:, None, None, None] * head[None, None]
    signal = array_to_sequence(
        images.astype(np.float32), Geometry.from_spacing((1, 40, 40), (3.0, 3.0, 5.0)), "wassr", OFFSETS
    )
    options = {"method": "wassr", "signalNormalisation": "l2"}
    plain = CESTQuantLogic().fieldMaps(signal, None, **options)
    corrected = CESTQuantLogic().fieldMaps(signal, None, motionCorrection=True, **options)
    said = "too few slices to see motion through them"
    assert not any(said in warning for warning in plain.report["warnings"])
    assert any(said in warning for warning in corrected.report["warnings"])
