"""A workspace whose reviews are carried out and in, made by hand in a second: all under the keys of a build."""

import hashlib
from collections.abc import Callable
from pathlib import Path

from pipeline.build.results import BuildRecord, Results, results_of, tool_version
from pipeline.store.workspace import Workspace
from schemas.analysis import PlannedClip, SourcePlan
from schemas.clip import Clip
from schemas.config import BuildConfig
from schemas.media import AudioStream, Video
from schemas.review import Review, ReviewAction
from schemas.source import Fetched, FetchProvenance
from tests.helpers.release_items import encode_mp4, make_clip, make_files, make_source

NUM_FRAMES = 70  # 2.8 s, which is long enough to be kept
WHEN = "2026-01-02T03:04:05.678+00:00"


def stocked(
    folder: Path,
    num_clips: int = 3,
    *,
    size_px: int = 64,
    config: BuildConfig | None = None,
    changed: Callable[[int, Clip], Clip] = lambda _, clip: clip,
    **source: str,
) -> Workspace:
    """A workspace with one source and its finished clips film-0, film-1 and so on; the second hardly speaks.

    ``source`` are fields of the source that differ; ``changed`` gives what a clip of that number is to be instead.
    """
    workspace = Workspace(folder, create=True)
    film = make_source("film", **source)
    build = BuildRecord(tool_version=tool_version(), sources=(film,), config=config or BuildConfig())
    workspace.storage.write("build.json", build.model_dump_json().encode())
    results = results_of(workspace, build)
    video = _stock_video(results, film)
    clips = []
    for number in range(num_clips):
        files = make_files(NUM_FRAMES, seed=number) | {"mp4": encode_mp4(NUM_FRAMES, size_px=size_px, seed=number)}
        scores = {"speech_ratio": 0.1} if number == 1 else None
        clip = make_clip(f"film-{number}", num_frames=NUM_FRAMES, files=files, scores=scores)
        clips.append((changed(number, clip), files))
    planned = tuple(PlannedClip(plan=clip.plan, face=clip.face) for clip, _ in clips)
    plan = SourcePlan(source_id=film.id, shots=(), tracks=(), clips=planned, refusals=())
    workspace.publish("plan", results.plan_key(film, video), plan)
    for (clip, files), planned_clip in zip(clips, planned, strict=True):
        workspace.publish("clip", results.clip_key(film, video, planned_clip), clip, files)
    return workspace


def _stock_video(results: Results, film) -> Video:
    digest = hashlib.sha256(film.id.encode()).hexdigest()
    provenance = FetchProvenance(
        uri=film.public_uri, final_url=film.uri, tool="urllib3", tool_version="2", fetched_at="2026-01-01T00:00:00"
    )
    fetched = Fetched(sha256=digest, num_bytes=4, path="film.mp4", provenance=provenance)
    results.workspace.publish("acquire", results.acquire_key(film), fetched)
    sound = AudioStream(index=1, codec="aac", rate_hz=48000, num_channels=2, start_s=0.0, stop_s=60.0)
    video = Video(
        source_id=film.id, sha256=digest, num_bytes=4, container="mov", codec="h264", pixel_format="yuv420p",
        stream_index=0, time_base="1/12800", average_fps="25/1", start_s=0.0, stop_s=60.0, coded_width_px=640,
        coded_height_px=480, sample_aspect_ratio="1/1", rotation_deg=0, interlaced=False, width_px=640, height_px=480,
        colorspace="bt709", audio=sound,
    )  # fmt: skip
    results.workspace.publish("probe", results.probe_key(film, fetched), video)
    return video


def said(clip_id: str, version: str, action: str = "accept", *, who: str = "ann", at: str = WHEN, **more) -> Review:
    """A review with a computed id."""
    return Review.of(clip_id=clip_id, version=version, who=who, at=at, action=ReviewAction(action), **more)
