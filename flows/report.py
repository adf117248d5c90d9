"""What a workspace holds, as rows and as the status page."""

import json
from collections import Counter
from collections.abc import Callable, Iterator

from flows.listing import Row
from pipeline.release import ReleaseOptions, choose
from pipeline.results import BuildRecord, Results, joined, load_build
from pipeline.survey import survey
from pipeline.workspace import Workspace
from schemas.clip import Scores
from schemas.funnel import Funnel
from schemas.scores import SyncScore

Listed = tuple[list[Row], tuple[str, ...]]


def sources(results: Results, build: BuildRecord) -> Listed:
    """One row per source: where it comes from and how far it got."""
    found = survey(results, build.sources)
    clips = Counter(made.source.id for made in found.clips)
    failures = {row.source_id: row for row in found.rows if row.item == row.source_id and row.outcome == "failed"}
    rows = []
    for source in build.sources:
        video = results.video(source)
        failed = failures.get(source.id)
        rows.append(
            {
                "source_id": source.id,
                "domain": source.domain,
                "state": "failed" if failed else "left" if source.id in found.left else "done",
                "duration_s": round(video.duration_s, 3) if video else None,
                "fps": float(video.average_fps) if video else None,
                "width_px": video.width_px if video else None,
                "height_px": video.height_px if video else None,
                "num_clips": clips[source.id],
                "license": source.license,
                "title": source.title,
                "uri": source.public_uri,
                "reason": failed.reason_class if failed else "",
                "message": failed.message if failed else "",
            }
        )
    return rows, (
        "source_id", "domain", "state", "duration_s", "fps", "width_px", "height_px", "num_clips", "license", "title",
        "uri", "reason", "message",
    )  # fmt: skip


def shots(results: Results, build: BuildRecord) -> Listed:
    """One row per shot. Times are seconds on the file's own clock."""
    rows = [
        {
            "source_id": source.id,
            "start_frame": shot.span.start,
            "stop_frame": shot.span.stop,
            "start_s": shot.start_s,
            "stop_s": shot.stop_s,
            "boundary": shot.boundary,
        }
        for source, runs in _analysed(results, build)
        for shot in joined(runs)[0]
    ]
    return rows, ("source_id", "start_frame", "stop_frame", "start_s", "stop_s", "boundary")


def tracks(results: Results, build: BuildRecord) -> Listed:
    """One row per face track."""
    rows = [
        {
            "source_id": source.id,
            "shot_index": track.shot_index,
            "track_index": track.track_index,
            "start_frame": track.frames[0],
            "stop_frame": track.frames[-1] + 1,
            "start_s": track.times_s[0],
            "stop_s": track.times_s[-1],
            "num_sightings": len(track.frames),
            "face_px": round(max(box[3] - box[1] for box in track.boxes), 1),
            "score": round(sum(track.scores) / len(track.scores), 4),
            "purity": track.purity,
            "detector": track.detector,
        }
        for source, runs in _analysed(results, build)
        for track in joined(runs)[1]
    ]
    return rows, (
        "source_id", "shot_index", "track_index", "start_frame", "stop_frame", "start_s", "stop_s", "num_sightings",
        "face_px", "score", "purity", "detector",
    )  # fmt: skip


def _analysed(results: Results, build: BuildRecord) -> Iterator[tuple]:  # type: ignore[type-arg]
    for source in build.sources:
        video = results.video(source)
        if video is not None:
            yield source, [run for _, run in results.runs(source, video)]


def clips(results: Results, build: BuildRecord) -> Listed:
    """One row per finished clip with its scores."""
    rows = []
    for made in survey(results, build.sources).clips:
        clip, scores = made.clip, made.clip.scores.model_dump(mode="json")
        sync = scores.pop("sync")
        rows.append(
            {
                "clip_id": clip.clip_id,
                "source_id": made.source.id,
                "domain": clip.domain,
                "start_s": clip.plan.span.start_s,
                "duration_s": clip.duration_s,
                "num_frames": clip.plan.num_frames,
                **scores,
                **{f"sync_{name}": value for name, value in sync.items()},
                "landmark_scheme": clip.landmark_scheme,
                "flags": " ".join(clip.flags),
            }
        )
    scored = [name for name in Scores.model_fields if name != "sync"]
    synced = [f"sync_{name}" for name in SyncScore.model_fields]
    return rows, (
        "clip_id", "source_id", "domain", "start_s", "duration_s", "num_frames", *scored, *synced, "landmark_scheme",
        "flags",
    )  # fmt: skip


def decisions(results: Results, build: BuildRecord) -> Listed:
    """One row per finished clip: kept or not, and the number and limit behind it."""
    found = survey(results, build.sources)
    rows = [one.model_dump(mode="json") for one in choose(results, build, found, ReleaseOptions()).decisions]
    return rows, ("clip_id", "keep", "by", "reason", "measured", "limit", "note", "who", "at")


LISTINGS: dict[str, Callable[[Results, BuildRecord], Listed]] = {
    "sources": sources,
    "shots": shots,
    "tracks": tracks,
    "clips": clips,
    "decisions": decisions,
}


def print_status(place: Workspace, *, as_json: bool = False) -> None:
    """Print the funnel, the failures by class with their sentences, and what is left."""
    build = load_build(place)
    results = Results(place, build.config)
    found = survey(results, build.sources)
    funnel = choose(results, build, found, ReleaseOptions()).funnel
    failures = [row for row in found.rows if row.outcome == "failed"]
    if as_json:
        content = {
            "funnel": funnel.model_dump(mode="json")["steps"],
            "failures": [row.model_dump(mode="json") for row in failures],
            "failures_by_class": dict(sorted(Counter(str(row.reason_class) for row in failures).items())),
            "left": found.left,
        }
        print(json.dumps(content, indent=1, ensure_ascii=False))  # noqa: T201
        return
    _print_funnel(funnel)
    for kind, count in sorted(Counter(str(row.reason_class) for row in failures).items()):
        print(f"\nfailed, {kind}: {count}")  # noqa: T201
        for row in failures:
            if row.reason_class == kind:
                print(f"  {row.item}: {row.message}")  # noqa: T201
    if found.left:
        print(f"\nleft to do: {', '.join(found.left)}")  # noqa: T201


def _print_funnel(funnel: Funnel) -> None:
    for step in funnel.steps:
        drops = ", ".join(
            f"{drop.count} {drop.reason}"
            + (f" ({drop.median_measured:g}, limit {drop.limit:g})" if _has_numbers(drop) else "")
            for drop in step.drops
        )
        pending = f", {step.pending} to do" if step.pending else ""
        dropped = f"  dropped: {drops}" if drops else ""
        print(f"{step.stage:<8} {step.passed:>6} of {step.entered:<6} {step.unit:<8}{dropped}{pending}")  # noqa: T201


def _has_numbers(drop: object) -> bool:
    return getattr(drop, "median_measured", None) is not None and getattr(drop, "limit", None) is not None
