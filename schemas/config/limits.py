"""What a clip must reach to be in a release."""

import operator

from pydantic import Field

from schemas.base import Record, is_absent


class SelectLimits(Record):
    """Limits on stored scores; a clip outside any of them is rejected with the number it missed.

    Every limit is inclusive: a clip exactly at it is kept. Changing one never recomputes a frame.
    """

    min_native_crop_px: float = 160.0
    """Least side of the square in the source's pixels; from 160 to 255 a clip is kept and flagged low_res."""
    max_padding: float = 0.10
    """Largest part of the square's area that lies outside the picture."""
    max_neighbours: int = 0
    """Other faces inside the square that are large enough to count (``crop.max_neighbour_area``), at most."""
    min_clip_s: float = 64 / 25
    """Shortest clip in seconds."""
    min_face_ratio: float = 0.90
    """Least part of the frames in which a face is there."""
    min_speech_ratio: float = 0.25
    """Least part of the clip with speech, by Silero; talkers measured .41 to .97."""
    max_abs_yaw_deg: float = 60.0
    """Largest turn of the head to a side in degrees, median over the clip (hallo keeps 60)."""
    min_sync_z: float = 1.5
    """Least sync z, where it is known; talkers measured 2.6 to 5.6, unrelated sound spreads around 0 by 1."""
    require_sync: bool = False
    """Whether clips without a known sync score are rejected."""
    min_ridge_z: float | None = None
    """Least z of the sync score that is fitted to the other sources. Off: that score changes with every source that
    comes or goes, and a clip should not leave a release because of another; it is there to be looked at, and for a
    fixed collection."""
    min_speaker_z: float | None = Field(default=None, exclude_if=is_absent)
    """Least z of a speaker network, where one is configured, against the same face with shifted sounds; unknown passes.
    Talkers measured 3.4 to 8.1 on whole clips, 1.6 and 4.6 on five seconds."""
    one_speaker: bool = Field(default=False, exclude_if=operator.not_)
    """Whether of faces that share time in a shot only the one with the best speaker score stays (without a speaker
    network: the best sync z)."""
    min_motion: float = 0.0004
    """Least mean frame difference, 0 to 1: stills and slide shows lie below; a talking mesh measured .0012."""
    min_sharpness: float = 0.0
    """Least sharpness of the face: variance of the Laplacian of luma (0 to 255) on a crop of 256 px."""
    min_exposure: float = 0.08
    """Least mean luma, 0 to 1."""
    max_exposure: float = 0.95
    """Largest mean luma, 0 to 1."""
    max_internal_cut: float = 1.0
    """Strongest change of picture within the clip; 1 is where a cut begins."""
    min_stability: float | None = Field(default=None, exclude_if=is_absent)
    """Least stability of the camera, where ``quality`` is configured, which says what was measured; off by default."""
    max_overlay: float | None = Field(default=None, exclude_if=is_absent)
    """Most that may be burnt in, where ``quality`` is configured, which says what was measured; off by default."""
