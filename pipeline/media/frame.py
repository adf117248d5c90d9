"""A decoded frame: what is asked of its pixels, converted only when somebody asks."""

from dataclasses import dataclass
from fractions import Fraction
from typing import cast

import av
import av.error
import av.filter
import av.video
import numpy as np
from av.video.reformatter import Interpolation
from jaxtyping import UInt8

from pipeline.media.pixels import BT601, BT709, ENLARGING, FULL_RANGE, LIMITED_RANGE, SHRINKING, Layout, to_coded
from schemas.errors import DecodeError

PixelBox = tuple[int, int, int, int]

_UNSPECIFIED = 2
_NEAR_CODED = {"yuv420p", "nv12"}


@dataclass(frozen=True, slots=True)
class Frame:
    """One decoded frame; pixels are converted on request, since most callers skip most frames."""

    pts: int
    time_s: float
    picture: av.video.VideoFrame
    rotation_deg: int
    name: str  # of the file

    def to_array(self, size: tuple[int, int], layout: Layout) -> UInt8[np.ndarray, "H W 3"]:
        """The upright picture at ``size`` (width, height), full-range sRGB in the given channel order.

        Raises:
            DecodeError: when the picture is tagged with colours that cannot be converted (YCgCo, ICtCp).
        """
        return self._upright(self._converted(self.picture, self._stored(size), layout).to_ndarray())

    def crop(
        self, box: PixelBox, of: tuple[int, int], size: tuple[int, int], layout: Layout
    ) -> UInt8[np.ndarray, "H W 3"]:
        """A part of the upright picture at ``size`` (width, height), else as ``to_array``; nothing else is converted.

        Args:
            box: x0, y0, x1, y1 in whole pixels, inside the picture.
            of: the upright picture's size (width, height) with square pixels, which ``box`` counts in.
            size: of the result.
            layout: order of the channels.
        """
        return self._upright(self._part(box, of, self._stored(size), layout).to_ndarray())

    def crop_coded(self, box: PixelBox, of: tuple[int, int], size: tuple[int, int]) -> av.video.VideoFrame:
        """As ``crop``, as the encoder wants it (yuv420p, BT.709, limited range): most films never become RGB.

        Raises:
            DecodeError: as ``to_array`` does.
        """
        # From full range, and from finer chroma, FFmpeg's own way loses up to a level on average.
        is_near = self.picture.format.name in _NEAR_CODED and int(self.picture.color_range) != FULL_RANGE
        if is_near and not self.rotation_deg:
            return self._part(box, of, size, "yuv420p")
        return to_coded(self.crop(box, of, size, "rgb24"))

    def _part(self, box: PixelBox, of: tuple[int, int], size: tuple[int, int], layout: Layout) -> av.video.VideoFrame:
        """The part of the stored picture that shows as ``box``, at ``size`` as it is stored."""
        stored, picture = self._stored(of), self.picture
        x0, y0, x1, y1 = _turned_back(box, of, self.rotation_deg)
        width, height = x1 - x0, y1 - y0
        if (picture.width, picture.height) != stored or not _cuts_between_chroma(picture, x0, y0, x1, y1):
            picture = self._converted(picture, stored, "rgb24")
        part = _cut(picture, x0, y0, width, height)
        return self._converted(part, size, layout, ENLARGING if size[0] * size[1] > width * height else SHRINKING)

    def _stored(self, size: tuple[int, int]) -> tuple[int, int]:
        """The size of an upright picture as it lies in the file."""
        return (size[1], size[0]) if self.rotation_deg in {90, 270} else size

    def _upright(self, image: UInt8[np.ndarray, "H W 3"]) -> UInt8[np.ndarray, "H W 3"]:
        turns = self.rotation_deg // 90
        return np.ascontiguousarray(np.rot90(image, turns)) if turns else image

    def _converted(
        self, picture: av.video.VideoFrame, size: tuple[int, int], layout: Layout, how: Interpolation = SHRINKING
    ) -> av.video.VideoFrame:
        matrix = _matrix(self.picture)  # a part is coded as the whole picture is, whatever its own height
        coding = {"dst_colorspace": BT709, "dst_color_range": LIMITED_RANGE} if layout == "yuv420p" else {}
        try:
            return picture.reformat(*size, layout, src_colorspace=matrix, interpolation=how, threads=1, **coding)
        except (av.error.FFmpegError, ValueError) as error:
            raise DecodeError(
                f"{self.name} has at {self.time_s:.3f} s a picture whose colours cannot be converted "
                f"({picture.format.name}, matrix {int(self.picture.colorspace)}): convert it to yuv420p in BT.709"
            ) from error


def _turned_back(box: PixelBox, of: tuple[int, int], rotation_deg: int) -> PixelBox:
    """Where a box of the upright picture of size ``of`` lies in the picture as stored."""
    x0, y0, x1, y1 = box
    width, height = of
    if rotation_deg == 90:
        return height - y1, x0, height - y0, x1
    if rotation_deg == 180:
        return width - x1, height - y1, width - x0, height - y0
    return (y0, width - x1, y1, width - x0) if rotation_deg == 270 else box


def _cuts_between_chroma(picture: av.video.VideoFrame, x0: int, y0: int, x1: int, y1: int) -> bool:
    """Whether no edge of a box divides a chroma sample; the picture's own last one may be half outside."""
    across, down = (8 // size(8) for size in (picture.format.chroma_width, picture.format.chroma_height))
    whole = x0 % across == 0 and y0 % down == 0
    return whole and (x1 % across == 0 or x1 == picture.width) and (y1 % down == 0 or y1 == picture.height)


def _cut(picture: av.video.VideoFrame, x0: int, y0: int, width: int, height: int) -> av.video.VideoFrame:
    """A view of a part of a picture: no pixel is copied."""
    graph = av.filter.Graph()
    source = graph.add_buffer(
        width=picture.width, height=picture.height, format=picture.format, time_base=Fraction(1, 1000)
    )
    crop, sink = graph.add("crop", f"{width}:{height}:{x0}:{y0}:exact=1"), graph.add("buffersink")
    source.link_to(crop)
    crop.link_to(sink)
    graph.configure()
    graph.push(picture)
    return cast("av.VideoFrame", graph.pull())


def _matrix(picture: av.video.VideoFrame) -> int:
    """The YUV matrix to convert with: as tagged, else by the picture's height as players do."""
    tagged = int(picture.colorspace)
    if tagged != _UNSPECIFIED:
        return tagged
    return BT709 if picture.height >= 720 else BT601
