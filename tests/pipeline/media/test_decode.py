"""Frames come out once each, in order, at their own time and in their own colours, wherever one enters the file."""

import http.server
import subprocess
import sys
import threading
from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from itertools import islice, pairwise
from pathlib import Path
from types import SimpleNamespace

import av
import cv2
import imageio_ffmpeg
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pipeline.fetch.probe import probe
from pipeline.media import decode
from pipeline.media.decode import fit_within, iter_at_rate, iter_frames, open_media, scale_to_square
from schemas.config import ProbeConfig
from schemas.errors import DecodeError, SourceError
from schemas.media import Video
from tests.helpers.media import Coding, iter_numbered, read_counter, write_video

CONFIG = ProbeConfig(min_side_px=1)
NUM = 60
SIZE = (160, 96)
_VARIABLE = [Fraction(k * k, 900) + Fraction(k, 30) for k in range(NUM)]
_FAST_VPX = {"deadline": "realtime", "cpu-used": "8"}
_X265 = {"x265-params": "open-gop=1:keyint=12:log-level=none:pools=1", "preset": "ultrafast"}

# name: how it is written, and how far its clock may be off: by its own coarseness, or a constant delay of its muxer.
FILMS: dict[str, tuple[dict, Coding]] = {
    "24.mp4": ({"fps": Fraction(24)}, Coding()),
    "25.mp4": ({}, Coding()),
    "ntsc.mp4": ({"fps": Fraction(30000, 1001)}, Coding()),
    "60.mkv": ({"fps": Fraction(60)}, Coding()),
    "late.mp4": ({"start_s": Fraction(43, 40)}, Coding()),
    "variable.mp4": ({"times_s": _VARIABLE}, Coding()),
    "variable.mkv": ({"times_s": _VARIABLE}, Coding()),
    "mpeg4.mp4": ({}, Coding(codec="mpeg4")),
    "mpeg4.avi": ({}, Coding(codec="mpeg4")),
    "h264.avi": ({}, Coding()),
    "mpeg1.mpg": ({}, Coding(codec="mpeg1video")),
    "mpeg2.mpg": ({}, Coding(codec="mpeg2video")),
    "mpeg2.ts": ({}, Coding(codec="mpeg2video")),
    "h264.ts": ({}, Coding()),
    "mpeg4.ts": ({}, Coding(codec="mpeg4")),
    "mpeg4_long.ts": ({}, Coding(codec="mpeg4", gop=25, bframes=0)),
    "vp9.webm": ({}, Coding(codec="libvpx-vp9", options=_FAST_VPX)),
    "h264.flv": ({}, Coding(bframes=0)),
    "long_gop.mp4": ({}, Coding(gop=1000)),
    "open_gop.mp4": ({}, Coding(bframes=3, options={"x264-params": "open-gop=1:mbtree=0"})),
    "hevc.mp4": ({}, Coding(codec="libx265", options=_X265)),
    "refresh.mp4": ({}, Coding(options={"x264-params": "intra-refresh=1:keyint=20:mbtree=0"})),
    "interlaced.mp4": ({}, Coding(interlaced=True)),
    "interlaced.mpg": ({}, Coding(codec="mpeg2video", interlaced=True)),
}
DELAYED = {".avi", ".mpg", ".ts"}  # these muxers shift all times by the decoder's delay


@dataclass(frozen=True)
class Film:
    path: Path
    video: Video
    truth: list[Fraction]


@pytest.fixture(scope="module")
def film(tmp_path_factory):
    folder = tmp_path_factory.mktemp("films")

    @cache
    def written(name: str) -> Film:
        options, coding = FILMS[name]
        truth = write_video(folder / name, iter_numbered(NUM, SIZE), coding=coding, **options)
        return Film(folder / name, probe(folder / name, "film", "0", CONFIG), truth)

    return written


def picture(frame, video) -> np.ndarray:
    return frame.to_array((video.width_px, video.height_px), "rgb24")


def signature(frame, video) -> tuple[int, bytes]:
    return frame.pts, picture(frame, video).tobytes()


_whole: dict[Path, list[tuple[int, bytes]]] = {}


def whole(film: Film) -> list[tuple[int, bytes]]:
    if film.path not in _whole:
        _whole[film.path] = [signature(f, film.video) for f in iter_frames(film.path, film.video)]
    return _whole[film.path]


# --- every frame, at its own time ------------------------------------------------------------------------


@pytest.mark.parametrize("name", FILMS)
def test_every_frame_comes_once_and_at_its_time(film, name):
    source = film(name)
    frames = [(read_counter(picture(f, source.video)), f.time_s) for f in iter_frames(source.path, source.video)]
    assert [number for number, _ in frames] == list(range(NUM))
    times = np.array([time_s for _, time_s in frames])
    truth = np.array([float(t) for t in source.truth])
    if source.path.suffix in DELAYED:
        truth += times[0] - truth[0]
        assert 0 <= times[0] <= 0.6
    tick = float(source.video.time_base)
    # Coarse clocks (1/1000 s in Matroska and FLV) may round by half a tick; fine ones not at all.
    assert np.abs(times - truth).max() <= (0.5001 * tick if tick > 1 / 10_000 else 1e-9) + 1e-9
    assert source.video.start_s == times[0]


@pytest.mark.parametrize("name", FILMS)
def test_entering_anywhere_gives_what_reading_from_the_beginning_gives(film, name):
    source = film(name)
    tick = float(source.video.time_base)
    every = whole(source)

    @settings(max_examples=6, deadline=None, derandomize=True, database=None)
    @given(st.integers(0, NUM - 1), st.sampled_from([0.0, -0.4, 0.4]))
    def law(index, off):
        after = every[index + 1][0] if index + 1 < NUM else every[index][0] + 1000
        before = every[index - 1][0] if index else every[index][0]
        pts = every[index][0] + off * (
            (after if off > 0 else every[index][0]) - (every[index][0] if off > 0 else before)
        )
        wanted = [entry for entry in every if entry[0] >= round(pts)][:4]
        read = list(islice(iter_frames(source.path, source.video, start_s=pts * tick), 4))
        assert [signature(f, source.video) for f in read] == wanted

    law()


def test_a_frames_own_time_always_finds_that_frame(film):
    for name in ("ntsc.mp4", "variable.mp4", "60.mkv"):
        source = film(name)
        for frame in islice(iter_frames(source.path, source.video), 0, None, 9):
            assert next(iter_frames(source.path, source.video, start_s=frame.time_s)).pts == frame.pts


def test_entering_does_not_read_from_the_beginning(film, monkeypatch):
    """Of a file with an index, at most a group of pictures is decoded before the wanted frame, also between frames."""
    source = film("25.mp4")
    seen = []
    tolerant = decode._tolerant
    monkeypatch.setattr(decode, "_tolerant", lambda *args: (seen.append(1) or p for p in tolerant(*args)))
    for start_s in (50 / 25, 50.5 / 25):
        seen.clear()
        next(iter_frames(source.path, source.video, start_s=start_s))
        assert len(seen) <= 14, start_s


def test_times_always_rise(film):
    """A repeated or backward time is dropped; a missing one follows its neighbour, or is left out at an entry."""
    video = film("25.mp4").video

    def times(stamps, first_s):
        pictures = (SimpleNamespace(pts=stamp, dts=None, time_base=Fraction(1, 25)) for stamp in stamps)
        return [round(f.time_s * 25) for f in decode._ascending(pictures, video, "film.mp4", first_s)]  # type: ignore[arg-type]

    assert times([3, 4, 4, 2, None, 6, 7], None) == [3, 4, 5, 6, 7]
    assert times([None, None, 2], 0.0) == [0, 1, 2]
    assert times([None, None, 2], None) == [2]


def test_after_the_end_there_is_nothing(film):
    source = film("25.mp4")
    assert list(iter_frames(source.path, source.video, start_s=60.0)) == []


def test_before_the_beginning_means_the_beginning(film):
    source = film("late.mp4")
    assert next(iter_frames(source.path, source.video, start_s=0.0)).time_s == float(source.truth[0])
    assert next(iter_frames(source.path, source.video, start_s=-5.0)).time_s == float(source.truth[0])


def test_what_an_edit_list_hides_is_not_shown(film, tmp_path):
    """A phone's trimmed recording: frames before the cut are in the file, but are never shown."""
    source = film("25.mp4")
    path = tmp_path / "trimmed.mp4"
    subprocess.run(
        [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-ss", "0.8", "-i", source.path, "-c", "copy", path],
        check=True,
    )
    video = probe(path, "film", "0", CONFIG)
    frames = [(read_counter(picture(f, video)), f.time_s) for f in iter_frames(path, video)]
    assert frames[0] == (20, 0.0)
    assert [number for number, _ in frames] == list(range(20, NUM))
    assert video.start_s == 0.0
    assert video.stop_s == pytest.approx(40 / 25, abs=1e-4)


def test_frames_come_one_at_a_time(film, monkeypatch):
    """Memory must not grow with the film: nothing is read ahead, and nobody holds a frame that was let go of."""
    source = film("25.mp4")
    read: list[object] = []
    tolerant = decode._tolerant
    monkeypatch.setattr(decode, "_tolerant", lambda *args: (read.append(p) or p for p in tolerant(*args)))
    for given_out, _ in enumerate(iter_at_rate(iter_frames(source.path, source.video), 0.0, 25, NUM), start=1):
        assert len(read) <= given_out + 1
    del _
    free: list[object] = [object() for _ in read]
    # The decoder hands over its last frames together.
    counts = [[sys.getrefcount(frame) for frame in some[:-12]] for some in (read, free)]
    assert counts[0] == counts[1]


@pytest.mark.assets
def test_real_files_are_entered_exactly(assets):
    names = ["bbaf2n.mpg", "nasa_13013.mp4", "delayed_start.mp4", "carphone_pristine.mp4"]
    for name in names:
        path = assets / "video" / name
        video = probe(path, "real", "0", CONFIG)
        every = [(f.pts, f.to_array((64, 64), "rgb24").tobytes()) for f in iter_frames(path, video)]
        assert all(a < b for (a, _), (b, _) in pairwise(every))
        for index in np.random.default_rng(0).choice(len(every), 3, replace=False):
            start_s = float(every[index][0] * video.time_base)
            frames = [
                (f.pts, f.to_array((64, 64), "rgb24").tobytes())
                for f in islice(iter_frames(path, video, start_s=start_s), 3)
            ]
            assert frames == every[index : index + 3], (name, index)


@pytest.mark.assets
def test_a_late_first_frame_keeps_its_time(assets):
    path = assets / "video" / "delayed_start.mp4"
    video = probe(path, "late", "0", CONFIG)
    assert next(iter_frames(path, video)).time_s == 1.075
    assert video.start_s == 1.075


@pytest.mark.assets
def test_the_frame_counter_counts(assets):
    """The picture says "Frame = n" and "PTS = (n - 1) / 10 s", read by eye; no two pictures are the same."""
    path = assets / "video" / "counter.mp4"
    video = probe(path, "counter", "0", CONFIG)
    frames = [(f.time_s, f.to_array((480, 270), "bgr24").tobytes()) for f in iter_frames(path, video)]
    assert [time_s for time_s, _ in frames] == [k / 10 for k in range(30)]
    assert len({image for _, image in frames}) == 30
    eighth = next(iter_frames(path, video, start_s=0.7))
    assert (eighth.time_s, eighth.to_array((480, 270), "bgr24").tobytes()) == frames[7]


# --- upright, square, in its colours -----------------------------------------------------------------------


@pytest.mark.assets
def test_a_rotated_recording_is_shown_as_ffmpeg_shows_it(assets, tmp_path):
    path = assets / "video" / "issue-134-rotate.mp4"
    video = probe(path, "rotated", "0", CONFIG)
    assert (video.width_px, video.height_px) == (544, 1280)
    shown = tmp_path / "shown.png"
    ffmpeg = imageio_ffmpeg.get_ffmpeg_exe()
    subprocess.run([ffmpeg, "-v", "error", "-ss", "4", "-i", path, "-frames:v", "1", shown], check=True)
    truth = cv2.imread(str(shown)).astype(int)
    pixels = next(iter_frames(path, video, start_s=4.0)).to_array((544, 1280), "bgr24").astype(int)
    assert truth.shape == pixels.shape
    assert np.abs(truth - pixels).mean() < 3
    assert np.abs(truth - pixels[::-1, ::-1]).mean() > 12


@pytest.mark.parametrize("rotation", [0, 90, 180, 270])
def test_a_picture_is_turned_upright(tmp_path, rotation):
    """A red corner at top left of the upright picture, however it is stored."""
    upright = np.full((64, 112, 3), 40, np.uint8)
    upright[:24, :32] = (220, 30, 30)
    stored = np.ascontiguousarray(np.rot90(upright, -rotation // 90))
    path = tmp_path / "turned.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.height, stream.width = stored.shape[:2]
        stream.pix_fmt = "yuv444p"
        stream.set_display_rotation(rotation)  # counter-clockwise, as FFmpeg counts
        for k in range(3):
            frame = av.VideoFrame.from_ndarray(stored, format="rgb24").reformat(format="yuv444p")
            frame.pts = k
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    video = probe(path, "turned", "0", CONFIG)
    assert (video.width_px, video.height_px) == (112, 64)
    assert np.abs(picture(next(iter_frames(path, video)), video).astype(int) - upright).mean() < 3


@pytest.mark.parametrize(
    ("size", "aspect", "rotation", "shown"),
    [
        ((176, 144), Fraction(128, 117), 0, (193, 144)),
        ((512, 480), Fraction(15, 16), 0, (512, 512)),
        ((720, 576), Fraction(64, 45), 90, (576, 1024)),
        ((101, 67), Fraction(1), 270, (67, 101)),
    ],
)
def test_pixels_become_square_without_losing_any(size, aspect, rotation, shown):
    assert scale_to_square(*size, aspect, rotation) == shown


def test_a_circle_of_oblong_pixels_becomes_round(tmp_path):
    path = tmp_path / "oblong.mp4"
    stored = np.zeros((120, 160, 3), np.uint8)
    cv2.ellipse(stored, (80, 60), (20, 40), 0, 0, 360, (255, 255, 255), -1)
    write_video(path, [stored] * 3, coding=Coding(sample_aspect_ratio=Fraction(2)))
    video = probe(path, "oblong", "0", CONFIG)
    assert (video.width_px, video.height_px) == (320, 120)
    disc = picture(next(iter_frames(path, video)), video)[..., 0] > 128
    assert disc.any(0).sum() == pytest.approx(disc.any(1).sum(), abs=3)


_WEIGHTS = {1: (0.2126, 0.0722), 5: (0.299, 0.114)}
_PATCHES = [(235, 40, 40), (40, 200, 60), (50, 60, 220), (250, 250, 250), (10, 10, 10), (128, 128, 128), (200, 180, 40)]


def _to_yuv(rgb, matrix: int, full: bool, depth: int) -> list[int]:
    """ITU-T H.273, equations 8.3 and 8.4."""
    red, blue = _WEIGHTS[matrix]
    r, g, b = (value / 255 for value in rgb)
    y = red * r + (1 - red - blue) * g + blue * b
    u, v = (b - y) / (2 * (1 - blue)), (r - y) / (2 * (1 - red))
    top, scale = 2**depth - 1, 2 ** (depth - 8)
    if full:
        return [round(top * y), round(top * u + 128 * scale), round(top * v + 128 * scale)]
    return [round(scale * (219 * y + 16)), round(scale * (224 * u + 128)), round(scale * (224 * v + 128))]


def _write_patches(path, matrix: int, full: bool, pix_fmt: str, tagged: bool, height: int = 64) -> np.ndarray:
    depth = 10 if "10" in pix_fmt else 8
    chroma = {"yuv444p": (1, 1), "yuv420p": (2, 2)}[pix_fmt.removesuffix("10le")]
    dtype = np.uint16 if depth == 10 else np.uint8
    yuv = np.array([_to_yuv(rgb, matrix, full, depth) for rgb in _PATCHES], dtype)
    planes = [np.tile(np.repeat(yuv[:, c], 32), (height, 1)) for c in range(3)]
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=25)
        stream.width, stream.height, stream.pix_fmt = 32 * len(_PATCHES), height, pix_fmt
        if tagged:
            stream.codec_context.colorspace, stream.codec_context.color_range = matrix, 2 if full else 1
        frame = av.VideoFrame(stream.width, stream.height, pix_fmt)
        for plane, values, (down, across) in zip(frame.planes, planes, [(1, 1), chroma, chroma], strict=True):
            small = values[::down, ::across]
            padded = np.zeros((plane.height, plane.line_size // dtype().itemsize), dtype)
            padded[:, : plane.width] = small
            plane.update(padded.tobytes())
        if tagged:
            frame.colorspace, frame.color_range = matrix, 2 if full else 1
        for k in range(2):
            frame.pts = k
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return np.array(_PATCHES)


def _read_patches(path) -> np.ndarray:
    video = probe(path, "patches", "0", CONFIG)
    image = picture(next(iter_frames(path, video)), video)
    return image[image.shape[0] // 2, 16::32].astype(int)


@pytest.mark.parametrize("matrix", [1, 5])
@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize("pix_fmt", ["yuv420p", "yuv444p", "yuv420p10le", "yuv444p10le"])
def test_colours_survive(tmp_path, matrix, full, pix_fmt):
    truth = _write_patches(tmp_path / "patches.mkv", matrix, full, pix_fmt, tagged=True)
    assert np.abs(_read_patches(tmp_path / "patches.mkv") - truth).max() <= 3


@pytest.mark.parametrize(("height", "matrix"), [(718, 5), (720, 1), (722, 1)])
def test_untagged_colours_follow_the_height(tmp_path, height, matrix):
    truth = _write_patches(tmp_path / "patches.mkv", matrix, False, "yuv420p", tagged=False, height=height)
    assert np.abs(_read_patches(tmp_path / "patches.mkv") - truth).max() <= 3


@pytest.mark.parametrize(("pix_fmt", "size"), [("gray", (160, 96)), ("yuv420p", (161, 97)), ("yuv444p", (97, 161))])
def test_grey_and_odd_sizes(tmp_path, pix_fmt, size):
    frames = list(iter_numbered(4, size))
    path = tmp_path / "odd.mkv"
    write_video(path, frames, coding=Coding(codec="ffv1", pix_fmt=pix_fmt))
    video = probe(path, "odd", "0", CONFIG)
    shown = [picture(f, video) for f in iter_frames(path, video)]
    assert [read_counter(image) for image in shown] == [0, 1, 2, 3]
    assert all(image.shape == (size[1], size[0], 3) for image in shown)


def test_interlaced_frames_lose_their_combs(tmp_path):
    """A bar that moves between the two fields of a frame: rows of both fields must agree afterwards."""
    frames = []
    for k in range(12):
        image = np.full((96, 160, 3), 30, np.uint8)
        for field in range(2):
            x = 10 + 8 * k + 4 * field
            image[field::2, x : x + 20] = 220
        frames.append(image)
    path = tmp_path / "combs.mp4"
    write_video(path, frames, coding=Coding(interlaced=True, pix_fmt="yuv420p"))
    video = probe(path, "combs", "0", CONFIG)
    assert video.interlaced

    def combs(image) -> float:
        rows = image[..., 1].astype(int)
        return float(np.abs(2 * rows[1:-1] - rows[:-2] - rows[2:]).mean())

    plain = [
        picture(f, video.model_copy(update={"interlaced": False}))
        for f in iter_frames(path, video.model_copy(update={"interlaced": False}))
    ]
    shown = [picture(f, video) for f in iter_frames(path, video)]
    assert len(shown) == len(plain) == 12
    assert np.mean([combs(i) for i in shown[1:-1]]) < 0.25 * np.mean([combs(i) for i in plain[1:-1]])


@given(st.integers(1, 10_000), st.integers(1, 10_000), st.integers(1, 2000))
def test_fitting_never_enlarges_and_keeps_the_shape(width, height, long_side):
    w, h = fit_within(width, height, long_side)
    assert 1 <= w <= width
    assert 1 <= h <= height
    assert max(w, h) <= long_side
    if min(w, h) > 20:
        assert w / h == pytest.approx(width / height, rel=0.05)


# --- a constant rate from any rate -------------------------------------------------------------------------


@dataclass(frozen=True)
class _Still:
    pts: int
    time_s: float


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.integers(1, 400), min_size=0, max_size=40),
    st.integers(-500, 500),
    st.integers(0, 1500),
    st.sampled_from([24, 25, 30]),
    st.integers(0, 60),
)
@example([64], 8, 0, 25, 2)  # a tie that binary fractions make uneven
def test_the_nearest_frame_is_shown(gaps, first, start_ms, fps, num_frames):
    times_ms = list(np.cumsum([first, *gaps])) if gaps else []
    stills = [_Still(int(t), t / 1000) for t in times_ms]
    shown = list(iter_at_rate(iter(stills), start_ms / 1000, fps, num_frames))
    assert len(shown) == (num_frames if stills else 0)
    for k, (frame, _) in enumerate(shown):
        time = Fraction(start_ms, 1000) + Fraction(k, fps)
        distances = {still.pts: abs(Fraction(still.pts, 1000) - time) for still in stills}
        nearest = min(distances.values())
        assert frame.pts == min(pts for pts, distance in distances.items() if distance == nearest)
    assert all(a.pts <= b.pts for (a, _), (b, _) in pairwise(shown))
    assert [repeated for _, repeated in shown] == [
        k > 0 and shown[k - 1][0].pts == frame.pts for k, (frame, _) in enumerate(shown)
    ]


@pytest.mark.parametrize(("name", "rule"), [("24.mp4", 24), ("25.mp4", 25), ("ntsc.mp4", Fraction(30000, 1001))])
def test_25_per_second_from_other_rates(film, name, rule):
    source = film(name)
    shown = [
        read_counter(picture(f, source.video))
        for f, _ in iter_at_rate(iter_frames(source.path, source.video), source.video.start_s, 25, 40)
    ]
    for k, number in enumerate(shown):
        assert abs(Fraction(number) / rule - Fraction(k, 25)) <= 1 / (2 * rule) + Fraction(1, 10**6)


# --- files that mean harm, or are harmed ---------------------------------------------------------------------


def test_a_list_of_files_named_mp4_opens_nothing(film, tmp_path):
    """Without the list of formats, FFmpeg follows it: checked first, so that the trap is known to be one."""
    trap = tmp_path / "list.mp4"
    (tmp_path / "inner.mp4").write_bytes(film("25.mp4").path.read_bytes())
    trap.write_text("ffconcat version 1.0\nfile inner.mp4\n")
    with av.open(f"file:{trap}", options={"protocol_whitelist": "file,pipe"}) as container:
        assert container.streams.video
    with pytest.raises(DecodeError, match=r"list\.mp4"), open_media(trap):
        pass


@pytest.mark.parametrize("suffix", ["mp4", "m3u8", "ts"])
def test_a_playlist_reaches_no_server(tmp_path, suffix):
    asked = []

    class Server(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            self.send_response(404)
            self.end_headers()

        def log_message(self, *args):
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Server) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            trap = tmp_path / f"play.{suffix}"
            trap.write_text(
                "#EXTM3U\n#EXT-X-VERSION:3\n#EXT-X-TARGETDURATION:4\n#EXTINF:4,\n"
                f"http://127.0.0.1:{server.server_port}/a.ts\n#EXT-X-ENDLIST\n"
            )
            with pytest.raises(DecodeError, match="play"), open_media(trap):
                pass
        finally:
            server.shutdown()
            thread.join()
    assert asked == []


@pytest.mark.parametrize(
    ("content", "error", "match"),
    [
        (b"", DecodeError, "0 bytes"),
        (b"not a film\n" * 50, DecodeError, "not a media file"),
        (None, SourceError, "not there"),
    ],
)
def test_what_is_no_media_file_is_named(tmp_path, content, error, match):
    path = tmp_path / "thing.mp4"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(error, match=match) as caught, open_media(path):
        pass
    assert "thing.mp4" in str(caught.value)


def test_a_folder_is_no_media_file(tmp_path):
    with pytest.raises(SourceError, match="a folder"), open_media(tmp_path):
        pass


@pytest.mark.parametrize("name", ["25.mp4", "mpeg4.mp4", "vp9.webm", "mpeg2.ts", "h264.flv"])
def test_damage_costs_only_what_is_damaged(film, tmp_path, name):
    """Bytes in the middle are overwritten: the film's first third stays exact, and it goes on after the damage."""
    source = film(name)
    data = bytearray(source.path.read_bytes())
    middle = len(data) // 2
    data[middle : middle + len(data) // 50] = np.random.default_rng(1).bytes(len(data) // 50)
    path = tmp_path / name
    path.write_bytes(data)
    frames = [signature(f, source.video) for f in iter_frames(path, source.video)]
    every = whole(source)
    assert frames[: NUM // 3] == every[: NUM // 3]
    assert len(frames) >= NUM // 2
    assert len(set(frames) & set(every)) >= 0.6 * NUM
    assert frames[-1][0] == every[-1][0]


def test_a_file_that_is_mostly_damage_is_given_up(tmp_path):
    path = tmp_path / "ruin.mp4"
    write_video(path, list(iter_numbered(40, SIZE)) * 8, coding=Coding(gop=1, bframes=0))
    video = probe(path, "ruin", "0", CONFIG)
    with av.open(str(path)) as container:
        places = [(p.pos, p.size) for p in container.demux(video=0) if p.size]
    data = bytearray(path.read_bytes())
    for at, size in places[10:]:
        data[at : at + size] = b"\xff" * size
    path.write_bytes(data)
    with pytest.raises(DecodeError, match=r"ruin\.mp4 is damaged"):
        list(iter_frames(path, video))
