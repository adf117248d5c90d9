"""Divide clips into train, val and test so that nobody is met twice.

A model that has seen a person, a film or a file in training is not tested by it, so clips that share
any of these form a group, and a group is in one split at most. Everything follows from hashes of
names: neither the order of the input nor a random state plays a part.
"""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field

from pipeline.curate.components import Components
from schemas.config import PAPER_TEST, PAPER_TRAIN, SplitConfig
from schemas.release import SPLITS, Split, ties

Quotas = dict[Split, dict[str, int]]
HELD_OUT: tuple[Split, ...] = ("test", "val")  # in the order in which they are served


@dataclass(frozen=True, slots=True)
class Member:
    """One accepted clip, as far as splitting is concerned. Empty names tie nothing together.

    ``copies`` is one name for all sources that show the same take somewhere, ``people`` for all that show the same
    person as far as face embeddings tell.
    """

    clip_id: str
    domain: str
    source_id: str
    identity_id: str
    title: str
    sha256: str
    copies: str = ""
    people: str = ""


@dataclass(frozen=True, slots=True)
class Shortfall:
    """A split that got fewer clips of a domain than were asked for."""

    domain: str
    split: Split
    requested: int
    got: int


@dataclass(frozen=True, slots=True)
class SplitResult:
    """Where every clip went: ``assignment`` and ``left_out`` share no clip and together hold all of them."""

    assignment: dict[str, Split]
    left_out: frozenset[str]
    shortfalls: tuple[Shortfall, ...]
    requested: dict[str, dict[str, int]]  # clips by split, then domain; empty when ratios were used


@dataclass(slots=True, eq=False)
class SplitGroup:
    """Clips that must stay together, in seeded order; ``name`` is the smallest of what ties them."""

    name: str
    members: list[Member]
    counts: Counter[str] = field(init=False)

    def __post_init__(self) -> None:
        self.counts = Counter(member.domain for member in self.members)


def split(members: Iterable[Member], config: SplitConfig) -> SplitResult:
    """Assign clips to splits.

    With requested counts: test, then val, take whole groups that fit what is still asked for; train takes
    groups until it is full and leaves the rest of the last one out; then groups nobody has taken are cut
    to size where test or val still lack clips. Where a domain has fewer clips than all splits ask for
    together, test and val get their proportion, rounded down, so that train does not starve.

    With ratios: test, then val, take whole groups as long as they fit the domain's ratio. A domain of one
    group is all train; of two or more, the smallest group goes to test if nothing fitted, and of three or
    more the same holds for val. Train keeps at least one group of every domain.

    Raises:
        ValueError: when two members have the same clip id.
    """
    groups = groups_of(members, config.seed)
    wanted = requested_counts(config)
    placed = _by_counts(groups, wanted) if wanted else _by_ratios(groups, config)
    everyone = [member for group in groups for member in group.members]
    got = Counter((placed[member.clip_id], member.domain) for member in everyone if member.clip_id in placed)
    return SplitResult(
        assignment=dict(sorted(placed.items())),
        left_out=frozenset(member.clip_id for member in everyone) - placed.keys(),
        shortfalls=tuple(
            Shortfall(domain=domain, split=name, requested=count, got=got[name, domain])
            for name in SPLITS
            for domain, count in sorted(wanted.get(name, {}).items())
            if got[name, domain] < count
        ),
        requested={name: dict(sorted(counts.items())) for name, counts in wanted.items() if counts},
    )


def requested_counts(config: SplitConfig) -> Quotas:
    """Clips asked for by split and domain, from the preset or the configuration; empty: use the ratios."""
    if config.preset == "paper":
        return {"train": dict(PAPER_TRAIN), "test": dict(PAPER_TEST)}
    named: Quotas = {"train": config.train, "val": config.val, "test": config.test}
    return {name: dict(counts) for name, counts in named.items()} if any(named.values()) else {}


def groups_of(members: Iterable[Member], seed: int) -> list[SplitGroup]:
    """Connected components over shared identity, source, title, file, takes and people, in seeded order.

    Raises:
        ValueError: when two members have the same clip id.
    """
    by_id: dict[str, Member] = {}
    for member in members:
        if member.clip_id in by_id:
            raise ValueError(f"clip {member.clip_id} is given twice")
        by_id[member.clip_id] = member
    tied = Components()
    for member in by_id.values():
        first, *others = _ties(member)
        for other in others:
            tied.join(first, other)
    gathered: defaultdict[str, list[Member]] = defaultdict(list)
    for member in by_id.values():
        gathered[tied.name_of(_ties(member)[0])].append(member)
    groups = [
        SplitGroup(name, sorted(mates, key=lambda mate: _rank(seed, mate.clip_id))) for name, mates in gathered.items()
    ]
    return sorted(groups, key=lambda group: _rank(seed, group.name))


def _ties(member: Member) -> tuple[str, ...]:
    shared = ties(source_id=member.source_id, identity_id=member.identity_id, title=member.title, sha256=member.sha256)
    named = (("copies", member.copies), ("people", member.people))
    across = tuple(f"{name}:{value}" for name, value in named if value)
    return (*shared, *across) or (f"clip:{member.clip_id}",)


def _rank(seed: int, name: str) -> tuple[str, str]:
    return hashlib.sha256(f"{seed}:{name}".encode()).hexdigest(), name


# ---- requested counts ----------------------------------------------------------------------------------------------


def _by_counts(groups: list[SplitGroup], wanted: Quotas) -> dict[str, Split]:
    room = _fair_room(groups, wanted)
    placed: dict[str, Split] = {}
    free = list(groups)
    for name in HELD_OUT:
        free = [group for group in free if not _place_whole(group, name, room[name], placed)]
    train_takes_all = not wanted.get("train")
    untouched: list[SplitGroup] = []
    for group in free:
        if train_takes_all:
            placed.update((member.clip_id, "train") for member in group.members)
        elif not _place_part(group, "train", room["train"], placed):
            untouched.append(group)
    for name in HELD_OUT:
        untouched = [group for group in untouched if not _place_part(group, name, room[name], placed)]
    return placed


def _fair_room(groups: list[SplitGroup], wanted: Quotas) -> Quotas:
    """What each split may take: what it asked for, or its share where a domain has too few clips."""
    supply: Counter[str] = Counter()
    for group in groups:
        supply.update(group.counts)
    room: Quotas = {name: dict(wanted.get(name, {})) for name in SPLITS}
    for domain, available in supply.items():
        total = sum(counts.get(domain, 0) for counts in room.values())
        if total > available and room["train"].get(domain):
            for name in HELD_OUT:
                if domain in room[name]:
                    room[name][domain] = room[name][domain] * available // total
    return room


def _place_whole(group: SplitGroup, name: Split, room: dict[str, int], placed: dict[str, Split]) -> bool:
    if any(room.get(domain, 0) < count for domain, count in group.counts.items()):
        return False
    for member in group.members:
        room[member.domain] -= 1
        placed[member.clip_id] = name
    return True


def _place_part(group: SplitGroup, name: Split, room: dict[str, int], placed: dict[str, Split]) -> bool:
    taken = False
    for member in group.members:
        if room.get(member.domain, 0) > 0:
            room[member.domain] -= 1
            placed[member.clip_id] = name
            taken = True
    return taken


# ---- ratios --------------------------------------------------------------------------------------------------------


def _by_ratios(groups: list[SplitGroup], config: SplitConfig) -> dict[str, Split]:
    ratios: dict[Split, float] = {"test": config.test_ratio, "val": config.val_ratio}
    supply: Counter[str] = Counter()
    for group in groups:
        supply.update(group.counts)
    train = _Train(groups)
    for name in HELD_OUT:
        room = {domain: round(ratios[name] * count) for domain, count in supply.items()}
        for group in groups:
            fits = all(room[domain] >= count for domain, count in group.counts.items())
            if fits and train.may_leave(group):
                train.move(group, name)
                for domain, count in group.counts.items():
                    room[domain] -= count
    for name in HELD_OUT:
        for domain in sorted(supply) if ratios[name] > 0 else ():
            train.ensure_one(domain, name)
    return {member.clip_id: train.homes[group.name] for group in groups for member in group.members}


class _Train:
    """Everything is train's at first; groups leave it as long as one of each of their domains stays."""

    def __init__(self, groups: list[SplitGroup]) -> None:
        self.groups = groups
        self.homes: dict[str, Split] = {group.name: "train" for group in groups}
        self._staying = Counter(domain for group in groups for domain in group.counts)

    def may_leave(self, group: SplitGroup) -> bool:
        return self.homes[group.name] == "train" and all(self._staying[domain] > 1 for domain in group.counts)

    def move(self, group: SplitGroup, name: Split) -> None:
        self.homes[group.name] = name
        self._staying.subtract(group.counts.keys())

    def ensure_one(self, domain: str, name: Split) -> None:
        """Give a split the domain's smallest group where nothing fitted; ties fall to the seeded order."""
        own = [group for group in self.groups if domain in group.counts]
        candidates = [group for group in own if self.may_leave(group)]
        if candidates and all(self.homes[group.name] != name for group in own):
            self.move(min(candidates, key=lambda group: len(group.members)), name)
