"""All settings of a build in one record."""

from typing import Literal

from pydantic import Field

from schemas.base import Record, is_absent
from schemas.colour import ColourConfig
from schemas.config.analysis import CropConfig
from schemas.config.clip import (
    EmbeddingConfig,
    ExpressionConfig,
    LandmarkConfig,
    SpeakerConfig,
    SpeechConfig,
    SyncConfig,
)
from schemas.config.collection import CollectionConfig
from schemas.config.domains import EMBEDDED_DOMAINS, DomainConfig
from schemas.config.fetching import AcquireConfig, ProbeConfig
from schemas.config.releasing import PackConfig, SplitConfig
from schemas.quality import QualityConfig
from schemas.router import RouterConfig


class BuildConfig(Record):
    """Everything a build depends on besides its inputs."""

    profile: Literal["embedded", "standard"] = "embedded"
    """What the settings began with: "embedded" needs no file beside the installed packages, "standard" reads weights
    files."""
    acquire: AcquireConfig = AcquireConfig()
    """How sources are fetched."""
    probe: ProbeConfig = ProbeConfig()
    """What a file must be able to do."""
    crop: CropConfig = CropConfig()
    """Where clips are cut."""
    landmarks: LandmarkConfig = LandmarkConfig()
    """Points per frame."""
    speech: SpeechConfig = SpeechConfig()
    """Features of the sound."""
    sync: SyncConfig = SyncConfig()
    """Mouth against sound, without a network."""
    speaker: SpeakerConfig | None = Field(default=None, exclude_if=is_absent)
    """Which face makes the sound, by a network; None leaves it out."""
    expression: ExpressionConfig | None = Field(default=None, exclude_if=is_absent)
    """What a face expresses, by a network; None leaves it out."""
    identity: EmbeddingConfig | None = Field(default=None, exclude_if=is_absent)
    """Whose face it is, by a network; None leaves it out."""
    quality: QualityConfig | None = Field(default=None, exclude_if=is_absent)
    """Stability of the camera and what is burnt in; None leaves both out."""
    router: RouterConfig | None = Field(default=None, exclude_if=is_absent)
    """Which domain a clip seems to belong to; None leaves it out."""
    colour: ColourConfig | None = Field(default=None, exclude_if=is_absent)
    """How colourful a clip is; None leaves it out."""
    collection: CollectionConfig = CollectionConfig()
    """What looks at all clips at once."""
    split: SplitConfig = SplitConfig()
    """Which clips are for training, validation and tests."""
    pack: PackConfig = PackConfig()
    """How shards are packed."""
    domains: dict[str, DomainConfig] = EMBEDDED_DOMAINS
    """What is known about each domain, by its name."""
