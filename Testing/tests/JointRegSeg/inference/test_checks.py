"""Checks of visits before anything is computed."""

from __future__ import annotations

import numpy as np
import pytest
from joint_studies import HeadStudy

from JointRegSegLib.images.study import TUMOR, StudyImages
from JointRegSegLib.inference.checks import check_pair
from NeuroCESTLib.core.progress import silent


@pytest.fixture(scope="module")
def head() -> HeadStudy:
    return HeadStudy.of("axial")


def warnings_of(head: HeadStudy, tumor: np.ndarray, field: str) -> tuple[str, ...]:
    """Check a pair whose fixed visit comes with a tumour (D, H, W)."""
    given = {field: head.grid.to_sitk(tumor.astype(np.uint8)), "sources": {TUMOR: "tumour.nii.gz"}}
    fixed = StudyImages({"t1": head.image("t1")}, name="fixed", **given)
    return check_pair(fixed, head.images("moving", ("t1",)), None, None, silent, True).warnings


@pytest.mark.parametrize("field", ["left_out", "tumor_labels"])
def test_a_tumor_that_leaves_most_of_the_brain_out_is_told(head: HeadStudy, field: str) -> None:
    assert warnings_of(head, head.visit.labels > 0, field) == ()
    most = np.arange(head.visit.brain.shape[0])[:, None, None] < 0.6 * head.visit.brain.shape[0]
    share = np.broadcast_to(most, head.visit.brain.shape)[head.visit.brain].mean()
    assert warnings_of(head, most & head.visit.brain, field) == (
        f"the tumour segmentation 'tumour.nii.gz' of the fixed study fills {100 * share:.0f} % of the brain, which the "
        "registration leaves out: check that it is not inverted or a brain mask",
    )


@pytest.mark.parametrize("field", ["left_out", "tumor_labels"])
def test_a_tumor_that_leaves_the_whole_brain_out_is_refused(head: HeadStudy, field: str) -> None:
    for wrong, share in ((head.visit.brain, 100), (head.visit.labels == 0, 96)):  # a brain mask, an inverted tumour
        with pytest.raises(ValueError, match=f"'tumour.nii.gz' of the fixed study fills {share} % of the brain"):
            warnings_of(head, wrong, field)
