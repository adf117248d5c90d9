"""Plans from a published clip list: the same span and square again, without looking for faces.

A list of ours says everything, so the same file gives the same bytes. A plain list says span and box;
the face is then taken to fill the usual part of it, which is all that a landmarker needs to begin.
"""

from collections.abc import Sequence

from schemas.analysis import PlannedClip, Refusal
from schemas.base import Box, TimeSpan, content_hash
from schemas.clip import ClipPlan
from schemas.cliplist import ListedClip
from schemas.config import CropConfig
from schemas.decision import RejectReason
from schemas.face import FacePath
from schemas.media import Video

_MOST_OUTSIDE = 0.9  # of a square's area; with less of the picture it is another picture's square
_CLOCK_S = 1e-6  # rounding of sums of times


def plan_listed(
    video: Video, listed: Sequence[ListedClip], config: CropConfig
) -> tuple[list[PlannedClip], list[Refusal]]:
    """Plan the listed clips of one video.

    Args:
        video: the probed file.
        listed: its clips.
        config: geometry and lengths, for plain lists.

    Returns:
        The plans in order of time, and a refusal for each clip that does not lie inside the video.
    """
    clips: list[PlannedClip] = []
    refusals: list[Refusal] = []
    for number, clip in enumerate(listed):
        item = f"shot{number:05d}"
        planned = clip.planned or _from_box(video, clip, config, number)
        problem = _misfit(planned.plan, video, config)
        if problem is None:
            clips.append(planned)
        else:
            refusals.append(Refusal(item=item, reason=problem[0].value, measured=problem[1], limit=problem[2]))
    clips.sort(key=lambda clip: (clip.plan.span.start_s, clip.plan.clip_id))
    return clips, refusals


def _misfit(plan: ClipPlan, video: Video, config: CropConfig) -> tuple[RejectReason, float, float] | None:
    """Why a clip cannot be cut from this file: it lies behind its end, or outside its picture."""
    if plan.span.stop_s > video.stop_s + 1 / plan.fps + _CLOCK_S or plan.span.start_s < video.start_s - 1 / plan.fps:
        return RejectReason.NOT_IN_FILE, round(plan.span.stop_s, 4), round(video.stop_s, 4)
    if plan.span.duration_s < config.min_clip_s - _CLOCK_S:
        return RejectReason.SHOT_TOO_SHORT, round(plan.span.duration_s, 4), config.min_clip_s
    outside = padding_of(plan.square, video)
    if outside > _MOST_OUTSIDE:
        return RejectReason.NOT_IN_FILE, round(outside, 4), _MOST_OUTSIDE
    return None


def padding_of(square: Box, video: Video) -> float:
    """The part of a square's area that lies outside the picture, 0 to 1."""
    width = max(0.0, min(square.x1, video.width_px) - max(square.x0, 0))
    height = max(0.0, min(square.y1, video.height_px) - max(square.y0, 0))
    return 1 - width * height / square.area


def _from_box(video: Video, clip: ListedClip, config: CropConfig, number: int) -> PlannedClip:
    box = _in_pixels(clip, video)
    side = float(max(1, round(max(box.width_px, box.height_px))))
    x0 = float(round((box.x0 + box.x1 - side) / 2))
    y0 = float(round((box.y0 + box.y1 - side) / 2))
    square = Box(x0=x0, y0=y0, x1=x0 + side, y1=y0 + side)
    inset = side * (1 - 1 / config.scale) / 2
    face = Box(x0=x0 + inset, y0=y0 + inset, x1=x0 + side - inset, y1=y0 + side - inset)
    num_frames = max(1, round(clip.span.duration_s * config.fps))
    identity = {
        "source": video.source_id,
        "video": video.sha256,
        "start_s": clip.span.start_s,
        "num_frames": num_frames,
        "square": square,
        "config": config,
    }
    plan = ClipPlan(
        clip_id=clip.clip_id or f"{video.source_id[:60]}-{content_hash(identity)[:16]}",
        source_id=video.source_id,
        shot_index=number,
        track_index=0,
        span=TimeSpan(start_s=clip.span.start_s, stop_s=clip.span.stop_s),
        num_frames=num_frames,
        fps=config.fps,
        square=square,
        face=face,
        padding=padding_of(square, video),
        native_crop_px=side,
        face_ratio=1.0,
        num_neighbours=0,
    )
    corners = (face.x0, face.y0, face.x1, face.y1)
    sightings = (clip.span.start_s, clip.span.stop_s)
    return PlannedClip(
        plan=plan, face=FacePath(times_s=sightings, boxes=(corners, corners), detector="listed", purity=1.0)
    )


def _in_pixels(clip: ListedClip, video: Video) -> Box:
    """The listed box in pixels of this video's upright picture."""
    box = clip.box
    if max(box.x1, box.y1) <= 1:
        across, down = float(video.width_px), float(video.height_px)
    elif clip.picture_px is not None:
        across, down = video.width_px / clip.picture_px[0], video.height_px / clip.picture_px[1]
    else:
        return box
    return Box(x0=box.x0 * across, y0=box.y0 * down, x1=box.x1 * across, y1=box.y1 * down)
