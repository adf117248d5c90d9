"""Small films rendered here, and files made of them that once broke the build or stand for one kind of bad file.

``python -m tests.helpers.hostile`` writes ``corpus`` again. Seeds that are there are kept, since encoders and muxers
give other bytes each time; everything else is made from them byte by byte. The table says what each file must come to.
"""

import csv
import io
import json
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.bitstream import BitStreamFilterContext

from tests.helpers.media import Coding, Sound, clicks, iter_moving_face, write_video
from tests.helpers.mutations import Film, Part, iter_boxes, mutant

CORPUS = Path(__file__).parent / "corpus"
TABLE = CORPUS / "table.csv"
COLUMNS = ("file", "made", "class", "stage", "sentence")
# name: size, zoom, number of frames, sound codec and rate, coding
Recipe = tuple[tuple[int, int], float, int, tuple[str, int], Coding]
SEEDS: dict[str, Recipe] = {
    "plain.mp4": ((160, 128), 0.9, 14, ("aac", 16_000), Coding(options={"crf": "30"})),
    "turned.mov": (
        (160, 160), 0.9, 14, ("aac", 16_000),
        Coding(rotation_deg=90, sample_aspect_ratio=Fraction(4, 3), options={"crf": "32"}),
    ),
    "vp9.webm": (
        (160, 128), 0.9, 14, ("libopus", 48_000), Coding(codec="libvpx-vp9", options={"cpu-used": "8"}),
    ),
    "h264.mkv": ((160, 128), 0.9, 14, ("flac", 16_000), Coding(options={"crf": "30"})),
    "mpeg4.avi": (
        (160, 128), 0.9, 12, ("mp2", 16_000),
        Coding(codec="mpeg4", bframes=0, options={"b": "60000", "qmin": "20"}),
    ),
    "laced.ts": ((160, 128), 0.9, 12, ("mp2", 16_000), Coding(interlaced=True, options={"crf": "36"})),
    "wider.ts": ((224, 128), 0.9, 12, ("mp2", 16_000), Coding(interlaced=True, options={"crf": "36"})),
    "mpeg2.mpg": ((160, 128), 0.9, 12, ("mp2", 16_000), Coding(codec="mpeg2video", options={"b": "200000"})),
    "hevc.mp4": (
        (160, 128), 0.9, 14, ("aac", 16_000),
        Coding(codec="libx265", options={"crf": "32", "x265-params": "log-level=none"}),
    ),
}  # fmt: skip


def render_seed(name: str, path: Path) -> None:
    """A face that sways a little, with two clicks; half a second."""
    size, zoom, num_frames, (codec, rate_hz), coding = SEEDS[name]
    turns = coding.rotation_deg // 90  # a player turns them back
    frames = [np.rot90(frame, turns) for frame, _ in iter_moving_face(num_frames, size, zoom=zoom, sway_px=4)]
    samples = clicks([0.1, 0.4], num_frames / 25, rate_hz)
    if codec == "mp2":  # its usual rate of 384 kbit/s would be most of the file
        samples = samples[: rate_hz // 3]
    write_video(path, frames, sound=Sound(samples, rate_hz=rate_hz, codec=codec), coding=coding)


# --- what is done to seeds ---

Made = Callable[[dict[str, bytes]], bytes]


@dataclass(frozen=True)
class Kept:
    """One file of the corpus: what it is, how it is made from the seeds, and what it must come to."""

    recipe: str
    make: Made
    kind: str = "done"
    stage: str = ""
    said: str = ""


def boxes(data: bytes, kind: bytes) -> list[Part]:
    return [part for part in iter_boxes(data) if part.kind == kind]


def worded(kind: bytes, *words: tuple[int, int], seed: str = "plain.mp4", nth: int = 0) -> Made:
    """Some words (place, value) of the ``nth`` box of a kind replaced."""

    def make(seeds: dict[str, bytes]) -> bytes:
        data = bytearray(seeds[seed])
        start = boxes(seeds[seed], kind)[nth].content
        for index, value in words:
            data[start + 4 * index : start + 4 * index + 4] = struct.pack(">I", value)
        return bytes(data)

    return make


def renamed(old: bytes, new: bytes, seed: str = "plain.mp4") -> Made:
    return lambda seeds: seeds[seed].replace(old, new)


def numbered(seed: str, number: int) -> Made:
    """A mutant, as the fuzzer numbers them."""

    def make(seeds: dict[str, bytes]) -> bytes:
        films = [Film(Path(name).stem, Path(name).suffix, data) for name, data in sorted(seeds.items())]
        film = next(film for film in films if film.name == Path(seed).stem)
        data, suffix, _ = mutant(films, film, number)
        assert suffix == film.suffix
        return data

    return make


def tagged(matrix: int) -> Made:
    """The film with another colour matrix in its headers, its samples as they were."""

    def make(seeds: dict[str, bytes]) -> bytes:
        return _remuxed(seeds["plain.mp4"], f"h264_metadata=matrix_coefficients={matrix}")

    return make


def _remuxed(data: bytes, bits: str) -> bytes:
    remuxed = io.BytesIO()
    with av.open(io.BytesIO(data)) as read, av.open(remuxed, "w", format="mpegts") as written:
        stream: Any = read.streams.video[0]
        out: Any = written.add_stream_from_template(stream)
        change = BitStreamFilterContext(f"h264_mp4toannexb,{bits}", stream)
        for packet in [packet for packet in read.demux(stream) if packet.dts is not None]:
            for changed in change.filter(packet):
                changed.stream = out
                written.mux(changed)
    return remuxed.getvalue()


def flat(size: tuple[int, int], times_s: list[Fraction] | None = None, **coding: Any) -> Made:
    """A grey film of a few frames."""

    def make(seeds: dict[str, bytes]) -> bytes:
        path = CORPUS / "new.mp4"
        frames = [np.full((size[1], size[0], 3), 20 * k, np.uint8) for k in range(len(times_s or range(5)))]
        write_video(path, frames, times_s=times_s, coding=Coding(**coding))
        data = path.read_bytes()
        path.unlink()
        return data

    return make


def cut(share: float, seed: str = "plain.mp4") -> Made:
    return lambda seeds: seeds[seed][: int(len(seeds[seed]) * share)]


def _without_picture(seeds: dict[str, bytes]) -> bytes:
    """The trak box of the picture renamed, so that only the sound is left."""
    data = seeds["plain.mp4"]
    start = boxes(data, b"trak")[0].start
    return data[: start + 4] + b"free" + data[start + 8 :]


def _claiming(seeds: dict[str, bytes]) -> bytes:
    data = bytearray(seeds["h264.mkv"])
    at = data.index(b"\x44\x89\x88")  # a Matroska duration: eight bytes, in milliseconds
    data[at + 3 : at + 11] = struct.pack(">d", 36_000_000.0)
    return bytes(data)


def _blanked_payload(seeds: dict[str, bytes]) -> bytes:
    data = bytearray(seeds["plain.mp4"])
    payload = boxes(seeds["plain.mp4"], b"mdat")[0]
    data[payload.content : payload.stop] = bytes(payload.stop - payload.content)
    return bytes(data)


def _crowded(seeds: dict[str, bytes]) -> bytes:
    """Twenty more copies of the picture's track in one file."""
    data = seeds["plain.mp4"]
    moov, track = boxes(data, b"moov")[0], boxes(data, b"trak")[0]
    piece = data[track.start : track.stop] * 20
    size = struct.pack(">I", moov.stop - moov.start + len(piece))
    return data[: moov.start] + size + data[moov.start + 4 : moov.stop] + piece + data[moov.stop :]


def _no_packets(seeds: dict[str, bytes]) -> bytes:
    data = worded(b"stsz", (2, 0))(seeds)
    return worded(b"stts", (1, 0))({"plain.mp4": data})


def _raw(seeds: dict[str, bytes]) -> bytes:
    with av.open(io.BytesIO(seeds["plain.mp4"])) as read:
        stream: Any = read.streams.video[0]
        filtered = BitStreamFilterContext("h264_mp4toannexb", stream)
        packets = [packet for packet in read.demux(stream) if packet.dts is not None]
        return b"".join(bytes(part) for packet in packets for part in filtered.filter(packet))


TEXT = "To whom it may concern\n" * 20
PAGE = "<!DOCTYPE html><html><head><title>404</title></head><body>" + "<p>Not found</p>" * 20 + "</body></html>"
LIST = "ffconcat version 1.0\nfile 'plain.mp4'\n"
HLS = "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nlaced.ts\n#EXT-X-ENDLIST\n"
SUBTITLES = "1\n00:00:00,000 --> 00:00:01,000\nHello\n"
UNREADABLE = "is not a media file that can be opened"
UNKNOWN_CODING = "has a picture in a coding that cannot be decoded here: convert it to H.264 in mp4"
KEPT: dict[str, Kept] = {
    # what once crashed
    "no-coding.mp4": Kept(
        "sample entry avc1 named zzzz", renamed(b"avc1", b"zzzz"), "permanent", "probe", UNKNOWN_CODING
    ),
    "no-sound-coding.avi": Kept(
        "sound's format tag 0x50 set to 0x7777",
        renamed(b"\x50\x00\x01\x00\x80\x3e", b"\x77\x77\x01\x00\x80\x3e", "mpeg4.avi"),
    ),
    "matrix-8.ts": Kept(
        "tagged YCgCo", tagged(8), "decode", "probe", "a picture whose colours cannot be converted (yuv420p, matrix 8)"
    ),
    "matrix-12.ts": Kept(
        "tagged as derived from primaries", tagged(12), "decode", "probe", "matrix 12): convert it to yuv420p in BT.709"
    ),
    "grows.ts": Kept("laced.ts, then the wider wider.ts", lambda seeds: seeds["laced.ts"] + seeds["wider.ts"]),
    # what is damaged, but not enough to fail
    "blanks.ts": Kept("mutant 5002 of laced.ts", numbered("laced.ts", 5002)),
    "flipped.mkv": Kept("mutant 5012 of h264.mkv", numbered("h264.mkv", 5012)),
    # one for each sentence
    "cut.mp4": Kept("first 6 of 10 bytes, the index is at the end", cut(0.6), "decode", "probe", UNREADABLE),
    "cut.mkv": Kept(
        "first 3 of 10 bytes", cut(0.3, "h264.mkv"), "decode", "probe", "a video stream without a single packet"
    ),
    "claims.mkv": Kept(
        "duration in the header set to 10 hours",
        _claiming,
        "decode",
        "probe",
        "is cut short: its header claims 36000.0 s, its data end at 0.",
    ),
    "blank.mp4": Kept("payload set to zero", _blanked_payload, "decode", "probe", "holds no frame that decodes"),
    "no-picture.mp4": Kept(
        "picture's trak named free", _without_picture, "permanent", "probe", "has no video stream (audio only)"
    ),
    "no-packets.mp4": Kept(
        "no entries in the picture's stsz and stts",
        _no_packets,
        "decode",
        "probe",
        "a video stream without a single packet",
    ),
    "raw.mp4": Kept("bare H.264, named .mp4", _raw, "permanent", "probe", "carries no time stamps (h264)"),
    "small.mp4": Kept("32×32 px", flat((32, 32)), "permanent", "probe", "is 32×32 px: at least 64 px"),
    "wide.mp4": Kept("8448×64 px", flat((8448, 64)), "permanent", "probe", "is 8448×64 px: at most 8192 px"),
    "stretched.mp4": Kept(
        "2048×64 px, to be shown 8 times as wide",
        flat((2048, 64), sample_aspect_ratio=Fraction(8)),
        "permanent",
        "probe",
        "is 16384×64 px: at most 8192 px",
    ),
    "fast.mp4": Kept(
        "90,000 frames per second",
        flat((64, 64), [Fraction(k, 90_000) for k in range(9)]),
        "permanent",
        "probe",
        "has 90000 frames per second: at most 240",
    ),
    "slow.mp4": Kept(
        "frames 5 hours apart", worded(b"stts", (3, 0x7FFFFFFF)), "permanent", "probe", "at most 14400.0 s are accepted"
    ),
    "crowd.mp4": Kept("21 copies of the picture's track", _crowded),
    "text.mp4": Kept("a letter", lambda _: TEXT.encode(), "decode", "probe", UNREADABLE),
    "page.mp4": Kept("a web page", lambda _: PAGE.encode(), "decode", "probe", UNREADABLE),
    "list.mp4": Kept("a concat list of plain.mp4", lambda _: LIST.encode(), "decode", "probe", UNREADABLE),
    "stream.mp4": Kept("an HLS playlist of laced.ts", lambda _: HLS.encode(), "decode", "probe", UNREADABLE),
    "subtitles.mp4": Kept("subtitles alone", lambda _: SUBTITLES.encode(), "decode", "probe", UNREADABLE),
    "zeros.mp4": Kept("4096 zeros", lambda _: bytes(4096), "decode", "probe", UNREADABLE),
    "empty.mp4": Kept("nothing", lambda _: b"", "permanent", "acquire", "is empty: 0 bytes"),
}


def corpus_seeds() -> dict[str, bytes]:
    """The seeds that lie in the corpus."""
    return {name: (CORPUS / name).read_bytes() for name in SEEDS}


def remade(seeds: dict[str, bytes]) -> Iterator[tuple[str, bytes]]:
    """Every file of the corpus that is no seed, made again."""
    for name, kept in KEPT.items():
        yield name, kept.make(seeds)


def write_corpus() -> None:
    CORPUS.mkdir(exist_ok=True)
    for name in SEEDS:
        if not (CORPUS / name).exists():
            render_seed(name, CORPUS / name)
    for name, data in remade(corpus_seeds()):
        (CORPUS / name).write_bytes(data)
    with TABLE.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(COLUMNS)
        for name in SEEDS:
            table.writerow([name, "as rendered", "done", "", ""])
        for name, kept in KEPT.items():
            table.writerow([name, kept.recipe, kept.kind, kept.stage, kept.said])


if __name__ == "__main__":
    write_corpus()
    print(json.dumps({path.name: path.stat().st_size for path in sorted(CORPUS.iterdir())}, indent=1))
