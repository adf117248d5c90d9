"""Clips as a folder or a zip that a colleague opens in a browser: one page, its films, no server and no tool.

The page keeps what was decided in the browser and saves it as JSON lines, which ``exchange.importing`` reads.
Titles and the like come from strangers: they travel as JSON in which no ``<`` stands, the page sets them as text, and
its policy runs no script but its own. Media are named after clip ids, which hold no dot and no slash.
"""

import base64
import hashlib
import json
import re
import zipfile
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any

import cv2
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from pipeline.build.survey import FinishedClip
from pipeline.draw.sheet import frames_of
from pipeline.review.exchange.screened import Screened
from pipeline.review.scores import limited_scores
from pipeline.store.storage import clear_write_errors
from schemas.base import content_hash
from schemas.clip import Clip
from schemas.collection import Collection
from schemas.config import SelectLimits
from schemas.errors import WorkspaceError
from schemas.review import REVIEW_REASONS, Review, ReviewAction

ORIGIN = "html"
POSTER_PX = 240
_POSTER_QUALITY = 82
_NEVER = "1970-01-01T00:00:00.000+00:00"  # the page puts the time of the decision there
_MODULES = ("static/dom.js", "exchange/bundle_page/log.js", "exchange/bundle_page/page.js")
_LINKS = re.compile(r'^import \{[^}]*\} from "[^"]*";\n|^export ', re.MULTILINE)
_FIRST_DAY_OF_ZIP = (1980, 1, 1, 0, 0, 0)


def write_bundle(screened: Screened, target: Path) -> None:
    """Write the bundle to a new folder, or to a zip where ``target`` ends in .zip; the same clips give the same bytes.

    Args:
        screened: what there is to be screened.
        target: a folder that is not there or empty, or a file.

    Raises:
        WorkspaceError: when a clip's film is missing, or nothing can be written there.
    """
    with clear_write_errors(str(target)):
        if target.suffix.lower() != ".zip":
            (target / "media").mkdir(parents=True, exist_ok=True)
            for name, data in _members(screened):
                (target / name).write_bytes(data)
            return
        target.parent.mkdir(parents=True, exist_ok=True)
        unfinished = target.with_name(f"{target.name}.part")
        with zipfile.ZipFile(unfinished, "w") as archive:
            for name, data in _members(screened):
                archive.writestr(zipfile.ZipInfo(f"{target.stem}/{name}", _FIRST_DAY_OF_ZIP), data)
        unfinished.replace(target)


def film_of(screened: Screened, finished: FinishedClip) -> bytes:
    """The mp4 of a finished clip.

    Raises:
        WorkspaceError: when it is not there.
    """
    try:
        return screened.workspace.result_file("clip", finished.key, "mp4")
    except FileNotFoundError as error:
        folder = screened.workspace.storage.path(f"results/clip/{finished.key}")
        raise WorkspaceError(f"{folder} is damaged, its mp4 is missing: delete that folder and build again") from error


def _members(screened: Screened) -> Iterator[tuple[str, bytes]]:
    """The files of the bundle; the page is last, so that a folder without it is known to be unfinished."""
    for clip_id, finished in screened.clips.items():
        film = film_of(screened, finished)
        yield f"media/{clip_id}.mp4", film
        yield f"media/{clip_id}.jpg", _poster(film, finished.clip.plan.num_frames)
    yield "index.html", _page(screened).encode()


def _poster(film: bytes, num_frames: int) -> bytes:
    (frame,) = frames_of(film, [num_frames // 2]).values()
    small = cv2.resize(frame, (POSTER_PX, POSTER_PX), interpolation=cv2.INTER_AREA)
    _, data = cv2.imencode(".jpg", small[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, _POSTER_QUALITY])
    return data.tobytes()


def _page(screened: Screened) -> str:
    parts = files("pipeline.review.exchange") / "bundle_page"
    style, script = (parts / "page.css").read_text(encoding="utf-8"), _script()
    environment = Environment(
        loader=PackageLoader("pipeline.review.exchange", "bundle_page"), autoescape=True, undefined=StrictUndefined
    )
    return environment.get_template("index.html").render(
        num_clips=len(screened.clips),
        style=Markup(style),  # noqa: S704 - our own file
        script=Markup(script),  # noqa: S704 - our own file
        style_hash=_source_hash(style),
        script_hash=_source_hash(script),
        data=Markup(_json_in_html(_content(screened))),  # noqa: S704 - escaped for the element it stands in
    )


def _script() -> str:
    """The page's modules as one, each before those that need it: from a disk, browsers let no module load another."""
    review = files("pipeline.review")
    texts = [(review / name).read_text(encoding="utf-8") for name in _MODULES]
    return "\n".join(_LINKS.sub("", text) for text in texts)


def _source_hash(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


def _json_in_html(value: Any) -> str:
    """JSON that can end no element and begin no comment."""
    return json.dumps(value, ensure_ascii=False, allow_nan=False, sort_keys=True).replace("<", "\\u003c")


def _content(screened: Screened) -> dict[str, Any]:
    clips = [_clip(screened, finished, screened.limits[finished.clip.domain]) for finished in screened.clips.values()]
    # An empty review of this version of the tool, so that the page computes the ids that the tool would.
    blank = Review.of(clip_id="c", version="v", who="w", at=_NEVER, action=ReviewAction.ACCEPT, origin=ORIGIN)
    return {
        "id": content_hash([[clip["id"], clip["version"]] for clip in clips])[:16],
        "blank": blank.model_dump(mode="json", exclude={"review_id"}),
        "reasons": [reason.value for reason in REVIEW_REASONS],
        "clips": clips,
    }


def _clip(screened: Screened, finished: FinishedClip, limits: SelectLimits) -> dict[str, Any]:
    clip, source = finished.clip, finished.source
    stands = screened.standing.get(clip.clip_id)
    verdict = stands.verdict if stands else None
    return {
        "id": clip.clip_id,
        "version": finished.key,
        "title": source.title,
        "domain": clip.domain,
        "license": source.license,
        "credit": source.credit or "",
        "address": source.public_uri,
        "duration_s": clip.duration_s,
        "num_frames": clip.plan.num_frames,
        "verdict": verdict and {"action": verdict.action.value, "reason": verdict.reason, "note": verdict.note},
        "filter": _filter_word(screened, finished),
        "scores": _scores(clip, limits, screened.collection),
    }


def _filter_word(screened: Screened, finished: FinishedClip) -> str:
    decision = screened.filtered[finished.clip.clip_id]
    return "keep it" if decision.keep or decision.reason is None else f"reject it: {decision.reason.replace('_', ' ')}"


def _scores(clip: Clip, limits: SelectLimits, collection: Collection | None) -> list[dict[str, Any]]:
    return [
        {
            "name": row.name,
            "measured": "unknown" if row.value is None else f"{row.value:.4g}",
            "limit": "" if row.limit is None else f"{'≥' if row.bound == 'min' else '≤'} {row.limit:.4g}",
            "missed": row.missed,
        }
        for row in limited_scores(clip, limits, collection)
    ]
