"""Motion channels: what they must not depend on, what they must follow, and what missing frames become."""

import numpy as np
import pytest

from pipeline.clip.headpose import rotation_from_angles
from pipeline.clip.motion import estimate_motion, mouth_opening
from pipeline.models.canonical import canonical_face, mirror_pairs
from schemas.face import MOTION_CHANNELS

MOUTH, WIDTH, LEFT, RIGHT, BROW, CONFIDENCE = range(6)
LOWER_LIP = [14, 87, 317, 178, 402]
CORNERS = [61, 291]
# The character's own left eye is at image right.
LEFT_UPPER_LID, RIGHT_UPPER_LID = [385, 387], [160, 158]
LEFT_LOWER_LID, RIGHT_LOWER_LID = [380, 373], [144, 153]
BROWS = [336, 296, 334, 293, 300, 107, 66, 105, 63, 70]


def clip(num_frames: int = 60, seed: int = 0) -> np.ndarray:
    """A talking face [T, 468, 3] at 100 px per eye-corner distance: mouth, corners, lids and brows all move."""
    rng = np.random.default_rng(seed)
    mesh = np.repeat(canonical_face()[None] * 100 + [256, 256, 0], num_frames, axis=0)
    mouth, width, left, right, brow = rng.uniform(0, 1, (5, num_frames, 1))
    mesh[:, LOWER_LIP, 1] += 20 * mouth
    mesh[:, CORNERS, 0] += np.array([-8, 8]) * width
    for lids, upper, closure in (
        (LEFT_LOWER_LID, LEFT_UPPER_LID, left),
        (RIGHT_LOWER_LID, RIGHT_UPPER_LID, right),
    ):
        mesh[:, upper, 1] += closure * (mesh[:, lids, 1] - mesh[:, upper, 1])
    mesh[:, BROWS, 1] -= 8 * brow
    return mesh.astype(np.float32)


def channels(mesh: np.ndarray) -> np.ndarray:
    return estimate_motion(mesh.astype(np.float32), np.ones(len(mesh), np.float32)).channels


def changed(points: list[int], offsets: np.ndarray, axis: int = 1) -> np.ndarray:
    """A still face of which only some points move, by ``offsets`` [T] pixels."""
    mesh = np.repeat(canonical_face()[None] * 100, len(offsets), axis=0)
    mesh[:, points, axis] += offsets[:, None]
    return mesh


# --- laws ----------------------------------------------------------------------------------------------------------


def test_channels_are_those_of_the_schema_between_0_and_1():
    track = estimate_motion(clip(), np.full(60, 0.8, np.float32))
    assert track.channels.shape == (60, len(MOTION_CHANNELS))
    assert track.channels.dtype == track.mouth_raw.dtype == np.float32
    assert track.channels.min() >= 0
    assert track.channels.max() <= 1
    np.testing.assert_allclose(track.channels[:, CONFIDENCE], 0.8)


@pytest.mark.parametrize("angles", [(0, 0, 30), (0, 0, -90), (25, 0, 0), (-20, 15, 10)])
def test_size_place_and_turning_of_the_head_are_no_motion(angles):
    mesh = clip()
    turned = (mesh - [256, 256, 0]) @ rotation_from_angles(*angles).T * 0.37 + [900, -50, 10]
    np.testing.assert_allclose(channels(turned), channels(mesh), atol=2e-3)


def test_a_head_that_approaches_and_leans_while_it_talks_is_read_like_one_that_does_not():
    mesh = clip()
    moved = np.stack(
        [
            (frame - [256, 256, 0]) @ rotation_from_angles(t / 3, 0, t).T * (1 + t / 60) + [t, 2 * t, 0]
            for t, frame in enumerate(mesh)
        ]
    )
    np.testing.assert_allclose(channels(moved), channels(mesh), atol=2e-3)


def test_raw_mouth_opening_ignores_size_place_and_roll_and_is_not_set_against_the_clip():
    face = changed(LOWER_LIP, np.array([12.0]))[0]
    turned = face @ rotation_from_angles(0, 0, 40).T * 3 + [10, 20, 30]
    assert mouth_opening(turned) == pytest.approx(mouth_opening(face), rel=1e-5)
    still = estimate_motion(np.repeat(face[None], 5, axis=0).astype(np.float32), np.ones(5, np.float32))
    np.testing.assert_allclose(still.mouth_raw, mouth_opening(face), rtol=1e-5)


@pytest.mark.parametrize(
    ("points", "axis", "offsets", "channel"),
    [
        (LOWER_LIP, 1, np.linspace(0, 25, 40), MOUTH),
        ([61], 0, np.linspace(0, -20, 40), WIDTH),
        (LEFT_UPPER_LID, 1, np.linspace(0, 6, 40), LEFT),
        (RIGHT_UPPER_LID, 1, np.linspace(0, 6, 40), RIGHT),
        (BROWS, 1, np.linspace(0, -10, 40), BROW),
    ],
)
def test_each_channel_rises_with_what_it_is_named_after(points, axis, offsets, channel):
    values = channels(changed(points, offsets, axis))[:, channel]
    assert np.all(np.diff(values) >= 0)
    assert values[0] < 0.1
    assert values[-1] > 0.9


def test_raw_mouth_opening_rises_with_the_opening():
    meshes = changed(LOWER_LIP, np.linspace(0, 25, 20))
    assert np.all(np.diff([mouth_opening(mesh) for mesh in meshes]) > 0)


def test_a_mirrored_face_exchanges_left_and_right_and_nothing_else():
    mesh = clip()
    partner = mirror_pairs(canonical_face())
    mirrored = mesh[:, partner] * np.float32([-1, 1, 1]) + np.float32([512, 0, 0])
    exchanged = channels(mesh)[:, [MOUTH, WIDTH, RIGHT, LEFT, BROW, CONFIDENCE]]
    np.testing.assert_allclose(channels(mirrored), exchanged, atol=2e-3)


def test_left_is_the_characters_own_left_at_image_right():
    values = channels(changed(LEFT_UPPER_LID, np.linspace(0, 10, 20)))
    assert values[-1, LEFT] > 0.9
    assert values[-1, RIGHT] < 0.1
    assert canonical_face()[LEFT_UPPER_LID, 0].min() > 0


# --- ranges --------------------------------------------------------------------------------------------------------


def test_noise_on_a_still_face_is_not_blown_up_into_motion():
    rng = np.random.default_rng(1)
    mesh = np.repeat(canonical_face()[None] * 100, 100, axis=0)
    mesh += rng.normal(0, 0.15, mesh.shape)  # of 100 px between the eye corners: the network's own tremble
    values = channels(mesh)
    assert values[:, MOUTH].max() < 0.25
    assert values[:, [LEFT, RIGHT]].max() < 0.25
    assert np.abs(values[:, [WIDTH, BROW]] - 0.5).max() < 0.25


def test_two_characters_with_different_mouths_use_the_whole_range():
    openings = np.abs(np.sin(np.arange(80) / 3))
    small = channels(changed(LOWER_LIP, 10 * openings))[:, MOUTH]
    large = channels(changed(LOWER_LIP, 40 * openings))[:, MOUTH]
    np.testing.assert_allclose(small, large, atol=0.02)
    assert large.max() > 0.95


def test_a_blink_of_five_frames_in_ten_seconds_closes_the_eye():
    lids = np.zeros(250)
    lids[100:105] = (4, 8, 9, 8, 4)
    values = channels(changed(LEFT_UPPER_LID, lids))[:, LEFT]
    assert values[102] > 0.8
    assert np.median(values) < 0.05


# --- missing frames ------------------------------------------------------------------------------------------------


def test_missing_frames_are_zero_and_take_no_part_in_the_range():
    mesh, confidence = clip(), np.ones(60, np.float32)
    mesh[10:15], confidence[10:15] = 0, 0
    track = estimate_motion(mesh, confidence)
    assert not track.channels[10:15].any()
    assert not track.mouth_raw[10:15].any()
    kept = np.delete(np.arange(60), range(10, 15))
    np.testing.assert_allclose(track.channels[kept], channels(mesh[kept]), atol=1e-6)


def test_a_clip_without_faces_and_a_clip_of_one_frame_are_finite():
    empty = estimate_motion(np.zeros((3, 468, 3), np.float32), np.zeros(3, np.float32))
    assert not empty.channels.any()
    assert np.isfinite(channels(clip(1))).all()
    assert estimate_motion(np.zeros((0, 468, 3), np.float32), np.zeros(0, np.float32)).channels.shape == (0, 6)


# --- real faces ----------------------------------------------------------------------------------------------------


def test_the_mouth_of_a_rendered_head_follows_what_was_rendered():
    from pipeline.demo.head import HeadPlacement, render_head
    from pipeline.demo.solids import Character
    from pipeline.models.landmarkers import FaceMesh468

    openings, tracker, meshes = np.abs(np.sin(np.arange(24) / 4)), FaceMesh468(), []
    for opening in openings:
        image, truth = render_head(
            np.full((640, 640, 3), 110, np.uint8), Character(), HeadPlacement(), mouth_open=float(opening)
        )
        face = tracker.locate(image, truth.box)
        assert face is not None
        meshes.append(face.points)
    track = estimate_motion(np.stack(meshes), np.ones(24, np.float32))
    assert np.corrcoef(track.channels[:, MOUTH], openings)[0, 1] > 0.9
    assert np.corrcoef(track.mouth_raw, openings)[0, 1] > 0.9
