"""What a finished sample must be, told from its bytes alone.

The writer asks before a sample enters a shard and the verifier asks again of what it reads, so both
hold the same law. The bytes may come from anywhere: nothing is unpickled, no claimed size is believed.
"""

import io
import itertools
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction

import av
import numpy as np
from av.error import FFmpegError

from schemas.face import LANDMARK_SCHEMES, num_points
from schemas.sample import SAMPLE_RATE_HZ, Field, SampleInfo, Series, fields_of

MAX_SIDE_PX = 4096  # larger pictures are not decoded: a tiny file can claim a huge one
MAX_FRAMES = 250_000
MAX_FPS = 240
_MAX_HEADER_BYTES = 4096


@dataclass(frozen=True, slots=True)
class Complaint:
    """One member of a sample that is not what it must be."""

    field: str
    expected: str
    actual: str

    def __str__(self) -> str:
        return f"{self.field}: expected {self.expected}, found {self.actual}"


@dataclass(frozen=True, slots=True)
class Picture:
    """What the headers and packets of an mp4 say; ``steady``: packets lie exactly 1 / fps apart."""

    codec: str
    pixel_format: str
    width_px: int
    height_px: int
    num_packets: int
    num_key_packets: int
    steady: bool


def read_picture(data: bytes, fps: int) -> Picture:
    """Demux an mp4 without decoding it.

    Raises:
        ValueError: when it cannot be read or has no video stream.
    """
    try:
        with av.open(io.BytesIO(data), "r", format="mp4") as container:
            if not container.streams.video:
                raise ValueError("no video stream")
            stream = container.streams.video[0]
            times: list[Fraction] = []
            num_keys = 0
            for packet in container.demux(stream):
                if packet.pts is not None and packet.size:
                    times.append(packet.pts * packet.time_base)
                    num_keys += packet.is_keyframe
            times.sort()
            steps = {after - before for before, after in itertools.pairwise(times)}
            context = stream.codec_context
            return Picture(
                codec=context.name,
                pixel_format=context.pix_fmt or "",
                width_px=context.width,
                height_px=context.height,
                num_packets=len(times),
                num_key_packets=num_keys,
                steady=steps <= {Fraction(1, fps)},
            )
    except FFmpegError as error:
        raise ValueError(f"not readable ({error.strerror})") from error


def complaints(
    info: SampleInfo, members: Mapping[str, bytes], series: Series, *, deep: bool = False
) -> Iterator[Complaint]:
    """All that is wrong with the members of one sample of one series.

    Args:
        info: what the sample says of itself.
        members: bytes by suffix; the ``json`` is the caller's to compare.
        series: decides which fields must be there.
        deep: decode the video instead of trusting packets and their key-frame flags.
    """
    fields = fields_of(series)
    for suffix in sorted(members.keys() - fields.keys()):
        yield Complaint(suffix, f"a field of the {series} series", "an unknown suffix")
    try:
        num_points(info.landmark_scheme)
    except KeyError:
        known = f"a landmark scheme among {', '.join(LANDMARK_SCHEMES)} and pointsN"
        yield Complaint("json", known, info.landmark_scheme)
        return
    if not 0 < info.num_frames <= MAX_FRAMES or not 0 < info.fps <= MAX_FPS:
        yield Complaint("json", "a usable length and rate", f"{info.num_frames} frames at {info.fps} fps")
        return
    yield from _plan_complaints(info)
    for suffix, field in fields.items():
        if suffix == "json":
            continue
        if suffix not in members:
            if not field.optional:
                yield Complaint(suffix, "to be there", "nothing")
        elif suffix == "mp4":
            yield from _video_complaints(info, members[suffix], deep=deep)
        elif suffix == "flac":
            yield from _audio_complaints(info, members[suffix])
        else:
            yield from _array_complaints(info, field, members[suffix])


def _plan_complaints(info: SampleInfo) -> Iterator[Complaint]:
    plan = info.plan
    if (plan.clip_id, plan.source_id) != (info.clip_id, info.source_id):
        yield Complaint("json", f"the plan of {info.clip_id}", f"the plan of {plan.clip_id}")
    if (plan.num_frames, plan.fps) != (info.num_frames, info.fps):
        yield Complaint("json", f"{plan.num_frames} frames at {plan.fps} fps", f"{info.num_frames} at {info.fps}")
    square = plan.square
    if abs(square.width_px - square.height_px) > 1.0:
        yield Complaint("json", "a square crop", f"{square.width_px:g} × {square.height_px:g} px")
    # Only what lies left of or above the picture can be told without the source's own size.
    inside = (square.x1 - max(square.x0, 0.0)) * (square.y1 - max(square.y0, 0.0)) / square.area
    if 1.0 - inside > plan.padding + 1e-3:
        yield Complaint("json", f"padding of at least {1.0 - inside:.4f}", f"{plan.padding:.4f}")


def _video_complaints(info: SampleInfo, data: bytes, *, deep: bool) -> Iterator[Complaint]:
    try:
        picture = read_picture(data, info.fps)
    except ValueError as error:
        yield Complaint("mp4", "an H.264 video", str(error))
        return
    if (picture.codec, picture.pixel_format) != ("h264", "yuv420p"):
        yield Complaint("mp4", "h264 in yuv420p", f"{picture.codec} in {picture.pixel_format}")
    if (picture.width_px, picture.height_px) != (info.size_px, info.size_px):
        expected = f"{info.size_px} × {info.size_px} px"
        yield Complaint("mp4", expected, f"{picture.width_px} × {picture.height_px} px")
    if picture.num_packets != info.num_frames:
        yield Complaint("mp4", f"{info.num_frames} frames", f"{picture.num_packets} frames")
    elif picture.num_key_packets != picture.num_packets:
        yield Complaint("mp4", "only key frames", f"{picture.num_key_packets} of {picture.num_packets}")
    if not picture.steady:
        yield Complaint("mp4", f"frames exactly 1/{info.fps} s apart", "uneven time stamps")
    if deep and max(picture.width_px, picture.height_px) <= MAX_SIDE_PX and picture.num_packets <= MAX_FRAMES:
        yield from _decode_complaints(info, data)


def _decode_complaints(info: SampleInfo, data: bytes) -> Iterator[Complaint]:
    num_frames = num_keys = num_damaged = 0
    try:
        with av.open(io.BytesIO(data), "r", format="mp4") as container:
            for frame in container.decode(video=0):
                num_frames += 1
                num_keys += bool(frame.key_frame)
                num_damaged += frame.is_corrupt  # the decoder paints over damage and only leaves this mark
    except FFmpegError as error:
        yield Complaint("mp4", f"{info.num_frames} decodable frames", f"{num_frames}, then {error.strerror}")
        return
    if num_frames != info.num_frames:
        yield Complaint("mp4", f"{info.num_frames} decodable frames", f"{num_frames}")
    elif num_keys != num_frames:
        yield Complaint("mp4", "only key frames when decoded", f"{num_keys} of {num_frames}")
    if num_damaged:
        yield Complaint("mp4", "undamaged frames", f"{num_damaged} of {num_frames} damaged")


def _audio_complaints(info: SampleInfo, data: bytes) -> Iterator[Complaint]:
    expected = info.sizes()["A"]
    num_samples = 0
    try:
        with av.open(io.BytesIO(data), "r", format="flac") as container:
            context = container.streams.audio[0].codec_context
            actual = f"{context.name}, {context.rate} Hz, {context.channels} ch, {getattr(context.format, 'name', '?')}"
            if actual != (wanted := f"flac, {SAMPLE_RATE_HZ} Hz, 1 ch, s16"):
                yield Complaint("flac", wanted, actual)
            for frame in container.decode(audio=0):
                num_samples += frame.samples
                if num_samples > expected:
                    break
    except (FFmpegError, IndexError) as error:
        yield Complaint("flac", f"{expected} samples", f"{num_samples}, then {getattr(error, 'strerror', error)}")
        return
    if num_samples != expected:
        actual = f"more than {expected}" if num_samples > expected else f"{num_samples}"
        yield Complaint("flac", f"{expected} samples", actual)


def _array_complaints(info: SampleInfo, field: Field, data: bytes) -> Iterator[Complaint]:
    try:
        array = load_array(data)
    except ValueError as error:
        yield Complaint(field.suffix, f"a {field.dtype} array", str(error))
        return
    dtype = np.dtype(field.dtype).newbyteorder("<")
    if array.dtype != dtype:
        yield Complaint(field.suffix, f"dtype {dtype.str}", array.dtype.str)
    if not field.fits(array.shape, info.sizes()):
        sizes = info.sizes()
        shape = ", ".join(str(sizes.get(axis, axis)) for axis in field.axes)
        yield Complaint(field.suffix, f"shape ({shape})", str(array.shape))
    elif array.dtype.kind == "f":
        yield from _value_complaints(info, field, array)


def _value_complaints(info: SampleInfo, field: Field, array: np.ndarray) -> Iterator[Complaint]:
    if not np.isfinite(array).all():
        num_bad = int(array.size - np.isfinite(array).sum())
        yield Complaint(field.suffix, "finite numbers", f"{num_bad} NaN or infinite")
        return
    if field.suffix in {"landmarks.npy", "pose.npy", "motion.npy"}:
        confidence = array[..., -1]
        if confidence.min() < 0.0 or confidence.max() > 1.0:
            bounds = f"{confidence.min():g} to {confidence.max():g}"
            yield Complaint(field.suffix, "confidence from 0 to 1", bounds)
        if field.suffix == "landmarks.npy" and info.landmark_scheme == "none" and confidence.any():
            yield Complaint(field.suffix, "confidence 0, as the domain has no landmarker", f"{confidence.max():g}")


def load_array(data: bytes) -> np.ndarray:
    """An .npy file from untrusted bytes: never a pickle, and no more memory than the file has bytes.

    Raises:
        ValueError: when it is not a plain array of exactly the claimed size.
    """
    stream = io.BytesIO(data)
    try:
        version = np.lib.format.read_magic(stream)
        read_header = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
        shape, fortran, dtype = read_header[version](stream, max_header_size=_MAX_HEADER_BYTES)
    except (ValueError, KeyError, EOFError, SyntaxError, TypeError) as error:
        raise ValueError(f"no readable .npy header ({type(error).__name__})") from error
    if dtype.hasobject or dtype.kind not in "?biuf":
        raise ValueError(f"dtype {dtype.str}, which is refused unread")
    num_bytes = math.prod(shape) * dtype.itemsize
    if len(data) - stream.tell() != num_bytes:
        raise ValueError(f"{len(data) - stream.tell()} bytes of data for shape {shape} of {dtype.str}")
    flat = np.frombuffer(data, dtype=dtype, offset=stream.tell())
    return flat.reshape(shape, order="F" if fortran else "C")
