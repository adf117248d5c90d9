"""Some frames of a finished clip as a clip of their own, from what the workspace stores of it.

Nothing is looked for again: what was measured per frame is cut, pictures keep their packets, and only what the whole
clip decides (scores, prints, whatever hears the sound) is computed anew. Motion channels are cut too and keep the
range of the longer clip, which has seen more of the character than its part has.
"""

import io
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
from jaxtyping import Float32, UInt8

from pipeline.clip.crop import MEASURED_PX, Tap, boxes_on_crop
from pipeline.clip.make import (
    NO_IDENTITY,
    PREVIEW_RATE_HZ,
    Sound,
    digests_of,
    flags_of,
    npy,
    scores_of,
    sound_of,
    speaker_of,
    sync_of,
)
from pipeline.clip.optional_scores import OptionalScores
from pipeline.clip.prints import PrintMeter
from pipeline.clip.prints_file import from_bytes, to_bytes
from pipeline.clip.quality import QualityMeter
from pipeline.clip.speaker import LowerFaces
from pipeline.clip.speech import log_mel
from pipeline.media.audio import read_audio, read_flac, write_flac
from pipeline.media.encode import cut_clip
from pipeline.media.pixels import to_rgb
from pipeline.models.registry import ModelSet
from schemas.base import FrameSpan, TimeSpan
from schemas.clip import Clip, ClipPlan
from schemas.face import FacePath
from schemas.prints import EMBEDDING_FILE, MOUTH_FIELDS, PRINTS_FILE
from schemas.sample import FIELDS, SAMPLE_RATE_HZ

_CLOCK_S = 1e-6  # rounding of sums of times; far below a frame
_CUT = frozenset(field.suffix for field in FIELDS if field.suffix.endswith(".npy") and field.axes[0] == "T")
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
        models: the same ones; the speech detector always runs, others where the clip has their fields.
        scratch: folder for a temporary file.

    Returns:
        The record under the same clip id, its members by suffix, and beside them the prints.

    Raises:
        DecodeError: when the clip's video is damaged.
        FileNotFoundError: when one of its members is gone.
    """
    part, config = _Part(*_cut_plan(clip.plan, clip.face, span), span), models.config
    samples, sound = _sound(clip, read("flac"), span, models)
    files = _members(clip, part, read, samples, models, scratch)
    valid, pose, landmarks = (_load(files[f"{name}.npy"]) for name in ("valid", "pose", "landmarks"))
    meter, print_meter = QualityMeter(), PrintMeter(part.plan.num_frames, part.plan.fps)
    network, lower_faces = models.speaker(domain), LowerFaces()
    seen_px = min(config.crop.size_px, MEASURED_PX)
    optional = OptionalScores(models, domain, part.plan, seen_px)
    taps: list[Tap] = [meter, print_meter, *([lower_faces] if network else []), *optional.taps]
    _measure(files["mp4"], part, seen_px, taps)
    mel = None if sound.ratio is None else _load(files["mel.npy"])
    prints = print_meter.finish_part(from_bytes(read(PRINTS_FILE)), span, mel)
    opening = prints.mouth[:, MOUTH_FIELDS.index("opening")]
    sync = sync_of(opening, valid, sound, part.plan, config, clip.landmark_scheme == _NAMED_POINTS)
    confidence = None if clip.landmark_scheme == "none" else landmarks[:, :, 2].mean(axis=1)
    scores = scores_of(part.plan, part.face, confidence, pose, valid, meter, sound, sync)
    if network:
        speaks = speaker_of(lower_faces, valid, sound, part.plan, config, network)
        scores = scores.model_copy(update={"speaker": speaks})
    scores = scores.model_copy(update=optional.measured())
    flags = (*flags_of(scores), *((NO_IDENTITY,) if NO_IDENTITY in clip.flags else ()))
    changes = {"plan": part.plan, "face": part.face, "scores": scores, "flags": flags}
    made = clip.model_copy(update={**changes, "files": digests_of(files)})
    return made, {**files, PRINTS_FILE: to_bytes(prints)}


def _members(
    clip: Clip, part: _Part, read: ReadMember, samples: Float32[np.ndarray, " A"], models: ModelSet, scratch: Path
) -> dict[str, bytes]:
    span, plan, speech, mp4 = part.span, part.plan, models.config.speech, read("mp4")
    files = {name: npy(_load(read(name))[span.start : span.stop]) for name in clip.files if name in _CUT}
    files |= {
        "mp4": cut_clip(mp4, span, _preview(mp4, span, plan.fps, scratch), PREVIEW_RATE_HZ),
        "flac": write_flac(samples, SAMPLE_RATE_HZ),
        "mel.npy": npy(log_mel(samples, speech)),
    }
    if "hubert.npy" in clip.files and (hubert := models.hubert()):  # attention is global: a slice would be another
        files["hubert.npy"] = npy(hubert.features(samples, plan.num_frames, speech.hubert_rate_conversion))
    if EMBEDDING_FILE in clip.files:  # the whole clip has seen more of the face
        files[EMBEDDING_FILE] = read(EMBEDDING_FILE)
    return files


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


def _load(data: bytes) -> np.ndarray:
    return np.load(io.BytesIO(data), allow_pickle=False)


def _sound(clip: Clip, flac: bytes, span: FrameSpan, models: ModelSet) -> tuple[Float32[np.ndarray, " A"], Sound]:
    """The part's samples, which the FLAC holds exactly, and what is heard in them."""
    per_frame = SAMPLE_RATE_HZ // clip.plan.fps
    samples = read_flac(flac)[span.start * per_frame : span.stop * per_frame]
    if clip.scores.speech_ratio is None:
        return samples, Sound(samples, np.zeros(0, np.float32), None, None)
    return samples, sound_of(samples, models)


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


def _measure(mp4: bytes, part: _Part, seen_px: int, taps: list[Tap]) -> None:
    for image, box in zip(_pictures(mp4, seen_px), boxes_on_crop(part.face, part.plan, seen_px), strict=True):
        for tap in taps:
            tap.add(image, box)


def _pictures(mp4: bytes, size_px: int) -> Iterator[UInt8[np.ndarray, "S S 3"]]:
    with av.open(io.BytesIO(mp4), "r", format="mp4") as container:
        container.streams.video[0].codec_context.thread_count = 1
        for frame in container.decode(video=0):
            yield to_rgb(frame, size_px)
