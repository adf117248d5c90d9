"""How a file becomes shots, face tracks and plans of clips."""

from pydantic import Field

from schemas.base import Record


class ShotConfig(Record):
    """Shot boundaries. Levels and contrasts are 0 to 255; what was measured, was so on the trailer of Sintel."""

    cut_side_px: int = 160
    """Long side in pixels of the frames that PySceneDetect sees; on the trailer the same cuts as unscaled (480)."""
    adaptive_threshold: float = 2.0
    """PySceneDetect's adaptive threshold. It only proposes: what it finds must pass ``same_scene``, so it lies below
    PySceneDetect's default of 3. A cut amid action scored 2.4."""
    adaptive_window: int = 2
    """Frames on each side that PySceneDetect compares a frame with."""
    min_content_val: float = 6.0
    """PySceneDetect's least change of content, below its default of 15 for the same reason; a cut between two title
    cards scored 9."""
    histogram_threshold: float = 0.5
    """1 - correlation of two frames' histograms from which a cut is proposed; finds cuts amid fast action."""
    same_scene: float = 0.5
    """Block similarity, 0 to 1, below which two frames show different scenes: hard cuts measured .43 and less, fast
    action .47 and more."""
    same_scene_calm: float = 0.6
    """The same where nothing moves before or after: a cut to a closer view measured .50."""
    calm: float = 0.9
    """Block similarity, 0 to 1, of two frames two apart from which nothing counts as moving."""
    new_tint: float = 9.5
    """Median change of colour in Lab units from which look-alike framings are divided: such cuts measured 11 and more,
    fast action 7.5 and less."""
    calm_tint: float = 1.0
    """Change of colour in Lab units within three frames that counts as none; chosen."""
    same_level: float = 0.5
    """Level of the darker over the lighter end of a dissolve between look-alike framings; less is a fade; chosen."""
    same_after_flash: float = 0.7
    """Block similarity, 0 to 1, of the frames around a flash from which they show one scene."""
    flash_s: float = 0.25
    """Longest flash in seconds; a longer interruption is a shot."""
    flat_contrast: float = 2.5
    """Standard deviation in levels of a picture without content; a title on black has 6."""
    dark_level: float = 12.0
    """Mean level of a flat picture that is black (the default of PySceneDetect's ThresholdDetector)."""
    min_fade_height: float = 5.0
    """Contrast (above black: level) that a picture must have to fade."""
    min_flat_frames: int = 3
    """Frames up to which a flat picture is no shot of its own."""
    min_flat_jump: float = 40.0
    """Levels between two flat pictures; less is one fade through both."""
    max_fade_s: float = 4.0
    """Longest side of a fade in seconds; the trailer's longest is 4."""
    plateau_s: float = 0.2
    """Seconds without a further rise that end a ramp."""
    max_dissolve_s: float = 2.5
    """Longest dissolve in seconds; the trailer's longest is 2."""
    min_dissolve_step: float = 10.0
    """Root mean square difference in levels between the two scenes of a dissolve."""
    min_straightness: float = 0.8
    """Part of the change per pixel that goes straight from one scene to the other: dissolves measured .83 and more,
    moving heads and cameras .63 and less."""
    min_straightness_grown: float = 0.65
    """The same once a dissolve is found, while its ends are sought."""
    max_dissolve_jump: float = 0.4
    """Largest share of a dissolve in a single frame; a cut jumps by nearly all."""
    same_scene_dissolved: float = 0.6
    """Block similarity, 0 to 1, of a dissolve's two ends, which may still be mixed, from which they are one scene."""
    same_view: float = 0.9
    """Correlation of those ends where they overlap best, from which the camera only moved: pans measured .98."""
    run_s: float = Field(default=600.0, gt=0)
    """Seconds, about, of the runs in which a long source is analysed, side by side."""


class FaceConfig(Record):
    """Detection and tracking."""

    analysis_side_px: int = Field(default=640, ge=128)
    """Long side in pixels of the frames that detectors and shot detection see."""
    stride: int = Field(default=5, ge=1)
    """Frames between detections (TalkVid, LivePortrait)."""
    densify_iou: float = Field(default=0.6, ge=0, le=1)
    """Overlap (IoU) of a face between two detections a stride apart, below which the frames between are looked at;
    chosen."""
    min_presence: float = Field(default=0.5, ge=0, le=1)
    """Least probability of a face by the mesh network, in domains with ``presence_gate``."""
    min_face_px: float = Field(default=40.0, ge=0)
    """Least height in the source's pixels; lower detections are not tracked."""
    min_iou: float = Field(default=0.5, gt=0, le=1)
    """Overlap (IoU) from frame to frame that continues a track (syncnet); the tracker lowers it as a gap grows."""
    max_gap: int = Field(default=10, ge=0)
    """Frames for which a face may be missing, beside the stride (TalkNet)."""
    min_appearance: float = Field(default=0.5, ge=-1, le=1)
    """Cosine of two sightings' appearance below which they are not joined. Within 15 frames one talker measured .91
    and more, two talkers .55 by median; above .6 drawn figures that turn fall into pieces."""
    min_sightings: int = Field(default=2, ge=1)
    """Detections that make a track: a single one is as likely noise, and no clip is so short; chosen."""


class CropConfig(Record):
    """Where clips are cut, in time and in the picture."""

    size_px: int = 512
    """Side in pixels of the square clip."""
    fps: int = 25
    """Frames per second of the clip (HDTF, LatentSync, SyncNet)."""
    scale: float = 1.6
    """Side of the square in heights of the face box: the face fills about .63 of it."""
    min_scale: float = 1.4
    """The same where the source's picture itself is a face crop; face-cropped sets such as HDTF come at about 1.5."""
    y_offset: float = 0.0
    """Shift of the square in shares of its side; positive moves it down."""
    median_window: int = 13
    """Detections over which the box is smoothed; a pixel or two of jitter must not move the square."""
    boundary_trim_s: float = 0.5
    """Seconds that are left out beside a detected transition, and only there (cosmos-curate)."""
    min_trim_frames: int = 3
    """Frames that are left out instead where half a second would leave too little (PySceneDetect #431)."""
    min_tube_iou: float = 0.25
    """Overlap (IoU) with a clip's first box, below which the track is divided (FOMM)."""
    min_clip_s: float = 64 / 25
    """Shortest clip in seconds; FOMM asks for 64 frames."""
    max_clip_s: float = 20.0
    """Longest clip in seconds; longer parts are divided."""
    max_neighbour_area: float = 0.25
    """Size of another face inside the square, in shares of the main face's area, above which it is a neighbour."""
    crf: float = 17.5
    """Constant rate factor of H.264, where every frame is a key frame. Over three clips 17.5 with ``superfast`` kept
    what 18 with ``veryfast`` keeps (PSNR), in .7 of the time."""
    preset: str = "superfast"
    """Preset of x264."""
