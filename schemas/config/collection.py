"""What looks at all clips at once, when a release is made."""

from pydantic import Field

from schemas.base import Record


class IdentityConfig(Record):
    """Whose face is whose. Measured on seven people of the assets, most of one take each, except for the cosines.

    Prints tell people apart within one source only; where a source's clips have embeddings, these do, and tie sources.
    """

    max_distance: float = Field(default=0.42, ge=0)
    """Distance of two prints (unit vectors) up to which they are one person. Two pieces of one take lay up to .34
    apart, two people at least .51 (in the same room)."""
    min_cosine: float = Field(default=0.5, ge=-1, le=1, exclude_if=lambda cosine: cosine == 0.5)
    """Cosine of two embeddings from which they are one person of a source. With this network five people in one
    photograph reached .35, and .5 is a usual limit for clustering (py-feat, pull request 284). Not measured here: no
    real weights are at hand."""
    min_tie_cosine: float = Field(default=0.4, ge=-1, le=1, exclude_if=lambda cosine: cosine == 0.4)
    """Cosine of two embeddings from which their two sources are not divided between splits. From .28 on an ArcFace
    took 1 of 1000 pairs of strangers on LFW for one person (AdvFaces), which ties everybody to everybody in thousands
    of sources; so it lies between the two."""


class DuplicateConfig(Record):
    """When two clips are one take. Measured on copies of three talkers: re-encoded, smaller, brighter, trimmed, zoomed.

    The pictures must agree, and then the movement or the sound.
    """

    max_picture_bits: int = Field(default=16, ge=0, le=64)
    """Bits, of 64, by which the typical picture hashes may differ. Copies differed in 12 at most (zoomed by 6 %;
    otherwise 9), different talkers in 22 and more, two pieces of one take in 1 to 11: so this chooses what to compare,
    and proves nothing."""
    min_overlap: float = Field(default=0.5, gt=0, le=1)
    """Common time in shares of the shorter clip from which it counts; half a clip twice is too much; chosen."""
    min_motion: float = Field(default=0.05, ge=0)
    """Mean square per frame, summed over 16 cells, in grey levels. With less a clip is a still, and its changes are the
    encoder's. A speaker who holds still measured .15, a talking mesh .42."""
    min_motion_agreement: float = Field(default=0.65, gt=0, le=1)
    """Correlation of the movement from which it agrees. Copies measured .87 and more, other takes of the same talker
    .42 at most, mirrored copies too."""
    min_heard: float = Field(default=0.25, gt=0, le=1)
    """Part of the common time that must have any sound for the sound to count; chosen."""
    min_sound_agreement: float = Field(default=0.45, gt=0, le=1)
    """1 - 2 × bit error rate of the sound's prints from which it agrees: Haitsma and Kalker call .30 the same sound.
    Copies measured .76 and more, others .16."""


class RidgeConfig(Record):
    """A linear model of the mouth from the sound, fitted on the collection's other sources."""

    penalty: float = Field(default=300.0, gt=0)
    """Weight of the ridge penalty."""
    context_before: int = Field(default=6, ge=0)
    """Frames of sound before the mouth's that the model sees."""
    context_after: int = Field(default=3, ge=0)
    """Frames of sound after the mouth's that the model sees."""
    highpass_s: float = Field(default=0.5, gt=0)
    """Sigma in seconds of the slow movement that is taken away: posture and head pose are slower; chosen."""
    max_lag_frames: int = Field(default=5, ge=0)
    """Frames by which the picture may lead or trail the sound."""
    min_s: float = 3.2
    """Seconds with a face below which the answer is "unknown", as for the sync score."""
    min_shift_s: float = 1.0
    """Least shift in seconds of the sounds that do not belong to the mouth."""
    min_teaching_s: float = 2.5
    """Shortest clip in seconds that the model is fitted to."""
    min_teaching_speech_ratio: float = 0.25
    """Least part of speech in a clip that the model is fitted to; a release's own limit, repeated here so that changing
    that one does not fit the model again."""
    min_teaching_sync_z: float = 1.5
    """Least sync z, where it is known, of a clip that the model is fitted to; repeated for the same reason."""
    min_other_groups: int = Field(default=8, ge=1)
    """Other sources that it takes to fit the model. With three or four others (20 to 28 s) it ranked the true sound as
    the sync score did, with a smaller z; with fourteen it did better. Where between the two it becomes better is not
    known: eight is a guess."""


class CollectionConfig(Record):
    """What looks at all clips at once, when a release is made; nothing here touches a clip."""

    identities: IdentityConfig = IdentityConfig()
    """Whose face is whose."""
    duplicates: DuplicateConfig = DuplicateConfig()
    """When two clips are one take."""
    ridge: RidgeConfig = RidgeConfig()
    """The sync score that is fitted to the collection."""
