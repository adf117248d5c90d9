"""Which pair comes when: pure functions of seed, reader and position.

Nothing here remembers anything, so the position of a reader is two numbers per domain, and a run that goes on from
there draws what it would have drawn. A reader is one worker of one rank; shards are dealt to readers once, so no
shard is fetched by two of them.
"""

import heapq
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import NamedTuple

import numpy as np


class Purpose(IntEnum):
    """What a generator is for: equal positions of different things must not share their numbers."""

    MIX = 0
    BLOCK = 1
    FRAMES = 2
    AUGMENT = 3
    WINDOWS = 4


def generator(seed: int, reader: int, purpose: Purpose, *position: int) -> np.random.Generator:
    """The random numbers of one position: ``default_rng`` of it, which takes twice as long to read a list."""
    where = [seed, reader, purpose, *position]
    words = np.array(where, np.uint32) if max(where) < 1 << 32 else where
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence(words)))


def deal(sizes: Sequence[int], num_readers: int) -> list[list[int]]:
    """Places in ``sizes`` for each reader: every shard to one, each reader about equally many clips.

    The largest shard goes first, always to the reader with the fewest clips so far.
    """
    hands: list[list[int]] = [[] for _ in range(num_readers)]
    held = [(0, 0, reader) for reader in range(num_readers)]
    for index in sorted(range(len(sizes)), key=lambda index: (-sizes[index], index)):
        clips, shards, reader = heapq.heappop(held)
        hands[reader].append(index)
        heapq.heappush(held, (clips + sizes[index], shards + 1, reader))
    return [sorted(hand) for hand in hands]


def mixture(counts: Mapping[str, int], weights: Mapping[str, float], alpha: float) -> np.ndarray:
    """Probability of each domain, in the order of ``counts``: clips ** alpha * weight, normalised."""
    shares = np.array([count**alpha * weights.get(domain, 1.0) for domain, count in counts.items()])
    return shares / shares.sum()


class RowRef(NamedTuple):  # made for every pair in a burst, at a third of a dataclass's cost
    """One pair before it is read: pair ``slot`` of clip ``clip`` of shard ``shard``, opened at ``visit`` of its block.

    ``shard`` is a place in the reader's own shards of the domain, ``clip`` a place in the shard. ``visit`` tells two
    openings of the same clip apart.
    """

    visit: int
    shard: int
    clip: int
    slot: int


@dataclass(frozen=True, slots=True)
class BlockShape:
    """How a domain's endless stream is cut into blocks that are shuffled as a whole."""

    pairs_per_clip: int
    clips_per_shard: int
    shuffle_pairs: int


def block_of(shape: BlockShape, sizes: Sequence[int], numbers: np.random.Generator) -> list[RowRef]:
    """The pairs of one block, shuffled.

    Shards are drawn with replacement, so that every clip has the same chance whatever the sizes of shards; of each,
    up to ``clips_per_shard`` different clips, until there are at least ``shuffle_pairs`` pairs.

    Args:
        shape: of the block.
        sizes: clips in each of the reader's shards.
        numbers: the block's own.
    """
    clips = np.asarray(sizes, dtype=np.int64)
    drawn = np.minimum(clips, shape.clips_per_shard)
    chance = clips / np.maximum(drawn, 1)
    chance /= chance.sum()
    refs: list[RowRef] = []
    visit = 0
    while len(refs) < shape.shuffle_pairs:
        shard = int(numbers.choice(len(clips), p=chance))
        for clip in numbers.choice(clips[shard], drawn[shard], replace=False):
            refs += [RowRef(visit, shard, int(clip), slot) for slot in range(shape.pairs_per_clip)]
        visit += 1
    # The last shard is not cut short: openings stay independent draws, and so every clip keeps its chance (Wald).
    return [refs[index] for index in numbers.permutation(len(refs))]


@dataclass(frozen=True, slots=True)
class RowGroup:
    """Rows of a batch that are drawn alike.

    Attributes:
        name: of the group.
        rows: of each batch.
        domains: numbers [D] of its domains.
        chances: of each of them [D], together 1.
    """

    name: str
    rows: int
    domains: np.ndarray
    chances: np.ndarray


def draw_domains(
    groups: Sequence[RowGroup], rows_per_draw: int, numbers: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Numbers of the domain and of the group of each row [B], group after group.

    Args:
        groups: in the order of the rows.
        rows_per_draw: neighbouring rows that share one draw; divides every group's rows.
        numbers: the batch's own.
    """
    domains = [
        group.domains[numbers.choice(len(group.chances), size=group.rows // rows_per_draw, p=group.chances)]
        for group in groups
    ]
    members = np.repeat(np.arange(len(groups)), [group.rows for group in groups])
    return np.concatenate(domains).repeat(rows_per_draw), members


def draw_frames(frames: np.ndarray, num_pairs: int, numbers: np.random.Generator) -> np.ndarray:
    """[num_pairs, 2] of ``frames``, uniformly, the two of a pair never the same; needs at least two."""
    first = numbers.integers(len(frames), size=num_pairs)
    step = numbers.integers(1, len(frames), size=num_pairs)
    return frames[np.column_stack([first, (first + step) % len(frames)])]


def draw_starts(num_frames: int, length: int, count: int, numbers: np.random.Generator) -> np.ndarray:
    """First frames [count] of windows of ``length`` frames in a clip of ``num_frames``, all equally likely."""
    return numbers.integers(num_frames - length + 1, size=count)


def draw_apart(num_frames: int, length: int, count: int, numbers: np.random.Generator) -> np.ndarray:
    """First frames [count, 2] of two windows of one clip that do not overlap, all such equally likely.

    Needs ``num_frames`` of at least twice ``length``.
    """
    spare = num_frames - 2 * length
    # Two windows leave ``spare`` frames before, between and behind them: a pair of cuts says how many lie where.
    cuts = numbers.integers((spare + 1) * (spare + 2) // 2, size=count)
    between = np.floor((np.sqrt(8 * cuts + 1) - 1) / 2).astype(np.int64)
    first = cuts - between * (between + 1) // 2
    apart = np.column_stack([first, between + length])
    return np.where(numbers.random(count)[:, None] < 0.5, apart, apart[:, ::-1])
