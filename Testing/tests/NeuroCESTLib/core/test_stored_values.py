"""Values of stored files have the structure and types that their readers expect, or the misfit is named."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

from NeuroCESTLib.core.stored_values import Numbers, check_stored

FORM = {
    "step": int,
    "score": (float, None),
    "names": [str],
    "weights": {},
    "images": Numbers("f", 4),
    "runs": [{"seed": int}],
}
SOUND: dict[str, Any] = {
    "step": 3,
    "score": math.nan,
    "names": ["a", "b"],
    "weights": {"anything": object()},
    "images": torch.zeros(1, 2, 3, 4),
    "runs": [{"seed": 1, "more": 2}],
    "further": "keys may be there",
}


@pytest.mark.parametrize(
    "changes", [{}, {"score": None}, {"score": 2}, {"names": ()}, {"images": np.zeros((1, 1, 1, 1))}]
)
def test_what_fits_passes(changes: dict[str, Any]) -> None:
    check_stored(SOUND | changes, FORM, "'last.pt'")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"step": True}, "'step' is of another kind"),
        ({"step": 1.5}, "'step' is of another kind"),
        ({"score": "high"}, "'score' is of another kind"),
        ({"names": "ab"}, "'names' is not a list"),
        ({"names": ["a", None]}, r"'names\[1\]' is of another kind"),
        ({"weights": None}, "'weights' is not an object"),
        ({"images": torch.zeros(1, 2, 3)}, "'images' is of another kind"),
        ({"images": torch.zeros(1, 2, 3, 4, dtype=torch.int32)}, "'images' is of another kind"),
        ({"images": [1.0]}, "'images' is of another kind"),
        ({"runs": [{"seed": 1}, {}]}, r"'runs\[1\]\.seed' is missing"),
    ],
)
def test_the_first_misfit_is_named_after_the_file(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=f"^'last.pt': {words}$"):
        check_stored(SOUND | changes, FORM, "'last.pt'")


def test_a_missing_entry_and_another_kind_of_content_are_named() -> None:
    with pytest.raises(ValueError, match=r"^f: 'step' is missing$"):
        check_stored({}, FORM, "f")
    with pytest.raises(ValueError, match=r"^f: its content is not an object$"):
        check_stored([], FORM, "f")
