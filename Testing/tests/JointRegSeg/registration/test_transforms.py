"""Deformations of the working grid as transforms between studies of any geometry."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from joint_studies import rimmed_sphere

from JointRegSegLib.images.grid import RAS_DIRECTION, WorkingGrid, grid_around, labels_to_native, to_native
from JointRegSegLib.registration.deformation import (
    Deformation,
    integrate_velocity,
    inverse_error,
    invert_displacement,
    resize_displacement,
)
from JointRegSegLib.registration.transforms import (
    PairTransform,
    balanced_inverse,
    displacement_image,
    displacement_of,
    is_identity,
    jacobian_image,
    nearer_inverse,
    on_other_grid,
    pair_transform,
    square_root,
    warp_image,
    warp_label_image,
)

GRID = WorkingGrid((24, 32, 28), 2.0, (30.0, 35.0, -20.0))


def rotation(degrees: tuple[float, float, float]) -> np.ndarray:
    transform = sitk.Euler3DTransform()
    transform.SetRotation(*np.radians(degrees))
    return np.array(transform.GetMatrix()).reshape(3, 3)


NATIVE = {
    "axial RAS": (np.array(RAS_DIRECTION).reshape(3, 3), (1.7, 1.7, 1.7)),
    "LPS anisotropic": (np.eye(3), (1.1, 1.3, 4.0)),
    "oblique": (rotation((20, -35, 10)), (1.6, 2.2, 1.2)),
    "sagittal": (np.array([[0.0, 0, 1], [1, 0, 0], [0, -1, 0]]), (1.5, 1.5, 3.0)),
    "left-handed": (rotation((5, 10, -15)) @ np.diag([1.0, -1, 1]), (1.4, 1.8, 2.4)),
}


def native_grid(name: str, center: np.ndarray, extent_mm: float = 44.0) -> sitk.Image:
    """Return an empty image with a named orientation, centred on a point and about ``extent_mm`` wide."""
    direction, spacing = NATIVE[name]
    size = np.ceil(extent_mm / np.array(spacing)).astype(int)
    image = sitk.Image(size.tolist(), sitk.sitkFloat32)
    image.SetSpacing(spacing)
    image.SetDirection(direction.ravel().tolist())
    image.SetOrigin((center - direction @ (np.array(spacing) * (size - 1) / 2)).tolist())
    return image


def points(image: sitk.Image) -> np.ndarray:
    """Return the positions of all voxels in LPS mm, (n, 3), in the order of the array."""
    index = np.stack(np.meshgrid(*[np.arange(n) for n in reversed(image.GetSize())], indexing="ij"), -1).reshape(-1, 3)
    matrix = np.array(image.GetDirection()).reshape(3, 3) * image.GetSpacing()
    return index[:, ::-1] @ matrix.T + image.GetOrigin()


def with_values(image: sitk.Image, values: np.ndarray) -> sitk.Image:
    filled = sitk.GetImageFromArray(values.reshape(tuple(reversed(image.GetSize()))).astype(np.float32))
    filled.CopyInformation(image)
    return filled


def center_of(grid: WorkingGrid) -> np.ndarray:
    return np.array(grid.origin_lps_mm) + np.array([-1, -1, 1]) * (np.array(grid.size) - 1) / 2 * grid.spacing_mm


CENTER = center_of(GRID)


def known_displacement_mm(at: np.ndarray) -> np.ndarray:
    """Return a smooth displacement of up to 4 mm at points (n, 3), in LPS mm."""
    x, y, z = ((at - CENTER) / 30).T
    return np.stack([3 * np.sin(x + 2 * y), 2.5 * np.cos(1.5 * z) * np.exp(-(x**2)), 4 * np.sin(y - z + 0.3)], -1)


def known_affine() -> sitk.AffineTransform:
    affine = sitk.AffineTransform(3)
    affine.SetMatrix((rotation((10, -6, 14)) @ np.diag([1.04, 0.97, 1.02])).ravel().tolist())
    affine.SetTranslation((25.0, -60.0, 12.0))
    return affine


def affine_map(at: np.ndarray) -> np.ndarray:
    affine = known_affine()
    return at @ np.array(affine.GetMatrix()).reshape(3, 3).T + np.array(affine.GetTranslation())


@pytest.fixture(scope="module")
def known() -> PairTransform:
    """Build the transform of the known displacement and the known affine map from a tensor in voxels."""
    mm = known_displacement_mm(points(GRID.to_sitk(np.zeros(GRID.shape, np.float32)))).reshape(*GRID.shape, 3)
    voxels = np.stack([mm[..., 2], -mm[..., 1], -mm[..., 0]]) / GRID.spacing_mm
    displacement = torch.from_numpy(voxels).float()[None]
    return pair_transform(Deformation(displacement, invert_displacement(displacement)), GRID, known_affine())


def pattern(at: np.ndarray) -> np.ndarray:
    """Return smooth values at points (n, 3) of the moving space."""
    x, y, z = (at / 17).T
    return np.sin(x) + np.cos(1.3 * y) * np.sin(0.8 * z + 1) + 0.02 * x * z


@pytest.mark.parametrize("moving_name", NATIVE)
@pytest.mark.parametrize("fixed_name", NATIVE)
def test_each_voxel_of_the_warped_image_shows_the_mapped_point(
    known: PairTransform, fixed_name: str, moving_name: str
) -> None:
    """The images hold their LPS coordinates, which linear interpolation reproduces exactly."""
    fixed = native_grid(fixed_name, CENTER, 30)
    moving = native_grid(moving_name, affine_map(CENTER[None])[0], 80)
    at = points(fixed)
    inside = np.abs(at - CENTER).max(axis=1) < 21  # within the displacement field
    expected = affine_map(at + known_displacement_mm(at))
    for axis in range(3):
        warped = warp_image(with_values(moving, points(moving)[:, axis]), fixed, known.moving_to_fixed)
        found = sitk.GetArrayFromImage(warped).ravel()
        assert inside.sum() > 500
        assert np.abs(found - expected[:, axis])[inside].max() < 0.1 * min(moving.GetSpacing())


def test_points_are_mapped_as_by_the_tensor(known: PairTransform) -> None:
    at = CENTER + np.random.default_rng(1).uniform(-20, 20, (200, 3))
    found = np.array([known.moving_to_fixed.TransformPoint(p.tolist()) for p in at])
    assert np.abs(found - affine_map(at + known_displacement_mm(at))).max() < 0.06


def test_the_inverse_returns_to_the_start(known: PairTransform) -> None:
    at = CENTER + np.random.default_rng(2).uniform(-18, 18, (200, 3))
    mapped = [known.moving_to_fixed.TransformPoint(p.tolist()) for p in at]
    back = np.array([known.fixed_to_moving.TransformPoint(p) for p in mapped])
    assert np.abs(back - at).max() < 0.02 * GRID.spacing_mm


def test_a_given_inverse_is_used() -> None:
    generator = torch.Generator().manual_seed(0)
    velocity = torch.nn.functional.interpolate(
        torch.randn(1, 3, 3, 3, 3, generator=generator), size=GRID.shape, mode="trilinear", align_corners=True
    )
    forward, backward = integrate_velocity(velocity), integrate_velocity(-velocity)
    pair = pair_transform(Deformation(forward, backward), GRID, known_affine())
    at = CENTER + np.random.default_rng(3).uniform(-15, 15, (100, 3))
    mapped = [pair.moving_to_fixed.TransformPoint(p.tolist()) for p in at]
    assert np.abs(np.array([pair.fixed_to_moving.TransformPoint(p) for p in mapped]) - at).max() < 0.1


@pytest.mark.parametrize("which", ["displacement", "inverse"])
def test_a_deformation_that_is_not_finite_is_refused(which: str) -> None:
    fields = {name: torch.zeros(1, 3, *GRID.shape) for name in ("displacement", "inverse")}
    fields[which][0, 0, 8, 8, 8] = float("nan")
    with pytest.raises(ValueError, match="the deformation is not finite"):
        pair_transform(Deformation(**fields), GRID, sitk.AffineTransform(3))


def test_beyond_the_field_only_the_affine_map_remains(known: PairTransform) -> None:
    far = CENTER + np.array([[200.0, 0, 0], [0, -300, 0], [150, 150, 150]])
    found = np.array([known.moving_to_fixed.TransformPoint(p.tolist()) for p in far])
    assert np.allclose(found, affine_map(far), atol=1e-9)


def test_the_field_is_continuous_and_zero_on_its_border(known: PairTransform) -> None:
    for transform, number in ((known.moving_to_fixed, 1), (known.fixed_to_moving, 0)):
        field = sitk.DisplacementFieldTransform(transform.GetNthTransform(number)).GetDisplacementField()
        array = sitk.GetArrayFromImage(field)
        for axis in range(3):
            assert not array.take([0, -1], axis).any()
    steps = [known.displacement.diff(dim=axis).abs().amax() for axis in (2, 3, 4)]
    assert max(steps) < 1  # in voxels per voxel: the field does not fold where it fades


@pytest.mark.parametrize("name", NATIVE)
def test_the_jacobian_is_that_of_the_whole_map(known: PairTransform, name: str) -> None:
    native = native_grid(name, CENTER, 30)
    at = points(native)
    step = 1e-4
    columns = [
        (affine_map(at + d + known_displacement_mm(at + d)) - affine_map(at - d + known_displacement_mm(at - d)))
        / (2 * step)
        for d in np.eye(3) * step
    ]
    expected = np.linalg.det(np.stack(columns, axis=-1))
    found = sitk.GetArrayFromImage(jacobian_image(known, native)).ravel()
    inside = np.abs(at - CENTER).max(axis=1) < 20
    assert np.ptp(expected[inside]) > 0.12
    assert np.abs(found - expected)[inside].max() < 0.02


def test_a_transform_is_restored_from_a_file(known: PairTransform, tmp_path: Path) -> None:
    at = CENTER + np.random.default_rng(4).uniform(-40, 40, (200, 3))
    for name, transform in (
        ("moving_to_fixed.h5", known.moving_to_fixed),
        ("fixed_to_moving.h5", known.fixed_to_moving),
    ):
        sitk.WriteTransform(transform, str(tmp_path / name))
        read = sitk.ReadTransform(str(tmp_path / name))
        for point in at.tolist():
            assert read.TransformPoint(point) == transform.TransformPoint(point)


def test_displacements_are_restored_from_vector_images() -> None:
    displacement = torch.randn(3, *GRID.shape, generator=torch.Generator().manual_seed(5))
    assert torch.allclose(displacement_of(displacement_image(displacement, GRID)), displacement, atol=1e-6)


@pytest.mark.parametrize("factor", [2, 4])
def test_fields_interpolated_from_blocks_of_voxels_are_stored_in_those_blocks(factor: int) -> None:
    generator = torch.Generator().manual_seed(6)
    smooth = torch.randn(1, 3, 4, 5, 4, generator=generator)
    size = [n // factor for n in GRID.shape]
    coarse = torch.nn.functional.interpolate(smooth, size=size, mode="trilinear", align_corners=True)
    full = resize_displacement(coarse, GRID.shape)
    pair = pair_transform(Deformation(full, -full), GRID, sitk.AffineTransform(3))
    assert pair.grid.spacing_mm == factor * GRID.spacing_mm
    index = np.argwhere(np.ones(GRID.shape))[::37]
    index = index[((index > 1) & (index < np.array(GRID.shape) - 2)).all(axis=1)]
    grid_image = GRID.to_sitk(np.zeros(GRID.shape, np.float32))
    for k, j, i in index:
        at = np.array(grid_image.TransformIndexToPhysicalPoint((int(i), int(j), int(k))))
        moved = np.array(pair.moving_to_fixed.TransformPoint(at.tolist())) - at
        up, front, right = full[0, :, k, j, i].numpy() * GRID.spacing_mm
        assert np.allclose(moved, [-right, -front, up], atol=0.03 * GRID.spacing_mm)


def test_an_approximate_inverse_is_improved() -> None:
    generator = torch.Generator().manual_seed(8)
    coarse = 2 * torch.randn(1, 3, 6, 8, 7, generator=generator)
    forward, backward = (resize_displacement(integrate_velocity(v), GRID.shape) for v in (coarse / 4, -coarse / 4))
    before, after = inverse_error(forward, backward), inverse_error(forward, nearer_inverse(forward, backward))
    inner = (..., slice(4, -4), slice(4, -4), slice(4, -4))
    assert after[inner].mean() < 0.3 * before[inner].mean()
    assert before[inner].mean() > 0.02


def test_an_inverse_that_is_exact_at_the_voxels_is_improved_between_them() -> None:
    generator = torch.Generator().manual_seed(8)
    coarse = 2 * torch.randn(1, 3, 6, 8, 7, generator=generator)
    forward, backward = (resize_displacement(integrate_velocity(v), GRID.shape) for v in (coarse / 4, -coarse / 4))
    exact = nearer_inverse(forward, backward, steps=6, enough=0.0)
    fine = [2 * size for size in GRID.shape]
    finer = resize_displacement(forward, fine)
    inner = (..., slice(8, -8), slice(8, -8), slice(8, -8))
    before, after = (
        inverse_error(finer, resize_displacement(found, fine))[inner] / 2
        for found in (exact, balanced_inverse(forward, exact))
    )
    assert after.mean() < 0.9 * before.mean()


def test_rough_fields_are_stored_at_full_resolution() -> None:
    rough = 0.3 * torch.randn(1, 3, *GRID.shape, generator=torch.Generator().manual_seed(7))
    assert pair_transform(Deformation(rough, -rough), GRID, sitk.AffineTransform(3)).grid.spacing_mm == GRID.spacing_mm


@pytest.mark.parametrize("degrees", [0.0, 5.0, 90.0, 170.0])
def test_a_square_root_applied_twice_is_the_map_and_that_of_the_inverse_is_its_inverse(degrees: float) -> None:
    affine = known_affine()
    affine.SetMatrix((rotation((0, 0, degrees)) @ np.diag([1.04, 0.97, 1.02])).ravel().tolist())
    root, inverse = square_root(affine), square_root(sitk.AffineTransform(affine.GetInverse()))
    assert root is not None
    assert inverse is not None
    for point in ((0.0, 0.0, 0.0), (30.0, -70.0, 12.0)):
        half = root.TransformPoint(point)
        assert np.allclose(root.TransformPoint(half), affine.TransformPoint(point), atol=1e-6)
        assert np.allclose(inverse.TransformPoint(half), point, atol=1e-6)


def test_a_half_turn_has_no_single_square_root() -> None:
    affine = sitk.AffineTransform(3)
    assert is_identity(affine)
    affine.SetMatrix(np.diag([-1.0, -1.0, 1.0]).ravel().tolist())
    assert not is_identity(affine)
    assert square_root(affine) is None


@pytest.mark.parametrize("shape", [(24, 32, 28), (23, 31, 27)])
def test_a_displacement_in_other_coordinates_moves_the_same_points(shape: tuple[int, int, int]) -> None:
    to_grid = square_root(known_affine())
    assert to_grid is not None
    back = to_grid.GetInverse()
    middle = np.array(back.TransformPoint(CENTER.tolist()))
    origin = middle - np.array([-1, -1, 1]) * (np.array(shape[::-1]) - 1) / 2 * GRID.spacing_mm
    other = WorkingGrid(shape, GRID.spacing_mm, tuple(origin.tolist()))
    mm = known_displacement_mm(points(GRID.to_sitk(np.zeros(GRID.shape, np.float32)))).reshape(*GRID.shape, 3)
    u = torch.from_numpy(np.stack([mm[..., 2], -mm[..., 1], -mm[..., 0]]) / GRID.spacing_mm).float()[None]
    v = displacement_image(on_other_grid(u, GRID, to_grid, other)[0], other)
    for index in ((12, 14, 11), (9, 20, 15), (16, 10, 8)):
        x = np.array(v.TransformIndexToPhysicalPoint(index))
        moved = np.array(to_grid.TransformPoint((x + np.array(v[index])).tolist()))
        y = np.array(to_grid.TransformPoint(x.tolist()))
        assert np.allclose(moved, y + known_displacement_mm(y[None])[0], atol=0.05)


def test_a_displacement_with_another_shape_than_its_grid_is_refused() -> None:
    with pytest.raises(ValueError, match=r"not \(1, 3, 24, 32, 28\)"):
        pair_transform(Deformation(torch.zeros(1, 3, 8, 8, 8)), GRID, sitk.AffineTransform(3))


@pytest.mark.parametrize("name", NATIVE)
def test_labels_keep_their_volume_and_position_on_any_grid(name: str) -> None:
    """A ball on the working grid is resampled to a native grid and then warped by the identity."""
    at = points(GRID.to_sitk(np.zeros(GRID.shape, np.float32)))
    distance = np.linalg.norm(at - CENTER, axis=1).reshape(GRID.shape)
    labels = torch.from_numpy(np.where(distance < 8, 3, np.where(distance < 14, 2, 0)))
    shares = torch.nn.functional.one_hot(labels, 4).movedim(-1, 0).float()
    native = native_grid(name, CENTER + np.array([3, -2, 1]))
    found = labels_to_native(shares, GRID, native)
    array = sitk.GetArrayFromImage(found).ravel()
    radius = np.linalg.norm(points(native) - CENTER, axis=1)
    assert found.GetPixelID() == sitk.sitkUInt8
    voxel = np.linalg.norm([GRID.spacing_mm] * 3) / 2
    assert (array[radius < 8 - voxel] == 3).all()
    assert (array[(radius > 8 + voxel) & (radius < 14 - voxel)] == 2).all()
    assert not array[radius > 14 + voxel].any()
    volume = (array > 0).sum() * np.prod(native.GetSpacing())
    assert volume == pytest.approx(4 / 3 * np.pi * 14**3, rel=0.05)
    same = warp_label_image(found, native, sitk.Transform(3, sitk.sitkIdentity))
    assert np.array_equal(sitk.GetArrayFromImage(same).ravel(), array)


@pytest.mark.parametrize(("spacing_mm", "shift_mm"), [(1.0, 0.5), (2.0, 0.5)])
def test_warped_labels_keep_their_volume_where_voxels_lie_between_two_classes(
    spacing_mm: float, shift_mm: float
) -> None:
    labels = rimmed_sphere()
    other = sitk.Image([round(48 / spacing_mm)] * 3, sitk.sitkUInt8)
    other.SetSpacing([spacing_mm] * 3)
    other.SetOrigin([shift_mm] * 3)
    found = sitk.GetArrayFromImage(warp_label_image(labels, other, sitk.Transform(3, sitk.sitkIdentity)))
    for classes in ((1, 2, 3), (1, 3), (3,)):
        expected = np.isin(sitk.GetArrayViewFromImage(labels), classes).sum()
        assert np.isin(found, classes).sum() * spacing_mm**3 == pytest.approx(expected, rel=0.03)


def test_voxels_beyond_the_working_grid_are_background() -> None:
    shares = torch.zeros(4, *GRID.shape)
    shares[0] = 1
    shares[0, :3, :3, :3], shares[1, :3, :3, :3] = 0, 1
    native = native_grid("oblique", CENTER + 300)
    assert not sitk.GetArrayFromImage(labels_to_native(shares, GRID, native)).any()


def test_values_are_resampled_to_a_study_through_its_transform() -> None:
    """The affine map brought the moving study to the working grid; its inverse takes the results back."""
    at = points(GRID.to_sitk(np.zeros(GRID.shape, np.float32)))
    values = torch.from_numpy(pattern(affine_map(at)).reshape(GRID.shape))
    native = native_grid("left-handed", affine_map(CENTER[None])[0], 24)
    found = to_native(values, GRID, native, known_affine().GetInverse())
    assert np.abs(sitk.GetArrayFromImage(found).ravel() - pattern(points(native))).max() < 0.02


def test_the_grid_coincides_with_the_voxels_of_an_aligned_image() -> None:
    corners = np.array([[10.2, -30.0, 5.0], [60.0, 41.5, 70.3]])
    grid = grid_around(corners, 1.0, 6.0, 16, (0.25, -239.0, 0.5))
    offset = np.array(grid.origin_lps_mm) - [0.25, -239.0, 0.5]
    assert np.allclose(offset, np.round(offset), atol=1e-9)
    assert all(n % 16 == 0 for n in grid.shape)
    ends = np.array(grid.origin_lps_mm) + np.array([-1, -1, 1]) * (np.array(grid.size) - 1)
    low, high = np.minimum(grid.origin_lps_mm, ends), np.maximum(grid.origin_lps_mm, ends)
    assert (low - 0.5 <= corners.min(0) - 5).all()
    assert (high + 0.5 >= corners.max(0) + 5).all()


def test_a_grid_that_would_need_too_much_memory_is_refused_with_its_size() -> None:
    with pytest.raises(ValueError, match=r"\d+ x \d+ x \d+ voxels of 0.25 mm \(about \d+ GB"):
        grid_around(np.array([[0.0, 0, 0], [150, 180, 150]]), 0.25, 6.0, 16, (0, 0, 0))
