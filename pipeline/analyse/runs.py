"""Look at a video once: shots and faces from the same decoded frames.

Decoding is the dearest thing done to every minute of a source, so each frame is decoded once, scaled
to the thumbnail that shot detection needs, and to the analysis size where faces are looked for. Long videos are
divided on a grid of time that depends on nothing but the video, so that any number of workers can
look at the parts side by side; each part sees some seconds beyond its edges, so that a transition
there is judged as it would be in one pass.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from jaxtyping import Float64, Shaped

from pipeline.analyse.faces import FaceScanner, Presence, link
from pipeline.analyse.shots import ShotDetector, shots_between
from pipeline.analyse.windows import WHOLE, Window
from pipeline.media.decode import Frame, fit_within, iter_frames
from pipeline.models.detectors import Detector
from schemas.analysis import AnalysisRun
from schemas.base import FrameSpan
from schemas.config import DomainConfig, FaceConfig, ShotConfig
from schemas.errors import DecodeError
from schemas.face import DETECTION_ROW, Detection, FaceTrack
from schemas.media import Boundary, Shot, Video

Times = Float64[np.ndarray, " F"]
DetectionRows = Shaped[np.ndarray, " N"]


_FRAMES = ("frame", "start_frame", "stop_frame")  # of a boundary


def context_s(config: ShotConfig) -> float:
    """Seconds beyond an edge after which nothing there changes any more: the longest fade and two dissolves."""
    return config.max_fade_s + 2 * config.max_dissolve_s + 1.0


@dataclass(slots=True)
class _Pass:
    """What one pass over a window has gathered. ``num_lead`` frames were looked at before the window's first."""

    num_lead: int = 0
    num_seen: int = 0
    times: list[float] = field(default_factory=list)
    boundaries: list[Boundary] = field(default_factory=list)
    detections: list[Detection] = field(default_factory=list)
    next_s: float | None = None  # time of the first frame behind the window


def analyse_run(
    path: Path,
    video: Video,
    domain: DomainConfig,
    detectors: list[Detector],
    presence: Presence | None,
    window: Window = WHOLE,
    *,
    progress: Callable[[float], None] | None = None,
) -> tuple[AnalysisRun, Times, DetectionRows]:
    """Analyse one window of a video, decoding each of its frames once.

    Args:
        path: the local file.
        video: what probing found.
        domain: detectors' thresholds, shot and face settings.
        detectors: built from ``domain.detectors``.
        presence: the gate for human-like domains, None leaves it out.
        window: which part; all of the video by default.
        progress: told the time reached, in seconds.

    Returns:
        The run, the presentation time in seconds of each of its frames [F], and its detections [N].

    Raises:
        DecodeError: when the video's first window holds no frame that decodes.
    """
    size = fit_within(video.width_px, video.height_px, domain.faces.analysis_side_px)
    shots = ShotDetector(domain.shots, video.average_fps)
    scanner = FaceScanner(
        detectors, domain.faces, presence, scale_x=video.width_px / size[0], scale_y=video.height_px / size[1]
    )
    state = _Pass()
    for frame in _frames(path, video, window, context_s(domain.shots)):
        if window.stop_s is not None and frame.time_s >= window.stop_s:
            state.next_s = frame.time_s if state.next_s is None else state.next_s
            if not window.open_end:
                break
        _look(frame, size, window, state, shots, scanner)
        if progress is not None:
            progress(frame.time_s)
    if not state.times and window.start_s is None:
        raise DecodeError(f"{path.name} holds no frame that decodes from {video.start_s:.3f} s on")
    state.boundaries += shots.finish()
    state.detections += scanner.finish()
    return _finished(video, state), np.array(state.times, dtype=np.float64), rows_of(state.detections)


def _frames(path: Path, video: Video, window: Window, around_s: float) -> Iterator[Frame]:
    """The frames of a window with their context on either side."""
    start_s = None if window.start_s is None else window.start_s - around_s
    stop_s = math.inf if window.stop_s is None else window.stop_s + around_s
    for frame in iter_frames(path, video, start_s=start_s, rough=True):
        yield frame
        if frame.time_s >= stop_s:
            return


def _look(
    frame: Frame, size: tuple[int, int], window: Window, state: _Pass, shots: ShotDetector, scanner: FaceScanner
) -> None:
    is_lead = window.start_s is not None and frame.time_s < window.start_s
    state.num_lead += is_lead
    number = state.num_seen
    state.num_seen += 1
    state.boundaries += shots.push(number, frame.time_s, frame.to_array(fit_within(*size, shots.side_px), "bgr24"))
    if not is_lead and state.next_s is None:
        state.detections += scanner.push(len(state.times), frame.time_s, lambda: frame.to_array(size, "bgr24"))
        state.times.append(frame.time_s)


def _finished(video: Video, state: _Pass) -> AnalysisRun:
    own = [
        boundary.model_copy(update={name: getattr(boundary, name) - state.num_lead for name in _FRAMES})
        for boundary in sorted(state.boundaries, key=_order)
    ]
    ended_s = max(video.stop_s, state.times[-1] + 1 / float(video.average_fps)) if state.times else video.stop_s
    return AnalysisRun(
        source_id=video.source_id,
        num_frames=len(state.times),
        stop_s=ended_s if state.next_s is None else state.next_s,
        boundaries=tuple(one for one in own if _touches(one, 0, len(state.times))),
        num_detections=len(state.detections),
    )


def _order(boundary: Boundary) -> tuple[int, int, int]:
    return boundary.frame, boundary.start_frame, boundary.stop_frame


def _touches(boundary: Boundary, start: int, stop: int) -> bool:
    """Whether any of a boundary lies in the frames ``start`` up to ``stop``."""
    first = min(boundary.frame, boundary.start_frame)
    last = max(boundary.frame + 1, boundary.stop_frame)
    return first < stop and start < last


def rows_of(detections: Sequence[Detection]) -> DetectionRows:
    """Detections as an array of ``DETECTION_ROW``, for storing."""
    rows = np.zeros(len(detections), DETECTION_ROW)
    for name in DETECTION_ROW.names or ():
        if detections:
            rows[name] = [getattr(one, name) for one in detections]
    return rows


# ---- all runs together ---------------------------------------------------------------------------------------------


def join_runs(
    runs: Sequence[AnalysisRun], times: Times, rows: Sequence[DetectionRows], config: FaceConfig
) -> tuple[list[Shot], list[FaceTrack]]:
    """Shots and tracks of a whole video from its runs, numbered through.

    Where no transition lies, the edge between two runs divides nothing: a shot and its tracks go on across it.

    Args:
        runs: all of them, in order.
        times: presentation time of every frame of the video, in seconds [F].
        rows: detections of each run, frames counted from its own first.
        config: of detection and tracking.
    """
    starts = np.cumsum([0, *(run.num_frames for run in runs)]).tolist()
    told = [
        (boundary.model_copy(update={name: getattr(boundary, name) + start for name in _FRAMES}), number)
        for number, (start, run) in enumerate(zip(starts, runs, strict=False))
        for boundary in run.boundaries
    ]
    num_frames = starts[-1]
    stop_s = runs[-1].stop_s
    shots = shots_between(
        _without_doubles(told),
        FrameSpan(start=0, stop=num_frames),
        lambda frame: stop_s if frame >= num_frames else float(times[frame]),
    )
    moved = [_moved(own, start) for start, own in zip(starts, rows, strict=False)]
    return shots, _tracks(shots, np.concatenate(moved), config)


def _moved(rows: DetectionRows, by: int) -> DetectionRows:
    rows = rows.copy()
    rows["frame"] += by
    return rows


def _without_doubles(told: Sequence[tuple[Boundary, int]]) -> list[Boundary]:
    """Boundaries in order, each given with its run; a transition that both neighbours of an edge tell is one.

    Both see the same frames around it, so they agree; only a flat picture that is longer than what they see beyond
    the edge looks different from either side. What overlaps is then joined, and what does not leaves a shot of nothing
    but transition between the two.
    """
    single: list[tuple[Boundary, int]] = []
    for boundary, run in sorted(told, key=lambda one: (_order(one[0]), one[1])):
        last, last_run = single[-1] if single else (None, run)
        if last is None or last_run == run or not _same_transition(last, boundary):
            single.append((boundary, run))
        elif last != boundary:
            start, stop = min(last.start_frame, boundary.start_frame), max(last.stop_frame, boundary.stop_frame)
            joined = {"frame": (start + stop) // 2, "start_frame": start, "stop_frame": stop}
            single[-1] = (last.model_copy(update=joined), run)
    return [boundary for boundary, _ in single]


def _same_transition(a: Boundary, b: Boundary) -> bool:
    return a == b or (a.kind == b.kind and a.start_frame < b.stop_frame and b.start_frame < a.stop_frame)


def _tracks(shots: Sequence[Shot], rows: DetectionRows, config: FaceConfig) -> list[FaceTrack]:
    """Link shot by shot, so that only one shot's detections are unpacked at a time."""
    rows = rows[np.argsort(rows["frame"], kind="stable")]
    tracks: list[FaceTrack] = []
    for index, shot in enumerate(shots):
        first, last = np.searchsorted(rows["frame"], [shot.span.start, shot.span.stop])
        for track in link([_detection(row) for row in rows[first:last]], [shot], config):
            tracks.append(track.model_copy(update={"shot_index": index, "track_index": len(tracks)}))
    return tracks


def _detection(row: np.void) -> Detection:
    return Detection(**{name: row[name].tolist() for name in DETECTION_ROW.names or ()})
