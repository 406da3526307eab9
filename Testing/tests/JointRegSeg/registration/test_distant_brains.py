"""Visits that lie far apart by their headers."""

from __future__ import annotations

import numpy as np
import SimpleITK as sitk

from JointRegSegLib.registration.affine import AffineResult, Brain, align
from JointRegSegLib.registration.distant_brains import brought_together


def brain(shift_mm: tuple[float, float, float] = (0.0, 0.0, 0.0), name: str = "fixed") -> Brain:
    """A box of brain, off the centre of its image, whose header is shifted."""
    voxels = np.zeros((20, 22, 24), np.uint8)
    voxels[3:11, 4:18, 5:21] = 1
    image = sitk.GetImageFromArray(voxels)
    image.SetSpacing((5.0, 5.0, 5.0))
    image.SetOrigin(shift_mm)
    return Brain(sitk.Cast(image, sitk.sitkFloat32), image, None, name)


IDENTITY = AffineResult(sitk.AffineTransform(3), 0.0, 0.0)


def test_distant_brains_are_brought_together_by_their_centres_and_this_is_told() -> None:
    found = brought_together(IDENTITY, brain(), brain((4000.0, -2500.0, 6000.0), "moving"))
    (note,) = found.notes
    assert "brain of the moving study 763 cm away from that of the fixed study" in note
    np.testing.assert_allclose(found.transform.TransformPoint((1.0, 2.0, 3.0)), (4001.0, -2498.0, 6003.0), atol=1e-6)
    assert IDENTITY.transform.TransformPoint((1.0, 2.0, 3.0)) == (1.0, 2.0, 3.0)


def test_brains_that_overlap_stay_where_they_are() -> None:
    assert brought_together(IDENTITY, brain(), brain((30.0, 0.0, 0.0), "moving")) is IDENTITY


def test_brains_metres_apart_are_aligned_within_little_memory() -> None:
    import tracemalloc

    near, far = brain(), brain((4000.0, -2500.0, 6000.0), "moving")
    tracemalloc.start()
    found = align(near, far, "rigid")
    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak_bytes < 300e6
    center = (62.5, 52.5, 32.5)
    moved = np.subtract(found.transform.TransformPoint(center), (4000.0, -2500.0, 6000.0))
    np.testing.assert_allclose(moved, center, atol=0.5)
