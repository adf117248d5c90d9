"""Duplicates of real talkers, as uploads make them: worse, smaller, brighter, trimmed, zoomed, at another rate."""

import itertools
import subprocess
from dataclasses import dataclass
from pathlib import Path

import imageio_ffmpeg
import numpy as np
import pytest

from pipeline.clip.crop import cut_square
from pipeline.clip.prints import PrintTap
from pipeline.clip.speech import log_mel
from pipeline.curate.duplicates import Take, agreement, find_duplicates, motion_of, sound_of, typical_hash
from pipeline.fetch.probe import probe
from pipeline.media.audio import read_audio
from pipeline.media.decode import iter_at_rate, iter_frames
from pipeline.media.pixels import to_rgb
from schemas.base import Box, TimeSpan
from schemas.config import DuplicateConfig, ProbeConfig, SpeechConfig
from schemas.prints import Prints

pytestmark = pytest.mark.assets

TALKERS = {
    "alexandria": "WDA_AlexandriaOcasioCortez_000.mp4",
    "driving": "tps_driving.mp4",
    "mesh": "man_FaceTalk_170809_00138_TA_condition_FaceTalk_170725_00137_TA_audio.mp4",
}
SIDE_PX = 256
# First of all small and short, so that thirty copies cost seconds; 25 frames a second, as clips are.
ORIGINAL = ["-vf", f"scale={SIDE_PX}:{SIDE_PX}", "-r", "25", "-t", "6.4", "-crf", "12", "-b:a", "160k"]
EVEN = "scale=trunc(iw/2)*2:trunc(ih/2)*2"
COPIES = {
    "worse": ["-vf", EVEN, "-crf", "34", "-b:a", "48k"],
    "smaller": ["-vf", "scale=trunc(iw*0.35)*2:trunc(ih*0.35)*2", "-crf", "26"],
    "brighter": ["-vf", f"{EVEN},eq=brightness=0.08:contrast=1.15:gamma=1.1"],
    "trimmed": ["-vf", EVEN, "-ss", "0.37", "-t", "5.5"],
    "zoomed": ["-vf", f"crop=iw*0.94:ih*0.94,{EVEN}"],
    "rate30": ["-vf", EVEN, "-r", "30"],
    "mute": ["-vf", EVEN, "-an"],
}
OTHERS = {
    "mirrored": ["-vf", f"{EVEN},hflip"],
    "first_half": ["-vf", EVEN, "-t", "3.2"],
    "second_half": ["-vf", EVEN, "-ss", "3.2", "-t", "3.2"],
}


@dataclass(frozen=True)
class Media:
    prints: dict[str, Prints]

    def found(self, *names: str) -> set[tuple[str, str]]:
        span, square = TimeSpan(start_s=0.0, stop_s=8.0), Box(x0=0, y0=0, x1=9, y1=9)
        takes = [Take(name, name, name, span, square) for name in names]
        groups = find_duplicates(takes, self.prints.__getitem__, DuplicateConfig())
        return {(link.clip_id, link.twin_id) for group in groups for link in group.links}


def printed(path: Path) -> Prints:
    """The prints of a whole file's middle square; duplicates need no landmarks."""
    video = probe(path, path.stem, "0" * 64, ProbeConfig())
    num_frames = int(video.duration_s * 25)
    side = min(video.width_px, video.height_px)
    x0, y0 = (video.width_px - side) // 2, (video.height_px - side) // 2
    square = Box(x0=x0, y0=y0, x1=x0 + side, y1=y0 + side)
    meter = PrintTap(num_frames, 25)
    for frame, _ in iter_at_rate(iter_frames(path, video, start_s=video.start_s), video.start_s, 25, num_frames):
        crop = to_rgb(cut_square(frame, (video.width_px, video.height_px), square, SIDE_PX), SIDE_PX)
        meter.add(crop, (0.0, 0.0, float(SIDE_PX), float(SIDE_PX)))
    mel = None
    if video.audio is not None:
        mel = log_mel(read_audio(path, video.audio.index, video.start_s, num_frames * 640), SpeechConfig())
    nothing = np.zeros(num_frames, np.float32)
    return meter.finish(np.zeros((num_frames, 468, 3), np.float32), nothing, nothing, mel)


def encode(source: Path, target: Path, options: list[str]) -> Prints:
    coder = [
        "-map",
        "0:v:0",
        "-map",
        "0:a:0?",
        "-c:v",
        "libx264",
        "-preset",
        "veryfast",
        "-threads",
        "1",
        "-c:a",
        "aac",
    ]
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-y", "-loglevel", "error", "-i", source]
    subprocess.run([*command, *coder, *options, target], check=True)
    return printed(target)


@pytest.fixture(scope="module")
def media(assets: Path, tmp_path_factory: pytest.TempPathFactory) -> Media:
    folder = tmp_path_factory.mktemp("copies")
    prints = {}
    for name, file in TALKERS.items():
        original = folder / f"{name}.mp4"
        prints[name] = encode(assets / "video" / file, original, ORIGINAL)
        for kind, options in (COPIES | OTHERS).items():
            prints[f"{name}-{kind}"] = encode(original, folder / f"{name}-{kind}.mp4", options)
    return Media(prints)


@pytest.mark.parametrize("kind", COPIES)
@pytest.mark.parametrize("name", TALKERS)
def test_copies_are_found(media, name, kind):
    assert media.found(name, f"{name}-{kind}") == {(name, f"{name}-{kind}")}


@pytest.mark.parametrize("name", TALKERS)
def test_mirrored_copies_are_clips_of_their_own(media, name):
    assert media.found(name, f"{name}-mirrored") == set()


@pytest.mark.parametrize("name", TALKERS)
def test_two_pieces_of_one_take_are_two_clips_of_one_room(media, name):
    assert media.found(f"{name}-first_half", f"{name}-second_half") == set()


def test_different_talkers_are_no_duplicates(media):
    names = sorted(media.prints)
    crossing = {(a, b) for a, b in media.found(*names) if a.split("-")[0] != b.split("-")[0]}
    assert crossing == set()


def test_margins(media, capsys):
    """What the limits in ``DuplicateConfig`` were chosen from, with half of each margin to spare."""
    config = DuplicateConfig()
    bits, motion, sound = ({True: [], False: []} for _ in range(3))
    for a, b in itertools.combinations(sorted(media.prints), 2):
        (one, *_), (other, *_) = a.split("-"), b.split("-")
        plain = not any(part in a + b for part in ("mirrored", "half"))
        if not plain and {a, b} != {f"{one}-first_half", f"{one}-second_half"}:
            continue
        same, first, second = one == other and plain, media.prints[a], media.prints[b]
        if one != other or same:
            bits[same].append(int(np.bitwise_count(typical_hash(first.hashes) ^ typical_hash(second.hashes))))
        motion[same].append(agreement(motion_of(first), motion_of(second), config.min_overlap, config.min_motion).max())
        if first.heard.any() and second.heard.any():
            sound[same].append(agreement(sound_of(first), sound_of(second), config.min_overlap, 8.0).max())
    with capsys.disabled():
        print(f"\nbits {max(bits[True])} / {min(bits[False])}, motion {min(motion[True]):.3f} / {max(motion[False]):.3f}, sound {min(sound[True]):.3f} / {max(sound[False]):.3f}")  # fmt: skip  # noqa: E501
    assert max(bits[True]) <= config.max_picture_bits < min(bits[False])
    assert min(motion[True]) > config.min_motion_agreement > max(motion[False]) + 0.1
    assert min(sound[True]) > config.min_sound_agreement > max(sound[False]) + 0.1
