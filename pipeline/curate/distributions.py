"""How every score is distributed in every domain, so that a limit can be read against what is usual there.

Flat-shaded cartoons are soft by nature and meshes hardly move: one number means different things in
different domains, and a limit that suits one rejects half of another.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping

import numpy as np

from schemas.clip import Clip
from schemas.collection import Quantiles
from schemas.scores import SyncScore

_LEVELS = (5.0, 25.0, 50.0, 75.0, 95.0)


def calibrate(clips: Iterable[Clip], ridge: Mapping[str, SyncScore]) -> dict[str, dict[str, Quantiles]]:
    """Quantiles of every score by domain, over the clips in which it is known.

    Args:
        clips: all finished clips, kept or not: limits are set from what comes in.
        ridge: scores of the fitted sync model, by clip id; they become ``ridge_z`` and the like.

    Returns:
        By domain and score; scores that no clip of a domain has are left out. ``sync_`` and ``ridge_`` scores are
        those of ``SyncScore``, ``speaker_`` scores those of ``SpeakerScore``.
    """
    values: defaultdict[str, defaultdict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for clip in clips:
        for name, value in _numbers(clip, ridge.get(clip.clip_id)).items():
            values[clip.domain][name].append(value)
    return {
        domain: {name: _quantiles(numbers) for name, numbers in sorted(by_score.items())}
        for domain, by_score in sorted(values.items())
    }


def _numbers(clip: Clip, ridge: SyncScore | None) -> dict[str, float]:
    scores = clip.scores.model_dump(exclude={"sync", "speaker", "router"}) | {"duration_s": clip.duration_s}
    for prefix, part in (("sync", clip.scores.sync), ("ridge", ridge), ("speaker", clip.scores.speaker)):
        if part is not None:
            scores |= {f"{prefix}_{name}": value for name, value in part.model_dump(exclude={"status", "why"}).items()}
    return {name: float(value) for name, value in scores.items() if value is not None}


def _quantiles(numbers: list[float]) -> Quantiles:
    p05, p25, p50, p75, p95 = (round(float(value), 6) for value in np.percentile(np.sort(numbers), _LEVELS))
    return Quantiles(n=len(numbers), p05=p05, p25=p25, p50=p50, p75=p75, p95=p95)
