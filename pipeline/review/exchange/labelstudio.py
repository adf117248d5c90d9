"""Clips as tasks for Label Studio: its JSON task list, and the labelling interface that goes with it.

The formats are those of its documentation: tasks https://labelstud.io/guide/tasks.html (basic JSON format),
pre-annotations https://labelstud.io/guide/predictions.html, tags https://labelstud.io/tags/video.html, choices.html,
timelinelabels.html and textarea.html, local files https://labelstud.io/guide/storage.html.

Controls are named apart from the fields of the task's data, since JSON_MIN exports mix both in one object.
"""

import json
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import quote
from xml.sax.saxutils import quoteattr

from pipeline.build.results import tool_version
from pipeline.build.survey import FinishedClip
from pipeline.review.exchange.screened import Screened
from schemas.base import canonical_json, content_hash
from schemas.review import MAX_NOTE, REVIEW_REASONS, Review, ReviewAction

VIDEO, VERDICT, REASON, DOMAIN, IDENTITY, NOTE, TRIM = (
    "video", "verdict", "reason", "relabel", "person", "note", "trim",
)  # fmt: skip
ACCEPT, REJECT, KEEP = "accept", "reject", "keep"


def labelling_config(screened: Screened) -> str:
    """The labelling interface: paste it under Settings, Labeling Interface, Code."""
    reasons = "".join(
        f'\n    <Choice value={quoteattr(reason.value)} hotkey="{key}"/>'
        for key, reason in enumerate(REVIEW_REASONS, start=1)
    )
    domains = "".join(f"\n    <Choice value={quoteattr(domain)}/>" for domain in screened.limits)
    return f"""<View>
  <Header value="$clip_id"/>
  <Video name="{VIDEO}" value="$video" frameRate="$fps" timelineHeight="80"/>
  <Choices name="{VERDICT}" toName="{VIDEO}" choice="single-radio" showInline="true">
    <Choice value="{ACCEPT}" hotkey="a"/>
    <Choice value="{REJECT}" hotkey="r"/>
  </Choices>
  <Choices name="{REASON}" toName="{VIDEO}" choice="single-radio" showInline="true" required="true"
      visibleWhen="choice-selected" whenTagName="{VERDICT}" whenChoiceValue="{REJECT}">{reasons}
  </Choices>
  <Header value="Only where it is wrong: the domain, who is seen, the frames to keep"/>
  <Choices name="{DOMAIN}" toName="{VIDEO}" choice="single-radio" showInline="true">{domains}
  </Choices>
  <TextArea name="{IDENTITY}" toName="{VIDEO}" maxSubmissions="1" placeholder="id of the person"/>
  <TimelineLabels name="{TRIM}" toName="{VIDEO}">
    <Label value="{KEEP}"/>
  </TimelineLabels>
  <TextArea name="{NOTE}" toName="{VIDEO}" maxSubmissions="1" placeholder="note, at most {MAX_NOTE} letters"/>
</View>
"""


def label_studio_tasks(screened: Screened, video_prefix: str) -> bytes:
    """The task list, one task per clip, with what is thought of it so far as a pre-annotation.

    Args:
        screened: what there is to be screened.
        video_prefix: address under which Label Studio finds CLIP.mp4.
    """
    trust = _trust(screened)
    tasks = [_task(screened, finished, video_prefix, trust) for finished in screened.clips.values()]
    return json.dumps(tasks, indent=1, ensure_ascii=False, allow_nan=False).encode()


def _task(screened: Screened, finished: FinishedClip, video_prefix: str, trust: float) -> dict[str, Any]:
    clip, source = finished.clip, finished.source
    decision = screened.filtered[clip.clip_id]
    scores = json.loads(canonical_json(clip.scores))
    data = {
        VIDEO: f"{video_prefix}{quote(clip.clip_id)}.mp4",
        "clip_id": clip.clip_id,
        "version": finished.key,
        "domain": clip.domain,
        "source_id": source.id,
        "title": source.title,
        "license": source.license,
        "credit": source.credit or "",
        "address": source.public_uri,
        "fps": clip.plan.fps,
        "num_frames": clip.plan.num_frames,
        "duration_s": clip.duration_s,
        "flags": list(clip.flags),
        "scores": scores,
        "filter_keeps": decision.keep,
        "filter_reason": decision.reason.value if decision.reason else "",
        "filter_measured": decision.measured,
        "filter_limit": decision.limit,
    }
    return {"data": data, "predictions": [_prediction(screened, finished, trust)]}


def _prediction(screened: Screened, finished: FinishedClip, trust: float) -> dict[str, Any]:
    """What people said of this version, or else the filters; ``score`` orders Label Studio's queue, unsure first."""
    stands = screened.standing.get(finished.clip.clip_id)
    reviews = [stands.verdict, stands.domain, stands.identity, stands.trim] if stands else []
    by_people = bool(stands and stands.verdict)
    values = dict(pair for review in reviews if review for pair in _values(review))
    if not by_people:
        decision = screened.filtered[finished.clip.clip_id]
        values[VERDICT] = {"choices": [ACCEPT if decision.keep else REJECT]}
        if decision.reason is not None and decision.reason in REVIEW_REASONS:
            values[REASON] = {"choices": [decision.reason.value]}
    results = [
        {
            # Unique among all results of all tasks, and the same in every export.
            "id": content_hash([finished.clip.clip_id, finished.key, name])[:16],
            "from_name": name,
            "to_name": VIDEO,
            "type": _type_of(value),
            "value": value,
        }
        for name, value in values.items()
    ]
    model = "reviewers" if by_people else f"filters-{tool_version()}"
    return {"model_version": model, "score": 1.0 if by_people else round(trust, 4), "result": results}


def _values(review: Review) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """A review as values of the controls. Label Studio counts frames from 1, both ends included."""
    if review.action is ReviewAction.ACCEPT:
        yield VERDICT, {"choices": [ACCEPT]}
    elif review.reason is not None:
        yield VERDICT, {"choices": [REJECT]}
        if review.reason in REVIEW_REASONS:
            yield REASON, {"choices": [review.reason.value]}
    elif review.domain is not None:
        yield DOMAIN, {"choices": [review.domain]}
    elif review.identity_id is not None:
        yield IDENTITY, {"text": [review.identity_id]}
    elif review.trim is not None:
        ranges = [{"start": review.trim.start + 1, "end": review.trim.stop}]
        yield TRIM, {"ranges": ranges, "timelinelabels": [KEEP]}
    if review.note:
        yield NOTE, {"text": [review.note]}


def _type_of(value: Mapping[str, Any]) -> str:
    if "ranges" in value:
        return "timelinelabels"
    return "choices" if "choices" in value else "textarea"


def _trust(screened: Screened) -> float:
    """How often people's verdicts agreed with the filters, by Laplace's rule of succession: 1/2 while nobody looked."""
    agreed = [
        (stands.verdict.action is ReviewAction.ACCEPT) == screened.filtered[clip_id].keep
        for clip_id, stands in screened.standing.items()
        if stands.verdict is not None
    ]
    return (sum(agreed) + 1) / (len(agreed) + 2)
