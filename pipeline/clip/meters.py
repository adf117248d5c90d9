"""All meters, in the order in which they stand in keys, and what they come to together.

A new meter is a module with a ``Meter``, a section of ``BuildConfig`` that is off by default, its names in ``Scores``
or ``FIELDS``, and a row here. The order of the rows is a part of keys: a new one comes last.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pipeline.clip.burnt_in import BurntInMeter
from pipeline.clip.embedding import EmbeddingMeter
from pipeline.clip.expression import ExpressionMeter
from pipeline.clip.meter import Measured, Measurement, Meter, Reading, Sight, StoredClip, Tap
from pipeline.clip.router import RouterMeter
from pipeline.clip.speaker import SpeakerMeter
from pipeline.clip.stability import StabilityMeter
from pipeline.models.files.model_files import ModelFiles
from pipeline.models.files.weights import WeightsStore
from schemas.base import FrameSpan
from schemas.clip import ClipPlan
from schemas.config import BuildConfig

if TYPE_CHECKING:  # starts network runtimes
    from pipeline.models.registry import ModelSet

METERS: tuple[Meter[Any], ...] = (
    SpeakerMeter(),
    ExpressionMeter(),
    EmbeddingMeter(),
    StabilityMeter(),
    BurntInMeter(),
    RouterMeter(),
)


def model_files(config: BuildConfig, store: WeightsStore | None = None) -> ModelFiles:
    """All model files of a configuration, those of its meters among them.

    Args:
        config: names the models.
        store: where weights files lie; the default folder where it is left out.
    """
    return ModelFiles(config, store or WeightsStore(), METERS)


def keys_of(config: BuildConfig, domain: str) -> list[object]:
    """What keys of a domain's clips depend on because of the meters that are on."""
    parts: list[object] = []
    for meter in METERS:
        part = meter.key(config, domain)
        if part is not None and part not in parts:  # meters of one section share its part
            parts.append(part)
    return parts


def meters_of(config: BuildConfig, domain: str) -> list[Meter[Any]]:
    """The meters that are on in a domain."""
    return [meter for meter in METERS if meter.settings(config, domain) is not None]


@dataclass(frozen=True, slots=True)
class Measuring:
    """Meters at work on one clip."""

    running: Sequence[tuple[Meter[Any], Measurement]]

    def taps(self, sees: Sight) -> list[Tap]:
        """Those that are to be shown this picture of every frame."""
        return [measurement.tap for meter, measurement in self.running if meter.sees == sees]

    def finish(self, measured: Measured) -> Reading:
        """What all of them add to the clip, after its last frame."""
        return joined([measurement.finish(measured) for _, measurement in self.running])


def start(meters: Sequence[Meter[Any]], models: "ModelSet", domain: str, plan: ClipPlan, seen_px: int) -> Measuring:
    """Begin with a clip.

    Args:
        meters: which of them; those that are on in ``domain``.
        models: loaded once per process.
        domain: the source's.
        plan: of the clip.
        seen_px: side of the copy of every frame.
    """
    sides = {"copy": seen_px, "whole": models.config.crop.size_px}
    return Measuring([(meter, meter.start(models, domain, plan, sides[meter.sees])) for meter in meters])


def cut(config: BuildConfig, domain: str, stored: StoredClip, span: FrameSpan) -> tuple[list[Meter[Any]], Reading]:
    """Which meters measure a part of a clip anew, and what the others keep of what the whole clip has."""
    kept = [(meter, meter.cut(stored, span)) for meter in METERS]
    on = meters_of(config, domain)
    again = [meter for meter, reading in kept if reading is None and meter in on]
    return again, joined([reading for _, reading in kept if reading is not None])


def joined(readings: Sequence[Reading]) -> Reading:
    """Several readings as one; flags in the order of the alphabet."""
    return Reading(
        scores={name: score for reading in readings for name, score in reading.scores.items()},
        members={name: array for reading in readings for name, array in reading.members.items()},
        flags=tuple(sorted(flag for reading in readings for flag in reading.flags)),
    )
