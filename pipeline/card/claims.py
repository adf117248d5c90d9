"""What a release says of itself, before it takes the form of Markdown or HTML.

Both cards are written from here, so that they cannot say different things. Texts from manifests and web pages are
hostile until shown otherwise: here they are cut to one line, and each card escapes them in its own way.
"""

import unicodedata
from collections import Counter, defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from schemas.licences import commercial_use
from schemas.models import ModelCard
from schemas.release import MANIFEST_FILE, SPLITS, About, ManifestRow, Release, index_file
from schemas.router import UNSURE
from schemas.sample import FIELDS

MAX_TEXT = 300  # characters; a longer title is no title

_LIMITS = {
    "landmarks": "Landmarks come from a face mesh trained on people. On drawn faces it can lock onto the wrong "
    "features; the confidence per point does not always show it. Look at the pictures before training.",
    "disney_animal": "Domain disney_animal: no landmarks, pose or motion (scheme none, confidence 0). Faces were found "
    "by a detector for people together with a cascade for cats, which is weak: when they were measured, the first "
    "found 7 of 18 frames of a cartoon animal, 14 of 32 of dogs and none of 21 of a cat; the second found 9 of 11 "
    "cats, and nothing here finds birds.",
    "speech": "Speech is detected by a network for people talking; music and animal sounds have fooled it.",
    "sync": "The sync score compares the mouth's opening with the loudness of speech; it knows no language. In clips "
    "too short for it (under 3.2 seconds by default) it is unknown, which is no rejection. The lag is measured and "
    "stored, not corrected.",
    "sharpness": "Sharpness depends on style: flat drawings score low however sharp they are. Compare it inside a "
    "domain only.",
    "splits": "Splits are as good as the identities and titles in the source list: one person under two names can be "
    "in two splits.",
}


@dataclass(frozen=True, slots=True)
class CountRow:
    """One split of one domain; ``requested`` is None where nothing was asked for."""

    split: str
    domain: str
    num_clips: int
    minutes: float
    requested: int | None

    @property
    def short(self) -> int:
        """How many clips are missing to what was asked for."""
        return max(0, (self.requested or 0) - self.num_clips)


@dataclass(frozen=True, slots=True)
class ProposedRow:
    """Clips whose source claims one domain: how many speak for each proposed one, and how many are flagged."""

    claimed: str
    counts: list[int]
    num_flagged: int


@dataclass(frozen=True, slots=True)
class LicenceRow:
    """One licence of sources, as they state it, and how many sources and clips are under it."""

    licence: str
    num_sources: int
    num_clips: int
    commercial_use: bool | None


def count_rows(release: Release, rows: Sequence[ManifestRow]) -> list[CountRow]:
    """One line per split and domain that has clips or was asked for."""
    seconds: defaultdict[tuple[str, str], float] = defaultdict(float)
    for row in sorted(rows, key=lambda row: row.clip_id):  # sums of floats depend on their order
        seconds[row.split, row.domain] += row.duration_s
    return [
        CountRow(
            split=split,
            domain=domain,
            num_clips=release.counts.get(split, {}).get(domain, 0),
            minutes=seconds[split, domain] / 60,
            requested=release.requested.get(split, {}).get(domain),
        )
        for split in SPLITS
        for domain in sorted(release.counts.get(split, {}).keys() | release.requested.get(split, {}).keys())
    ]


def domain_meanings(release: Release, about: About) -> dict[str, str]:
    """Every domain that has clips or was asked for, with its meaning where one is told."""
    tables = (release.counts, release.requested)
    names = {name for table in tables for by_domain in table.values() for name in by_domain}
    return {name: about.domains.get(name, "") for name in sorted(names)}


def proposed_domains(rows: Sequence[ManifestRow]) -> tuple[list[str], list[ProposedRow]]:
    """What the clips' pictures speak for: the proposed domains, *unsure* last, and a line per claimed domain.

    Both are empty where no clip was looked at.
    """
    seen = [(row.domain, row.scores.router) for row in rows if row.scores.router is not None]
    pairs = Counter((claimed, score.proposed) for claimed, score in seen)
    flagged = Counter(claimed for claimed, score in seen if score.doubtful)
    columns = sorted({proposed for _, proposed in pairs}, key=lambda name: (name == UNSURE, name))
    claims = sorted({claimed for claimed, _ in pairs})
    return columns, [ProposedRow(name, [pairs[name, column] for column in columns], flagged[name]) for name in claims]


def licence_rows(release: Release, rows: Sequence[ManifestRow]) -> list[LicenceRow]:
    """Every licence of the release, by name."""
    sources = Counter(source.license for source in release.sources)
    clips = Counter(row.license for row in rows)
    return [
        LicenceRow(licence=name, num_sources=count, num_clips=clips[name], commercial_use=commercial_use(name))
        for name, count in sorted(sources.items())
    ]


def model_rows(release: Release, models: Sequence[ModelCard]) -> list[ModelCard]:
    """One card per model that made the release; one that is not described is unknown in all but name and sha256."""
    known = {model.name: model for model in models}
    return [
        known.get(name)
        or ModelCard(
            name=name,
            file="",
            sha256=sha256,
            package="",
            licence="not known",
            commercial_use=None,
            domains=(),
            measured="",
        )
        for name, sha256 in sorted(release.models.items())
    ]


def present_fields(release: Release) -> set[str]:
    """Suffixes of which a release is known to hold some; optional ones follow from the models that were used."""
    present = {field.suffix for field in FIELDS if not field.optional}
    return present | ({"identity.npy"} if release.with_identity else set())


def known_limits(domains: Collection[str]) -> list[str]:
    """What the clips of these domains are known not to be, a paragraph each."""
    return [text for topic, text in _LIMITS.items() if topic != "disney_animal" or topic in domains]


def about_people(domains: Collection[str]) -> str:
    """What users owe to the people who are seen and heard."""
    if "real" in domains:
        return (
            "Clips of real people are in it. Faces and voices are personal data in many places, and what identifies a "
            "person is biometric data in some, whatever the licence of the film says. Do not use the clips to identify "
            "anyone, or to make it seem that someone said what they did not say."
        )
    return "No domain of filmed people is in it. The voices belong to people nevertheless."


def reading_examples(release: Release) -> dict[str, str]:
    """Python that reads this release, run in its folder, by what it shows; empty where there is no shard."""
    shard = next((shard for shard in release.shards if shard.series == "visual"), None)
    if shard is None:
        return {}
    in_order = f"""\
import io
import json

import numpy as np
import webdataset as wds

for sample in wds.WebDataset("{shard.path}", shardshuffle=False):
    pose = np.load(io.BytesIO(sample["pose.npy"]), allow_pickle=False)  # [T, 7]
    info = json.loads(sample["json"])
    print(sample["__key__"], pose.shape, info["domain"])
"""
    by_number = f"""\
import wids

clips = wids.ShardListDataset("{index_file(shard.split, "visual")}", cache_dir="cache")
print(len(clips), clips[0][".landmarks.npy"].shape)
"""
    by_score = f"""\
import pyarrow.compute as pc
import pyarrow.parquet as pq

clips = pq.read_table("{MANIFEST_FILE}")
print(clips.filter(pc.field("split") == "{shard.split}").select(["clip_id", "domain", "duration_s"]))
"""
    return {
        "Clips in the order of a shard:": in_order,
        "By number instead of in order; wids' own default cache is a folder shared with everybody on the "
        "machine:": by_number,
        "Choosing clips by their scores, without opening a shard:": by_score,
    }


def one_line(text: str) -> str:
    """Text as one line without control and formatting characters, which can reorder what surrounds them."""
    plain = "".join(" " if char.isspace() else char for char in text)
    plain = " ".join("".join(char for char in plain if is_visible(char)).split())
    return plain if len(plain) <= MAX_TEXT else plain[: MAX_TEXT - 1] + "…"


def is_visible(char: str) -> bool:
    """Whether a character is more than a command to whatever shows it."""
    return unicodedata.category(char) not in ("Cc", "Cf", "Cs")


def number(value: float | None) -> str:
    """Four significant digits, thousands apart; a dash for None."""
    if value is None:
        return "–"
    return f"{value:,.0f}" if value == int(value) or abs(value) >= 1000 else f"{value:.4g}"


def yes_no(value: bool | None) -> str:
    """A permission in words; what is not known is not allowed."""
    return {True: "yes", False: "no", None: "not known: assume no"}[value]
