"""Reviews out of what Label Studio exports: its JSON, and its JSON_MIN with one object per annotation.

Formats: https://labelstud.io/guide/export.html and https://labelstud.io/guide/task_format.html. ``completed_by`` is a
number, or an object with the e-mail address; JSON_MIN calls it ``annotator``. A control with one value is that value in
JSON_MIN, and a list otherwise. Timeline ranges count frames from 1 with both ends included, as Label Studio's own
example for video writes them (https://labelstud.io/tutorials/yolo_timeline_labels.html).

An annotation that was changed later keeps ``created_at``; ``updated_at`` is the time of what it says now, and so the
review's, that a second export of the same annotations adds nothing and one of changed annotations overrules the first.
What an annotator took back without saying anything else of it is not undone.
"""

from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

from pipeline.review.exchange.drafts import Draft, Fault, Found, LeftOut
from pipeline.review.exchange.labelstudio import (
    ACCEPT,
    DOMAIN,
    IDENTITY,
    NOTE,
    REASON,
    REJECT,
    TRIM,
    VERDICT,
)
from schemas.decision import RejectReason
from schemas.review import ReviewAction

ORIGIN = "labelstudio"
_CONTROLS = {VERDICT: "choices", REASON: "choices", DOMAIN: "choices", IDENTITY: "text", NOTE: "text", TRIM: "ranges"}
_Values = dict[str, Any]


class _Wrong(Exception):  # noqa: N818 - never leaves this module
    """What makes one control's value unusable."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(message)
        self.field, self.message = field, message


def iter_annotations(tasks: Iterable[Any]) -> Iterator[Found]:
    """The reviews of an export, what is wrong with it, and what in it is no review.

    Args:
        tasks: the exported list, as JSON reads it.
    """
    for number, task in enumerate(tasks, start=1):
        position = f"task {number}"
        if not isinstance(task, dict):
            yield Fault(position, "", "is no object; expected Label Studio's JSON or JSON_MIN export")
        elif isinstance(task.get("data"), dict):
            yield from _task(position, task)
        elif "annotation_id" in task:
            yield from _annotation(position, task, task, task.get("annotator"), _min_values(task))
        else:
            yield Fault(
                position, "", "has neither 'data' nor 'annotation_id'; expected Label Studio's JSON or JSON_MIN"
            )


def _task(position: str, task: Mapping[str, Any]) -> Iterator[Found]:
    annotations = task.get("annotations")
    if not isinstance(annotations, list):
        yield Fault(position, "annotations", "is no list; export the annotations, not the tasks")
        return
    for number, annotation in enumerate(annotations, start=1):
        where = f"{position}, annotation {number}"
        if not isinstance(annotation, dict) or not isinstance(annotation.get("result"), list):
            yield Fault(where, "result", "is no list; export the annotations in full")
        elif annotation.get("was_cancelled"):
            yield LeftOut("skipped in Label Studio")
        else:
            yield from _annotation(
                where, task["data"], annotation, annotation.get("completed_by"), _values(annotation["result"])
            )


def _values(results: Iterable[Any]) -> _Values:
    """The raw value of each of our controls: choices and texts as lists, timeline ranges as a list of all of them."""
    values: _Values = {}
    for result in results:
        name = result.get("from_name") if isinstance(result, dict) else None
        value = result.get("value") if isinstance(result, dict) else None
        if isinstance(name, str) and name in _CONTROLS and isinstance(value, dict):
            given = value.get(_CONTROLS[name])
            values.setdefault(name, []).extend(given if isinstance(given, list) else [given])
    return values


def _min_values(task: Mapping[str, Any]) -> _Values:
    values: _Values = {}
    for name, key in _CONTROLS.items():
        if name not in task:
            continue
        for value in task[name] if isinstance(task[name], list) else [task[name]]:
            given = value.get(key) if isinstance(value, dict) else value
            values.setdefault(name, []).extend(given if isinstance(given, list) else [given])
    return values


def _annotation(
    position: str, data: Mapping[str, Any], annotation: Mapping[str, Any], annotator: Any, values: _Values
) -> Iterator[Found]:
    shared = {name: data[name] for name in ("clip_id", "version") if name in data}
    try:
        shared |= {"who": _who(annotator), "at": _time(annotation), "origin": ORIGIN}
        reviews = list(_review_fields(values))
    except _Wrong as wrong:
        yield Fault(position, wrong.field, wrong.message)
        return
    if not reviews:
        yield LeftOut("without a word on the clip")
    for fields in reviews:
        yield Draft(position, shared | fields)


def _review_fields(values: _Values) -> Iterator[_Values]:
    """The fields of one review per thing that was said; a note goes with the first of them."""
    reviews: list[_Values] = []
    verdict = _single(values, VERDICT)
    if verdict not in {None, ACCEPT, REJECT}:
        raise _Wrong(VERDICT, f"{str(verdict)[:40]!r} is neither {ACCEPT} nor {REJECT}")
    if verdict == ACCEPT:
        reviews.append({"action": ReviewAction.ACCEPT})
    elif verdict == REJECT:
        # The interface asks for a reason; where a changed one does not, the reviewer is the reason.
        reviews.append({"action": ReviewAction.REJECT, "reason": _single(values, REASON) or RejectReason.REVIEWER})
    if (domain := _single(values, DOMAIN)) is not None:
        reviews.append({"action": ReviewAction.DOMAIN, "domain": domain})
    if (identity := _single(values, IDENTITY)) is not None:
        reviews.append({"action": ReviewAction.IDENTITY, "identity_id": identity.strip()})
    if (kept := _single(values, TRIM, kind=dict)) is not None:
        reviews.append({"action": ReviewAction.TRIM, "trim": _trim(kept)})
    note = "\n".join(str(line) for line in values.get(NOTE, ()))
    if note:
        if not reviews:
            raise _Wrong(NOTE, "a note alone cannot be kept: add a verdict in Label Studio, or take the note out")
        reviews[0]["note"] = note
    yield from reviews


def _single(values: _Values, name: str, kind: type = str) -> Any:
    given = values.get(name, ())
    if not given:
        return None
    if len(given) > 1:
        raise _Wrong(name, f"has {len(given)} values; expected one")
    if not isinstance(given[0], kind):
        raise _Wrong(name, f"is no {'text' if kind is str else 'range of frames'}")
    return given[0]


def _trim(kept: Mapping[str, Any]) -> dict[str, int]:
    start, end = kept.get("start"), kept.get("end")
    for value in (start, end):
        if not isinstance(value, int) or isinstance(value, bool):
            raise _Wrong(TRIM, f"needs whole frame numbers start and end, found {start!r} and {end!r}")
    return {"start": start - 1, "stop": end}  # type: ignore[operator] - both are int


def _who(annotator: Any) -> str:
    if isinstance(annotator, dict):
        annotator = annotator.get("email") or annotator.get("id")
    if isinstance(annotator, str) and annotator.strip():
        return annotator
    if isinstance(annotator, int) and not isinstance(annotator, bool):
        return f"{ORIGIN}-{annotator}"
    if annotator is None:  # exports can leave personal data out
        return ORIGIN
    raise _Wrong("completed_by", "is neither a number nor an e-mail address")


def _time(annotation: Mapping[str, Any]) -> str:
    given = annotation.get("updated_at") or annotation.get("created_at")
    try:
        if not isinstance(given, str):
            raise TypeError  # noqa: TRY301
        time = datetime.fromisoformat(given)
        time = time.astimezone(UTC) if time.tzinfo else time.replace(tzinfo=UTC)  # it says Z wherever it says anything
    except (TypeError, ValueError, OverflowError):
        raise _Wrong("updated_at", f"{str(given)[:40]!r} is no time such as 2026-01-31T09:30:00.000000Z") from None
    return time.isoformat(timespec="milliseconds")
