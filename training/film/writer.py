"""Write what is made: H.264 that browsers play, with the driving film's sound beside it.

Sound is laid down with the pictures as they come, by the film's own clock, so that a film of any length takes the
same memory.
"""

import os
from contextlib import ExitStack
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Self

import av
import av.container
import av.error
import numpy as np
from jaxtyping import UInt8
from torch import Tensor

from schemas.errors import DataError, UsageError
from training.data.decode import EXACT
from training.film.film import Film
from training.film.sound import SOUND_HZ, Sound

_BT709, _LIMITED = 1, 1
_CRF = 16  # x264's quality; cannot be told from the pictures themselves
_SOUND_BPS = 160_000


class FilmWriter:
    """An mp4 file at a film's rate and with its sound; whole or not at all.

    It is written under another name and gets its own when everything is in it.

    Args:
        path: of the file; what is there is replaced.
        film: whose rate and sound it has.
        width_px: of its pictures, even.
        height_px: of its pictures, even.
    """

    def __init__(self, path: Path, film: Film, width_px: int, height_px: int) -> None:
        self.path, self.num_frames = path, 0
        self._film, self._size = film, (width_px, height_px)
        self._aside = path.with_name(f".{path.name}.part")
        self._open = ExitStack()

    def __enter__(self) -> Self:
        """Begin.

        Raises:
            UsageError: when nothing can be written there, or the film's sound is in no known coding.
        """
        film, sound = self._film, None
        if film.sound_index is not None:
            sound = Sound(film.path, film.sound_index, film.start_s)
            self._open.callback(sound.close)
        try:
            container = av.open(str(self._aside), "w", format="mp4", options={"movflags": "+faststart"})
        except (av.error.FFmpegError, OSError) as error:
            raise UsageError(f"{self.path} cannot be written ({error.strerror}): name another place") from error
        self._container = self._open.enter_context(container)
        self._pictures = _declare_pictures(container, film.fps, *self._size)
        self._sound = _SoundTrack(container, sound) if sound else None
        return self

    def add(self, picture: UInt8[Tensor, "3 H W"]) -> None:
        """The next picture, and the sound that goes with it."""
        image = np.ascontiguousarray(picture.movedim(0, -1).cpu().numpy())
        frame = av.VideoFrame.from_ndarray(image, format="rgb24").reformat(
            format="yuv420p", dst_colorspace=_BT709, dst_color_range=_LIMITED, interpolation=EXACT, threads=1
        )
        frame.pts, frame.time_base = self.num_frames, 1 / self._film.fps
        self._container.mux(self._pictures.encode(frame))
        self.num_frames += 1
        if self._sound:
            self._sound.add_until(self.num_frames / self._film.fps)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            with self._open:
                if kind is None:
                    if not self.num_frames:
                        raise DataError(f"{self._film.path.name} gave no frame: nothing was written")
                    self._container.mux(self._pictures.encode(None))
                    if self._sound:
                        self._sound.finish()
            if kind is None:
                with self._aside.open("rb") as file:
                    os.fsync(file.fileno())
                self._aside.replace(self.path)
        finally:
            self._aside.unlink(missing_ok=True)


class _SoundTrack:
    """Sound on its way into a file."""

    def __init__(self, container: av.container.OutputContainer, sound: Sound) -> None:
        self._container, self._sound, self._num_samples = container, sound, 0
        self._stream = container.add_stream("aac", rate=SOUND_HZ, layout=sound.layout)
        self._stream.bit_rate = _SOUND_BPS

    def add_until(self, time_s: Fraction) -> None:
        wanted = round(time_s * SOUND_HZ)
        samples = self._sound.read(wanted - self._num_samples)
        block = av.AudioFrame.from_ndarray(samples, format="fltp", layout=self._sound.layout)
        block.sample_rate, block.pts, block.time_base = SOUND_HZ, self._num_samples, Fraction(1, SOUND_HZ)
        self._container.mux(self._stream.encode(block))
        self._num_samples = wanted

    def finish(self) -> None:
        self._container.mux(self._stream.encode(None))


def _declare_pictures(
    container: av.container.OutputContainer, fps: Fraction, width_px: int, height_px: int
) -> av.VideoStream:
    stream = container.add_stream("libx264", rate=fps)
    stream.width, stream.height, stream.pix_fmt = width_px, height_px, "yuv420p"
    context = stream.codec_context
    context.colorspace = context.color_primaries = context.color_trc = _BT709
    context.color_range = _LIMITED
    context.thread_count = 1  # x264's bytes depend on it
    stream.options = {"crf": str(_CRF), "preset": "medium"}
    return stream
