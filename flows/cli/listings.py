"""``anitalk sources``, ``shots``, ``tracks``, ``clips`` and ``decisions``: what a workspace holds, as rows."""

from collections import Counter
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from flows.cli.options import FormatOption, OutputOption, WorkspaceOption
from flows.cli.rows import Format, Row, write_rows

if TYPE_CHECKING:
    from pathlib import Path

    from pipeline.build.results import BuildRecord, Results
    from pipeline.build.survey import FinishedClip, Survey
    from schemas.analysis import SourcePlan
    from schemas.collection import Collection
    from schemas.ledger import LedgerRow
    from schemas.source import Source

Listed = tuple[list[Row], tuple[str, ...]]  # rows, and the names of their columns in order
Lister = Callable[["Results", "BuildRecord"], Listed]


def sources(workspace: WorkspaceOption, form: FormatOption = Format.TABLE, output: OutputOption = None) -> None:
    """List the sources of a workspace."""
    _write(source_rows, workspace, form, output)


def shots(workspace: WorkspaceOption, form: FormatOption = Format.TABLE, output: OutputOption = None) -> None:
    """List the shots of a workspace."""
    _write(shot_rows, workspace, form, output)


def tracks(workspace: WorkspaceOption, form: FormatOption = Format.TABLE, output: OutputOption = None) -> None:
    """List the tracks of a workspace."""
    _write(track_rows, workspace, form, output)


def clips(workspace: WorkspaceOption, form: FormatOption = Format.TABLE, output: OutputOption = None) -> None:
    """List the clips of a workspace."""
    _write(clip_rows, workspace, form, output)


def decisions(workspace: WorkspaceOption, form: FormatOption = Format.TABLE, output: OutputOption = None) -> None:
    """List the decisions of a workspace."""
    _write(decision_rows, workspace, form, output)


def _write(lister: Lister, workspace: str, form: Format, output: "Path | None") -> None:
    from pipeline.build.results import load_build, results_of
    from pipeline.store.workspace import Workspace

    opened = Workspace(workspace)
    build = load_build(opened)
    rows, columns = lister(results_of(opened, build), build)
    write_rows(rows, columns, form, output)


# ---- the rows ------------------------------------------------------------------------------------------------------


def source_rows(results: "Results", build: "BuildRecord") -> Listed:
    """One row per source: where it comes from and how far it got."""
    from pipeline.build.survey import survey

    surveyed = survey(results, build.sources)
    num_clips = Counter(finished.source.id for finished in surveyed.clips)
    failures = {row.source_id: row for row in surveyed.rows if row.item == row.source_id and row.outcome == "failed"}
    rows = []
    for source in build.sources:
        video = results.video(source)
        failed = failures.get(source.id)
        rows.append(
            {
                "source_id": source.id,
                "domain": source.domain,
                "state": _state(source.id, surveyed, failed),
                "duration_s": round(video.duration_s, 3) if video else None,
                "fps": float(video.average_fps) if video else None,
                "width_px": video.width_px if video else None,
                "height_px": video.height_px if video else None,
                "num_clips": num_clips[source.id],
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


def _state(source_id: str, surveyed: "Survey", failed: "LedgerRow | None") -> str:
    if source_id in surveyed.forgotten:
        return "forgotten"
    return "failed" if failed else "left" if source_id in surveyed.left else "done"


def shot_rows(results: "Results", build: "BuildRecord") -> Listed:
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


def track_rows(results: "Results", build: "BuildRecord") -> Listed:
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


def _planned(results: "Results", build: "BuildRecord") -> "Iterator[tuple[Source, SourcePlan]]":
    for source in build.sources:
        video = results.video(source)
        plan = results.plan(source, video) if video else None
        if plan is not None:
            yield source, plan


def clip_rows(results: "Results", build: "BuildRecord") -> Listed:
    """One row per finished clip with its scores, and what is known of it among the others."""
    from pipeline.curate.collect import stored_collection
    from pipeline.curate.reviewed import survey_reviewed
    from schemas.scores import SpeakerScore

    rows = []
    surveyed = survey_reviewed(results, build.sources)
    collection = stored_collection(results, surveyed)
    spoken = any(finished.clip.scores.speaker for finished in surveyed.clips)
    routed = any(finished.clip.scores.router for finished in surveyed.clips)
    for finished in surveyed.clips:
        clip, scores = finished.clip, finished.clip.scores.model_dump(mode="json")
        sync, speaker, router = (scores.pop(name, None) or {} for name in ("sync", "speaker", "router"))
        rows.append(
            {
                "clip_id": clip.clip_id,
                "source_id": finished.source.id,
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
                **_as_reviewed(finished, surveyed),
            }
        )
    return rows, (
        "clip_id", "source_id", "domain", "start_s", "duration_s", "num_frames",
        *_score_columns(surveyed, spoken=spoken, routed=routed),
        "landmark_scheme", "flags", *_AMONG_OTHERS, *_AS_REVIEWED,
    )  # fmt: skip


def _score_columns(surveyed: "Survey", *, spoken: bool, routed: bool) -> list[str]:
    """Names of the columns of scores; those that were not asked for have none."""
    from schemas.clip import Scores
    from schemas.scores import SpeakerScore, SyncScore

    optional = {name for name, field in Scores.model_fields.items() if not field.is_required()}
    absent = {name for name in optional if all(getattr(row.clip.scores, name) is None for row in surveyed.clips)}
    scored = [name for name in Scores.model_fields if name not in {"sync", "speaker", "router"} | absent]
    scored += [f"sync_{name}" for name in SyncScore.model_fields]
    scored += [f"speaker_{name}" for name in SpeakerScore.model_fields] if spoken else []
    scored += [f"router_{name}" for name in _ROUTED] if routed else []
    return scored


_ROUTED = ("proposed", "probability", "claim", "doubtful")
_AS_REVIEWED = ("trim", "named")


def _as_reviewed(finished: "FinishedClip", surveyed: "Survey") -> Row:
    """What people have changed: the frames that they kept (waiting, until a release cuts them), and who it is."""
    standing = surveyed.reviews.get(finished.clip.clip_id)
    span = standing.trim.trim if standing and standing.trim else None
    waiting = "" if finished.trim_key else " (waiting)"
    return {
        "trim": f"{span.start}-{span.stop}{waiting}" if span else "",
        "named": standing.identity.identity_id if standing and standing.identity else "",
    }


_AMONG_OTHERS = ("identity_id", "twins", "ridge_z", "ridge_lag_frames")


def _among_others(clip_id: str, collection: "Collection | None") -> Row:
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


def decision_rows(results: "Results", build: "BuildRecord") -> Listed:
    """One row per finished clip: kept or not, by what number or whom, and how many reviews of it count no more."""
    from pipeline.curate.choice import ReleaseOptions, choose
    from pipeline.curate.collect import stored_collection
    from pipeline.curate.reviewed import survey_reviewed

    surveyed = survey_reviewed(results, build.sources)
    choice = choose(results, build, surveyed, ReleaseOptions(), stored_collection(results, surveyed))
    rows = [
        {
            **decision.model_dump(mode="json"),
            "overrules": str(decision.overrules or ""),
            "stale": len(surveyed.reviews[decision.clip_id].stale) if decision.clip_id in surveyed.reviews else 0,
        }
        for decision in choice.decisions
    ]
    return rows, ("clip_id", "keep", "by", "reason", "measured", "limit", "note", "who", "at", "overrules", "stale")


LISTINGS: dict[str, Lister] = {
    "sources": source_rows,
    "shots": shot_rows,
    "tracks": track_rows,
    "clips": clip_rows,
    "decisions": decision_rows,
}
