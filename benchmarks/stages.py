"""One inline build in this process, with a stopwatch around every part that may cost something.

Run as a child of ``benchmarks/build.py`` with a manifest and an empty workspace; prints one JSON object. Time is
this thread's CPU time and counted once: what runs inside another part is taken off that part.
"""

import inspect
import json
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from flows.cli import application as cli

# Stage or part of one: module, then class or function (a class brings a method). Stages hold what their parts leave.
PARTS = {
    "acquire: hash": ("pipeline.fetch.acquire", "fetch"),
    "probe": ("pipeline.fetch.probe", "probe"),
    "decode": ("pipeline.media.decode", "_tolerant"),
    "analyse: rest": ("pipeline.analyse.runs", "analyse_run"),
    "convert": ("pipeline.media.frame", "Frame.to_array"),
    "clip: cut and scale": ("pipeline.media.frame", "Frame.crop"),
    "analyse: thumbnails": ("pipeline.analyse.looks", "look_at"),
    "analyse: cut proposals": ("pipeline.analyse.shots", "_CutProposals.push"),
    "analyse: fades, cuts": ("pipeline.analyse.shots", "ShotDetector.push"),
    "analyse: dissolves": ("pipeline.analyse.dissolves", "DissolveFinder.step"),
    "analyse: faces, rest": ("pipeline.analyse.faces", "FaceScanner.push"),
    "analyse: detector": ("pipeline.models.detectors", "BlazeFace.detect"),
    "analyse: presence gate": ("pipeline.models.landmarkers", "shows_face"),
    "clip: rest": ("pipeline.clip.make", "make_clip"),
    "clip: pad": ("pipeline.clip.crop", "cut_square"),
    "clip: encode": ("pipeline.media.encode", "ClipWriter.add"),
    "clip: encode sound": ("pipeline.media.encode", "ClipWriter.add_audio"),
    "clip: quality": ("pipeline.clip.quality", "QualityTap.add"),
    "clip: landmarks": ("pipeline.models.landmarkers", "FaceMesh468.locate"),
    "clip: pose": ("pipeline.clip.headpose", "estimate_poses"),
    "clip: read sound": ("pipeline.media.audio", "read_audio"),
    "clip: voice activity": ("pipeline.clip.speech", "voice_activity"),
    "clip: mel": ("pipeline.clip.speech", "log_mel"),
    "clip: sync": ("pipeline.clip.sync", "score_sync"),
}
_SHARED = {"decode", "convert"}  # both passes use them; told apart by the stage that is running


@dataclass
class Stopwatch:
    """CPU seconds and calls per part."""

    seconds: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    calls: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    _inside: list[tuple[str, float]] = field(default_factory=list)  # part, when it last began to count

    def enter(self, part: str) -> None:
        """Count for ``part`` from now on, and no longer for the part around it."""
        now = time.thread_time()
        if self._inside:
            self._count(now)
        self._inside.append((self._named(part), now))

    def leave(self) -> None:
        """Go back to the part around."""
        now = time.thread_time()
        self._count(now)
        part, _ = self._inside.pop()
        self.calls[part] += 1
        if self._inside:
            self._inside[-1] = (self._inside[-1][0], now)

    def _count(self, now: float) -> None:
        part, since = self._inside[-1]
        self.seconds[part] += now - since

    def _named(self, part: str) -> str:
        if part not in _SHARED:
            return part
        stage = self._inside[0][0].split(":")[0] if self._inside else "other"
        return f"{stage}: {part}"

    def around(self, part: str, real: Callable[..., Any]) -> Callable[..., Any]:
        """``real``, timed; a generator function is timed at every step."""

        def steps(*args: Any, **kwargs: Any) -> Iterator[Any]:
            items = real(*args, **kwargs)
            while True:
                self.enter(part)
                try:
                    item = next(items)
                except StopIteration:
                    return
                finally:
                    self.leave()
                yield item

        def once(*args: Any, **kwargs: Any) -> Any:
            self.enter(part)
            try:
                return real(*args, **kwargs)
            finally:
                self.leave()

        return steps if inspect.isgeneratorfunction(real) else once


def install(watch: Stopwatch) -> None:
    """Put the stopwatch around every part, wherever a module holds a name of it."""
    import pipeline.build.compose  # noqa: F401  # brings every stage

    ours = [module for name, module in sys.modules.items() if name.startswith(("pipeline.", "flows."))]
    for part, (module, name) in PARTS.items():
        owner: Any = sys.modules[module]
        *classes, last = name.split(".")
        for class_name in classes:
            owner = getattr(owner, class_name)
        real = getattr(owner, last)
        timed = watch.around(part, real)
        for holder in [owner, *([] if classes else ours)]:
            if getattr(holder, last, None) is real:
                setattr(holder, last, timed)


def main() -> int:
    """Build ``sys.argv[1]`` in the workspace ``sys.argv[2]``, with further arguments as they are."""
    watch = Stopwatch()
    install(watch)
    manifest, workspace, *rest = sys.argv[1:]
    began, cpu = time.monotonic(), time.process_time()
    code = cli.run(["build", manifest, "--workspace", workspace, "--inline", *rest])
    took = {"wall_s": time.monotonic() - began, "cpu_s": time.process_time() - cpu}
    parts = {"seconds": dict(watch.seconds), "calls": dict(watch.calls)}
    print(json.dumps({**took, **parts, **yielded(workspace)}))
    return code


def yielded(uri: str) -> dict[str, float]:
    """Seconds and number of the clips that were made, and of those that a release would accept."""
    from pipeline.build.results import Results, load_build
    from pipeline.build.survey import survey
    from pipeline.curate.choice import ReleaseOptions, choose
    from pipeline.store.workspace import Workspace

    workspace = Workspace(uri)
    build = load_build(workspace)
    results = Results(workspace, build.config)
    surveyed = survey(results, build.sources)
    accepted = set(choose(results, build, surveyed, ReleaseOptions()).split.assignment)
    seconds = {finished.clip.clip_id: finished.clip.plan.span.duration_s for finished in surveyed.clips}
    return {
        "made": len(seconds),
        "made_s": sum(seconds.values()),
        "accepted": len(accepted),
        "accepted_s": sum(seconds[clip_id] for clip_id in accepted),
    }


if __name__ == "__main__":
    sys.exit(main())
