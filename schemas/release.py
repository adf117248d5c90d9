"""An immutable list of shards and checksums, by split and domain, and the rows of the tables beside them."""

import re
import unicodedata
from typing import Literal, Self

from pydantic import Field, NonNegativeInt, PositiveInt, model_validator

from schemas.base import Id, Record, is_absent
from schemas.clip import ClipPlan, Scores
from schemas.config import SelectLimits
from schemas.face import FacePath
from schemas.funnel import Funnel
from schemas.models import ModelCard
from schemas.sample import Series

Split = Literal["train", "val", "test"]
SPLITS: tuple[Split, ...] = ("train", "val", "test")

RELEASE_FILE = "release.json"
MANIFEST_FILE = "manifest.parquet"
CLIP_LIST_FILE = "clips.jsonl"
CARD_FILE = "README.md"
WEB_CARD_FILE = "card.html"
ABOUT_FILE = "about.json"
OVERVIEW_FILE = "overview.png"
FUNNEL_FILE = "funnel.png"


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


def sheet_file(domain: str) -> str:
    """Path of the contact sheet of one domain in its release."""
    return f"sheets/{domain}.jpg"


def shard_file(split: Split, domain: str, series: Series, number: int) -> str:
    """Path of a shard in its release.

    The last part repeats split and domain because wids caches shards by that part alone: two shards
    of one name would silently be taken for one another.
    """
    return f"{split}/{domain}/{split}-{domain}-{series}-{number:06d}.tar"


def next_shard_file(path: str) -> str:
    """Path of a shard that replaces the one at ``path``: ``…-000003.tar``, ``…-000003-r2.tar``, ``…-000003-r3.tar``.

    It needs a name of its own for the same reason: a reader's cache would go on serving what was taken down.
    """
    return f"{next_name(path.removesuffix('.tar'))}.tar"


def next_name(name: str) -> str:
    """The name of what replaces ``name``: NAME-r2, then NAME-r3, and so on."""
    match = re.fullmatch(r"(.+)-r([1-9][0-9]{0,5})", name)
    return f"{match[1]}-r{int(match[2]) + 1}" if match else f"{name}-r2"


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


class Replaced(Record):
    """The release that another one stands in for, from which sources were taken out; names may be used again."""

    name: Id
    inputs_hash: str


class Release(Record):
    """The record of a release (``release.json``), written last: where it is, the release is complete.

    ``counts`` and ``requested`` are clips by split, then domain; where ``requested`` is the larger, the
    release falls short. ``files`` maps every file that is no shard to its sha256. ``inputs_hash`` names
    everything that the bytes depend on: equal hashes, equal releases. ``replaces`` is None unless a take-down
    made this release from another.
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
    replaces: Replaced | None = None


class LostRow(Record):
    """Clips of a rebuilt list that were not made, by source and reason; ``reason`` is one sentence for readers."""

    source_id: Id
    num_clips: PositiveInt
    reason: str


class Coverage(Record):
    """What became of the clips of a published list that was built again.

    ``num_same`` were cut from the very file that the list names (same sha256), ``num_other`` from a file with other
    bytes that was found at its address, ``num_unnamed`` where the list names no sha256; the others are in ``lost``.

    Raises:
        ValueError: unless listed = same + other + unnamed + lost: nothing may vanish without a reason.
    """

    num_listed: NonNegativeInt
    num_same: NonNegativeInt
    num_other: NonNegativeInt
    num_unnamed: NonNegativeInt = 0
    lost: tuple[LostRow, ...] = ()

    @property
    def num_lost(self) -> int:
        """Clips that were not made, for all reasons."""
        return sum(row.num_clips for row in self.lost)

    @model_validator(mode="after")
    def _sums_up(self) -> Self:
        if self.num_listed != self.num_same + self.num_other + self.num_unnamed + self.num_lost:
            raise ValueError(
                f"the coverage loses clips without a reason: {self.num_listed} listed, {self.num_same} made of the "
                f"same file, {self.num_other} of another, {self.num_unnamed} of one not named, {self.num_lost} lost"
            )
        return self


class About(Record):
    """What the cards of a release tell beside its record and its rows (``about.json``).

    With it the cards can be written again from the release alone, as when a source is taken down and the workspace
    is gone. ``domains`` says what each domain means, ``limits`` what its clips had to reach, ``coverage`` what
    became of a rebuilt clip list, and ``forgotten`` how many sources were taken down since the first release.
    """

    funnel: Funnel
    models: tuple[ModelCard, ...] = ()
    domains: dict[str, str] = {}
    limits: dict[str, SelectLimits] = {}
    coverage: Coverage | None = None
    forgotten: NonNegativeInt = 0


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
    """One line of ``clips.jsonl``: enough to cut the same clip from the same source without any detection.

    ``domain`` says whose models made the clip; ``reviewed_domain`` is where a reviewer has put it since.
    """

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
    face: FacePath
    reviewed_domain: str | None = Field(default=None, exclude_if=is_absent)


class Fault(Record):
    """One thing that is wrong with a release: in which file, of which clip if it is one's, and what."""

    path: str
    problem: str
    clip_id: str = ""

    def __str__(self) -> str:
        return f"{self.path}: {f'clip {self.clip_id}: ' if self.clip_id else ''}{self.problem}"
