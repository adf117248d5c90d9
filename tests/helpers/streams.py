"""Broadcast-like files as bytes joined to bytes: what recorders and ``cat`` leave behind."""

import subprocess
from fractions import Fraction
from pathlib import Path

import imageio_ffmpeg

from tests.helpers.media import Coding, Sound, clicks, iter_numbered, write_video

SIZE = (160, 96)


def ffmpeg(*arguments: object) -> None:
    subprocess.run([imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-y", *map(str, arguments)], check=True)


def numbered_film(path: Path, seconds: int, *, first: int = 0, sound: bool = True) -> Path:
    """25 numbered frames a second from number ``first`` on, and a click in the middle of each second."""
    click = Sound(clicks([k + Fraction(1, 2) for k in range(seconds)], seconds))
    images = iter_numbered(25 * seconds, SIZE, first)
    write_video(path, images, sound=click if sound else None, coding=Coding(bframes=0))
    return path


def with_late_streams(folder: Path, suffix: str) -> Path:
    """12 s of film, more than is read to find streams, then 3 s in other streams ("ts") or in one more ("flv")."""
    first = numbered_film(folder / f"first.{suffix}", 12, sound=suffix == "ts")
    later, path = folder / f"later.{suffix}", folder / f"late.{suffix}"
    if suffix == "ts":
        numbered_film(folder / "plain.ts", 3)
        moved = ["-copyts", "-output_ts_offset", "12", "-mpegts_start_pid", "0x300", "-mpegts_pmt_start_pid", "0x1100"]
        ffmpeg("-i", folder / "plain.ts", "-map", "0", "-c", "copy", *moved, later)
        path.write_bytes(first.read_bytes() + later.read_bytes())
    else:
        ffmpeg("-f", "lavfi", "-i", "sine=duration=3", "-c:a", "aac", "-output_ts_offset", "12", later)
        path.write_bytes(first.read_bytes() + _flv_tags(later.read_bytes()))
    return path


def _flv_tags(data: bytes) -> bytes:
    """What follows an FLV file's header and its first tag, which describes the file."""
    first = 9 + 4
    return data[first + 11 + int.from_bytes(data[first + 1 : first + 4], "big") + 4 :]


def joined(path: Path, *parts: Path) -> Path:
    """What ``cat`` makes of the parts."""
    path.write_bytes(b"".join(part.read_bytes() for part in parts))
    return path
