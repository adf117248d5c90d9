"""What is measured of a clip: points, sound, and what optional networks say of it."""

import operator
from typing import Literal, Self

from pydantic import Field, model_validator

from schemas.base import Record
from schemas.expression import ExpressionInput
from schemas.models import Device


class LandmarkConfig(Record):
    """Per-frame points on the crop."""

    min_confidence: float = 0.5
    """Certainty, 0 to 1, below which a frame has no landmarks. Of the mesh it is the network's face flag (.5 is
    MediaPipe's own limit), of the others what ``pipeline.models.point_networks`` and ``pipeline.models.fan`` say."""
    smoothing_sigma_s: float = 0.04
    """Seconds of the Gaussian that makes the smoothed copy. One frame at 25 fps takes 60 % off the jitter, 3 % off the
    range of the lips and 13 % off a blink (seven talking clips); a 1-euro filter run both ways costs 10 % and 20 % for
    the same jitter."""
    fan_device: Device = Field(default="cpu", exclude_if=lambda device: device == "cpu")
    """Where the FAN landmarkers (``fan2d``, ``fan3d``) run."""


class SpeechConfig(Record):
    """Audio features, at 16 kHz."""

    vad_threshold: float = 0.5
    """Probability from which Silero's window counts as speech; its own default."""
    mel_bins: int = 80
    """Bands of the log-mel spectrogram."""
    mel_window_samples: int = 640
    """Window in samples of 16 kHz: 40 ms."""
    mel_hop_samples: int = 160
    """Step in samples of 16 kHz: 10 ms, four mel frames per video frame."""
    hubert: str = ""
    """HuBERT for ``hubert.npy``: a local folder or the name of a model on the hub; empty leaves it out."""
    hubert_layers: tuple[int, ...] = (-1,)
    """Layers of HuBERT that are kept; negative ones count from the last."""
    hubert_rate_conversion: Literal["mean", "concat"] = "mean"
    """What is done with the two steps (50 Hz) that HuBERT makes per video frame."""
    hubert_device: Device = Field(default="cpu", exclude_if=lambda device: device == "cpu")
    """Where HuBERT runs."""
    hubert_half: bool = Field(default=False, exclude_if=operator.not_)
    """Whether HuBERT computes in 16-bit floats; on CUDA only."""

    @model_validator(mode="after")
    def _half_needs_cuda(self) -> Self:
        if self.hubert_half and self.hubert_device != "cuda":
            raise ValueError("hubert_half computes on CUDA only: set speech.hubert_device to cuda, or leave it out")
        return self


class SyncConfig(Record):
    """Mouth opening against the speech envelope."""

    max_lag_frames: int = 5
    """Frames by which the picture may lead or trail the sound; the best lag counts."""
    min_s: float = 3.2
    """Seconds with a face below which the answer is "unknown"; area under the ROC curve by length: 2 s .83, 3 s .87,
    4 s .94, 5 s .97."""
    min_shift_s: float = 1.0
    """Least shift in seconds of the sounds that do not belong to the mouth."""


class SpeakerConfig(Record):
    """Which face makes the sound, by Light-ASD; it knows people, and a rendered mesh nearly as well."""

    weights: str = "light_asd"
    """A name of the weights registry, or the path of the published state dict."""
    domains: tuple[str, ...] = ("real", "disney_human", "mesh")
    """Domains whose clips are scored."""
    min_heard_s: float = Field(default=0.5, gt=0)
    """Least speech in seconds; with less there is nothing to compare; chosen."""
    min_shift_s: float = Field(default=1.0, gt=0)
    """Least shift in seconds of the sounds that do not belong to the face."""
    max_lag_frames: int = Field(default=3, ge=0)
    """Frames by which the picture may lead or trail the sound. Over windows of 3 to 6 s the own face beat a foreign
    talker in .86 to .94 of pairs, without lags in .79 to .90."""
    num_shifts: int = Field(default=50, ge=10)
    """How many shifted sounds are compared, at most; neighbouring shifts resemble one another."""


class ExpressionConfig(Record):
    """AffectNet's eight classes per frame. On one core a ResNet-50 takes about a tenth of a second per frame."""

    weights: str
    """The path of an .onnx file, or of a torchvision ResNet-50 with eight outputs as .safetensors."""
    input: ExpressionInput = ExpressionInput()
    """How a face is shown to the network."""
    device: Device = Field(default="cpu", exclude_if=lambda device: device == "cpu")
    """Where the network runs."""
    domains: tuple[str, ...] = ("real", "disney_human", "mesh")
    """Domains whose clips are looked at."""


class EmbeddingConfig(Record):
    """Whose face a clip shows, as ArcFace's 512 numbers (``identity.npy``): biometric data.

    Looked at are frames ``floor((k + 0.5) * T / num_frames)`` of the T frames of a clip, at the clip's own size, as
    far as the face in them was read; their eyes, nose and mouth are those of ``landmarks.npy``.
    """

    weights: str = "arcface_r50"
    """A name of the weights registry, or the path of an .onnx file."""
    domains: tuple[str, ...] = ("real",)
    """Domains whose clips are looked at: those it was trained on. Rendered and drawn faces are all strangers to it, and
    may all look alike."""
    num_frames: int = Field(default=8, ge=1)
    """Frames looked at per clip: so many that three odd ones do not lead; chosen."""
    device: Device = "cpu"
    """Where the network runs."""
