"""Label maps of every convention: declared, recognized where certain, refused where not."""

from __future__ import annotations

import numpy as np
import pytest

from JointRegSegLib.images.label_conventions import declared_convention
from JointRegSegLib.images.label_evidence import contradictions, view
from JointRegSegLib.images.label_maps import BY_CONTENT, BY_NAME, DECLARED, ReadLabels, classes_of_map
from NeuroCESTLib.core.labels.conventions import CONVENTIONS, convention_of_name

CORE, OEDEMA, ENHANCING, CAVITY = 1, 2, 3, 4
SIZE = 24
POSITION = np.stack(np.meshgrid(*[np.arange(SIZE) - SIZE / 2] * 3, indexing="ij"))
RADIUS = np.sqrt((POSITION**2).sum(0))


def tumor(with_cavity: bool = False, closed_rim: bool = True) -> np.ndarray:
    """A core in an enhancing rim in oedema; the rim is closed or covers one side, and half of it may be a cavity."""
    classes = np.zeros((SIZE,) * 3, np.uint8)
    classes[RADIUS < 9] = OEDEMA
    classes[(RADIUS < 6) & (closed_rim | (POSITION[0] > 1))] = ENHANCING
    classes[RADIUS < 4] = CORE
    if with_cavity:
        classes[(classes == CORE) & (POSITION[1] > 0)] = CAVITY
    return classes


def numbered(classes: np.ndarray, **numbers: int) -> np.ndarray:
    """The map in another convention: number of each compartment, 0 where it is left out."""
    names = {"core": CORE, "oedema": OEDEMA, "enhancing": ENHANCING, "cavity": CAVITY}
    result = np.zeros(classes.shape, np.int16)
    for name, number in numbers.items():
        result[classes == names[name]] = number
    return result


def bright_rim(classes: np.ndarray) -> np.ndarray:
    """T1 with contrast agent: a bright enhancing tumour, a dark core and a darker cavity, in a noisy brain."""
    levels = np.array([100.0, 70.0, 90.0, 200.0, 30.0])[classes]
    noise = np.random.default_rng(0).normal(0, 10, classes.shape)
    return np.where(RADIUS < 12, levels + noise, 0).astype(np.float32)


def read(array: np.ndarray, labels: str | None = None, name: str = "seg.nii.gz", t1ce: object = None) -> ReadLabels:
    convention = None if labels is None else declared_convention(labels)
    return classes_of_map(array, name, convention, [name], None if t1ce is None else lambda: t1ce)


@pytest.mark.parametrize(
    ("labels", "numbers"),
    [
        ("brats2021", {"core": 1, "oedema": 2, "enhancing": 4}),
        ("BraTS 2020", {"core": 1, "oedema": 2, "enhancing": 4}),
        ("brats2023", {"core": 1, "oedema": 2, "enhancing": 3}),
        ("brats2024", {"core": 1, "oedema": 2, "enhancing": 3, "cavity": 4}),
        ("msd", {"core": 2, "oedema": 1, "enhancing": 3}),
        ("hd-glio", {"oedema": 1, "enhancing": 2}),
        ("brats-ped", {"core": 2, "oedema": 4, "enhancing": 1}),
        ("10=core, 20=oedema, 40=enhancing tumour, 50=resection cavity", {"core": 10, "enhancing": 40, "cavity": 50}),
    ],
)
@pytest.mark.parametrize("dtype", [np.uint8, np.int32, np.float64])
def test_a_declared_convention_gives_the_classes(labels: str, numbers: dict[str, int], dtype: type) -> None:
    classes = tumor(with_cavity=True)
    given = numbered(classes, **numbers).astype(dtype)
    before = given.copy()
    found = read(given, labels)
    absent = [
        c
        for name, c in zip(("core", "oedema", "enhancing", "cavity"), (1, 2, 3, 4), strict=True)
        if name not in numbers
    ]
    np.testing.assert_array_equal(found.classes, np.where(np.isin(classes, absent), 0, classes))
    np.testing.assert_array_equal(given, before)
    assert found.reading.how == DECLARED
    assert not found.plain
    assert not found.reading.warnings


def test_numbers_declared_as_background_are_no_tumor() -> None:
    array = numbered(tumor(), core=1, enhancing=3)
    array[array == 0] = 255
    found = read(array, "1=core,3=enhancing,255=background")
    assert np.bincount(found.classes.ravel()).tolist()[1] == (tumor() == CORE).sum()
    assert (found.classes > 0).sum() == (array != 255).sum()


@pytest.mark.parametrize("array", [np.full((9, 9, 9), 255, np.uint8), numbered(tumor(), core=3, oedema=1, enhancing=2)])
def test_binary_declares_a_plain_mask(array: np.ndarray) -> None:
    found = read(array, "binary")
    assert found.plain
    np.testing.assert_array_equal(found.classes, array != 0)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            "brats1999",
            "no known convention; use brats2021, brats2023, brats2024, msd, hd-glio, brats-ped, brats2015, binary",
        ),
        ("1=liver", "'1=liver'; give a number and its meaning, one of core, oedema, enhancing, cavity"),
        ("one=core", "'one=core'; give a number"),
        ("1=core,1=oedema", "the number 1 twice"),
        ("0=core", "0 is always the background"),
        ("1=background", "names no compartment"),
    ],
)
def test_unknown_conventions_are_refused_with_the_known_ones(text: str, words: str) -> None:
    with pytest.raises(ValueError, match=f"--labels .*{words}"):
        declared_convention(text)


def test_numbers_that_the_convention_lacks_are_refused() -> None:
    with pytest.raises(
        ValueError, match=r"has the value 4, which brats2023 does not have .*declare another convention"
    ):
        read(numbered(tumor(), core=1, oedema=2, enhancing=4), "brats2023")


@pytest.mark.parametrize(
    ("path", "convention"),
    [
        ("data/BraTS2021_00006_seg.nii.gz", "brats2021"),
        ("Brats18_TCIA01_131_1/Brats18_TCIA01_131_1_seg.nii.gz", "brats2021"),
        ("BraTS20_Training_001_seg.nii", "brats2021"),
        ("UCSF-PDGM-0004_tumor_segmentation.nii.gz", "brats2021"),
        ("BraTS-GLI-00005-000-seg.nii.gz", "brats2023"),
        ("BraTS-MEN-00005-000-seg.nii.gz", "brats2023"),
        ("BraTS-GLI-00005-100-seg.nii.gz", "brats2024"),
        ("BraTS-PED-00005-000-seg.nii.gz", "brats-ped"),
        ("Task01_BrainTumour/labelsTr/BRATS_001.nii.gz", "msd"),
        ("week-044/HD-GLIO-AUTO-segmentation/registered/segmentation.nii.gz", "hd-glio"),
        ("synthetic000900/visit1_seg.nii.gz", "brats2024"),
        ("brats_2013_pat0001_1/VSD.Brain_3more.XX.O.OT.54517.mha", "brats2015"),
        ("patient1/seg.nii.gz", None),
        ("hd-glio-compared-with-readers/patient1/seg.nii.gz", None),
    ],
)
def test_names_of_data_sets_tell_their_convention(path: str, convention: str | None) -> None:
    found = convention_of_name(path)
    assert (None if found is None else found.name) == convention


def test_the_name_of_the_file_tells_the_convention() -> None:
    found = read(numbered(tumor(closed_rim=False), core=1, oedema=2, enhancing=4), name="BraTS2021_00006_seg.nii.gz")
    assert (found.reading.convention, found.reading.how) == ("brats2021", BY_NAME)
    np.testing.assert_array_equal(found.classes, tumor(closed_rim=False))
    assert not found.reading.warnings


@pytest.mark.parametrize(
    ("convention", "numbers"),
    [
        ("brats2023", {"core": 1, "oedema": 2, "enhancing": 3}),
        ("msd", {"core": 2, "oedema": 1, "enhancing": 3}),
        ("brats2021", {"core": 1, "oedema": 2, "enhancing": 4}),
        ("brats-ped", {"core": 2, "oedema": 4, "enhancing": 1}),
    ],
)
def test_the_order_of_the_compartments_tells_the_convention_and_is_told(
    convention: str, numbers: dict[str, int]
) -> None:
    found = read(numbered(tumor(), **numbers))
    assert (found.reading.convention, found.reading.how) == (convention, BY_CONTENT)
    np.testing.assert_array_equal(found.classes, tumor())
    assert f"is read as {convention}" in found.reading.warnings[0]


def test_what_may_be_a_cavity_or_enhancing_is_refused_without_t1ce_and_recognized_with_it() -> None:
    partial = tumor(closed_rim=False)
    enhancing = numbered(partial, core=1, oedema=2, enhancing=4)
    with pytest.raises(
        ValueError, match=r"values 1, 2, 4, which do not tell .*declare --labels brats2021 or brats2024"
    ):
        read(enhancing)
    found = read(enhancing, t1ce=bright_rim(partial))
    assert found.reading.convention == "brats2021"
    np.testing.assert_array_equal(found.classes, partial)
    removed = tumor(with_cavity=True)
    removed[removed == ENHANCING] = OEDEMA
    cavity = numbered(removed, core=1, oedema=2, cavity=4)
    with pytest.raises(ValueError, match="do not tell its convention"):
        read(cavity)
    found = read(cavity, t1ce=bright_rim(removed))
    assert found.reading.convention == "brats2024"
    np.testing.assert_array_equal(found.classes, removed)


def test_a_single_number_is_a_plain_mask_and_this_is_told() -> None:
    for value in (1, 4, 255):
        found = read((RADIUS < 5) * value)
        assert found.plain
        assert "single number" in found.reading.warnings[0]
    empty = read(np.zeros((9, 9, 9)))
    assert not empty.plain
    assert not empty.reading.warnings


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ((0, 10, 20, 40), ("the values 10, 20, 40", "fit no known convention", "--labels 1=core,2=oedema")),
        ((0, -1, 7), ("the values -1, 7", "fit no known convention")),
        ((0, 0.5), ("the value 0.5", "whole numbers")),
        ((0, float("nan")), ("nan", "whole numbers")),
        (tuple(range(40)), ("1, 2, 3, 4, 5, 6, …",)),
        ((), ("is empty",)),
    ],
)
def test_other_values_are_refused_with_a_message_that_names_value_and_file(values: tuple, words: tuple) -> None:
    with pytest.raises(ValueError, match=r"the label map 'case/seg\.nii\.gz'") as error:
        read(np.array(values, dtype=float).reshape(1, 1, -1), name="case/seg.nii.gz")
    assert all(word in str(error.value) for word in words)


def test_whole_numbers_may_have_the_rounding_errors_of_scaled_files() -> None:
    array = numbered(tumor(), core=1, oedema=2, enhancing=3).astype(np.float32) * np.float32(1.0000001)
    np.testing.assert_array_equal(read(array, "brats2023").classes, tumor())


def test_from_inside_one_sees_what_is_around_and_from_outside_little_of_the_inside() -> None:
    inner, around = RADIUS < 4, (RADIUS >= 4) & (RADIUS < 9)
    assert view(inner, around) == 1
    assert view(around, inner) < 0.2


def test_a_tumor_contradicts_only_other_conventions() -> None:
    array = numbered(tumor(), core=1, oedema=2, enhancing=4)
    assert not contradictions(array, CONVENTIONS["brats2021"].classes, bright_rim(tumor()))
    assert "encloses" in contradictions(array, CONVENTIONS["brats2024"].classes)[0]
    assert contradictions(array, CONVENTIONS["brats-ped"].classes)
