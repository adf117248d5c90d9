"""Take reviews in from a file: all of it is checked before any of it is kept.

A person who mends a table of a thousand rows needs every mistake at once, and one who imports it twice must not find
everything said twice: a review's id is computed from its words, so that the same words are there already.
"""

import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from pipeline.review.exchange.annotations import iter_annotations
from pipeline.review.exchange.drafts import Draft, Fault, Found, LeftOut
from pipeline.review.exchange.rows import REQUIRED, iter_csv, iter_jsonl, iter_parquet
from pipeline.review.exchange.screened import Screened
from pipeline.store.reviews import ReviewLog
from schemas.errors import UsageError
from schemas.review import Review

MAX_IMPORT_BYTES = 256 << 20  # about half a million reviews
MAX_SHOWN = 20  # faults that a message lists
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,6})?(Z|\+00:00)", re.ASCII)
_UNKNOWN_CLIP = "no clip of that id is in this workspace"


@dataclass(slots=True)
class Incoming:
    """The sound reviews of a file that are new, how many are not, and how many things are no reviews, by why.

    ``num_stale`` of the new reviews are of versions of their clips other than the present one: they decide nothing.
    """

    reviews: list[Review] = field(default_factory=list)
    num_there: int = 0
    num_stale: int = 0
    left_out: Counter[str] = field(default_factory=Counter)


def store(log: ReviewLog, incoming: Incoming) -> int:
    """Keep the new reviews of a file; says how many. A store that was interrupted is finished by importing again."""
    return sum(log.append(review) for review in incoming.reviews)


def read_reviews(path: Path, screened: Screened, *, skip_unknown: bool = False) -> Incoming:
    """Read and check a file of reviews; the format is told by its content.

    Args:
        path: JSON lines, CSV or Parquet of ``exchange.rows``, or Label Studio's JSON or JSON_MIN export.
        screened: the workspace that they are meant for.
        skip_unknown: leave out what is said of clips that are not there, instead of refusing it.

    Raises:
        UsageError: when anything in it is wrong, naming place, field and what would be right for each.
    """
    checking = _Checking(screened, skip_unknown=skip_unknown)
    for entry in _entries(path, _bytes_of(path)):
        checking.take(entry)
    checking.end()
    faults = checking.faults
    if not faults and not checking.num_seen:
        raise UsageError(f"{path} holds no reviews: name another file")
    if faults:
        count = "1 fault" if len(faults) == 1 else f"{len(faults)} faults"
        lines = [f"  {fault}" for fault in faults[:MAX_SHOWN]]
        lines += [f"  and {len(faults) - MAX_SHOWN} more"] if len(faults) > MAX_SHOWN else []
        raise UsageError("\n".join([f"{path}: {count}; nothing was imported:", *lines]))
    return checking.incoming


def _bytes_of(path: Path) -> bytes:
    if not path.is_file():
        raise UsageError(f"{path} is {'no regular file' if path.exists() else 'not there'}: name a file of reviews")
    try:
        with path.open("rb") as stream:
            data = stream.read(MAX_IMPORT_BYTES + 1)
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}") from error
    if len(data) > MAX_IMPORT_BYTES:
        raise UsageError(f"{path} is larger than {MAX_IMPORT_BYTES >> 20} MiB: divide it")
    return data


def _entries(path: Path, data: bytes) -> Iterator[Found]:
    if data.startswith(b"PAR1"):
        return iter_parquet(data)
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise UsageError(
            f"{path}, line {line}: byte 0x{data[error.start]:02x} is not UTF-8: save the file as UTF-8"
        ) from error
    start = text.lstrip()[:1]
    if start == "[":
        return iter_annotations(_parsed(path, text))
    if start == "{":
        # One task of Label Studio, as its cloud storages hold them, or lines of our own.
        try:
            whole = json.loads(text)
        except (ValueError, RecursionError):
            return iter_jsonl(text)
        return iter_annotations([whole]) if "data" in whole or "annotation_id" in whole else iter_jsonl(text)
    return iter_csv(text)


def _parsed(path: Path, text: str) -> list[Any]:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise UsageError(f"{path}, line {error.lineno}: is not JSON ({error.msg}): export it again") from error
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{path}: is no JSON that can be read ({error}): export it again") from error


class _Checking:
    """One pass over a file, which collects faults instead of stopping at the first."""

    def __init__(self, screened: Screened, *, skip_unknown: bool) -> None:
        self.faults: list[Fault] = []
        self.incoming = Incoming()
        self.num_seen = 0
        self._screened, self._skip_unknown = screened, skip_unknown
        self._known = {review.review_id: review for review in screened.reviews}
        self._undoing: list[tuple[str, Review]] = []

    def take(self, entry: Found) -> None:
        """Look at one entry of the file."""
        self.num_seen += 1
        if isinstance(entry, LeftOut):
            self.incoming.left_out[entry.why] += 1
        elif isinstance(entry, Fault):
            self.faults.append(entry)
        elif self._skip_unknown and _is_foreign(entry, self._screened):
            self.incoming.left_out["of clips that are not here"] += 1
        else:
            self._check(entry)

    def end(self) -> None:
        """Look at what refers to other entries."""
        for position, review in self._undoing:
            undone = self._known.get(review.undoes or "")
            if undone is None or undone.clip_id != review.clip_id:
                message = f"{review.undoes} is no review of {review.clip_id}, in this file or in the workspace"
                self.faults.append(Fault(position, "undoes", message))

    def _check(self, draft: Draft) -> None:
        misfits = list(_misfits(draft, self._screened))
        review = self._review_of(draft)
        self.faults += misfits
        if review is None or misfits:
            return
        if (there := self._known.get(review.review_id)) is not None:
            self.incoming.num_there += 1
            if there != review:
                message = f"{review.review_id} is another review already: leave it empty where a row was changed"
                self.faults.append(Fault(draft.place, "review_id", message))
            return
        self._known[review.review_id] = review
        if review.undoes is not None:
            self._undoing.append((draft.place, review))
        if review.version != self._screened.clips[review.clip_id].key:
            self.incoming.num_stale += 1
        self.incoming.reviews.append(review)

    def _review_of(self, draft: Draft) -> Review | None:
        try:
            if draft.values.get("review_id"):
                return Review.model_validate(draft.values)
            return Review.of(**{**draft.values, **_stamped(draft.values.get("at"))})
        except ValidationError as error:
            self.faults += [_translated(item, draft) for item in error.errors(include_url=False)]
            return None


def _is_time(text: str) -> bool:
    try:
        return bool(_TIME.fullmatch(text)) and bool(datetime.fromisoformat(text))
    except ValueError:
        return False


def _stamped(time: Any) -> dict[str, str]:
    """A time as the page writes it, since reviews are put in order by its text; nothing for what is no time."""
    if not isinstance(time, str) or not _is_time(time):
        return {}
    return {"at": datetime.fromisoformat(time).isoformat(timespec="milliseconds")}


def _is_foreign(draft: Draft, screened: Screened) -> bool:
    clip_id = draft.values.get("clip_id")
    return isinstance(clip_id, str) and clip_id not in screened.clips


def _misfits(draft: Draft, screened: Screened) -> Iterator[Fault]:
    """What does not fit this workspace."""
    clip_id, version = (draft.values.get(name) for name in ("clip_id", "version"))
    domain, trim, time = (draft.values.get(name) for name in ("domain", "trim", "at"))
    if isinstance(time, str) and not _is_time(time):
        yield Fault(draft.place, "at", f"{time[:40]!r} is no UTC time such as 2026-01-31T09:30:00.000Z")
    if isinstance(domain, str) and domain not in screened.limits:
        yield Fault(draft.place, "domain", f"{domain[:40]!r} is no domain; allowed: {', '.join(screened.limits)}")
    if not isinstance(clip_id, str):
        return
    finished = screened.clips.get(clip_id)
    if finished is None:
        yield Fault(draft.place, "clip_id", f"{clip_id[:96]!r}: {_UNKNOWN_CLIP} (--skip-unknown leaves such out)")
        return
    # How many frames an earlier version had is not known any more.
    stop = _whole(trim.get("stop")) if isinstance(trim, Mapping) and version == finished.key else None
    if stop is not None and stop > finished.clip.plan.num_frames:
        yield Fault(draft.place, "trim_stop", f"{stop} is beyond the clip's {finished.clip.plan.num_frames} frames")


def _whole(value: Any) -> int | None:
    try:
        return int(value)
    except (TypeError, ValueError, OverflowError):
        return None


def _translated(item: Mapping[str, Any], draft: Draft) -> Fault:
    name = "_".join(str(part) for part in item["loc"]) or "action"
    if item["type"] == "missing":
        needed = "" if name.startswith("trim") else f"; every review needs {', '.join(REQUIRED)}"
        return Fault(draft.place, name, f"is missing{needed}")
    if item["type"] == "extra_forbidden":
        return Fault(draft.place, name, "is no field of a review")
    return Fault(draft.place, name, str(item["msg"]).removeprefix("Value error, "))
