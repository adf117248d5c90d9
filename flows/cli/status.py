"""What a workspace holds, as rows and as the status page."""

import json
from collections import Counter
from collections.abc import Callable, Iterator

from flows.cli.rows import Row
from pipeline.build.results import BuildRecord, Results, load_build, results_of
from pipeline.build.survey import FinishedClip, Survey, survey
from pipeline.curate.choice import ReleaseOptions, choose
from pipeline.curate.collect import stored_collection
from pipeline.curate.reviewed import survey_reviewed
from pipeline.store.workspace import Workspace
from schemas.analysis import SourcePlan
from schemas.clip import Scores
from schemas.collection import Collection
from schemas.funnel import Funnel
from schemas.ledger import LedgerRow
from schemas.scores import SpeakerScore, SyncScore
from schemas.source import Source

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
                "state": _state(source.id, found, failed),
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


def _state(source_id: str, found: Survey, failed: LedgerRow | None) -> str:
    if source_id in found.forgotten:
        return "forgotten"
    return "failed" if failed else "left" if source_id in found.left else "done"


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
        for source, plan in _planned(results, build)
        for shot in plan.shots
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
        for source, plan in _planned(results, build)
        for track in plan.tracks
    ]
    return rows, (
        "source_id", "shot_index", "track_index", "start_frame", "stop_frame", "start_s", "stop_s", "num_sightings",
        "face_px", "score", "purity", "detector",
    )  # fmt: skip


def _planned(results: Results, build: BuildRecord) -> Iterator[tuple[Source, SourcePlan]]:
    for source in build.sources:
        video = results.video(source)
        plan = results.plan(source, video) if video else None
        if plan is not None:
            yield source, plan


def clips(results: Results, build: BuildRecord) -> Listed:
    """One row per finished clip with its scores, and what is known of it among the others."""
    rows = []
    found = survey_reviewed(results, build.sources)
    collection = stored_collection(results, found)
    spoken = any(made.clip.scores.speaker for made in found.clips)
    routed = any(made.clip.scores.router for made in found.clips)
    for made in found.clips:
        clip, scores = made.clip, made.clip.scores.model_dump(mode="json")
        sync, speaker, router = (scores.pop(name, None) or {} for name in ("sync", "speaker", "router"))
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
                **{f"speaker_{name}": speaker.get(name) for name in SpeakerScore.model_fields if spoken},
                **{f"router_{name}": router.get(name) for name in _ROUTED if routed},
                "landmark_scheme": clip.landmark_scheme,
                "flags": " ".join(clip.flags),
                **_among_others(clip.clip_id, collection),
                **_as_said(made, found),
            }
        )
    # Scores that were not asked for have no column.
    absent = {name for name in _ON_REQUEST if all(getattr(made.clip.scores, name) is None for made in found.clips)}
    scored = [name for name in Scores.model_fields if name not in {"sync", "speaker", "router"} | absent]
    judged = [f"speaker_{name}" for name in SpeakerScore.model_fields] if spoken else []
    judged += [f"router_{name}" for name in _ROUTED] if routed else []
    synced = [f"sync_{name}" for name in SyncScore.model_fields]
    return rows, (
        "clip_id", "source_id", "domain", "start_s", "duration_s", "num_frames", *scored, *synced, *judged,
        "landmark_scheme", "flags", *_AMONG_OTHERS, *_AS_SAID,
    )  # fmt: skip


_ON_REQUEST = ("stability", "overlay")
_ROUTED = ("proposed", "probability", "claim", "doubtful")
_AS_SAID = ("trim", "named")


def _as_said(made: FinishedClip, found: Survey) -> Row:
    """What people have changed: the frames that they kept (waiting, until a release cuts them), and who it is."""
    said = found.reviews.get(made.clip.clip_id)
    span = said.trim.trim if said and said.trim else None
    waiting = "" if made.trim_key else " (waiting)"
    return {
        "trim": f"{span.start}-{span.stop}{waiting}" if span else "",
        "named": said.identity.identity_id if said and said.identity else "",
    }


_AMONG_OTHERS = ("identity_id", "twins", "ridge_z", "ridge_lag_frames")


def _among_others(clip_id: str, collection: Collection | None) -> Row:
    """Empty until a release of these clips has been made, or tried."""
    if collection is None:
        return dict.fromkeys(_AMONG_OTHERS)
    links = [link for group in collection.duplicates for link in group.links if clip_id in (link.clip_id, link.twin_id)]
    ridge = collection.ridge[clip_id]
    twins = sorted({link.clip_id for link in links} | {link.twin_id for link in links} - {clip_id})
    return {
        "identity_id": collection.identities[clip_id],
        "twins": " ".join(name for name in twins if name != clip_id),
        "ridge_z": ridge.z,
        "ridge_lag_frames": ridge.lag_frames,
    }


def decisions(results: Results, build: BuildRecord) -> Listed:
    """One row per finished clip: kept or not, by what number or whom, and how many reviews of it count no more."""
    found = survey_reviewed(results, build.sources)
    choice = choose(results, build, found, ReleaseOptions(), stored_collection(results, found))
    rows = [
        {
            **one.model_dump(mode="json"),
            "overrules": str(one.overrules or ""),
            "stale": len(found.reviews[one.clip_id].stale) if one.clip_id in found.reviews else 0,
        }
        for one in choice.decisions
    ]
    return rows, ("clip_id", "keep", "by", "reason", "measured", "limit", "note", "who", "at", "overrules", "stale")


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
    results = results_of(place, build)
    found = survey_reviewed(results, build.sources)
    collection = stored_collection(results, found)
    funnel = choose(results, build, found, ReleaseOptions(), collection).funnel
    failures = [row for row in found.rows if row.outcome == "failed"]
    if as_json:
        content = {
            "funnel": funnel.model_dump(mode="json")["steps"],
            "failures": [row.model_dump(mode="json") for row in failures],
            "failures_by_class": dict(sorted(Counter(str(row.reason_class) for row in failures).items())),
            "left": found.left,
            "forgotten": found.forgotten,
            "compared": collection is not None,
            "stale_reviews": found.num_stale,
        }
        print(json.dumps(content, indent=1, ensure_ascii=False))  # noqa: T201
        return
    _print_funnel(funnel)
    if found.clips and collection is None:
        print("these clips have not been compared with one another yet: 'anitalk release' looks for duplicates")  # noqa: T201
    if found.num_stale:
        print(_stale_sentence(found))  # noqa: T201
    for kind, count in sorted(Counter(str(row.reason_class) for row in failures).items()):
        print(f"\nfailed, {kind}: {count}")  # noqa: T201
        for row in failures:
            if row.reason_class == kind:
                print(f"  {row.item}: {row.message}")  # noqa: T201
    if found.forgotten:
        print(f"\nforgotten: {', '.join(found.forgotten)}")  # noqa: T201
    if found.left:
        print(f"\nleft to do: {', '.join(found.left)}")  # noqa: T201


def _stale_sentence(found: Survey) -> str:
    clips = [clip_id for clip_id, one in sorted(found.reviews.items()) if one.stale]
    which = clips[0] if len(clips) == 1 else f"{len(clips)} clips such as {clips[0]}"
    counted = "1 review is" if found.num_stale == 1 else f"{found.num_stale} reviews are"
    return f"{counted} of an earlier version of {which}, and count for nothing now: 'anitalk review' shows them again"


def _print_funnel(funnel: Funnel) -> None:
    for step in funnel.steps:
        drops = ", ".join(
            f"{drop.count} {drop.label}"
            + (f" ({drop.median_measured:g}, limit {drop.limit:g})" if _has_numbers(drop) else "")
            for drop in step.drops
        )
        pending = f", {step.pending} to do" if step.pending else ""
        overruled = f"  kept by a reviewer against the filters: {step.overruled}" if step.overruled else ""
        dropped = f"  dropped: {drops}" if drops else ""
        print(f"{step.stage:<8} {step.passed:>6} of {step.entered:<6} {step.unit:<8}{dropped}{pending}{overruled}")  # noqa: T201


def _has_numbers(drop: object) -> bool:
    return getattr(drop, "median_measured", None) is not None and getattr(drop, "limit", None) is not None
