"""Everything that a release says of itself, made from the release alone.

A take-down rewrites a release long after its workspace is gone, and nothing of the source that was taken out may
stay in a picture. So the cards are made of the record, ``about.json``, the manifest's rows and the published
shards, when a release is first written as well: there is no second way that could tell something else.
"""

from collections.abc import Mapping, Sequence

from pipeline.card.gallery import draw_gallery
from pipeline.card.markdown import draw_funnel, write_card
from pipeline.card.web import write_web_card
from pipeline.store.storage import Storage
from schemas.base import canonical_json
from schemas.release import ABOUT_FILE, CARD_FILE, FUNNEL_FILE, WEB_CARD_FILE, About, ManifestRow, Release


def describe_release(storage: Storage, release: Release, about: About, rows: Sequence[ManifestRow]) -> dict[str, bytes]:
    """All files of a release that are for people, by path: about.json, the pictures and both cards.

    Args:
        storage: the release's own folder; the visual shards must lie there already, a few clips are read.
        release: the record; its ``files`` need not name what this returns.
        about: what the cards tell beside it.
        rows: all clips of the release, in any order.

    Raises:
        WorkspaceError: when a shard does not hold the clip that a row says.
    """
    pictures = draw_gallery(storage, rows)
    if about.funnel.steps:
        pictures[FUNNEL_FILE] = draw_funnel(about.funnel)
    return {ABOUT_FILE: canonical_json(about), **pictures, **write_cards(release, about, rows, pictures)}


def write_cards(
    release: Release, about: About, rows: Sequence[ManifestRow], pictures: Mapping[str, bytes]
) -> dict[str, bytes]:
    """The cards by path; the same bytes for the same arguments, whatever the order of the rows.

    Args:
        release: the record; its ``files`` are not looked at.
        about: what the cards tell beside it.
        rows: all clips of the release.
        pictures: what ``draw_gallery`` and ``draw_funnel`` made of this release, by path; none is required.
    """
    return {
        CARD_FILE: write_card(release, about, rows, pictures=pictures).encode(),
        WEB_CARD_FILE: write_web_card(release, about, rows, pictures=pictures).encode(),
    }
