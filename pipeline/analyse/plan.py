"""Turn face tracks into clip plans: spans of time, each with one fixed steady square."""

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from jaxtyping import Float64

from pipeline.analyse.square import BoxPath, count_neighbours, smooth_path, square_around
from schemas.analysis import PlannedClip, Refusal
from schemas.base import Box, TimeSpan, content_hash
from schemas.boxes import box_iou
from schemas.clip import ClipPlan
from schemas.config import CropConfig
from schemas.decision import RejectReason
from schemas.face import FacePath, FaceTrack
from schemas.media import Shot, Video

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
    geometry = _Geometry(video, times, config, stride * frame_s)
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
        planned, refused = _plan_shot(f"shot{index:05d}", by_shot.get(index, []), windows, geometry)
        plans += planned
        refusals += refused
    plans.sort(key=lambda clip: (clip.plan.span.start_s, clip.plan.track_index))
    return plans, refusals


class _Geometry(NamedTuple):
    """What the plans of one video have in common; ``reach_s`` as ``usable_parts`` has it."""

    video: Video
    times: Times
    config: CropConfig
    reach_s: float


def _plan_shot(
    item: str, tracks: Sequence[FaceTrack], windows: Sequence[TimeSpan], geometry: _Geometry
) -> tuple[list[PlannedClip], list[Refusal]]:
    """The plans of one shot, and a refusal for itself or each of its tracks that yields none; ``item`` names it."""
    config = geometry.config
    longest_s = max((window.duration_s for window in windows), default=0.0)
    if longest_s < config.min_clip_s - _CLOCK_S:
        return [], [_refuse(item, RejectReason.SHOT_TOO_SHORT, longest_s, config.min_clip_s)]
    if not tracks:
        return [], [_refuse(item, RejectReason.NO_FACE, 0, 1)]
    plans: list[PlannedClip] = []
    refusals: list[Refusal] = []
    for track in tracks:
        path = smooth_path(track.boxes, config.median_window)
        parts = usable_parts(track, path, windows, geometry.times, config, reach_s=geometry.reach_s)
        others = [other for other in tracks if other is not track]
        planned = [
            _plan_piece(track, others, piece, path, part, geometry)
            for part in parts
            for piece in _pieces(part.span, config)
            if piece.duration_s >= config.min_clip_s - _CLOCK_S
        ]
        plans += planned
        if not planned:
            seen_s = max((part.span.duration_s for part in parts), default=0.0)
            name = f"{item}/track{track.track_index:03d}"
            refusals.append(_refuse(name, RejectReason.TRACK_TOO_SHORT, seen_s, config.min_clip_s))
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


class UsablePart(NamedTuple):
    """A span of time in which a track stays in one tube, and the half-open range of its path that lies there."""

    span: TimeSpan
    first: int
    last: int


def usable_parts(
    track: FaceTrack,
    path: BoxPath,
    windows: Sequence[TimeSpan],
    times: Times,
    config: CropConfig,
    *,
    reach_s: float,
    break_s: float = 0.0,
) -> list[UsablePart]:
    """Where a track can be used: spans that begin on a frame of the source.

    Between two sightings the face is there; beyond the outermost ones it is taken to stay for a stride. Where the
    face left its tube, nobody knows when between the two sightings, so neither part reaches far in between.

    Args:
        track: one face of one shot.
        path: its smoothed boxes.
        windows: the parts of the shot that may be used.
        times: presentation time of every frame of the video, in seconds.
        config: when a face has left its tube.
        reach_s: how long the face stays beyond its first and last sighting, in seconds.
        break_s: how long it stays after the last sighting before it leaves a tube, in seconds.
    """
    seen = np.array(track.times_s)
    parts = []
    for window in windows:
        for first, last in tube_breaks(path, config.min_tube_iou):
            start_s = max(window.start_s, seen[first] - (reach_s if first == 0 else 0.0))
            stop_s = min(window.stop_s, seen[last - 1] + (reach_s if last == len(path) else break_s))
            begin = int(np.searchsorted(times, start_s - _CLOCK_S))
            if begin < len(times) and times[begin] < stop_s:
                span = TimeSpan(start_s=float(times[begin]), stop_s=float(stop_s))
                parts.append(UsablePart(span, first, last))
    return parts


def _plan_piece(
    track: FaceTrack,
    others: Sequence[FaceTrack],
    piece: TimeSpan,
    path: BoxPath,
    part: UsablePart,
    geometry: _Geometry,
) -> PlannedClip:
    """The clip of a piece of ``part``, which ``path``, the track's smoothed boxes, goes through."""
    video, config = geometry.video, geometry.config
    every = np.array(track.times_s)
    # From the last sighting before the piece to the first one after it: the face moves between the two.
    low = max(part.first, int(np.searchsorted(every, piece.start_s, side="right")) - 1)
    high = min(part.last, int(np.searchsorted(every, piece.stop_s)) + 1)
    square, padding = square_around(path[low:high], (video.width_px, video.height_px), config)
    middle = np.median(path[low:high], axis=0)
    num_frames = round(piece.duration_s * config.fps)
    plan = ClipPlan(
        clip_id=_clip_id(video, track, piece, square, config),
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
        face_ratio=_face_ratio(piece, num_frames, every[low:high], geometry),
        num_neighbours=count_neighbours(track, others, square, piece, config.max_neighbour_area),
    )
    face = FacePath(
        times_s=track.times_s[low:high], boxes=track.boxes[low:high], detector=track.detector, purity=track.purity
    )
    return PlannedClip(plan=plan, face=face)


def _clip_id(video: Video, track: FaceTrack, piece: TimeSpan, square: Box, config: CropConfig) -> str:
    identity = {
        "source": video.source_id,
        "video": video.sha256,
        # Two faces of one small picture can share a square.
        "track": track.track_index,
        "start_s": piece.start_s,
        "num_frames": round(piece.duration_s * config.fps),
        "square": square,
        "config": config,
    }
    return f"{video.source_id[:60]}-{content_hash(identity)[:16]}"


def _face_ratio(piece: TimeSpan, num_frames: int, seen: Times, geometry: _Geometry) -> float:
    """Share of a clip's frames that lie within reach of a sighting."""
    output_times = piece.start_s + np.arange(num_frames) / geometry.config.fps
    nearest = np.abs(output_times[:, None] - seen[None, :]).min(axis=1)
    return float(np.mean(nearest <= geometry.reach_s * 1.01))
