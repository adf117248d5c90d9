"""Scanning and linking: first the laws of the tracker, then what it does with pictures."""

from functools import cache
from itertools import pairwise

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage.data import astronaut

from pipeline.analyse.faces import FaceScanner, agree, appearance, link
from pipeline.models.detectors import BlazeFace, FaceBox
from schemas.base import FrameSpan
from schemas.config import FaceConfig
from schemas.face import Detection
from schemas.media import Shot

LOOSE = FaceConfig(min_sightings=1)


def shot(start, stop) -> Shot:
    return Shot(
        span=FrameSpan(start=start, stop=stop), start_s=start / 25, stop_s=stop / 25, boundary="cut", clean=None
    )


def face(frame, x=100.0, y=100.0, side=100.0, look=(1.0, 0.0), score=0.9, detector="blazeface_short") -> Detection:
    return Detection(
        frame=frame,
        time_s=frame / 25,
        box=(x, y, x + side, y + side),
        score=score,
        detector=detector,
        appearance=look,
    )


def sightings(track) -> list[tuple]:
    return list(zip(track.frames, track.times_s, track.boxes, track.scores, strict=True))


# --- laws of link ----------------------------------------------------------------------------------------

looks = st.sampled_from([(1.0, 0.0), (0.8, 0.6), (0.0, 1.0)])
positions = st.integers(0, 400).map(float)
detections = st.lists(
    st.builds(face, st.integers(0, 119), positions, positions, st.sampled_from([30.0, 60.0, 100.0]), looks),
    max_size=40,
)
shot_lists = st.lists(st.integers(0, 120), min_size=2, max_size=6, unique=True).map(
    lambda cuts: [shot(a, b) for a, b in pairwise(sorted(cuts))]
)


@given(detections, shot_lists)
def test_tracks_stay_in_their_shot_and_move_forward(found, shots):
    for track in link(found, shots, LOOSE):
        span = shots[track.shot_index].span
        assert all(span.start <= frame < span.stop for frame in track.frames)
        assert all(a < b for a, b in pairwise(track.frames))
        assert 0 <= track.purity <= 1


@given(detections, shot_lists)
def test_every_detection_is_in_exactly_one_track_or_left_out_for_a_reason(found, shots):
    tracked = sorted(one for track in link(found, shots, LOOSE) for one in sightings(track))
    wanted = [
        (one.frame, one.time_s, one.box, one.score)
        for one in found
        if any(s.span.start <= one.frame < s.span.stop for s in shots) and one.box[3] - one.box[1] >= LOOSE.min_face_px
    ]
    assert tracked == sorted(wanted)


@given(detections, shot_lists, st.randoms(use_true_random=False))
def test_the_order_of_detections_does_not_matter(found, shots, random):
    shuffled = list(found)
    random.shuffle(shuffled)
    assert link(shuffled, shots, LOOSE) == link(found, shots, LOOSE)


@given(detections, shot_lists)
def test_tracks_are_numbered_by_first_frame(found, shots):
    tracks = link(found, shots, LOOSE)
    assert [track.track_index for track in tracks] == list(range(len(tracks)))
    assert [track.frames[0] for track in tracks] == sorted(track.frames[0] for track in tracks)


@given(detections, shot_lists)
def test_gaps_are_bounded(found, shots):
    for track in link(found, shots, LOOSE):
        gaps = np.diff(track.frames)
        assert (gaps <= LOOSE.max_gap + LOOSE.stride).all()


@given(st.lists(st.integers(0, 99), min_size=1, max_size=30, unique=True), st.integers(100, 500))
def test_faces_that_never_touch_never_merge(frames, apart):
    left = [face(frame, x=0.0) for frame in frames]
    right = [face(frame, x=float(apart)) for frame in frames]
    for track in link(left + right, [shot(0, 100)], LOOSE):
        assert len({box[0] for box in track.boxes}) == 1


# --- examples of link ------------------------------------------------------------------------------------


@pytest.mark.parametrize(("gap", "num_tracks"), [(14, 1), (15, 1), (16, 2)])
def test_a_face_may_be_missing_for_max_gap_beside_the_stride(gap, num_tracks):
    config = FaceConfig(min_sightings=1, max_gap=10, stride=5)
    assert len(link([face(0), face(gap)], [shot(0, 100)], config)) == num_tracks


@pytest.mark.parametrize(("height", "num_tracks"), [(39.0, 0), (40.0, 1), (41.0, 1)])
def test_low_faces_are_not_tracked(height, num_tracks):
    config = FaceConfig(min_face_px=40.0)
    assert len(link([face(frame, side=height) for frame in (0, 5, 10)], [shot(0, 100)], config)) == num_tracks


@pytest.mark.parametrize(("num", "num_tracks"), [(1, 0), (2, 1), (3, 1)])
def test_lone_sightings_are_noise(num, num_tracks):
    config = FaceConfig(min_sightings=2)
    assert len(link([face(5 * k) for k in range(num)], [shot(0, 100)], config)) == num_tracks


@pytest.mark.parametrize(("gap", "shift", "num_tracks"), [(1, 33.0, 1), (1, 34.0, 2), (5, 81.0, 1), (5, 82.0, 2)])
def test_the_overlap_asked_for_falls_with_the_gap(gap, shift, num_tracks):
    """IoU of two squares of 100 shifted by s is (100 - s) / (100 + s): 0.5 at 33.3, and 0.1 at 81.8."""
    assert len(link([face(0), face(gap, x=100 + shift)], [shot(0, 100)], LOOSE)) == num_tracks


def test_another_face_in_the_same_place_is_another_track():
    found = [face(0), face(5), face(10, look=(0.0, 1.0)), face(15, look=(0.0, 1.0))]
    tracks = link(found, [shot(0, 100)], FaceConfig())
    assert [track.frames for track in tracks] == [(0, 5), (10, 15)]
    assert [track.purity for track in tracks] == [1.0, 1.0]


def test_two_faces_that_pass_each_other_keep_their_looks():
    left = [face(frame, x=4.0 * frame) for frame in range(41)]
    right = [face(frame, x=160 - 4.0 * frame, look=(0.6, 0.8)) for frame in range(41) if frame != 20]
    tracks = link(left + right, [shot(0, 100)], FaceConfig(min_appearance=0.7))
    assert [len(track.frames) for track in tracks] == [41, 40]
    assert {track.purity for track in tracks} == {1.0}


def test_a_cut_ends_a_track_though_the_face_stays():
    tracks = link([face(frame) for frame in range(0, 100, 5)], [shot(0, 50), shot(50, 100)], FaceConfig())
    assert [(track.shot_index, track.frames[0], track.frames[-1]) for track in tracks] == [(0, 0, 45), (1, 50, 95)]


def test_frames_of_no_shot_are_ignored():
    found = [face(frame) for frame in range(0, 100, 5)]
    tracks = link(found, [shot(60, 80), shot(10, 30)], FaceConfig())
    assert [(track.shot_index, track.frames) for track in tracks] == [(1, (10, 15, 20, 25)), (0, (60, 65, 70, 75))]


def test_of_faces_that_begin_together_the_larger_comes_first():
    found = [face(frame, x=x, side=side) for frame in (0, 5) for x, side in ((0, 50.0), (300, 90.0), (600, 70.0))]
    tracks = link(found, [shot(0, 10)], FaceConfig())
    assert [track.boxes[0][2] - track.boxes[0][0] for track in tracks] == [90, 70, 50]


def test_the_track_names_the_detector_that_saw_it_most():
    found = [face(0, detector="cat_cascade"), face(5), face(10)]
    assert link(found, [shot(0, 20)], FaceConfig())[0].detector == "blazeface_short"


def test_nothing_gives_nothing():
    assert link([], [], FaceConfig()) == []
    assert link([], [shot(0, 10)], FaceConfig()) == []


# --- scanning with a detector that is told what to see ----------------------------------------------------


class Scripted:
    """Reads the frame number from the picture and answers from a table."""

    name = "scripted"

    def __init__(self, boxes, dense=True, name="scripted"):
        self.boxes, self.dense, self.name = boxes, dense, name
        self.looked: list[int] = []

    def detect(self, image):
        frame = int(image[0, 0, 0])
        self.looked.append(frame)
        return [FaceBox((float(x), 20.0, float(x) + 40, 60.0), 0.8) for x in self.boxes(frame)]


def scan(detectors, num_frames, first=0, config=None, presence=None, **scales):
    scanner = FaceScanner(detectors, config or FaceConfig(), presence, **scales)
    found = []
    for frame in range(first, num_frames):
        image = np.full((90, 200, 3), 60, np.uint8)
        image[0, 0] = frame
        found += scanner.push(frame, frame / 25, lambda image=image: image)
        assert len(scanner._waiting) < (config or FaceConfig()).stride
    return found + scanner.finish()


def test_only_frames_that_are_looked_at_are_converted_and_only_once():
    converted: list[int] = []

    def picture(frame):
        converted.append(frame)
        return np.full((90, 200, 3), frame, np.uint8)

    scanner = FaceScanner([Scripted(lambda frame: [50] if frame >= 13 else []), Scripted(lambda _: [])], FaceConfig())
    for frame in range(21):
        scanner.push(frame, frame / 25, lambda frame=frame: picture(frame))
    assert sorted(converted) == [0, 5, 10, 11, 12, 13, 14, 15, 20]


def test_a_still_face_is_looked_at_on_the_grid_and_at_the_end():
    detector = Scripted(lambda _: [50])
    found = scan([detector], 23)
    assert detector.looked == [0, 5, 10, 15, 20, 22]
    assert [one.frame for one in found] == detector.looked


def test_the_grid_hangs_on_absolute_frames():
    detector = Scripted(lambda _: [])
    scan([detector], 24, first=7)
    assert detector.looked == [10, 15, 20, 23]


def test_frames_between_are_looked_at_where_a_face_appears():
    detector = Scripted(lambda frame: [50] if frame >= 13 else [])
    found = scan([detector], 21)
    assert [one.frame for one in found] == [13, 14, 15, 20]
    assert sorted(detector.looked) == [0, 5, 10, 11, 12, 13, 14, 15, 20]


@pytest.mark.parametrize(("shift", "dense"), [(9, False), (10, False), (11, True)])
def test_frames_between_are_looked_at_where_a_face_moves(shift, dense):
    """Squares of 40 shifted by 10 have an IoU of exactly 0.6."""
    detector = Scripted(lambda frame: [50 + shift * (frame // 5)])
    scan([detector], 11)
    assert (7 in detector.looked) == dense


def test_a_dear_detector_keeps_to_the_grid():
    dear = Scripted(lambda frame: [50] if frame % 2 else [], dense=False)
    scan([dear], 21)
    assert dear.looked == [0, 5, 10, 15, 20]


def test_one_detectors_doubt_does_not_wake_the_other():
    sure, unsure = Scripted(lambda _: [], name="sure"), Scripted(lambda frame: [50] if frame >= 13 else [])
    scan([sure, unsure], 21)
    assert sure.looked == [0, 5, 10, 15, 20]
    assert 13 in unsure.looked


def test_the_first_of_two_detectors_wins_where_they_agree():
    a = Scripted(lambda _: [50], name="first")
    b = Scripted(lambda _: [55, 140], name="second")
    found = scan([a, b], 1)
    assert [(one.detector, one.box[0]) for one in found] == [("first", 50), ("second", 140)]


@pytest.mark.parametrize(("flag", "num"), [(0.49, 0), (0.5, 0), (0.51, 1)])
def test_the_gate_drops_what_the_mesh_network_does_not_see(flag, num):
    gate = lambda _image, _box, min_presence: flag > min_presence  # noqa: E731
    assert len(scan([Scripted(lambda _: [50])], 1, presence=gate)) == num


def test_the_gate_is_shown_rgb():
    image = np.zeros((90, 200, 3), np.uint8)
    image[..., 2] = 200  # red, in BGR
    seen = []
    scanner = FaceScanner([Scripted(lambda _: [50])], FaceConfig(), lambda rgb, *_: seen.append(rgb[5, 5]) is None)
    scanner.push(0, 0.0, lambda: image)
    assert seen[0].tolist() == [200, 0, 0]


def test_boxes_are_in_source_pixels():
    (found,) = scan([Scripted(lambda _: [50])], 1, scale_x=3.0, scale_y=2.0)
    assert found.box == (150.0, 40.0, 270.0, 120.0)


def test_frames_must_come_in_order():
    scanner = FaceScanner([], FaceConfig())
    scanner.push(3, 0.0, lambda: np.zeros((8, 8, 3), np.uint8))
    with pytest.raises(ValueError, match="3 after 3"):
        scanner.push(3, 0.0, lambda: np.zeros((8, 8, 3), np.uint8))


def test_after_finish_a_scanner_is_as_new():
    detector = Scripted(lambda _: [50])
    scanner = FaceScanner([detector], FaceConfig())
    image = np.full((90, 200, 3), 60, np.uint8)
    first = scanner.push(0, 0.0, lambda: image) + scanner.finish()
    assert scanner.push(0, 0.0, lambda: image) + scanner.finish() == first


def test_agree_needs_every_face_on_both_sides():
    one, moved = FaceBox((0, 0, 10, 10), 0.9), FaceBox((200, 0, 210, 10), 0.9)
    assert agree([], [], 0.6)
    assert agree([one, moved], [moved, one], 0.6)
    assert not agree([one], [], 0.6)
    assert not agree([one, moved], [one, one], 0.6)


# --- appearance ------------------------------------------------------------------------------------------


@cache
def portrait() -> np.ndarray:
    return np.ascontiguousarray(astronaut()[:, :, ::-1])


FACE = (180.0, 68.0, 270.0, 178.0)


def likeness(a, b) -> float:
    return float(np.dot(a, b))


@settings(deadline=None)
@given(
    st.tuples(st.floats(-600, 600), st.floats(-600, 600), st.floats(0.5, 900), st.floats(0.5, 900)),
    st.sampled_from([(1, 1), (40, 3), (512, 512)]),
)
def test_appearance_is_a_short_unit_vector_for_any_box(box, size):
    x, y, width, height = box
    vector = appearance(portrait()[: size[0], : size[1]], (x, y, x + width, y + height))
    assert len(vector) <= 64
    assert np.linalg.norm(vector) == pytest.approx(1, abs=1e-3)
    assert all(round(value, 4) == value for value in vector)


def test_appearance_survives_light_scale_and_a_small_shift():
    before = appearance(portrait(), FACE)
    darker = cv2.convertScaleAbs(portrait(), alpha=0.8, beta=5)
    half = cv2.resize(portrait(), None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
    x0, y0, x1, y1 = FACE
    assert likeness(before, appearance(darker, FACE)) > 0.9
    assert likeness(before, appearance(half, (x0 / 2, y0 / 2, x1 / 2, y1 / 2))) > 0.95
    assert likeness(before, appearance(portrait(), (x0 + 5, y0 + 5, x1 + 5, y1 + 5))) > 0.85


def test_another_patch_looks_different():
    before = appearance(portrait(), FACE)
    suit = appearance(portrait(), (100.0, 300.0, 190.0, 410.0))
    assert likeness(before, suit) < 0.5


# --- from pictures to tracks -------------------------------------------------------------------------------


def film(paths, num_frames, scale=0.7):
    """The photograph's head moving along each path, on grey, 640 × 360."""
    head = cv2.resize(portrait()[40:220, 130:320], None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    for frame in range(num_frames):
        image = np.full((360, 640, 3), 128, np.uint8)
        for path in paths:
            x, y = path(frame)
            image[y : y + head.shape[0], x : x + head.shape[1]] = head
        yield frame, image


def tracks_of(frames, num_frames):
    scanner = FaceScanner([BlazeFace(0.5)], FaceConfig())
    found = [one for frame, image in frames for one in scanner.push(frame, frame / 25, lambda image=image: image)]
    return link(found + scanner.finish(), [shot(0, num_frames)], FaceConfig())


def test_a_moving_face_is_one_track_from_end_to_end():
    (track,) = tracks_of(film([lambda frame: (20 + 8 * frame, 60 + 2 * frame)], 53), 53)
    assert (track.frames[0], track.frames[-1]) == (0, 52)
    assert track.purity > 0.9
    centres = [(box[0] + box[2]) / 2 for box in track.boxes]
    speed = np.polyfit(track.frames, centres, 1)[0]
    assert speed == pytest.approx(8, abs=0.2)


def test_the_same_face_twice_is_two_tracks():
    tracks = tracks_of(film([lambda frame: (20 + frame, 60), lambda frame: (420 - frame, 100)], 41), 41)
    assert [(track.frames[0], track.frames[-1]) for track in tracks] == [(0, 40), (0, 40)]


# --- real media --------------------------------------------------------------------------------------------


@pytest.mark.assets
@pytest.mark.parametrize(
    "name",
    [
        "WDA_AlexandriaOcasioCortez_000.mp4",
        "tps_driving.mp4",
        "man_FaceTalk_170809_00138_TA_condition_FaceTalk_170725_00137_TA_audio.mp4",
        "bbaf2n.mpg",
        "d9.mp4",
        "yongen.mp4",
    ],
)
def test_a_talker_is_one_pure_track_through_the_shot(assets, name):
    av = pytest.importorskip("av")
    scanner, found, num_frames = None, [], 0
    with av.open(str(assets / "video" / name)) as container:
        for index, frame in enumerate(container.decode(video=0)):
            image = frame.to_ndarray(format="bgr24")
            scale = min(1.0, 640 / max(image.shape))
            image = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
            scanner = scanner or FaceScanner([BlazeFace(0.5)], FaceConfig(), None, 1 / scale, 1 / scale)
            found += scanner.push(index, index / 25, lambda image=image: image)
            num_frames = index + 1
    assert scanner is not None
    (track,) = link(found + scanner.finish(), [shot(0, num_frames)], FaceConfig())
    assert (track.frames[-1] - track.frames[0] + 1) / num_frames >= 0.98
    assert max(np.diff(track.frames)) <= FaceConfig().stride
    assert track.purity > 0.93
