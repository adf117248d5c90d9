"""Some frames of a finished clip as a clip of their own, from what the workspace stores of it.

Nothing is looked for again: what was measured per frame is cut, pictures keep their packets, and only what the whole
clip decides (scores, prints, whatever hears the sound) is computed anew. Motion channels are cut too and keep the
range of the longer clip, which has seen more of the character than its part has.
"""

import io
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
from av.video import VideoFrame
from jaxtyping import Float32

from pipeline.clip.crop import boxes_on_crop, seen_side_px, show
from pipeline.clip.meter import ClipSound, Measured, StoredClip, Tap
from pipeline.clip.meters import cut, joined, start
from pipeline.clip.prints import PrintTap
from pipeline.clip.prints_file import from_bytes, to_bytes
from pipeline.clip.quality import QualityTap
from pipeline.clip.record import PREVIEW_RATE_HZ, digests_of, heard_in, loudness_of, silence, sound_members, verdict
from pipeline.media.arrays import npy, read_npy
from pipeline.media.audio import read_audio, read_flac
from pipeline.media.encode import cut_clip
from pipeline.models.registry import ModelSet
from schemas.base import FrameSpan, TimeSpan
from schemas.clip import Clip, ClipPlan
from schemas.config import BuildConfig
from schemas.face import FacePath
from schemas.prints import MOUTH_FIELDS, PRINTS_FILE, Prints
from schemas.sample import SAMPLE_RATE_HZ

_CLOCK_S = 1e-6  # rounding of sums of times; far below a frame
# What every clip has per frame.
_PER_FRAME = ("landmarks.npy", "landmarks_smooth.npy", "pose.npy", "motion.npy", "valid.npy")
_NAMED_POINTS = "ibug68"  # the scheme whose landmarkers say where the mouth is

ReadMember = Callable[[str], bytes]


@dataclass(frozen=True, slots=True)
class _Part:
    """The clip that is made: its plan and face, and which frames of the whole one it is."""

    plan: ClipPlan
    face: FacePath
    span: FrameSpan


def trim_clip(
    clip: Clip, span: FrameSpan, read: ReadMember, domain: str, models: ModelSet, scratch: Path
) -> tuple[Clip, dict[str, bytes]]:
    """Cut a finished clip.

    Args:
        clip: as it was made.
        span: the frames to keep, all of them the clip's.
        read: gives the clip's members by suffix, and its prints.
        domain: whose models made the clip.
        models: the same ones; the speech detector always runs, others where a meter measures the part anew.
        scratch: folder for a temporary file.

    Returns:
        The record under the same clip id, its members by suffix, and beside them the prints.

    Raises:
        DecodeError: when the clip's video is damaged.
        FileNotFoundError: when one of its members is gone.
    """
    part, seen_px = _Part(*_cut_plan(clip.plan, clip.face, span), span), seen_side_px(models.config.crop)
    stored = StoredClip(clip, lambda name: read_npy(read(name)))
    sound = _sound(clip, read("flac"), span, models)
    mp4 = _cut_video(read("mp4"), part, scratch)
    again, kept = cut(models.config, domain, stored, span)
    measuring = start(again, models, domain, part.plan, seen_px)
    quality, prints_tap = QualityTap(), PrintTap(part.plan.num_frames, part.plan.fps)
    _measure(mp4, part, seen_px, [quality, prints_tap, *measuring.taps("copy")], measuring.taps("whole"))
    arrays = stored.sliced(span, _PER_FRAME)
    members = sound_members(sound.samples, part.plan, models)
    mel = None if sound.ratio is None else read_npy(members["mel.npy"])
    prints = prints_tap.finish_part(from_bytes(read(PRINTS_FILE)), span, mel)
    measured = _measured(clip, part, arrays, prints, sound, models.config)
    reading = joined([kept, measuring.finish(measured)])
    scores, flags = verdict(measured, quality, reading)
    files = {"mp4": mp4, **members, **{name: npy(array) for name, array in {**arrays, **reading.members}.items()}}
    changes = {"plan": part.plan, "face": part.face, "scores": scores, "flags": flags, "files": digests_of(files)}
    return clip.model_copy(update=changes), {**files, PRINTS_FILE: to_bytes(prints)}


def _measured(
    clip: Clip, part: _Part, arrays: Mapping[str, np.ndarray], prints: Prints, sound: ClipSound, config: BuildConfig
) -> Measured:
    points = arrays["landmarks.npy"]
    certainty: Float32[np.ndarray, " T"] = points[:, :, 2].mean(axis=1)
    is_named = clip.landmark_scheme == _NAMED_POINTS
    return Measured(
        plan=part.plan,
        face=part.face,
        config=config,
        points=points,
        readable=certainty if is_named else np.zeros_like(certainty),
        confidence=None if clip.landmark_scheme == "none" else certainty,
        pose=arrays["pose.npy"],
        motion=arrays["motion.npy"],
        opening=prints.mouth[:, MOUTH_FIELDS.index("opening")],
        has_opening=is_named,
        valid=arrays["valid.npy"],
        sound=sound,
        loudness=loudness_of(sound, part.plan),
    )


def _cut_video(mp4: bytes, part: _Part, scratch: Path) -> bytes:
    preview = _preview(mp4, part.span, part.plan.fps, scratch)
    return cut_clip(mp4, part.span, preview, PREVIEW_RATE_HZ)


def _cut_plan(plan: ClipPlan, face: FacePath, span: FrameSpan) -> tuple[ClipPlan, FacePath]:
    """The same square for a part of the time, and the sightings that tell where the face is in it.

    The median face box stays that of the whole clip: what was read inside it, such as expressions, was cut and not
    read again.
    """
    start_s = plan.span.start_s + span.start / plan.fps
    stop_s = min(plan.span.start_s + span.stop / plan.fps, plan.span.stop_s)
    times = np.array(face.times_s)
    low = max(0, int(np.searchsorted(times, start_s + _CLOCK_S, side="right")) - 1)
    high = min(len(times), int(np.searchsorted(times, stop_s - _CLOCK_S)) + 1)
    low = min(low, high - 1)
    path = face.model_copy(update={"times_s": face.times_s[low:high], "boxes": face.boxes[low:high]})
    part = {"span": TimeSpan(start_s=start_s, stop_s=stop_s), "num_frames": len(span)}
    return plan.model_copy(update=part), path


def _sound(clip: Clip, flac: bytes, span: FrameSpan, models: ModelSet) -> ClipSound:
    """The part's samples, which the FLAC holds exactly, and what is heard in them."""
    per_frame = SAMPLE_RATE_HZ // clip.plan.fps
    samples = read_flac(flac)[span.start * per_frame : span.stop * per_frame]
    return silence(samples) if clip.scores.speech_ratio is None else heard_in(samples, models)


def _preview(mp4: bytes, span: FrameSpan, fps: int, scratch: Path) -> Float32[np.ndarray, " N"] | None:
    """The sound of the preview in the part's time; None where the clip has none."""
    with tempfile.NamedTemporaryFile(dir=scratch, suffix=".mp4") as file:
        file.write(mp4)
        file.flush()
        with av.open(file.name) as container:
            index = container.streams.audio[0].index if container.streams.audio else None
        if index is None:
            return None
        num_samples = len(span) * PREVIEW_RATE_HZ // fps
        return read_audio(Path(file.name), index, span.start / fps, num_samples, PREVIEW_RATE_HZ)


def _measure(mp4: bytes, part: _Part, seen_px: int, taps: list[Tap], whole_taps: list[Tap]) -> None:
    boxes = boxes_on_crop(part.face, part.plan, seen_px)
    for frame, box in zip(_frames(mp4), boxes, strict=True):
        show(frame, box, seen_px, taps, whole_taps)


def _frames(mp4: bytes) -> Iterator[VideoFrame]:
    with av.open(io.BytesIO(mp4), "r", format="mp4") as container:
        container.streams.video[0].codec_context.thread_count = 1
        yield from container.decode(video=0)
