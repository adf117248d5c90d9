"""The networks have the sizes of the paper, and their parts behave as they are named."""

import pytest
import torch
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

from training.networks.blocks import ColumnConv, EnlargedConv, Shrink
from training.networks.geometry import coordinate_grid
from training.recipes.anytalk.config import ANYTALK_256, ANYTALK_256_PLAIN, ANYTALK_512, SMALL, TINY, ModelConfig
from training.recipes.anytalk.learner import discriminator_of
from training.recipes.anytalk.model import AnyTalk


def build(config, network=AnyTalk):
    with torch.device("meta"):
        return network(config)


def millions(*modules):
    return sum(parameter.numel() for module in modules for parameter in module.parameters()) / 1e6


def pictures(count=2, size=64, seed=0):
    return torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(seed))


# ---- sizes -----------------------------------------------------------------------------------------------------------

SPADE, PLAIN, BIG = build(ANYTALK_256), build(ANYTALK_256_PLAIN), build(ANYTALK_512)


@pytest.mark.parametrize(
    ("count", "expected", "digits"),
    [
        (millions(SPADE.appearance), 0.84, 2),
        (millions(SPADE.keypoints), 41.9, 1),
        (millions(SPADE.motion), 30.3, 1),
        (millions(SPADE.dense_motion), 43.5, 1),
        (millions(SPADE.generator.flatten), 1.25, 2),
        (millions(SPADE.generator.decode), 55.4, 1),
        (millions(SPADE.appearance, SPADE.dense_motion, SPADE.generator), 101.0, 1),
        (millions(SPADE), 173, 0),
        (millions(PLAIN.appearance, PLAIN.dense_motion, PLAIN.generator), 53.1, 1),
        (millions(BIG.generator.decode), 55.37, 2),
        (millions(build(ANYTALK_256, discriminator_of)), 2.76, 2),
        (millions(build(ANYTALK_512, discriminator_of)), 5.52, 2),
    ],
)
def test_parameter_counts_are_the_listed_ones(count, expected, digits):
    assert round(count, digits) == expected


def flops(module, *inputs, call=None):
    counter = FlopCounterMode(display=False)
    with counter, torch.no_grad():
        result = (call or module)(*inputs)
    return counter.get_total_flops() / 1e9, result


def test_costs_and_shapes_at_256_are_the_listed_ones():
    model, frame = SPADE.eval(), torch.empty(1, 3, 256, 256, device="meta")
    cost, features = flops(model.appearance, frame)
    assert features.shape == (1, 32, 16, 64, 64)
    listed, _ = flops(build(ANYTALK_256.model_copy(update={"appearance_kernel": 3})).appearance, frame)
    assert listed == pytest.approx(64.1, abs=0.05)  # the list has the kernel of the code, the default is the figure's
    assert cost - listed == pytest.approx(2 * 256**2 * 64 * 3 * (7**2 - 3**2) / 1e9)
    cost, canonical = flops(model.keypoints, frame)
    assert canonical.points.shape == (1, 15, 3)
    assert cost == pytest.approx(38.8, abs=0.15)  # the list shrinks the picture with a kernel of 13², not 2 × 12
    cost, _ = flops(model.motion, frame)
    assert cost == pytest.approx(15.6, abs=0.05)
    cost, dense = flops(model.dense_motion, features, canonical.points, canonical.points)
    assert dense.grid.shape == (1, 16, 64, 64, 3)
    assert cost == pytest.approx(238, rel=0.01)  # ours counts the translations too, as matrix products
    cost, picture = flops(model.generator, features, dense)
    assert picture.shape == (1, 3, 256, 256)
    # Listed with every map enlarged before it is convolved, which is 4/9 and 1/4 of the work where it is not.
    doubled, quadrupled = (3 * 2 * side**2 * 9 * 256 * 128 / 1e9 for side in (128, 256))
    assert cost == pytest.approx(901 - doubled * 5 / 9 - quadrupled * 3 / 4, rel=0.003)


@pytest.mark.parametrize(
    ("config", "sides", "listed"), [(ANYTALK_256, [26], 10.7), (ANYTALK_512, [58, 26], 47.8 + 10.7)]
)
def test_the_discriminators_map_and_cost(config, sides, listed):
    frame = torch.empty(1, 3, config.image_px, config.image_px, device="meta")
    cost, judgements = flops(build(config, discriminator_of), frame)
    assert [judgement.scores.shape[-1] for judgement in judgements] == sides
    assert all(len(judgement.features) == 4 for judgement in judgements)
    assert cost == pytest.approx(listed, abs=0.1)


def test_at_512_the_feature_plane_stays_and_the_picture_grows():
    frame = torch.empty(1, 3, 512, 512, device="meta")
    rendered = BIG.eval()(frame, frame, frame)
    assert rendered.picture.shape == (1, 3, 512, 512)
    assert rendered.dense.grid.shape == (1, 16, 64, 64, 3)


def test_widths_that_do_not_fit_together_are_refused():
    with pytest.raises(ValueError, match="multiple of 128"):
        ModelConfig(image_px=192, network_px=192)
    with pytest.raises(ValueError, match="no multiple"):
        ModelConfig(image_px=320, network_px=256)


def test_halving_once_leaves_cells_of_two_pixels():
    frame = torch.empty(1, 3, 64, 64, device="meta")
    rendered = AnyTalk(SMALL).to("meta").eval()(frame, frame, frame)
    assert rendered.picture.shape == (1, 3, 64, 64)
    assert rendered.dense.grid.shape == (1, 4, 32, 32, 3)


def test_new_networks_hardly_move_keypoints_apart():
    """t and δ begin small, so that keypoints begin as the turned canonical ones."""
    torch.manual_seed(0)
    motion = AnyTalk(TINY).eval().follow(pictures())
    assert motion.translation.abs().max() < 0.1
    assert motion.deformation.abs().max() < 0.1


# ---- behaviour -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=[TINY, SMALL], ids=["tiny64", "small64"])
def tiny(request):
    torch.manual_seed(0)
    return AnyTalk(request.param).eval()


@pytest.mark.parametrize("config", [TINY, SMALL, SMALL.model_copy(update={"generator": "spade"})])
def test_every_parameter_takes_part_in_a_training_pass(config):
    torch.manual_seed(0)
    model = AnyTalk(config)
    rendered = model(pictures(), pictures(seed=1), pictures(seed=2))
    loss = rendered.picture.mean() + rendered.deformed_points.square().sum() + rendered.driving_motion.degrees.sum()
    loss.backward()
    still = [name for name, parameter in model.named_parameters() if parameter.grad is None]
    assert still == []
    assert 0 <= rendered.picture.min() <= rendered.picture.max() <= 1


def test_the_two_halves_of_inference_make_the_training_pass(tiny):
    source, driving = pictures(), pictures(seed=1)
    whole = tiny(source, driving, driving)
    looked, motion = tiny.look(source), tiny.follow(driving)
    picture = tiny.render(looked, tiny.points(looked.canonical.points, motion))
    assert torch.allclose(picture, whole.picture, atol=1e-5)


def test_equal_keypoints_leave_the_features_where_they_are(tiny):
    looked = tiny.look(pictures())
    dense = tiny.dense_motion(looked.features, looked.points, looked.points)
    assert torch.equal(dense.grid, coordinate_grid(*dense.grid.shape[1:4]).expand_as(dense.grid))


def test_moving_all_keypoints_by_one_step_moves_no_voxel_further(tiny):
    looked = tiny.look(pictures())
    moved = looked.points + torch.tensor([0.2, 0.0, 0.0])
    dense = tiny.dense_motion(looked.features, looked.points, moved)
    flow = dense.grid - coordinate_grid(*dense.grid.shape[1:4])
    assert flow[..., 0].max() < 0  # what moved right is read further left
    assert flow[..., 0].min() >= -0.2 - 1e-6
    assert flow[..., 1:].abs().max() == 0


def test_geometry_stays_single_precision_in_bfloat16(tiny):
    with torch.autocast("cpu", torch.bfloat16):
        rendered = tiny(pictures(), pictures(seed=1), pictures(seed=1))
    for values in (rendered.canonical.points, rendered.driving_points, rendered.dense.grid, *rendered.source_motion):
        assert values.dtype == torch.float32
    exact = tiny(pictures(), pictures(seed=1), pictures(seed=1))
    assert (rendered.picture.float() - exact.picture).abs().max() < 0.05


# ---- the same sums with less arithmetic ------------------------------------------------------------------------------


def gradients(loss, *of):
    return torch.autograd.grad(loss.square().sum(), of)


def noise(*shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64).requires_grad_()


@pytest.mark.parametrize("factor", [1, 2, 3, 4, 7])
@pytest.mark.parametrize("shape", [(2, 3, 5, 4), (1, 3, 1, 1)])
def test_a_map_need_not_be_enlarged_to_be_convolved(factor, shape):
    given, conv = noise(*shape), EnlargedConv(3, 6).double()
    enlarged = functional.conv2d(
        functional.interpolate(given, scale_factor=factor, mode="nearest"), conv.weight, conv.bias, padding=1
    )
    assert torch.allclose(conv(given, factor), enlarged, atol=1e-12)
    of = (given, conv.weight, conv.bias)
    for mine, theirs in zip(gradients(conv(given, factor), *of), gradients(enlarged, *of), strict=True):
        assert torch.allclose(mine, theirs, atol=1e-10)


@pytest.mark.parametrize("depth", [1, 2, 4, 5])  # a kernel of 7 spans 4 voxels from each of them, and no 5
def test_columns_are_channels_where_a_kernel_spans_them(depth):
    given, conv = noise(2, 3, depth, 6, 5), ColumnConv(3, 4, 7).double()
    solid = functional.conv3d(given, conv.weight, conv.bias, padding=3)
    assert torch.allclose(conv(given), solid, atol=1e-12)
    of = (given, conv.weight, conv.bias)
    for mine, theirs in zip(gradients(conv(given), *of), gradients(solid, *of), strict=True):
        assert torch.allclose(mine, theirs, atol=1e-10)


# ---- shrinking -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("factor", [1, 2, 4, 8])
def test_shrinking_keeps_flat_pictures_flat_and_mirrored_ones_mirrored(factor):
    shrink = Shrink(factor)
    assert torch.allclose(shrink(torch.full((1, 3, 32, 32), 0.7)), torch.tensor(0.7))
    picture = pictures(size=32)
    assert torch.allclose(shrink(picture.flip(-1)), shrink(picture).flip(-1), atol=1e-6)
    assert shrink(picture).shape[-1] == 32 // factor


def test_shrinking_takes_out_what_the_small_picture_cannot_show():
    stripes = (torch.arange(32) % 2).float().expand(1, 3, 32, 32)
    assert (Shrink(4)(stripes)[..., 2:-2, 2:-2] - 0.5).abs().max() < 0.01
