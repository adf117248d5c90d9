"""Every key of a small build, for every profile and domain, as it was committed.

A key that changes makes every user compute that stage again. Where that is meant (a stage's version was raised), write
the file anew and say so in the changelog: ``python -m tests.golden.test_keys ASSETS``.
"""

import json
from fractions import Fraction
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace

import pytest

from pipeline.analyse.windows import Window
from pipeline.build.results import Results
from pipeline.clip.meters import model_files
from pipeline.models.files.weights import WeightsStore
from schemas.analysis import PlannedClip
from schemas.base import Box, FrameSpan, TimeSpan
from schemas.clip import ClipPlan
from schemas.config import BuildConfig, EmbeddingConfig, ExpressionConfig, SpeakerConfig, WeightsConfig
from schemas.face import FacePath
from schemas.media import AudioStream, Video
from schemas.profiles import PROFILES
from schemas.quality import QualityConfig
from schemas.router import RouterConfig
from schemas.source import Fetched, FetchProvenance, Source

KEYS = Path(__file__).parent / "keys.json"
VIDEO = Video(
    source_id="film", sha256="0" * 64, num_bytes=1, container="mov", codec="h264", pixel_format="yuv420p",
    stream_index=0, time_base=Fraction(1, 25), average_fps=Fraction(25), start_s=0.0, stop_s=4.0, coded_width_px=640,
    coded_height_px=360, sample_aspect_ratio=Fraction(1), rotation_deg=0, interlaced=False, width_px=640,
    height_px=360, colorspace="bt709",
    audio=AudioStream(index=1, codec="aac", rate_hz=48000, num_channels=2, start_s=0.0, stop_s=4.0),
)  # fmt: skip
FETCHED = Fetched(
    sha256="0" * 64, num_bytes=1, path="film.mp4",
    provenance=FetchProvenance(
        uri="film.mp4", final_url="film.mp4", tool="copy", tool_version="1", fetched_at="2026-01-01T00:00:00Z"
    ),
)  # fmt: skip
PLANNED = PlannedClip(
    plan=ClipPlan(
        clip_id="film-000-00", source_id="film", shot_index=0, track_index=0, span=TimeSpan(start_s=0.0, stop_s=3.0),
        num_frames=75, fps=25, square=Box(x0=100.0, y0=20.0, x1=300.0, y1=220.0),
        face=Box(x0=150.0, y0=60.0, x1=250.0, y1=180.0), padding=0.0, native_crop_px=200.0, face_ratio=0.6,
        num_neighbours=0,
    ),
    face=FacePath(
        times_s=(0.0, 1.5, 3.0), boxes=((150.0, 60.0, 250.0, 180.0),) * 3, detector="blazeface_short", purity=1.0
    ),
)  # fmt: skip


def keys_of(profile: str, store: WeightsStore | None = None) -> dict[str, dict[str, str]]:
    """By domain, the key of every stage."""
    return keys_under(PROFILES[profile], store)


def keys_under(config: BuildConfig, store: WeightsStore | None = None) -> dict[str, dict[str, str]]:
    results = Results(SimpleNamespace(), config, files=model_files(config, store))
    keys = {}
    for domain in config.domains:
        source = Source(id="film", uri="file:///film.mp4", domain=domain, license="CC0-1.0", title="Film")
        clip = results.clip_key(source, VIDEO, PLANNED)
        keys[domain] = {
            "acquire": results.acquire_key(source),
            "probe": results.probe_key(source, FETCHED),
            "analyse": results.analyse_key(source, VIDEO, Window(0.0, 4.0, open_end=True)),
            "plan": results.plan_key(source, VIDEO),
            "clip": clip,
            "trim": results.trim_key(clip, FrameSpan(start=5, stop=40)),
        }
    return keys


def with_all_meters(folder: Path) -> BuildConfig:
    """Every stage that is off by default, over files that count by their content alone."""
    own = {name: folder / f"{name}.onnx" for name in ("expression", "identity", "speaker")}
    for name, path in own.items():
        path.write_bytes(name.encode())
    base = PROFILES["embedded"]
    return base.model_copy(
        update={
            "speaker": SpeakerConfig(weights=str(own["speaker"])),
            "expression": ExpressionConfig(weights=str(own["expression"])),
            "identity": EmbeddingConfig(weights=str(own["identity"])),
            "quality": QualityConfig(),
            "router": RouterConfig(),
            "domains": {
                name: domain.model_copy(update={"pose": "mesh" if domain.landmarker == "none" else "pnp"})
                for name, domain in base.domains.items()
            },
        }
    )


def with_assets(assets: Path) -> WeightsStore:
    return WeightsStore(WeightsConfig(dir=str(assets / "weights")))


@pytest.mark.parametrize("domain", PROFILES["embedded"].domains)
def test_embedded(domain: str):
    assert keys_of("embedded")[domain] == json.loads(KEYS.read_text())["embedded"][domain]


@pytest.mark.assets
@pytest.mark.parametrize("domain", PROFILES["standard"].domains)
def test_standard(domain: str, assets: Path):
    assert keys_of("standard", with_assets(assets))[domain] == json.loads(KEYS.read_text())["standard"][domain]


@pytest.mark.parametrize("domain", PROFILES["embedded"].domains)
def test_with_all_meters(domain: str, tmp_path: Path):
    assert keys_under(with_all_meters(tmp_path))[domain] == json.loads(KEYS.read_text())["all meters"][domain]


if __name__ == "__main__":
    import sys

    every = {"embedded": keys_of("embedded"), "standard": keys_of("standard", with_assets(Path(sys.argv[1])))}
    with TemporaryDirectory() as folder:
        every["all meters"] = keys_under(with_all_meters(Path(folder)))
    KEYS.write_text(json.dumps(every, indent=1) + "\n")
