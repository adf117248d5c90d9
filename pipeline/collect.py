"""What only the whole collection can tell: who is who, what is there twice, what sync looks like, what is usual.

All of it is stored under one key made of the set of clips and these stages' settings, so that it is looked up
until a clip comes or goes, and no clip is ever made again because of another one.
"""

from collections import defaultdict
from collections.abc import Callable, Sequence
from functools import lru_cache

from pipeline.calibration import calibrate
from pipeline.duplicates import Take, components, find_duplicates
from pipeline.errors import WorkspaceError
from pipeline.identities import Sighting, identify
from pipeline.prints import from_bytes
from pipeline.results import STAGE_VERSIONS, Results
from pipeline.ridge import score_ridge
from pipeline.split import Member, groups_of
from pipeline.survey import MadeClip, Survey
from pipeline.workspace import Workspace
from schemas.base import content_hash
from schemas.clip import Clip
from schemas.collection import Collection, DuplicateGroup
from schemas.config import IdentityConfig, RidgeConfig
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
    return content_hash(["collection", STAGE_VERSIONS["collection"], settings, clips])


def _put_in(made: MadeClip) -> list[str]:
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
        WorkspaceError: when the prints of a clip are missing or damaged.
    """
    known = stored_collection(results, found)
    if known is not None:
        return known
    clips = sorted(found.clips, key=lambda made: made.clip.clip_id)
    config = results.config.collection
    read = _Reader(results.workspace, clips, report or (lambda *_: None))
    read.begin("identities", len(clips))
    identities = _identities(clips, read, config.identities)
    read.begin("duplicates", len(clips))
    takes = [_take(made) for made in clips]
    duplicates = find_duplicates(takes, read, config.duplicates)
    teachers = {made.clip.clip_id for made in clips if _teaches(made.clip, config.ridge)}
    read.begin("sync", len(clips) + 2 * len(teachers))
    groups = ridge_groups(clips, duplicates)
    ridge = score_ridge(groups, teachers, read, config.ridge, results.config.crop.fps)
    made = Collection(
        identities=identities,
        duplicates=tuple(duplicates),
        ridge=ridge,
        calibration=calibrate((one.clip for one in clips), ridge),
    )
    results.workspace.publish("collection", collection_key(results, found), made)
    return made


def copied_sources(clips: Sequence[MadeClip], duplicates: Sequence[DuplicateGroup]) -> dict[str, str]:
    """By source id: one name for all sources that share a take, directly or through others.

    Whoever uploads a film again uploads all of it, so its other clips are tied even where no copy of them was found.
    """
    source_of = {made.clip.clip_id: made.source.id for made in clips}
    links = (link for group in duplicates for link in group.links)
    return components((source_of[link.clip_id], source_of[link.twin_id]) for link in links)


def member_of(made: MadeClip, identity_id: str, copies: dict[str, str]) -> Member:
    """What ties a clip to others, for the split and for the model that must not judge what it was taught."""
    return Member(
        clip_id=made.clip.clip_id,
        domain=made.clip.domain,
        source_id=made.source.id,
        identity_id=identity_id,
        title=made.source.title,
        sha256=made.source_sha256,
        copies=copies.get(made.source.id, ""),
    )


def ridge_groups(clips: Sequence[MadeClip], duplicates: Sequence[DuplicateGroup]) -> dict[str, list[str]]:
    """Clip ids by the name of what ties them together; people are told apart within sources, which tie anyway."""
    copies = copied_sources(clips, duplicates)
    groups = groups_of([member_of(made, "", copies) for made in clips], seed=0)
    return {group.name: [member.clip_id for member in group.members] for group in groups}


def _teaches(clip: Clip, config: RidgeConfig) -> bool:
    """Whether it holds speech that, as far as the untrained score knows, is the mouth's own."""
    spoken, sync_z = clip.scores.speech_ratio or 0.0, clip.scores.sync.z
    return spoken >= config.min_teaching_speech_ratio and (sync_z is None or sync_z >= config.min_teaching_sync_z)


def _identities(clips: Sequence[MadeClip], read: "_Reader", config: IdentityConfig) -> dict[str, str]:
    by_source: defaultdict[str, list[Sighting]] = defaultdict(list)
    for made in clips:
        plan = made.clip.plan
        face = read(plan.clip_id).face
        sighting = Sighting(plan.clip_id, plan.shot_index, plan.track_index, plan.span, face)
        by_source[made.source.id].append(sighting)
    identities: dict[str, str] = {}
    for source_id, sightings in sorted(by_source.items()):
        identities |= identify(source_id, sightings, config, by_source.keys())
    return dict(sorted(identities.items()))


def _take(made: MadeClip) -> Take:
    plan = made.clip.plan
    return Take(plan.clip_id, made.source.id, made.source_sha256, plan.span, plan.square)


class _Reader:
    """Prints by clip id, the last ones kept in memory; every one that is asked for counts as progress."""

    def __init__(self, workspace: Workspace, clips: Sequence[MadeClip], report: Report) -> None:
        self._workspace, self._report = workspace, report
        self._clips = {made.clip.clip_id: made for made in clips}
        self._load = lru_cache(maxsize=_KEPT)(self._load_now)
        self._stage, self._done, self._total = "", 0, 0

    def begin(self, stage: str, total: int) -> None:
        """Count from 0 again."""
        self._stage, self._done, self._total = stage, 0, total
        self._report(stage, 0, total)

    def __call__(self, clip_id: str) -> Prints:
        self._done = min(self._done + 1, self._total)
        self._report(self._stage, self._done, self._total)
        return self._load(clip_id)

    def _load_now(self, clip_id: str) -> Prints:
        made = self._clips[clip_id]
        try:
            return from_bytes(made.read(self._workspace, PRINTS_FILE))
        except (FileNotFoundError, ValueError) as error:
            raise WorkspaceError(
                f"clip {clip_id}: {PRINTS_FILE} is missing from the workspace or damaged: "
                f"delete the folder {made.folder} and run 'anitalk build' again"
            ) from error
