"""Colourfulness: laws of the measure, a photograph with and without its colours, and clips that were asked or not."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.build.results import Results, load_build, results_of
from pipeline.build.survey import survey
from pipeline.clip.colour import ColourTap, colourfulness
from pipeline.clip.meters import keys_of
from pipeline.clip.trim import trim_clip
from pipeline.demo.portrait import photograph
from pipeline.models.registry import ModelSet
from pipeline.store.workspace import Workspace
from schemas.base import FrameSpan
from schemas.colour import ColourConfig
from schemas.config import BuildConfig
from tests.helpers import films as films_module
from tests.helpers.films import TALKER, build, write_manifest

films = films_module.films  # a fixture
BOX = (0.0, 0.0, 1.0, 1.0)
levels = st.integers(0, 255)


def grey(picture):
    return np.repeat(picture.mean(axis=2, keepdims=True).astype(np.uint8), 3, axis=2)


def noise(seed: int):
    return np.random.default_rng(seed).integers(0, 256, (16, 16, 3), np.uint8)


# --- laws ---


@given(st.integers(0, 1000))
def test_a_grey_picture_has_no_colour_however_bright(seed):
    assert colourfulness(grey(noise(seed))) == 0


@given(levels, levels, levels)
def test_one_colour_all_over_counts_by_its_distance_from_grey(red, green, blue):
    picture = np.full((8, 8, 3), (red, green, blue), np.uint8)
    assert colourfulness(picture) == pytest.approx(0.3 * np.hypot(red - green, (red + green) / 2 - blue), abs=1e-9)


@given(st.integers(0, 1000), st.permutations(range(256)))
def test_it_does_not_matter_where_the_colours_are(seed, order):
    picture = noise(seed)
    moved = picture.reshape(256, 3)[list(order)].reshape(16, 16, 3)
    assert colourfulness(moved) == pytest.approx(colourfulness(picture), rel=1e-9)


@given(st.integers(0, 1000), st.integers(2, 5))
def test_so_many_times_the_levels_are_so_many_times_as_colourful(seed, parts):
    picture = noise(seed)
    assert colourfulness(picture // parts * parts) == pytest.approx(parts * colourfulness(picture // parts))


# --- examples ---


def test_half_red_and_half_green_by_hand():
    picture = np.zeros((2, 2, 3), np.uint8)
    picture[0, :, 0], picture[1, :, 1] = 200, 200
    # rg is +200 and -200 (spread 200, mean 0); yb is 100 throughout.
    assert colourfulness(picture) == pytest.approx(200 + 0.3 * 100)


def test_a_photograph_with_and_without_its_colours():
    astronaut = photograph("astronaut")
    washed = (astronaut.astype(float) * 0.2 + grey(astronaut) * 0.8).astype(np.uint8)
    assert colourfulness(astronaut) > 33  # more than moderately, by the paper's table
    assert 3 < colourfulness(washed) < 15
    assert colourfulness(grey(astronaut)) == 0


def test_a_flash_does_not_count():
    dull, bright = grey(noise(1)), noise(2)
    tap = ColourTap(40, 8)
    for number in range(40):
        tap.add(bright if 10 <= number < 20 else dull, BOX)
    assert tap.colourfulness == 0


@pytest.mark.parametrize(("num_frames", "num_looks"), [(1, 8), (3, 8), (8, 8), (40, 1)])
def test_short_clips_are_looked_at_too(num_frames, num_looks):
    tap, picture = ColourTap(num_frames, num_looks), noise(3)
    for _ in range(num_frames):
        tap.add(picture, BOX)
    assert tap.colourfulness == pytest.approx(colourfulness(picture))


# --- clips ---


def test_off_it_is_in_no_configuration_and_no_key():
    assert "colour" not in BuildConfig().model_dump_json()
    assert keys_of(BuildConfig(), "real") == []
    assert keys_of(BuildConfig(colour=ColourConfig()), "real") == [["colour", {"num_frames": 8}]]


@pytest.fixture(scope="module")
def asked(films, tmp_path_factory) -> tuple[Workspace, Results]:
    """The small astronaut, built with its colour measured."""
    folder = tmp_path_factory.mktemp("colour")
    source = {"id": "talker", "uri": str(films / "talker.mp4"), "domain": "real", "license": TALKER.license}
    manifest = write_manifest(folder / "manifest.yaml", [source])
    assert build(manifest, folder / "ws", "--set", "colour.num_frames=4") == 0
    workspace = Workspace(folder / "ws")
    return workspace, results_of(workspace, load_build(workspace))


def test_a_clip_of_a_coloured_film_says_so_and_so_does_its_part(asked, tmp_path):
    workspace, results = asked
    [finished] = survey(results, load_build(workspace).sources).clips
    whole = finished.clip.scores.colourfulness
    assert whole is not None
    assert 15 < whole < 109
    models = ModelSet(results.model_files)
    span = FrameSpan(start=5, stop=60)
    part, _ = trim_clip(finished.clip, span, lambda name: finished.read(workspace, name), "real", models, tmp_path)
    assert part.scores.colourfulness == pytest.approx(whole, rel=0.1)


def test_on_it_makes_clips_anew_and_nothing_before_them(asked):
    workspace, results = asked
    plain = Results(workspace, results.config.model_copy(update={"colour": None}))
    [source] = load_build(workspace).sources
    assert plain.video(source) is not None
    assert survey(plain, [source]).clips == []
    assert survey(plain, [source]).num_tracks == 1
