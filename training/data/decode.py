"""From one coded key frame to RGB, on one thread.

The exact conversion is the one by which the builder looks at its own crops: FFmpeg's quick one darkens every picture by
1 to 2 levels and differs between processors.
"""

from collections import OrderedDict
from typing import Any, cast

import av
import av.video
import numpy as np
from av.error import FFmpegError
from av.video.codeccontext import VideoCodecContext
from av.video.reformatter import Interpolation, VideoReformatter
from jaxtyping import UInt8

from training.data.clips import CorruptError

EXACT = Interpolation.AREA | Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INT | Interpolation.BITEXACT
# Clips are BT.709 (1) in limited range (1).
CONVERSION: dict[str, Any] = {"src_colorspace": 1, "src_color_range": 1, "interpolation": EXACT, "threads": 1}
_NUM_DECODERS = 8  # clips of one release share their setup; a few releases of different sizes have some


class FrameDecoder:
    """Decodes packets of many clips, keeping a decoder per setup: opening one costs as much as a small frame."""

    def __init__(self) -> None:
        self._decoders: OrderedDict[bytes, VideoCodecContext] = OrderedDict()
        self._converter = VideoReformatter()

    def decode(self, setup: bytes, packet: bytes, into: UInt8[np.ndarray, "S S 3"]) -> None:
        """Write one frame, scaled to the size of ``into``.

        Raises:
            CorruptError: when the packet is damaged.
        """
        decoder = self._decoders.get(setup)
        if decoder is None:
            decoder = self._decoders[setup] = open_decoder(setup)
            if len(self._decoders) > _NUM_DECODERS:
                self._decoders.popitem(last=False)
        self._decoders.move_to_end(setup)
        try:
            # A key frame ends nothing and waits for nothing, so there is nothing to flush, which costs a fifth.
            frames = decoder.decode(av.Packet(packet))
        except FFmpegError as error:
            del self._decoders[setup]  # what is left in it must not reach another frame
            raise CorruptError("decode", f"does not decode ({error.strerror})") from error
        if len(frames) != 1 or frames[0].is_corrupt:
            raise CorruptError("decode", f"decodes to {len(frames)} frames, or a damaged one")
        self._convert(frames[0], into)

    def _convert(self, frame: av.video.VideoFrame, into: np.ndarray) -> None:
        height_px, width_px, _ = into.shape
        rgb = self._converter.reformat(frame, width_px, height_px, "rgb24", **CONVERSION)
        plane = rgb.planes[0]
        rows = np.frombuffer(cast("Any", plane), np.uint8).reshape(-1, plane.line_size)[:height_px, : width_px * 3]
        into[:] = rows.reshape(height_px, width_px, 3)


def open_decoder(setup: bytes) -> VideoCodecContext:
    """A decoder of one thread that knows its avcC."""
    decoder = cast("VideoCodecContext", av.CodecContext.create("h264", "r"))
    decoder.extradata = setup
    decoder.thread_count = 1
    decoder.options = {"err_detect": "explode"}  # or damage is painted over with the frame before
    return decoder
