"""Clips hold the whole face in one steady square, never cross a boundary, and every refusal says its number."""

import math
from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.analyse import plan as crop
from pipeline.analyse.plan import _pieces, tube_breaks, usable_span
from pipeline.analyse.square import count_neighbours, smooth_path, square_around
from schemas.base import ID_PATTERN, Box, FrameSpan, TimeSpan
from schemas.boxes import box_iou
from schemas.config import CropConfig
from schemas.face import FaceTrack
from schemas.media import Shot, Video

CONFIG = CropConfig()
STRIDE = 5
PICTURE_PX = (1280, 720)


def video(width=1280, height=720, fps=25, seconds=60.0, source_id="film") -> Video:
    return Video(
        source_id=source_id, sha256="ab" * 32, num_bytes=1, container="mov", codec="h264", pixel_format="yuv420p",
        stream_index=0, time_base=Fraction(1, 90_000), average_fps=Fraction(fps), start_s=0.0, stop_s=seconds,
        coded_width_px=width, coded_height_px=height, sample_aspect_ratio=Fraction(1), rotation_deg=0,
        interlaced=False, width_px=width, height_px=height, colorspace="1", audio=None,
    )  # fmt: skip


def shot(start, stop, boundary="cut", clean=..., fps=25) -> Shot:
    span = FrameSpan(start=start, stop=stop)
    inside = span if clean is ... else clean and FrameSpan(start=clean[0], stop=clean[1])
    return Shot(span=span, start_s=start / fps, stop_s=stop / fps, boundary=boundary, clean=inside)


def track(frames, box, *, shot_index=0, track_index=0, fps=25) -> FaceTrack:
    boxes = tuple(tuple(map(float, box(k) if callable(box) else box)) for k in frames)
    return FaceTrack(
        track_index=track_index, shot_index=shot_index, frames=tuple(frames), times_s=tuple(k / fps for k in frames),
        boxes=boxes, scores=(0.9,) * len(frames), detector="blazeface_short", purity=1.0,
    )  # fmt: skip


def plan_clips(*args, **kwargs):
    """The plans alone; the faces that go with them have tests of their own."""
    planned, refusals = crop.plan_clips(*args, **kwargs)
    return [one.plan for one in planned], refusals


def times(num, fps=25) -> np.ndarray:
    return np.arange(num) / fps


HERE = (600.0, 200.0, 760.0, 400.0)


# --- where time may be used -------------------------------------------------------------------------------


def test_only_detected_boundaries_are_trimmed():
    at = times(300)

    def usable(one, following):
        span = usable_span(one, following, at, 0.04, CONFIG)
        return span and (round(span.start_s, 6), round(span.stop_s, 6))

    assert usable(shot(0, 300, "start"), None) == (0.0, 12.0)
    assert usable(shot(0, 200, "start"), shot(200, 300, "cut")) == (0.0, 7.5)
    assert usable(shot(100, 300, "cut"), None) == (4.5, 12.0)
    assert usable(shot(100, 200, "fade"), shot(200, 300, "dissolve")) == (4.5, 7.5)
    assert usable(shot(100, 200, "limit"), shot(200, 300, "limit")) == (4.0, 8.0)
    assert usable(shot(0, 300, "start", clean=None), None) is None


def test_transitions_are_left_out():
    span = usable_span(shot(0, 300, "start", clean=(20, 280)), None, times(300), 0.04, CONFIG)
    assert span is not None
    assert (span.start_s, span.stop_s) == pytest.approx((0.8 + 0.5, 11.2 - 0.5))


@pytest.mark.parametrize(("num", "trim"), [(88, 3), (89, 12.5), (90, 12.5)])
def test_short_shots_are_trimmed_less(num, trim):
    """Half a second at both ends while 64 frames remain, else three frames."""
    at = times(300)
    span = usable_span(shot(100, 100 + num, "cut"), shot(100 + num, 300, "cut"), at, 0.04, CONFIG)
    assert span is not None
    assert span.duration_s * 25 == pytest.approx(num - 2 * trim)


@pytest.mark.parametrize(("num", "made"), [(69, 0), (70, 1), (71, 1)])
def test_the_shortest_shot(num, made):
    shots = [shot(0, 100, "start"), shot(100, 100 + num, "cut"), shot(100 + num, 300, "cut")]
    one = track(range(100, 100 + num, STRIDE), HERE, shot_index=1)
    plans, refusals = plan_clips(video(), shots, [one], times(300), CONFIG, stride=STRIDE)
    assert len(plans) == made
    short = [r for r in refusals if r.item == "shot00001"]
    assert [(r.reason, r.measured, r.limit) for r in short] == ([] if made else [("shot_too_short", 2.52, 2.56)])


@settings(max_examples=60, deadline=None)
@given(st.floats(0, 100), st.floats(0.05, 90), st.sampled_from([24, 25, 30]))
def test_pieces_divide_a_span(start_s, duration_s, fps):
    config = CropConfig(fps=fps)
    span = TimeSpan(start_s=start_s, stop_s=start_s + duration_s)
    pieces = _pieces(span, config)
    counts = [piece.duration_s * fps for piece in pieces]
    assert all(count == pytest.approx(round(count), abs=1e-6) for count in counts)
    assert sum(round(count) for count in counts) == math.floor(span.duration_s * fps + 1e-6)
    assert all(piece.duration_s <= config.max_clip_s + 1e-6 for piece in pieces)
    assert all(a.stop_s == pytest.approx(b.start_s) for a, b in pairwise(pieces))
    if pieces:
        assert pieces[0].start_s == start_s
        assert max(map(round, counts)) - min(map(round, counts)) <= 1


@pytest.mark.parametrize(("frames", "num"), [(499, 1), (500, 1), (501, 2)])
def test_the_longest_clip(frames, num):
    shots = [shot(0, frames, "start")]
    plans, _ = plan_clips(
        video(seconds=frames / 25), shots, [track(range(0, frames, STRIDE), HERE)], times(frames), CONFIG, stride=STRIDE
    )
    assert len(plans) == num
    assert sum(plan.num_frames for plan in plans) == frames


# --- the square ---------------------------------------------------------------------------------------------

boxes = st.tuples(st.floats(-50, 1100), st.floats(-50, 600), st.floats(10, 500), st.floats(10, 500)).map(
    lambda b: (b[0], b[1], b[0] + b[2], b[1] + b[3])
)
offsets = st.sampled_from([0.0, -0.125, 0.2])


@settings(max_examples=200, deadline=None)
@given(st.lists(boxes, min_size=1, max_size=12), st.sampled_from([(1280, 720), (320, 240), (100, 700)]), offsets)
def test_the_square_holds_the_whole_path(found, size, y_offset):
    path = smooth_path(found, CONFIG.median_window)
    square, padding = square_around(path, size, CropConfig(y_offset=y_offset))
    assert square.width_px == square.height_px
    assert all(v % 2 == 0 for v in (square.x0, square.y0, square.x1, square.y1))
    # What a detector claims beyond the picture is not there to be held.
    assert square.x0 <= max(path[:, 0].min(), 0)
    assert square.y0 <= max(path[:, 1].min(), 0)
    assert square.x1 >= min(path[:, 2].max(), size[0])
    assert square.y1 >= min(path[:, 3].max(), size[1])
    inside = Box(x0=0, y0=0, x1=size[0], y1=size[1])
    w = max(0, min(square.x1, inside.x1) - max(square.x0, 0))
    h = max(0, min(square.y1, inside.y1) - max(square.y0, 0))
    assert padding == pytest.approx(1 - w * h / square.area)


@settings(max_examples=100, deadline=None)
@given(st.floats(0, 1), st.floats(0, 1), st.floats(60, 250))
def test_a_square_that_fits_is_moved_back_inside(across, down, side):
    """A single face anywhere in the picture: its square fits, so nothing is padded beyond the face's own margin."""
    x, y = across * (1280 - side), down * (720 - side)
    square, padding = square_around(np.array([[x, y, x + side, y + side]]), PICTURE_PX, CONFIG)
    slack = 0.05 * square.width_px + 1
    assert square.x0 >= min(0, x - slack)
    assert square.y0 >= min(0, y - slack)
    if slack < x < 1280 - side - slack and slack < y < 720 - side - slack:
        assert padding == 0
        assert square.x0 >= 0
        assert square.y1 <= 720


def test_the_face_fills_its_share_of_the_square():
    square, padding = square_around(np.array([[600, 200, 760, 400.0]]), PICTURE_PX, CONFIG)
    assert (square.x0, square.y0, square.width_px, padding) == (520, 140, 320, 0)


def test_the_square_can_be_raised():
    square, _ = square_around(np.array([[600, 200, 760, 400.0]]), PICTURE_PX, CropConfig(y_offset=-0.1))
    assert (square.x0, square.y0) == (520, 108)


@pytest.mark.parametrize(("picture", "side"), [(400, 320), (300, 300), (290, 290), (270, 280)])
def test_in_a_small_picture_the_square_shrinks_but_not_below_its_least(picture, side):
    """Face 200 px: wanted 320, at least 280."""
    low = (picture - 200) / 2
    square, padding = square_around(np.array([[low, low, low + 200, low + 200]]), (picture, picture), CONFIG)
    assert square.width_px == side
    assert padding == pytest.approx(max(0.0, 1 - (picture / side) ** 2))


def test_jitter_does_not_move_the_square():
    rng = np.random.default_rng(0)
    steady = np.array([HERE] * 40)
    still, _ = square_around(smooth_path([tuple(b) for b in steady], 13), PICTURE_PX, CONFIG)
    for _ in range(30):
        shaken = steady + rng.uniform(-2, 2, steady.shape)
        square, _ = square_around(smooth_path([tuple(b) for b in shaken], 13), PICTURE_PX, CONFIG)
        for side in ("x0", "y0", "x1", "y1"):
            assert abs(getattr(square, side) - getattr(still, side)) <= 4


def test_one_wild_sighting_is_ignored():
    found = [HERE] * 40
    found[20] = (100.0, 0.0, 900.0, 700.0)
    assert smooth_path(found, 13)[20] == pytest.approx(HERE)


@settings(max_examples=60, deadline=None)
@given(st.lists(boxes, min_size=1, max_size=30), st.integers(1, 21))
def test_smoothing_keeps_the_number_and_stays_within_the_sightings(found, window):
    path = smooth_path(found, window)
    assert path.shape == (len(found), 4)
    middle = (np.array(found)[:, :2] + np.array(found)[:, 2:]) / 2
    smooth = (path[:, :2] + path[:, 2:]) / 2
    assert (smooth >= middle.min(0) - 1e-6).all()
    assert (smooth <= middle.max(0) + 1e-6).all()


@settings(max_examples=100, deadline=None)
@given(st.lists(boxes, min_size=1, max_size=30))
def test_a_tube_breaks_exactly_where_its_first_box_is_left(found):
    path = np.array(found)
    parts = tube_breaks(path, 0.25)
    assert [index for a, b in parts for index in range(a, b)] == list(range(len(found)))
    for (a, b), following in zip(parts, [*parts[1:], None], strict=True):
        assert all(box_iou(found[a], found[k]) >= 0.25 for k in range(a, b))
        if following:
            assert box_iou(found[a], found[b]) < 0.25


@pytest.mark.parametrize(("shift", "num"), [(59, 1), (61, 2)])
def test_a_tube_break_at_its_limit(shift, num):
    """Boxes of side 100 shifted by s overlap by (100 - s) / (100 + s): .25 at 60."""
    path = np.array([[0, 0, 100, 100], [shift, 0, 100 + shift, 100]], float)
    assert len(tube_breaks(path, 0.25)) == num


# --- other people ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("ratio", "count"), [(0.24, 0), (0.25, 0), (0.26, 1)])
def test_a_neighbour_counts_from_a_share_of_the_main_face(ratio, count):
    main = track(range(0, 100, 5), (600, 200, 800, 400))
    side = 200 * math.sqrt(ratio)
    other = track(range(0, 100, 5), (560, 220, 560 + side, 220 + side), track_index=1)
    square = Box(x0=540, y0=140, x1=860, y1=460)
    limit = 0.25 + 1e-9
    assert count_neighbours(main, [other], square, TimeSpan(start_s=0, stop_s=4), limit) == count


@pytest.mark.parametrize(("num", "count"), [(2, 0), (3, 1), (4, 1)])
def test_a_stray_sighting_is_nobody(num, count):
    main = track(range(0, 100, 5), (600, 200, 800, 400))
    other = track(range(0, 5 * num, 5), (600, 200, 800, 400), track_index=1)
    square = Box(x0=540, y0=140, x1=860, y1=460)
    assert count_neighbours(main, [other], square, TimeSpan(start_s=0, stop_s=4), 0.25) == count
    later = TimeSpan(start_s=2, stop_s=4)
    assert count_neighbours(main, [other], square, later, 0.25) == 0


def test_who_stands_outside_the_square_does_not_count():
    shots = [shot(0, 200, "start")]
    tracks = [track(range(0, 200, 5), HERE), track(range(0, 200, 5), (100, 200, 260, 400), track_index=1)]
    plans, _ = plan_clips(video(seconds=8.0), shots, tracks, times(200), CONFIG, stride=STRIDE)
    assert [plan.num_neighbours for plan in plans] == [0, 0]
    near = [tracks[0], track(range(0, 200, 5), (765, 200, 840, 340), track_index=1)]
    plans, _ = plan_clips(video(seconds=8.0), shots, near, times(200), CONFIG, stride=STRIDE)
    assert plans[0].num_neighbours == 1


def test_two_faces_that_share_a_square_are_two_clips():
    """In a small picture both squares shrink to the whole of it."""
    tracks = [track(range(0, 200, 5), HERE), track(range(0, 200, 5), HERE, track_index=1)]
    plans, _ = plan_clips(video(seconds=8.0), [shot(0, 200, "start")], tracks, times(200), CONFIG, stride=STRIDE)
    assert plans[0].square == plans[1].square
    assert plans[0].clip_id != plans[1].clip_id


# --- plans --------------------------------------------------------------------------------------------------------


@st.composite
def films(draw):
    fps = draw(st.sampled_from([24, 25, 30]))
    cuts = sorted(draw(st.sets(st.integers(1, 899), max_size=5)))
    kinds = st.sampled_from(["cut", "fade", "dissolve", "limit"])
    shots, tracks = [], []
    for index, (a, b) in enumerate(pairwise([0, *cuts, 900])):
        low, high = draw(st.integers(a, b - 1)), draw(st.integers(a + 1, b))
        clean = ... if draw(st.booleans()) else (low, high) if low < high else None
        shots.append(shot(a, b, draw(kinds) if a else "start", clean, fps))
        for _ in range(draw(st.integers(0, 2))):
            first, last = draw(st.integers(a, b - 1)), draw(st.integers(a, b - 1))
            frames = list(range(min(first, last), max(first, last) + 1, STRIDE))
            x, v = draw(st.floats(0, 1000)), draw(st.sampled_from([0.0, 0.2, 3.0]))
            tracks.append(
                track(
                    frames,
                    lambda k, x=x, v=v: (x + v * k, 200, x + v * k + 160, 400),
                    shot_index=index,
                    track_index=len(tracks),
                    fps=fps,
                )
            )
    wanted = [
        TimeSpan(start_s=a, stop_s=a + d)
        for a, d in draw(st.lists(st.tuples(st.floats(0, 25), st.floats(1, 9)), max_size=2))
    ]
    return fps, shots, tracks, wanted


@settings(max_examples=120, deadline=None)
@given(films())
def test_no_clip_crosses_a_boundary_or_leaves_its_face(made):
    fps, shots, tracks, wanted = made
    film = video(2000, 720, fps, 900 / fps)
    at = times(900, fps)
    plans, refusals = plan_clips(film, shots, tracks, at, CONFIG, stride=STRIDE, wanted=wanted)
    assert len({plan.clip_id for plan in plans}) == len(plans)
    for plan in plans:
        assert ID_PATTERN.match(plan.clip_id)
        own, face = shots[plan.shot_index], tracks[plan.track_index]
        assert own.clean is not None
        assert plan.span.start_s >= own.clean.start / fps - 1e-6
        assert plan.span.stop_s <= own.clean.stop / fps + 1e-6
        assert plan.num_frames == pytest.approx(plan.span.duration_s * plan.fps)
        assert 64 <= plan.num_frames <= 500
        if wanted:
            assert any(w.start_s - 1e-6 <= plan.span.start_s and plan.span.stop_s <= w.stop_s + 1e-6 for w in wanted)
        seen = np.array(face.times_s)
        shown = plan.span.start_s + np.arange(plan.num_frames) / plan.fps
        path = smooth_path(face.boxes, CONFIG.median_window)
        here = np.stack([np.interp(shown, seen, path[:, c]) for c in range(4)], 1)
        square = plan.square
        here = np.clip(here, 0, [2000, 720, 2000, 720])
        assert (here[:, :2] >= [square.x0 - 1e-6, square.y0 - 1e-6]).all()
        assert (here[:, 2:] <= [square.x1 + 1e-6, square.y1 + 1e-6]).all()
    for refusal in refusals:
        assert refusal.measured < refusal.limit, refusal
    assert plan_clips(film, shots, tracks, at, CONFIG, stride=STRIDE, wanted=wanted) == (plans, refusals)


def test_the_first_clip_of_a_track_begins_on_a_frame():
    shots = [shot(0, 100, "start", fps=24), shot(100, 400, "cut", fps=24)]
    one = track(range(100, 400, STRIDE), HERE, shot_index=1, fps=24)
    plans, _ = plan_clips(video(fps=24), shots, [one], times(400, 24), CONFIG, stride=STRIDE)
    assert plans[0].span.start_s in times(400, 24)
    assert plans[0].span.start_s == pytest.approx(112 / 24)


def test_a_face_reaches_a_stride_beyond_its_sightings():
    shots = [shot(0, 300, "start")]
    plans, _ = plan_clips(video(), shots, [track(range(50, 201, STRIDE), HERE)], times(300), CONFIG, stride=STRIDE)
    assert [(p.span.start_s, p.span.stop_s, p.face_ratio) for p in plans] == [pytest.approx((1.8, 8.2, 1.0))]


def test_a_face_that_moves_off_gives_two_clips_and_none_of_the_way_between():
    shots = [shot(0, 300, "start")]
    far = (900.0, 200.0, 1060.0, 400.0)
    one = track(range(0, 300, STRIDE), lambda k: HERE if k < 150 else far)
    plans, _ = plan_clips(video(seconds=12.0), shots, [one], times(300), CONFIG, stride=STRIDE)
    assert [(round(p.span.start_s, 3), round(p.span.stop_s, 3)) for p in plans] == [(0.0, 5.8), (6.0, 12.0)]
    assert plans[0].square.x1 < far[0]


def test_what_yields_nothing_says_why():
    shots = [shot(0, 100, "start"), shot(100, 150, "cut"), shot(150, 400, "cut")]
    brief = track(range(200, 231, STRIDE), HERE, shot_index=2)
    plans, refusals = plan_clips(video(), shots, [brief], times(400), CONFIG, stride=STRIDE)
    assert plans == []
    assert [(r.item, r.reason, r.measured, r.limit) for r in refusals] == [
        ("shot00000", "no_face", 0, 1),
        ("shot00001", "shot_too_short", 1.76, 2.56),
        ("shot00002/track000", "track_too_short", 1.6, 2.56),
    ]


def test_only_what_is_wanted_is_planned_or_refused():
    shots = [shot(0, 200, "start"), shot(200, 400, "cut")]
    tracks = [track(range(0, 200, 5), HERE), track(range(200, 400, 5), HERE, shot_index=1, track_index=1)]
    wanted = [TimeSpan(start_s=1.0, stop_s=4.0)]
    plans, refusals = plan_clips(video(), shots, tracks, times(400), CONFIG, stride=STRIDE, wanted=wanted)
    assert [(p.span.start_s, p.span.stop_s) for p in plans] == [(1.0, 4.0)]
    assert refusals == []


def test_what_is_wanted_twice_is_made_once():
    shots, one = [shot(0, 400, "start")], track(range(0, 400, 5), HERE)
    wanted = [TimeSpan(start_s=a, stop_s=b) for a, b in [(5.0, 9.0), (1.0, 4.0), (1.0, 4.0), (3.0, 5.5), (12.0, 12.5)]]
    plans, _ = plan_clips(video(), shots, [one], times(400), CONFIG, stride=STRIDE, wanted=wanted)
    assert [(p.span.start_s, p.span.stop_s) for p in plans] == [(1.0, 9.0)]


def test_ids_follow_content():
    shots, one = [shot(0, 300, "start")], track(range(0, 300, STRIDE), HERE)

    def first(**changes):
        film = video(**{"seconds": 12.0} | {k: v for k, v in changes.items() if k == "source_id"})
        config = CONFIG.model_copy(update={k: v for k, v in changes.items() if k != "source_id"})
        return plan_clips(film, shots, [one], times(300), config, stride=STRIDE)[0][0].clip_id

    long = "s" * 95
    ids = [
        first(),
        first(scale=1.7),
        first(crf=20),
        first(source_id="other"),
        first(source_id=long + "a"),
        first(source_id=long + "b"),
    ]
    assert len(set(ids)) == len(ids)
    assert first() == ids[0]
    assert all(ID_PATTERN.match(one) for one in ids)


# --- the face that goes with a plan --------------------------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(start=st.integers(0, 60), sway=st.floats(0.0, 4.0))
def test_a_clip_needs_no_more_of_its_track_than_its_face(start, sway):
    """Between the sightings that the clip keeps, the box of each frame is the whole track's; far ones are left out."""
    one = track(range(start, 901, STRIDE), lambda k: [v + sway * k / 10 for v in HERE])
    planned, _ = crop.plan_clips(video(), [shot(0, 1000, "start")], [one], times(1000), CONFIG, stride=STRIDE)
    assert len(planned) >= 2
    for clip in planned:
        at = clip.plan.span.start_s + np.arange(clip.plan.num_frames) / clip.plan.fps
        for column in range(4):
            whole = np.interp(at, one.times_s, [box[column] for box in one.boxes])
            part = np.interp(at, clip.face.times_s, [box[column] for box in clip.face.boxes])
            assert np.array_equal(whole, part)
        nearest = [
            np.abs(at[:, None] - np.array(seen)[None, :]).min(axis=1) for seen in (one.times_s, clip.face.times_s)
        ]
        assert np.array_equal(*nearest)
        assert len(clip.face.times_s) <= clip.plan.num_frames / STRIDE + 3
        assert (clip.face.detector, clip.face.purity) == (one.detector, one.purity)
