"""Cut any picture or film to what the networks have seen: the builder's detection, and its squares around a face.

A film gives the one face that is followed for longest without a cut; the rest of it is left out, and that is said.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import Float64
from PIL import Image

from flows.settings import Settings
from pipeline.analyse.faces import FaceScanner
from pipeline.analyse.plan import usable_parts, usable_span
from pipeline.analyse.runs import analyse_run, join_runs
from pipeline.analyse.square import smooth_path, square_around
from pipeline.clip.crop import cut_square
from pipeline.clip.meters import model_files
from pipeline.fetch.probe import probe
from pipeline.media.decode import fit_within, iter_at_rate, iter_frames
from pipeline.media.pixels import to_rgb
from pipeline.models.files.weights import WeightsStore
from pipeline.models.registry import ModelSet
from schemas.base import Box, TimeSpan
from schemas.config import CropConfig, DomainConfig
from schemas.errors import DecodeError, SourceError, UsageError
from schemas.face import FaceTrack
from schemas.media import Shot, Video
from schemas.progress import Report
from training.film.film import Film, Picture, read_picture, scaled, to_tensor


@dataclass(frozen=True, slots=True)
class Followed:
    """Where one face is in a film: when, and in which square."""

    span: TimeSpan
    square: Box


class Framer:
    """Finds faces and cuts squares at a model's size.

    Args:
        settings: whose detectors and squares.
        size_px: side of what is cut.
        say: told in a sentence what a user may not expect.

    Raises:
        UsageError: for a domain that there is none of, or whose detector's file is missing (when it is first used).
    """

    def __init__(self, settings: Settings, size_px: int, say: Callable[[str], None]) -> None:
        self._config, self._size_px, self._say = settings.build, size_px, say
        self._models = ModelSet(model_files(settings.build, WeightsStore(settings.weights)))

    def picture(self, path: Path, domain: str) -> Picture:
        """The largest face of an image file.

        Raises:
            UsageError: when it is no image, or shows no face.
        """
        image = read_picture(path)
        scanner, size = self._scanner(domain, *image.size)
        small = np.asarray(image.resize(size, Image.Resampling.BOX))
        detections = scanner.push(0, 0.0, lambda: cv2.cvtColor(small, cv2.COLOR_RGB2BGR))
        least = self._config.domains[domain].faces.min_face_px
        faces = [detection.box for detection in detections if detection.box[3] - detection.box[1] >= least]
        if not faces:
            raise UsageError(
                f"no face of the domain {domain} was found in {path.name}: name its domain by --source-domain "
                f"({', '.join(self._config.domains)}), or crop it to a square around the face and say --no-crop"
            )
        if len(faces) > 1:
            self._say(f"{path.name} shows {len(faces)} faces: the largest is taken")
        largest = max(faces, key=lambda box: ((box[2] - box[0]) * (box[3] - box[1]), box))
        square, _ = square_around(np.array([largest], np.float64), image.size, self._config.crop)
        corners = (round(square.x0), round(square.y0), round(square.x1), round(square.y1))
        return scaled(image.crop(corners), self._size_px)  # what lies outside the picture is black

    def _scanner(self, domain: str, width: int, height: int) -> tuple[FaceScanner, tuple[int, int]]:
        faces = self._domain(domain).faces
        size = fit_within(width, height, faces.analysis_side_px)
        detectors, presence = self._models.detectors(domain), self._models.presence(domain)
        return FaceScanner(detectors, faces, presence, scale_x=width / size[0], scale_y=height / size[1]), size

    def _domain(self, name: str) -> DomainConfig:
        if name not in self._config.domains:
            raise UsageError(f"there is no domain {name!r}: choose from {', '.join(self._config.domains)}")
        return self._config.domains[name]

    def film(self, path: Path, domain: str, report: Report) -> Film:
        """The longest look at one face of a film, at the film's own rate.

        Args:
            path: the file.
            domain: whose detectors look.
            report: told how much of the film was looked at, in seconds.

        Raises:
            UsageError: when it is no film, damaged, too long, or shows no face.
        """
        settings, stage = self._domain(domain), f"looking at {path.name}"
        try:
            video = probe(path, "driving", "", self._config.probe)
            run, times, rows = analyse_run(
                path, video, settings, self._models.detectors(domain), self._models.presence(domain),
                report=lambda _, done, total: report(stage, done, total),
            )  # fmt: skip
        except (SourceError, DecodeError) as error:
            raise UsageError(str(error)) from error
        shots, tracks = join_runs([run], times, [rows], settings.faces)
        report(stage, video.duration_s, video.duration_s)
        followed = longest(video, shots, tracks, times, self._config.crop, settings.faces.stride)
        if followed is None:
            raise UsageError(
                f"no face of the domain {domain} was found in the {len(times)} frames of {path.name}: name its domain "
                f"by --driving-domain ({', '.join(self._config.domains)}), or crop it to a square and say --no-crop"
            )
        fps = video.average_fps
        num_frames = max(1, round(followed.span.duration_s * fps))
        if video.duration_s - followed.span.duration_s > 1 / fps:
            self._say(
                f"{path.name}: one face is seen without a cut from {followed.span.start_s:.2f} to "
                f"{followed.span.stop_s:.2f} s of {video.duration_s:.2f} s, and that part drives"
            )
        return Film(
            path=path,
            fps=fps,
            num_frames=num_frames,
            start_s=followed.span.start_s,
            sound_index=video.audio.index if video.audio else None,
            frames=lambda: self._frames(path, video, followed, num_frames),
        )

    def _frames(self, path: Path, video: Video, followed: Followed, num_frames: int) -> Iterator[Picture]:
        upright, cut_px = (video.width_px, video.height_px), max(self._config.crop.size_px, self._size_px)
        seen = iter_frames(path, video, start_s=followed.span.start_s)
        last: Picture | None = None
        for frame, repeated in iter_at_rate(seen, followed.span.start_s, video.average_fps, num_frames):
            if last is None or not repeated:
                # By way of the shards' own size and coding, since that is what the networks have seen.
                last = to_tensor(to_rgb(cut_square(frame, upright, followed.square, cut_px), self._size_px))
            yield last


def longest(
    video: Video,
    shots: Sequence[Shot],
    tracks: Sequence[FaceTrack],
    times: Float64[np.ndarray, " F"],
    config: CropConfig,
    stride: int,
) -> Followed | None:
    """The longest span in which one face stays in one steady square, as clips are cut; of equals the larger face.

    Args:
        video: the probed file.
        shots: in order; a shot's place is its index in ``tracks``.
        tracks: of those shots.
        times: presentation time of every frame, in seconds.
        config: how squares are cut.
        stride: frames between detections; a face stays that much beyond its last sighting.
    """
    frame_s = 1 / float(video.average_fps)
    best: tuple[tuple[float, float], Followed] | None = None
    for track in tracks:
        shot, following = shots[track.shot_index], shots[track.shot_index + 1 : track.shot_index + 2]
        window = usable_span(shot, following[0] if following else None, times, frame_s, config)
        path = smooth_path(track.boxes, config.median_window)
        windows, reach_s = [window] if window else [], stride * frame_s
        for part in usable_parts(track, path, windows, times, config, reach_s=reach_s, break_s=frame_s):
            if part.span.duration_s < frame_s / 2:
                continue
            square, _ = square_around(path[part.first : part.last], (video.width_px, video.height_px), config)
            rank = round(part.span.duration_s, 6), square.width_px
            if best is None or rank > best[0]:
                best = rank, Followed(part.span, square)
    return best[1] if best else None
