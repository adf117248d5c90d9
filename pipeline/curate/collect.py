"""What only the whole collection can tell: who is who, what is there twice, what sync looks like, what is usual.

All of it is stored under one key made of the set of clips and these stages' settings, so that it is looked up
until a clip comes or goes, and no clip is ever made again because of another one.
"""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache

import numpy as np
from jaxtyping import Float

from pipeline.build.results import Results
from pipeline.build.survey import FinishedClip, Survey
from pipeline.clip.embedding import EMBEDDING_FILE, read_embedding
from pipeline.clip.prints_file import from_bytes
from pipeline.curate import VERSIONS
from pipeline.curate.distributions import calibrate
from pipeline.curate.duplicates import Take, components, find_duplicates
from pipeline.curate.identities import Sighting, distance_of, identify, seen_in_both
from pipeline.curate.ridge import score_ridge
from pipeline.curate.split import Member, groups_of
from pipeline.models.identity import Embedding
from pipeline.store.workspace import Workspace
from schemas.base import content_hash
from schemas.clip import Clip
from schemas.collection import Collection, DuplicateGroup
from schemas.config import IdentityConfig, RidgeConfig
from schemas.errors import WorkspaceError
from schemas.prints import PRINTS_FILE, Prints

_KEPT = 2048  # prints in memory at once: at most 120 MB

Report = Callable[[str, float | None, float | None], None]


def collection_key(results: Results, found: Survey) -> str:
    """Depends on the finished clips, on what ties them together, and on the settings; not on their order."""
    clips = sorted(
        [made.trim_key or made.key, made.source.id, made.source.title, made.source_sha256, *_put_in(made)]
        for made in found.clips
    )
    settings = [results.config.collection, results.config.crop.fps]
    limits = results.config.collection.identities
    embedded = any(_is_embedded(made) for made in found.clips)
    # Said by value only where they count: defaults are left out of the configuration's JSON.
    cosines = [[limits.min_cosine, limits.min_tie_cosine]] if embedded else []
    return content_hash(["collection", VERSIONS["collection"], settings, clips, *cosines])


def _put_in(made: FinishedClip) -> list[str]:
    """The domain that people put a clip in, where it is not its source's: what is usual depends on it."""
    return [made.clip.domain] if made.clip.domain != made.source.domain else []


def stored_collection(results: Results, found: Survey) -> Collection | None:
    """What is known of exactly these clips, if it has been computed; nothing is computed or written."""
    return results.workspace.result("collection", collection_key(results, found), Collection)


def collect(results: Results, found: Survey, report: Report | None = None) -> Collection:
    """The collection of these clips, looked up or computed and stored.

    Args:
        results: of a workspace that is open for writing.
        found: its finished clips.
        report: told the stage, how far it is, and how far it goes.

    Raises:
        WorkspaceError: when the prints or the embedding of a clip are missing or damaged.
    """
    known = stored_collection(results, found)
    if known is not None:
        return known
    clips = sorted(found.clips, key=lambda made: made.clip.clip_id)
    config = results.config.collection
    read = _Reader(results.workspace, clips, report or (lambda *_: None))
    read.begin("identities", len(clips))
    identities = _identities(clips, read, config.identities)
    people = _people(clips, identities, read, config.identities)
    read.begin("duplicates", len(clips))
    takes = [_take(made) for made in clips]
    duplicates = find_duplicates(takes, read, config.duplicates)
    teachers = {made.clip.clip_id for made in clips if _teaches(made.clip, config.ridge)}
    read.begin("sync", len(clips) + 2 * len(teachers))
    groups = ridge_groups(clips, duplicates, people)
    ridge = score_ridge(groups, teachers, read, config.ridge, results.config.crop.fps)
    made = Collection(
        identities=identities,
        duplicates=tuple(duplicates),
        ridge=ridge,
        calibration=calibrate((one.clip for one in clips), ridge),
        people=people,
    )
    results.workspace.publish("collection", collection_key(results, found), made)
    return made


def copied_sources(clips: Sequence[FinishedClip], duplicates: Sequence[DuplicateGroup]) -> dict[str, str]:
    """By source id: one name for all sources that share a take, directly or through others.

    Whoever uploads a film again uploads all of it, so its other clips are tied even where no copy of them was found.
    """
    source_of = {made.clip.clip_id: made.source.id for made in clips}
    links = (link for group in duplicates for link in group.links)
    return components((source_of[link.clip_id], source_of[link.twin_id]) for link in links)


def member_of(made: FinishedClip, identity_id: str, copies: Mapping[str, str], people: Mapping[str, str]) -> Member:
    """What ties a clip to others, for the split and for the model that must not judge what it was taught."""
    return Member(
        clip_id=made.clip.clip_id,
        domain=made.clip.domain,
        source_id=made.source.id,
        identity_id=identity_id,
        title=made.source.title,
        sha256=made.source_sha256,
        copies=copies.get(made.source.id, ""),
        people=people.get(made.source.id, ""),
    )


def ridge_groups(
    clips: Sequence[FinishedClip], duplicates: Sequence[DuplicateGroup], people: Mapping[str, str] | None = None
) -> dict[str, list[str]]:
    """Clip ids by the name of what ties them together; identities are told apart within sources, which tie anyway."""
    copies = copied_sources(clips, duplicates)
    groups = groups_of([member_of(made, "", copies, people or {}) for made in clips], seed=0)
    return {group.name: [member.clip_id for member in group.members] for group in groups}


def _teaches(clip: Clip, config: RidgeConfig) -> bool:
    """Whether it holds speech that, as far as the untrained score knows, is the mouth's own."""
    spoken, sync_z = clip.scores.speech_ratio or 0.0, clip.scores.sync.z
    return spoken >= config.min_teaching_speech_ratio and (sync_z is None or sync_z >= config.min_teaching_sync_z)


def _identities(clips: Sequence[FinishedClip], read: "_Reader", config: IdentityConfig) -> dict[str, str]:
    by_source: defaultdict[str, list[Sighting]] = defaultdict(list)
    embedded = {made.source.id for made in clips if _is_embedded(made)}
    for made in clips:
        plan = made.clip.plan
        face = _face(made, read, by_embedding=made.source.id in embedded)
        sighting = Sighting(plan.clip_id, plan.shot_index, plan.track_index, plan.span, face)
        by_source[made.source.id].append(sighting)
    identities: dict[str, str] = {}
    for source_id, sightings in sorted(by_source.items()):
        limit = distance_of(config.min_cosine) if source_id in embedded else config.max_distance
        identities |= identify(source_id, sightings, limit, by_source.keys())
    return dict(sorted(identities.items()))


def _face(made: FinishedClip, read: "_Reader", *, by_embedding: bool) -> Float[np.ndarray, " D"]:
    """What tells the people of a source apart: its clips' embeddings, or, where none has one, their prints."""
    if not by_embedding:
        return read(made.clip.clip_id).face
    return read.embedding(made.clip.clip_id) if _is_embedded(made) else np.zeros(0, np.float32)


def _people(
    clips: Sequence[FinishedClip], identities: Mapping[str, str], read: "_Reader", config: IdentityConfig
) -> dict[str, str] | None:
    """By source id: one name for all sources that one person ties, directly or through others."""
    known: defaultdict[tuple[str, str], list[Embedding]] = defaultdict(list)
    for made in filter(_is_embedded, clips):
        known[made.source.id, identities[made.clip.clip_id]].append(read.embedding(made.clip.clip_id))
    return dict(sorted(components(seen_in_both(known, config.min_tie_cosine)).items())) if known else None


def _is_embedded(made: FinishedClip) -> bool:
    return EMBEDDING_FILE in made.clip.files


def _take(made: FinishedClip) -> Take:
    plan = made.clip.plan
    return Take(plan.clip_id, made.source.id, made.source_sha256, plan.span, plan.square)


class _Reader:
    """Prints and embeddings by clip id, the last prints kept in memory; all that is asked for counts as progress."""

    def __init__(self, workspace: Workspace, clips: Sequence[FinishedClip], report: Report) -> None:
        self._workspace, self._report = workspace, report
        self._clips = {made.clip.clip_id: made for made in clips}
        self._load = lru_cache(maxsize=_KEPT)(self._load_now)
        self._stage, self._done, self._total = "", 0, 0

    def begin(self, stage: str, total: int) -> None:
        """Count from 0 again."""
        self._stage, self._done, self._total = stage, 0, total
        self._report(stage, 0, total)

    def __call__(self, clip_id: str) -> Prints:
        self._tell()
        return self._load(clip_id)

    def embedding(self, clip_id: str) -> Embedding:
        """The face embedding of a clip that has one."""
        self._tell()
        try:
            return read_embedding(self._clips[clip_id].read(self._workspace, EMBEDDING_FILE))
        except (FileNotFoundError, ValueError) as error:
            raise self._damaged(clip_id, EMBEDDING_FILE) from error

    def _tell(self) -> None:
        self._done = min(self._done + 1, self._total)
        self._report(self._stage, self._done, self._total)

    def _load_now(self, clip_id: str) -> Prints:
        try:
            return from_bytes(self._clips[clip_id].read(self._workspace, PRINTS_FILE))
        except (FileNotFoundError, ValueError) as error:
            raise self._damaged(clip_id, PRINTS_FILE) from error

    def _damaged(self, clip_id: str, name: str) -> WorkspaceError:
        return WorkspaceError(
            f"clip {clip_id}: {name} is missing from the workspace or damaged: "
            f"delete the folder {self._clips[clip_id].folder} and run 'anitalk build' again"
        )
