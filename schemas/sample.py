"""The shard field table: the contract between the builder and every reader.

One definition serves the writer, the verifier, docs/release-format.md and the loaders. ``T`` is the number of
video frames of the clip, ``A`` its audio samples, ``Tm`` its log-mel frames, ``P`` the points of its
landmark scheme, ``M`` the motion channels, ``L`` the stored HuBERT layers, and ``C`` and ``D`` the
widths of HuBERT and expression features, which depend on the models.
"""

from dataclasses import dataclass
from typing import Literal

from pydantic import Field as ModelField

from schemas.base import Id, Record, is_absent
from schemas.clip import ClipPlan, Provenance, Scores
from schemas.expression import ExpressionInput
from schemas.face import MOTION_CHANNELS, POSE_CONVENTION, POSE_FIELDS, num_points

SAMPLE_RATE_HZ = 16000
MEL_HOP_SAMPLES = 160

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
        """The exact shape for a clip; ``sizes`` maps axis names (T, P, M, ...) to lengths.

        Raises:
            KeyError: for an axis that ``sizes`` does not name.
        """
        return tuple(int(axis) if axis.isdigit() else sizes[axis] for axis in self.axes)

    def fits(self, shape: tuple[int, ...], sizes: dict[str, int]) -> bool:
        """Whether an array of ``shape`` may be this field of a clip; axes that ``sizes`` leaves out are free."""
        free = {axis: length for axis, length in zip(self.axes, shape, strict=False) if not axis.isdigit()}
        return len(shape) == len(self.axes) and all(shape) and shape == self.shape(free | sizes)


FIELDS: tuple[Field, ...] = (
    Field("mp4", "visual", "u8", ("T", "H", "W", "3"), "sRGB", False, "H.264, every frame a key frame, 25 fps; AAC preview"),
    Field("flac", "visual", "i16", ("A",), "1/32768", False, "16 kHz mono from the first frame's time; exactly 640 T samples"),
    Field("json", "visual", "", (), "", False, "SampleInfo: who, where from, conventions, scores"),
    Field("landmarks.npy", "visual", "f4", ("T", "P", "3"), "px, px, 0–1", False, "x, y on the crop and confidence, per frame"),
    Field("landmarks_smooth.npy", "visual", "f4", ("T", "P", "3"), "px, px, 0–1", False, "the same, filtered in time without lag"),
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


def num_audio_samples(num_frames: int, fps: int) -> int:
    """Samples of the flac of a clip: 640 per frame at 25 fps."""
    return num_frames * SAMPLE_RATE_HZ // fps


class SampleInfo(Record):
    """The ``json`` member of a sample.

    ``title`` to ``language`` are the source's own. ``mel`` and ``hubert`` say how those features were
    computed; ``hubert`` is empty where the release has none. ``expression`` says how ``emotion.npy`` was
    made, where there is one.
    """

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
    expression: ExpressionInput | None = ModelField(default=None, exclude_if=is_absent)
    flags: tuple[str, ...]
    plan: ClipPlan
    scores: Scores
    provenance: Provenance

    def sizes(self) -> dict[str, int]:
        """Lengths of the axes that a clip fixes, for ``Field.shape`` and ``Field.fits``.

        Raises:
            KeyError: for an unknown landmark scheme.
        """
        num_samples = num_audio_samples(self.num_frames, self.fps)
        return {
            "T": self.num_frames,
            "A": num_samples,
            "Tm": num_samples // MEL_HOP_SAMPLES,
            "P": num_points(self.landmark_scheme),
            "M": len(self.motion_channels),
        }
