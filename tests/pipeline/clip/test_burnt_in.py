"""Writing that stands still is counted, scenes are not: on generated overlays, and on real films with and without."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from matplotlib.font_manager import findfont
from PIL import Image, ImageDraw, ImageFont

from pipeline.clip.burnt_in import BurntInTap
from pipeline.demo.portrait import Camera, film_photograph, photograph
from pipeline.fetch.probe import probe
from pipeline.media.decode import iter_frames
from schemas.base import Box
from schemas.config import ProbeConfig
from schemas.quality import QualityConfig
from tests.helpers.release_items import make_clip

SIZE = 256
FACE = (80.0, 60.0, 176.0, 180.0)
CLEAN = 3.0  # what scenes without writing measured at most
NOWHERE = (-90.0, -90.0, -50.0, -50.0)


def overlay_of(frames, face=FACE, size=SIZE, config=None):
    plan = make_clip(num_frames=len(frames)).plan
    x0, y0, x1, y1 = face
    square, box = Box(x0=0, y0=0, x1=SIZE, y1=SIZE), Box(x0=x0, y0=y0, x1=x1, y1=y1)
    meter = BurntInTap(plan.model_copy(update={"square": square, "face": box}), size, config or QualityConfig())
    for frame in frames:
        meter.add(np.ascontiguousarray(frame), (0.0, 0.0, 1.0, 1.0))
    return meter.overlay


def scene(num=16, size=SIZE):
    """The astronaut before a hand-held camera."""
    picture = photograph("astronaut")
    zoom = 1.3 * size / SIZE
    return [
        film_photograph(picture, Camera((226.0 + 8 * np.sin(k / 3), 130.0 + 4 * np.cos(k / 2)), zoom), (size, size))
        for k in range(num)
    ]


def writing(text, letter_px, at, size=SIZE, sharper=4):
    """How much of every pixel ``text`` covers, 0 to 1; ``at`` is where it begins, shares of the picture."""
    drawn = Image.new("L", (size * sharper, size * sharper), 0)
    font = ImageFont.truetype(findfont("DejaVu Sans:bold"), int(letter_px * sharper / 0.73))  # .73 em high
    ImageDraw.Draw(drawn).text((at[0] * size * sharper, at[1] * size * sharper), text, font=font, fill=255)
    return np.asarray(drawn.resize((size, size), Image.Resampling.BOX), np.float64)[..., None] / 255


def burnt(frames, letters, opacity=1.0, level=255):
    mixed = [np.uint8(frame * (1 - opacity * letters) + level * opacity * letters) for frame in frames]
    return [cv2.imdecode(cv2.imencode(".jpg", frame, (cv2.IMWRITE_JPEG_QUALITY, 85))[1], 1) for frame in mixed]


SUBTITLE = ("I never said that he would", 12, (0.03, 0.9))
LOGO = ("NEWS 24", 10, (0.65, 0.04))


def test_a_scene_without_writing_has_none():
    assert overlay_of(scene()) <= CLEAN


@pytest.mark.parametrize("opacity", [1.0, 0.6, 0.35])
@pytest.mark.parametrize("letter_px", [8, 12, 16])
def test_subtitles_are_long_lines(letter_px, opacity):
    assert overlay_of(burnt(scene(), writing(SUBTITLE[0], letter_px, (0.03, 0.88)), opacity)) >= 10


@pytest.mark.parametrize("opacity", [1.0, 0.6])
def test_logos_are_short_lines(opacity):
    assert CLEAN < overlay_of(burnt(scene(), writing(*LOGO), opacity)) < 15


@pytest.mark.parametrize("level", [0, 255])
def test_dark_letters_count_as_bright_ones_do(level):
    grey = [np.full((SIZE, SIZE, 3), 128, np.uint8)] * 4
    assert overlay_of(burnt(grey, writing(*SUBTITLE), level=level)) >= 20


def test_writing_that_moves_with_the_scene_is_part_of_it():
    picture = photograph("astronaut").copy()
    letters = writing("I never said that he would come", 12, (0.1, 0.55), size=512)
    picture = (picture * (1 - letters) + 255 * letters).astype(np.uint8)
    still = [film_photograph(picture, Camera((226.0, 230.0), 1.3), (SIZE, SIZE))] * 16
    moving = [film_photograph(picture, Camera((226.0 + 3 * k, 230.0 + k), 1.3), (SIZE, SIZE)) for k in range(16)]
    assert overlay_of(still, NOWHERE) > 2 * CLEAN
    assert overlay_of(moving, NOWHERE) <= CLEAN


def test_nothing_is_looked_for_in_the_face():
    frames = burnt([np.full((SIZE, SIZE, 3), 128, np.uint8)] * 4, writing("said he", 12, (0.4, 0.5)))
    assert overlay_of(frames, NOWHERE) > CLEAN
    assert overlay_of(frames, (90.0, 110.0, 200.0, 170.0)) == 0


def test_the_order_of_frames_does_not_matter():
    frames = burnt(scene(), writing(*LOGO), 0.6)
    assert overlay_of(frames) == overlay_of(frames[::-1])


def test_small_crops_are_measured_as_large_ones():
    found = []
    for size in (128, SIZE):
        letters = writing("HELLO THERE", 16 * size / SIZE, (0.05, 0.85), size)
        found.append(overlay_of(burnt(scene(size=size), letters), size=size))
    assert all(one > 10 for one in found)
    assert found[0] == pytest.approx(found[1], rel=0.35)


@pytest.mark.parametrize("num", [1, 2, 3])
def test_few_frames_are_enough(num):
    assert overlay_of(burnt(scene(num), writing(*SUBTITLE))) >= 10


def test_only_the_asked_number_of_frames_is_looked_at():
    frames = burnt(scene(9), writing(*SUBTITLE))
    blank = [np.full((SIZE, SIZE, 3), 128, np.uint8)] * 9
    mixed = [frames[k] if k in {0, 8} else blank[k] for k in range(9)]
    assert overlay_of(mixed, config=QualityConfig(num_overlay_frames=2)) >= 10
    assert overlay_of(mixed, config=QualityConfig(num_overlay_frames=3)) == 0


# --- real films ---

# Squares of films by hand: left, top, side, and the face in them; pixels of the film.
TALKERS = {
    "WDA_AlexandriaOcasioCortez_000.mp4": ((0, 0, 512), (140, 80, 360, 400)),
    "tps_driving.mp4": ((0, 0, 410), (110, 90, 300, 330)),
    "bbaf2n.mpg": ((70, 30, 230), (110, 70, 230, 230)),
    "dog_22.mp4": ((240, 0, 540), (400, 120, 640, 480)),
}


def squares(path: Path, left, top, side, stride=5, num=16):
    video = probe(path, "film", "0" * 64, ProbeConfig())
    found = []
    for number, frame in enumerate(iter_frames(path, video)):
        if number % stride == 0:
            image = frame.to_array((video.width_px, video.height_px), "rgb24")[top : top + side, left : left + side]
            how = cv2.INTER_AREA if side > SIZE else cv2.INTER_CUBIC
            found.append(cv2.resize(image, (SIZE, SIZE), interpolation=how))
        if len(found) == num:
            break
    return found


@pytest.mark.assets
def test_real_talkers_without_and_with_overlays(assets):
    clean, hits = [], {"subtitle": [], "logo": [], "faint logo": []}
    for name, ((left, top, side), face) in TALKERS.items():
        frames = squares(assets / "video" / name, left, top, side)
        at = [(edge - origin) * SIZE / side for edge, origin in zip(face, (left, top, left, top), strict=True)]
        clean.append(overlay_of(frames, at))
        for opacity in (1.0, 0.6, 0.35):
            for letter_px in (8, 12, 16):
                letters = writing(SUBTITLE[0], letter_px, (0.03, 0.88))
                hits["subtitle"].append(overlay_of(burnt(frames, letters, opacity), at))
            for letter_px in (8, 10, 14):
                found = overlay_of(burnt(frames, writing("NEWS 24", letter_px, (0.6, 0.03)), opacity), at)
                hits["logo" if opacity > 0.5 else "faint logo"].append(found)
    shares = {kind: float(np.mean(np.array(found) > CLEAN)) for kind, found in hits.items()}
    print(f"clean {clean}, above {CLEAN}: {shares}")
    assert max(clean) <= CLEAN
    assert shares["subtitle"] >= 0.9
    assert shares["logo"] >= 0.85
    assert shares["faint logo"] >= 0.6


@pytest.mark.assets
def test_a_watermark_that_is_there_is_found(assets):
    path = assets / "video" / "penny_and_chip_beach_surfing.mp4"
    assert overlay_of(squares(path, 800, 240, 480), NOWHERE) > CLEAN
