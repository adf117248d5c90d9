"""How a video's time is divided into the runs that look at it; plain arithmetic, which keys are computed from.

The grid depends on nothing but the video, so that any number of workers can look at the parts side by side.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from schemas.base import TimeSpan
from schemas.media import Video


@dataclass(frozen=True, slots=True)
class Window:
    """The part of a video that one run answers for: frames from ``start_s`` up to but not including ``stop_s``.

    None stands for the video's own beginning and end. ``open_end`` says that more of the video follows and may
    be looked at; where it does not, nothing at or after ``stop_s`` is read.
    """

    start_s: float | None
    stop_s: float | None
    open_end: bool = False


WHOLE = Window(None, None)


def windows_of(video: Video, run_s: float, until_s: float | None) -> list[Window]:
    """Divide a video into runs of about ``run_s`` seconds; the last lasts between half and one and a half of that.

    Args:
        video: what probing found.
        run_s: usual length of a run.
        until_s: nothing at or after this time on the file's clock is wanted; None for the whole video.
    """
    stop_s = video.stop_s if until_s is None else min(until_s, video.stop_s)
    num_runs = max(1, round((stop_s - video.start_s) / run_s))
    inner = [video.start_s + k * run_s for k in range(1, num_runs)]
    edges = [None, *inner, until_s]
    return [Window(start, stop, open_end=k < num_runs - 1) for k, (start, stop) in enumerate(pairwise(edges))]


def on_files_clock(spans: Sequence[TimeSpan], video: Video) -> tuple[TimeSpan, ...]:
    """Spans in seconds of the film, whose first frame shows at 0, as seconds on the file's own clock."""
    if video.start_s == 0:
        return tuple(spans)
    return tuple(TimeSpan(start_s=span.start_s + video.start_s, stop_s=span.stop_s + video.start_s) for span in spans)


def extent_s(video: Video, window: Window) -> tuple[float, float]:
    """Where a window begins and ends, in seconds on the file's clock."""
    start_s = video.start_s if window.start_s is None else window.start_s
    return start_s, video.stop_s if window.stop_s is None else min(window.stop_s, video.stop_s)
