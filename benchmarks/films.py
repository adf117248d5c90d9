"""1080p films to measure with: talking assets, scaled up, among assets that nobody talks in.

Nobody gave this project an hour of free 1080p talking film, so one is made: the reel below is scaled to 1080
lines over a blurred copy of itself and encoded as films on the web are (x264, CABAC, B-frames, long groups of
pictures). Longer films repeat the reel without encoding it again. What a film costs to decode is measured, not assumed.
"""

import json
import subprocess
from dataclasses import dataclass
from pathlib import Path

import imageio_ffmpeg

FPS = 25
SIZE = (1920, 1080)
_GOP = 250  # x264's default; films on the web have 2 to 10 s between key frames
_CRF = 20
# For faces lower than the picture: the rest is a blurred copy, which costs the decoder more than black bars.
_FIT = (
    "fps={fps},split[a][b];"
    "[a]scale={w}:{h}:force_original_aspect_ratio=increase,crop={w}:{h},scale=96:54,gblur=2,scale={w}:{h}[back];"
    "[b]scale={w}:{h}:force_original_aspect_ratio=decrease:flags=lanczos[front];"
    "[back][front]overlay=(W-w)/2:(H-h)/2,setsar=1,format=yuv420p[v]"
)


@dataclass(frozen=True)
class Part:
    """A piece of an asset: ``file`` in the assets' video folder, from ``start_s``, for ``seconds``."""

    file: str
    start_s: float
    seconds: float


# A third of the reel is one person talking; the rest are films without a talker, animals, and a silent face.
REEL = (
    Part("sintel.mp4", 24.0, 12.0),
    Part("WDA_AlexandriaOcasioCortez_000.mp4", 0.0, 8.0),
    Part("bigbuckbunny.mp4", 0.0, 5.2),
    Part("cat_nobel.mp4", 0.0, 6.0),
    Part("tps_driving.mp4", 0.0, 6.6),
    Part("sintel.mp4", 36.0, 8.0),
    Part("d9.mp4", 0.0, 5.0),
    Part("penny_and_chip_beach_surfing.mp4", 0.0, 4.0),
    Part("man_FaceTalk_170809_00138_TA_condition_FaceTalk_170725_00137_TA_audio.mp4", 0.0, 12.6),
    Part("dog_22.mp4", 0.0, 6.6),
)
REEL_S = sum(part.seconds for part in REEL)
TALKERS = ("WDA", "tps", "man_FaceTalk")
TALK_S = sum(part.seconds for part in REEL if part.file.startswith(TALKERS))


def ffmpeg(*arguments: str) -> subprocess.CompletedProcess[bytes]:
    """Run the packaged ffmpeg, quietly.

    Raises:
        CalledProcessError: when it fails.
    """
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-nostdin", "-y", *arguments]
    return subprocess.run(command, check=True, capture_output=True)


def make_film(assets: Path, folder: Path, seconds: float) -> Path:
    """The reel, repeated or cut to ``seconds``, as one 1080p mp4; made once per folder."""
    path = folder / f"film-{seconds:g}s.mp4"
    if path.exists():
        return path
    folder.mkdir(parents=True, exist_ok=True)
    reel = _reel(assets, folder)
    partial = path.with_suffix(".partial.mp4")
    times = int(seconds // REEL_S)
    repeat = ["-stream_loop", str(times)] if times else []
    ffmpeg(*repeat, "-i", str(reel), "-t", str(seconds), "-c", "copy", str(partial))
    partial.rename(path)
    return path


def _reel(assets: Path, folder: Path) -> Path:
    path = folder / "reel.mp4"
    if path.exists():
        return path
    inputs, graph = [], []
    fit = _FIT.format(fps=FPS, w=SIZE[0], h=SIZE[1])
    for number, part in enumerate(REEL):
        file = assets / "video" / part.file
        inputs += ["-ss", str(part.start_s), "-t", str(part.seconds), "-i", str(file)]
        picture = fit
        for label in ("a", "b", "back", "front", "v"):
            picture = picture.replace(f"[{label}]", f"[{label}{number}]")
        graph.append(f"[{number}:v]{picture}")
        graph.append(
            f"[{number}:a]aresample=48000,aformat=channel_layouts=stereo,apad,atrim=0:{part.seconds},"
            f"asetpts=PTS-STARTPTS[s{number}]"
        )
    joined = "".join(f"[v{n}][s{n}]" for n in range(len(REEL)))
    graph.append(f"{joined}concat=n={len(REEL)}:v=1:a=1[v][s]")
    partial = path.with_suffix(".partial.mp4")
    coding = ["-c:v", "libx264", "-preset", "fast", "-crf", str(_CRF), "-g", str(_GOP), "-c:a", "aac", "-b:a", "128k"]
    ffmpeg(*inputs, "-filter_complex", ";".join(graph), "-map", "[v]", "-map", "[s]", *coding, str(partial))
    partial.rename(path)
    return path


def write_manifest(path: Path, films: list[Path]) -> Path:
    """A manifest of films of one domain; JSONL needs no quoting."""
    rows = [
        {
            "id": film.stem.replace(".", "_"),
            "uri": str(film.resolve()),
            "domain": "real",
            "license": "LicenseRef-test-only",
            "title": film.stem,
        }
        for film in films
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path
