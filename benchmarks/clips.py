"""Many clips out of a few: spans of a release's own clips as shards of their own, at 512 px or smaller.

A small release tells little about a loader: after a few batches it has met every clip, and the first meeting is the
dear one. Pictures, coding and records are the builder's own; labels keep the pixels of the clips they come from.

python benchmarks/clips.py RELEASE FOLDER [--size-px 256] [--clips 96] [--frames 75] [--shards 4]
"""

import argparse
import io
import json
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from pipeline.media.encode import ClipWriter, cut_clip
from pipeline.media.pixels import to_coded, to_rgb
from pipeline.media.tars import SampleTar
from schemas.base import FrameSpan
from schemas.config import CropConfig
from schemas.sample import SAMPLE_RATE_HZ, fields_of, num_audio_samples


def make_clips(release: Path, folder: Path, *, size_px: int, num_clips: int, num_frames: int, num_shards: int) -> None:
    """Write ``num_shards`` visual tars of all domains together, ``num_clips`` clips of ``num_frames`` frames.

    Raises:
        ValueError: when the release has no training clip of ``num_frames`` frames.
    """
    clips = [clip for clip in _iter_samples(release) if json.loads(clip["json"])["num_frames"] >= num_frames]
    if not clips:
        raise ValueError(f"{release} has no training clip of {num_frames} frames")
    for clip in clips:
        clip["mp4"] = _resized(clip["mp4"], size_px)
    folder.mkdir(parents=True, exist_ok=True)
    tars = [SampleTar(folder / f"clips-{number:06d}.tar") for number in range(num_shards)]
    starts = np.random.default_rng(0).random(num_clips)
    for number, where in enumerate(starts):
        clip = clips[number % len(clips)]
        start = int(where * (json.loads(clip["json"])["num_frames"] - num_frames + 1))
        key, members = _part(clip, FrameSpan(start=start, stop=start + num_frames), number, size_px)
        tars[number % num_shards].add(key, members)
    for tar in tars:
        tar.close()


def _iter_samples(release: Path) -> Iterator[dict[str, bytes]]:
    for shard in sorted(release.glob("train/*/*-visual-*.tar")):
        samples: dict[str, dict[str, bytes]] = {}
        with tarfile.open(shard) as tar:
            for member in tar:
                key, _, suffix = member.name.partition(".")
                file: Any = tar.extractfile(member)
                samples.setdefault(key, {})[suffix] = file.read()
        yield from samples.values()


def _resized(mp4: bytes, size_px: int) -> bytes:
    """Coded as the builder codes clips; without sound, since each part gets its own."""
    config = CropConfig()
    writer = ClipWriter(size_px, 25, crf=config.crf, preset=config.preset)
    with av.open(io.BytesIO(mp4), "r") as video:
        if video.streams.video[0].width == size_px:
            return mp4
        for frame in video.decode(video=0):
            writer.add(to_coded(to_rgb(frame, size_px)))
    return writer.finish()


def _part(clip: dict[str, bytes], span: FrameSpan, number: int, size_px: int) -> tuple[str, dict[str, bytes]]:
    record = json.loads(clip["json"])
    key = f"{record['domain']}-{number:06d}"
    record.update(clip_id=key, num_frames=len(span), size_px=size_px, domain="all")
    first, last = (num_audio_samples(frame, record["fps"]) for frame in (span.start, span.stop))
    sound = _sound(clip["flac"])[first:last]
    members = {"json": json.dumps(record).encode(), "mp4": cut_clip(clip["mp4"], span, sound, SAMPLE_RATE_HZ)}
    for suffix, field in fields_of("visual").items():
        if suffix in clip and field.axes[:1] == ("T",) and suffix != "mp4":
            stream = io.BytesIO()
            np.save(stream, np.load(io.BytesIO(clip[suffix]))[span.start : span.stop])
            members[suffix] = stream.getvalue()
    return key, members


def _sound(flac: bytes) -> np.ndarray:
    with av.open(io.BytesIO(flac), "r") as file:
        whole = np.concatenate([frame.to_ndarray()[0] for frame in file.decode(audio=0)])
    return whole.astype(np.float32) / 32768


def main() -> None:
    """Make the clips that the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("release", type=Path)
    parser.add_argument("folder", type=Path)
    for name, default in (("size-px", 256), ("clips", 96), ("frames", 75), ("shards", 4)):
        parser.add_argument(f"--{name}", type=int, default=default)
    given = parser.parse_args()
    counts = {"num_clips": given.clips, "num_frames": given.frames, "num_shards": given.shards}
    make_clips(given.release, given.folder, size_px=given.size_px, **counts)


if __name__ == "__main__":
    main()
