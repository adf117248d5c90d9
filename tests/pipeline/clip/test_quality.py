"""Scores mean what their names say: on pictures whose truth is known, and on films that must not be mistaken."""

import cv2
import numpy as np
import pytest

from pipeline.clip.quality import QualityTap
from pipeline.demo.portrait import Camera, film_photograph, photograph
from pipeline.fetch.probe import probe
from pipeline.media.decode import iter_frames
from schemas.config import ProbeConfig, SelectLimits

FACE = (60.0, 40.0, 200.0, 220.0)


def metered(frames, face=FACE) -> QualityTap:
    meter = QualityTap()
    for frame in frames:
        meter.add(frame, face)
    return meter


def swaying(num, *, name="astronaut", zoom=2.0, sway=20.0, size=(256, 256)) -> list[np.ndarray]:
    picture = photograph(name)
    return [film_photograph(picture, Camera((225.0 + sway * np.sin(k / 6), 150.0), zoom), size) for k in range(num)]


def test_a_still_does_not_move_and_is_held_throughout():
    meter = metered([swaying(1)[0]] * 40)
    assert (meter.motion, meter.hold_frames, meter.duplicate_frame_ratio, meter.internal_cut) == (0.0, 40.0, 1.0, 0.0)
    assert meter.motion < SelectLimits().min_motion


def test_one_frame_has_scores():
    meter = metered(swaying(1))
    assert (meter.motion, meter.hold_frames, meter.duplicate_frame_ratio, meter.internal_cut) == (0.0, 1.0, 0.0, 0.0)


@pytest.mark.parametrize("hold", [1, 2, 3])
def test_drawings_held_for_several_frames(hold):
    meter = metered([frame for frame in swaying(9) for _ in range(hold)])
    assert meter.hold_frames == hold
    assert meter.duplicate_frame_ratio == pytest.approx(1 - 1 / hold, abs=0.03)


def test_noise_of_an_encoder_is_no_new_drawing():
    rng = np.random.default_rng(0)
    frames = [np.clip(f + rng.normal(0, 1.5, f.shape), 0, 255).astype(np.uint8) for f in swaying(20) for _ in range(2)]
    assert metered(frames).hold_frames == 2


def test_a_mouth_that_moves_alone_is_a_new_drawing():
    frames = []
    for k in range(20):
        frame = swaying(1)[0].copy()
        cv2.ellipse(frame, (128, 150), (14, 2 + 2 * (k % 4)), 0, 0, 360, (60, 10, 10), -1)
        frames.append(frame)
    meter = metered(frames)
    assert meter.hold_frames == 1
    assert meter.motion > 0


@pytest.mark.parametrize("size", [256, 512])
def test_blur_lowers_sharpness(size):
    sharp = swaying(3, zoom=size / 128, size=(size, size))
    face = tuple(v * size / 256 for v in FACE)
    values = [metered([cv2.GaussianBlur(f, (0, 0), s) if s else f for f in sharp], face).sharpness for s in (0, 1.5, 4)]
    assert values[0] > 1.3 * values[1] > 1.3 * 1.3 * values[2]


def test_sharpness_does_not_depend_on_the_crops_size():
    values = [
        metered(swaying(2, zoom=size / 128, size=(size, size)), tuple(v * size / 256 for v in FACE)).sharpness
        for size in (256, 512)
    ]
    assert values[0] == pytest.approx(values[1], rel=0.5)


def test_sharpness_is_the_faces():
    frame = np.full((256, 256, 3), 128, np.uint8)
    frame[:, 210:] = np.random.default_rng(0).integers(0, 255, (256, 46, 3))
    assert metered([frame]).sharpness < 1


@pytest.mark.parametrize("level", [0, 64, 255])
def test_exposure_is_the_faces_mean_luma(level):
    frame = np.full((256, 256, 3), 255 - level, np.uint8)
    frame[40:220, 60:200] = level
    assert metered([frame]).exposure == pytest.approx(level / 255, abs=0.005)


def test_a_face_outside_the_crop_measures_the_crop():
    assert metered([np.full((256, 256, 3), 100, np.uint8)], (400.0, 400.0, 500.0, 500.0)).exposure == pytest.approx(
        100 / 255
    )


@pytest.mark.parametrize("others", ["coffee", "chelsea", "rocket"])
@pytest.mark.parametrize("at", [1, 30, 59])
def test_a_cut_inside_is_seen(others, at):
    frames = swaying(60)
    frames[at:] = swaying(60, name=others)[at:]
    assert metered(frames).internal_cut >= SelectLimits().max_internal_cut


@pytest.mark.parametrize("sway", [5.0, 20.0, 60.0])
def test_movement_is_no_cut(sway):
    assert metered(swaying(60, sway=sway)).internal_cut < 1


def test_a_jump_that_keeps_its_colours_is_no_cut():
    """A head that turns between two frames: the picture changes everywhere, its colours do not."""
    still = swaying(1)[0]
    meter = metered([still] * 20 + [np.ascontiguousarray(still[:, ::-1])] * 20)
    assert meter.internal_cut < 0.2


def test_a_change_of_light_is_no_cut():
    """Colours change everywhere at once, but a tenth of the way: the picture stays."""
    frames = swaying(40)
    frames[20:] = [np.clip(f.astype(int) + 12, 0, 255).astype(np.uint8) for f in frames[20:]]
    assert metered(frames).internal_cut < 1


@pytest.mark.assets
@pytest.mark.parametrize(
    "name", ["tps_driving.mp4", "WDA_AlexandriaOcasioCortez_000.mp4", "cat_nobel.mp4", "bbaf2n.mpg"]
)
def test_people_who_talk_are_no_cut_and_no_still(assets, name):
    path = assets / "video" / name
    video = probe(path, "real", "0", ProbeConfig())
    meter = metered(f.to_array((256, 256), "rgb24") for f in iter_frames(path, video))
    assert meter.internal_cut < 1
    assert meter.motion > SelectLimits().min_motion
    assert meter.hold_frames == 1


@pytest.mark.assets
def test_a_real_cut_is_seen(assets):
    path = assets / "video" / "goldeneye-vfr-drop3.mp4"
    video = probe(path, "real", "0", ProbeConfig())
    frames = (f for f in iter_frames(path, video, start_s=3.0) if f.time_s < 4.5)
    assert metered(f.to_array((256, 256), "rgb24") for f in frames).internal_cut >= 1
