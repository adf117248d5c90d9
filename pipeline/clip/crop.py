"""The frames of a clip: cut from the source along its plan, and shown to whoever looks at them on their way."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from av.video import VideoFrame
from jaxtyping import UInt8

from pipeline.clip.meter import Tap
from pipeline.media.decode import Frame, iter_at_rate, iter_frames
from pipeline.media.encode import ClipWriter
from pipeline.media.pixels import to_coded, to_rgb
from schemas.base import Box
from schemas.clip import ClipPlan
from schemas.config import CropConfig
from schemas.face import XYXY, FacePath
from schemas.media import Video

# Side of the copy on which a crop is measured. The networks see 192 px of a face and less, and averaging the picture
# once for all of them is cheaper, and kinder to fine detail, than each sampling 512 px for itself.
MEASURED_PX = 256


def seen_side_px(config: CropConfig) -> int:
    """Side of the copy of a crop on which it is measured."""
    return min(config.size_px, MEASURED_PX)


def boxes_on_crop(face: FacePath, plan: ClipPlan, size_px: int) -> list[XYXY]:
    """The face box of every output frame, in pixels of the crop, interpolated between sightings."""
    times = plan.span.start_s + np.arange(plan.num_frames) / plan.fps
    seen = np.array(face.times_s)
    path = np.array(face.boxes)
    at = np.stack([np.interp(times, seen, path[:, column]) for column in range(4)], axis=1)
    origin = np.array([plan.square.x0, plan.square.y0] * 2)
    scaled = (at - origin) * (size_px / plan.square.width_px)
    return [(float(a), float(b), float(c), float(d)) for a, b, c, d in scaled]


def cut_square(frame: Frame, upright: tuple[int, int], square: Box, size_px: int) -> VideoFrame:
    """Cut a square (whole pixels of the upright picture, may reach beyond it: black) and scale it to ``size_px``.

    The result is as the encoder wants it; see :func:`pipeline.media.pixels.to_rgb`.
    """
    x0, y0, x1, y1 = (round(v) for v in (square.x0, square.y0, square.x1, square.y1))
    inside = max(x0, 0), max(y0, 0), min(x1, upright[0]), min(y1, upright[1])
    if inside == (x0, y0, x1, y1):
        return frame.crop_coded(inside, upright, (size_px, size_px))
    scale = size_px / (x1 - x0)
    left, top = round((inside[0] - x0) * scale), round((inside[1] - y0) * scale)
    right, bottom = round((inside[2] - x0) * scale), round((inside[3] - y0) * scale)
    canvas = np.zeros((size_px, size_px, 3), np.uint8)
    canvas[top:bottom, left:right] = frame.crop(inside, upright, (right - left, bottom - top), "rgb24")
    return to_coded(canvas)


def iter_crops(path: Path, video: Video, plan: ClipPlan, size_px: int, repeats: list[bool]) -> Iterator[VideoFrame]:
    """Every output frame of a clip; ``repeats`` grows by whether it shows the source frame of the one before."""
    last: VideoFrame | None = None
    upright = (video.width_px, video.height_px)
    frames = _within(iter_frames(path, video, start_s=plan.span.start_s), plan.span.stop_s)
    for frame, repeated in iter_at_rate(frames, plan.span.start_s, plan.fps, plan.num_frames):
        if last is None or not repeated:
            last = cut_square(frame, upright, plan.square, size_px)
        repeats.append(repeated)
        yield last


def _within(frames: Iterator[Frame], stop_s: float) -> Iterator[Frame]:
    """Frames before the span's end: the next shot's first frame must never be the nearest."""
    for frame in frames:
        if frame.time_s >= stop_s - 1e-9:
            return
        yield frame


def passing(
    crops: Iterator[VideoFrame],
    boxes: list[XYXY],
    seen_px: int,
    writer: ClipWriter,
    taps: Sequence[Tap],
    whole_taps: Sequence[Tap] = (),
) -> Iterator[UInt8[np.ndarray, "S S 3"]]:
    """Encode each crop, and measure a smaller copy of it on its way to the landmarker.

    Args:
        crops: as :func:`iter_crops` cuts them.
        boxes: of the face, in pixels of the copy.
        seen_px: side of the copy.
        writer: encodes.
        taps: see the copy.
        whole_taps: see the crop at its own size, since what they answer is to be had again from the clip alone.
    """
    for crop, box in zip(crops, boxes, strict=False):
        writer.add(crop)
        yield show(crop, box, seen_px, taps, whole_taps)


def show(
    crop: VideoFrame, box: XYXY, seen_px: int, taps: Sequence[Tap], whole_taps: Sequence[Tap]
) -> UInt8[np.ndarray, "S S 3"]:
    """Show one crop to all taps, and return the copy; see :func:`passing`."""
    image = to_rgb(crop, seen_px)
    for tap in taps:
        tap.add(image, box)
    if whole_taps:
        whole, factor = to_rgb(crop, crop.width), crop.width / seen_px
        for tap in whole_taps:
            tap.add(whole, (box[0] * factor, box[1] * factor, box[2] * factor, box[3] * factor))
    return image
