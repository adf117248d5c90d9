"""Whose face a clip shows: one embedding from a few of its frames.

The frames are looked at in the clip's own size and by its own stored points, so that whoever has the sample and the
network can make the numbers again, up to what encoding changed.
"""

import io
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float32, UInt8

from pipeline.clip.meter import Measured, Measurement, Meter, Reading, StoredClip
from pipeline.models.identity import (
    EMBEDDING_SIZE,
    ArcFace,
    Embedding,
    NoIdentityError,
    five_points,
    mean_embedding,
)
from schemas.base import FrameSpan
from schemas.clip import ClipPlan
from schemas.config import EmbeddingConfig
from schemas.face import XYXY
from schemas.prints import EMBEDDING_FILE

if TYPE_CHECKING:  # starts network runtimes
    from pipeline.models.registry import ModelSet

NO_IDENTITY = "no_identity"


class EmbeddingMeter(Meter[EmbeddingConfig]):
    """Adds ``identity.npy``, or a flag where there is no telling; a trimmed clip keeps either.

    The whole clip has seen more of the face than its part has.
    """

    name = "identity"
    sees = "whole"

    def load(self, models: "ModelSet", domain: str) -> ArcFace:  # noqa: D102
        settings = self.settings_where_on(models.config, domain)
        return models.once(self.name, lambda: ArcFace(models.file(settings.weights).path, settings.device))

    def start(self, models: "ModelSet", domain: str, plan: ClipPlan, frame_px: int) -> Measurement:  # noqa: D102
        del frame_px
        num_looks = self.settings_where_on(models.config, domain).num_frames
        tap = EmbeddingTap(self.load(models, domain), plan.num_frames, num_looks)

        def finish(measured: Measured) -> Reading:
            embedding = tap.finish(measured.points, measured.readable)
            if embedding is None:
                return Reading(flags=(NO_IDENTITY,))
            return Reading(members={EMBEDDING_FILE: embedding})

        return Measurement(tap, finish)

    def cut(self, stored: StoredClip, span: FrameSpan) -> Reading:  # noqa: D102
        del span
        members = {EMBEDDING_FILE: stored.read(EMBEDDING_FILE)} if EMBEDDING_FILE in stored.clip.files else {}
        return Reading(members=members, flags=(NO_IDENTITY,) if NO_IDENTITY in stored.clip.flags else ())


def looked_at(num_frames: int, num_looks: int) -> list[int]:
    """At most ``num_looks`` frames of a clip, in the middle of equal parts of it."""
    return sorted({(2 * look + 1) * num_frames // (2 * num_looks) for look in range(num_looks)})


class EmbeddingTap:
    """Feed every output frame of a clip in order, then ``finish`` with its points; keeps the frames to look at.

    Args:
        network: loaded.
        num_frames: of the clip.
        num_looks: how many of them are looked at.
    """

    def __init__(self, network: ArcFace, num_frames: int, num_looks: int) -> None:
        self._network = network
        self._wanted = frozenset(looked_at(num_frames, num_looks))
        self._frames: dict[int, UInt8[np.ndarray, "S S 3"]] = {}
        self._num_seen = 0

    def add(self, frame: UInt8[np.ndarray, "S S 3"], face: XYXY) -> None:
        """One RGB frame at the clip's own size; its box is not needed."""
        del face
        if self._num_seen in self._wanted:
            self._frames[self._num_seen] = frame
        self._num_seen += 1

    def finish(self, points: Float32[np.ndarray, "T P 3"], readable: Float32[np.ndarray, "T"]) -> Embedding | None:
        """``identity.npy``; None where no face was read in any of the frames, or the network knows none of them.

        Args:
            points: as stored, in pixels of the frames; those of iBUG wherever a frame is readable.
            readable: 0 where a frame has no face, or its points have no names.
        """
        embeddings: list[Embedding] = []
        for index, frame in sorted(self._frames.items()):
            if readable[index] > 0:
                try:
                    embeddings.append(self._network.embed(frame, five_points(points[index])))
                except NoIdentityError:
                    continue  # a frame less; a clip without any says so
        try:
            return mean_embedding(np.stack(embeddings)) if embeddings else None
        except NoIdentityError:
            return None


def read_embedding(data: bytes) -> Embedding:
    """The embedding that ``identity.npy`` holds.

    Raises:
        ValueError: when the data are damaged, or something else.
    """
    try:
        embedding = np.load(io.BytesIO(data), allow_pickle=False)
    except EOFError as error:
        raise ValueError("an embedding is cut short") from error
    if embedding.dtype != np.float32 or embedding.shape != (EMBEDDING_SIZE,) or not np.isfinite(embedding).all():
        raise ValueError(f"an embedding has {EMBEDDING_SIZE} finite numbers, found {embedding.dtype} {embedding.shape}")
    return embedding
