"""Contact sheets: the same bytes for the same clip, and every overlay where its numbers say."""

import io

import av
import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.clip.headpose import rotation_from_angles
from pipeline.draw import page, sheet
from pipeline.draw.overlay import AXES_RGB, BONES, SURE_RGB, head_axes, overlaid
from schemas.base import Box, TimeSpan
from schemas.clip import Clip, ClipPlan, Provenance, Scores
from schemas.errors import DecodeError
from schemas.face import FacePath
from schemas.scores import SyncScore
from tests.helpers.release_items import make_row

UNKNOWN = SyncScore(status="unknown", why="shorter than 3.2 s")
KNOWN = SyncScore(status="known", score=0.4, lag_frames=1, z=4.12, p=0.01)
GREY = np.full((64, 64, 3), 90, np.uint8)


def make_clip(num_frames: int = 30, scheme: str = "ibug68", sync: SyncScore = KNOWN) -> Clip:
    box = Box(x0=0, y0=0, x1=400, y1=400)
    return Clip(
        plan=ClipPlan(
            clip_id="talk-0-0-0",
            source_id="talk",
            shot_index=0,
            track_index=0,
            span=TimeSpan(start_s=1, stop_s=1 + num_frames / 25),
            num_frames=num_frames,
            fps=25,
            square=box,
            face=box,
            padding=0.0,
            native_crop_px=400,
            face_ratio=1.0,
            num_neighbours=0,
        ),
        face=FacePath(times_s=(1.0,), boxes=((0.0, 0.0, 400.0, 400.0),), detector="d", purity=1.0),
        domain="real",
        landmark_scheme=scheme,
        scores=Scores(
            native_crop_px=400,
            padding=0,
            face_ratio=1,
            face_px=250,
            num_neighbours=0,
            landmark_ratio=None,
            landmark_confidence=None,
            yaw_abs_median_deg=None,
            yaw_range_deg=None,
            speech_ratio=None,
            audio_rms=None,
            sync=sync,
            sharpness=100,
            exposure=0.4,
            motion=0.01,
            internal_cut=0,
            duplicate_frame_ratio=0,
            hold_frames=1,
            track_purity=1,
        ),
        provenance=Provenance(tool_version="0", profile="embedded", models={}, native_fps="25/1", detector="d"),
        flags=(),
        files={},
    )


def make_arrays(num_frames: int = 30, confidence: float = 1.0) -> dict[str, np.ndarray]:
    angles = np.linspace(0, 2 * np.pi, 68, endpoint=False)
    ring = np.stack([32 + 16 * np.cos(angles), 32 + 16 * np.sin(angles), np.full(68, confidence)], axis=1)
    pose = np.array([10, 5, 0, 0.5, 0.5, 1, confidence], np.float32)
    motion = np.full((num_frames, 6), confidence, np.float32)
    motion[:, 0] = np.linspace(0, 1, num_frames)
    return {
        "landmarks": np.tile(ring.astype(np.float32), (num_frames, 1, 1)),
        "pose": np.tile(pose, (num_frames, 1)),
        "motion": motion,
        "valid": np.ones(num_frames, bool),
    }


def decoded(png: bytes) -> np.ndarray:
    return cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_COLOR)[..., ::-1]


def encoded(num_frames: int, gop: int) -> bytes:
    """Frame k is a grey of level 20 + 8 k."""
    target = io.BytesIO()
    with av.open(target, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=25, options={"g": str(gop), "crf": "10", "bf": "2"})
        stream.width = stream.height = 64
        for k in range(num_frames):
            frame = av.VideoFrame.from_ndarray(np.full((64, 64, 3), 20 + 8 * k, np.uint8), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return target.getvalue()


# ---- the pose axes are where the convention says ---------------------------------------------------


@given(st.floats(5, 85), st.floats(-80, 80), st.floats(-30, 30))
def test_nose_points_to_image_left_for_positive_yaw(yaw, pitch, roll):
    nose = head_axes(np.array([yaw, 0, 0, 0.5, 0.5, 1, 1]))[2]
    assert nose[0] < 0
    assert nose[1] == pytest.approx(0)
    lengths = np.linalg.norm(head_axes(np.array([yaw, pitch, roll, 0.5, 0.5, 1, 1])), axis=1)
    # An orthonormal basis seen from the front: the squared lengths of its three shadows add up to two.
    assert (lengths**2).sum() == pytest.approx(2)


@given(st.floats(-80, 80), st.floats(-80, 80), st.floats(-80, 80))
def test_the_axes_turn_with_the_rotation_that_the_pose_was_read_from(yaw, pitch, roll):
    turned = rotation_from_angles(yaw, pitch, roll) @ np.array([[1, 0, 0], [0, -1, 0], [0, 0, -1]]).T
    drawn = head_axes(np.array([yaw, pitch, roll, 0.5, 0.5, 1, 1]))
    assert drawn == pytest.approx(turned[:2].T, abs=1e-9)


def test_nose_points_up_for_positive_pitch_and_the_head_turns_clockwise_for_positive_roll():
    right, up, nose = head_axes(np.array([0, 30, 0, 0.5, 0.5, 1, 1]))
    assert nose == pytest.approx([0, -0.5])
    assert right == pytest.approx([1, 0])
    right, up, _ = head_axes(np.array([0, 0, 30, 0.5, 0.5, 1, 1]))
    assert right[1] > 0  # y runs down: the right-hand side sinks
    assert up[0] > 0


@pytest.mark.parametrize(("yaw", "side"), [(60, -1), (-60, 1)])
def test_the_drawn_nose_axis_lies_on_the_side_of_its_yaw(yaw, side):
    drawn = overlaid(GREY, None, np.array([yaw, 0, 0, 0.5, 0.5, 1, 1], np.float32), 256)
    blue = np.array(AXES_RGB["nose"])
    columns = np.flatnonzero((np.abs(drawn.astype(int) - blue) < 30).all(axis=2).any(axis=0))
    assert side * (columns.mean() - 128) > 10


@pytest.mark.parametrize("pose", [[20, 0, 0, 0.5, 0.5, 1, 0], [np.nan, 0, 0, 0.5, 0.5, 1, 1]])
def test_a_pose_without_confidence_is_not_drawn(pose):
    assert np.array_equal(overlaid(GREY, None, np.array(pose, np.float32), 128), overlaid(GREY, None, None, 128))


# ---- the points are where their numbers say --------------------------------------------------------


@given(st.integers(8, 56), st.integers(8, 56), st.integers(0, 67))
@settings(max_examples=30, deadline=None)
def test_a_point_changes_the_picture_at_its_place_and_nowhere_else(x, y, k):
    points = np.zeros((68, 3), np.float32)
    points[k] = (x, y, 1.0)
    drawn = overlaid(GREY, points, None, 256)
    changed = np.argwhere(np.abs(drawn.astype(int) - 90).max(axis=2) > 20)
    assert changed.mean(axis=0) == pytest.approx([y * 4, x * 4], abs=1)
    assert np.ptp(changed, axis=0).max() <= 6
    assert drawn[y * 4, x * 4].astype(int) == pytest.approx(SURE_RGB, abs=12)


def test_the_less_sure_a_point_the_warmer_its_colour():
    reds = []
    for confidence in (0.1, 0.5, 1.0):
        points = np.zeros((68, 3), np.float32)
        points[8] = (32, 32, confidence)
        reds.append(int(overlaid(GREY, points, None, 256)[128, 128, 0]))
    assert reds[0] > reds[1] > reds[2]


@pytest.mark.parametrize(("count", "joined"), [(5, False), (67, False), (68, True), (69, False)])
def test_only_the_68_points_are_joined_by_lines(count, joined):
    points = np.zeros((count, 3), np.float32)
    points[:2] = [[8, 8, 1], [40, 8, 1]]
    drawn = overlaid(GREY, points, None, 256)
    scale = 256 / GREY.shape[1]
    assert not np.array_equal(drawn[round(8 * scale), round(8 * scale)], [128, 128, 128])
    assert (not np.array_equal(drawn[round(8 * scale), round(24 * scale)], GREY[8, 24])) == joined


def test_wild_points_are_survived():
    points = make_arrays(1)["landmarks"][0]
    points[3, 0], points[4, 1], points[5] = np.nan, np.inf, (1e30, -1e30, 1)
    assert overlaid(GREY, points, np.array([1, 2, 3, 1e20, -1e20, 1, 1], np.float32), 64).shape == (64, 64, 3)


def test_bones_are_the_outlines_of_the_68_points():
    assert len(BONES) == 16 + 4 + 4 + 3 + 4 + 6 + 6 + 12 + 8
    assert {k for bone in BONES for k in bone} == set(range(68))


# ---- the sheet -------------------------------------------------------------------------------------


def test_a_sheet_has_its_size_and_is_the_same_bytes_every_time():
    clip, arrays = make_clip(), make_arrays()
    envelope = np.abs(np.sin(np.arange(30))).astype(np.float32)
    arrays["valid"][10:14] = False
    sheets = [sheet.draw_clip(clip, [GREY] * 30, arrays, envelope, envelope > 0.5) for _ in range(2)]
    assert sheets[0] == sheets[1]
    assert b"tEXt" not in sheets[0]
    assert b"tIME" not in sheets[0]
    assert decoded(sheets[0]).shape == (892, 1596, 3)


def test_a_tile_shows_its_own_frame_with_its_own_points():
    arrays = make_arrays(23)
    arrays["landmarks"][:] = 0
    arrays["pose"][:] = 0
    arrays["landmarks"][22, 8] = (32, 32, 1)
    image = decoded(
        sheet.draw_clip(make_clip(23), [np.full((64, 64, 3), 20 + 8 * k, np.uint8) for k in range(23)], arrays)
    )
    for position in range(12):
        row, column = divmod(position, 6)
        x, y = 20 + column * 260, 104 + row * 260
        assert (image[y + 10, x + 10] == 20 + 8 * 2 * position).all()
        has_point = image[y + 128, x + 128].astype(int) == pytest.approx(SURE_RGB, abs=12)
        assert has_point == (position == 11)


def test_frames_without_a_face_are_shaded_in_the_plot():
    shaded = []
    for invalid in (slice(0, 0), slice(10, 20)):
        arrays = make_arrays(40, confidence=0.0)
        arrays["valid"][invalid] = False
        image = decoded(sheet.draw_clip(make_clip(40), [GREY] * 40, arrays))
        row = image[-60 - 80].astype(int)  # the middle of the plot
        shaded.append((np.abs(row - (242, 208, 169)).max(axis=1) < 4).sum() / (1596 - 80))
    assert shaded == pytest.approx([0, 10 / 40], abs=0.01)


@pytest.mark.parametrize("num_frames", [1, 2, 7, 12, 13])
def test_short_clips_and_unknown_numbers_are_drawn(num_frames):
    clip = make_clip(num_frames, scheme="none", sync=UNKNOWN)
    png = sheet.draw_clip(clip, [GREY] * num_frames, make_arrays(num_frames, confidence=0.0))
    assert decoded(png).shape[1] == 1596


def test_frames_are_read_once_and_not_kept():
    alive, most = [0], [0]

    class Tracked(np.ndarray):
        def __del__(self):
            alive[0] -= 1

    def frames():
        for _ in range(100):
            alive[0] += 1
            most[0] = max(most[0], alive[0])
            yield GREY.copy().view(Tracked)

    sheet.draw_clip(make_clip(100), frames(), make_arrays(100))
    assert most[0] <= 4


def test_lengths_that_disagree_are_named():
    with pytest.raises(ValueError, match="has 30 frames, but 29 were given"):
        sheet.draw_clip(make_clip(30), [GREY] * 29, make_arrays(30))
    with pytest.raises(ValueError, match="has 30 frames, but pose has 29"):
        sheet.draw_clip(make_clip(30), [GREY] * 30, {**make_arrays(30), "pose": np.zeros((29, 7))})


def test_an_unknown_sync_says_why_and_a_known_one_its_numbers():
    assert sheet.describe_sync(UNKNOWN) == "sync unknown: shorter than 3.2 s"
    assert sheet.describe_sync(KNOWN) == "sync z 4.1, p 0.010, lag +1 fr"


@given(st.integers(1, 500), st.integers(1, 20))
def test_evenly_spaced_frames_are_different_and_reach_both_ends(num_frames, count):
    shown = sheet.evenly_spaced(num_frames, count)
    assert len(shown) == len(set(shown)) == min(num_frames, count)
    assert shown[0] == 0
    assert count == 1 or shown[-1] == num_frames - 1


# ---- the overview ----------------------------------------------------------------------------------


def test_an_overview_counts_what_it_leaves_out():
    row = sheet.ShownClip(make_row(title="A $title$ with <b>everything</b> 日本語\n"), [GREY] * 8)
    few, many = (decoded(sheet.draw_overview([row] * 3, num_more=n)) for n in (0, 2))
    assert many.shape[0] == few.shape[0] + 32
    assert sheet.draw_overview([row]) == sheet.draw_overview([row])
    assert decoded(sheet.draw_overview([])).shape[0] > 0


def test_a_title_that_the_font_cannot_show_is_known_as_such():
    assert page.is_legible("Der Film (1999)")
    assert not page.is_legible("日本語の題名")
    assert not page.is_legible(" \n")
    assert page.printable("a\u202eb\x00c\nd日") == "abc d\N{REPLACEMENT CHARACTER}"


@given(st.text(max_size=60), st.integers(40, 300))
@settings(max_examples=50, deadline=None)
def test_wrapped_text_never_leaves_its_width(text, width_px):
    lines = page.wrapped(text, width_px, 14, 2)
    assert len(lines) <= 2
    assert all(page.text_width_px(line, 14) <= width_px for line in lines)


# ---- single frames of a clip -----------------------------------------------------------------------


@pytest.mark.parametrize("gop", [1, 12])
def test_frames_are_found_by_number_whether_or_not_all_are_key_frames(gop):
    found = sheet.frames_of(encoded(20, gop), [0, 7, 19])
    assert sorted(found) == [0, 7, 19]
    for k, frame in found.items():
        assert frame.mean() == pytest.approx(20 + 8 * k, abs=3)


def test_a_missing_frame_and_a_broken_file_are_named():
    with pytest.raises(DecodeError, match="has 5 frames and no frame 5"):
        sheet.frames_of(encoded(5, 1), [4, 5])
    with pytest.raises(DecodeError, match="cannot be decoded"):
        sheet.frames_of(b"no video", [0])


def test_a_sheet_has_a_cell_per_clip_and_the_same_bytes():
    shown = sheet.ShownClip(make_row(title="$x$ <b>"), [GREY] * 3, make_arrays()["landmarks"], make_arrays()["pose"])
    sizes = {count: decoded(sheet.draw_sheet([shown] * count)).shape[:2] for count in (1, 2, 3, 12)}
    assert sizes[2][1] > 2 * sizes[1][1]
    assert sizes[2][0] == sizes[1][0]
    assert sizes[3] == (2 * sizes[2][0], sizes[2][1])
    assert sizes[12] == (6 * sizes[2][0], sizes[2][1])
    assert sheet.draw_sheet([shown]) == sheet.draw_sheet([shown])
    assert decoded(sheet.draw_sheet([])).shape[0] > 0
