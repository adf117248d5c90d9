"""Motion is carried over as its equations say, frame by frame, and being quick changes nothing."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn.utils import parametrize

from schemas.errors import UsageError
from tests.helpers.animation import SMALL, films_frames, random_weights_stand_in
from training.engine.animator import AnimateConfig, Animator
from training.networks.geometry import head_degrees, head_rotation
from training.networks.inference import folded
from training.recipes.anytalk.config import TINY
from training.recipes.anytalk.driver import AnyTalkDriver
from training.recipes.anytalk.moves import Placing, placing, relative, seen_from, unlikeness
from training.recipes.base import Driving

ANGLES = st.floats(-80, 80)
EXACT = 1e-5


pytestmark = pytest.mark.usefixtures("one_thread_in_torch")


@pytest.fixture(scope="module")
def model():
    return random_weights_stand_in()


@pytest.fixture(scope="module")
def driver(model):
    return AnyTalkDriver(model)


def pictures(frames):
    return Driving(pictures=frames.float() / 255)


def points(animator, frames, reference=None):
    """Where the source's keypoints go."""
    motion = animator.follow(pictures(frames))
    motion = animator.driver.carried(animator.looked, motion, reference, animator.config)
    return motion.points(animator.looked.canonical.points)


@pytest.fixture(scope="module")
def film():
    return films_frames(7)


def somewhere(seed, count=1, keypoints=5):
    """Heads anywhere."""
    numbers = torch.Generator().manual_seed(seed)
    degrees = (torch.rand(count, 3, generator=numbers) - 0.5) * 90
    return Placing(
        head_rotation(degrees),
        torch.randn(count, 3, generator=numbers) * 0.2,
        torch.randn(count, keypoints, 3, generator=numbers) * 0.1,
    )


def close(first, second, within=EXACT):
    return all(torch.allclose(a, b, atol=within) for a, b in zip(first, second, strict=True))


# ---- whose motion ----------------------------------------------------------------------------------------------------


@given(ANGLES, ANGLES, ANGLES, st.sampled_from(["xyz", "zyx"]), st.sampled_from([-1, 1]))
def test_angles_come_back_from_their_rotation(yaw, pitch, roll, order, sign):
    degrees = torch.tensor([[yaw, pitch, roll]])
    assert torch.allclose(head_degrees(head_rotation(degrees, order, sign), order, sign), degrees, atol=2e-3)


@given(st.integers(0, 10_000), st.floats(0, 3))
def test_a_driving_head_that_stays_leaves_the_source_as_it_is(seed, multiplier):
    source, driving = somewhere(seed), somewhere(seed + 1)
    assert close(relative(source, driving, driving, multiplier), source)


@given(st.integers(0, 10_000))
def test_relative_to_a_frame_like_the_source_is_absolute(seed):
    source, driving = somewhere(seed), somewhere(seed + 1, count=3)
    assert close(relative(source, driving, source), driving)


@given(st.integers(0, 10_000))
def test_changes_follow_one_another(seed):
    """From the reference to a frame and from there to another is from the reference to the other."""
    source, reference, middle, last = (somewhere(seed + index) for index in range(4))
    step = relative(source, middle, reference)
    assert close(relative(step, last, middle), relative(source, last, reference))


def test_the_multiplier_is_of_the_expression_alone():
    source, driving, reference = (somewhere(index) for index in range(3))
    once, twice = (relative(source, driving, reference, by) for by in (1, 2))
    assert close(once[:2], twice[:2])
    change = once.deformation - source.deformation
    assert torch.allclose(twice.deformation - source.deformation, 2 * change, atol=EXACT)


@pytest.mark.parametrize("order", ["xyz", "zyx"])
def test_a_view_replaces_the_angles_it_names(order):
    config = TINY.model_copy(update={"euler_order": order})
    degrees = torch.tensor([[31.0, -8.0, 5.0], [-12.0, 3.0, 20.0]])
    heads = somewhere(0, count=2)._replace(rotation=head_rotation(degrees, order))
    assert seen_from(heads, None, None, None, config) is heads
    for column, angles in enumerate([(20.0, None, None), (None, 10.0, None), (None, None, -15.0)]):
        viewed = seen_from(heads, *angles, config)
        wanted = degrees.clone()
        wanted[:, column] = angles[column]
        assert torch.allclose(head_degrees(viewed.rotation, order), wanted, atol=1e-3)
        assert close(viewed[1:], heads[1:])


def test_a_view_turns_the_nose_as_labels_mean_it():
    """POSE_CONVENTION: yaw up to image left, pitch up to image top, roll clockwise on screen; y is down."""
    nose, ear = torch.tensor([0.0, 0.0, -1.0]), torch.tensor([1.0, 0.0, 0.0])
    canonical = torch.stack([nose, ear])[None]
    frontal = Placing(torch.eye(3)[None], torch.zeros(1, 3), torch.zeros(1, 2, 3))
    turned = {
        name: seen_from(frontal, *angles, TINY).points(canonical)[0]
        for name, angles in {"yaw": (20, None, None), "pitch": (None, 20, None), "roll": (None, None, 20)}.items()
    }
    assert turned["yaw"][0, 0] == pytest.approx(-math.sin(math.radians(20)), abs=EXACT)
    assert turned["pitch"][0, 1] == pytest.approx(-math.sin(math.radians(20)), abs=EXACT)
    assert turned["roll"][1, 1] == pytest.approx(math.sin(math.radians(20)), abs=EXACT)


@given(st.integers(0, 10_000), st.floats(0.3, 3), st.floats(-1, 1))
def test_unlikeness_knows_neither_place_nor_size(seed, factor, shift):
    source, points = somewhere(seed).deformation, somewhere(seed + 1, count=4).deformation
    away = unlikeness(points, source)
    assert torch.allclose(unlikeness(points * factor + shift, source), away, atol=1e-4)
    assert float(unlikeness(source * factor + shift, source)) < 1e-4
    assert bool((away >= 0).all())
    assert bool((away <= 2 + EXACT).all())


# ---- an animator -----------------------------------------------------------------------------------------------------


def test_absolute_motion_of_the_source_itself_is_its_own_points(driver, film):
    animator = Animator(driver, film[0])
    assert torch.allclose(points(animator, film[0][None]), animator.looked.points, atol=EXACT)


def test_relative_to_a_constant_film_the_source_stays(driver, film):
    animator = Animator(driver, film[0], AnimateConfig(relative=True, motion_multiplier=2.0))
    still = film[3][None].expand(2, -1, -1, -1)
    reference = animator.follow(pictures(still[:1]))
    there = points(animator, still, reference)
    assert torch.allclose(there, animator.looked.points.expand_as(there), atol=EXACT)
    own = driver.model.render(animator.looked, animator.looked.points)[0]
    rendered = list(animator.frames([film[3]] * 2))
    assert all(torch.equal(picture, (own * 255).round().byte()) for picture in rendered)


def test_another_driving_frame_is_another_picture(driver, film):
    for config in (AnimateConfig(), AnimateConfig(relative=True), AnimateConfig(yaw_deg=20.0)):
        rendered = list(Animator(driver, film[0], config).frames(film))
        assert len(rendered) == len(film)
        assert all(picture.shape == film[0].shape and picture.dtype == torch.uint8 for picture in rendered)
        assert not torch.equal(rendered[0], rendered[-1])


@pytest.mark.parametrize("relative_motion", [False, True])
def test_batches_of_any_size_give_the_same_pictures(driver, film, relative_motion):
    def rendered(size):
        config = AnimateConfig(batch_size=size, relative=relative_motion)
        return torch.stack(list(Animator(driver, film[0], config).frames(film)))

    single = rendered(1)
    for size in (2, 3, 7, 50):
        difference = (rendered(size).int() - single.int()).abs()
        assert int(difference.max()) <= 1, size  # rounding of sums in another order
        assert float((difference > 0).float().mean()) < 0.01


def test_frames_are_asked_for_as_they_are_used(driver, film):
    """An endless film is no trouble, and no more than a batch is read ahead."""
    read = 0

    def endless():
        nonlocal read
        while True:
            read += 1
            yield film[read % len(film)]

    pictures = Animator(driver, film[0], AnimateConfig(batch_size=2)).frames(endless())
    for num_taken in range(1, 6):
        next(pictures)
        assert read <= num_taken + 1


def test_the_nearest_frame_is_the_one_most_like_the_source(driver, film):
    source = film[4]
    for size in (1, 3):
        animator = Animator(driver, source, AnimateConfig(relative=True, batch_size=size))
        number, reference = animator.nearest(film)
        assert number == 4
        assert close(reference, placing(animator.looked.motion, driver.model.config))
    with pytest.raises(UsageError, match="no driving frame"):
        animator.nearest([])


def test_what_does_not_fit_is_said(driver, film):
    with pytest.raises(UsageError, match=r"\(3, 32, 32\)"):
        Animator(driver, film[0][:, :16])
    with pytest.raises(UsageError, match=r"torch\.float32"):
        list(Animator(driver, film[0]).frames([film[0].float()]))
    for needs in ({"half": True}, {"graph": True}):
        with pytest.raises(UsageError, match="need a GPU"):
            Animator(driver, film[0], AnimateConfig(**needs))
    with pytest.raises(UsageError, match="needs a GPU"):
        driver.faster(half=True)


@pytest.mark.parametrize(
    ("angles", "doubt"),
    [
        ({"yaw_deg": 45.0, "pitch_deg": -20.0, "roll_deg": 20.0}, None),
        ({"yaw_deg": -46.0}, "yaw -46°: pictures fall apart beyond yaw ±45°, pitch ±20°, roll ±20°"),
        ({"pitch_deg": 21.0, "roll_deg": -25.0}, "pitch 21° and roll -25°: "),
    ],
)
def test_views_beyond_what_holds_are_doubted(angles, doubt):
    doubts = AnimateConfig(**angles).doubts
    assert doubts is None if doubt is None else doubts is not None and doubts.startswith(doubt)


# ---- being quick -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("changes", [{}, {"generator": "plain"}, {"image_px": 64}], ids=["spade", "plain", "doubled"])
def test_folded_networks_compute_the_same(changes):
    config = SMALL.model_copy(update=changes)
    model = random_weights_stand_in(config)
    quick = AnyTalkDriver(model).faster().model
    frames = torch.stack(films_frames(3, config.image_px)).float() / 255
    assert any(map(parametrize.is_parametrized, model.modules())) == (config.generator == "spade")
    assert not any(parametrize.is_parametrized(module) for module in quick.modules())
    for ours, theirs in zip(quick.follow(frames), model.follow(frames), strict=True):
        assert torch.allclose(ours, theirs, atol=1e-3)
    folded_look, plain_look = quick.look(frames[:1]), model.look(frames[:1])
    assert torch.allclose(folded_look.features, plain_look.features, atol=1e-4)
    assert torch.allclose(folded_look.canonical.points, plain_look.canonical.points, atol=1e-4)
    points = plain_look.points + 0.1
    assert torch.allclose(quick.render(folded_look, points), model.render(plain_look, points), atol=1e-4)


def test_only_norms_before_a_convolution_are_left():
    model = AnyTalkDriver(random_weights_stand_in()).faster().model
    left = [name for name, module in model.named_modules() if isinstance(module, (nn.BatchNorm2d, nn.BatchNorm3d))]
    assert left == [f"appearance.solid.{block}.body.0" for block in range(SMALL.appearance_blocks)]
    assert folded(model) is model


def test_the_order_in_memory_changes_nothing(driver, film):
    usual, last = (
        torch.stack(list(Animator(driver.faster(**order), film[0]).frames(film[:3])))
        for order in ({}, {"channels_last": True, "channels_last_3d": True})
    )
    assert int((usual.int() - last.int()).abs().max()) <= 1


def test_a_prepared_model_is_a_copy(model):
    before = {name: value.clone() for name, value in model.state_dict().items()}
    AnyTalkDriver(model).faster()
    assert before.keys() == model.state_dict().keys()
    assert all(torch.equal(value, model.state_dict()[name]) for name, value in before.items())


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_on_a_gpu_half_precision_and_recorded_steps_give_nearly_the_same(driver, film):
    there = torch.device("cuda")
    usual = torch.stack(list(Animator(driver, film[0]).frames(film))).int()
    half = AnyTalkDriver(random_weights_stand_in().to(there)).faster(half=True, channels_last=True)
    rendered = {}
    for graph in (False, True):
        config = AnimateConfig(batch_size=3, half=True, graph=graph)  # the last batch is no full one
        rendered[graph] = torch.stack(list(Animator(half, film[0], config).frames(film))).int()
        assert float((rendered[graph].cpu() - usual).abs().float().mean()) < 3
    assert int((rendered[True] - rendered[False]).abs().max()) <= 1
