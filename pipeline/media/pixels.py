"""How pixels are converted: exactly, and the same on every processor.

FFmpeg's quick conversion darkens every picture by 1 to 2 levels and differs between processors; this one does not.
"""

from typing import Literal

import av
import av.video
import numpy as np
from av.video.reformatter import Interpolation
from jaxtyping import UInt8

_EXACT = Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INT | Interpolation.BITEXACT
# Averages what it shrinks (within .3 levels of exact averaging; BILINEAR .7 and dearer) and is bilinear elsewhere.
SHRINKING = Interpolation.AREA | _EXACT
ENLARGING = Interpolation.BICUBIC | _EXACT

BT709, BT601 = 1, 5
LIMITED_RANGE, FULL_RANGE = 1, 2

Layout = Literal["rgb24", "bgr24", "yuv420p"]


def to_coded(image: UInt8[np.ndarray, "H W 3"]) -> av.video.VideoFrame:
    """An RGB image as clips store it: yuv420p, BT.709, limited range."""
    return av.VideoFrame.from_ndarray(image, format="rgb24").reformat(
        format="yuv420p", dst_colorspace=BT709, dst_color_range=LIMITED_RANGE, interpolation=SHRINKING, threads=1
    )


def to_rgb(picture: av.video.VideoFrame, size_px: int) -> UInt8[np.ndarray, "S S 3"]:
    """A square picture made by ``to_coded`` or ``Frame.crop_coded`` as RGB, at most as large as it is."""
    return picture.reformat(
        size_px,
        size_px,
        "rgb24",
        src_colorspace=BT709,
        src_color_range=LIMITED_RANGE,
        interpolation=SHRINKING,
        threads=1,
    ).to_ndarray()
