"""Names of segments are understood by their meaning."""

from __future__ import annotations

import pytest

from JointRegSegLib.images.compartments import class_of_segment, classes_of_segments, is_plain_mask

CORE, OEDEMA, ENHANCING, CAVITY = 1, 2, 3, 4


@pytest.mark.parametrize(
    ("name", "number"),
    [
        ("Necrotic core", CORE),
        ("NCR/NET", CORE),
        ("Non-enhancing tumour", CORE),
        ("Non enhancing tumor", CORE),
        ("Nonenhancing tumor core (NETC)", CORE),
        ("Not contrast-enhancing tumour", CORE),
        ("Necrosis", CORE),
        ("Cystic part", CORE),
        ("Oedema", OEDEMA),
        ("Peritumoral edema", OEDEMA),
        ("Surrounding non-enhancing FLAIR hyperintensity (SNFH)", OEDEMA),
        ("SNFH", OEDEMA),
        ("FLAIR hyperintensity", OEDEMA),
        ("ET", ENHANCING),
        ("Enhancing tumour", ENHANCING),
        ("Enhancing tissue (ET)", ENHANCING),
        ("Enhancing tumor core", ENHANCING),
        ("Contrast-enhancing tumour", ENHANCING),
        ("Resection cavity (RC)", CAVITY),
        ("Cavity", CAVITY),
        ("Tumour", None),
        ("Tumor core", None),
        ("Necrosis with enhancing rim", None),
        ("Ventricle", None),
        ("Network", None),
        ("AT", ENHANCING),
        ("T2", OEDEMA),
        ("resection_cavity", CAVITY),
        ("Resection", CAVITY),
        ("Cavity after resection", CAVITY),
        ("Necrosis after resection", CORE),
        ("Tumor without enhancement", CORE),
        ("Enhancing tumour without necrosis", ENHANCING),
        ("Tumour resected", None),
        ("Tumour (resected)", None),
        ("Tumour, partially resected", None),
        ("Residual tumour beside resection cavity", None),
        ("Recurrence in resection cavity", None),
        ("Tumour at resection margin", None),
        ("Tumour with oedema", None),
        ("Tumour on FLAIR", None),
        ("Lesion on FLAIR", None),
        ("Non-enhancing tumour with oedema", None),
        ("T2 lesion", OEDEMA),
        ("T2 signal abnormality", OEDEMA),
        ("FLAIR lesion", OEDEMA),
        ("Peri-tumour oedema", OEDEMA),
        ("Tumour resection cavity", CAVITY),
    ],
)
def test_the_name_of_a_segment_tells_its_class(name: str, number: int | None) -> None:
    assert class_of_segment(name) == number


def test_core_alone_is_the_core_only_beside_an_enhancing_segment() -> None:
    assert classes_of_segments(["Tumor core", "Edema", "ET"], "seg") == {"Tumor core": 1, "Edema": 2, "ET": 3}
    with pytest.raises(ValueError, match="the segment 'Tumor core' of 'seg' is not a known compartment"):
        classes_of_segments(["Tumor core", "Edema"], "seg")


@pytest.mark.parametrize(
    ("names", "plain"),
    [
        (["Tumour"], True),
        (["Segment_1"], True),
        (["whole tumor mask"], True),
        (["GTV"], True),
        (["Tumour at baseline"], True),
        (["GTV at follow-up"], True),
        (["Tumor T1"], True),
        (["Tumor T2"], True),
        (["tumor_T2"], True),
        (["Unresected tumor"], True),
        (["Tumour before resection"], True),
        (["Residual tumour after partial resection"], True),
        (["Post-resection tumor"], True),
        (["Partially resected tumour"], True),
        (["Tumour without oedema"], True),
        (["Brain mask"], False),
        (["Whole brain"], False),
        (["Oedema"], False),
        (["Oedema around the tumour"], False),
        (["Ventricle"], False),
        (["Tumour", "Oedema"], False),
        ([], False),
    ],
)
def test_a_single_segment_without_a_compartment_is_a_plain_mask(names: list[str], plain: bool) -> None:
    assert is_plain_mask(names) == plain
