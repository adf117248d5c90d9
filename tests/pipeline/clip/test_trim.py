"""A trimmed clip is a part of the whole one: the same packets, arrays and samples, and only scores of its own."""

import hashlib
import io
from dataclasses import replace

import av
import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from pipeline.build.results import load_build, results_of
from pipeline.build.survey import survey
from pipeline.clip.meters import model_files
from pipeline.clip.prints_file import from_bytes
from pipeline.clip.trim import trim_clip
from pipeline.media.arrays import npy
from pipeline.media.audio import read_audio, read_flac
from pipeline.media.encode import ClipWriter, cut_clip
from pipeline.media.pixels import to_coded
from pipeline.models.registry import ModelSet
from pipeline.release.samples import complaints
from pipeline.release.shards import _info
from pipeline.release.tables import ReleaseItem
from pipeline.store.workspace import Workspace
from schemas.base import FrameSpan
from schemas.config import BuildConfig, SpeechConfig
from schemas.errors import DecodeError
from schemas.prints import PRINTS_FILE
from tests.helpers import films as films_module
from tests.helpers.hubert_files import random_hubert
from tests.helpers.release_items import SETUP

films, built = films_module.films, films_module.built  # fixtures
PER_FRAME = ("landmarks.npy", "landmarks_smooth.npy", "pose.npy", "motion.npy", "valid.npy")


@pytest.fixture(scope="module")
def whole(built, tmp_path_factory):
    """A finished clip of 90 frames, its files, and how to trim it; as if a network had read its expressions too."""
    place = Workspace(built.workspace)
    made = load_build(place)
    results = results_of(place, made)
    [talker] = [one for one in survey(results, made.sources).clips if one.source.id == "talker"]
    files = {name: talker.read(place, name) for name in (*talker.clip.files, PRINTS_FILE)}
    rng = np.random.default_rng(1)
    files["emotion.npy"] = npy(rng.normal(size=(90, 8)).astype(np.float32))
    files["emotion_feat.npy"] = npy(rng.normal(size=(90, 16)).astype(np.float32))
    clip = talker.clip.model_copy(update={"files": dict.fromkeys(files.keys() - {PRINTS_FILE}, "0" * 64)})
    scratch = tmp_path_factory.mktemp("scratch")
    return (
        replace(talker, clip=clip),
        files,
        lambda span: trim_clip(clip, span, files.__getitem__, "real", ModelSet(results.model_files), scratch),
    )


def spans():
    return st.tuples(st.integers(0, 89), st.integers(1, 90)).filter(lambda pair: pair[0] < pair[1])


def packets(mp4: bytes) -> list[bytes]:
    with av.open(io.BytesIO(mp4)) as container:
        return [bytes(packet) for packet in container.demux(container.streams.video[0]) if packet.size]


def frames(mp4: bytes) -> np.ndarray:
    with av.open(io.BytesIO(mp4)) as container:
        return np.array([frame.to_ndarray() for frame in container.decode(video=0)])


def load(data: bytes) -> np.ndarray:
    return np.load(io.BytesIO(data), allow_pickle=False)


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(spans())
@example((0, 1))
@example((89, 90))
@example((0, 89))
@example((7, 81))
def test_a_part_is_what_the_whole_shows_in_its_frames(whole, pair):
    made, files, trim = whole
    span = FrameSpan(start=pair[0], stop=pair[1])
    clip, part = trim(span)
    assert packets(part["mp4"]) == packets(files["mp4"])[span.start : span.stop]
    assert np.array_equal(frames(part["mp4"]), frames(files["mp4"])[span.start : span.stop])
    for name in (*PER_FRAME, "emotion.npy", "emotion_feat.npy"):
        assert np.array_equal(load(part[name]), load(files[name])[span.start : span.stop]), name
    samples = read_flac(part["flac"])
    assert len(samples) == 640 * len(span)
    assert np.array_equal(samples, read_flac(files["flac"])[640 * span.start : 640 * span.stop])
    prints, all_prints = from_bytes(part[PRINTS_FILE]), from_bytes(files[PRINTS_FILE])
    for name in ("grid", "mouth", "seen"):
        assert np.array_equal(getattr(prints, name), getattr(all_prints, name)[span.start : span.stop])
    assert clip.clip_id == made.clip.clip_id
    assert clip.plan.num_frames == len(span)
    assert clip.plan.span.start_s == pytest.approx(made.clip.plan.span.start_s + span.start / 25)
    assert clip.plan.span.duration_s == pytest.approx(len(span) / 25)
    assert clip.files == {name: hashlib.sha256(data).hexdigest() for name, data in part.items() if name != PRINTS_FILE}


@pytest.mark.parametrize("pair", [(0, 1), (3, 70), (20, 90)])
def test_a_part_is_a_sound_sample(whole, pair):
    made, _, trim = whole
    clip, part = trim(FrameSpan(start=pair[0], stop=pair[1]))
    info = _info(ReleaseItem(clip, made.source, "ada", "train", "0" * 64), 128, SETUP)
    speech = {"mel.npy"}
    visual = part.keys() - speech - {PRINTS_FILE}
    for series, names in (("visual", visual), ("speech", speech)):
        assert list(complaints(info, {name: part[name] for name in names}, series, deep=True)) == []


def test_the_same_part_has_the_same_bytes_and_tells_only_of_itself(whole):
    made, _, trim = whole
    span = FrameSpan(start=10, stop=85)
    clip, part = trim(span)
    assert trim(span) == (clip, part)
    assert clip.scores.sync.status == "unknown"
    assert clip.scores.sync.why.startswith("3.00 s with a face")
    assert "sync_unknown" in clip.flags
    assert clip.scores.yaw_abs_median_deg != made.clip.scores.yaw_abs_median_deg
    assert clip.scores.sharpness == pytest.approx(made.clip.scores.sharpness, rel=0.15)  # of what the codec left
    assert clip.scores.native_crop_px == made.clip.scores.native_crop_px
    assert clip.provenance == made.clip.provenance


def test_hubert_listens_anew(whole, tmp_path):
    """Every state has heard the whole clip, so a part's states are no part of the whole's."""
    made, files, _ = whole
    folder = random_hubert(tmp_path / "random-hubert-for-tests")
    config = BuildConfig(speech=SpeechConfig(hubert=str(folder), hubert_layers=(0, -1)))
    clip = made.clip.model_copy(update={"files": made.clip.files | {"hubert.npy": "0" * 64}})
    models, span = ModelSet(model_files(config)), FrameSpan(start=10, stop=60)
    part = trim_clip(clip, span, files.__getitem__, "real", models, tmp_path)[1]
    samples = read_flac(files["flac"])[640 * 10 : 640 * 60]
    assert np.array_equal(load(part["hubert.npy"]), models.hubert().features(samples, 50, "mean"))


def test_the_preview_keeps_in_step_with_the_sample(whole, tmp_path):
    _, _, trim = whole
    _, part = trim(FrameSpan(start=20, stop=70))
    path = tmp_path / "part.mp4"
    path.write_bytes(part["mp4"])
    with av.open(str(path)) as container:
        heard = read_audio(path, container.streams.audio[0].index, 0.0, 640 * 50)
    samples = read_flac(part["flac"])
    inside = slice(2000, -2000)
    shifted = [np.roll(heard, lag)[inside] for lag in range(-9, 10)]
    agreement = [float(np.corrcoef(other, samples[inside])[0, 1]) for other in shifted]
    assert int(np.argmax(agreement)) - 9 == 0
    assert max(agreement) > 0.95


def test_sightings_reach_to_both_sides_of_the_part(whole):
    made, _, trim = whole
    clip, _ = trim(FrameSpan(start=30, stop=60))
    times = np.array(clip.face.times_s)
    assert (times <= clip.plan.span.start_s).sum() == 1
    assert (times >= clip.plan.span.stop_s).sum() == 1
    assert set(clip.face.times_s) < set(made.clip.face.times_s)


# ---- files that are no clip of ours ----------------------------------------------------------------


def encoded(num_frames: int) -> bytes:
    writer = ClipWriter(64, 25, crf=30, preset="superfast")
    for number in range(num_frames):
        writer.add(to_coded(np.full((64, 64, 3), 20 * number, np.uint8)))
    return writer.finish()


def test_a_file_without_sound_stays_one():
    part = cut_clip(encoded(6), FrameSpan(start=2, stop=5), None, 48000)
    with av.open(io.BytesIO(part)) as container:
        assert not container.streams.audio
    assert len(frames(part)) == 3


def test_missing_frames_are_named():
    with pytest.raises(DecodeError, match=r"8 key frames from frame 0 on were expected in a clip of 6 frames, found 6"):
        cut_clip(encoded(6), FrameSpan(start=0, stop=8), None, 48000)


def test_frames_that_lean_on_others_are_refused():
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=25, options={"x264-params": "keyint=50:scenecut=0"})
        stream.width = stream.height = 64
        stream.pix_fmt = "yuv420p"
        for number in range(6):
            container.mux(stream.encode(to_coded(np.full((64, 64, 3), 20 * number, np.uint8))))
        container.mux(stream.encode(None))
    with pytest.raises(DecodeError, match=r"4 key frames from frame 1 on were expected .* found 0: delete the clip"):
        cut_clip(buffer.getvalue(), FrameSpan(start=1, stop=5), None, 48000)


def test_what_cannot_be_read_is_one_sentence():
    with pytest.raises(DecodeError, match="mp4 cannot be read: delete the clip and build it again"):
        cut_clip(b"no film", FrameSpan(start=0, stop=1), None, 48000)
