"""Turn face tracks into clip plans: spans of time, each with one fixed steady square.

Detections jitter by a pixel or two and a moving crop would teach a model the crop's motion instead
of the head's, so the box path is filtered and then a single square per clip is cut around it.
"""

import math
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from jaxtyping import Float64

from schemas.analysis import PlannedClip, Refusal
from schemas.base import Box, TimeSpan, content_hash
from schemas.boxes import box_iou
from schemas.clip import ClipPlan
from schemas.config import CropConfig
from schemas.decision import RejectReason
from schemas.face import XYXY, FacePath, FaceTrack
from schemas.media import Shot, Video

BoxPath = Float64[np.ndarray, "N 4"]
Times = Float64[np.ndarray, " F"]

_CLOCK_S = 1e-6  # rounding of sums of times; far below a frame


def usable_span(
    shot: Shot, following: Shot | None, times: Times, frame_s: float, config: CropConfig
) -> TimeSpan | None:
    """The part of a shot that clips may use, in seconds; None when nothing is left.

    Transitions are left out. Half a second more is trimmed next to a detected boundary, never at the
    file's own ends; where that would leave too little, only ``min_trim_frames`` are trimmed.

    Args:
        shot: with its clean frames.
        following: the next shot of the video, None at its end.
        times: presentation time of every frame of the video, in seconds.
        frame_s: the usual duration of a frame.
        config: trims and lengths.
    """
    if shot.clean is None:
        return None
    starts_at_boundary = shot.boundary not in {"start", "limit"} or shot.clean.start > shot.span.start
    stops_at_boundary = (following is not None and following.boundary != "limit") or shot.clean.stop < shot.span.stop
    start_s = float(times[shot.clean.start])
    stop_s = float(times[shot.clean.stop]) if shot.clean.stop < len(times) else shot.stop_s
    for trim_s in (config.boundary_trim_s, config.min_trim_frames * frame_s):
        trimmed = (start_s + trim_s * starts_at_boundary, stop_s - trim_s * stops_at_boundary)
        if trimmed[1] - trimmed[0] >= config.min_clip_s - _CLOCK_S:
            break
    return TimeSpan(start_s=trimmed[0], stop_s=trimmed[1]) if trimmed[1] > trimmed[0] else None


def smooth_path(boxes: Sequence[XYXY], window: int) -> BoxPath:
    """Median-filter centre and size of a box path over ``window`` sightings; edges repeat."""
    from scipy.ndimage import median_filter

    path = np.array(boxes, dtype=np.float64)
    middle = (path[:, :2] + path[:, 2:]) / 2
    size = path[:, 2:] - path[:, :2]
    both = np.concatenate([middle, size], axis=1)
    odd = min(window, len(both) - (len(both) + 1) % 2)
    if odd >= 3:
        both = median_filter(both, size=(odd, 1), mode="nearest")
    return np.concatenate([both[:, :2] - both[:, 2:] / 2, both[:, :2] + both[:, 2:] / 2], axis=1)


def tube_breaks(path: BoxPath, min_iou: float) -> list[tuple[int, int]]:
    """Divide a path where the face has left the first box of its part (FOMM: IoU below 0.25).

    Returns half-open index ranges that cover the path without gaps.
    """
    parts, start = [], 0
    for index in range(1, len(path)):
        if box_iou(tuple(path[start]), tuple(path[index])) < min_iou:
            parts.append((start, index))
            start = index
    return [*parts, (start, len(path))]


def square_around(path: BoxPath, picture_px: tuple[int, int], config: CropConfig) -> tuple[Box, float]:
    """One square, in even source pixels, that holds the whole path; and the padded part of its area.

    Video stores colour for pairs of pixels: an even square is cut from the stored picture without dividing any.

    Its side is ``scale`` times the usual face, or as much as the path's extent needs. Where the picture
    is smaller than that (sources that were cropped to a face before), the square shrinks to the picture,
    but not below ``min_scale``. It is moved back into the picture as far as the faces allow; what still
    reaches beyond the picture is padding.

    Args:
        path: boxes of the face.
        picture_px: width and height of the upright picture.
        config: how much is seen around a face.
    """
    low, high = path[:, :2].min(axis=0), path[:, 2:].max(axis=0)
    sizes = path[:, 2:] - path[:, :2]
    face_px = float(np.median(sizes.max(axis=1)))
    extent_px = float((high - low).max())
    extent_px = max(1.05 * extent_px, extent_px + 2)  # so that whole pixels still hold all of it
    side = max(config.scale * face_px, extent_px)
    picture = (picture_px[0] // 2 * 2, picture_px[1] // 2 * 2)
    side = max(min(side, *picture), config.min_scale * face_px, extent_px)
    side = math.ceil(side / 2) * 2
    centre = (low + high) / 2 + np.array([0.0, config.y_offset * side])
    corner = centre - side / 2
    for axis, limit in enumerate(picture):
        inside = min(max(corner[axis], min(0, limit - side)), max(0, limit - side))
        # The face keeps a twentieth of the side as margin where it can, or the crop would cut it off-centre.
        margin = min(0.05 * side, (side - (high - low)[axis]) / 2)
        # What a detector claims beyond the picture is not there to be kept.
        last, first = min(high[axis] + margin, max(limit, side)), max(low[axis] - margin, min(0, limit - side))
        corner[axis] = 2 * np.round(min(max(inside, last - side), first) / 2)
    x0, y0 = (float(v) for v in corner)
    square = Box(x0=x0, y0=y0, x1=x0 + side, y1=y0 + side)
    covered_x = max(0.0, min(square.x1, picture_px[0]) - max(square.x0, 0))
    covered_y = max(0.0, min(square.y1, picture_px[1]) - max(square.y0, 0))
    return square, 1 - covered_x * covered_y / square.area


def count_neighbours(
    track: FaceTrack, others: Sequence[FaceTrack], square: Box, span: TimeSpan, max_area_ratio: float
) -> int:
    """Other faces of the span whose centre lies in the square and that are more than a share of the main face.

    Only frames in which both are seen count: a track that goes on where another ended is the same face.
    """
    together = set(track.frames)
    main = float(np.median([(b[2] - b[0]) * (b[3] - b[1]) for b in track.boxes]))
    count = 0
    for other in others:
        sightings = zip(other.frames, other.times_s, other.boxes, strict=True)
        seen = [box for frame, t, box in sightings if frame in together and span.start_s <= t < span.stop_s]
        inside = [
            (b[2] - b[0]) * (b[3] - b[1]) / main
            for b in seen
            if square.x0 <= (b[0] + b[2]) / 2 <= square.x1 and square.y0 <= (b[1] + b[3]) / 2 <= square.y1
        ]
        # A single stray sighting is a false alarm more often than a person.
        if len(inside) >= 3 and float(np.median(inside)) > max_area_ratio:
            count += 1
    return count


def _pieces(span: TimeSpan, config: CropConfig) -> list[TimeSpan]:
    """Equal pieces no longer than ``max_clip_s``, each a whole number of output frames."""
    num_frames = int(span.duration_s * config.fps + 1e-6)
    most = int(config.max_clip_s * config.fps + 1e-6)
    num_pieces = max(1, -(-num_frames // most))
    edges = [num_frames * k // num_pieces for k in range(num_pieces + 1)]
    return [
        TimeSpan(start_s=span.start_s + a / config.fps, stop_s=span.start_s + b / config.fps)
        for a, b in pairwise(edges)
        if b > a
    ]


def plan_clips(
    video: Video,
    shots: Sequence[Shot],
    tracks: Sequence[FaceTrack],
    times: Times,
    config: CropConfig,
    *,
    stride: int,
    wanted: Sequence[TimeSpan] = (),
) -> tuple[list[PlannedClip], list[Refusal]]:
    """Plan every clip of a video.

    Args:
        video: the probed file.
        shots: in order; a shot's place is its index in ``tracks``.
        tracks: of those shots.
        times: presentation time of every frame, in seconds.
        config: geometry and lengths.
        stride: frames between detections; a track reaches that much beyond its last sighting.
        wanted: the parts of the video that may be used; empty means all of it.

    Returns:
        The plans in order of time, and a refusal for every shot or track that yields none.
    """
    frame_s = 1 / float(video.average_fps)
    by_shot: dict[int, list[FaceTrack]] = {}
    for track in tracks:
        by_shot.setdefault(track.shot_index, []).append(track)
    plans: list[PlannedClip] = []
    refusals: list[Refusal] = []
    for index, shot in enumerate(shots):
        if wanted and not any(part.start_s < shot.stop_s and shot.start_s < part.stop_s for part in wanted):
            continue
        following = shots[index + 1] if index + 1 < len(shots) else None
        windows = _within(usable_span(shot, following, times, frame_s, config), wanted)
        item = f"shot{index:05d}"
        longest_s = max((window.duration_s for window in windows), default=0.0)
        shot_tracks = by_shot.get(index, [])
        if longest_s < config.min_clip_s - _CLOCK_S:
            refusals.append(_refuse(item, RejectReason.SHOT_TOO_SHORT, longest_s, config.min_clip_s))
            continue
        if not shot_tracks:
            refusals.append(_refuse(item, RejectReason.NO_FACE, 0, 1))
        for track in shot_tracks:
            path = smooth_path(track.boxes, config.median_window)
            spans = _spans(track, path, windows, times, config, reach_s=stride * frame_s)
            others = [other for other in shot_tracks if other is not track]
            planned = [
                _plan_piece(video, track, others, piece, path, first, last, config, stride * frame_s)
                for whole, first, last in spans
                for piece in _pieces(whole, config)
                if piece.duration_s >= config.min_clip_s - _CLOCK_S
            ]
            plans += planned
            if not planned:
                seen_s = max((whole.duration_s for whole, _, _ in spans), default=0.0)
                name = f"{item}/track{track.track_index:03d}"
                refusals.append(_refuse(name, RejectReason.TRACK_TOO_SHORT, seen_s, config.min_clip_s))
    plans.sort(key=lambda clip: (clip.plan.span.start_s, clip.plan.track_index))
    return plans, refusals


def _within(span: TimeSpan | None, wanted: Sequence[TimeSpan]) -> list[TimeSpan]:
    """The parts of a span that are wanted; all of it when nothing particular is."""
    if span is None or not wanted:
        return [span] if span else []
    cut = sorted((max(span.start_s, part.start_s), min(span.stop_s, part.stop_s)) for part in wanted)
    joined: list[tuple[float, float]] = []
    for start_s, stop_s in cut:
        if joined and start_s <= joined[-1][1]:  # what is asked for twice is made once
            joined[-1] = (joined[-1][0], max(joined[-1][1], stop_s))
        elif start_s < stop_s:
            joined.append((start_s, stop_s))
    return [TimeSpan(start_s=start_s, stop_s=stop_s) for start_s, stop_s in joined]


def _refuse(item: str, reason: RejectReason, measured: float, limit: float) -> Refusal:
    return Refusal(item=item, reason=reason.value, measured=round(measured, 4), limit=limit)


def _spans(
    track: FaceTrack, path: BoxPath, windows: Sequence[TimeSpan], times: Times, config: CropConfig, *, reach_s: float
) -> list[tuple[TimeSpan, int, int]]:
    """Where a track can be used: spans that begin on a frame of the source, each with its part of the path.

    Between two sightings the face is there; beyond the outermost ones it is taken to stay for a stride. Where the
    face left its tube, nobody knows when between the two sightings, so neither part reaches in between.
    """
    seen = np.array(track.times_s)
    spans = []
    for window in windows:
        for first, last in tube_breaks(path, config.min_tube_iou):
            start_s = max(window.start_s, seen[first] - (reach_s if first == 0 else 0.0))
            stop_s = min(window.stop_s, seen[last - 1] + (reach_s if last == len(path) else 0.0))
            begin = int(np.searchsorted(times, start_s - _CLOCK_S))
            if begin < len(times) and times[begin] < stop_s:
                spans.append((TimeSpan(start_s=float(times[begin]), stop_s=float(stop_s)), first, last))
    return spans


def _plan_piece(
    video: Video,
    track: FaceTrack,
    others: Sequence[FaceTrack],
    piece: TimeSpan,
    path: BoxPath,
    first: int,
    last: int,
    config: CropConfig,
    reach_s: float,
) -> PlannedClip:
    every = np.array(track.times_s)
    # From the last sighting before the piece to the first one after it: the face moves between the two.
    low = max(first, int(np.searchsorted(every, piece.start_s, side="right")) - 1)
    high = min(last, int(np.searchsorted(every, piece.stop_s)) + 1)
    path, seen = path[low:high], every[low:high]
    square, padding = square_around(path, (video.width_px, video.height_px), config)
    middle = np.median(path, axis=0)
    num_frames = round(piece.duration_s * config.fps)
    identity = {
        "source": video.source_id,
        "video": video.sha256,
        # Two faces of one small picture can share a square.
        "track": track.track_index,
        "start_s": piece.start_s,
        "num_frames": num_frames,
        "square": square,
        "config": config,
    }
    output_times = piece.start_s + np.arange(num_frames) / config.fps
    nearest = np.abs(output_times[:, None] - seen[None, :]).min(axis=1)
    plan = ClipPlan(
        clip_id=f"{video.source_id[:60]}-{content_hash(identity)[:16]}",
        source_id=video.source_id,
        shot_index=track.shot_index,
        track_index=track.track_index,
        span=piece,
        num_frames=num_frames,
        fps=config.fps,
        square=square,
        face=Box(x0=middle[0], y0=middle[1], x1=middle[2], y1=middle[3]),
        padding=padding,
        native_crop_px=square.width_px,
        face_ratio=float(np.mean(nearest <= reach_s * 1.01)),
        num_neighbours=count_neighbours(track, others, square, piece, config.max_neighbour_area),
    )
    face = FacePath(
        times_s=track.times_s[low:high], boxes=track.boxes[low:high], detector=track.detector, purity=track.purity
    )
    return PlannedClip(plan=plan, face=face)
