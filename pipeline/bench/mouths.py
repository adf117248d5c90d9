"""How well the mouth channel follows mouths that were drawn, and are therefore known in every frame."""

from collections.abc import Mapping, Sequence

import numpy as np

from pipeline.bench.takes import TalkingClip
from pipeline.clip.landmarks import estimate_landmarks
from pipeline.clip.motion import estimate_motion, from_rest
from pipeline.models.landmarkers import Landmarker
from pipeline.models.layouts import FACE_MESH_468
from schemas.accuracy import MouthRow
from schemas.config import LandmarkConfig
from schemas.face import MOTION_CHANNELS

_MOUTH = MOTION_CHANNELS.index("mouth_open")


def mouth_rows(takes: Sequence[TalkingClip], landmarkers: Mapping[str, Landmarker]) -> list[MouthRow]:
    """Each landmarker on each rendered talker; what was drawn is set against its own range as the channel is."""
    return [_row(take, name, landmarker) for take in takes for name, landmarker in landmarkers.items()]


def _row(take: TalkingClip, name: str, landmarker: Landmarker) -> MouthRow:
    if take.true_opening is None:
        raise ValueError(f"nobody knows how far the mouth of {take.media} is open")
    track = estimate_landmarks(take.crops, take.boxes, landmarker, LandmarkConfig(), take.fps)
    seen = track.readable > 0
    correlation = error = None
    if seen.sum() >= 2:
        motion = estimate_motion(track.raw, track.readable, track.layout or FACE_MESH_468)
        opening, truth = motion.channels[seen, _MOUTH].astype(np.float64), from_rest(take.true_opening[seen])
        correlation = round(float(np.corrcoef(opening, truth)[0, 1]), 3)
        error = round(float(np.abs(opening - truth).mean()), 3)
    return MouthRow(
        domain=take.domain,
        media=take.media,
        landmarker=name,
        num_frames=take.num_frames,
        num_seen=int(seen.sum()),
        correlation=correlation,
        mean_abs_error=error,
    )
