"""A clip opens anywhere, looks like what was put in, and is the same file every time."""

import io
from fractions import Fraction

import av
import numpy as np
import pytest

from pipeline.demo.portrait import photograph
from pipeline.fetch.probe import probe
from pipeline.media.decode import iter_frames
from pipeline.media.encode import ClipWriter
from pipeline.media.pixels import to_coded
from schemas.config import CropConfig, ProbeConfig
from tests.helpers.media import clicks, iter_numbered, onsets_s, read_counter

CROP = CropConfig()
NUM = 30
RATE_HZ = 48_000


def encoded(frames, *, size_px=256, fps=25, sound=None, crf=CROP.crf) -> bytes:
    writer = ClipWriter(size_px, fps, crf=crf, preset=CROP.preset)
    if sound is not None:
        writer.declare_audio(RATE_HZ)
    for frame in frames:
        writer.add(to_coded(frame))
    if sound is not None:
        writer.add_audio(sound)
    return writer.finish()


@pytest.fixture(scope="module")
def clip() -> bytes:
    return encoded(iter_numbered(NUM, (256, 256)), sound=clicks([0.4, 0.8], NUM / 25))


def test_every_frame_is_there_and_is_a_key_frame(clip):
    with av.open(io.BytesIO(clip)) as container:
        packets = [p for p in container.demux(video=0) if p.size]
    assert len(packets) == NUM
    assert all(packet.is_keyframe for packet in packets)
    with av.open(io.BytesIO(clip)) as container:
        frames = list(container.decode(video=0))
    assert [read_counter(frame.to_ndarray(format="rgb24")) for frame in frames] == list(range(NUM))
    assert all(frame.key_frame for frame in frames)
    assert [frame.pts * frame.time_base for frame in frames] == [Fraction(k, 25) for k in range(NUM)]


def test_any_frame_decodes_alone(clip):
    with av.open(io.BytesIO(clip)) as container:
        packets = [bytes(p) for p in container.demux(video=0) if p.size]
        extradata = container.streams.video[0].codec_context.extradata
    decoder = av.CodecContext.create("h264", "r")
    decoder.extradata = extradata
    frames = [*decoder.decode(av.Packet(packets[17])), *decoder.decode(None)]
    assert [read_counter(frame.to_ndarray(format="rgb24")) for frame in frames] == [17]


def test_the_same_frames_give_the_same_bytes(clip):
    assert encoded(iter_numbered(NUM, (256, 256)), sound=clicks([0.4, 0.8], NUM / 25)) == clip


def test_players_find_what_they_need(clip, tmp_path):
    assert clip[4:8] == b"ftyp"
    assert b"moov" in clip
    path = tmp_path / "clip.mp4"
    path.write_bytes(clip)
    video = probe(path, "clip", "0", ProbeConfig())
    assert (video.codec, video.pixel_format, video.average_fps) == ("h264", "yuv420p", 25)
    assert video.audio is not None
    assert (video.audio.codec, video.audio.rate_hz, video.audio.num_channels) == ("aac", RATE_HZ, 1)
    with av.open(str(path)) as container:
        context = container.streams.video[0].codec_context
        tags = [context.colorspace, context.color_primaries, context.color_trc, context.color_range]
        assert [int(tag) for tag in tags] == [1, 1, 1, 1]


@pytest.mark.parametrize("name", ["astronaut", "chelsea"])
def test_colours_are_kept(name, tmp_path):
    """Through our own encoder and decoder, on 4 × 4 means, since chroma is halved; a picture is never darkened."""
    truth = photograph(name)[20:276, 60:316]
    path = tmp_path / "clip.mp4"
    path.write_bytes(encoded([truth] * 2, crf=4))
    shown = next(iter_frames(path, probe(path, "clip", "0", ProbeConfig()))).to_array((256, 256), "rgb24")

    def means(image):
        return image.astype(float).reshape(64, 4, 64, 4, 3).mean((1, 3))

    assert np.abs((means(shown) - means(truth)).mean((0, 1))).max() < 0.3
    assert np.percentile(np.abs(means(shown) - means(truth)), 98) <= 4


@pytest.mark.parametrize(
    "colour", [(255, 255, 255), (0, 0, 0), (250, 10, 10), (10, 250, 10), (10, 10, 250), (128, 128, 128)]
)
def test_flat_colours_are_kept(colour):
    frame = np.full((64, 64, 3), colour, np.uint8)
    with av.open(io.BytesIO(encoded([frame] * 2, size_px=64))) as container:
        shown = next(container.decode(video=0)).to_ndarray(format="rgb24")
    assert np.abs(shown.astype(int) - frame).max() <= 4


@pytest.mark.parametrize("num", [25, 26, 64])
def test_the_sound_ends_with_the_picture(num):
    sound = clicks([0.2, 0.9], num / 25)
    clip = encoded(iter_numbered(num, (64, 64)), size_px=64, sound=sound)
    with av.open(io.BytesIO(clip)) as container:
        frames = list(container.decode(audio=0))
    stop_s = float(frames[-1].pts * frames[-1].time_base) + frames[-1].samples / RATE_HZ
    assert abs(stop_s - num / 25) <= 1024 / RATE_HZ + 1e-6
    start_s = float(frames[0].pts * frames[0].time_base)
    heard = np.concatenate([frame.to_ndarray()[0] for frame in frames])
    assert [start_s + t for t in onsets_s(heard, RATE_HZ)] == pytest.approx([0.2, 0.9], abs=0.003)


def test_a_clip_without_sound_has_no_sound_track():
    with av.open(io.BytesIO(encoded(iter_numbered(3, (64, 64)), size_px=64))) as container:
        assert not container.streams.audio


def test_sound_must_be_declared():
    writer = ClipWriter(64, 25, crf=18, preset="veryfast")
    with pytest.raises(RuntimeError, match="declare_audio"):
        writer.add_audio(np.zeros(100, np.float32))
