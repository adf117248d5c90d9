"""Pictures of finished clips, from what the workspace stores of them."""

import numpy as np

from pipeline.build.results import Results
from pipeline.build.survey import FinishedClip
from pipeline.clip.speech import speech_envelope, voice_activity
from pipeline.draw.sheet import NUM_TILES, draw_clip, evenly_spaced, frames_of
from pipeline.media.arrays import read_npy
from pipeline.media.audio import read_flac
from pipeline.models.speech import VAD_STEP, SileroVad
from pipeline.store.workspace import Workspace
from schemas.sample import SAMPLE_RATE_HZ


def clip_arrays(workspace: Workspace, key: str, stage: str = "clip") -> dict[str, np.ndarray]:
    """The per-frame arrays of a finished clip, or of a part of one (``trim``), by name.

    These are landmarks, pose, motion, valid.
    """
    return {
        name: read_npy(workspace.result_file(stage, key, f"{name}.npy"))
        for name in ("landmarks", "pose", "motion", "valid")
    }


def draw_finished_clip(results: Results, finished: FinishedClip, vad: SileroVad) -> bytes:
    """Contact sheet of one finished clip, as PNG; ``vad`` says where somebody speaks."""
    workspace = results.workspace
    num_frames = finished.clip.plan.num_frames
    samples = read_flac(finished.read(workspace, "flac"))
    envelope, heard = None, None
    if finished.clip.scores.speech_ratio is not None:
        envelope = speech_envelope(samples, num_frames, finished.clip.plan.fps)
        steps = voice_activity(samples, vad)
        at = np.arange(num_frames) * SAMPLE_RATE_HZ // finished.clip.plan.fps // VAD_STEP
        heard = steps[at] >= results.config.speech.vad_threshold
    # Only the shown frames are decoded; the sheet reads nothing of the others.
    shown = frames_of(finished.read(workspace, "mp4"), evenly_spaced(num_frames, NUM_TILES))
    blank = np.zeros_like(next(iter(shown.values())))
    return draw_clip(
        finished.clip,
        (shown.get(index, blank) for index in range(num_frames)),
        clip_arrays(workspace, finished.trim_key or finished.key, "trim" if finished.trim_key else "clip"),
        envelope,
        heard,
    )
