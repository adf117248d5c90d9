"""Lines of the accuracy bench: what a model made of media with known truth, and what it cost."""

from pydantic import Field, NonNegativeInt

from schemas.base import Record


class LandmarkRow(Record):
    """One landmarker on some faces.

    ``nme_68`` and ``nme_51`` (without the jaw) are mean distances to the reference, as a share of the distance between
    the outer eye corners, over the ``num_found`` of ``num_faces`` in which a face was found; None where no points are
    known for the media. ``ms_per_face`` is processor time of one core, from a box.
    """

    domain: str
    media: str
    reference: str  # who says where the points are
    landmarker: str
    num_faces: NonNegativeInt
    num_found: NonNegativeInt
    nme_68: float | None = Field(default=None, ge=0)
    nme_51: float | None = Field(default=None, ge=0)
    ms_per_face: float = Field(ge=0)


class PoseRow(Record):
    """One way to the head's angles: a landmarker, and what reads the angles.

    Errors are mean absolute differences in degrees on ``num_heads`` rendered heads of known pose; jitter is the median
    absolute second difference in degrees over a talking clip of ``num_frames``. ``ms_per_frame`` is processor time and
    on top of the landmarker.
    """

    landmarker: str
    pose: str
    num_heads: NonNegativeInt
    yaw_error_deg: float = Field(ge=0)
    pitch_error_deg: float = Field(ge=0)
    roll_error_deg: float = Field(ge=0)
    num_frames: NonNegativeInt
    yaw_jitter_deg: float = Field(ge=0)
    pitch_jitter_deg: float = Field(ge=0)
    roll_jitter_deg: float = Field(ge=0)
    ms_per_frame: float = Field(ge=0)
