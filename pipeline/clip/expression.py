"""What a face expresses in every frame of a clip: a network's logits and features."""

from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float32, UInt8

from pipeline.clip.meter import Measured, Measurement, Meter, Reading, StoredClip
from schemas.base import FrameSpan
from schemas.clip import ClipPlan
from schemas.config import ExpressionConfig
from schemas.face import XYXY

if TYPE_CHECKING:  # starts network runtimes
    from pipeline.models.expression import ExpressionNetwork
    from pipeline.models.registry import ModelSet

LOGITS_FILE, FEATURES_FILE = "emotion.npy", "emotion_feat.npy"

_BATCH = 16


class ExpressionMeter(Meter[ExpressionConfig]):
    """Adds ``emotion.npy`` and ``emotion_feat.npy``, of which a trimmed clip keeps its frames."""

    name = "expression"
    sees = "whole"

    def load(self, models: "ModelSet", domain: str) -> "ExpressionNetwork":  # noqa: D102
        from pipeline.models.expression import ExpressionNetwork

        settings = self.settings_where_on(models.config, domain)
        return models.once(
            self.name,
            lambda: ExpressionNetwork(models.file(settings.weights).path, settings.input, settings.device),
        )

    def start(self, models: "ModelSet", domain: str, plan: ClipPlan, frame_px: int) -> Measurement:  # noqa: D102
        tap = ExpressionTap(self.load(models, domain), plan, frame_px)

        def finish(measured: Measured) -> Reading:
            del measured
            logits, features = tap.finish()
            return Reading(members={LOGITS_FILE: logits, FEATURES_FILE: features})

        return Measurement(tap, finish)

    def cut(self, stored: StoredClip, span: FrameSpan) -> Reading:  # noqa: D102
        return Reading(members=stored.sliced(span, (LOGITS_FILE, FEATURES_FILE)))


class ExpressionTap:
    """Feed every output frame of a clip in order, then ``finish``; holds a batch of pictures at most.

    Args:
        network: loaded.
        plan: where the clip's one face box lies in its square.
        size_px: side of the frames.
    """

    def __init__(self, network: "ExpressionNetwork", plan: ClipPlan, size_px: int) -> None:
        self._network = network
        scale = size_px / plan.square.width_px
        face, left, top = plan.face, plan.square.x0, plan.square.y0
        self._face: XYXY = (
            (face.x0 - left) * scale,
            (face.y0 - top) * scale,
            (face.x1 - left) * scale,
            (face.y1 - top) * scale,
        )
        self._waiting: list[Float32[np.ndarray, "3 S S"]] = []
        self._logits: list[Float32[np.ndarray, "N 8"]] = []
        self._features: list[Float32[np.ndarray, "N D"]] = []

    def add(self, frame: UInt8[np.ndarray, "H W 3"], face: XYXY) -> None:
        """One RGB frame; its own box is not looked at, since a square that moves would look like expression."""
        from pipeline.models.expression import prepare

        del face
        self._waiting.append(prepare(frame, self._face, self._network.given))
        if len(self._waiting) == _BATCH:
            self._look()

    def finish(self) -> tuple[Float32[np.ndarray, "T 8"], Float32[np.ndarray, "T D"]]:
        """``emotion.npy`` and ``emotion_feat.npy``."""
        if self._waiting:
            self._look()
        return np.concatenate(self._logits), np.concatenate(self._features)

    def _look(self) -> None:
        logits, features = self._network.look(np.stack(self._waiting))
        self._waiting.clear()
        self._logits.append(logits)
        self._features.append(features)
