"""Write a film: H.264 and AAC in mp4, the sound's first sample at the first frame's time, always the same bytes.

The demo's films are inputs, so they are made as films are: long groups of pictures, B frames, stereo. What is not
left to chance: one encoder thread, no macroblock tree (x264's bytes depend on both) and no date in the file.
"""

from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.codec.context import Flags
from av.container import OutputContainer
from jaxtyping import Float32, UInt8

AUDIO_RATE_HZ = 48_000
_BT709 = 1
_LIMITED_RANGE = 1
_AAC_FRAME = 1024
# Equal frames gave 4 different files in 8 runs of one thread: with assembly, macroblock-tree rate control depends on
# what memory held before. Without it, or with key frames only, 8 of 8 were equal.
_X264 = "mbtree=0"


def write_film(
    path: Path,
    frames: Iterable[UInt8[np.ndarray, "H W 3"]],
    fps: Fraction,
    sound: Float32[np.ndarray, "L"],
    *,
    crf: int = 18,
    preset: str = "veryfast",
) -> int:
    """Encode RGB ``frames`` of equal, even size and mono ``sound`` (48 kHz, −1 to 1), and return how many frames.

    The sound is cut or padded with silence to the length of the picture.
    """
    options = {"movflags": "+faststart", "fflags": "+bitexact"}
    with av.open(str(path), "w", format="mp4", options=options) as container:
        video = container.add_stream("libx264", rate=fps)
        video.pix_fmt = "yuv420p"
        video.options = {"crf": str(crf), "preset": preset, "x264-params": _X264}
        context = video.codec_context
        context.thread_count = 1
        context.flags |= Flags.bitexact
        context.colorspace = context.color_primaries = context.color_trc = _BT709
        context.color_range = _LIMITED_RANGE
        context.time_base = 1 / fps
        audio = container.add_stream("aac", rate=AUDIO_RATE_HZ, layout="stereo")
        audio.bit_rate = 128_000
        audio.codec_context.flags |= Flags.bitexact
        num_frames = 0
        sent = 0
        for number, frame in enumerate(frames):
            if number == 0:
                video.height, video.width = frame.shape[:2]
            picture = av.VideoFrame.from_ndarray(frame, format="rgb24")
            picture = picture.reformat(format="yuv420p", dst_colorspace=_BT709, dst_color_range=_LIMITED_RANGE)
            picture.pts, picture.time_base = number, 1 / fps
            container.mux(video.encode(picture))
            num_frames = number + 1
            sent = _send_sound(container, audio, sound, sent, int(num_frames / fps * AUDIO_RATE_HZ))
        length = round(num_frames / fps * AUDIO_RATE_HZ)
        _send_sound(container, audio, sound, sent, length, last=True)
        container.mux(video.encode(None))
        container.mux(audio.encode(None))
    return num_frames


def _send_sound(
    container: OutputContainer,
    stream: av.AudioStream,
    sound: Float32[np.ndarray, "L"],
    start: int,
    stop: int,
    *,
    last: bool = False,
) -> int:
    """Encode the whole blocks between two samples (at the end also a part), and return the first sample not sent."""
    while start < stop and (last or start + _AAC_FRAME <= stop):
        end = min(start + _AAC_FRAME, stop)
        block = np.zeros(end - start, np.float32)
        part = sound[start:end]
        block[: len(part)] = part
        frame = av.AudioFrame.from_ndarray(np.stack([block, block]), format="fltp", layout="stereo")
        frame.sample_rate = AUDIO_RATE_HZ
        frame.pts, frame.time_base = start, Fraction(1, AUDIO_RATE_HZ)
        container.mux(stream.encode(frame))
        start = end
    return start
