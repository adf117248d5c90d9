"""All about one clip: scores beside their limits, where it comes from, who else it shows, and its arrays.

Read from the workspace when somebody looks at it, and not before.
"""

import io
import json
import struct
from typing import Any

import numpy as np

from pipeline.build.pictures import clip_arrays
from pipeline.clip.crop import boxes_on_crop
from pipeline.clip.speech import speech_envelope
from pipeline.media.audio import read_flac
from pipeline.review.catalogue import Catalogue, Entry
from pipeline.review.desk import Desk
from pipeline.review.scores import limited_scores, unlimited_scores
from schemas.clip import Clip
from schemas.collection import DuplicateLink
from schemas.errors import WorkspaceError
from schemas.router import RouterScore

_MOST_NEIGHBOURS = 24

Told = dict[str, Any]


def detail_of(desk: Desk, entry: Entry) -> Told:
    """What the page shows beside a clip, as JSON knows it."""
    catalogue, finished = desk.catalogue, entry.made
    clip, source = finished.clip, finished.source
    return {
        "id": clip.clip_id,
        "version": finished.key,
        "domain": clip.domain,
        "seconds": round(clip.duration_s, 2),
        "frames": clip.plan.num_frames,
        "fps": clip.plan.fps,
        "size_px": catalogue.results.config.crop.size_px,
        "native_px": round(clip.scores.native_crop_px),
        "span": [round(clip.plan.span.start_s, 2), round(clip.plan.span.stop_s, 2)],
        "flags": list(clip.flags),
        "scores": scores_of(catalogue, entry),
        "router": _routed(clip.scores.router),
        "verdict": {
            "keep": entry.measured.keep,
            "reason": entry.measured.reason and entry.measured.reason.value,
            "note": entry.measured.note,
        },
        "source": {
            "id": source.id,
            "title": source.title,
            "license": source.license,
            "commercial": source.commercial_use,
            "credit": source.credit or "",
            "uri": source.public_uri,
        },
        "models": sorted(clip.provenance.models),
        "scheme": clip.landmark_scheme,
        "identity": entry.identity_id,
        "neighbours": _others_of(catalogue, entry),
        "compared": catalogue.collection is not None,
        "copies": [_copy(link, clip.clip_id) for link in catalogue.links.get(clip.clip_id, [])],
        "said": desk.said_of(clip.clip_id),
    }


def _others_of(catalogue: Catalogue, entry: Entry) -> list[str]:
    """Other clips of the same person, the nearest in the list first."""
    same = catalogue.of_identity[entry.identity_id]
    position = same.index(entry.clip_id)
    nearest = sorted(range(len(same)), key=lambda other: (abs(other - position), other))[1 : _MOST_NEIGHBOURS + 1]
    return [same[other] for other in nearest]


def _copy(link: DuplicateLink, clip_id: str) -> Told:
    twin = link.twin_id if link.clip_id == clip_id else link.clip_id
    return {"id": twin, "kind": link.kind, "distance": link.distance, "limit": link.limit}


def scores_of(catalogue: Catalogue, entry: Entry) -> list[Told]:
    """Every score with its limit and whether it is missed, in the order in which limits are applied."""
    clip = entry.made.clip
    rows = limited_scores(clip, catalogue.limits[clip.domain], catalogue.collection) + unlimited_scores(clip)
    return [
        {
            "name": row.name,
            "value": None if row.value is None else round(float(row.value), 4),
            "limit": row.limit,
            "bound": row.bound,
            "missed": row.missed,
            "reason": row.reason.value if row.missed and row.reason else None,
            "why": row.why,
        }
        for row in rows
    ]


def _routed(router: RouterScore | None) -> Told | None:
    """The domain that the frames speak for; None where nobody asked."""
    if router is None:
        return None
    claim = None if router.claim is None else round(router.claim, 2)
    return {"proposed": router.proposed, "probability": round(router.probability, 2), "claim": claim}


# ---- arrays --------------------------------------------------------------------------------------------------------


def packed_arrays(catalogue: Catalogue, entry: Entry) -> bytes:
    """The per-frame arrays of a clip for a browser: a header, then little-endian float32.

    Four bytes say how long the header is; the header is JSON, ``{name: shape}`` in the order of the data, padded with
    spaces to a multiple of four. ``landmarks`` [T, P, 3] and ``box`` [T, 4] (xyxy) are in pixels of the crop, ``pose``
    [T, 7] as ``schemas.face.POSE_FIELDS``, ``motion`` [T, M], ``valid`` [T], and ``envelope`` [T], loudness of speech
    with 1 as its greatest, where there is sound.

    Raises:
        WorkspaceError: when an array is missing or damaged.
    """
    finished, workspace = entry.made, catalogue.results.workspace
    record = workspace.result("clip", finished.key, Clip)
    if record is None:
        raise WorkspaceError(f"clip {entry.clip_id} is no longer in the workspace: run 'anitalk build' again")
    try:
        arrays = clip_arrays(workspace, finished.key)
        flac = workspace.result_file("clip", finished.key, "flac")
    except (FileNotFoundError, ValueError) as error:
        raise WorkspaceError(f"the files of clip {entry.clip_id} are damaged ({error}): build it again") from error
    arrays["box"] = np.array(boxes_on_crop(record.face, record.plan, catalogue.results.config.crop.size_px))
    if record.scores.speech_ratio is not None:
        envelope = speech_envelope(read_flac(flac), record.plan.num_frames, record.plan.fps)
        arrays["envelope"] = envelope / max(float(envelope.max()), 1e-6)
    parts = {name: np.ascontiguousarray(array, dtype="<f4") for name, array in sorted(arrays.items())}
    header = json.dumps({name: list(part.shape) for name, part in parts.items()}).encode()
    header += b" " * (-len(header) % 4)
    packed = io.BytesIO()
    packed.write(struct.pack("<I", len(header)) + header)
    for part in parts.values():
        packed.write(np.nan_to_num(part).tobytes())
    return packed.getvalue()
