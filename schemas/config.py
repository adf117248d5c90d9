"""Every setting of a build: one frozen record per stage, each default with its unit and origin.

A stage's results are keyed by its record, so a setting that does not change what a stage computes
must not live in that stage's record: limits on stored scores live in SelectLimits, not in the stages.
"""

from typing import Literal

from schemas.base import Record


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
    web_format: str = "bv*[height<=1080]+ba/b"


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

    cut_side_px: int = 160  # long side of the frames PySceneDetect sees; the same cuts as at 640, a tenth of the time
    # Proposals only, so both lie below PySceneDetect's defaults (3.0 and 15): a cut amid action scored 2.4,
    # one between two title cards 9. What is proposed must pass same_scene.
    adaptive_threshold: float = 2.0
    adaptive_window: int = 2  # frames on each side
    min_content_val: float = 6.0
    histogram_threshold: float = 0.5  # 1 - correlation
    same_scene: float = 0.5  # block similarity, 0 to 1: hard cuts measured <= .43, fast action >= .47
    same_after_flash: float = 0.7  # the same, between the frames around a flash
    flash_s: float = 0.25  # a longer interruption is a shot
    flat_contrast: float = 2.5  # standard deviation of a picture without content; a title on black has 6
    dark_level: float = 12.0  # mean of a flat picture that is black (ThresholdDetector's default)
    min_fade_height: float = 5.0  # contrast (above black: level) of a picture that can fade
    min_flat_frames: int = 3  # a shorter flat picture is no shot of its own
    max_fade_s: float = 4.0  # one side of a dip; the trailer's longest is 3 s
    plateau_s: float = 0.2  # a ramp that rose no further for this long has ended
    max_dissolve_s: float = 2.5  # the trailer's longest is 2 s
    min_dissolve_step: float = 10.0  # root mean square between the two scenes
    max_unexplained: float = 0.4  # of a mix; 0 perfect, .7 a wipe, .9 unrelated
    run_s: float = 600.0  # a long source is analysed in runs of about this length, ended at a boundary


class DetectorChoice(Record):
    """One detector and the score from which its faces count."""

    model: str
    min_score: float


class FaceConfig(Record):
    """Detection and tracking."""

    analysis_side_px: int = 640  # long side of the frames that detectors and shot detection see
    stride: int = 5  # frames between detections (TalkVid, LivePortrait)
    min_face_px: float = 40.0  # of the source; smaller detections are not tracked
    min_iou: float = 0.5  # frame to frame; lowered with the stride by the tracker
    max_gap: int = 10  # frames a face may be missing (TalkNet)
    min_appearance: float = 0.5  # cosine below which two sightings are not joined


class CropConfig(Record):
    """Where clips are cut, in time and in the picture."""

    size_px: int = 512
    fps: int = 25  # HDTF, LatentSync, SyncNet
    scale: float = 1.6  # side of the square in face-box heights: the face fills about 0.63 of it
    y_offset: float = 0.0  # of the side; positive moves the square down
    median_window: int = 13  # detections; jitter of a pixel or two must not move the square
    boundary_trim_s: float = 0.5  # at detected transitions only (cosmos-curate)
    min_trim_frames: int = 3  # when half a second would leave too little (PySceneDetect #431)
    min_tube_iou: float = 0.25  # with the tube's first box (FOMM)
    min_clip_s: float = 64 / 25  # FOMM asks for 64 frames
    max_clip_s: float = 20.0
    max_neighbour_area: float = 0.25  # of the main face's area, inside the square: above it, not single-subject
    crf: int = 18
    preset: str = "veryfast"


class LandmarkConfig(Record):
    """Per-frame points on the crop."""

    min_confidence: float = 0.5  # the mesh network's face flag; below it the frame has no landmarks
    smoothing_cutoff_hz: float = 4.0  # one-euro filter of the smoothed copy
    smoothing_beta: float = 0.3


class SpeechConfig(Record):
    """Audio features, at 16 kHz."""

    vad_threshold: float = 0.5  # Silero's own default
    mel_bins: int = 80
    mel_window_samples: int = 640  # 40 ms
    mel_hop_samples: int = 160  # 10 ms: four mel frames per video frame
    hubert: str = ""  # a local folder or hub name; empty leaves the stage out
    hubert_layers: tuple[int, ...] = (-1,)
    hubert_rate_conversion: Literal["mean", "concat"] = "mean"  # of the two 50 Hz steps per video frame


class SyncConfig(Record):
    """Mouth opening against the speech envelope."""

    max_lag_frames: int = 5
    window_s: float = 5.0  # AUC by window: 2 s .83, 3 s .87, 4 s .94, 5 s .97
    min_s: float = 3.2  # below it the answer is "unknown"
    min_shift_s: float = 1.0


class SelectLimits(Record):
    """Limits on stored scores; a clip outside any of them is rejected with the number it missed.

    Changing one never recomputes a frame.
    """

    min_native_crop_px: float = 160.0  # below: reject; 160 to 255: kept and flagged low_res
    max_padding: float = 0.10  # of the square's area outside the picture
    min_clip_s: float = 64 / 25
    min_face_ratio: float = 0.90  # frames in which a face is there
    min_speech_ratio: float = 0.25  # Silero; talkers measured .41 to .97
    max_abs_yaw_deg: float = 60.0  # median over the clip (hallo keeps 60)
    min_sync_z: float = 1.0  # only where sync is known
    require_sync: bool = False
    min_motion: float = 0.002  # mean frame difference (0 to 1): stills and slide shows
    min_sharpness: float = 0.0
    min_exposure: float = 0.08  # mean luma, 0 to 1
    max_exposure: float = 0.95
    max_internal_cut: float = 1.0  # 1 is where a cut begins


class DomainConfig(Record):
    """What is known about a domain: who finds and reads its faces, and what it must reach."""

    description: str
    detectors: tuple[DetectorChoice, ...]
    presence_gate: bool  # keep a detection only when the mesh network sees a face too; for human-like domains
    landmarker: Literal["facemesh", "none"]
    shots: ShotConfig = ShotConfig()
    faces: FaceConfig = FaceConfig()
    limits: SelectLimits = SelectLimits()
    paper_train: int | None = None  # clips the paper trains on
    paper_test: int | None = None


class SplitConfig(Record):
    """Who goes where; groups (identity and source title) are never divided."""

    seed: int = 0
    val_ratio: float = 0.05
    test_ratio: float = 0.05
    preset: Literal["none", "paper"] = "none"
    train: dict[str, int] = {}  # requested clips per domain; the rest of the accepted clips stays out
    test: dict[str, int] = {}


class PackConfig(Record):
    """Shards."""

    target_bytes: int = 256 * 1024**2
    min_shards: int = 1  # per split and domain; readers want at least 4 × ranks × workers


EMBEDDED_DOMAINS: dict[str, DomainConfig] = {
    "real": DomainConfig(
        description="filmed people",
        detectors=(DetectorChoice(model="blazeface_short", min_score=0.5),),
        presence_gate=True,
        landmarker="facemesh",
        paper_train=300,
        paper_test=None,
    ),
    "disney_human": DomainConfig(
        description="animated humans, rendered or drawn",
        detectors=(DetectorChoice(model="blazeface_short", min_score=0.5),),
        presence_gate=True,
        landmarker="facemesh",
        paper_train=600,
        paper_test=50,
    ),
    "disney_animal": DomainConfig(
        description="animals with faces, animated or filmed",
        detectors=(
            DetectorChoice(model="blazeface_short", min_score=0.4),
            DetectorChoice(model="cat_cascade", min_score=0.5),
        ),
        presence_gate=False,
        landmarker="none",
        paper_train=325,
        paper_test=78,
    ),
    "mesh": DomainConfig(
        description="rendered head meshes",
        detectors=(DetectorChoice(model="blazeface_short", min_score=0.5),),
        presence_gate=True,
        landmarker="facemesh",
        paper_train=325,
        paper_test=None,
    ),
}


class BuildConfig(Record):
    """Everything a build depends on besides its inputs."""

    profile: Literal["embedded"] = "embedded"
    acquire: AcquireConfig = AcquireConfig()
    probe: ProbeConfig = ProbeConfig()
    crop: CropConfig = CropConfig()
    landmarks: LandmarkConfig = LandmarkConfig()
    speech: SpeechConfig = SpeechConfig()
    sync: SyncConfig = SyncConfig()
    split: SplitConfig = SplitConfig()
    pack: PackConfig = PackConfig()
    domains: dict[str, DomainConfig] = EMBEDDED_DOMAINS
