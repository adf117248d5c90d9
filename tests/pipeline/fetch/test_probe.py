"""What a file really is: the record is exact, limits hold to the pixel, and bad files are named for what they are."""

import struct
import subprocess
from fractions import Fraction

import av
import imageio_ffmpeg
import numpy as np
import pytest

from pipeline.fetch.probe import probe
from pipeline.media.decode import iter_frames
from schemas.config import ProbeConfig
from schemas.errors import DecodeError, SourceError
from schemas.media import Video
from tests.helpers.media import Coding, Sound, clicks, iter_numbered, write_video

CONFIG = ProbeConfig()
NUM = 50
SIZE = (160, 96)
AAC_FRAME_S = 1024 / 48_000


def described(path, config=CONFIG) -> Video:
    return probe(path, "film", "ab" * 32, config)


def written(path, num=NUM, size=SIZE, **options):
    write_video(path, iter_numbered(num, size), **options)
    return path


def ffmpeg(*arguments):
    subprocess.run([imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-y", *map(str, arguments)], check=True)


# --- the record ----------------------------------------------------------------------------------------


def test_a_plain_film(tmp_path):
    path = written(tmp_path / "plain.mp4", sound=Sound(clicks([0.5], 2.0)))
    video = described(path)
    assert video.audio is not None
    assert video.audio.model_copy(update={"start_s": 0.0, "stop_s": 0.0}).model_dump() == {
        "index": 1,
        "codec": "aac",
        "rate_hz": 48_000,
        "num_channels": 1,
        "start_s": 0.0,
        "stop_s": 0.0,
    }
    assert video.model_copy(update={"audio": None}).model_dump(exclude={"colorspace"}) == {
        "source_id": "film",
        "sha256": "ab" * 32,
        "num_bytes": path.stat().st_size,
        "container": "mov,mp4,m4a,3gp,3g2,mj2",
        "codec": "h264",
        "pixel_format": "yuv420p",
        "stream_index": 0,
        "time_base": "1/90000",
        "average_fps": "25/1",
        "start_s": 0.0,
        "stop_s": 2.0,
        "coded_width_px": 160,
        "coded_height_px": 96,
        "sample_aspect_ratio": "1/1",
        "rotation_deg": 0,
        "interlaced": False,
        "width_px": 160,
        "height_px": 96,
        "audio": None,
    }
    assert video.duration_s == 2.0


@pytest.mark.parametrize(
    ("name", "options", "fps", "start_s", "stop_s"),
    [
        ("24.mp4", {"fps": Fraction(24)}, Fraction(24), 0, NUM / 24),
        ("ntsc.mp4", {"fps": Fraction(30000, 1001)}, Fraction(30000, 1001), 0, NUM * 1001 / 30000),
        ("ntsc.mkv", {"fps": Fraction(30000, 1001)}, Fraction(30000, 1001), 0, NUM * 1001 / 30000),
        ("late.mp4", {"start_s": Fraction(43, 40)}, Fraction(25), 1.075, 3.075),
        ("mpeg4.avi", {"coding": Coding(codec="mpeg4", bframes=0)}, Fraction(25), 0, 2.0),
        ("vp9.webm", {"coding": Coding(codec="libvpx-vp9", options={"cpu-used": "8"})}, Fraction(25), 0, 2.0),
    ],
)
def test_rates_and_ends(tmp_path, name, options, fps, start_s, stop_s):
    video = described(written(tmp_path / name, **options))
    assert float(video.average_fps) == pytest.approx(float(fps), rel=0.02)
    if name.endswith("mp4"):
        assert video.average_fps == fps
    tolerance = 0.5 * max(float(video.time_base), 1e-4) + (0.04 if name.endswith("avi") else 0.001)
    assert video.start_s == pytest.approx(start_s, abs=tolerance)
    assert video.stop_s == pytest.approx(stop_s, abs=tolerance)


def test_a_variable_rate_is_the_mean(tmp_path):
    times = [Fraction(k, 30) + Fraction(max(0, k - 20), 10) for k in range(NUM)]
    for suffix in ("mp4", "mkv"):
        video = described(written(tmp_path / f"variable.{suffix}", times_s=times))
        assert float(video.average_fps) == pytest.approx((NUM - 1) / float(times[-1]), rel=0.2)


@pytest.mark.parametrize("offset", [Fraction(0), Fraction(1, 2)])
def test_a_late_sound_keeps_its_place(tmp_path, offset):
    video = described(written(tmp_path / "offset.mp4", sound=Sound(clicks([], 1.0), offset_s=offset)))
    assert video.audio is not None
    assert video.audio.start_s >= 0  # what only primes the decoder is no sound
    # Packets begin up to a frame early: an encoder's priming.
    assert video.audio.start_s == pytest.approx(float(offset), abs=2 * AAC_FRAME_S)
    assert video.audio.stop_s == pytest.approx(float(offset) + 1.0, abs=2 * AAC_FRAME_S)


def test_a_late_picture_keeps_its_place(tmp_path):
    film = written(tmp_path / "late.mp4", start_s=Fraction(3, 5), sound=Sound(clicks([], 2.6)))
    video = described(film)
    assert video.start_s == pytest.approx(0.6, abs=1e-9)
    assert video.audio is not None
    assert abs(video.audio.start_s) <= AAC_FRAME_S


def test_shape_and_scan(tmp_path):
    video = described(written(tmp_path / "oblong.mp4", coding=Coding(sample_aspect_ratio=Fraction(128, 117))))
    assert (video.sample_aspect_ratio, video.width_px, video.height_px) == (Fraction(128, 117), 175, 96)
    video = described(written(tmp_path / "fields.mp4", coding=Coding(interlaced=True)))
    assert video.interlaced
    turned = [described(written(tmp_path / f"{d}.mp4", coding=Coding(rotation_deg=d))) for d in (90, 180, 270)]
    assert [(v.width_px, v.height_px) for v in turned] == [(96, 160), (160, 96), (96, 160)]
    assert {v.rotation_deg for v in turned} == {90, 180, 270}


def test_combs_that_begin_late_are_found(tmp_path):
    """A progressive title before interlaced material: the end of the file is looked at as well."""
    first, second, both = (tmp_path / f"{n}.ts" for n in ("first", "second", "both"))
    for path, interlaced in ((first, False), (second, True)):
        written(path, num=75, coding=Coding(codec="mpeg2video", interlaced=interlaced))
    both.write_bytes(first.read_bytes() + second.read_bytes())
    (tmp_path / "list.txt").write_text("file first.ts\nfile second.ts\n")
    ffmpeg("-f", "concat", "-i", tmp_path / "list.txt", "-c", "copy", both)
    assert not described(first).interlaced
    assert described(both).interlaced


def test_sound_without_picture_and_picture_without_sound(tmp_path):
    assert described(written(tmp_path / "silent.mp4")).audio is None
    song = tmp_path / "song.m4a"
    ffmpeg("-f", "lavfi", "-i", "sine=duration=1", song)
    with pytest.raises(SourceError, match=r"song\.m4a has no video stream \(audio only\)"):
        described(song)


def test_a_songs_cover_is_no_film(tmp_path):
    song = tmp_path / "song.m4a"
    image = tmp_path / "cover.png"
    ffmpeg("-f", "lavfi", "-i", "color=red:size=200x200", "-frames:v", "1", image)
    ffmpeg("-f", "lavfi", "-i", "sine=duration=1", "-i", image, "-map", "0", "-map", "1", "-c:v", "png",
           "-disposition:v:0", "attached_pic", song)  # fmt: skip
    with av.open(str(song)) as container:
        assert container.streams.video
    with pytest.raises(SourceError, match="audio only"):
        described(song)


@pytest.mark.assets
@pytest.mark.parametrize(
    ("name", "start_s", "stop_s", "shape", "has_audio"),
    [
        ("no_duration.webm", 0.0, 4.938, (1280, 720), True),
        ("delayed_start.mp4", 1.075, 2.035, (480, 320), False),
        ("carphone_pristine.mp4", 0.0, 4.004, (193, 144), False),
        ("d9.mp4", 0.0, 19.5667, (512, 512), True),
        ("issue-134-rotate.mp4", 0.0, 10.01, (544, 1280), True),
        ("invalid_elst_entry_count.mp4", 0.0, 2.0, (640, 480), False),
        ("bbaf2n.mpg", 0.0, 3.0, (360, 288), True),
    ],
)
def test_real_files(assets, name, start_s, stop_s, shape, has_audio):
    video = described(assets / "video" / name)
    assert (video.start_s, video.stop_s) == pytest.approx((start_s, stop_s), abs=0.001)
    assert (video.width_px, video.height_px) == shape
    assert (video.audio is not None) == has_audio


@pytest.mark.assets
def test_real_bad_files(assets):
    with pytest.raises(DecodeError, match=r"error\.mp4 is not a media file"):
        described(assets / "video" / "error.mp4")
    with pytest.raises(DecodeError, match=r"test_case_1185230\.mp4"):
        described(assets / "video" / "test_case_1185230.mp4")


# --- limits ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("side", "accepted"), [(98, False), (100, True), (102, True)])
def test_the_smallest_side(tmp_path, side, accepted):
    path = written(tmp_path / "small.mp4", size=(160, side), num=5)
    config = ProbeConfig(min_side_px=100)
    if accepted:
        assert described(path, config).height_px == side
    else:
        with pytest.raises(SourceError, match="160×98 px: at least 100"):
            described(path, config)


@pytest.mark.parametrize(("side", "accepted"), [(158, True), (160, True), (162, False)])
def test_the_largest_side(tmp_path, side, accepted):
    path = written(tmp_path / "large.mp4", size=(side, 96), num=5)
    config = ProbeConfig(max_side_px=160)
    if accepted:
        assert described(path, config).width_px == side
    else:
        with pytest.raises(SourceError, match="162×96 px: at most 160"):
            described(path, config)


@pytest.mark.parametrize(("num", "accepted"), [(49, True), (50, True), (51, False)])
def test_the_longest_film(tmp_path, num, accepted):
    path = written(tmp_path / "long.mp4", num=num)
    config = ProbeConfig(max_duration_s=2.0)
    if accepted:
        assert described(path, config).duration_s == pytest.approx(num / 25)
    else:
        with pytest.raises(SourceError, match=r"lasts 2\.0 s: at most 2\.0 s"):
            described(path, config)


def test_one_pixel(tmp_path):
    path = tmp_path / "dot.mkv"
    write_video(path, [np.full((1, 1, 3), 200, np.uint8)] * 3, coding=Coding(codec="ffv1", pix_fmt="gray"))
    with pytest.raises(SourceError, match="1×1 px"):
        described(path)
    assert described(path, ProbeConfig(min_side_px=1)).width_px == 1


def test_sixteen_thousand_pixels_are_refused_before_decoding(tmp_path):
    path = tmp_path / "wide.mkv"
    write_video(path, [np.zeros((64, 16_000, 3), np.uint8)] * 2, coding=Coding(codec="ffv1", pix_fmt="gray"))
    with pytest.raises(SourceError, match="16000×64 px: at most 8192"):
        described(path)


def test_a_thousand_frames_per_second_are_too_many(tmp_path):
    path = written(tmp_path / "fast.mp4", num=20, fps=Fraction(1000), coding=Coding(bframes=0))
    with pytest.raises(SourceError, match="1000 frames per second: at most 240"):
        described(path)


# --- damage and lies --------------------------------------------------------------------------------------


def _sentence(error: Exception, name: str) -> None:
    text = str(error)
    assert name in text
    assert "\n" not in text
    assert len(text) < 250


@pytest.mark.parametrize("name", ["nothing.mp4", "text.mp4", "folder", "absent.mp4"])
def test_what_is_no_film(tmp_path, name):
    path = tmp_path / name
    if name == "folder":
        path.mkdir()
    elif name != "absent.mp4":
        path.write_bytes(b"" if name == "nothing.mp4" else b"<html>Not found</html>\n" * 40)
    with pytest.raises(SourceError) as caught:
        described(path)
    _sentence(caught.value, name)
    assert isinstance(caught.value, DecodeError) == (name in {"nothing.mp4", "text.mp4"})


@pytest.mark.parametrize("kept", [0.3, 0.5, 0.7])
@pytest.mark.parametrize("name", ["cut.mp4", "cut.mkv"])
def test_a_download_cut_short(tmp_path, name, kept):
    path = tmp_path / name
    write_video(path, iter_numbered(125, SIZE), coding=Coding(options={"movflags": "+faststart"}))
    ffmpeg("-i", path, "-c", "copy", "-movflags", "+faststart", tmp_path / f"whole-{name}")
    whole = (tmp_path / f"whole-{name}").read_bytes()
    described(tmp_path / f"whole-{name}")
    path.write_bytes(whole[: int(kept * len(whole))])
    with pytest.raises(DecodeError, match="cut short") as caught:
        described(path)
    _sentence(caught.value, name)


def test_a_film_without_its_index(tmp_path):
    path = written(tmp_path / "plain.mp4")
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 3 // 4])
    with pytest.raises(DecodeError, match=r"plain\.mp4") as caught:
        described(path)
    _sentence(caught.value, "plain.mp4")


def _patched(data: bytes, atom: bytes, offset: int, seconds: float) -> bytes:
    """Overwrite an mp4 atom's (version 0) 32-bit duration, in its own or the movie's time scale."""
    at = data.index(atom) + 4
    scale_at = {b"mvhd": at + 12, b"mdhd": at + 12, b"tkhd": data.index(b"mvhd") + 16}[atom]
    scale = struct.unpack(">I", data[scale_at : scale_at + 4])[0]
    start = at + offset
    return data[:start] + struct.pack(">I", int(seconds * scale)) + data[start + 4 :]


@pytest.mark.parametrize(("hours", "error"), [(3, None), (10, None)])
def test_headers_that_claim_hours_promise_nothing(tmp_path, hours, error):
    """Whatever movie and track headers claim, either the file is refused or the record tells the truth."""
    for atoms in ([b"mvhd"], [b"mvhd", b"tkhd"], [b"mvhd", b"tkhd", b"mdhd"]):
        path = written(tmp_path / "claims.mp4")
        data = path.read_bytes()
        for atom in atoms:
            data = _patched(data, atom, {b"mvhd": 16, b"mdhd": 16, b"tkhd": 20}[atom], hours * 3600)
        path.write_bytes(data)
        try:
            video = described(path)
        except SourceError as caught:
            _sentence(caught, "claims.mp4")
        else:
            assert video.duration_s == pytest.approx(2.0, abs=0.05)


@pytest.mark.parametrize("hours", [3, 10])
def test_a_sample_table_that_claims_hours(tmp_path, hours):
    path = written(tmp_path / "slow.mp4", coding=Coding(bframes=0))
    data = path.read_bytes()
    at = data.index(b"stts") + 8
    assert struct.unpack(">I", data[at : at + 4]) == (1,)  # one run of NUM frames
    path.write_bytes(data[: at + 8] + struct.pack(">I", hours * 3600 * 90_000 // NUM) + data[at + 12 :])
    try:
        video = described(path)
    except SourceError as caught:
        _sentence(caught, "slow.mp4")
    else:
        assert video.duration_s <= CONFIG.max_duration_s
        assert sum(1 for _ in iter_frames(path, video)) <= NUM


def test_a_long_held_last_frame_counts_a_second(tmp_path):
    path = tmp_path / "held.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = *SIZE, "yuv420p"
        packets = []
        for k, image in enumerate(iter_numbered(NUM, SIZE)):
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame.pts, frame.time_base = k, Fraction(1, 25)
            packets += stream.encode(frame)
        packets += stream.encode(None)
        last = max(packets, key=lambda p: p.pts)
        last.duration = 25 * 60
        container.mux(packets)
    video = described(path)
    assert 2.0 <= video.stop_s <= (NUM - 1) / 25 + CONFIG.max_missing_s + 1e-6


@pytest.mark.parametrize("num", [62, 38])
def test_a_damaged_end(tmp_path, num):
    """Nothing decodes in the last 2.5 s, or in the last 1.5 s, of which a second may be missing."""
    path = written(tmp_path / "tail.mp4", num=125, coding=Coding(gop=5, bframes=0))
    with av.open(str(path)) as container:
        packets = [(p.pos, p.size) for p in container.demux(video=0) if p.size]
    data = bytearray(path.read_bytes())
    for at, size in packets[-num:]:
        data[at : at + size] = b"\xff" * size
    path.write_bytes(data)
    with pytest.raises(DecodeError, match=r"tail\.mp4 is damaged at its end") as caught:
        described(path)
    _sentence(caught.value, "tail.mp4")


def test_a_raw_stream_has_no_times(tmp_path):
    with pytest.raises(SourceError, match="carries no time stamps") as caught:
        described(written(tmp_path / "raw.h264"))
    _sentence(caught.value, "raw.h264")
