"""The shard field table: the contract between the builder and every reader.

One definition serves the writer, the verifier, the README and the loaders. ``T`` is the number of
video frames of the clip, ``P`` the points of its landmark scheme, ``M`` the motion channels,
``L`` the stored HuBERT layers and ``C`` their width.
"""

from dataclasses import dataclass
from typing import Literal

from schemas.base import Id, Record
from schemas.clip import ClipPlan, Provenance, Scores
from schemas.face import MOTION_CHANNELS, POSE_CONVENTION, POSE_FIELDS

SAMPLE_RATE_HZ = 16000
MEL_PER_FRAME = 4

Series = Literal["visual", "speech"]


@dataclass(frozen=True, slots=True)
class Field:
    """One member of a sample: ``KEY.suffix`` in the tar of its series."""

    suffix: str
    series: Series
    dtype: str
    axes: tuple[str, ...]
    unit: str
    optional: bool
    meaning: str

    def shape(self, sizes: dict[str, int]) -> tuple[int, ...]:
        """The exact shape for a clip; ``sizes`` maps axis names (T, P, M, ...) to lengths."""
        return tuple(int(axis) if axis.isdigit() else sizes[axis] for axis in self.axes)


FIELDS: tuple[Field, ...] = (
    Field("mp4", "visual", "u8", ("T", "H", "W", "3"), "sRGB", False, "H.264, every frame a key frame, 25 fps; AAC preview"),
    Field("flac", "visual", "i16", ("A",), "1/32768", False, "16 kHz mono from the first frame's time; exactly 640 T samples"),
    Field("json", "visual", "", (), "", False, "SampleInfo: who, where from, conventions, scores"),
    Field("landmarks.npy", "visual", "f4", ("T", "P", "3"), "px, px, 0–1", False, "x, y on the crop and confidence, per frame"),
    Field("pose.npy", "visual", "f4", ("T", "7"), "deg ×3, crop ×3, 0–1", False, ", ".join(POSE_FIELDS)),
    Field("motion.npy", "visual", "f4", ("T", "M"), "0–1", False, ", ".join(MOTION_CHANNELS)),
    Field("valid.npy", "visual", "?", ("T",), "", False, "a face is there"),
    Field("emotion.npy", "visual", "f4", ("T", "8"), "logit", True, "AffectNet-8 logits, when an expression model was configured"),
    Field("emotion_feat.npy", "visual", "f4", ("T", "D"), "", True, "features before those logits"),
    Field("identity.npy", "visual", "f4", ("512",), "", True, "face embedding; only in releases made --with-identity"),
    Field("mel.npy", "speech", "f4", ("Tm", "80"), "ln", False, "log-mel of the flac; Tm = 4 T"),
    Field("hubert.npy", "speech", "f2", ("L", "T", "C"), "", True, "HuBERT hidden states at 25 Hz, when configured"),
    Field("json", "speech", "", (), "", False, "SampleInfo, as in the visual series"),
)  # fmt: skip


def fields_of(series: Series) -> dict[str, Field]:
    """The fields of one series by suffix, in table order."""
    return {field.suffix: field for field in FIELDS if field.series == series}


class SampleInfo(Record):
    """The ``json`` member of a sample."""

    schema_version: Literal[1] = 1
    clip_id: Id
    source_id: Id
    identity_id: Id
    domain: str
    split: Literal["train", "val", "test"]
    title: str
    license: str
    credit: str
    uri: str
    language: str
    num_frames: int
    fps: int
    size_px: int
    sample_rate_hz: Literal[16000] = 16000
    landmark_scheme: str
    pose_convention: str = POSE_CONVENTION
    pose_fields: tuple[str, ...] = POSE_FIELDS
    motion_channels: tuple[str, ...] = MOTION_CHANNELS
    mel: dict[str, float]
    hubert: dict[str, str]
    flags: tuple[str, ...]
    plan: ClipPlan
    scores: Scores
    provenance: Provenance
