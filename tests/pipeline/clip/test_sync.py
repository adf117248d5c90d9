"""Sync: the lag is found with its sign, strangers are rarely taken for a pair, and units never matter."""

from functools import lru_cache
from pathlib import Path

import av
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from scipy.ndimage import gaussian_filter1d

from pipeline.clip.speech import speech_envelope
from pipeline.clip.sync import score_sync
from pipeline.demo.speech import synthesise_speech
from pipeline.media.audio import read_audio
from schemas.config import SyncConfig
from schemas.scores import SyncScore
from tests.helpers.media import Sound, flashes, write_video

CONFIG = SyncConfig()


@lru_cache(maxsize=512)
def talker(seed: int, num_frames: int = 150) -> tuple[np.ndarray, np.ndarray]:
    """A mouth's opening and the loudness of its own voice, with half a second more at each end."""
    speech = synthesise_speech(num_frames / 25 + 1, seed)
    times_s = np.arange(num_frames + 25) / 25
    return speech.opening_at(times_s).astype(np.float32), speech_envelope(speech.samples, num_frames + 25)


def pair(seed: int, lag: int = 0, num_frames: int = 150) -> tuple[np.ndarray, np.ndarray]:
    """A mouth that comes ``lag`` frames later than its voice."""
    opening, envelope = talker(seed, num_frames)
    return opening[12 - lag :][:num_frames], envelope[12:][:num_frames]


def everywhere(num_frames: int) -> np.ndarray:
    return np.ones(num_frames, bool)


def score(opening: np.ndarray, envelope: np.ndarray, valid: np.ndarray | None = None, **changes) -> SyncScore:
    valid = everywhere(len(opening)) if valid is None else valid
    return score_sync(opening, valid, envelope, SyncConfig(**changes))


# --- laws -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("lag", range(-4, 5))
@pytest.mark.parametrize("seed", range(4))
def test_the_lag_is_positive_when_the_picture_comes_later(seed, lag):
    """Synthetic mouths have a lag of their own (they open before they sound); moving the picture adds to it."""
    at_rest = score(*pair(seed)).lag_frames
    assert at_rest in {-1, 0}
    found = score(*pair(seed, lag))
    assert found.status == "known"
    assert found.lag_frames == at_rest + lag
    assert found.p < 0.05


@pytest.mark.parametrize("lag", range(-5, 6))
def test_a_copy_of_the_sound_is_found_at_its_lag(lag):
    """Where the mouth's opening is the loudness itself and moves too slowly for its speed to matter."""
    rng = np.random.default_rng(3)
    sound = gaussian_filter1d(rng.standard_normal(400), 2.0).astype(np.float32)
    opening = np.where(sound > 0, sound, 0)
    found = score(opening[50 - lag : 250 - lag], opening[50:250])
    assert abs(found.lag_frames - lag) <= 1


def test_most_pairs_are_recognised():
    found = [score(*pair(seed)) for seed in range(40)]
    assert np.mean([one.p < 0.05 for one in found]) >= 0.9
    assert np.median([one.z for one in found]) > 3


@pytest.mark.parametrize("num_frames", [100, 150])
def test_few_strangers_are_taken_for_a_pair(num_frames):
    """At p < .05; what autocorrelation and unsteady speech leave above .05 stays below .10."""
    found = []
    for seed in range(200):
        rng = np.random.default_rng(seed)
        mouth, voice = rng.choice(10, 2, replace=False)
        at, other = rng.integers(0, 600 - num_frames, 2)
        opening, envelope = talker(int(mouth), 600)[0], talker(int(voice), 600)[1]
        found.append(score(opening[at:][:num_frames], envelope[other:][:num_frames]))
    share = np.mean([one.p < 0.05 for one in found])
    print(f"{share:.3f} of 200 unrelated pairs of {num_frames} frames have p < .05")
    assert share <= 0.10
    assert abs(np.mean([one.z for one in found])) < 0.5


def test_a_file_between_mouth_and_sound_changes_no_lag(tmp_path):
    """Encoders delay sound; if reading did not undo it to the sample, every lag would be wrong by a frame or more."""
    speech = synthesise_speech(6.0, seed=1)
    path = tmp_path / "talker.mp4"
    write_video(path, flashes(150, []), sound=Sound(speech.samples, 16000))
    opening = speech.opening_at(np.arange(150) / 25).astype(np.float32)
    with av.open(str(path)) as container:
        index = container.streams.audio[0].index
    through = speech_envelope(read_audio(path, index, 0.0, 96_000), 150)
    direct = speech_envelope(speech.samples, 150)
    np.testing.assert_allclose(through, direct, atol=0.05 * direct.max())
    assert score(opening, through).lag_frames == score(opening, direct).lag_frames


def test_noise_that_changes_slowly_is_no_pair_either():
    found = []
    for seed in range(200):
        rng = np.random.default_rng(seed)
        mouth, sound = gaussian_filter1d(rng.standard_normal((2, 125)), 3.0, axis=1).astype(np.float32)
        found.append(score(mouth, sound).p < 0.05)
    assert np.mean(found) <= 0.10


@given(
    scale=st.floats(0.01, 100),
    offset=st.floats(-10, 10),
    loudness=st.floats(0.01, 100),
    ground=st.floats(0, 10),
)
@settings(max_examples=15, deadline=None)
def test_units_do_not_matter(scale, offset, loudness, ground):
    opening, envelope = pair(5, 2)
    plain = score(opening, envelope)
    other = score((opening + np.float64(offset)) * scale, (envelope + np.float64(ground)) * loudness)
    assert other.lag_frames == plain.lag_frames
    assert (other.score, other.z, other.p) == pytest.approx((plain.score, plain.z, plain.p), abs=2e-3)


@given(seed=st.integers(0, 50), value=st.sampled_from([np.nan, np.inf, -1e6, 1e6]))
@settings(max_examples=15, deadline=None)
def test_frames_without_a_face_take_no_part(seed, value):
    opening, envelope = pair(6)
    valid = np.random.default_rng(seed).random(len(opening)) > 0.2
    spoiled = np.where(valid, opening, value).astype(np.float32)
    assert score(spoiled, envelope, valid) == score(opening, envelope, valid)


def test_a_loop_proves_nothing():
    """Picture and sound that repeat every second agree at every whole second: 11 of 25 shifts reach them."""
    opening, envelope = pair(13)
    found = score(np.tile(opening[:25], 8), np.tile(envelope[:25], 8))
    assert found.p > 0.3


def test_the_same_clip_has_the_same_score():
    assert score(*pair(7)) == score(*pair(7))


# --- unknown --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("num_valid", "status"), [(79, "unknown"), (80, "known"), (81, "known")])
def test_below_the_least_length_the_answer_is_unknown(num_valid, status):
    for num_frames in (num_valid, 100):  # a short clip, and a longer one with few faces
        opening, envelope = pair(8, num_frames=100)
        valid = np.arange(num_frames) < num_valid
        found = score(opening[:num_frames], envelope[:num_frames], valid)
        assert found.status == status
        if status == "unknown":
            assert found.why == "3.16 s with a face, 3.2 s needed"


@pytest.mark.parametrize("level", [0.0, 0.3, 7.0])
def test_a_mouth_that_never_moves_is_unknown(level):
    _, envelope = pair(9)
    found = score(np.full(150, level, np.float32), envelope)
    assert found.status == "unknown"
    assert found.why == "the mouth never moves"


@pytest.mark.parametrize("offset", [0.0, 0.1])
def test_silence_is_unknown_whatever_its_offset(offset):
    opening, _ = pair(10)
    silence = speech_envelope(np.full(150 * 640, offset, np.float32), 150)[5:-5]
    found = score(opening[5:-5], silence)
    assert found.status == "unknown"
    assert "sound" in found.why


def test_no_face_at_all_is_unknown():
    opening, envelope = pair(11)
    assert score(opening, envelope, np.zeros(150, bool)).status == "unknown"


def test_a_clip_too_short_for_the_configured_shifts_is_unknown():
    opening, envelope = pair(12, num_frames=100)
    found = score(opening, envelope, min_shift_s=2.0)
    assert found.status == "unknown"
    assert found.why == "too short to shift the sound against"


@pytest.mark.parametrize(
    "fields",
    [
        {"status": "known", "score": 0.5},
        {"status": "unknown", "why": "x", "p": 0.5},
        {"status": "unknown"},
        {"status": "known", "score": float("nan"), "lag_frames": 0, "z": 1.0, "p": 0.5},
    ],
)
def test_half_a_score_cannot_exist(fields):
    with pytest.raises(ValidationError):
        SyncScore(**fields)


# --- real films -----------------------------------------------------------------------------------------------------

TALKERS = {
    "WDA_AlexandriaOcasioCortez_000.mp4": "real",
    "tps_driving.mp4": "real",
    "man_FaceTalk_170809_00138_TA_condition_FaceTalk_170725_00137_TA_audio.mp4": "mesh",
}


@pytest.fixture(scope="module")
def mouths_and_voices(assets) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    return [_measure(assets / "video" / name, domain) for name, domain in TALKERS.items()]


def _measure(path: Path, domain: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Opening, validity and loudness of six seconds, by the pipeline's own stages."""
    from pipeline.clip.landmarks import estimate_landmarks
    from pipeline.clip.meters import model_files
    from pipeline.clip.motion import estimate_motion
    from pipeline.fetch.probe import probe
    from pipeline.media.decode import iter_at_rate, iter_frames
    from pipeline.models.registry import ModelSet
    from schemas.config import BuildConfig

    config = BuildConfig()
    models = ModelSet(model_files(config))
    video = probe(path, "film", "0" * 64, config.probe)
    size = (512, round(512 * video.height_px / video.width_px))
    num_frames = 150
    shown = iter_at_rate(iter_frames(path, video), video.start_s, 25, num_frames)
    images = [frame.to_array(size, "rgb24") for frame, _ in shown]
    box = _face_box(models.detectors(domain)[0], images[0])
    faces = estimate_landmarks(iter(images), [box] * num_frames, models.landmarker(domain), config.landmarks)
    motion = estimate_motion(faces.raw, faces.confidence)
    samples = read_audio(path, video.audio.index, video.start_s, 640 * num_frames)
    return motion.mouth_raw, faces.confidence > 0, speech_envelope(samples, num_frames)


def _face_box(detector, image: np.ndarray) -> tuple[float, float, float, float]:
    return max(detector.detect(np.ascontiguousarray(image[..., ::-1])), key=lambda face: face.score).box


@pytest.mark.assets
@pytest.mark.parametrize("index", range(3), ids=["real-a", "real-b", "mesh"])
def test_real_talkers_belong_to_their_sound(mouths_and_voices, index):
    opening, valid, envelope = mouths_and_voices[index]
    found = score(opening, envelope, valid)
    print(list(TALKERS)[index], found)
    assert found.p < 0.05
    assert found.z > 2  # measured 5.0, 2.4, 3.4
    assert -5 <= found.lag_frames <= 0  # mouths open before they sound


@pytest.mark.assets
def test_real_talkers_rarely_belong_to_another_ones_sound(mouths_and_voices):
    found = {
        (a, b): score(mouths_and_voices[a][0], mouths_and_voices[b][2], mouths_and_voices[a][1])
        for a in range(3)
        for b in range(3)
        if a != b
    }
    print({places: (one.z, one.p, one.lag_frames) for places, one in found.items()})
    assert sum(one.p < 0.05 for one in found.values()) <= 1
