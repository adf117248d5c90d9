"""How a release divides its clips between splits, and packs them."""

from typing import Literal, Self

from pydantic import Field, NonNegativeInt, model_validator

from schemas.base import Record

# AnyTalk trains on 600 + 325 + 325 clips of AniTalk and 300 real ones. It tests on "50 test videos with Disney human
# style" and drives with "78 videos with Disney human/animal style"; neither how the 78 divide nor whether the tests
# are among the 1,250 is said. Read here: 50 human and 28 animal clips, held out beside the training clips.
PAPER_TRAIN = {"disney_human": 600, "disney_animal": 325, "mesh": 325, "real": 300}
PAPER_TEST = {"disney_human": 50, "disney_animal": 28}
PAPER_MIN_NATIVE_CROP_PX = 256.0  # ours: below it a clip is flagged low_res, and the paper's sources are 1080p


class SplitConfig(Record):
    """Who goes where; groups (identity, source title, file content) are never divided between splits.

    With any requested count the ratios do not apply. A split without counts gets nothing, except that
    ``train`` takes all that is left when it names no domain.
    """

    seed: int = 0
    """Seed of the draw of groups."""
    val_ratio: float = Field(default=0.05, ge=0.0, lt=0.5)
    """Part of each domain's clips that is for validation."""
    test_ratio: float = Field(default=0.05, ge=0.0, lt=0.5)
    """Part of each domain's clips that is for tests."""
    preset: Literal["none", "paper"] = "none"
    """Counts that are known by name: those of the AnyTalk paper, or none."""
    train: dict[str, NonNegativeInt] = {}
    """Requested clips for training, by domain; the rest of the accepted clips stays out."""
    val: dict[str, NonNegativeInt] = {}
    """Requested clips for validation, by domain."""
    test: dict[str, NonNegativeInt] = {}
    """Requested clips for tests, by domain."""

    @model_validator(mode="after")
    def _one_request(self) -> Self:
        if self.preset != "none" and (self.train or self.val or self.test):
            raise ValueError(f"split: the preset {self.preset!r} brings its own counts; leave out train, val and test")
        return self


class PackConfig(Record):
    """Shards."""

    target_bytes: int = Field(default=256 * 1024**2, ge=1)
    """Size in bytes of the larger of a pair of visual and speech shards."""
    min_shards: int = Field(default=1, ge=1)
    """Shards per split and domain, at least; readers want at least 4 × ranks × workers."""
    seed: int = 0
    """Seed of the order of clips: neighbours of one source must not be neighbours in a shard."""
