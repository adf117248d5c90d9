"""The loader's own reading of the builder's mp4 says what FFmpeg's demuxer says, frame for frame, or nothing."""

import io
import itertools
import os
import struct
import tarfile
import tempfile
from pathlib import Path

import av
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pipeline.media.encode import ClipWriter, cut_clip
from pipeline.media.pixels import to_coded
from schemas.base import FrameSpan
from tests.helpers.pair_shards import numbered_mp4, numbered_release, rewritten, shards_of
from tests.helpers.release_items import SIZE_PX, encode_mp4, make_clip
from tests.training.data.test_loader import SMALL, same, take
from training.data import PairsConfig, mp4, pairs
from training.data.clips import ClipInfo, CorruptError, TarEntry, index_tar, open_clip
from training.data.video import demuxed_table, read_packets, read_table

INFO = ClipInfo(
    clip_id="clip",
    domain="real",
    identity_id="someone",
    num_frames=8,
    fps=25,
    size_px=SIZE_PX,
    landmark_scheme="ibug68",
    pose_fields=(),
    motion_channels=(),
    plan=make_clip().plan,
)


def built(num_frames, *, fps=25, size_px=SIZE_PX, sound=True, seed=0):
    """A clip by the builder's own writer."""
    numbers = np.random.default_rng(seed)
    writer = ClipWriter(size_px, fps, crf=23, preset="ultrafast")
    if sound:
        writer.declare_audio(48000)
    for _ in range(num_frames):
        coarse = numbers.integers(0, 255, (4, 4, 3), np.uint8)
        writer.add(to_coded(coarse.repeat(size_px // 4, 0).repeat(size_px // 4, 1)))
    if sound:
        writer.add_audio(numbers.standard_normal(num_frames * 48000 // fps).astype(np.float32) / 10)
    return writer.finish()


def own(data, info):
    """What the loader's own reading says of a file."""
    expected = {"num_frames": info.num_frames, "fps": info.fps, "size_px": info.size_px}
    return mp4.plain_table(lambda start, size: data[start : start + size], len(data), **expected)


def demuxed(data, info):
    """The same by FFmpeg's demuxer."""
    with memory_file(data) as descriptor:
        return demuxed_table(descriptor, TarEntry(info.clip_id, {"mp4": (0, len(data))}), info)


def memory_file(data):
    descriptor = os.memfd_create("clip")
    os.write(descriptor, data)
    return _Closing(descriptor)


class _Closing:
    def __init__(self, descriptor):
        self.descriptor = descriptor

    def __enter__(self):
        return self.descriptor

    def __exit__(self, *_):
        os.close(self.descriptor)


def equal(table, other):
    return table.setup == other.setup and (table.starts == other.starts).all() and (table.sizes == other.sizes).all()


def packets_of(data):
    with av.open(io.BytesIO(data), "r", format="mp4") as video:
        return [bytes(packet) for packet in video.demux(video=0) if packet.size]


# --- the builder's files ---


@given(
    num_frames=st.integers(1, 60),
    fps=st.sampled_from([25, 25, 24, 30, 50]),
    size_px=st.sampled_from([16, 32, 64]),
    sound=st.booleans(),
    cut=st.floats(0, 0.9),
)
@example(num_frames=1, fps=25, size_px=64, sound=True, cut=0.0)
@settings(max_examples=25, deadline=None)
def test_every_frame_of_what_the_builder_writes_is_where_the_demuxer_finds_it(num_frames, fps, size_px, sound, cut):
    data = built(num_frames, fps=fps, size_px=size_px, sound=sound)
    first = int(cut * num_frames)
    if first:
        samples = np.zeros((num_frames - first) * 16000 // fps, np.float32) if sound else None
        data = cut_clip(data, FrameSpan(start=first, stop=num_frames), samples, 16000)
    info = INFO.model_copy(update={"num_frames": num_frames - first, "fps": fps, "size_px": size_px})
    table = own(data, info)
    assert table is not None
    assert equal(table, demuxed(data, info))
    frames = [data[start : start + size] for start, size in zip(table.starts, table.sizes, strict=True)]
    assert frames == packets_of(data)


def test_in_a_shard_as_well(tmp_path):
    release = numbered_release(tmp_path, {"real": 2}, min_shards=1)
    [shard] = shards_of(release)
    with shard.open("rb") as file:
        for entry in index_tar(file.fileno()):
            info = open_clip(file.fileno(), entry).info
            table = read_table(file.fileno(), entry, info)
            assert equal(table, demuxed_table(file.fileno(), entry, info))
            wanted = read_packets(file.fileno(), entry, table, [7, 0, 3])
            with tarfile.open(shard) as tar:
                whole = packets_of(tar.extractfile(f"{entry.key}.mp4").read())
            assert wanted.by_frame == {frame: whole[frame] for frame in (7, 0, 3)}


# --- files of others ---


def remuxed(data, **options):
    """The same packets in another layout."""
    with (
        tempfile.NamedTemporaryFile(suffix=".mp4") as file,
        av.open(io.BytesIO(data), "r", format="mp4") as whole,
        av.open(file.name, "w", format="mp4", options=options) as target,
    ):
        stream = target.add_stream_from_template(whole.streams.video[0])
        for packet in whole.demux(video=0):
            if packet.size:
                packet.stream = stream
                target.mux(packet)
        target.close()
        return Path(file.name).read_bytes()


def with_long_offsets(data):
    """The same with co64 for stco; the table lies behind the pictures, so no offset changes."""
    at = data.index(b"stco") - 4
    length, _, _, count = struct.unpack_from(">I4sII", data, at)
    offsets = struct.unpack_from(f">{count}I", data, at + 16)
    table = struct.pack(f">I4sII{count}Q", length + 4 * count, b"co64", 0, count, *offsets)
    changed = bytearray(data[:at] + table + data[at + length :])
    for kind in (b"moov", b"trak", b"mdia", b"minf", b"stbl"):
        start = changed.index(kind, data.index(b"moov")) - 4
        struct.pack_into(">I", changed, start, struct.unpack_from(">I", changed, start)[0] + 4 * count)
    return bytes(changed)


PLAIN = {
    "table first": lambda data: remuxed(data, movflags="faststart"),
    "long offsets": lambda data: with_long_offsets(remuxed(data)),
    "whatever follows": lambda data: data + struct.pack(">I4s", 16, b"free") + bytes(8),
}
OTHER = {
    "fragments": lambda data: remuxed(data, movflags="frag_keyframe+empty_moov"),
    "brand of QuickTime": lambda data: data.replace(b"avc1\0\0\0\0", b"AVC1\0\0\0\0"),
}


@pytest.mark.parametrize("layout", [*PLAIN, *OTHER])
def test_another_layout_gives_the_same_frames(layout):
    data = numbered_mp4(3)
    changed = {**PLAIN, **OTHER}[layout](data)
    assert changed != data
    assert (own(changed, INFO) is None) == (layout in OTHER)
    with memory_file(changed) as descriptor:
        entry = TarEntry("clip", {"mp4": (0, len(changed))})
        table = read_table(descriptor, entry, INFO)
        assert equal(table, demuxed_table(descriptor, entry, INFO))
        packets = read_packets(descriptor, entry, table, range(8)).by_frame
    assert list(packets.values()) == packets_of(data)


def test_shards_with_videos_of_another_layout_give_the_same_batches(tmp_path):
    release = numbered_release(tmp_path / "r", {"real": 4})

    def fragmented(key, members):
        members["mp4"] = OTHER["fragments"](members["mp4"])

    paths = rewritten(release, tmp_path / "s", fragmented)
    assert same(take(pairs(paths, PairsConfig(**SMALL)), 6), take(pairs(release, PairsConfig(**SMALL)), 6))


@pytest.mark.parametrize("changes", [{"num_frames": 7}, {"num_frames": 9}, {"fps": 24}, {"size_px": 32}])
def test_what_is_not_as_its_record_says_is_left_to_the_demuxer_which_refuses_it(changes):
    info = INFO.model_copy(update=changes)
    assert own(numbered_mp4(0), info) is None
    with pytest.raises(CorruptError, match=r"not \d frames|has 8 frames of 64|no key frame in its place"):
        demuxed(numbered_mp4(0), info)


def test_frames_that_wait_for_others_are_no_plain_table():
    data = encode_mp4(8, gop=4)
    assert own(data, INFO) is None
    with pytest.raises(CorruptError, match="frame 1 is no key frame"):
        demuxed(data, INFO)


# --- files of enemies ---

SMALL_FILE = numbered_mp4(0)
TABLE = SMALL_FILE.index(b"moov") - 4


@given(
    places=st.lists(st.integers(TABLE, len(SMALL_FILE) - 4), min_size=1, max_size=3),
    words=st.lists(st.sampled_from([0, 1, 2, 7, 9, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF]) | st.integers(0, 2**32 - 1)),
    length=st.integers(0, len(SMALL_FILE)) | st.just(len(SMALL_FILE)),
)
@settings(max_examples=600, deadline=None)
def test_a_spoiled_table_is_left_to_the_demuxer_or_read_as_it_reads_it(places, words, length):
    spoiled = bytearray(SMALL_FILE)
    for offset, word in zip(places, itertools.cycle(words or [0xFFFFFFFF]), strict=False):
        struct.pack_into(">I", spoiled, offset, word)
    check_agrees(bytes(spoiled[:length]))


def test_every_byte_of_a_table_spoiled_by_turns():
    for offset in range(TABLE, len(SMALL_FILE)):
        spoiled = bytearray(SMALL_FILE)
        spoiled[offset] ^= 0x81
        check_agrees(bytes(spoiled))


def check_agrees(data):
    """Nothing but a table or CorruptError comes of any bytes, and two tables are one."""
    table = own(data, INFO)
    if table is not None:
        assert len(table.starts) == len(table.sizes) == INFO.num_frames
        assert (table.starts >= 0).all()
        assert (table.starts + table.sizes <= len(data)).all()
    try:
        other = demuxed(data, INFO)
    except CorruptError:
        return  # of what the own reading takes, it minds parts that no frame depends on
    assert table is None or equal(table, other)


def test_a_table_that_claims_more_than_is_there_makes_nothing_large():
    for kind, offset in ((b"stsz", 12), (b"stco", 8), (b"stsc", 8), (b"stts", 8), (b"moov", -4)):
        spoiled = bytearray(SMALL_FILE)
        struct.pack_into(">I", spoiled, spoiled.index(kind) + offset, 0x7FFFFFF0)
        assert own(bytes(spoiled), INFO) is None
    assert own(b"", INFO) is None
    assert own(struct.pack(">I4s", 8, b"free") * 10_000, INFO) is None
    assert own(struct.pack(">I4sQ", 1, b"mdat", 2**63), INFO) is None


def test_a_first_frame_that_is_shown_late_is_left_to_the_demuxer():
    spoiled = bytearray(SMALL_FILE)
    media_time = spoiled.index(b"elst") + 4 + 8 + 4
    struct.pack_into(">I", spoiled, media_time, 512)
    assert own(bytes(spoiled), INFO) is None
