"""Which source is moved by whose frames: the pairs of an evaluation, drawn once by a seed and written down.

Every group of domains draws from numbers of its own, so that a release that gains a domain keeps the pairs of the
others. A written list is all that another needs to measure the same.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import permutations
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import Field, NonNegativeInt, ValidationError

from schemas.base import Id, Record, content_hash
from schemas.errors import UsageError

Protocol = Literal["same-identity", "cross-identity", "cross-domain"]

_NEEDS: dict[Protocol, str] = {
    "same-identity": "a clip with two frames that show a face",
    "cross-identity": "clips of two identities in one domain",
    "cross-domain": "clips of two domains",
}


class EvaluationPair(Record):
    """One source frame, and the frames of a clip that move it; a line of ``pairs.jsonl``."""

    protocol: Protocol
    seed: NonNegativeInt
    source_clip: Id
    source_frame: NonNegativeInt
    source_domain: str
    driving_clip: Id
    driving_frames: tuple[NonNegativeInt, ...] = Field(min_length=1)
    driving_domain: str

    @property
    def group(self) -> tuple[str, str]:
        """Domains that are measured apart: driving, then source."""
        return self.driving_domain, self.source_domain


@dataclass(frozen=True, slots=True)
class PairedClip:
    """A clip that may be drawn, and its frames in which a face was seen."""

    clip_id: str
    domain: str
    identity_id: str
    seen: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class PairDraw:
    """What is drawn: at most ``num_pairs`` pairs per group of domains, each with at most ``num_frames`` frames.

    ``driving_domains`` and ``source_domains`` limit the groups; empty, all are drawn from.
    """

    protocol: Protocol
    seed: int
    num_pairs: int
    num_frames: int
    driving_domains: tuple[str, ...] = ()
    source_domains: tuple[str, ...] = ()


def draw_pairs(clips: Sequence[PairedClip], draw: PairDraw) -> list[EvaluationPair]:
    """The pairs of a protocol, sorted by group and clips.

    The source is its clip's first frame with a face. In ``same-identity`` the same clip's other frames move it, in
    ``cross-identity`` those of another identity of its domain, in ``cross-domain`` those of another domain.

    Raises:
        UsageError: for a domain that is not there, or when no clips fit the protocol.
    """
    usable = sorted((clip for clip in clips if clip.seen), key=lambda clip: clip.clip_id)
    domains = sorted({clip.domain for clip in usable})
    for domain in (*draw.driving_domains, *draw.source_domains):
        if domain not in domains:
            raise UsageError(
                f"there is no clip with a face of the domain {domain!r} to evaluate on: {', '.join(domains)}"
            )
    pairs = [pair for group in _groups(domains, draw) for pair in _of_group(usable, draw, *group)]
    if not pairs:
        counts = ", ".join(
            f"{domain} {len(own)} (identities: {len({clip.identity_id for clip in own})})"
            for domain in domains
            if (own := [clip for clip in usable if clip.domain == domain])
        )
        raise UsageError(
            f"the protocol {draw.protocol} needs {_NEEDS[draw.protocol]}, and there are {counts or 'none'}: "
            "choose another protocol, split or release"
        )
    return pairs


def _groups(domains: Sequence[str], draw: PairDraw) -> Iterator[tuple[str, str]]:
    pairs = permutations(domains, 2) if draw.protocol == "cross-domain" else ((domain, domain) for domain in domains)
    for driving, source in pairs:
        if (not draw.driving_domains or driving in draw.driving_domains) and (
            not draw.source_domains or source in draw.source_domains
        ):
            yield driving, source


def _of_group(usable: Sequence[PairedClip], draw: PairDraw, driving: str, source: str) -> list[EvaluationPair]:
    drivers = [clip for clip in usable if clip.domain == driving]
    sources = [clip for clip in usable if clip.domain == source]
    possible = [(driver, other) for driver in drivers for other in sources if _fit(driver, other, draw.protocol)]
    number = int(content_hash([draw.seed, draw.protocol, driving, source])[:16], 16)
    order = np.random.default_rng(number).permutation(len(possible))[: draw.num_pairs]
    return [_pair(draw, *possible[index]) for index in sorted(order)]


def _fit(driver: PairedClip, source: PairedClip, protocol: Protocol) -> bool:
    if protocol == "same-identity":
        return driver is source and len(driver.seen) > 1
    return protocol == "cross-domain" or driver.identity_id != source.identity_id


def _pair(draw: PairDraw, driver: PairedClip, source: PairedClip) -> EvaluationPair:
    # A frame that is the source itself says nothing: whoever copies the source is perfect there.
    frames = driver.seen[1:] if driver is source else driver.seen
    return EvaluationPair(
        protocol=draw.protocol,
        seed=draw.seed,
        source_clip=source.clip_id,
        source_frame=source.seen[0],
        source_domain=source.domain,
        driving_clip=driver.clip_id,
        driving_frames=spread(frames, draw.num_frames),
        driving_domain=driver.domain,
    )


def spread(frames: Sequence[int], at_most: int) -> tuple[int, ...]:
    """``at_most`` of ``frames``, in the middle of equal parts of them; all where there are no more."""
    count = min(len(frames), at_most)
    return tuple(frames[(2 * index + 1) * len(frames) // (2 * count)] for index in range(count))


def write_pairs(path: Path, pairs: Sequence[EvaluationPair]) -> None:
    """One JSON object per line."""
    path.write_text("".join(f"{pair.model_dump_json()}\n" for pair in pairs), encoding="utf-8")


def read_pairs(path: Path, protocol: Protocol) -> list[EvaluationPair]:
    """The pairs that ``write_pairs`` wrote.

    Raises:
        UsageError: when the file cannot be read, or is of another protocol.
    """
    pairs: list[EvaluationPair] = []
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"--pairs: {path} cannot be read: name a pairs.jsonl of an evaluation") from error
    for number, line in enumerate(lines, 1):
        try:
            pairs.append(EvaluationPair.model_validate_json(line))
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            where = ".".join(map(str, first["loc"])) or "the line"
            raise UsageError(f"--pairs: {path}, line {number}: {where}: {first['msg']}") from error
    if not pairs:
        raise UsageError(f"--pairs: {path} holds no pairs")
    others = {pair.protocol for pair in pairs} - {protocol}
    if others:
        raise UsageError(f"--pairs: {path} holds pairs of the protocol {min(others)}, and {protocol} was asked for")
    return pairs
