"""What is bright in the tumour enhances; what an enhancing ring encloses becomes core, and nothing else changes."""

from __future__ import annotations

import numpy as np
import pytest
import SimpleITK as sitk
import torch

from JointRegSegLib.images.labels import CAVITY, CLASSES, classes_of_probabilities
from JointRegSegLib.inference.plausibility import (
    agreed_tumor,
    with_bright_enhancing,
    with_enclosed_core,
    without_faint_tumor,
    without_tumor,
)

CORE, EDEMA, ENHANCING = (CLASSES.index(name) for name in ("necrotic_core", "edema", "enhancing_tumor"))


def labelled(array: np.ndarray) -> sitk.Image:
    image = sitk.GetImageFromArray(array.astype(np.uint8))
    image.SetOrigin((1.0, -2.0, 3.0))
    image.SetSpacing((1.0, 1.5, 2.0))
    return image


def shell(inside: int) -> np.ndarray:
    """An enhancing shell in oedema around another class; radii 5 and 3 voxels."""
    distance = np.linalg.norm(np.indices((21, 21, 21)) - 10, axis=0)
    array = np.where(distance < 8, EDEMA, 0)
    return np.where(distance < 3, inside, np.where(distance < 5, ENHANCING, array))


@pytest.mark.parametrize("inside", [0, EDEMA])
def test_inside_of_an_enhancing_shell_becomes_core(inside):
    array = shell(inside)
    result = with_enclosed_core(labelled(array))
    expected = shell(CORE)
    assert np.array_equal(sitk.GetArrayFromImage(result), expected)
    assert result.GetOrigin() == (1.0, -2.0, 3.0)
    assert result.GetSpacing() == (1.0, 1.5, 2.0)


def test_a_resection_cavity_within_an_enhancing_rim_stays_one():
    assert np.array_equal(sitk.GetArrayFromImage(with_enclosed_core(labelled(shell(CAVITY)))), shell(CAVITY))


def test_ring_that_is_open_at_one_end_still_encloses_its_middle():
    array = shell(EDEMA)
    array[:8] = np.where(array[:8] == ENHANCING, EDEMA, array[:8])
    result = sitk.GetArrayFromImage(with_enclosed_core(labelled(array)))
    assert result[10, 10, 10] == EDEMA or result[12, 10, 10] == CORE
    assert not (result[:8] == CORE).any()


@pytest.mark.parametrize("array", [np.zeros((5, 5, 5)), np.full((5, 5, 5), EDEMA)])
def test_labels_without_enhancement_stay_as_they_are(array):
    assert np.array_equal(sitk.GetArrayFromImage(with_enclosed_core(labelled(array))), array)


def test_given_image_is_not_changed():
    image = labelled(shell(EDEMA))
    before = sitk.GetArrayFromImage(image).copy()
    with_enclosed_core(image)
    assert np.array_equal(sitk.GetArrayFromImage(image), before)


def bright_rim(size: int = 24) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return probabilities of tumour that does not enhance, T1 with contrast agent with a bright rim, and the brain."""
    distance = torch.from_numpy(np.linalg.norm(np.indices((size,) * 3) - size / 2, axis=0))
    tumor, rim = distance < 8, (distance > 3) & (distance < 5)
    probabilities = torch.zeros(len(CLASSES), size, size, size)
    probabilities[EDEMA], probabilities[CORE] = 0.6 * tumor, 0.3 * tumor
    probabilities[0] = 1 - probabilities[1:].sum(0)
    noise = torch.randn(tumor.shape, generator=torch.Generator().manual_seed(1))
    return probabilities, 6.0 * rim + noise, distance < 11


def test_a_bright_rim_in_the_tumour_is_enhancing() -> None:
    probabilities, t1ce, brain = bright_rim()
    found = with_bright_enhancing(probabilities, t1ce, None, brain, 1.0)
    rim = t1ce > 4.5
    assert float((found.argmax(0) == ENHANCING)[rim].float().mean()) > 0.9
    assert float((found.argmax(0) == ENHANCING)[~rim].float().mean()) < 0.05
    assert torch.allclose(found[0], probabilities[0])
    assert torch.allclose(found.sum(0), torch.ones(()))
    rest = found[EDEMA] + found[CORE] > 1e-3
    assert torch.allclose((found[CORE] / (found[EDEMA] + found[CORE]))[rest], torch.tensor(1 / 3), atol=1e-3)


def test_what_is_as_bright_on_t1_enhances_less() -> None:
    probabilities, t1ce, brain = bright_rim()
    t1ce = t1ce / 2  # so that its probability has room
    plain = torch.randn(t1ce.shape, generator=torch.Generator().manual_seed(2))
    bright = plain + 3.0 * (t1ce > 2.25)
    beside, alone = (with_bright_enhancing(probabilities, t1ce, t1, brain, 1.0)[ENHANCING] for t1 in (bright, plain))
    assert float(beside.sum()) < 0.95 * float(alone.sum())


def test_tumour_that_is_as_bright_as_the_brain_around_it_does_not_enhance() -> None:
    """A coil beside the tumour makes both bright."""
    size = 40
    z, y, x = np.indices((size,) * 3) - size / 2 + 0.5
    tumor = torch.from_numpy(np.sqrt(z**2 + y**2 + (x - 8) ** 2) < 6)
    probabilities = torch.zeros(len(CLASSES), size, size, size)
    probabilities[EDEMA] = 0.9 * tumor
    probabilities[0] = 1 - probabilities[EDEMA]
    brain = torch.ones(size, size, size, dtype=torch.bool)
    near = torch.from_numpy(1.6 * np.exp(-((x - 8) ** 2) / 2 / 15**2)).float()
    shares = []
    for coil in (near, 1.6 * tumor):
        found = with_bright_enhancing(probabilities, coil - coil.mean(), None, brain, 2.0).argmax(0)
        shares.append(float((found == ENHANCING)[tumor].float().mean()))
    assert shares[0] < 0.1
    assert shares[1] > 0.9


def test_brightness_outside_of_the_tumour_does_not_enhance() -> None:
    probabilities, t1ce, brain = bright_rim()
    nothing = torch.zeros_like(probabilities)
    nothing[0] = 1
    assert torch.equal(with_bright_enhancing(nothing, t1ce, None, brain, 1.0), nothing)


def test_where_the_images_are_unknown_the_network_decides() -> None:
    probabilities, t1ce, brain = bright_rim()
    known = brain.clone()
    known[12:] = False
    found = with_bright_enhancing(probabilities, t1ce, None, known, 1.0)
    assert torch.equal(found[:, 12:], probabilities[:, 12:])
    assert (found[:, :12].argmax(0) == ENHANCING).any()


def test_bright_vessels_and_skull_do_not_change_what_enhances() -> None:
    probabilities, t1ce, brain = bright_rim()
    expected = with_bright_enhancing(probabilities, t1ce, None, brain, 1.0)[ENHANCING].sum()
    skull = t1ce.clone()
    skull[:2] += 20.0
    found = with_bright_enhancing(probabilities, skull, None, brain, 1.0)[ENHANCING].sum()
    assert float(found / expected) == pytest.approx(1, abs=0.1)


def test_tumour_that_is_hardly_brighter_on_flair_than_the_brain_is_removed() -> None:
    """Of two equal tumours, one is as bright as tumour on FLAIR, the other like a bright cerebellum."""
    z, y, x = (torch.from_numpy(axis) - 19.5 for axis in np.indices((40, 40, 40)))
    true, false = (((x - centre) ** 2 + y**2 + z**2).sqrt() < 6 for centre in (-10, 10))
    flair = torch.randn(z.shape, generator=torch.Generator().manual_seed(1)) + 4.0 * true + 0.5 * false
    probabilities = torch.zeros(len(CLASSES), 40, 40, 40)
    probabilities[EDEMA] = 0.8 * (true | false)
    probabilities[0] = 1 - probabilities[EDEMA]
    brain = torch.ones_like(true)
    found, removed = without_faint_tumor(probabilities, 7 * flair + 100, brain, 2.0)
    assert torch.equal(found.argmax(0) == EDEMA, true)
    assert torch.equal(removed, false)
    assert torch.allclose(found.sum(0), torch.ones(()))
    again, removed = without_faint_tumor(found, 7 * flair + 100, brain, 2.0)
    assert torch.equal(again, found)
    assert not bool(removed.any())


def test_the_cavity_beside_bright_tumour_does_not_make_it_faint_and_one_without_tumour_stays() -> None:
    z, y, x = (torch.from_numpy(axis) - 19.5 for axis in np.indices((40, 40, 40)))
    distance, alone = (((x - centre) ** 2 + y**2 + z**2).sqrt() for centre in (-9, 11))
    cavity, tumor = (distance < 7) | (alone < 5), (distance >= 7) & (distance < 8)
    noise = torch.randn(z.shape, generator=torch.Generator().manual_seed(1))
    probabilities = torch.zeros(len(CLASSES) + 1, 40, 40, 40)
    probabilities[EDEMA], probabilities[CAVITY] = 0.8 * tumor, 0.8 * cavity
    probabilities[0] = 1 - probabilities[1:].sum(0)
    found, removed = without_faint_tumor(probabilities, noise + 4.0 * tumor - 4.0 * cavity, torch.ones_like(tumor), 2.0)
    assert not bool(removed.any())
    assert torch.equal(found, probabilities)


def test_a_cavity_stays_where_the_false_tumour_around_it_is_removed() -> None:
    z, y, x = (torch.from_numpy(axis) - 19.5 for axis in np.indices((40, 40, 40)))
    distance = (x**2 + y**2 + z**2).sqrt()
    cavity, rim = distance < 7, (distance >= 7) & (distance < 8)
    flair = torch.randn(z.shape, generator=torch.Generator().manual_seed(1)) - 4.0 * cavity
    probabilities = torch.zeros(len(CLASSES) + 1, 40, 40, 40)
    probabilities[EDEMA], probabilities[CAVITY] = 0.8 * rim, 0.95 * cavity
    probabilities[0] = 1 - probabilities[1:].sum(0)
    found, removed = without_faint_tumor(probabilities, flair, torch.ones_like(rim), 2.0)
    assert torch.equal(removed, rim)
    assert torch.equal(found[CAVITY], probabilities[CAVITY])
    assert float(found[EDEMA].max()) == 0
    assert torch.allclose(found.sum(0), torch.ones(()))


def test_cavity_and_background_take_the_place_of_false_tumour_in_proportion() -> None:
    probabilities = torch.tensor([0.2, 0.0, 0.3, 0.0, 0.5]).view(-1, 1, 1, 1).repeat(1, 1, 1, 3)
    probabilities[:, 0, 0, 2] = torch.tensor([0.0, 0.0, 1.0, 0.0, 0.0])  # where nothing else is possible
    found = without_tumor(probabilities, torch.tensor([[[True, False, True]]]))
    assert found[:, 0, 0].T.tolist() == [
        pytest.approx([0.2 / 0.7, 0, 0, 0, 0.5 / 0.7]),
        pytest.approx([0.2, 0, 0.3, 0, 0.5]),
        [1, 0, 0, 0, 0],
    ]


def test_a_cavity_that_one_view_takes_for_tumour_stays_one() -> None:
    probabilities = torch.zeros(2, len(CLASSES) + 1, 6, 6, 6)
    probabilities[0, EDEMA], probabilities[0, CAVITY] = 0.9, 0.05
    probabilities[1, EDEMA], probabilities[1, CAVITY] = 0.1, 0.85
    probabilities[:, 0] = 0.05
    assert bool((classes_of_probabilities(agreed_tumor(*probabilities)[0]) == CAVITY).all())


def test_what_lies_between_a_cavity_and_an_enhancing_wall_is_no_core() -> None:
    distance = np.linalg.norm(np.indices((21, 21, 21)) - 10, axis=0)
    array = np.where(distance < 3, CAVITY, np.where((distance >= 5) & (distance < 7), ENHANCING, 0))
    assert np.array_equal(sitk.GetArrayFromImage(with_enclosed_core(labelled(array))), array)


def test_a_dark_cavity_is_not_taken_for_healthy_brain() -> None:
    probabilities, t1ce, brain = bright_rim()
    expected = with_bright_enhancing(probabilities, t1ce, None, brain, 1.0)
    cavity = brain & (torch.arange(24)[:, None, None] < 14) & (probabilities[0] == 1)
    with_cavity = torch.cat([probabilities, 0.9 * cavity[None].float()])
    with_cavity[0] -= with_cavity[CAVITY]
    dark = torch.where(cavity, -30.0, t1ce)
    found = with_bright_enhancing(with_cavity, dark, None, brain, 1.0)
    assert torch.equal(found[CAVITY], with_cavity[CAVITY])
    assert float(found[ENHANCING].sum() / expected[ENHANCING].sum()) == pytest.approx(1, abs=0.1)


def test_without_healthy_brain_nothing_is_decided() -> None:
    probabilities, t1ce, brain = bright_rim()
    everywhere = torch.zeros_like(probabilities)
    everywhere[EDEMA] = 1
    assert torch.equal(with_bright_enhancing(everywhere, t1ce, None, brain, 1.0), everywhere)
    found, removed = without_faint_tumor(everywhere, t1ce, brain, 1.0)
    assert torch.equal(found, everywhere)
    assert not bool(removed.any())


def test_tumour_that_one_view_hardly_sees_is_left_out_of_the_average() -> None:
    z, y, x = (torch.from_numpy(axis) - 19.5 for axis in np.indices((40, 40, 40)))
    both, once = (((x - centre) ** 2 + y**2 + z**2).sqrt() < 6 for centre in (-10, 10))
    views = []
    for seen in (both, both | once):
        view = torch.zeros(len(CLASSES), 40, 40, 40)
        view[EDEMA] = torch.where(seen, 0.9, torch.where(once, 0.2, 0.0))  # together the second one has 0.55
        view[0] = 1 - view[EDEMA]
        views.append(view)
    assert torch.equal(classes_of_probabilities((views[0] + views[1]) / 2) > 0, both | once)
    for first, second in (views, reversed(views)):
        found, left_out = agreed_tumor(first, second)
        assert torch.equal(classes_of_probabilities(found) > 0, both)
        assert torch.equal(left_out, once)
        assert torch.allclose(found.sum(0), torch.ones(()))
    assert torch.equal(agreed_tumor(views[1], views[1])[0], views[1])


def test_views_may_differ_in_the_extent_of_a_tumour() -> None:
    probabilities = torch.zeros(2, len(CLASSES), 10, 10, 10)
    probabilities[0, EDEMA, :4] = 0.9  # two fifths of what the other view calls tumour
    probabilities[1, EDEMA] = 0.9
    probabilities[0, EDEMA, 4:] = 0.2
    probabilities[:, 0] = 1 - probabilities[:, EDEMA]
    assert bool((classes_of_probabilities(agreed_tumor(*probabilities)[0]) == EDEMA).all())
    probabilities[0, EDEMA, 2:4] = 0.2  # one fifth
    probabilities[0, 0] = 1 - probabilities[0, EDEMA]
    assert not bool((classes_of_probabilities(agreed_tumor(*probabilities)[0]) == EDEMA).any())
