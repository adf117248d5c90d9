"""Arrays of a sample that stay where they lie: of each only the window that is asked for is read."""

import math
import os
from dataclasses import dataclass

import numpy as np

from schemas.face import MOTION_CHANNELS, num_points
from schemas.sample import MEL_HOP_SAMPLES, Field, num_audio_samples
from training.data.clips import MAX_HEADER_BYTES, ClipInfo, CorruptError, TarEntry, data_start, read_header

_HEAD_BYTES = 256  # numpy writes headers of 128, and longer ones for many axes alone


@dataclass(frozen=True, slots=True)
class StoredArray:
    """An .npy member of an open tar.

    Attributes:
        name: ``KEY.suffix``, for messages.
        descriptor: of the tar.
        offset: of the numbers in it, in bytes.
        shape: of the whole array.
        dtype: of its numbers.
        time_axis: which axis is time; None: the array belongs to the whole clip.
        rate: its steps per video frame.
    """

    name: str
    descriptor: int
    offset: int
    shape: tuple[int, ...]
    dtype: np.dtype
    time_axis: int | None
    rate: int = 1

    def window_shape(self, length: int) -> tuple[int, ...]:
        """Shape of a window of ``length`` video frames."""
        if self.time_axis is None:
            return self.shape
        return (*self.shape[: self.time_axis], length * self.rate, *self.shape[self.time_axis + 1 :])

    def read(self, start: int, length: int) -> np.ndarray:
        """The window of the video frames ``start`` to ``start + length``, exactly in time; whole without a time axis.

        Raises:
            CorruptError: when the tar ends before it, or it holds NaN or infinity.
        """
        shape = self.window_shape(length)
        axis = 0 if self.time_axis is None else self.time_axis
        step_bytes = math.prod(self.shape[axis + 1 :]) * self.dtype.itemsize
        first, count = (0, self.shape[0]) if self.time_axis is None else (start * self.rate, length * self.rate)
        # An axis before time, as of HuBERT's layers, tears the window into one piece per layer.
        pieces = [
            os.pread(self.descriptor, count * step_bytes, self.offset + (piece * self.shape[axis] + first) * step_bytes)
            for piece in range(math.prod(self.shape[:axis]))
        ]
        data = b"".join(pieces)
        if len(data) != math.prod(shape) * self.dtype.itemsize:
            raise CorruptError("shard", f"{self.name} reaches beyond the end of the shard")
        array = np.frombuffer(data, self.dtype).reshape(shape)
        if self.dtype.kind == "f" and not np.isfinite(array).all():
            raise CorruptError("labels", f"{self.name} holds NaN or infinity")
        return array


def open_field(descriptor: int, entry: TarEntry, field: Field, info: ClipInfo) -> StoredArray:
    """A field of the release, as the field table has it.

    Raises:
        CorruptError: when it is of another shape or type than a clip of this length has.
    """
    array = _opened(descriptor, entry, field.suffix)
    sizes = {
        "T": info.num_frames,
        "Tm": num_audio_samples(info.num_frames, info.fps) // MEL_HOP_SAMPLES,
        "P": num_points(info.landmark_scheme),
        "M": len(MOTION_CHANNELS),
    }
    if array.dtype != np.dtype(field.dtype) or not field.fits(array.shape, sizes):
        raise CorruptError(
            "labels", f"{array.name} has shape {array.shape} of {array.dtype}, which no clip of its length has"
        )
    times = [axis for axis in field.axes if axis in ("T", "Tm")]
    if not times:
        return array
    rate, rest = divmod(sizes[times[0]], info.num_frames)
    if rest:
        raise CorruptError("labels", f"{array.name} has no whole number of steps per video frame ({info.fps} per s)")
    return _in_time(array, field.axes.index(times[0]), rate)


def open_series(descriptor: int, entry: TarEntry, suffix: str, num_frames: int) -> StoredArray:
    """A member of a sidecar: one row per video frame, whatever a row is.

    Raises:
        CorruptError: when it is not there, or has not ``num_frames`` rows of numbers.
    """
    if suffix not in entry.members:
        raise CorruptError("missing", f"{entry.key}.{suffix} is not in the sidecar")
    array = _opened(descriptor, entry, suffix)
    if not array.shape or array.shape[0] != num_frames or array.dtype.kind not in "fiub":
        raise CorruptError(
            "labels", f"{array.name} has shape {array.shape} of {array.dtype}, and its clip {num_frames} frames"
        )
    return _in_time(array, 0, 1)


def _in_time(array: StoredArray, axis: int, rate: int) -> StoredArray:
    return StoredArray(array.name, array.descriptor, array.offset, array.shape, array.dtype, axis, rate)


def _opened(descriptor: int, entry: TarEntry, suffix: str) -> StoredArray:
    """By its header alone, without time.

    Raises:
        CorruptError: when that is unreadable, or the member holds less or more than it says.
    """
    name = f"{entry.key}.{suffix}"
    offset, num_bytes = entry.members[suffix]
    head = os.pread(descriptor, min(num_bytes, _HEAD_BYTES), offset)
    start = data_start(head)
    if _HEAD_BYTES < start <= MAX_HEADER_BYTES:
        head = os.pread(descriptor, min(num_bytes, start), offset)
    try:
        shape, fortran, dtype = read_header(head[:start])
    except (ValueError, KeyError, EOFError, SyntaxError, TypeError) as error:
        raise CorruptError("labels", f"{name} has no readable header") from error
    if fortran or dtype.hasobject or start + math.prod(shape) * dtype.itemsize != num_bytes:
        raise CorruptError("labels", f"{name} holds less or more than its shape {shape}, or in another order")
    return StoredArray(name, descriptor, offset + start, shape, dtype, None)
