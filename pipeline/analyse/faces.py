"""Find the faces of a film and follow each through its shot.

Detection is the dearest thing done to every minute of a source, and most neighbouring frames show the same
faces in the same places. So frames are looked at on a coarse grid, and the frames between two grid points
only by a detector whose two answers disagree. The grid hangs on absolute frame numbers, so where a run of
work begins does not move it. Linking is a pure function of the detections and can be repeated without a frame.
"""

from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import groupby, pairwise

import cv2
import numpy as np
from jaxtyping import Float, UInt8

from pipeline.models.detectors import Detector, FaceBox
from schemas.boxes import pairwise_iou
from schemas.config import FaceConfig
from schemas.face import XYXY, Detection, FaceTrack
from schemas.media import Shot

BgrImage = UInt8[np.ndarray, "H W 3"]
RgbImage = UInt8[np.ndarray, "H W 3"]
# Whether an image (RGB) shows a face in a box, from a presence (0 to 1) on; see ``pipeline.models.landmarkers``.
Presence = Callable[[RgbImage, XYXY, float], bool]
# Makes a frame's picture when it is looked at: most frames are not, and converting one costs a third of decoding it.
Picture = Callable[[], BgrImage]

# Overlap from which boxes of two detectors are one face.
_SAME_FACE_IOU = 0.3
# However long the gap, this much of the box must overlap: neighbours that touch are two faces.
_MIN_LINK_IOU = 0.1
_THUMBNAIL_PX = 6
_CHROMA_BINS = 4


@dataclass(frozen=True, slots=True)
class _Frame:
    """A frame that waits until the next grid point says whether it must be looked at."""

    frame: int
    time_s: float
    picture: Picture


class FaceScanner:
    """Finds faces in analysis frames that are pushed in order, without keeping more than a stride of them.

    Args:
        detectors: asked in this order; a later one's box is dropped where an earlier one found the face.
        config: of the detection and tracking stage.
        presence: the gate: tells whether an RGB image shows a face in a box; None leaves it out.
        scale_x: source pixels per analysis pixel, across.
        scale_y: source pixels per analysis pixel, down.
    """

    def __init__(
        self,
        detectors: Sequence[Detector],
        config: FaceConfig,
        presence: Presence | None = None,
        scale_x: float = 1.0,
        scale_y: float = 1.0,
    ) -> None:
        self._detectors = tuple(detectors)
        self._config = config
        self._presence = presence
        self._scale = (scale_x, scale_y)
        self._waiting: list[_Frame] = []
        self._last_seen: list[list[FaceBox]] = [[] for _ in self._detectors]
        self._last_frame = -1

    def push(self, frame: int, time_s: float, picture: Picture) -> list[Detection]:
        """Take the next frame and return what became known, in frame order (often nothing).

        Args:
            frame: absolute number in the video; must grow.
            time_s: presentation time.
            picture: gives the frame at analysis size; kept for up to a stride and called at most once.

        Raises:
            ValueError: when frames do not come in order.
        """
        if frame <= self._last_frame:
            raise ValueError(f"frames must come in order: {frame} after {self._last_frame}")
        self._last_frame = frame
        self._waiting.append(_Frame(frame, time_s, picture))
        return self._look() if frame % self._config.stride == 0 else []

    def finish(self) -> list[Detection]:
        """Look at the last frame, so that a track can reach the end, and forget everything."""
        detections = self._look() if self._waiting else []
        self._last_seen, self._last_frame = [[] for _ in self._detectors], -1
        return detections

    def _look(self) -> list[Detection]:
        """Look at the newest frame, and at those waiting before it with each detector that disagrees with itself."""
        *between, newest = self._waiting
        self._waiting = []
        image = newest.picture()
        seen = [self._present(image, detector.detect(image)) for detector in self._detectors]
        unsure = [
            detector if detector.dense and not agree(before, after, self._config.densify_iou) else None
            for detector, before, after in zip(self._detectors, self._last_seen, seen, strict=True)
        ]
        self._last_seen = seen
        detections = []
        for waiting in between if any(unsure) else []:
            earlier = waiting.picture()
            faces = [self._present(earlier, detector.detect(earlier)) if detector else [] for detector in unsure]
            detections += self._detections(waiting, earlier, faces)
        return detections + self._detections(newest, image, seen)

    def _present(self, image: BgrImage, faces: list[FaceBox]) -> list[FaceBox]:
        """The faces that the gate sees too."""
        if self._presence is None or not faces:
            return faces
        rgb = cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
        return [face for face in faces if self._presence(rgb, face.box, self._config.min_presence)]

    def _detections(self, waiting: _Frame, image: BgrImage, faces: list[list[FaceBox]]) -> list[Detection]:
        """The faces of one frame, given per detector, without those an earlier detector found."""
        return [
            self._detection(waiting, image, face, detector.name)
            for detector, new in zip(self._detectors, without_doubles(faces), strict=True)
            for face in new
        ]

    def _detection(self, waiting: _Frame, image: BgrImage, face: FaceBox, detector: str) -> Detection:
        x0, y0, x1, y1 = face.box
        sx, sy = self._scale
        return Detection(
            frame=waiting.frame,
            time_s=waiting.time_s,
            # Hundredths of a pixel: finer digits are noise and would only lengthen the stored results.
            box=(round(x0 * sx, 2), round(y0 * sy, 2), round(x1 * sx, 2), round(y1 * sy, 2)),
            score=round(face.score, 4),
            detector=detector,
            appearance=appearance(image, face.box),
        )


def without_doubles(faces: Sequence[Sequence[FaceBox]]) -> list[list[FaceBox]]:
    """Per detector the faces of one frame that no earlier detector found."""
    kept: list[FaceBox] = []
    new: list[list[FaceBox]] = []
    for new_faces in faces:
        new.append([face for face in new_faces if not _overlaps(face, kept)])
        kept += new[-1]
    return new


def _overlaps(face: FaceBox, others: list[FaceBox]) -> bool:
    return bool(others) and bool(pairwise_iou(_boxes([face]), _boxes(others)).max() > _SAME_FACE_IOU)


def agree(before: Sequence[FaceBox], after: Sequence[FaceBox], min_iou: float) -> bool:
    """Whether two looks show the same number of faces in nearly the same places."""
    if len(before) != len(after):
        return False
    if not before:
        return True
    overlap = pairwise_iou(_boxes(before), _boxes(after))
    return bool(min(overlap.max(axis=0).min(), overlap.max(axis=1).min()) >= min_iou)


def _boxes(faces: Sequence[FaceBox] | Sequence[Detection]) -> Float[np.ndarray, "N 4"]:
    return np.array([face.box for face in faces], np.float64)


def appearance(image: BgrImage, box: XYXY) -> tuple[float, ...]:
    """A short unit vector that tells the faces of one shot apart: 36 greys and 16 chroma bins.

    Half of its energy is a 6 × 6 thumbnail less its mean (lighting may drift), half the square root of a coarse
    a*b* histogram, whose dot product is the Bhattacharyya coefficient. It is no identity: it changes with pose.

    Args:
        image: BGR.
        box: xyxy in pixels of ``image``; what lies outside the picture is left out.
    """
    height, width = image.shape[:2]
    left, right = (int(np.clip(round(x), 0, width)) for x in (box[0], box[2]))
    top, bottom = (int(np.clip(round(y), 0, height)) for y in (box[1], box[3]))
    left, top = min(left, width - 1), min(top, height - 1)
    face = image[top : max(bottom, top + 1), left : max(right, left + 1)]
    small = cv2.resize(face, (24, 24), interpolation=cv2.INTER_AREA)
    lab = cv2.cvtColor(small, cv2.COLOR_BGR2LAB)
    grey = cv2.resize(lab[..., 0].astype(np.float32), (_THUMBNAIL_PX, _THUMBNAIL_PX), interpolation=cv2.INTER_AREA)
    grey -= grey.mean()
    # 96 to 160 holds skin, hair and most drawn faces; stronger colours share the outer bins.
    chroma = np.clip((lab[..., 1:].reshape(-1, 2).astype(int) - 96) * _CHROMA_BINS // 64, 0, _CHROMA_BINS - 1)
    counts = np.bincount(chroma[:, 0] * _CHROMA_BINS + chroma[:, 1], minlength=_CHROMA_BINS**2)
    parts = np.concatenate([_unit(grey.ravel().astype(np.float64)), np.sqrt(counts / counts.sum())])
    return tuple(round(float(value), 4) for value in _unit(parts))


def _unit(vector: Float[np.ndarray, " N"]) -> Float[np.ndarray, " N"]:
    length = float(np.linalg.norm(vector))
    return vector / length if length > 1e-9 else vector


@dataclass(slots=True)
class _Open:
    """A track that may still grow."""

    shot_index: int
    sightings: list[Detection] = field(default_factory=list)


def link(detections: Iterable[Detection], shots: Sequence[Shot], config: FaceConfig) -> list[FaceTrack]:
    """Follow each face through its shot.

    A sighting joins the track whose last box overlaps it enough and looks alike; the overlap that is asked for
    falls with the number of frames between (IoU tracking, Bochinski et al., AVSS 2017, with an assignment).
    Detections outside every shot, faces lower than ``config.min_face_px`` and tracks of fewer than
    ``config.min_sightings`` are left out.

    Returns:
        Tracks numbered in the order of their first frame, larger faces first.
    """
    ordered = sorted(detections, key=_order)
    tall = [sighting for sighting in ordered if sighting.box[3] - sighting.box[1] >= config.min_face_px]
    open_tracks: list[_Open] = []
    starts = sorted((shot.span.start, shot.span.stop, index) for index, shot in enumerate(shots))
    for frame, group in groupby(tall, key=lambda sighting: sighting.frame):
        at = bisect_right(starts, frame, key=lambda start: start[0]) - 1
        if at >= 0 and frame < starts[at][1]:
            _extend(open_tracks, list(group), starts[at][2], config)
    kept = [track for track in open_tracks if len(track.sightings) >= config.min_sightings]
    kept.sort(key=lambda track: (track.sightings[0].frame, -_mean_area(track.sightings), _order(track.sightings[0])))
    return [_closed(index, track) for index, track in enumerate(kept)]


def _order(detection: Detection) -> tuple[object, ...]:
    """A total order, so that the order of arrival never decides a tie."""
    return detection.frame, detection.box, -detection.score, detection.detector, detection.appearance


def _extend(tracks: list[_Open], sightings: list[Detection], shot_index: int, config: FaceConfig) -> None:
    """Give each sighting of one frame to an open track of the shot, or open a track for it."""
    from scipy.optimize import linear_sum_assignment

    oldest = sightings[0].frame - config.max_gap - config.stride
    live = [track for track in tracks if track.shot_index == shot_index and track.sightings[-1].frame >= oldest]
    taken: set[int] = set()
    if live:
        gain = _gain([track.sightings[-1] for track in live], sightings, config)
        for row, column in zip(*linear_sum_assignment(gain, maximize=True), strict=True):
            if gain[row, column] > 0:
                live[row].sightings.append(sightings[column])
                taken.add(int(column))
    for column, sighting in enumerate(sightings):
        if column not in taken:
            tracks.append(_Open(shot_index, [sighting]))


def _gain(last: list[Detection], sightings: list[Detection], config: FaceConfig) -> Float[np.ndarray, "K N"]:
    """What each pairing is worth: overlap plus half the likeness, 0 where it is not allowed."""
    overlap = pairwise_iou(_boxes(last), _boxes(sightings))
    alike = np.array([[_likeness(a, b) for b in sightings] for a in last])
    gaps = np.array([sightings[0].frame - sighting.frame for sighting in last], np.float64)
    needed = np.maximum(config.min_iou / gaps, _MIN_LINK_IOU)
    allowed = (overlap >= needed[:, None]) & (alike >= config.min_appearance)
    return np.where(allowed, overlap + 0.5 * alike, 0.0)


def _likeness(a: Detection, b: Detection) -> float:
    """Cosine of two appearances, which are unit vectors but for rounding."""
    return float(np.dot(a.appearance, b.appearance))


def _mean_area(sightings: list[Detection]) -> float:
    boxes = _boxes(sightings)
    return float(np.prod(boxes[:, 2:] - boxes[:, :2], axis=1).mean())


def _closed(index: int, track: _Open) -> FaceTrack:
    sightings = track.sightings
    names = Counter(sighting.detector for sighting in sightings)
    likeness = [_likeness(a, b) for a, b in pairwise(sightings)]
    return FaceTrack(
        track_index=index,
        shot_index=track.shot_index,
        frames=tuple(sighting.frame for sighting in sightings),
        times_s=tuple(sighting.time_s for sighting in sightings),
        boxes=tuple(sighting.box for sighting in sightings),
        scores=tuple(sighting.score for sighting in sightings),
        detector=min(names, key=lambda name: (-names[name], name)),
        purity=round(float(np.clip(np.mean(likeness), 0, 1)), 4) if likeness else 1.0,
    )
