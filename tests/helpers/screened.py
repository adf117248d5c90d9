"""A workspace of as many clips as a test of the screening page wants, made in no time: real records and real files.

The results lie under the very keys that a build would have given them, so the page's server reads them as any others.
Each clip's colour tells it apart, a bright square that wanders tells its frames apart, and its sound is a tone.
"""

import contextlib
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np

from pipeline.build.results import BuildRecord, Results, results_of, tool_version
from pipeline.media.encode import ClipWriter
from pipeline.media.pixels import to_coded
from pipeline.store.workspace import Workspace
from schemas.analysis import PlannedClip, SourcePlan
from schemas.base import TimeSpan
from schemas.clip import Clip
from schemas.config import BuildConfig
from schemas.media import Video
from schemas.review import Review
from schemas.source import Fetched, FetchProvenance, Source
from tests.helpers.films import environment, program
from tests.helpers.release_items import encode_flac, encode_npy, make_clip, make_source

SIZE_PX, FPS, NUM_FRAMES = 128, 25, 70
FILES_PER_CLIP = ("mp4", "flac", "landmarks.npy", "pose.npy", "motion.npy", "valid.npy")
AT = "2026-01-02T03:04:05.006+00:00"


def make_media(seed: int, *, num_frames: int = NUM_FRAMES) -> dict[str, bytes]:
    """The files of one clip: a coloured square that wanders over another colour, and a tone."""
    rng = np.random.default_rng(seed)
    writer = ClipWriter(SIZE_PX, FPS, crf=28, preset="ultrafast")
    writer.declare_audio(48_000)
    back, front = rng.integers(20, 120, 3), rng.integers(150, 250, 3)
    for k in range(num_frames):
        picture = np.broadcast_to(back.astype(np.uint8), (SIZE_PX, SIZE_PX, 3)).copy()
        picture[40:80, k % 88 : k % 88 + 40] = front
        writer.add(to_coded(picture))
    writer.add_audio((0.1 * np.sin(np.arange(48_000 * num_frames // FPS) / 20)).astype(np.float32))
    points = np.concatenate([rng.uniform(30, 100, (num_frames, 68, 2)), np.ones((num_frames, 68, 1))], axis=2)
    pose = np.tile([10.0, 5.0, 2.0, 0.5, 0.5, 4.0, 1.0], (num_frames, 1))
    return {
        "mp4": writer.finish(),
        "flac": encode_flac(num_frames * 640),
        "landmarks.npy": encode_npy(points.astype(np.float32)),
        "pose.npy": encode_npy(pose.astype(np.float32)),
        "motion.npy": encode_npy(rng.random((num_frames, 6)).astype(np.float32)),
        "valid.npy": encode_npy(np.ones(num_frames, bool)),
    }


def template(seed: int = 0, **scores: object) -> tuple[Clip, Mapping[str, bytes]]:
    """A clip and its files."""
    files = make_media(seed)
    return make_clip(num_frames=NUM_FRAMES, scores={**scores}, files=files), files


def stock_clips(
    uri: str | Path,
    templates: list[tuple[Clip, Mapping[str, bytes]]],
    *,
    per_source: int = 4,
    size_px: int = SIZE_PX,
    domains: tuple[str, ...] = ("real", "mesh"),
    config: BuildConfig | None = None,
) -> Workspace:
    """A workspace with one clip for each template, in sources of ``per_source`` that take turns among the domains."""
    workspace = Workspace(uri, create=True)
    config = config or BuildConfig()
    config = config.model_copy(update={"crop": config.crop.model_copy(update={"size_px": size_px})})
    count = -(-len(templates) // per_source)
    sources = [make_source(f"film{n:04d}", domain=domains[n % len(domains)], credit="Nobody") for n in range(count)]
    build = BuildRecord(tool_version=tool_version(), sources=tuple(sources), config=config)
    workspace.storage.write("build.json", build.model_dump_json().encode())
    results = results_of(workspace, build)
    for number, source in enumerate(sources):
        _stock_source(results, source, templates[number * per_source : (number + 1) * per_source])
    return workspace


def _stock_source(results: Results, source: Source, templates: list[tuple[Clip, Mapping[str, bytes]]]) -> None:
    workspace, digest = results.workspace, f"{int(source.id[4:]):064x}"
    provenance = FetchProvenance(
        uri=source.uri, final_url=source.uri, tool="none", tool_version="1", fetched_at="2026-01-01T00:00:00"
    )
    fetched = Fetched(sha256=digest, num_bytes=4, path=f"{source.id}.mp4", provenance=provenance)
    workspace.publish("acquire", results.acquire_key(source), fetched)
    video = Video(
        source_id=source.id, sha256=digest, num_bytes=4, container="mp4", codec="h264", pixel_format="yuv420p",
        stream_index=0, time_base=Fraction(1, 1000), average_fps=Fraction(25), start_s=0.0, stop_s=1e4,
        coded_width_px=640, coded_height_px=480, sample_aspect_ratio=Fraction(1), rotation_deg=0, interlaced=False,
        width_px=640, height_px=480, colorspace="bt709", audio=None,
    )  # fmt: skip
    workspace.publish("probe", results.probe_key(source, fetched), video)
    clips = [_moved(source, number, clip) for number, (clip, _) in enumerate(templates)]
    planned = tuple(PlannedClip(plan=clip.plan, face=clip.face) for clip in clips)
    plan = SourcePlan(source_id=source.id, shots=(), tracks=(), clips=planned, refusals=())
    workspace.publish("plan", results.plan_key(source, video), plan)
    for clip, planned_clip, (_, files) in zip(clips, planned, templates, strict=True):
        workspace.publish("clip", results.clip_key(source, video, planned_clip), clip, files)


def _moved(source: Source, number: int, clip: Clip) -> Clip:
    """The same clip in another source, at another time."""
    start_s = 10.0 * number
    span = TimeSpan(start_s=start_s, stop_s=start_s + clip.duration_s)
    change = {"clip_id": f"{source.id}-{number}", "source_id": source.id, "span": span, "shot_index": number}
    plan = clip.plan.model_copy(update=change)
    return clip.model_copy(update={"plan": plan, "domain": source.domain})


def small_workspace(uri: str | Path, num_clips: int = 12) -> Workspace:
    """Two films of each domain; the second clip misses a limit."""
    changes: list[dict[str, object]] = [{} for _ in range(num_clips)]
    changes[1] = {"num_neighbours": 1}
    return stock_clips(uri, [template(seed, **change) for seed, change in enumerate(changes)], per_source=3)


def unlike_workspace(uri: str | Path, num_clips: int = 40) -> Workspace:
    """One domain whose clips grow sharper from the first to the last; all show the same pictures."""
    files = make_media(0)
    clips = [
        make_clip(num_frames=NUM_FRAMES, scores={"sharpness": 100.0 + 10 * k}, files=files) for k in range(num_clips)
    ]
    return stock_clips(uri, [(clip, files) for clip in clips], per_source=num_clips, domains=("real",))


def review(workspace: Workspace, clip_id: str, **fields: object) -> Review:
    """What Bob said, of the present version unless told otherwise."""
    words = {"clip_id": clip_id, "version": "v", "who": "bob", "at": AT, "action": "accept"}
    return Review.of(**{**words, **fields})


@dataclass
class Server:
    """A server in a process of its own."""

    process: subprocess.Popen[str]
    address: str

    @property
    def origin(self) -> str:
        return self.address.split("/?")[0]

    @property
    def token(self) -> str:
        return self.address.split("token=")[1]

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


def start_server(workspace: Workspace | str, *more: str, **env: str) -> Server:
    """``anitalk review`` until it listens."""
    uri = workspace if isinstance(workspace, str) else workspace.storage.uri
    process = subprocess.Popen(
        program("review", "--workspace", uri, "--no-open", *more),
        env=environment(**env),
        stdout=subprocess.PIPE,
        stderr=sys.stderr if os.environ.get("SHOW") else subprocess.DEVNULL,
        text=True,
    )
    assert process.stdout is not None
    line = process.stdout.readline()
    address = re.search(r"http://\S+", line)
    assert address, f"the server did not start: {line}"
    return Server(process, address[0])


@contextlib.contextmanager
def running(workspace: Workspace | str, *more: str) -> Iterator[Server]:
    server = start_server(workspace, *more)
    try:
        yield server
    finally:
        server.kill()
