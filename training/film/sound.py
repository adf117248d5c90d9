"""A film's sound in step with its pictures: as much at a time as they last, silence where there is none."""

from collections.abc import Generator
from pathlib import Path

import av
import numpy as np
from jaxtyping import Float32

from schemas.errors import UsageError
from training.film.film import opened, tolerant

SOUND_HZ = 48000
_GAP_S = 0.05  # coarse clocks jump by less; more is a gap, and stays one

Block = Float32[np.ndarray, "C N"]


class Sound:
    """One audio stream of a film, from a time on.

    Args:
        path: the film.
        index: of the stream.
        start_s: where to begin, on the film's clock.

    Raises:
        UsageError: when it is in no coding that is known here.
    """

    def __init__(self, path: Path, index: int, start_s: float) -> None:
        with opened(path) as container:
            stream = container.streams[index]
            if not isinstance(stream, av.AudioStream) or stream.codec_context is None or not stream.channels:
                raise UsageError(f"the sound of {path.name} cannot be decoded here: convert it or take it out")
            self.layout = "mono" if stream.channels == 1 else "stereo"
        self._num_channels = 1 if self.layout == "mono" else 2
        self._blocks = _blocks(path, index, start_s, self.layout, self._num_channels)
        self._left: Block = _silence(self._num_channels, 0)

    def read(self, num_samples: int) -> Block:
        """The next samples, -1 to 1 at ``SOUND_HZ``; zeros behind the end.

        Raises:
            DataError: when the stream is mostly damage.
        """
        while self._left.shape[1] < num_samples:
            missing = num_samples - self._left.shape[1]
            block = next(self._blocks, _silence(self._num_channels, missing))
            self._left = np.concatenate([self._left, block], axis=1)
        samples, self._left = self._left[:, :num_samples], self._left[:, num_samples:]
        return np.ascontiguousarray(samples)

    def close(self) -> None:
        """Let go of the file."""
        self._blocks.close()


def _silence(num_channels: int, num_samples: int) -> Block:
    return np.zeros((num_channels, num_samples), np.float32)


def _blocks(path: Path, index: int, start_s: float, layout: str, num_channels: int) -> Generator[Block]:
    """What follows one another from ``start_s`` on; gaps are silence."""
    at, begun = 0, False  # where the next sample lies; negative ones are before the beginning
    with opened(path) as container:
        resampler = _resampler(layout)
        for frame in tolerant(container, container.streams[index], path.name):
            begins = at if frame.time is None else round((frame.time - start_s) * SOUND_HZ)
            at, begun = at if begun else min(begins, 0), True
            while begins - at > _GAP_S * SOUND_HZ:
                gap = min(begins - at, SOUND_HZ)  # a wrong time stamp may be hours away
                yield _silence(num_channels, gap)
                at += gap
            frame.pts = None
            try:
                resampled = resampler.resample(frame)
            except ValueError:  # the stream has changed its rate or channels
                resampler = _resampler(layout)
                resampled = resampler.resample(frame)
            for block in resampled:
                samples = block.to_ndarray()
                at += samples.shape[1]
                if at > 0:
                    yield samples[:, -at:]


def _resampler(layout: str) -> av.AudioResampler:
    return av.AudioResampler(format="fltp", layout=layout, rate=SOUND_HZ)
