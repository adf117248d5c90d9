"""Sync: a known lag is found exactly, unrelated pairs are not called significant, real talkers are."""

from itertools import islice

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import gaussian_filter1d

from pipeline.media.audio import read_audio
from pipeline.media.decode import iter_at_rate, iter_frames
from pipeline.models.detectors import build_detectors
from pipeline.models.landmarkers import FaceMesh468
from pipeline.motion import mouth_opening
from pipeline.probe import probe
from pipeline.speech import speech_envelope
from pipeline.sync import score_sync
from schemas.config import DetectorChoice, ProbeConfig, SyncConfig

CONFIG = SyncConfig()
FPS = 25


def speaking(num_frames: int, seed: int) -> np.ndarray:
    """Loudness of made-up speech: syllables of about 0.2 s in bursts, pauses between."""
    rng = np.random.default_rng(seed)
    fine = np.zeros(num_frames * 4)
    at = 0
    while at < len(fine):
        if rng.random() < 0.12:
            at += int(rng.uniform(20, 80))
            continue
        length = int(rng.gamma(6, 20 / 6)) + 6
        piece = fine[at : at + length]
        piece += rng.uniform(0.4, 1) * np.hanning(length + 2)[1:-1][: len(piece)]
        at += length
    return (fine.reshape(num_frames, 4).mean(axis=1) + 0.05 * rng.random(num_frames)).astype(np.float32)


def mouth_of(loudness: np.ndarray) -> np.ndarray:
    return (0.02 + 0.1 * gaussian_filter1d(loudness.astype(np.float64), 0.8)).astype(np.float32)


def score(mouth, loudness, valid=None, config=CONFIG):
    return score_sync(mouth, np.ones(len(mouth), bool) if valid is None else valid, loudness, config, FPS)


# --- laws ---


@given(lag=st.integers(-5, 5), num_frames=st.integers(100, 300), seed=st.integers(0, 50))
@settings(max_examples=40, deadline=None)
def test_a_known_lag_is_found_positive_when_the_picture_is_late(lag, num_frames, seed):
    loudness = speaking(num_frames + 20, seed)
    mouth = mouth_of(loudness)
    late = mouth[10 - lag : 10 - lag + num_frames]  # frame k shows what was heard lag frames before
    found = score(late, loudness[10 : 10 + num_frames])
    assert found.status == "known"
    assert found.lag_frames == lag
    assert found.p < 0.05


@pytest.mark.parametrize("num_frames", [80, 100, 125, 250])
def test_unrelated_pairs_are_significant_as_rarely_as_p_says(num_frames):
    """The shifts alone called .2 to .38 of short pairs significant. 200 pairs at .05: 10 ± 3, four deviations more."""
    found = [score(mouth_of(speaking(num_frames, k)), speaking(num_frames, 1000 + k)) for k in range(200)]
    assert np.mean([one.p < 0.05 for one in found]) <= 0.11
    z = np.array([one.z for one in found])
    assert abs(z.mean()) < 0.35
    assert 0.75 < z.std() < 1.25  # the same meaning at every length


def test_units_do_not_matter():
    loudness = speaking(150, 1)
    mouth = mouth_of(speaking(150, 2))
    assert score(mouth * 1e-4, loudness * 1e-4) == score(mouth, loudness)


def test_the_same_clip_has_the_same_score():
    loudness = speaking(150, 3)
    assert score(mouth_of(loudness), loudness) == score(mouth_of(loudness), loudness)


def test_frames_without_a_face_take_no_part():
    loudness = speaking(200, 4)
    mouth = mouth_of(loudness)
    valid = np.ones(200, bool)
    valid[60:75] = False
    wild = mouth.copy()
    wild[60:75] = np.random.default_rng(0).uniform(0, 50, 15)
    assert score(wild, loudness, valid) == score(mouth, loudness, valid)
    assert score(wild, loudness, valid).lag_frames == 0


def test_no_shift_of_the_null_comes_nearer_than_it_may():
    """A loop of one second agrees with itself at every whole second, so the shifts must notice."""
    loudness = np.tile(speaking(25, 5), 8)
    assert score(mouth_of(loudness), loudness).p > 0.9


# --- unknown ---


@pytest.mark.parametrize(("num_valid", "status"), [(79, "unknown"), (80, "known"), (81, "known")])
def test_the_least_length_counts_frames_with_a_face(num_valid, status):
    loudness = speaking(100, 6)
    valid = np.arange(100) < num_valid
    found = score(mouth_of(loudness), loudness, valid)
    assert found.status == status
    if status == "unknown":
        assert found.why == "3.16 s with a face, 3.2 s needed"
        assert (found.score, found.lag_frames, found.z, found.p) == (None, None, None, None)


@pytest.mark.parametrize(("num_frames", "status"), [(59, "unknown"), (60, "known")])
def test_a_clip_too_short_to_shift_is_unknown(num_frames, status):
    config = CONFIG.model_copy(update={"min_s": 0.5})
    found = score(mouth_of(speaking(num_frames, 7)), speaking(num_frames, 7), config=config)
    assert (found.status, found.why) == (status, "too short to shift the sound against" if status == "unknown" else "")


def test_a_still_mouth_or_an_even_sound_is_unknown():
    moving = speaking(125, 8)
    still = np.full(125, 0.31, np.float32)
    assert score(still, moving).why == "the mouth never moves"
    for even in (still, np.zeros(125, np.float32)):
        assert score(mouth_of(moving), even).why == "the sound's loudness never changes"
    nobody = np.zeros(125, bool)
    assert score(mouth_of(moving), moving, nobody).why == "0.00 s with a face, 3.2 s needed"


# --- real talkers ---


def mouth_and_loudness(path) -> tuple[np.ndarray, np.ndarray]:
    video = probe(path, "talker", "0" * 64, ProbeConfig())
    num_frames = int((min(video.stop_s, video.audio.stop_s) - video.start_s) * FPS)
    size = (480, round(video.height_px * 480 / video.width_px))
    frames = iter_at_rate(iter_frames(path, video), video.start_s, FPS, num_frames)
    landmarker = FaceMesh468()
    box, mouth = None, []
    for frame, _ in islice(frames, num_frames):
        picture = frame.to_array(size, "rgb24")
        if box is None:
            detector = build_detectors([DetectorChoice(model="blazeface_short", min_score=0.5)])[0]
            box = detector.detect(np.ascontiguousarray(picture[..., ::-1]))[0].box
        mouth.append(mouth_opening(landmarker.locate(picture, box).points))
    samples = read_audio(path, video.audio.index, video.start_s, len(mouth) * 640)
    return np.array(mouth, np.float32), speech_envelope(samples, len(mouth), FPS)


@pytest.fixture(scope="module")
def talkers(assets):
    found = {}
    for name in ("WDA_AlexandriaOcasioCortez_000", "tps_driving", "man_FaceTalk_170809_00138_TA"):
        found[name] = mouth_and_loudness(next((assets / "video").glob(f"{name}*.mp4")))
    return found


@pytest.mark.assets
def test_real_talkers_beat_their_own_sound_shifted(talkers):
    for mouth, loudness in talkers.values():
        found = score(mouth, loudness)
        assert found.p < 0.05
        assert found.z > 2
        assert -5 < found.lag_frames <= 0  # mouths open before they are heard


@pytest.mark.assets
def test_swapped_sound_is_seldom_significant(talkers):
    found = [
        score(mouth[at : at + 125], loudness[of : of + 125]).p < 0.05
        for name, (mouth, _) in talkers.items()
        for other, (_, loudness) in talkers.items()
        if name != other
        for at in range(0, len(mouth) - 124, 25)
        for of in range(0, len(loudness) - 124, 25)
    ]
    assert len(found) > 80
    assert np.mean(found) < 0.12  # windows overlap, so this wanders about .05
