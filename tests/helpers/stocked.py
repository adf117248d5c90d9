"""A workspace as builds and releases leave it, stocked by hand in a second: real results, reviews and a release."""

import hashlib
import json
from pathlib import Path

from pipeline.build.results import BuildRecord, tool_version
from pipeline.card.describe import describe_release
from pipeline.release.shards import write_release
from pipeline.store.reviews import ReviewLog
from pipeline.store.storage import Storage
from pipeline.store.workspace import Workspace
from schemas.analysis import SourcePlan
from schemas.base import content_hash
from schemas.config import BuildConfig, PackConfig
from schemas.funnel import Funnel, FunnelStep
from schemas.ledger import LedgerRow
from schemas.models import ModelCard
from schemas.release import About
from schemas.review import Review
from schemas.source import Fetched, FetchProvenance
from tests.helpers.release_items import SETUP, Shelf, encode_mp4, make_files, make_source

# Source, split, domain, number of clips. In train/real two films share shards.
FILMS = (
    ("film", "train", "real", 5),
    ("guest", "train", "real", 2),
    ("toon", "train", "mesh", 2),
    ("other", "test", "real", 2),
)
PACK = PackConfig(min_shards=3)
MODEL = ModelCard(
    name="facemesh", file="a.onnx", sha256="aa", package="p", licence="MIT", commercial_use=True, domains=("real",),
    measured="",
)  # fmt: skip
ABOUT = About(funnel=Funnel(steps=(FunnelStep(stage="fetch", unit="sources", entered=4, passed=4),)), models=(MODEL,))


def sha256_of(source_id: str) -> str:
    """What the shelf takes for the sha256 of a source's file."""
    return hashlib.sha256(source_id.encode()).hexdigest()


def stock_shelf(films=FILMS) -> Shelf:
    """Clips of which no two share a file, as clips of real films never do."""
    shelf = Shelf()
    for source, split, domain, count in films:
        for number in range(count):
            seed = len(shelf.items)
            files = make_files(seed=seed) | {"mp4": encode_mp4(seed=100 + seed)}
            shelf.add(f"{source}-{number}", make_source(source, domain=domain), split=split, domain=domain, files=files)
    return shelf


def stock_release(storage: Storage, name: str, shelf: Shelf, *, about: About | None = ABOUT, **more):
    """Write a release of a shelf; without ``about`` as earlier versions did, with no cards."""
    describe = about and (lambda record, rows: describe_release(storage, record, about, rows))
    return write_release(
        storage, name, shelf.items, shelf.read, setup=more.get("setup", SETUP), pack=PACK, describe=describe
    )


def stock(uri: Path | str, shelf: Shelf, *, release: str = "v1", **more) -> Workspace:
    """A workspace with all stages' results of the shelf's clips, ledger, reviews, media, and a release."""
    workspace = Workspace(uri, create=True)
    sources = {item.source.id: item.source for item in shelf.items}
    build = BuildRecord(tool_version=tool_version(), sources=tuple(sources.values()), config=BuildConfig())
    workspace.storage.write("build.json", build.model_dump_json().encode())
    for source in sources.values():
        _stock_source(workspace, source, [item for item in shelf.items if item.source.id == source.id], shelf)
    if release:
        stock_release(workspace.storage.below(f"releases/{release}"), release, shelf, **more)
    return workspace


def _stock_source(workspace, source, items, shelf):
    provenance = FetchProvenance(
        uri=source.public_uri, final_url=source.uri, tool="urllib3", tool_version="2", fetched_at="2026-01-01T00:00:00"
    )
    name, digest = f"{source.id}.mp4", sha256_of(source.id)
    fetched = Fetched(sha256=digest, num_bytes=4, path=name, provenance=provenance)
    workspace.publish("acquire", content_hash(["acquire", source.id]), fetched)
    folder = workspace.media_path(source.id)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(b"film")
    workspace.keep_media(source.id, name)
    row = LedgerRow(stage="acquire", source_id=source.id, item=source.id, attempt=1, outcome="done", key="k")
    workspace.log(row)
    plan = SourcePlan(source_id=source.id, shots=(), tracks=(), clips=(), refusals=())
    workspace.publish("plan", content_hash(["plan", source.id]), plan)
    for item in items:
        # The same clip made with two configurations: the key tells neither source nor clip.
        for config in ("now", "before"):
            key = content_hash(["clip", config, item.clip.clip_id])
            workspace.publish("clip", key, item.clip, shelf.files[item.key])
        accepted = {"version": key, "who": "ann", "at": "2026-01-02T00:00:00.000+00:00", "action": "accept"}
        ReviewLog(workspace).append(Review.of(clip_id=item.clip.clip_id, **accepted))


def everything(storage: Storage) -> dict[str, bytes]:
    """All objects by name, but for the lock."""
    return {name: storage.read(name) for name in storage.names("") if name not in {".lock", "lock.json"}}


def rows_of(data: bytes) -> list[dict]:
    """The lines of a clip list."""
    return [json.loads(line) for line in data.splitlines()]
