"""Preprocessing of studies into normalised tensors on an RAS grid, and refusal of unusable studies."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from joint_studies import TURNS, HeadStudy, head_grid

from JointRegSegLib.images import head_mask
from JointRegSegLib.images import study as study_images
from JointRegSegLib.images.brain_mask import estimate_brain_mask
from JointRegSegLib.images.grid import WorkingGrid
from JointRegSegLib.images.modalities import MODALITIES
from JointRegSegLib.images.normalization import (
    LANDMARK_PERCENTILES,
    NORMALIZATIONS,
    background_value,
    histogram_landmarks,
    normalize,
)
from JointRegSegLib.images.preprocessing import (
    PreprocessingConfig,
    brain_grid,
    correct_bias,
    labels_on_grid,
    prepare_study,
)
from JointRegSegLib.images.study import StudyImages, checked_study
from JointRegSegLib.synthesis.phantom import RADII_MM, TUMOR_CENTER_MM, make_visit

COARSE = PreprocessingConfig(spacing_mm=4.0, multiple_of=8)


@pytest.fixture(scope="module")
def study() -> HeadStudy:
    return HeadStudy.of("axial")


def images_of(study: HeadStudy, modalities: tuple[str, ...] = ("t1", "flair")) -> dict[str, sitk.Image]:
    return {m: study.image(m) for m in modalities}


def brain_of(study: HeadStudy) -> sitk.Image:
    return study.grid.to_sitk(study.visit.brain.astype(np.uint8))


def ras_points(grid: WorkingGrid) -> np.ndarray:
    """Return the RAS positions (D, H, W, 3) in mm of the voxels of a working grid, by its definition."""
    k, j, i = np.meshgrid(*(np.arange(n) for n in grid.shape), indexing="ij")
    first = np.array(grid.origin_lps_mm) * [-1, -1, 1]
    return first + grid.spacing_mm * np.stack([i, j, k], axis=-1)


def edited(image: sitk.Image, change) -> sitk.Image:
    """Return a copy of an image with a changed array."""
    array = sitk.GetArrayFromImage(image)
    changed = sitk.GetImageFromArray(change(array))
    changed.CopyInformation(image)
    return changed


# --- tensors ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("turn", TURNS)
def test_axes_run_to_superior_anterior_and_right_whatever_the_file(turn: str) -> None:
    """The image shows x + 2 y + 3 z of RAS positions in mm, in a ball; a line fit undoes the normalisation."""
    grid = head_grid(turn)
    k, j, i = np.meshgrid(*(np.arange(n) for n in grid.shape), indexing="ij")
    at = np.stack([i, j, k], axis=-1) @ grid.ijk_to_ras[:3, :3].T + grid.ijk_to_ras[:3, 3]
    image = grid.to_sitk((at @ [1.0, 2.0, 3.0]).astype(np.float32))
    ball = grid.to_sitk((np.linalg.norm(at, axis=-1) < 45).astype(np.uint8))
    prepared = prepare_study({"t1": image}, ball, COARSE)
    inside = prepared.mask.numpy()
    found = prepared.images[0].numpy()[inside]
    expected = (ras_points(prepared.grid) @ [1.0, 2.0, 3.0])[inside]
    slope, offset = np.polyfit(found, expected, 1)
    assert slope > 0
    assert np.abs(slope * found + offset - expected).max() < 0.1


@pytest.mark.parametrize("turn", [t for t in TURNS if t != "axial"])
def test_the_same_anatomy_gives_the_same_tensor(study: HeadStudy, turn: str) -> None:
    mask = brain_of(study)
    first = prepare_study(images_of(study), mask, COARSE)
    other = HeadStudy.of(turn)
    second = prepare_study(images_of(other), brain_of(other), COARSE, grid=first.grid)
    both = (first.mask & second.mask).numpy()
    assert both.sum() > 0.95 * first.mask.sum()
    assert np.corrcoef(first.images[0].numpy()[both], second.images[0].numpy()[both])[0, 1] > 0.75


@pytest.mark.parametrize(
    ("margin", "multiple", "least"),
    [(0, 1, 0), (6, 1, 6), (30, 1, 30), (0, 16, 0), (2, 16, 2), (6, 16, 2), (10, 16, 6), (30, 16, 26)],
)
def test_the_grid_keeps_the_margin_around_the_brain(margin: float, multiple: int, least: float) -> None:
    brain = sitk.Image(130, 140, 125, sitk.sitkUInt8) + 1
    grid = brain_grid([(brain, None)], PreprocessingConfig(crop_margin_mm=margin, multiple_of=multiple), brain)
    assert grid.size == tuple(-(-(n + 2 * least) // multiple) * multiple for n in (130, 140, 125))


def test_no_study_is_refused_for_a_margin_that_its_grid_does_not_have() -> None:
    brain = sitk.Image(40, 40, 40, sitk.sitkUInt8) + 1
    grid = brain_grid([(brain, None)], PreprocessingConfig(), brain, largest=48**3)
    assert grid.shape == (48, 48, 48)


@pytest.mark.parametrize(
    ("landmarks", "problem"),
    [
        ([0.0, 1.0], "histogram_landmarks: t1 has 2 landmarks but needs 11"),
        (["a"] * 11, "histogram_landmarks: t1: a landmark is 'a', which is not a number"),
        ([float("nan")] * 11, "histogram_landmarks: t1: a landmark is not finite"),
        ([3.0] * 11, "histogram_landmarks: t1: every landmark must be larger than the one before it"),
        ([1, 0, *range(2, 11)], "histogram_landmarks: t1: every landmark must be larger than the one before it"),
    ],
)
def test_landmarks_that_cannot_be_used_are_named(landmarks: list, problem: str) -> None:
    with pytest.raises(ValueError, match=f"^preprocessing: {problem}$"):
        PreprocessingConfig.from_dict({"normalisation": "histogram", "histogram_landmarks": {"t1": landmarks}})


def test_an_aligned_image_keeps_its_voxels() -> None:
    generator = np.random.default_rng(0)
    array = generator.uniform(50, 150, (44, 52, 48)).astype(np.float32)
    image = sitk.GetImageFromArray(array)  # LPS, 1 mm
    image.SetOrigin((-3.25, 7.5, 0.125))
    mask = sitk.GetImageFromArray(np.pad(np.ones((30, 36, 34), np.uint8), 7 * np.ones((3, 2), int)))
    mask = sitk.Resample(mask, image.GetSize(), sitk.Transform(3, sitk.sitkIdentity), sitk.sitkNearestNeighbor)
    mask.CopyInformation(image)
    prepared = prepare_study({"t2": image}, mask, PreprocessingConfig())
    inside = array[sitk.GetArrayFromImage(mask) > 0]
    expected = np.flip((array - inside.mean()) / inside.std(), (1, 2))  # to RAS
    assert all(n % 16 == 0 for n in prepared.grid.shape)
    values = np.sort(prepared.images[2][prepared.mask].numpy())
    assert np.allclose(values, np.sort(expected[np.flip(sitk.GetArrayFromImage(mask), (1, 2)) > 0]), atol=1e-5)


def test_absent_modalities_and_voxels_outside_the_brain_have_the_background_value(study: HeadStudy) -> None:
    prepared = prepare_study(images_of(study), brain_of(study), COARSE)
    assert prepared.present == ("t1", "flair")
    assert prepared.images.shape[0] == len(MODALITIES)
    assert (prepared.images[[1, 2]] == -3).all()
    assert (prepared.images[:, ~prepared.mask] == -3).all()
    assert prepared.images[0][prepared.mask].mean().abs() < 0.02
    assert abs(prepared.images[0][prepared.mask].std() - 1) < 0.05


def test_modalities_of_a_study_may_lie_on_different_grids() -> None:
    first, other = HeadStudy.of("axial"), HeadStudy.of("left-handed oblique", spacing_mm=(3.0, 4.0, 6.0))
    mixed = prepare_study({"t1": first.image("t1"), "t2": other.image("t2")}, brain_of(first), COARSE)
    same = prepare_study(images_of(first, ("t1", "t2")), brain_of(first), COARSE)
    assert mixed.grid == same.grid
    inside = same.mask.numpy()
    assert np.corrcoef(mixed.images[2].numpy()[inside], same.images[2].numpy()[inside])[0, 1] > 0.75


def test_a_study_is_resampled_to_another_grid_through_a_transform(study: HeadStudy) -> None:
    """A shifted image together with the transform that describes the shift gives the tensor of the original."""
    shift = (12.0, -8.0, 20.0)
    first = prepare_study(images_of(study), brain_of(study), COARSE)
    moved = {m: sitk.Image(image) for m, image in images_of(study).items()}
    mask = sitk.Image(brain_of(study))
    for image in (*moved.values(), mask):
        image.SetOrigin(tuple(np.add(image.GetOrigin(), shift)))
    second = prepare_study(moved, mask, COARSE, first.grid, sitk.TranslationTransform(3, shift))
    assert torch.equal(first.mask, second.mask)
    assert torch.allclose(first.images, second.images, atol=1e-3)


def test_millilitres_of_a_voxel_are_those_of_the_study(study: HeadStudy) -> None:
    larger = sitk.AffineTransform(3)
    larger.Scale((1.1, 1.0, 1.2))
    larger.SetTranslation((5.0, 0.0, 0.0))
    prepared = prepare_study(images_of(study), brain_of(study), COARSE)
    assert prepared.voxel_ml == pytest.approx(COARSE.spacing_mm**3 / 1000)
    assert replace(prepared, transform=larger).voxel_ml == pytest.approx(1.1 * 1.2 * COARSE.spacing_mm**3 / 1000)


def test_images_finer_than_the_grid_are_smoothed_before_resampling() -> None:
    generator = np.random.default_rng(1)
    noise = sitk.GetImageFromArray(generator.normal(100, 10, (60, 60, 60)).astype(np.float32))
    mask = sitk.GetImageFromArray(np.ones((60, 60, 60), np.uint8))
    mask.CopyInformation(noise)
    config = PreprocessingConfig(spacing_mm=3.0, multiple_of=4, normalisation="zscore_crop")
    from JointRegSegLib.images.preprocessing import _on_grid, brain_grid

    grid = brain_grid([(mask, None)], config, noise)
    values, seen = _on_grid(noise, grid, None, "linear")
    inner = seen & (np.abs(values - 100) < 60)
    assert values[inner].std() < 4  # without smoothing, the standard deviation would be 10


def test_labels_keep_their_place_and_volume(study: HeadStudy) -> None:
    prepared = prepare_study(images_of(study), brain_of(study), COARSE)
    fine = WorkingGrid(tuple(2 * n for n in prepared.grid.shape), 2.0, prepared.grid.origin_lps_mm)
    found = labels_on_grid(study.grid.to_sitk(study.visit.labels), fine).numpy()
    at = ras_points(fine)
    expected = make_visit(fine.shape, _matrix(fine)).labels
    for number in (1, 2, 3):
        assert (found == number).sum() == pytest.approx((expected == number).sum(), rel=0.3)
    assert np.linalg.norm(at[found == 1].mean(axis=0) - TUMOR_CENTER_MM) < 2
    assert found.dtype == np.uint8


def _matrix(grid: WorkingGrid) -> np.ndarray:
    matrix = np.diag([grid.spacing_mm] * 3 + [1.0])
    matrix[:3, 3] = np.array(grid.origin_lps_mm) * [-1, -1, 1]
    return matrix


# --- normalisation ---------------------------------------------------------------------------------------------------


def random_brain() -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(2)
    values = generator.gamma(4, 50, (20, 20, 20)).astype(np.float32)
    mask = np.zeros(values.shape, bool)
    mask[3:-3, 3:-3, 3:-3] = True
    return values, mask


@pytest.mark.parametrize("method", NORMALIZATIONS)
def test_normalised_images_do_not_depend_on_the_scanners_scale(method: str) -> None:
    values, mask = random_brain()
    values = values * mask
    first, second = normalize(values, mask, method), normalize(7.5 * values, mask, method)
    assert np.allclose(first, second, atol=1e-3)
    if method != "zscore_crop":
        assert (first[~mask] == background_value(method)).all()


def test_zscores_are_clipped() -> None:
    values, mask = random_brain()
    values[10, 10, 10] = 1e6
    assert normalize(values, mask, "zscore").max() == 6


def test_percentiles_become_zero_and_one() -> None:
    values, mask = random_brain()
    found = normalize(values, mask, "percentile")
    assert (found.min(), found.max()) == (0, 1)
    assert np.isclose((found[mask] == 1).mean(), 0.01, atol=2e-3)


def test_histograms_of_different_shapes_become_equal() -> None:
    values, mask = random_brain()
    found = [normalize(v, mask, "histogram")[mask] for v in (values, np.sqrt(values), values**2)]
    quantiles = [np.percentile(f, LANDMARK_PERCENTILES) for f in found]
    assert np.allclose(quantiles[0], quantiles[1], atol=0.02)
    assert np.allclose(quantiles[0], quantiles[2], atol=0.02)


def test_histogram_landmarks_are_learned_from_a_cohort() -> None:
    values, mask = random_brain()
    learned = histogram_landmarks([values[mask], 3 * values[mask] + 5])
    found = normalize(values, mask, "histogram", learned)[mask]
    assert np.allclose(np.percentile(found, LANDMARK_PERCENTILES), learned, atol=0.02)
    assert np.allclose(found, normalize(values, mask, "zscore")[mask], atol=0.05)


def test_the_published_normalisation_includes_the_background() -> None:
    values, mask = random_brain()
    crop = np.where(mask, values, 0)
    assert np.allclose(normalize(values, mask, "zscore_crop"), (crop - crop.mean()) / crop.std(), atol=1e-4)


def test_images_without_the_bias_correction_are_kept_beside_the_corrected_ones(study: HeadStudy) -> None:
    plain, corrected = (
        prepare_study(images_of(study), brain_of(study), replace(COARSE, n4=n4)) for n4 in (False, True)
    )
    assert plain.uncorrected is None
    assert corrected.bias_corrected
    assert torch.equal(corrected.uncorrected, plain.images)
    assert not torch.equal(corrected.images, plain.images)


def test_bias_correction_makes_a_tissue_more_uniform() -> None:
    grid = WorkingGrid((32, 32, 32), 4.0, (62.0, 62.0, -62.0))
    at = np.stack(np.meshgrid(*[np.linspace(-1, 1, 32)] * 3, indexing="ij"), -1)
    mask = np.linalg.norm(at, axis=-1) < 0.9
    tissue = np.where(np.sin(9 * at[..., 0]) * np.cos(8 * at[..., 1]) > 0, 100.0, 60.0)
    biased = (tissue * np.exp(0.4 * at[..., 2] + 0.2 * at[..., 0]) * mask).astype(np.float32)
    corrected = correct_bias(biased, mask, grid)
    bright = mask & (tissue > 80)
    before, after = (v[bright].std() / v[bright].mean() for v in (biased, corrected))
    assert after < 0.6 * before


def test_settings_can_be_stored_as_json_and_unknown_ones_are_named() -> None:
    config = PreprocessingConfig(normalisation="histogram", histogram_landmarks={"t1": tuple(range(-5, 6))})
    again = PreprocessingConfig.from_dict(json.loads(json.dumps(config.to_dict())))
    assert again.to_dict() == config.to_dict()
    with pytest.raises(ValueError, match="preprocessing: unknown keys colour; use spacing_mm, normalisation, n4"):
        PreprocessingConfig.from_dict({"colour": 1})
    with pytest.raises(ValueError, match="histogram_landmarks: unknown modality 'pet'; use t1"):
        PreprocessingConfig(histogram_landmarks={"pet": (0.0, 1.0)})
    with pytest.raises(ValueError, match="normalisation 'rank' is unknown"):
        PreprocessingConfig(normalisation="rank")


# --- brain mask ------------------------------------------------------------------------------------------------------


def test_the_brain_of_stripped_images_is_what_differs_from_the_background(study: HeadStudy) -> None:
    speck = edited(study.image("t1"), lambda a: _with(a, (1, 1, 1), 900.0))  # noise outside
    hole = edited(study.image("flair"), lambda a: _with(a, tuple(n // 2 for n in a.shape), 0.0))
    found = estimate_brain_mask(StudyImages({"t1": speck, "flair": hole}))
    assert found.stripped
    assert not found.warnings
    assert np.array_equal(sitk.GetArrayFromImage(found.mask) > 0, study.visit.brain)


def test_images_that_were_stripped_by_one_mask_have_the_brain_of_each(study: HeadStudy) -> None:
    t1, flair = images_of(study).values()
    shown = sitk.GetArrayFromImage(t1) != 0
    moved = sitk.GetImageFromArray(sitk.GetArrayFromImage(flair) * shown)
    moved.CopyInformation(t1)
    moved.SetOrigin(np.add(t1.GetOrigin(), (3.0, 0.0, 0.0)).tolist())
    alone = estimate_brain_mask(StudyImages({"t1": moved})).mask
    both = estimate_brain_mask(StudyImages({"t1": moved, "flair": t1})).mask
    resampled = sitk.Resample(estimate_brain_mask(StudyImages({"t1": t1})).mask, moved, sitk.Transform(), 1)
    assert np.array_equal(sitk.GetArrayFromImage(both), sitk.GetArrayFromImage(alone | resampled))


def _with(array: np.ndarray, index: tuple[int, ...], value: float) -> np.ndarray:
    array[index] = value
    return array


def head_with_brain() -> tuple[sitk.Image, np.ndarray]:
    """Return an oblique image of a head with noise, and its brain (D, H, W)."""
    grid = head_grid("oblique", (3.0, 3.0, 3.0))
    k, j, i = np.meshgrid(*(np.arange(n) for n in grid.shape), indexing="ij")
    at = np.stack([i, j, k], axis=-1) @ grid.ijk_to_ras[:3, :3].T + grid.ijk_to_ras[:3, 3]
    radius = np.linalg.norm(at / RADII_MM, axis=-1)
    brain = make_visit(grid.shape, grid.ijk_to_ras).images["t1"]
    inside = radius * 1.18  # the brain is the inner part, inside a dark skull and a bright scalp
    head = np.where(inside < 1, brain, np.where(inside < 1.09, 12.0, np.where(inside < 1.25, 140.0, 0.0)))
    noise = np.random.default_rng(3).rayleigh(3.0, grid.shape)
    return grid.to_sitk((head + noise).astype(np.float32)), inside < 1


def test_the_brain_in_a_head_is_found_with_a_warning() -> None:
    image, truth = head_with_brain()
    found = estimate_brain_mask(StudyImages({"t1": image}, name="first"))
    mask = sitk.GetArrayFromImage(found.mask) > 0
    assert not found.stripped
    assert "estimated from the head" in found.warnings[0]
    assert 2 * (mask & truth).sum() / (mask.sum() + truth.sum()) > 0.9


def test_the_brain_in_a_head_does_not_depend_on_the_value_of_the_air(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(head_mask, "_STEPS", 30)
    image, _ = head_with_brain()
    values = sitk.GetArrayViewFromImage(image)
    from_zero = image - float(values.min())
    standardized = sitk.Cast((image - float(values.mean())) / float(values.std()), sitk.sitkFloat32)
    masks = [sitk.GetArrayFromImage(head_mask.brain_in_head(i)[0]) for i in (from_zero, standardized)]
    assert (masks[0] != masks[1]).sum() < 0.005 * masks[0].sum()  # rounding


@pytest.mark.parametrize("visit", [1, 2])
def test_a_slab_of_a_head_in_air_of_zero_is_not_taken_for_a_stripped_brain(visit: int, shared_data) -> None:
    """It has 2600 and 2980 ml, less than a whole head."""
    folder = "data/brain/multiple_sclerosis/long_patient01"
    image = sitk.ReadImage(str(shared_data(f"{folder}/raw/study{visit}_T1W.nii.gz")), sitk.sitkFloat32)
    found = estimate_brain_mask(StudyImages({"t1": image}))
    assert not found.stripped
    volume_ml = sitk.GetArrayFromImage(found.mask).sum() * np.prod(image.GetSpacing()) / 1000
    assert 1200 < volume_ml < 1500


def test_pure_noise_has_no_brain() -> None:
    noise = np.random.default_rng(4).rayleigh(10, (40, 40, 40)).astype(np.float32)
    image = sitk.GetImageFromArray(noise)
    image.SetSpacing((1.5, 1.5, 1.5))
    with pytest.raises(ValueError, match=r"no brain was found in the t1 image of the first study.*give a brain mask"):
        estimate_brain_mask(StudyImages({"t1": image}, name="first"))


# --- bad input -------------------------------------------------------------------------------------------------------


def refused(study: StudyImages) -> str:
    with pytest.raises(ValueError, match=r"\S") as caught:
        checked_study(study)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_bad_images_are_refused_in_one_sentence_that_names_them(study: HeadStudy) -> None:
    good = study.image("t1")
    first = StudyImages({"t1": good}, name="first")
    assert "no image" in refused(replace(first, images={}))
    assert "'pet'" in refused(replace(first, images={"t1": good, "pet": good}))
    constant = edited(good, lambda a: np.full_like(a, 7))
    assert refused(replace(first, images={"t1": constant})).startswith("the t1 image of the first study is constant (7")
    holes = edited(good, lambda a: np.where(np.arange(a.size).reshape(a.shape) % 100 > 0, np.nan, a))
    assert "not finite in 99 % of its voxels" in refused(replace(first, images={"t1": holes}))
    assert "too small (5 x" in refused(replace(first, images={"t1": good[:5]}))
    vector = sitk.Compose(good, good)
    assert "3-D with 2 values per voxel" in refused(replace(first, images={"t1": vector}))
    assert "2-D" in refused(replace(first, images={"t1": good[:, :, 3]}))
    far = sitk.Image(good)
    far.SetOrigin((900.0, 0.0, 0.0))
    message = refused(replace(first, images={"t1": good, "t2": far}))
    assert "the t2 image of the first study lies elsewhere in space than the t1 image" in message
    empty = sitk.Image(good.GetSize(), sitk.sitkUInt8)
    empty.CopyInformation(good)
    assert "brain mask of the first study is empty" in refused(replace(first, brain_mask=empty))
    empty.SetOrigin((900.0, 0.0, 0.0))
    assert "brain mask of the first study lies elsewhere" in refused(replace(first, brain_mask=empty))


def test_skewed_axes_are_refused(study: HeadStudy) -> None:
    skewed = sitk.Image(study.image("t1"))
    direction = np.array(skewed.GetDirection()).reshape(3, 3) @ np.array([[1, 0.2, 0], [0, 1, 0], [0, 0, 1.0]])
    skewed.SetDirection(direction.ravel().tolist())
    assert "not perpendicular" in refused(StudyImages({"t1": skewed}, name="first"))


def test_huge_volumes_are_refused_with_the_memory_they_need(study: HeadStudy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(study_images, "LARGEST_VOXELS", 1000)
    message = refused(StudyImages({"t1": study.image("t1")}, name="first"))
    assert "voxels, which needs" in message
    assert "crop or resample" in message


def test_non_finite_voxels_become_background_with_a_warning(study: HeadStudy) -> None:
    holes = edited(study.image("t1"), lambda a: np.where(study.visit.brain, a, np.nan))
    holes = edited(holes, lambda a: _with(a, tuple(n // 2 for n in a.shape), np.inf))
    checked, notes = checked_study(StudyImages({"t1": holes}, name="first"))
    array = sitk.GetArrayFromImage(checked.images["t1"])
    assert np.isfinite(array).all()
    assert array[~study.visit.brain].max() == array.min()
    assert len(notes) == 1
    assert "the t1 image of the first study has" in notes[0]


def test_voxels_of_a_mask_that_are_not_finite_do_not_belong_to_it(study: HeadStudy) -> None:
    mask = edited(sitk.Cast(brain_of(study), sitk.sitkFloat32), lambda a: np.where(a != 0, a, np.nan))
    checked, notes = checked_study(StudyImages(images_of(study), mask, name="first", left_out=mask))
    for found in (checked.brain_mask, checked.left_out):
        assert found is not None
        assert found.GetPixelID() == sitk.sitkUInt8
        assert np.array_equal(sitk.GetArrayFromImage(found) != 0, study.visit.brain)
    assert "the brain mask of the first study has" in notes[0]
    assert "that are not finite; they do not belong to it" in notes[0]
    prepared = prepare_study(images_of(study), mask, COARSE)
    assert torch.equal(prepared.mask, prepare_study(images_of(study), brain_of(study), COARSE).mask)


def test_an_image_that_does_not_vary_in_the_brain_is_refused(study: HeadStudy) -> None:
    flat = edited(study.image("t1"), lambda a: np.where(study.visit.brain, 50, np.arange(a.size).reshape(a.shape) % 9))
    mask = sitk.BinaryErode(brain_of(study), [2] * 3)
    with pytest.raises(ValueError, match="the t1 image of the first study is constant inside the brain"):
        prepare_study({"t1": flat}, mask, COARSE, name="first")


def test_a_brain_outside_the_working_grid_is_refused(study: HeadStudy) -> None:
    grid = WorkingGrid((16, 16, 16), 4.0, (2000.0, 0.0, 0.0))
    with pytest.raises(ValueError, match="brain of the first study lies outside the working grid"):
        prepare_study(images_of(study), brain_of(study), COARSE, grid, name="first")
