"""Which face detectors look at a domain, and how a user's own network is described."""

from typing import Any, Literal, Self

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from schemas.base import Record

# Detectors see sides that every stride of their pyramids (8, 16, 32) divides.
INPUT_STEP_PX = 32
MAX_NAME = 32  # characters, as ``DETECTION_ROW`` stores it


class OnnxDetectorConfig(Record):
    """A user's own face detector in ONNX: one picture in, candidates out, suppression left to this project.

    The network is given (pixel - mean) * scale, pixels 0 to 255, shape [1, 3, height_px, width_px]. The layouts:

    * ``yunet``: outputs cls_S, obj_S and bbox_S for the strides S of 8, 16 and 32, as libfacedetection exports them.
    * ``scrfd``: per stride the scores [N, 1] and edge distances [N, 4] of two anchors per cell, as InsightFace does.
    * ``yolo_face``: one output [1, 5 or more, N]: centre, size and score, as Ultralytics exports one class (any
      key points behind it are left out).
    """

    path: str
    """The .onnx file."""
    width_px: int = Field(ge=INPUT_STEP_PX, multiple_of=INPUT_STEP_PX)
    """Width in pixels of the picture that the network sees."""
    height_px: int = Field(ge=INPUT_STEP_PX, multiple_of=INPUT_STEP_PX)
    """Height in pixels of the picture that the network sees."""
    layout: Literal["yunet", "scrfd", "yolo_face"]
    """How its outputs are read: see above."""
    mean: tuple[float, float, float] = (0.0, 0.0, 0.0)
    """Values, 0 to 255, that are taken off every pixel, in the order of ``channels``."""
    scale: float = Field(default=1.0, gt=0)
    """What the rest is multiplied by."""
    channels: Literal["rgb", "bgr"] = "rgb"
    """Order of the colours that the network expects."""
    max_iou: float = Field(default=0.4, gt=0, le=1)
    """Overlap (IoU) up to which two boxes both stay (InsightFace)."""
    grow_top: float = 0.0
    """What the network's box lacks above to reach the hairline, in shares of its height; negative where it shows too
    much."""
    grow_bottom: float = 0.0
    """What the network's box lacks below to reach the chin, in shares of its height; negative where it shows too
    much."""
    grow_sides: float = 0.0
    """What the network's box lacks at each side to hold the face without ears, in shares of its width; negative where
    it shows too much."""


class DetectorChoice(Record):
    """One detector and the score from which its faces count."""

    model: str = Field(max_length=MAX_NAME)
    """A detector of this project, or for a user's own one (``onnx``) the name that its faces bear."""
    min_score: float = Field(ge=0, le=1)
    """Score from which a face counts."""
    input_px: int | None = Field(default=None, ge=INPUT_STEP_PX, multiple_of=INPUT_STEP_PX)
    """Long side in pixels of the picture that the network sees; None: the one it was measured with. Not every detector
    has a choice."""
    onnx: OnnxDetectorConfig | None = None
    """A user's own network; None: a detector of this project."""

    @model_validator(mode="after")
    def _one_size(self) -> Self:
        if self.onnx is not None and self.input_px is not None:
            raise ValueError(f"{self.model}: an onnx detector has width_px and height_px; leave out input_px")
        return self

    @model_serializer(mode="wrap")
    def _without_unset(self, serialise: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave out what is not set, so that a choice without it is stored, and hashed, as it always was."""
        dumped: dict[str, Any] = serialise(self)
        return {name: value for name, value in dumped.items() if value is not None}


class DomainDetectors(Record):
    """Who finds the faces of a domain, and whether the mesh network must see them too."""

    detectors: tuple[DetectorChoice, ...]
    presence_gate: bool


# For the profile that has weights files. By the detection bench on the labelled films (hits of faces, false alarms in
# frames): real 88 of 88, 0 in 88; disney_human 56 of 60, 1 in 144; disney_animal 38 of 52, 2 in 57; mesh 32 of 32, 0 in
# 32. On people and meshes every detector finds all; SCRFD also finds the small faces of group photographs (17 of 17).
STANDARD_DETECTORS: dict[str, DomainDetectors] = {
    "real": DomainDetectors(detectors=(DetectorChoice(model="scrfd_500m", min_score=0.5),), presence_gate=True),
    "disney_human": DomainDetectors(
        detectors=(
            DetectorChoice(model="yunet", min_score=0.3),
            DetectorChoice(model="blazeface_short", min_score=0.5),
        ),
        presence_gate=True,
    ),
    "disney_animal": DomainDetectors(
        detectors=(
            DetectorChoice(model="cat_cascade", min_score=0.6),
            DetectorChoice(model="yunet", min_score=0.45, input_px=480),
        ),
        presence_gate=False,
    ),
    "mesh": DomainDetectors(detectors=(DetectorChoice(model="scrfd_500m", min_score=0.5),), presence_gate=True),
}
