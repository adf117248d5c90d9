"""Which domain a clip seems to belong to, beside the one that its manifest claims.

The manifest's word is the prior and is never replaced; what disagrees with it is flagged for people to look at.
"""

from typing import Self

from pydantic import Field, model_validator

from schemas.base import Record

UNSURE = "unsure"
DOUBTFUL_FLAG = "domain_doubtful"


class RouterConfig(Record):
    """The domain router; a record of this kind turns it on. It reads files of installed packages only, CLIP apart."""

    num_frames: int = Field(default=5, ge=1)
    """Frames looked at, evenly spaced over the clip; about 50 ms each on one core."""
    trust: float = Field(default=0.95, gt=0, lt=1)
    """Probability that the manifest is right before anything is seen; chosen: sources are described by people who saw
    them."""
    min_probability: float = Field(default=0.8, gt=0.5, lt=1)
    """Probability from which a domain is named; a clip whose claim is left with the rest or less is flagged. Of 118
    takes, each judged by a model fitted to the other families, none is flagged wrongly at .8, one at .7
    (docs/router.md)."""
    clip: str = ""
    """A local folder of a CLIPModel in safetensors with its processor; empty leaves zero-shot CLIP out."""
    prompts: dict[str, tuple[str, ...]] = {}
    """Sentences that CLIP compares the pictures with, by domain; for a domain without any "a picture of" and its
    description."""


class DomainEvidence(Record):
    """What the router saw: medians over the frames it looked at, measured on the crop at 256 px and its face.

    ``human``: score of the people's face detector at the face, 0 where it finds none. ``presence``: the mesh network's
    face flag. ``cat``: score of the cats' detector at the face. Within twice the face's box: ``evenness`` is the part
    of the pixels whose neighbours differ by at most 3 levels, ``grain`` the texture of what is nearly even (log2 of
    levels), ``crispness`` how much detail of one or two pixels there is against coarser detail (log2), ``outline`` the
    part that lies on thin dark lines.
    """

    human: float
    presence: float
    cat: float
    evenness: float
    grain: float
    crispness: float
    outline: float


class DomainChance(Record):
    """A domain and how likely it is, 0 to 1."""

    domain: str
    probability: float


class RouterScore(Record):
    """The domain that a clip's frames speak for, ``unsure`` unless one is likely enough, and why.

    ``probability`` is that of the likeliest domain and ``claim`` that of the claimed one, which is the prior; None
    where the router does not know it. ``doubtful``: hardly anything is left for the claim, though it may be open which
    other domain it is instead. ``zero_shot`` is CLIP's opinion, where it was asked.
    """

    proposed: str
    probability: float
    claim: float | None
    doubtful: bool
    evidence: DomainEvidence
    zero_shot: tuple[DomainChance, ...] | None = None


class RouterModel(Record):
    """A linear model: the logit of a domain is its intercept + sum of weight × (evidence - mean) / scale.

    ``note`` says what it was fitted to.
    """

    note: str
    mean: dict[str, float]
    scale: dict[str, float]
    intercepts: dict[str, float]
    weights: dict[str, dict[str, float]]

    @model_validator(mode="after")
    def _complete(self) -> Self:
        names = set(DomainEvidence.model_fields)
        given = [self.mean, self.scale, *self.weights.values()]
        if any(set(names_given) != names for names_given in given) or set(self.intercepts) != set(self.weights):
            raise ValueError(f"a router needs {', '.join(sorted(names))} in mean, scale and every domain's weights")
        return self
