"""From one decode pass to shots and face tracks.

Decoding costs more than anything done to most frames, so shot detection and face detection look at
the same small frames of one pass. A long source is cut into bounded runs: each is stored when it is
done, so a two-hour film loses minutes to a crash, and memory never grows with its length.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from jaxtyping import Float64

from pipeline.errors import DecodeError
from pipeline.faces import FaceScanner, Presence, link
from pipeline.media.decode import Frame, fit_within, iter_frames
from pipeline.models.detectors import Detector
from pipeline.shots import ShotDetector, shots_between
from schemas.analysis import AnalysisRun
from schemas.base import FrameSpan
from schemas.config import DomainConfig
from schemas.face import Detection
from schemas.media import Boundary, Video

Times = Float64[np.ndarray, " F"]

_CLOCK_S = 1e-6  # rounding of differences of times


@dataclass(slots=True)
class _Pass:
    """What one pass over a run has gathered so far."""

    start_frame: int
    times: list[float] = field(default_factory=list)
    boundaries: list[Boundary] = field(default_factory=list)
    detections: list[Detection] = field(default_factory=list)

    @property
    def stop_frame(self) -> int:
        return self.start_frame + len(self.times)

    def end(self, run_s: float, before: int | None = None) -> Boundary | None:
        """The first boundary that lies a whole run behind the beginning (and before a frame)."""
        for boundary in sorted(self.boundaries, key=lambda one: one.frame):
            place = boundary.frame - self.start_frame
            stop = len(self.times) if before is None else before - self.start_frame
            if 0 < place < stop and self.times[place] - self.times[0] >= run_s - _CLOCK_S:
                return boundary
        return None

    def cut_back(self, stop_frame: int) -> None:
        self.times = self.times[: stop_frame - self.start_frame]
        self.boundaries = [b for b in self.boundaries if b.frame < stop_frame or b.start_frame < stop_frame]
        self.detections = [d for d in self.detections if d.frame < stop_frame]


def analyse_run(
    path: Path,
    video: Video,
    domain: DomainConfig,
    detectors: list[Detector],
    presence: Presence | None,
    *,
    start_frame: int = 0,
    start_s: float | None = None,
    began_with: Boundary | None = None,
    until_s: float | None = None,
    progress: Callable[[float], None] | None = None,
) -> tuple[AnalysisRun, Times]:
    """Analyse one run of a video, decoding each of its frames once.

    Args:
        path: the local file.
        video: what probing found.
        domain: detectors' thresholds, shot and face settings.
        detectors: built from ``domain.detectors``.
        presence: the gate for human-like domains, None leaves it out.
        start_frame: number of the run's first frame in the video.
        start_s: its time; None for the video's first frame.
        began_with: the boundary that ended the run before.
        until_s: nothing at or after this time is wanted; None for the whole video.
        progress: told the time reached, in seconds.

    Returns:
        The run, and the presentation time in seconds of each of its frames [F].

    Raises:
        DecodeError: when no frame can be decoded.
    """
    size = fit_within(video.width_px, video.height_px, domain.faces.analysis_side_px)
    shots = ShotDetector(domain.shots, video.average_fps)
    scanner = FaceScanner(
        detectors, domain.faces, presence, scale_x=video.width_px / size[0], scale_y=video.height_px / size[1]
    )
    state = _Pass(start_frame)
    frames = iter_frames(path, video, start_s=start_s)
    ended, upcoming = None, None
    for frame in frames:
        if until_s is not None and frame.time_s >= until_s:
            upcoming = frame
            break
        _look(frame, size, state, shots, scanner)
        if progress is not None:
            progress(frame.time_s)
        ended = state.end(domain.shots.run_s)
        if ended is not None:
            break
        if state.times[-1] - state.times[0] >= 2 * domain.shots.run_s - _CLOCK_S:
            upcoming = next(frames, None)
            break
    if not state.times:
        raise DecodeError(f"{path.name} holds no frame that decodes from {start_s or video.start_s:.3f} s on")
    if ended is None:
        state.boundaries += shots.finish()
        state.detections += scanner.finish()
    more = upcoming is not None and (until_s is None or upcoming.time_s < until_s)
    if ended is None and more:
        ended = state.end(domain.shots.run_s, before=_settled(state, video)) or _limit(state.stop_frame)
    if ended is not None and ended.frame < state.stop_frame:
        stop_s = state.times[ended.frame - start_frame]
        state.cut_back(ended.frame)
    else:
        stop_s = upcoming.time_s if upcoming else max(video.stop_s, state.times[-1] + 1 / float(video.average_fps))
    run = _finished(video, domain, state, began_with, ended, stop_s)
    return run, np.array(state.times, dtype=np.float64)


def _settled(state: _Pass, video: Video) -> int:
    """Where a run was ended by force, boundaries of its last second were judged without what follows them."""
    return state.stop_frame - round(video.average_fps)


def _limit(frame: int) -> Boundary:
    return Boundary(frame=frame, kind="limit", start_frame=frame, stop_frame=frame)


def _look(frame: Frame, size: tuple[int, int], state: _Pass, shots: ShotDetector, scanner: FaceScanner) -> None:
    number = state.stop_frame
    image = frame.to_array(size, "bgr24")
    state.times.append(frame.time_s)
    state.boundaries += shots.push(number, frame.time_s, image)
    state.detections += scanner.push(number, frame.time_s, image)


def _finished(
    video: Video,
    domain: DomainConfig,
    state: _Pass,
    began_with: Boundary | None,
    ended: Boundary | None,
    stop_s: float,
) -> AnalysisRun:
    span = FrameSpan(start=state.start_frame, stop=state.stop_frame)
    edges = [*([began_with] if began_with else []), *state.boundaries, *([ended] if ended else [])]
    shots = shots_between(edges, span, lambda frame: stop_s if frame >= span.stop else state.times[frame - span.start])
    if began_with is not None:
        shots[0] = shots[0].model_copy(update={"boundary": began_with.kind})
    return AnalysisRun(
        source_id=video.source_id,
        start_frame=state.start_frame,
        stop_frame=state.stop_frame,
        next_start_s=stop_s if ended is not None else None,
        ended_by=ended,
        shots=tuple(shots),
        tracks=tuple(link(state.detections, shots, domain.faces)),
        num_detections=len(state.detections),
    )
