"""Geometry: grids leave pictures alone, warps go the way they say, rotations are the products they are named for."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional

from training.networks.geometry import (
    coordinate_grid,
    euler_to_matrix,
    expected_degrees,
    expected_keypoints,
    gaussian_heatmaps,
    head_rotation,
    sample,
    transform_keypoints,
    translated,
)
from training.recipes.anytalk.deformation import Deformation

ANGLES = st.floats(-1.5, 1.5)


def rotation(axis, angle):
    c, s = np.cos(angle), np.sin(angle)
    return {
        "x": np.array([[1, 0, 0], [0, c, -s], [0, s, c]]),
        "y": np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]]),
        "z": np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]]),
    }[axis]


def noise(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def blob(x, y, size=64, spread=0.08):
    """A picture of one soft dot at (x, y) in [-1, 1]."""
    grid = coordinate_grid(size, size)
    return torch.exp(-((grid - torch.tensor([x, y])) ** 2).sum(-1) / (2 * spread**2))[None, None]


def centre(picture):
    """Centre of mass of a picture in [-1, 1]."""
    mass = picture[0, 0] / picture.sum()
    return (mass[..., None] * coordinate_grid(*picture.shape[-2:])).sum((0, 1))


# ---- grids -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(64, 64), (7, 12), (16, 64, 64)])
def test_an_identity_grid_leaves_everything_as_it_was(shape):
    values = noise(2, 3, *shape)
    grid = coordinate_grid(*shape).expand(2, *shape, len(shape))
    error = (sample(values, grid) - values).abs()
    # A coordinate near 1 is off by a last bit or two, which is sides / 2 pixels as much; neighbours differ by up to 1.
    assert error.max() < 4 * torch.finfo(torch.float32).eps * sum(shape) / 2


def test_sampling_the_other_way_would_darken_the_border():
    values = torch.ones(1, 1, 8, 8)
    grid = coordinate_grid(8, 8)[None]
    assert functional.grid_sample(values, grid, align_corners=False)[0, 0, 0, 0] < 0.5
    assert sample(values, grid)[0, 0, 0, 0] == 1


def test_grids_run_x_then_y_then_z():
    grid = coordinate_grid(3, 4, 5)
    assert grid.shape == (3, 4, 5, 3)
    assert grid[0, 0, -1].tolist() == [1, -1, -1]
    assert grid[-1, 0, 0].tolist() == [-1, -1, 1]


# ---- rotations -------------------------------------------------------------------------------------------------------


@given(ANGLES, ANGLES, ANGLES)
def test_rotations_are_the_products_that_their_order_names(pitch, yaw, roll):
    about = {"x": rotation("x", pitch), "y": rotation("y", yaw), "z": rotation("z", roll)}
    angles = [torch.tensor([value]) for value in (pitch, yaw, roll)]
    for order in ("xyz", "zyx"):
        expected = about[order[0]] @ about[order[1]] @ about[order[2]]
        product = euler_to_matrix(*angles, order=order)[0]
        assert np.allclose(product, expected, atol=1e-6)
        assert np.allclose(product @ product.T, np.eye(3), atol=1e-6)


def test_the_two_orders_lie_far_apart_for_compound_angles():
    angles = [torch.tensor([value]).deg2rad() for value in (20.0, 30.0, 15.0)]
    between = euler_to_matrix(*angles, order="xyz")[0].T @ euler_to_matrix(*angles, order="zyx")[0]
    assert torch.rad2deg(torch.acos((between.trace() - 1) / 2)).item() == pytest.approx(13.8, abs=0.05)


@pytest.mark.parametrize("order", ["xyz", "zyx"])
@pytest.mark.parametrize(
    ("degrees", "axis", "sign"), [((20.0, 0, 0), 0, -1), ((0, 20.0, 0), 1, -1)], ids=["yaw is left", "pitch is up"]
)
def test_one_head_obeys_the_signs_of_yaw_and_of_pitch(order, degrees, axis, sign):
    nose = torch.tensor([0.0, 0.0, -1.0])  # toward the viewer; x right, y down
    turned = head_rotation(torch.tensor([degrees]), order)[0] @ nose
    assert turned[axis] * sign == pytest.approx(np.sin(np.deg2rad(20)))


def test_roll_is_clockwise_on_screen():
    turned = head_rotation(torch.tensor([[0.0, 0.0, 90.0]]))[0] @ torch.tensor([1.0, 0.0, 0.0])
    assert torch.allclose(turned, torch.tensor([0.0, 1.0, 0.0]), atol=1e-6)


# ---- head angles -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("offset", [97.5, 99.0])
@pytest.mark.parametrize("index", [0, 1, 32, 33, 65])
def test_one_certain_bin_is_its_own_angle(index, offset):
    logits = torch.full((1, 66), -1e4)
    logits[0, index] = 0
    assert expected_degrees(logits, offset).item() == pytest.approx(3 * index - offset, abs=1e-4)


def test_equal_bins_mean_straight_ahead_unless_the_offset_is_face_vid2vids():
    assert expected_degrees(torch.zeros(1, 66)).item() == pytest.approx(0, abs=1e-4)
    assert expected_degrees(torch.zeros(1, 66), 99.0).item() == pytest.approx(-1.5, abs=1e-4)


# ---- keypoints -------------------------------------------------------------------------------------------------------


def test_keypoints_are_rotated_then_moved_then_deformed():
    canonical = torch.tensor([[[1.0, 0, 0], [0, 1, 0]]])
    turn = torch.tensor(rotation("z", np.pi / 2), dtype=torch.float32)[None]
    turned = transform_keypoints(
        canonical, turn, torch.tensor([[0.0, 0.0, 5.0]]), torch.tensor([[[0.1, 0, 0], [0, 0, 0]]])
    )
    assert torch.allclose(turned[0], torch.tensor([[0.1, 1, 5], [-1, 0, 5]]), atol=1e-6)


def test_a_peaked_volume_gives_its_place_and_no_entropy():
    logits = torch.zeros(1, 1, 3, 5, 7)
    logits[0, 0, 2, 1, 6] = 10
    points, entropy = expected_keypoints(logits)
    assert torch.allclose(points[0, 0], torch.tensor([1.0, -0.5, 1.0]), atol=1e-5)
    assert entropy.item() == pytest.approx(0, abs=1e-4)
    flat, entropy = expected_keypoints(torch.zeros(1, 1, 3, 5, 7))
    assert torch.allclose(flat, torch.zeros(1, 1, 3), atol=1e-6)
    assert entropy.item() == pytest.approx(np.log(105), abs=1e-4)


def test_heatmaps_are_gaussians_of_the_distance():
    points = torch.rand(2, 3, 3, generator=torch.Generator().manual_seed(1)) * 2 - 1
    grid = coordinate_grid(4, 6, 8)
    squared = ((grid - points[:, :, None, None, None]) ** 2).sum(-1)
    heatmaps = gaussian_heatmaps(points, (4, 6, 8))
    assert torch.allclose(heatmaps, torch.exp(-squared / 0.02), atol=1e-6)
    assert heatmaps[heatmaps > 0].min() >= torch.finfo(torch.float32).tiny  # below it processors are slow


def test_coordinates_stay_single_precision_under_autocast():
    with torch.autocast("cpu", torch.bfloat16):
        points, entropy = expected_keypoints(torch.rand(1, 2, 4, 4, 4).bfloat16())
        turned = transform_keypoints(points, torch.eye(3)[None].bfloat16(), torch.zeros(1, 3), torch.zeros(1, 2, 3))
        assert {value.dtype for value in (points, entropy, turned, head_rotation(torch.zeros(1, 3)))} == {torch.float32}
        assert torch.equal(turned, points)


# ---- warps by translation --------------------------------------------------------------------------------------------


@given(st.integers(0, 10_000))
def test_a_translation_is_the_same_as_sampling_a_shifted_grid(seed):
    rng = torch.Generator().manual_seed(seed)
    volume = torch.rand(2, 3, 4, 6, 8, generator=rng)
    shift = torch.rand(2, 5, 3, generator=rng) * 3 - 1.5
    shift[:, 0] = 0
    moved = translated(volume, shift)
    grid = coordinate_grid(4, 6, 8) + shift[:, :, None, None, None]
    for k in range(5):
        assert (moved[:, k] - sample(volume, grid[:, k])).abs().max() < 1e-5
    assert torch.equal(moved[:, 0], volume)


def test_a_translations_gradient_is_samplings():
    volume, shift = noise(1, 2, 4, 5, 6), torch.tensor([[[0.13, -0.27, 0.31]]])
    gradients = []
    for warp in (translated, lambda v, s: sample(v, coordinate_grid(4, 5, 6) + s[:, 0, None, None, None])[:, None]):
        inputs = volume.clone().requires_grad_(), shift.clone().requires_grad_()
        (warp(*inputs) * noise(1, 1, 2, 4, 5, 6, seed=3)).sum().backward()
        gradients.append([values.grad for values in inputs])
    for mine, theirs in zip(*gradients, strict=True):
        assert torch.allclose(mine, theirs, atol=1e-4)


# ---- deformations ----------------------------------------------------------------------------------------------------


@given(st.floats(-0.5, 0.5), st.floats(-0.5, 0.5), st.integers(0, 1000))
def test_a_dot_seen_in_the_deformed_picture_lies_at_t_of_it_in_the_original(x, y, seed):
    deformation = Deformation.random(1, torch.Generator().manual_seed(seed))
    seen = centre(deformation.apply(blob(x, y)))
    back = deformation(seen[None, None])[0, 0]
    assert (back - torch.tensor([x, y])).abs().max() < 0.02


def test_the_other_direction_is_told_apart():
    affine = torch.tensor([[[1.0, 0, 0.2], [0, 1.0, 0]]])
    deformation = Deformation(affine, torch.zeros(1, 25))
    seen = centre(deformation.apply(blob(0.3, 0.1)))
    assert torch.allclose(seen, torch.tensor([0.1, 0.1]), atol=1e-3)  # reading further right moves the dot left
    assert torch.allclose(deformation(seen[None, None])[0, 0], torch.tensor([0.3, 0.1]), atol=1e-3)


def test_a_part_of_a_batchs_deformations_is_that_part():
    deformation = Deformation.random(4, torch.Generator().manual_seed(0))
    pictures = noise(4, 3, 8, 8)
    assert torch.equal(deformation.apply(pictures)[2:], deformation[2:].apply(pictures[2:]))


def test_a_deformation_without_bend_or_affine_part_is_none():
    still = Deformation(torch.eye(2, 3)[None], torch.zeros(1, 25))
    pictures = noise(1, 3, 9, 9)
    assert (still.apply(pictures) - pictures).abs().max() < 1e-6
