"""Who is talking: the network is the published one, its input exact, and what belongs together wins."""

from pathlib import Path

import av
import numpy as np
import pytest
import torch

from pipeline.clip.speaker import heard_frames, score_speaker
from pipeline.curate.select import decide
from pipeline.curate.speakers import keep_speakers
from pipeline.models.light_asd import CONTEXT_FRAMES, LightAsdNetwork
from pipeline.models.speaker import FACE_PX, LightAsd, lower_face, mfcc
from schemas.base import TimeSpan
from schemas.config import SelectLimits, SpeakerConfig
from schemas.decision import Decision, RejectReason
from schemas.errors import UsageError
from schemas.scores import SpeakerScore, SyncScore
from tests.helpers.release_items import make_clip

CONFIG = SpeakerConfig(weights="unused")


def random_weights(path: Path, seed: int = 0) -> Path:
    """A stand-in of the published file's layout whose weights are random."""
    torch.manual_seed(seed)
    torch.save(LightAsdNetwork().state_dict(), path)
    return path


@pytest.fixture(scope="module")
def network(assets) -> LightAsd:
    return LightAsd(assets / "weights" / "finetuning_TalkSet.model")


@pytest.fixture(scope="module")
def stand_in(tmp_path_factory) -> LightAsd:
    return LightAsd(random_weights(tmp_path_factory.mktemp("weights") / "random-stand-in.model"))


# --- the network's input ---


def chirp() -> np.ndarray:
    t = np.arange(16000) / 16000
    tones = 3000 * np.sin(2 * np.pi * (200 + 300 * t) * t) + 200 * np.sin(2 * np.pi * 3000 * t)
    return (tones.astype(np.int16) / 32768).astype(np.float32)


# What python_speech_features 0.6 gives for steps 0, 40 and 97 of that signal as 16-bit numbers (numcep=13,
# winlen=.025, winstep=.010, nfft=512).
REFERENCE = {
    0: [16.25842, 9.66207, 11.15924, 35.79889, -15.58787, -13.54327, 26.35131, -28.76654, -32.79422, 9.94106,
        -31.5471, -35.72373, 2.43064],
    40: [17.30696, 14.12549, -1.56378, 8.23134, -39.20349, -43.24579, -0.94221, -30.58388, -14.95734, 37.77055,
         7.35194, 3.90549, 29.76323],
    97: [18.29639, 12.41383, -17.67412, -16.0049, -36.91248, -11.18091, 44.77939, 12.58011, -6.28083, 5.32759,
         -34.06996, -24.14556, 22.87123],
}  # fmt: skip


def test_cepstra_are_those_of_python_speech_features():
    found = mfcc(chirp(), 25)
    assert found.shape == (100, 13)
    for step, expected in REFERENCE.items():
        np.testing.assert_allclose(found[step], expected, atol=2e-5)


@pytest.mark.parametrize("num_frames", [1, 64, 75, 500])
def test_there_are_four_steps_per_frame_whatever_the_length(num_frames):
    assert mfcc(np.zeros(640 * num_frames, np.float32), num_frames).shape == (4 * num_frames, 13)
    assert np.isfinite(mfcc(np.zeros(640 * num_frames, np.float32), num_frames)).all()


@pytest.mark.parametrize("scale", [0.5, 1.0, 3.0])
def test_a_face_is_cut_to_the_same_picture_at_any_size(scale):
    """A mark a quarter of the box below its middle lies below the middle of the cut, at every size."""
    size = round(256 * scale)
    picture = np.zeros((size, size, 3), np.uint8)
    middle, mark = size // 2, size // 2 + round(0.15 * 128 * scale)
    reach = max(2, round(6 * scale))
    picture[mark - reach : mark + reach, middle - reach : middle + reach] = 255
    half = 64 * scale
    cut = lower_face(picture, (middle - half, middle - half, middle + half, middle + half))
    assert cut.shape == (FACE_PX, FACE_PX)
    rows, columns = np.nonzero(cut > 128)
    assert rows.mean() == pytest.approx(FACE_PX / 2, abs=1.5)
    assert columns.mean() == pytest.approx(FACE_PX / 2, abs=1.5)


def test_beyond_the_picture_a_face_is_cut_from_its_edge():
    assert (lower_face(np.full((50, 50, 3), 90, np.uint8), (-30.0, -30.0, 40.0, 80.0)) == 90).all()


# --- the network ---


def test_a_long_clip_in_pieces_gives_the_numbers_of_one_pass(stand_in, monkeypatch):
    faces = np.random.default_rng(0).integers(0, 255, (32, FACE_PX, FACE_PX)).astype(np.uint8)
    whole = stand_in.faces(faces)
    monkeypatch.setattr("pipeline.models.speaker._CHUNK_FRAMES", 2 * CONTEXT_FRAMES + 3)
    np.testing.assert_allclose(stand_in.faces(faces), whole, atol=1e-5)


def test_other_weights_are_refused_in_one_sentence(tmp_path):
    with pytest.raises(UsageError, match=r"weights file .* is not there"):
        LightAsd(tmp_path / "none.model")
    (tmp_path / "text.model").write_text("no weights")
    with pytest.raises(UsageError, match="no readable PyTorch state dict"):
        LightAsd(tmp_path / "text.model")
    state = LightAsdNetwork().state_dict()
    torch.save([1, 2], tmp_path / "list.model")
    with pytest.raises(UsageError, match="no state dict of tensors"):
        LightAsd(tmp_path / "list.model")
    short = dict(list(state.items())[1:])
    torch.save(short, tmp_path / "short.model")
    with pytest.raises(UsageError, match=r"1 of \d+ tensors differ, such as .*found none"):
        LightAsd(tmp_path / "short.model")
    torch.save({**state, "lossAV.FC.bias": torch.zeros(3)}, tmp_path / "wide.model")
    with pytest.raises(UsageError, match=r"such as lossAV.FC.bias \(expected \(2,\), found \(3,\)\)"):
        LightAsd(tmp_path / "wide.model")


# --- one clip's score ---


def speech(num_frames: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(1)
    return rng.normal(0, 0.1, 640 * num_frames).astype(np.float32), rng.random(num_frames).astype(np.float32)


def scored(stand_in: LightAsd, num_frames: int = 60, heard: int = 60, **changes) -> SpeakerScore:
    samples, loudness = speech(num_frames)
    given = {
        "valid": np.ones(num_frames, bool),
        "heard": np.arange(num_frames) < heard,
        "loudness": loudness,
    } | changes
    faces = np.zeros((num_frames, FACE_PX, FACE_PX), np.uint8)
    return score_speaker(faces, given["valid"], samples, given["heard"], given["loudness"], stand_in, CONFIG)


def test_nobody_speaks_in_silence(stand_in):
    """The gate: what the network thinks of a face without a voice is never asked."""
    needed = round(CONFIG.min_heard_s * 25 + 0.5)
    assert scored(stand_in, heard=needed - 1).status == "unknown"
    assert scored(stand_in, heard=needed).status == "known"
    assert "0.00 s of speech" in scored(stand_in, heard=60, valid=np.zeros(60, bool)).why
    assert "never changes" in scored(stand_in, loudness=np.ones(60, np.float32)).why
    shortest = 2 * (25 + CONFIG.max_lag_frames) + 2
    assert "too short" in scored(stand_in, shortest - 1).why
    assert scored(stand_in, shortest).status == "known"


def test_speech_is_heard_in_the_frames_it_covers():
    voice = np.zeros(125, np.float32)  # 4 s
    voice[round(1.0 / 0.032) : round(2.0 / 0.032)] = 0.9
    heard = heard_frames(voice, 0.5, 100)
    assert heard.sum() == pytest.approx(25, abs=1)
    assert heard[30]
    assert not heard[20]
    assert heard_frames(voice, 0.9, 100).sum() == pytest.approx(25, abs=1)
    assert not heard_frames(voice, 0.91, 100).any()


# --- the choice between faces ---


def known(score: float) -> SpeakerScore:
    return SpeakerScore(status="known", score=score, share=1.0, following=score, z=3.0, p=0.02)


def clip_of(name: str, *, track: int, start_s: float = 0.0, stop_s: float = 4.0, speaker=None, z=None, shot: int = 0):
    made = make_clip(name)
    sync = SyncScore(status="known", score=0.5, lag_frames=0, z=z, p=0.1) if z is not None else made.scores.sync
    if z is None:
        sync = SyncScore(status="unknown", why="test")
    span = TimeSpan(start_s=start_s, stop_s=stop_s)
    plan = made.plan.model_copy(
        update={"span": span, "track_index": track, "shot_index": shot, "source_id": "film", "clip_id": name}
    )
    scores = made.scores.model_copy(update={"sync": sync, "speaker": speaker})
    return made.model_copy(update={"plan": plan, "scores": scores, "domain": "real"})


def chosen(*clips, one_speaker: bool = True, lost: frozenset[str] = frozenset()) -> dict[str, Decision]:
    decisions = [
        Decision(clip_id=clip.clip_id, keep=False, reason=RejectReason.PADDING)
        if clip.clip_id in lost
        else Decision(clip_id=clip.clip_id, keep=True)
        for clip in clips
    ]
    limits = {"real": SelectLimits(one_speaker=one_speaker)}
    return {one.clip_id: one for one in keep_speakers(decisions, {clip.clip_id: clip for clip in clips}, limits)}


def test_the_face_with_the_lower_score_is_rejected_with_both_numbers():
    found = chosen(clip_of("a", track=0, speaker=known(0.4)), clip_of("b", track=1, speaker=known(0.1)))
    assert found["a"].keep
    assert found["b"].reason is RejectReason.NOT_THE_SPEAKER
    assert (found["b"].measured, found["b"].limit) == (0.1, 0.4)
    assert "a speaks, by speaker score" in found["b"].note


def test_it_is_off_by_default_and_equals_both_stay():
    both = clip_of("a", track=0, speaker=known(0.4)), clip_of("b", track=1, speaker=known(0.1))
    assert all(one.keep for one in chosen(*both, one_speaker=False).values())
    equal = clip_of("a", track=0, speaker=known(0.4)), clip_of("b", track=1, speaker=known(0.4))
    assert all(one.keep for one in chosen(*equal).values())


def test_sync_decides_where_no_network_does_and_the_unknown_never():
    assert not chosen(clip_of("a", track=0, z=5.0), clip_of("b", track=1, z=1.9))["b"].keep
    assert chosen(clip_of("a", track=0, z=5.0), clip_of("b", track=1))["b"].keep
    mixed = clip_of("a", track=0, z=1.0, speaker=known(0.9)), clip_of("b", track=1, z=5.0)
    assert not chosen(*mixed)["a"].keep, "scores of two kinds are never compared"


@pytest.mark.parametrize(("start_s", "compared"), [(1.9, True), (2.0, True), (2.1, False), (4.0, False)])
def test_only_faces_that_share_half_the_shorter_ones_time_are_compared(start_s, compared):
    other = clip_of("b", track=1, start_s=start_s, stop_s=start_s + 4, speaker=known(0.1))
    assert chosen(clip_of("a", track=0, speaker=known(0.4)), other)["b"].keep is not compared


def test_clips_of_one_track_or_of_two_shots_are_no_rivals():
    loud = clip_of("a", track=0, speaker=known(0.4))
    assert chosen(loud, clip_of("b", track=0, speaker=known(0.1)))["b"].keep
    assert chosen(loud, clip_of("b", track=1, shot=1, speaker=known(0.1)))["b"].keep


def test_a_rejected_clip_keeps_its_reason_and_still_speaks():
    loud, quiet = clip_of("a", track=0, speaker=known(0.4)), clip_of("b", track=1, speaker=known(0.1))
    found = chosen(loud, quiet, lost=frozenset({"a"}))
    assert found["a"].reason is RejectReason.PADDING
    assert found["b"].reason is RejectReason.NOT_THE_SPEAKER


# --- real media ---


def faces_and_sound(path: Path) -> tuple[list[np.ndarray], np.ndarray]:
    """All pictures at 25 fps, and the sound at 16 kHz."""
    resampler = av.AudioResampler("flt", "mono", 16000)
    with av.open(str(path)) as container:
        pictures = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    with av.open(str(path)) as container:
        blocks = [block for frame in container.decode(audio=0) for block in resampler.resample(frame)]
    blocks += resampler.resample(None)
    return pictures, np.concatenate([block.to_ndarray()[0] for block in blocks])


GRID = (("bbaf2n.mpg", (94.0, 96.0, 213.0, 250.0)), ("id2_vcd_swwp2s.mpg", (121.0, 96.0, 239.0, 251.0)))


@pytest.mark.assets
@pytest.mark.parametrize(("name", "box"), GRID)
def test_the_mean_logit_orders_sync_over_shifted_over_silence(assets, network, name, box):
    """Scouting's order on a third speaker of the same corpus: 3.72 with its own sound, 3.16 rolled by 1 s, 3.14 silent.

    The boxes are BlazeFace's median.
    """
    pictures, samples = faces_and_sound(assets / "video" / name)
    seen = network.faces(np.stack([lower_face(picture, box) for picture in pictures]))
    sounds = [samples, np.roll(samples, 16000), np.zeros_like(samples)]
    heard = np.stack([network.sound(sound, len(pictures)) for sound in sounds])
    true, rolled, silent = network.logits(seen, heard).mean(axis=1)
    print(f"{name}: own {true:.2f}, rolled 1 s {rolled:.2f}, silence {silent:.2f}")
    assert true > rolled > silent
    assert silent > 0, "a threshold of 0 does not reject silence"


@pytest.mark.parametrize(("z", "keep"), [(1.9, False), (2.0, True), (2.1, True), (None, True)])
def test_a_face_that_follows_shifted_sounds_as_well_is_not_the_speaker(z, keep):
    speaker = SpeakerScore(status="unknown", why="test") if z is None else known(0.4).model_copy(update={"z": z})
    clip = clip_of("a", track=0, z=5.0, speaker=speaker)
    clip = clip.model_copy(update={"plan": clip.plan.model_copy(update={"num_frames": 100})})
    assert decide(clip, SelectLimits()).keep
    found = decide(clip, SelectLimits(min_speaker_z=2.0))
    assert found.keep is keep
    if not keep:
        assert found.reason is RejectReason.NOT_THE_SPEAKER
        assert (found.measured, found.limit) == (1.9, 2.0)
