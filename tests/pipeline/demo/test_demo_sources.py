"""The demo's films are what their truth says, and come out the same every time."""

import hashlib
import json
from dataclasses import replace
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import av
import numpy as np
import pytest
from scipy.signal import correlate

from pipeline.demo import mesh
from pipeline.demo.film import AUDIO_RATE_HZ, write_film
from pipeline.demo.films import ADA, DEMO_FILMS, shorten
from pipeline.demo.head import HeadPlacement, render_head
from pipeline.demo.portrait import Camera, face_box, film_talker
from pipeline.demo.solids import Character
from pipeline.demo.sources import MANIFEST, TRUTH, render_demo, timeline
from pipeline.demo.speech import OPENING_HZ, RATE_HZ, Voice, chords, synthesise_speech
from pipeline.models.files.packaged import packaged_model
from schemas.config import EMBEDDED_DOMAINS
from schemas.source import read_manifest
from tests.helpers.media import (
    Coding,
    Sound,
    clicks,
    flashes,
    iter_moving_face,
    iter_numbered,
    iter_shots,
    onsets_s,
    read_counter,
    stamp,
    write_video,
)

SHORT = tuple(shorten(film, 0.9) for film in DEMO_FILMS)


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    folder = tmp_path_factory.mktemp("demo")
    return folder, render_demo(folder, SHORT)


def decoded(path: Path) -> list[av.VideoFrame]:
    with av.open(str(path)) as container:
        return list(container.decode(video=0))


def sound_of(path: Path) -> np.ndarray:
    """Mono sound as played: from the first sample that the edit list keeps."""
    with av.open(str(path)) as container:
        frames = list(container.decode(audio=0))
        start = round(frames[0].pts * frames[0].time_base * frames[0].sample_rate)
        samples = np.concatenate([frame.to_ndarray().mean(0) for frame in frames])
    return samples[-start:] if start < 0 else np.concatenate([np.zeros(start, np.float32), samples])


def speech_probability(samples: np.ndarray) -> np.ndarray:
    """Silero's answer per 32 ms."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(packaged_model("silero_vad").path), options)
    state, past, answers = np.zeros((2, 1, 128), np.float32), np.zeros(64, np.float32), []
    for start in range(0, len(samples) - 511, 512):
        block = samples[start : start + 512].astype(np.float32)
        feed = {"input": np.concatenate([past, block])[None], "state": state, "sr": np.array(RATE_HZ, np.int64)}
        answer, state = session.run(None, feed)
        answers.append(float(answer[0, 0]))
        past = block[-64:]
    return np.array(answers)


# --- films ---


def test_same_films_same_bytes(demo, tmp_path):
    folder, _ = demo
    render_demo(tmp_path, SHORT[:2])
    for film in SHORT[:2]:
        one, two = ((place / f"{film.id}.mp4").read_bytes() for place in (folder, tmp_path))
        assert hashlib.sha256(one).hexdigest() == hashlib.sha256(two).hexdigest()


def test_manifest_is_one_that_the_pipeline_reads(demo):
    folder, _ = demo
    manifest = read_manifest(folder / MANIFEST, EMBEDDED_DOMAINS)
    assert [source.id for source in manifest.sources] == [film.id for film in DEMO_FILMS]
    assert not manifest.warnings
    assert all(source.commercial_use and source.derivatives for source in manifest.sources)


def test_truth_file_counts_the_frames_that_are_there(demo):
    folder, truths = demo
    assert json.loads((folder / TRUTH).read_text()) == json.loads(json.dumps(truths))
    for film, truth in zip(SHORT, truths, strict=True):
        frames = decoded(folder / f"{film.id}.mp4")
        assert len(frames) == truth["num_frames"] == len(truth["frames"])
        assert [frame.pts * frame.time_base for frame in frames] == [k / film.fps for k in range(len(frames))]


def test_cuts_are_where_pictures_change_most(demo):
    folder, truths = demo
    for film, truth in zip(SHORT, truths, strict=True):
        grey = np.stack([f.to_ndarray(format="gray")[::4, ::4] for f in decoded(folder / f"{film.id}.mp4")])
        change = np.abs(np.diff(grey.astype(float), axis=0)).mean((1, 2))
        cuts = [shot["frame"] for shot in truth["shots"] if shot["join"] == "cut"]
        soft = set()
        for shot in truth["shots"]:
            if shot["join"] in {"fade", "dissolve"}:
                soft |= set(range(shot["start_frame"], shot["stop_frame"] + 1))
        calm = [value for k, value in enumerate(change, start=1) if k not in cuts and k not in soft]
        for cut in cuts:
            assert change[cut - 1] > 2 * max(calm), (film.id, cut)
        for shot in truth["shots"]:
            if shot["join"] == "fade":
                assert grey[shot["frame"]].mean() < 18 > grey[shot["frame"] - 1].mean()


def test_timeline_leaves_no_frame_out():
    for film in DEMO_FILMS:
        spans = timeline(film)
        assert spans[0].start == 0
        for before, after in pairwise(spans):
            assert after.start <= before.stop
            assert after.start_frame <= after.frame <= after.stop_frame
            assert (after.join == "cut") == (after.start_frame == after.stop_frame == before.stop)


def test_sound_comes_as_late_as_the_truth_says(tmp_path):
    film = next(film for film in SHORT if film.lag_s)
    film_in_time = next(f for f in DEMO_FILMS if f.id == film.id)
    one_shot = replace(film, shots=film_in_time.shots[3:4])
    render_demo(tmp_path / "late", (shorten(one_shot, 1.2),))
    render_demo(tmp_path / "exact", (replace(shorten(one_shot, 1.2), lag_s=0.0),))
    late, exact = (sound_of(tmp_path / name / f"{film.id}.mp4") for name in ("late", "exact"))
    length = min(len(late), len(exact))
    lag = np.argmax(correlate(late[:length], exact[:length], method="fft")) - length + 1
    assert lag == round(film.lag_s * AUDIO_RATE_HZ)


def test_film_writer_keeps_picture_and_sound_together(tmp_path):
    fps, lit = Fraction(30000, 1001), [7, 22, 41]
    sound = clicks([Fraction(k) / fps for k in lit], Fraction(50) / fps)
    assert write_film(tmp_path / "film.mp4", flashes(50, lit), fps, sound) == 50
    levels = [frame.to_ndarray(format="gray").mean() for frame in decoded(tmp_path / "film.mp4")]
    assert [k for k, level in enumerate(levels) if level > 128] == lit
    heard = onsets_s(sound_of(tmp_path / "film.mp4"), AUDIO_RATE_HZ)
    assert heard == pytest.approx([float(k / fps) for k in lit], abs=0.001)


# --- voice ---


@pytest.mark.parametrize("film", DEMO_FILMS[:4], ids=lambda film: film.id)
def test_a_voice_detector_takes_every_demo_voice_for_speech(film):
    speech = synthesise_speech(6.0, film.seed, film.voice)
    assert (speech_probability(speech.samples) > 0.5).mean() >= 0.7


def test_chords_are_not_speech():
    assert (speech_probability(chords(6.0, 51)) > 0.5).mean() < 0.1


def test_the_mouth_follows_the_loudness():
    speech = synthesise_speech(8.0, 3, Voice())
    hop = RATE_HZ // OPENING_HZ
    power = (speech.samples[: len(speech.opening) * hop].reshape(-1, hop) ** 2).mean(1)
    assert np.corrcoef(np.convolve(power, np.ones(4) / 4, "same") ** 0.25, speech.opening)[0, 1] > 0.7
    assert 0 <= speech.opening.min() < 0.05
    assert 0.7 < speech.opening.max() <= 1
    assert np.array_equal(speech.samples, synthesise_speech(8.0, 3, Voice()).samples)


def test_speech_needs_a_duration():
    with pytest.raises(ValueError, match="positive duration"):
        synthesise_speech(0.0, 1)


# --- heads ---

WALL = np.full((300, 300, 3), 150, np.uint8)


def landmarks(**angles):
    pose = HeadPlacement(centre_px=(150.0, 130.0), scale_px=8.0, **angles)
    return render_head(WALL, Character(), pose)[1].landmarks


@pytest.mark.parametrize(("angle", "axis"), [("yaw_deg", 0), ("pitch_deg", 1)])
def test_nose_goes_left_for_yaw_and_up_for_pitch(angle, axis):
    nose = [landmarks(**{angle: value})[mesh.NOSE_TIP][axis] for value in (-20.0, 0.0, 20.0)]
    assert nose[0] > nose[1] > nose[2]


def test_roll_turns_clockwise_on_screen():
    left, right = landmarks(roll_deg=15.0)[[33, 263]]  # eye corners, image left and right
    assert np.degrees(np.arctan2(right[1] - left[1], right[0] - left[0])) == pytest.approx(15.0, abs=0.5)


def test_mouth_and_eyes_move_what_they_should():
    face = mesh.face_mesh()
    rest = face.deform(mouth_open=0.0)
    for opening in (0.25, 0.5, 1.0):
        moved = face.deform(mouth_open=opening)
        gap = moved[14] - moved[13]
        assert 1.5 * opening < gap[1] < 3.0 * opening, "centimetres between the lips"
        assert np.allclose(moved[mesh.FOREHEAD], rest[mesh.FOREHEAD])
    shut = face.deform(mouth_open=0.0, eye_closure=(1.0, 0.0))

    def heights(points):
        return [points[low[4], 1] - points[up[4], 1] for up, low in zip(mesh.UPPER_LIDS, mesh.LOWER_LIDS, strict=True)]

    assert heights(shut)[0] < 0.1 * heights(rest)[0], "image left is shut"
    assert heights(shut)[1] == pytest.approx(heights(rest)[1]), "image right is not"


def test_head_is_drawn_inside_its_box_and_nowhere_else():
    image, truth = render_head(WALL, ADA, HeadPlacement(centre_px=(150.0, 130.0), scale_px=5.0))
    x0, y0, x1, y1 = (round(side) for side in truth.box)
    assert (image[y0:y1, x0:x1] != WALL[0, 0]).any(-1).mean() > 0.95
    assert (image[:40] == WALL[0, 0]).all()
    assert (WALL == 150).all(), "the background is left as it is"


# --- the portrait ---


def test_portrait_moves_its_mouth_and_nothing_above():
    camera, size = Camera((225.0, 130.0), 2.0), (320, 300)
    shut, open_ = (film_talker(opening, camera, size).astype(int) for opening in (0.0, 1.0))
    change = np.abs(open_ - shut).max(-1)
    x0, y0, x1, y1 = (round(side) for side in face_box(camera, size))
    assert change[: (y0 + y1) // 2].max() == 0
    assert change[:, : x0 - 4].max() == change[:, x1 + 4 :].max() == 0
    assert change[(y0 + y1) // 2 : y1].max() > 100


# --- the generator of test video ---


@pytest.mark.parametrize(
    ("suffix", "coding"),
    [
        ("mp4", Coding()),
        ("mp4", Coding(pix_fmt="yuv420p10le")),
        ("avi", Coding(codec="mpeg4", bframes=0)),
        ("mkv", Coding(codec="libvpx-vp9", options={"deadline": "realtime", "cpu-used": "8"})),
        ("mkv", Coding(codec="ffv1", pix_fmt="yuv444p")),
    ],
    ids=lambda value: value if isinstance(value, str) else f"{value.codec}-{value.pix_fmt}",
)
def test_every_frame_can_be_told_apart_after_coding(tmp_path, suffix, coding):
    path = tmp_path / f"numbered.{suffix}"
    write_video(path, iter_numbered(20, first=2040), coding=coding)
    assert [read_counter(frame.to_ndarray(format="rgb24")) for frame in decoded(path)] == list(range(2040, 2060))


def test_times_of_their_own_are_kept(tmp_path):
    times = [Fraction(k * k, 100) for k in range(10)]
    shown = write_video(tmp_path / "vfr.mp4", iter_numbered(10), times_s=times, start_s=Fraction(1, 2))
    assert shown == [time + Fraction(1, 2) for time in times]
    assert [frame.pts * frame.time_base for frame in decoded(tmp_path / "vfr.mp4")] == shown


def test_flags_reach_the_file(tmp_path):
    path = tmp_path / "odd.mp4"
    coding = Coding(rotation_deg=90, sample_aspect_ratio=Fraction(4, 3), interlaced=True)
    write_video(path, iter_numbered(4), coding=coding)
    frame = decoded(path)[0]
    assert frame.interlaced_frame
    assert frame.rotation % 360 == 270, "ffmpeg counts anticlockwise"
    with av.open(str(path)) as container:
        assert container.streams.video[0].sample_aspect_ratio == Fraction(4, 3)


@pytest.mark.parametrize("offset_s", [Fraction(0), Fraction(1, 5)])
def test_flash_and_click_keep_their_distance(tmp_path, offset_s):
    path, lit = tmp_path / "flash.mp4", [10, 30]
    sound = Sound(clicks([Fraction(k, 25) for k in lit], 2), offset_s=offset_s)
    write_video(path, flashes(50, lit), sound=sound)
    heard = onsets_s(sound_of(path), 48_000)
    assert heard == pytest.approx([k / 25 + float(offset_s) for k in lit], abs=0.001)


def test_counter_refuses_what_is_not_one():
    with pytest.raises(ValueError, match="no counter"):
        read_counter(np.full((90, 160, 3), 128, np.uint8))
    with pytest.raises(ValueError, match="holds 0 to 4095"):
        stamp(WALL, 4096)


def test_generated_scenes_have_the_truth_they_state():
    assert [read_counter(frame) for frame in iter_shots([3, 2])] == [0, 1, 2, 3, 4]
    boxes = [box for _, box in iter_moving_face(51, sway_px=40.0)]
    assert boxes[25][0] - boxes[0][0] == pytest.approx(40.0, abs=0.1)
