"""Write what is made: H.264 that browsers play, with the driving film's sound beside it.

Sound is laid down with the pictures as they come, by the film's own clock, so that a film of any length takes the
same memory.
"""

import os
from fractions import Fraction
from pathlib import Path
from typing import Self

import av
import av.container
import av.error
import numpy as np
from av.video.reformatter import Interpolation
from jaxtyping import UInt8
from torch import Tensor

from training.errors import DataError, UsageError
from training.film import Film
from training.sound import SOUND_HZ, Sound

_EXACT = Interpolation.AREA | Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INT | Interpolation.BITEXACT
_BT709, _LIMITED = 1, 1


class FilmWriter:
    """Write pictures as H.264 that browsers play, with the driving film's sound; whole or not at all.

    The file is written under another name and gets its own when everything is in it.

    Args:
        path: of the mp4 file.
        film: whose rate and sound it has.
        crf: x264's quality; 16 cannot be told from the pictures.
    """

    def __init__(self, path: Path, film: Film, crf: int = 16) -> None:
        self.path, self._film, self._crf = path, film, crf
        self._aside = path.with_name(f".{path.name}.part")
        self._container: av.container.OutputContainer | None = None
        self._sound: Sound | None = None
        self.num_frames = 0

    def __enter__(self) -> Self:
        return self

    def add(self, picture: UInt8[Tensor, "3 H W"]) -> None:
        """The next picture; all have one size, of even sides."""
        if self._container is None:
            self._begin(picture.shape[2], picture.shape[1])
        image = np.ascontiguousarray(picture.movedim(0, -1).cpu().numpy())
        frame = av.VideoFrame.from_ndarray(image, format="rgb24").reformat(
            format="yuv420p", dst_colorspace=_BT709, dst_color_range=_LIMITED, interpolation=_EXACT, threads=1
        )
        frame.pts, frame.time_base = self.num_frames, 1 / self._film.fps
        self._mux(self._pictures.encode(frame))
        self.num_frames += 1
        if self._sound is not None:
            wanted = round(self.num_frames / self._film.fps * SOUND_HZ)
            block = av.AudioFrame.from_ndarray(self._sound.read(wanted - self._heard), "fltp", self._sound.layout)
            block.sample_rate, block.pts, block.time_base = SOUND_HZ, self._heard, Fraction(1, SOUND_HZ)
            self._mux(self._track.encode(block))
            self._heard = wanted

    def _begin(self, width: int, height: int) -> None:
        try:
            self._container = av.open(str(self._aside), "w", format="mp4", options={"movflags": "+faststart"})
        except (av.error.FFmpegError, OSError) as error:
            raise UsageError(f"{self.path} cannot be written ({error.strerror}): name another place") from error
        stream = self._container.add_stream("libx264", rate=self._film.fps)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        context = stream.codec_context
        context.colorspace = context.color_primaries = context.color_trc = _BT709
        context.color_range = _LIMITED
        context.thread_count = 1
        stream.options = {"crf": str(self._crf), "preset": "medium"}
        self._pictures = stream
        if self._film.sound_index is not None:
            self._sound = Sound(self._film.path, self._film.sound_index, self._film.start_s)
            self._track = self._container.add_stream("aac", rate=SOUND_HZ, layout=self._sound.layout)
            self._track.bit_rate = 160_000
            self._heard = 0

    def _mux(self, packets: list[av.Packet]) -> None:
        if self._container is not None:
            self._container.mux(packets)

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self._sound is not None:
            self._sound.close()
        if self._container is not None:
            if kind is None:
                self._mux(self._pictures.encode(None))
                if self._sound is not None:
                    self._mux(self._track.encode(None))
            self._container.close()
            if kind is None:
                os.replace(self._aside, self.path)
            else:
                self._aside.unlink(missing_ok=True)
        elif kind is None:
            raise DataError(f"{self._film.path.name} gave no frame: nothing was written")
