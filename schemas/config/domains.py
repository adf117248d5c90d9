"""What is known about each domain, and the domains that every build begins with."""

from typing import Literal, Self

from pydantic import Field, model_validator

from schemas.base import Record
from schemas.config.analysis import FaceConfig, ShotConfig
from schemas.config.limits import SelectLimits
from schemas.detectors import DetectorChoice
from schemas.landmarkers import NUM_NAMED_POINTS, LandmarkerChoice, UserLandmarker


class DomainConfig(Record):
    """What is known about a domain: who finds and reads its faces, and what it must reach."""

    description: str
    """The domain in words, as the dataset card says it."""
    detectors: tuple[DetectorChoice, ...]
    """Who finds faces; what several find is merged."""
    presence_gate: bool
    """Whether a detection stays only where the mesh network sees a face too; for human-like domains."""
    landmarker: LandmarkerChoice
    """Who reads the points of a face; "none" leaves them out."""
    pose: Literal["mesh", "pnp", "fsanet"] = Field(default="mesh", exclude_if=lambda pose: pose == "mesh")
    """Where yaw, pitch and roll come from: the fit of the average head to the points with their depth ("mesh"), its fit
    to x and y under a perspective camera ("pnp"), or FSA-Net. The head's position always comes from the first."""
    shots: ShotConfig = ShotConfig()
    """How shots are divided."""
    faces: FaceConfig = FaceConfig()
    """How faces are found and tracked."""
    limits: SelectLimits = SelectLimits()
    """What a clip must reach to be in a release."""

    @model_validator(mode="after")
    def _points_for_the_pose(self) -> Self:
        unnamed = isinstance(self.landmarker, UserLandmarker) and self.landmarker.num_points != NUM_NAMED_POINTS
        if self.pose != "mesh" and (self.landmarker == "none" or unnamed):
            raise ValueError(
                f"pose {self.pose!r} needs a landmarker of {NUM_NAMED_POINTS} points: the head's place comes from them"
            )
        return self


EMBEDDED_DOMAINS: dict[str, DomainConfig] = {
    "real": DomainConfig(
        description="filmed people",
        detectors=(DetectorChoice(model="blazeface_short", min_score=0.5),),
        presence_gate=True,
        landmarker="facemesh",
    ),
    "disney_human": DomainConfig(
        description="animated humans, rendered or drawn",
        detectors=(DetectorChoice(model="blazeface_short", min_score=0.4),),
        presence_gate=True,
        landmarker="facemesh",
    ),
    "disney_animal": DomainConfig(
        description="animals with faces, animated or filmed",
        detectors=(
            DetectorChoice(model="cat_cascade", min_score=0.6),
            DetectorChoice(model="blazeface_short", min_score=0.6),
        ),
        presence_gate=False,
        landmarker="none",
    ),
    "mesh": DomainConfig(
        description="rendered head meshes",
        detectors=(DetectorChoice(model="blazeface_short", min_score=0.5),),
        presence_gate=True,
        landmarker="facemesh",
    ),
}
