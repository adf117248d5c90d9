"""Small releases whose pictures say which clip and frame they are, and changed copies of their shards."""

import io
import tarfile
from fractions import Fraction
from functools import cache
from pathlib import Path

import av
import numpy as np

from pipeline.media.tars import SampleTar
from pipeline.release.shards import write_release
from pipeline.store.storage import Storage
from schemas.config import PackConfig
from schemas.sample import FIELDS
from tests.helpers.release_items import FPS, SETUP, SIZE_PX, Shelf, encode_flac, encode_npy

NUM_FRAMES = 8
_STEP = 24  # grey levels between neighbouring frames; the coding moves none by more than a few
_CLIP_STEP = 8


@cache
def numbered_mp4(clip: int, num_frames: int = NUM_FRAMES) -> bytes:
    """Frames whose left half is grey by the frame's number, the right half by the clip's, below a band of colours."""
    colours = np.random.default_rng(clip).integers(0, 255, (num_frames, 4, 16, 3), np.uint8)
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4", options={"fflags": "+bitexact"}) as container:
        stream = container.add_stream("libx264", rate=FPS)
        stream.width = stream.height = SIZE_PX
        stream.pix_fmt = "yuv420p"
        stream.codec_context.thread_count = 1
        stream.options = {"preset": "ultrafast", "x264-params": "keyint=1", "qp": "8"}
        for number in range(num_frames):
            pixels = np.empty((SIZE_PX, SIZE_PX, 3), np.uint8)
            pixels[:, : SIZE_PX // 2], pixels[:, SIZE_PX // 2 :] = 20 + _STEP * number, 20 + _CLIP_STEP * clip
            pixels[: SIZE_PX // 4] = colours[number].repeat(SIZE_PX // 16, 0).repeat(SIZE_PX // 16, 1)
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24").reformat(
                format="yuv420p", dst_colorspace=1, dst_color_range=1
            )
            frame.pts, frame.time_base = number, Fraction(1, FPS)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return buffer.getvalue()


def read_numbers(frames: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Numbers of frame and clip that pictures [B, 3, S, S] u8 show."""
    half = frames.shape[-1] // 2
    grey = frames[:, :, half:]
    left, right = grey[..., 2 : half - 2], grey[..., half + 2 : -2]
    frame, clip = (((part.mean((1, 2, 3)) - 20) / step) for part, step in ((left, _STEP), (right, _CLIP_STEP)))
    return frame.round().astype(int), clip.round().astype(int)


def numbered_files(
    clip: int, *, num_frames: int = NUM_FRAMES, valid=None, emotion=False, hubert=False
) -> dict[str, bytes]:
    """All visual and speech files of a clip; ``pose[t]`` begins with frame and clip number, as do all labels.

    So do ``mel``, whose first number is that of the mel frame, and ``hubert[l, t]``, whose third is the layer.
    """
    sizes = {"T": num_frames, "P": 68, "M": 6, "Tm": 4 * num_frames, "L": 2, "C": 5}
    wanted = {"emotion.npy": emotion, "hubert.npy": hubert}
    files = {"mp4": numbered_mp4(clip, num_frames), "flac": _silence(num_frames)}
    frames = np.arange(num_frames, dtype=np.float32)
    for field in FIELDS:
        if field.suffix.endswith(".npy") and (not field.optional or wanted.get(field.suffix)):
            array = np.ones(field.shape(sizes), field.dtype)
            if field.suffix == "valid.npy":
                array = array if valid is None else np.asarray(valid, bool)
            elif field.dtype == "f4" and field.axes[0] == "T":
                array[..., 0] = frames.reshape(-1, *[1] * (array.ndim - 2))
                array[..., 1] = clip
            elif field.suffix == "mel.npy":
                array[:, 0], array[:, 1] = np.arange(len(array)), clip
            elif field.suffix == "hubert.npy":
                array[..., 0], array[..., 1], array[..., 2] = frames, clip, np.arange(2)[:, None]
            files[field.suffix] = encode_npy(array)
    return files


@cache
def _silence(num_frames: int) -> bytes:
    return encode_flac(num_frames * 640)


def numbered_release(
    folder: Path,
    counts: dict[str, int],
    *,
    min_shards: int = 2,
    setup=SETUP,
    split="train",
    test=None,
    strangers=False,
    **files,
) -> Path:
    """A release of ``counts`` clips by domain; clip k over all domains is called DOMAIN-k. ``files``: of each clip.

    ``test``: the same for clips that are held out. ``strangers``: each clip is of a person of its own.
    """
    shelf = Shelf()
    number = 0
    parts = [(split, domain, count) for domain, count in counts.items()]
    parts += [("test", domain, count) for domain, count in (test or {}).items()]
    for split, domain, count in parts:
        for _ in range(count):
            members = numbered_files(number, **files.get(domain, {}))
            name = f"film-{domain}" if split == "train" else f"film-{domain}-{split}"
            num_frames = files.get(domain, {}).get("num_frames", NUM_FRAMES)
            who = f"who-{number}" if strangers else None
            shelf.add(
                f"{domain}-{number}",
                name,
                split=split,
                domain=domain,
                files=members,
                num_frames=num_frames,
                identity=who,
            )
            number += 1
    pack = PackConfig(min_shards=min_shards)
    write_release(Storage(folder), "v1", shelf.items, shelf.read, setup=setup, pack=pack)
    return folder


def shards_of(release: Path, split: str = "train") -> list[Path]:
    """Visual shards of a release."""
    return sorted((release / split).glob("*/*-visual-*.tar"))


def rewritten(release: Path, folder: Path, change, series: str = "visual") -> list[str]:
    """Copies of the training shards that belong to no release; ``change(key, members)`` may change the members."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for shard in sorted((release / "train").glob(f"*/*-{series}-*.tar")):
        samples: dict[str, dict[str, bytes]] = {}
        with tarfile.open(shard) as tar:
            for member in tar:
                key, _, suffix = member.name.partition(".")
                file = tar.extractfile(member)
                assert file is not None
                samples.setdefault(key, {})[suffix] = file.read()
        copy = SampleTar(folder / shard.name)
        for key, members in samples.items():
            change(key, members)
            copy.add(key, members)
        copy.close()
        paths.append(str(folder / shard.name))
    return paths
