"""An immutable list of shards and checksums, by split and domain, and the rows of the tables beside them."""

import re
import unicodedata
from typing import Literal

from schemas.base import Id, Record
from schemas.clip import ClipPlan, Scores
from schemas.sample import Series

Split = Literal["train", "val", "test"]
SPLITS: tuple[Split, ...] = ("train", "val", "test")

RELEASE_FILE = "release.json"
MANIFEST_FILE = "manifest.parquet"
CLIP_LIST_FILE = "clips.jsonl"
CARD_FILE = "README.md"


def ties(*, source_id: str, identity_id: str, title: str, sha256: str = "") -> tuple[str, ...]:
    """What binds clips together: clips that share any of these must never be in two splits.

    Titles count without case, accents, punctuation and spacing, so "Big Film (HD)" and "big film hd" are one.
    An empty value binds nothing. Splitter and verifier both ask here, so they cannot disagree.
    """
    plain = unicodedata.normalize("NFKD", title).casefold()
    plain = re.sub(r"[\W_]+", "", "".join(letter for letter in plain if not unicodedata.combining(letter)))
    named = {"source": source_id, "identity": identity_id, "title": plain, "file": sha256}
    return tuple(f"{name}:{value}" for name, value in named.items() if value)


def index_file(split: Split, series: Series) -> str:
    """Name of the WIDS index of one split and series; shard URLs in it are relative to it."""
    return f"index-{split}-{series}.json"


def shard_file(split: Split, domain: str, series: Series, number: int) -> str:
    """Path of a shard in its release.

    The last part repeats split and domain because wids caches shards by that part alone: two shards
    of one name would silently be taken for one another.
    """
    return f"{split}/{domain}/{split}-{domain}-{series}-{number:06d}.tar"


class ShardRecord(Record):
    """One tar of a release; ``path`` is relative to the release.

    Shard k of the visual series and shard k of the speech series of a split and domain hold the same
    keys in the same order.
    """

    path: str
    series: Series
    split: Split
    domain: str
    num_samples: int
    num_bytes: int
    sha256: str


class ReleaseSource(Record):
    """Origin and rights of one source that a release draws on."""

    source_id: Id
    uri: str
    title: str
    domain: str
    license: str
    credit: str
    sha256: str


class Release(Record):
    """The record of a release (``release.json``), written last: where it is, the release is complete.

    ``counts`` and ``requested`` are clips by split, then domain; where ``requested`` is the larger, the
    release falls short. ``files`` maps every file that is no shard to its sha256. ``inputs_hash`` names
    everything that the bytes depend on: equal hashes, equal releases.
    """

    format_version: Literal[1] = 1
    name: Id
    tool_version: str
    config_hash: str
    inputs_hash: str
    num_clips: int
    duration_s: float
    counts: dict[str, dict[str, int]]
    requested: dict[str, dict[str, int]]
    shards: tuple[ShardRecord, ...]
    sources: tuple[ReleaseSource, ...]
    models: dict[str, str]
    files: dict[str, str]
    with_identity: bool


class ManifestRow(Record):
    """One clip in ``manifest.parquet``; nested records become columns (``scores_sharpness``).

    ``*_offset`` and ``*_bytes`` delimit the clip's members inside its shard: a ranged read of just that
    part is a readable tar without its end marker.
    """

    clip_id: Id
    split: Split
    domain: str
    identity_id: Id
    source_id: Id
    uri: str
    source_sha256: str
    title: str
    license: str
    credit: str
    language: str
    num_frames: int
    fps: int
    size_px: int
    duration_s: float
    start_s: float
    landmark_scheme: str
    flags: tuple[str, ...]
    visual_shard: str
    visual_offset: int
    visual_bytes: int
    speech_shard: str
    speech_offset: int
    speech_bytes: int
    scores: Scores


class ClipListRow(Record):
    """One line of ``clips.jsonl``: enough to cut the same clip from the same source without any detection."""

    uri: str
    sha256: str
    title: str
    license: str
    credit: str
    language: str
    domain: str
    split: Split
    identity_id: Id
    size_px: int
    plan: ClipPlan


class Fault(Record):
    """One thing that is wrong with a release: in which file, of which clip if it is one's, and what."""

    path: str
    problem: str
    clip_id: str = ""

    def __str__(self) -> str:
        return f"{self.path}: {f'clip {self.clip_id}: ' if self.clip_id else ''}{self.problem}"
