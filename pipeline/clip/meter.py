"""What a meter is: whatever is measured of a clip where the configuration asks for it.

A meter says by itself when it is on, which model files it reads, what clip keys depend on because of it, what it adds
to a clip, and how its part of a trimmed clip comes about. Whoever makes, trims or looks up clips asks every one in
``pipeline.clip.meters.METERS`` and knows none by name. What is off leaves no trace: no key, no record and no byte of a
clip tells that the meter exists.

A meter's module imports what runs networks or reads pictures only when measuring begins (``Meter.start``), because keys
are computed from it by commands that do neither.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Literal, Protocol, TypeVar

import numpy as np
from jaxtyping import Bool, Float32, UInt8

from pipeline.models.files.model_files import FolderModel
from schemas.base import FrameSpan, Record
from schemas.clip import Clip, ClipPlan
from schemas.config import BuildConfig
from schemas.face import XYXY, FacePath

if TYPE_CHECKING:  # starts network runtimes
    from pipeline.models.registry import ModelSet

S = TypeVar("S", bound=Record)  # a section of the configuration

# Which picture of a frame: a copy on which everything is measured that need not be repeatable from the clip alone, or
# the crop at its own size.
Sight = Literal["copy", "whole"]


class Tap(Protocol):
    """Looks at every output frame on its way."""

    def add(self, frame: UInt8[np.ndarray, "S S 3"], face: XYXY) -> None:
        """One RGB frame, in order, and the face box on it."""


@dataclass(frozen=True, slots=True)
class ClipSound:
    """A clip's audio and what was heard in it."""

    samples: Float32[np.ndarray, " A"]
    voice: Float32[np.ndarray, " N"]  # probability of speech per 32 ms
    ratio: float | None  # of the time in which somebody speaks; None without sound
    rms: float | None


@dataclass(frozen=True, slots=True)
class Measured:
    """What is known of a clip, or of a part of one, once all its frames have passed.

    Attributes:
        plan: span, square and length T.
        face: where the face was seen that the plan follows.
        config: all settings.
        points: as stored: x, y in pixels of the clip's frames, and the confidence.
        readable: the confidence of frames whose points have names; 0 elsewhere.
        confidence: the landmarker's per frame; None where none covers the domain.
        pose: ``POSE_FIELDS``.
        motion: ``MOTION_CHANNELS``, each 0 to 1 over the clip's range.
        opening: of the mouth over the height of the face, not normalised.
        has_opening: whether the mouth's opening was measured at all.
        valid: frames with a face.
        sound: what was heard.
        loudness: of the speech band, per frame; None without sound.
    """

    plan: ClipPlan
    face: FacePath
    config: BuildConfig
    points: Float32[np.ndarray, "T P 3"]
    readable: Float32[np.ndarray, " T"]
    confidence: Float32[np.ndarray, " T"] | None
    pose: Float32[np.ndarray, "T 7"]
    motion: Float32[np.ndarray, "T M"]
    opening: Float32[np.ndarray, " T"]
    has_opening: bool
    valid: Bool[np.ndarray, " T"]
    sound: ClipSound
    loudness: Float32[np.ndarray, " T"] | None


@dataclass(frozen=True, slots=True)
class Reading:
    """What a meter adds to a clip: scores by their names in ``Scores``, members by suffix, and flags."""

    scores: Mapping[str, Any] = field(default_factory=dict)
    members: Mapping[str, np.ndarray] = field(default_factory=dict)
    flags: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Measurement:
    """A meter at work on one clip: ``tap`` sees all its frames, then ``finish`` says what came of it."""

    tap: Tap
    finish: Callable[[Measured], Reading]


@dataclass(frozen=True, slots=True)
class StoredClip:
    """A finished clip that is about to be trimmed; ``read`` gives its arrays by suffix."""

    clip: Clip
    read: Callable[[str], np.ndarray]

    def sliced(self, span: FrameSpan, names: Sequence[str]) -> dict[str, np.ndarray]:
        """Some frames of those of the named members that the clip has."""
        return {name: self.read(name)[span.start : span.stop] for name in names if name in self.clip.files}


class Meter(ABC, Generic[S]):
    """One thing that is measured of a clip; see the module.

    Attributes:
        name: of the section of ``BuildConfig`` that turns it on, and of its part of keys. Meters of one section share
            that part.
        version: raised when its code gives other numbers, so that clips which it measured are made anew.
        sees: which picture of every frame its tap is shown.
    """

    name: ClassVar[str]
    version: ClassVar[int] = 1
    sees: ClassVar[Sight] = "copy"

    def settings(self, config: BuildConfig, domain: str) -> S | None:
        """Its section of the configuration; None where it is off, or has a list of domains without this one."""
        section: S | None = getattr(config, self.name)
        domains: Sequence[str] | None = getattr(section, "domains", None)
        return section if domains is None or domain in domains else None

    def settings_where_on(self, config: BuildConfig, domain: str) -> S:
        """Its section, for whoever knows that it is on.

        Raises:
            ValueError: where it is off.
        """
        settings = self.settings(config, domain)
        if settings is None:
            raise ValueError(f"{self.name} is off in the domain {domain!r}")
        return settings

    def check(self, config: BuildConfig) -> None:
        """Refuse settings that contradict others.

        Raises:
            UsageError: with what to change.
        """
        del config

    def files(self, config: BuildConfig, domain: str) -> tuple[str, ...]:
        """The names of the model files that it reads: by default the one that its section calls ``weights``."""
        weights: str | None = getattr(self.settings(config, domain), "weights", None)
        return (weights,) if weights is not None else ()

    def folders(self, config: BuildConfig) -> tuple[FolderModel, ...]:
        """The models that it reads from folders of the user's."""
        del config
        return ()

    def key(self, config: BuildConfig, domain: str) -> list[object] | None:
        """What keys of clips depend on because of it, beside its files; None where it is off.

        A model counts by its content, which is among the files; a list of domains counts by what is in it.
        """
        settings = self.settings(config, domain)
        if settings is None:
            return None
        return [self.name, settings.model_dump(exclude={"weights", "domains"}), *self.versions()]

    def versions(self) -> list[object]:
        """Its version as a part of keys: nothing for the first, which keys of before do not name."""
        return [self.version] if self.version > 1 else []

    def load(self, models: "ModelSet", domain: str) -> object:
        """Load what it runs, so that a file that is no network of its kind is told before any work begins.

        Raises:
            UsageError: when the file cannot be used.
        """
        del models, domain
        return None

    @abstractmethod
    def start(self, models: "ModelSet", domain: str, plan: ClipPlan, frame_px: int) -> Measurement:
        """Begin with a clip.

        Args:
            models: loaded once per process.
            domain: the source's.
            plan: of the clip.
            frame_px: side of the pictures that the tap will be shown.
        """

    def cut(self, stored: StoredClip, span: FrameSpan) -> Reading | None:
        """Its part of a trimmed clip, from what the whole clip holds; None: the part is measured like any clip.

        Args:
            stored: the whole clip; it has nothing of this meter where that was off.
            span: the frames that are kept.
        """
        del stored, span
        return None
