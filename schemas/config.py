"""Every setting of a build: one frozen record per stage, each default with its unit and origin.

A stage's results are keyed by its record, so a setting that does not change what a stage computes
must not live in that stage's record: limits on stored scores live in SelectLimits, not in the stages.
"""

import operator
from typing import Literal, Self

from pydantic import Field, NonNegativeInt, model_validator

from schemas.base import Record, is_absent
from schemas.colour import ColourConfig
from schemas.detectors import DetectorChoice
from schemas.expression import ExpressionInput
from schemas.landmarkers import NUM_NAMED_POINTS, LandmarkerChoice, UserLandmarker
from schemas.models import Device
from schemas.quality import QualityConfig
from schemas.router import RouterConfig
from schemas.uri import uri_scheme


class AcquireConfig(Record):
    """How sources are fetched."""

    schemes: tuple[str, ...] = ("http", "https", "s3", "gs", "file")
    allow_private_addresses: bool = False  # loopback, link-local and private ranges; for tests and intranets
    max_bytes: int = 8 * 1024**3  # a 1080p film of three hours is about 6 GB
    max_duration_s: float = 4 * 3600.0
    max_height_px: int = 1080  # the paper collects 1080p
    max_redirects: int = 5
    connect_timeout_s: float = 20.0
    stall_timeout_s: float = 60.0  # no byte for this long ends the attempt
    num_attempts: int = 4
    backoff_s: float = 2.0  # first wait; doubles per attempt
    host_interval_s: float = 5.0  # between web videos of one host: yt-dlp's threads report throttling near 300 per hour
    host_videos_per_hour: int = 250  # of one host; yt-dlp #16147 saw about 300 per session
    file_interval_s: float = 1.0  # between requests for plain files of one host; mine
    throttle_cooldown_s: float = 2 * 3600.0  # a host that asked for fewer requests is left alone this long; mine
    web_format: str = "bv*[height<={max_height_px}]+ba/b"  # yt-dlp's format expression; muxed, so nothing drifts
    web_extractors: tuple[str, ...] = ("default",)  # yt-dlp's names or patterns; "default" includes the generic one


class ProbeConfig(Record):
    """What a file must be able to do before work is spent on it."""

    check_s: float = 1.0  # decoded at the beginning and at the end of the file
    max_side_px: int = 8192
    min_side_px: int = 64
    max_duration_s: float = 4 * 3600.0
    # A header may claim anything; the last decodable frame must lie this close to its claim.
    max_missing_s: float = 1.0


class ShotConfig(Record):
    """Shot boundaries; levels and contrasts are 0 to 255. Measured: on the Sintel trailer, by tests/test_shots.py."""

    cut_side_px: int = 160  # long side of the frames PySceneDetect sees; on the trailer the same cuts as unscaled (480)
    # Proposals only, so both lie below PySceneDetect's defaults (3.0 and 15): a cut amid action scored 2.4,
    # one between two title cards 9. What is proposed must pass same_scene.
    adaptive_threshold: float = 2.0
    adaptive_window: int = 2  # frames on each side
    min_content_val: float = 6.0
    histogram_threshold: float = 0.5  # 1 - correlation; a second proposer, for cuts amid fast action
    same_scene: float = 0.5  # block similarity, 0 to 1: hard cuts measured <= .43, fast action >= .47
    same_scene_calm: float = 0.6  # the same where nothing moves before or after: a cut to a closer view measured .50
    calm: float = 0.9  # similarity two frames apart that counts as nothing moving
    new_tint: float = 9.5  # median change of colour, Lab units: look-alike framings cut at >= 11, fast action <= 7.5
    calm_tint: float = 1.0  # change of colour in three frames that counts as none, Lab units (mine)
    same_level: float = 0.5  # darker over lighter end of a dissolve between look-alike framings; below it a fade (mine)
    same_after_flash: float = 0.7  # the same, between the frames around a flash
    flash_s: float = 0.25  # a longer interruption is a shot
    flat_contrast: float = 2.5  # standard deviation of a picture without content; a title on black has 6
    dark_level: float = 12.0  # mean of a flat picture that is black (ThresholdDetector's default)
    min_fade_height: float = 5.0  # contrast (above black: level) of a picture that can fade
    min_flat_frames: int = 3  # a shorter flat picture is no shot of its own
    min_flat_jump: float = 40.0  # in level, between two flat pictures; less is one fade through both
    max_fade_s: float = 4.0  # one side of a dip; the trailer's longest is 4 s
    plateau_s: float = 0.2  # a ramp that rose no further for this long has ended
    max_dissolve_s: float = 2.5  # the trailer's longest is 2 s
    min_dissolve_step: float = 10.0  # root mean square between the two scenes
    min_straightness: float = 0.8  # of the change per pixel: dissolves >= .83, heads and cameras moving <= .63
    min_straightness_grown: float = 0.65  # the same once found, while its ends are sought
    max_dissolve_jump: float = 0.4  # largest share of a dissolve in one frame; a cut jumps by nearly all
    same_scene_dissolved: float = 0.6  # block similarity of a dissolve's two ends, which may still be mixed
    same_view: float = 0.9  # correlation of those ends where they overlap best: pans measured .98
    run_s: float = Field(default=600.0, gt=0)  # a long source is analysed in runs of about this length, side by side


class FaceConfig(Record):
    """Detection and tracking."""

    analysis_side_px: int = Field(default=640, ge=128)  # long side of the frames that detectors and shot detection see
    stride: int = Field(default=5, ge=1)  # frames between detections (TalkVid, LivePortrait)
    # IoU between two looks a stride apart; below it the frames between are looked at (mine)
    densify_iou: float = Field(default=0.6, ge=0, le=1)
    min_presence: float = Field(default=0.5, ge=0, le=1)  # the mesh network's face flag, where a domain has the gate
    min_face_px: float = Field(default=40.0, ge=0)  # height in the source; lower detections are not tracked
    min_iou: float = Field(default=0.5, gt=0, le=1)  # frame to frame; lowered with the gap by the tracker (syncnet)
    max_gap: int = Field(default=10, ge=0)  # frames a face may be missing, beside the stride (TalkNet)
    # Cosine below which two sightings are not joined. Measured within 15 frames: one talker 0.91 and more, two
    # talkers 0.55 by median; above 0.6 drawn figures that turn fall into pieces.
    min_appearance: float = Field(default=0.5, ge=-1, le=1)
    min_sightings: int = Field(default=2, ge=1)  # one sighting alone is as likely noise, and no clip is so short (mine)


class CropConfig(Record):
    """Where clips are cut, in time and in the picture."""

    size_px: int = 512
    fps: int = 25  # HDTF, LatentSync, SyncNet
    scale: float = 1.6  # side of the square in face-box heights: the face fills about 0.63 of it
    min_scale: float = (
        1.4  # where the picture itself is a face crop; face-cropped sets such as HDTF's come at about 1.5
    )
    y_offset: float = 0.0  # of the side; positive moves the square down
    median_window: int = 13  # detections; jitter of a pixel or two must not move the square
    boundary_trim_s: float = 0.5  # at detected transitions only (cosmos-curate)
    min_trim_frames: int = 3  # when half a second would leave too little (PySceneDetect #431)
    min_tube_iou: float = 0.25  # with the tube's first box (FOMM)
    min_clip_s: float = 64 / 25  # FOMM asks for 64 frames
    max_clip_s: float = 20.0
    max_neighbour_area: float = 0.25  # of the main face's area, inside the square: above it, not single-subject
    # Every frame a key frame, three clips: superfast at 17.5 keeps what veryfast keeps at 18 (PSNR) in .7 of the time.
    crf: float = 17.5
    preset: str = "superfast"


class LandmarkConfig(Record):
    """Per-frame points on the crop."""

    # Below it the frame has no landmarks. Of the mesh it is the network's face flag (.5 is MediaPipe's own limit), of
    # the others what ``pipeline.models.point_networks`` and ``pipeline.models.fan`` say.
    min_confidence: float = 0.5
    # Gaussian of the smoothed copy. One frame at 25 fps takes 60 % off the jitter, 3 % off the range of the lips and
    # 13 % off a blink (seven talking clips); a 1-euro filter run both ways costs 10 % and 20 % for the same jitter.
    smoothing_sigma_s: float = 0.04
    fan_device: Device = Field(default="cpu", exclude_if=lambda device: device == "cpu")


class SpeechConfig(Record):
    """Audio features, at 16 kHz."""

    vad_threshold: float = 0.5  # Silero's own default
    mel_bins: int = 80
    mel_window_samples: int = 640  # 40 ms
    mel_hop_samples: int = 160  # 10 ms: four mel frames per video frame
    hubert: str = ""  # a local folder or hub name; empty leaves the stage out
    hubert_layers: tuple[int, ...] = (-1,)
    hubert_rate_conversion: Literal["mean", "concat"] = "mean"  # of the two 50 Hz steps per video frame
    hubert_device: Device = Field(default="cpu", exclude_if=lambda device: device == "cpu")
    hubert_half: bool = Field(default=False, exclude_if=operator.not_)  # computed in 16-bit floats, on CUDA only

    @model_validator(mode="after")
    def _half_needs_cuda(self) -> Self:
        if self.hubert_half and self.hubert_device != "cuda":
            raise ValueError("hubert_half computes on CUDA only: set speech.hubert_device to cuda, or leave it out")
        return self


class SyncConfig(Record):
    """Mouth opening against the speech envelope."""

    max_lag_frames: int = 5
    min_s: float = 3.2  # below it the answer is "unknown"; AUC by length: 2 s .83, 3 s .87, 4 s .94, 5 s .97
    min_shift_s: float = 1.0


class SpeakerConfig(Record):
    """Which face makes the sound, by Light-ASD; it knows people, and a rendered mesh nearly as well."""

    weights: str = "light_asd"  # a name of the weights registry, or the path of the published state dict
    domains: tuple[str, ...] = ("real", "disney_human", "mesh")
    min_heard_s: float = Field(default=0.5, gt=0)  # of speech; with less there is nothing to compare (mine)
    min_shift_s: float = Field(default=1.0, gt=0)  # of the sounds that do not belong to the face
    # Over windows of 3 to 6 s the own face beat a foreign talker in .86 to .94 of pairs, without lags in .79 to .90.
    max_lag_frames: int = Field(default=3, ge=0)
    num_shifts: int = Field(default=50, ge=10)  # at most; neighbouring shifts resemble one another


class ExpressionConfig(Record):
    """AffectNet's eight classes per frame. On one core a ResNet-50 takes about a tenth of a second per frame."""

    # The path of an .onnx file, or of a torchvision ResNet-50 with eight outputs as .safetensors.
    weights: str
    input: ExpressionInput = ExpressionInput()
    device: Device = Field(default="cpu", exclude_if=lambda device: device == "cpu")
    domains: tuple[str, ...] = ("real", "disney_human", "mesh")


class EmbeddingConfig(Record):
    """Whose face a clip shows, as ArcFace's 512 numbers (``identity.npy``): biometric data.

    Looked at are frames ``floor((k + 0.5) * T / num_frames)`` of the T frames of a clip, at the clip's own size, as
    far as the face in them was read; their eyes, nose and mouth are those of ``landmarks.npy``.
    """

    weights: str = "arcface_r50"  # a name of the weights registry, or the path of an .onnx file
    # Whom it was trained on. Rendered and drawn faces are all strangers to it, and may all look alike.
    domains: tuple[str, ...] = ("real",)
    num_frames: int = Field(default=8, ge=1)  # so many that three odd ones do not lead (mine)
    device: Device = "cpu"


class IdentityConfig(Record):
    """Whose face is whose. Measured on seven people of the assets, most of one take each, except for the cosines.

    Prints tell people apart within one source only; where a source's clips have embeddings, these do, and tie sources.
    """

    # Between unit vectors. Two pieces of one take lay up to .34 apart, two people at least .51 (in the same room).
    max_distance: float = Field(default=0.42, ge=0)
    # Of embeddings, for one person of a source. With this network five people in one photograph reached .35, and .5
    # is a usual limit for clustering (py-feat, pull request 284). Not measured here: no real weights are at hand.
    min_cosine: float = Field(default=0.5, ge=-1, le=1, exclude_if=lambda cosine: cosine == 0.5)
    # Of embeddings, for two sources that must not be divided. From .28 on an ArcFace took 1 of 1000 pairs of strangers
    # on LFW for one person (AdvFaces), which ties everybody to everybody in thousands of sources; so between the two.
    min_tie_cosine: float = Field(default=0.4, ge=-1, le=1, exclude_if=lambda cosine: cosine == 0.4)


class DuplicateConfig(Record):
    """When two clips are one take. Measured on copies of three talkers: re-encoded, smaller, brighter, trimmed, zoomed.

    The pictures must agree, and then the movement or the sound.
    """

    # Of 64, between typical hashes. Copies differed in 12 at most (zoomed by 6 %; otherwise 9), different talkers in
    # 22 and more, two pieces of one take in 1 to 11: so this chooses what to compare, and proves nothing.
    max_picture_bits: int = Field(default=16, ge=0, le=64)
    min_overlap: float = Field(default=0.5, gt=0, le=1)  # of the shorter clip; half a clip twice is too much (mine)
    # Mean square per frame, summed over 16 cells, in grey levels: less is a still, and its changes are the encoder's.
    # A speaker who holds still measured .15, a talking mesh .42.
    min_motion: float = Field(default=0.05, ge=0)
    # Correlation. Copies measured .87 and more, other takes of the same talker .42 at most, mirrored copies too.
    min_motion_agreement: float = Field(default=0.65, gt=0, le=1)
    min_heard: float = Field(default=0.25, gt=0, le=1)  # part of the common time with any sound (mine)
    # 1 - 2 × bit error rate: Haitsma and Kalker call .30 the same sound. Copies measured .76 and more, others .16.
    min_sound_agreement: float = Field(default=0.45, gt=0, le=1)


class RidgeConfig(Record):
    """A linear model of the mouth from the sound, fitted on the collection's other sources (design: scouting)."""

    penalty: float = Field(default=300.0, gt=0)
    context_before: int = Field(default=6, ge=0)  # frames of sound before the mouth's
    context_after: int = Field(default=3, ge=0)
    highpass_s: float = Field(default=0.5, gt=0)  # sigma of what is taken away: posture and pose are slower (mine)
    max_lag_frames: int = Field(default=5, ge=0)
    min_s: float = 3.2  # as for the untrained score
    min_shift_s: float = 1.0
    # Who teaches: clips of at least this length, speech and, where it is known, untrained score; the last two are the
    # limits of a release, repeated so that changing those does not fit the model again.
    min_teaching_s: float = 2.5
    min_teaching_speech_ratio: float = 0.25
    min_teaching_sync_z: float = 1.5
    # With three or four others (20 to 28 s) it ranked the true sound as the untrained score did, with a smaller z; with
    # fourteen it did better (scouting). Where between the two it becomes better is not known: eight is a guess.
    min_other_groups: int = Field(default=8, ge=1)


class CollectionConfig(Record):
    """What looks at all clips at once, when a release is made; nothing here touches a clip."""

    identities: IdentityConfig = IdentityConfig()
    duplicates: DuplicateConfig = DuplicateConfig()
    ridge: RidgeConfig = RidgeConfig()


class SelectLimits(Record):
    """Limits on stored scores; a clip outside any of them is rejected with the number it missed.

    Every limit is inclusive: a clip exactly at it is kept. Changing one never recomputes a frame.
    """

    min_native_crop_px: float = 160.0  # below: reject; 160 to 255: kept and flagged low_res
    max_padding: float = 0.10  # of the square's area outside the picture
    max_neighbours: int = 0  # other faces inside the square that are large enough to count (CropConfig)
    min_clip_s: float = 64 / 25
    min_face_ratio: float = 0.90  # frames in which a face is there
    min_speech_ratio: float = 0.25  # Silero; talkers measured .41 to .97
    max_abs_yaw_deg: float = 60.0  # median over the clip (hallo keeps 60)
    min_sync_z: float = 1.5  # where sync is known; talkers measured 2.6 to 5.6, unrelated sound spreads around 0 by 1
    require_sync: bool = False
    # Of the sync score fitted on the other sources. Off: that score changes with every source that comes or goes, and
    # a clip should not leave a release because of another; it is there to be looked at, and for a fixed collection.
    min_ridge_z: float | None = None
    # Of a speaker network, where one is configured, against the same face with shifted sounds; unknown passes.
    # Talkers measured 3.4 to 8.1 on whole clips, 1.6 and 4.6 on five seconds.
    min_speaker_z: float | None = Field(default=None, exclude_if=is_absent)
    # Of faces that share time in a shot, only the one with the best speaker score stays (without a speaker network: the
    # best sync z). Left out of JSON while off, so that releases of before keep their bytes.
    one_speaker: bool = Field(default=False, exclude_if=operator.not_)
    min_motion: float = 0.0004  # mean frame difference (0 to 1): stills and slide shows; a talking mesh measured .0012
    min_sharpness: float = 0.0
    min_exposure: float = 0.08  # mean luma, 0 to 1
    max_exposure: float = 0.95
    max_internal_cut: float = 1.0  # 1 is where a cut begins
    # Where ``quality`` is configured; see ``schemas.quality`` for what was measured.
    min_stability: float | None = Field(default=None, exclude_if=is_absent)
    max_overlay: float | None = Field(default=None, exclude_if=is_absent)


class DomainConfig(Record):
    """What is known about a domain: who finds and reads its faces, and what it must reach."""

    description: str
    detectors: tuple[DetectorChoice, ...]
    presence_gate: bool  # keep a detection only when the mesh network sees a face too; for human-like domains
    landmarker: LandmarkerChoice
    # Where yaw, pitch and roll come from: the fit of the average head to the points with their depth, its fit to x and
    # y under a perspective camera, or FSA-Net. The head's place always comes from the first.
    pose: Literal["mesh", "pnp", "fsanet"] = Field(default="mesh", exclude_if=lambda pose: pose == "mesh")
    shots: ShotConfig = ShotConfig()
    faces: FaceConfig = FaceConfig()
    limits: SelectLimits = SelectLimits()

    @model_validator(mode="after")
    def _points_for_the_pose(self) -> Self:
        unnamed = isinstance(self.landmarker, UserLandmarker) and self.landmarker.num_points != NUM_NAMED_POINTS
        if self.pose != "mesh" and (self.landmarker == "none" or unnamed):
            raise ValueError(
                f"pose {self.pose!r} needs a landmarker of {NUM_NAMED_POINTS} points: the head's place comes from them"
            )
        return self


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
    val_ratio: float = Field(default=0.05, ge=0.0, lt=0.5)  # of each domain's clips
    test_ratio: float = Field(default=0.05, ge=0.0, lt=0.5)
    preset: Literal["none", "paper"] = "none"
    train: dict[str, NonNegativeInt] = {}  # requested clips per domain; the rest of the accepted clips stays out
    val: dict[str, NonNegativeInt] = {}
    test: dict[str, NonNegativeInt] = {}

    @model_validator(mode="after")
    def _one_request(self) -> Self:
        if self.preset != "none" and (self.train or self.val or self.test):
            raise ValueError(f"split: the preset {self.preset!r} brings its own counts; leave out train, val and test")
        return self


class PackConfig(Record):
    """Shards."""

    target_bytes: int = Field(default=256 * 1024**2, ge=1)  # of the larger of a pair of visual and speech shards
    min_shards: int = Field(default=1, ge=1)  # per split and domain; readers want at least 4 × ranks × workers
    seed: int = 0  # of the order of clips: neighbours of one source must not be neighbours in a shard


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


class BuildConfig(Record):
    """Everything a build depends on besides its inputs."""

    profile: Literal["embedded", "standard"] = "embedded"
    acquire: AcquireConfig = AcquireConfig()
    probe: ProbeConfig = ProbeConfig()
    crop: CropConfig = CropConfig()
    landmarks: LandmarkConfig = LandmarkConfig()
    speech: SpeechConfig = SpeechConfig()
    sync: SyncConfig = SyncConfig()
    speaker: SpeakerConfig | None = Field(default=None, exclude_if=is_absent)
    expression: ExpressionConfig | None = Field(default=None, exclude_if=is_absent)
    identity: EmbeddingConfig | None = Field(default=None, exclude_if=is_absent)
    quality: QualityConfig | None = Field(default=None, exclude_if=is_absent)
    router: RouterConfig | None = Field(default=None, exclude_if=is_absent)
    colour: ColourConfig | None = Field(default=None, exclude_if=is_absent)
    collection: CollectionConfig = CollectionConfig()
    split: SplitConfig = SplitConfig()
    pack: PackConfig = PackConfig()
    domains: dict[str, DomainConfig] = EMBEDDED_DOMAINS


class EngineConfig(Record):
    """Where and how jobs run. No key and no release depends on any of it, so it is no part of ``BuildConfig``."""

    workers: int | None = Field(default=None, ge=1)  # processes of a local cluster; None: one per core
    cpus_per_job: float = Field(default=1.0, gt=0)
    gpus_per_job: float = Field(default=0.0, ge=0)  # a share of a GPU for each job that looks at pictures or sound
    num_fetches: int = Field(default=4, ge=1)  # downloads at once, of the whole build; hosts are spaced besides
    # A worker that grows beyond this is ended: analysis measured 0.2 GB at any length, a 20 s clip 0.5 GB.
    memory_cap_bytes: int = Field(default=4 * 1024**3, ge=256 * 1024**2)
    # A job's time: the first plus so many times the media it reads; analysis measured .2 to .6 of its media's length.
    timeout_s: float = Field(default=300.0, gt=0)
    timeout_per_media_s: float = Field(default=20.0, ge=0)
    fetch_timeout_s: float = Field(default=6 * 3600.0, gt=0)
    jobs_per_worker: int = Field(default=200, ge=1)  # then its process is replaced, so that no leak adds up for weeks


class WeightsConfig(Record):
    """Where weights files lie. No key and no release depends on it, so it is no part of ``BuildConfig``."""

    dir: str = ""  # the folder; empty: "weights" in the user's data folder
    mirror: str = ""  # folder or URI prefix that they are fetched from instead of from their publishers

    @model_validator(mode="after")
    def _local(self) -> Self:
        if uri_scheme(self.dir) != "file":
            raise ValueError(f"weights.dir is a folder of this machine, found {self.dir!r}: weights.mirror takes a URI")
        return self
