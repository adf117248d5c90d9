"""What trembles is told from what moves: on paths that are known, and on a photograph filmed by known cameras."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.clip.stability import HALF_TREMBLE, StabilityTap, tremble
from pipeline.demo.portrait import Camera, face_box, film_photograph, photograph
from schemas.base import Box
from tests.helpers.release_items import make_clip

SIZE = 256
coefficients = st.floats(-3, 3)


def plan_of(box, num_frames=50, scale=1.0):
    """A plan whose square is the picture itself, seen at ``scale``."""
    plan = make_clip(num_frames=num_frames).plan
    x0, y0, x1, y1 = (edge / scale for edge in box)
    square = Box(x0=0, y0=0, x1=SIZE / scale, y1=SIZE / scale)
    return plan.model_copy(update={"square": square, "face": Box(x0=x0, y0=y0, x1=x1, y1=y1)})


def filmed(centres, zoom=1.3, hold=1):
    """The astronaut before a camera that looks at ``centres`` (pixels of the photograph), each held for some frames."""
    picture, camera = photograph("astronaut"), Camera((226.0, 130.0), zoom)
    box = face_box(camera, (SIZE, SIZE))
    meter = StabilityTap(plan_of(box), SIZE)
    for x, y in centres:
        frame = film_photograph(picture, Camera((226.0 + x, 130.0 + y), zoom), (SIZE, SIZE))
        for _ in range(hold):
            meter.add(frame, (0.0, 0.0, 1.0, 1.0))
    return meter.stability, (box[3] - box[1]) / zoom


def swaying(num=60, by=8.0):
    return [(by * np.sin(k / 9), 0.5 * by * np.cos(k / 13)) for k in range(num)]


# --- laws ---


@given(st.tuples(coefficients, coefficients), st.tuples(coefficients, coefficients), st.integers(9, 80))
def test_even_movement_and_even_acceleration_do_not_tremble(speed, acceleration, num):
    time = np.arange(num, dtype=float)[:, None] / 25
    assert tremble(time * np.array(speed) + time**2 * np.array(acceleration)) < 1e-6


@given(st.integers(0, 1000), st.floats(0.01, 100), st.tuples(coefficients, coefficients))
def test_tremble_is_in_the_paths_unit_and_knows_no_place(seed, unit, place):
    path = np.random.default_rng(seed).normal(0, 1, (40, 2))
    assert tremble(path * unit + np.array(place)) == pytest.approx(tremble(path) * unit, rel=1e-6)


@given(st.integers(0, 1000))
def test_more_of_the_same_tremble_trembles_more(seed):
    path = np.random.default_rng(seed).normal(0, 1, (40, 2))
    assert tremble(path) < tremble(1.5 * path)


@pytest.mark.parametrize("num", [0, 1, 8])
def test_a_path_too_short_to_tell_does_not_tremble(num):
    assert tremble(np.random.default_rng(0).normal(0, 1, (num, 2))) == 0


# --- cases ---


def test_a_tripod_and_a_swaying_head_are_steady():
    still, _ = filmed([(0.0, 0.0)] * 30)
    assert still == pytest.approx(1)
    assert filmed(swaying())[0] > 0.85


@pytest.mark.parametrize("share", [0.01, 0.02, 0.04])
def test_stability_says_how_much_it_trembles(share):
    _, height = filmed([(0.0, 0.0)])
    # The median length of a round two-dimensional normal is 1.18 of its standard deviation.
    jumps = np.random.default_rng(0).normal(0, share * height / 1.18, (60, 2))
    found, _ = filmed([(x + a, y + b) for (x, y), (a, b) in zip(swaying(), jumps, strict=True)])
    assert found == pytest.approx(1 / (1 + share / HALF_TREMBLE), abs=0.1)


def test_drawings_that_are_held_are_as_steady_as_their_movement():
    assert filmed(swaying(40, by=4.0), hold=2)[0] > 0.85


def test_the_size_of_the_frames_does_not_matter():
    camera, path = Camera((226.0, 130.0), 1.3), np.random.default_rng(1).normal(0, 1.2, (40, 2))
    found = []
    for scale in (1, 2):
        size = (SIZE * scale, SIZE * scale)
        plan = plan_of(face_box(camera, (SIZE, SIZE)))
        meter = StabilityTap(plan, SIZE * scale)
        for x, y in path:
            view = Camera((226.0 + x, 130.0 + y), 1.3 * scale)
            meter.add(film_photograph(photograph("astronaut"), view, size), (0.0, 0.0, 1.0, 1.0))
        found.append(meter.stability)
    assert found[0] == pytest.approx(found[1], abs=0.05)


def test_pictures_without_anything_in_them_are_steady():
    meter = StabilityTap(plan_of((60, 60, 180, 200)), SIZE)
    for level in [0, 255] * 10:
        meter.add(np.full((SIZE, SIZE, 3), level, np.uint8), (0.0, 0.0, 1.0, 1.0))
    assert meter.stability == pytest.approx(1)


def test_a_face_beyond_the_edge_is_measured_on_the_whole_picture():
    meter = StabilityTap(plan_of((-300, -300, -200, -200)), SIZE)
    for _ in range(10):
        meter.add(np.full((SIZE, SIZE, 3), 9, np.uint8), (0.0, 0.0, 1.0, 1.0))
    assert meter.stability == pytest.approx(1)
