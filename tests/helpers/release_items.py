"""Tiny clips that keep every law of a sample: 64 px, a few frames, made in memory."""

import hashlib
import io
import itertools
from fractions import Fraction

import av
import numpy as np

from pipeline.release.tables import ReleaseItem, ReleaseSetup
from schemas.base import Box, TimeSpan
from schemas.clip import Clip, ClipPlan, Provenance, Scores
from schemas.face import FacePath
from schemas.release import ManifestRow, shard_file
from schemas.sample import FIELDS
from schemas.scores import SyncScore
from schemas.source import Source

SIZE_PX = 64
NUM_FRAMES = 5
FPS = 25

SETUP = ReleaseSetup(tool_version="0.1.0", config_hash="c0ffee", mel={"bins": 80.0, "hop_samples": 160.0})

GOOD_SCORES = Scores(
    native_crop_px=300.0,
    padding=0.0,
    face_ratio=1.0,
    face_px=180.0,
    num_neighbours=0,
    landmark_ratio=1.0,
    landmark_confidence=0.9,
    yaw_abs_median_deg=5.0,
    yaw_range_deg=10.0,
    speech_ratio=0.8,
    audio_rms=0.1,
    sync=SyncScore(status="known", score=0.5, lag_frames=0, z=3.0, p=0.01),
    sharpness=100.0,
    exposure=0.5,
    motion=0.02,
    internal_cut=0.3,
    duplicate_frame_ratio=0.0,
    hold_frames=1.0,
    track_purity=0.9,
)


def make_source(name="film", **changes):
    """A source with a recognised, commercial licence."""
    values = {"id": name, "uri": f"https://example.org/{name}.mp4", "domain": "real", "license": "CC-BY-4.0"}
    return Source(**(values | {"title": f"The {name}"} | changes))


def make_clip(clip_id="film-0-0-0", source_id="film", *, domain="real", num_frames=NUM_FRAMES, scores=None, files=None):
    """A clip record; ``scores`` are changes to GOOD_SCORES, ``files`` maps suffixes to bytes."""
    plan = ClipPlan(
        clip_id=clip_id,
        source_id=source_id,
        shot_index=0,
        track_index=0,
        span=TimeSpan(start_s=1.0, stop_s=1.0 + num_frames / FPS),
        num_frames=num_frames,
        fps=FPS,
        square=Box(x0=10, y0=20, x1=310, y1=320),
        face=Box(x0=60, y0=70, x1=260, y1=270),
        padding=0.0,
        native_crop_px=300.0,
        face_ratio=1.0,
        num_neighbours=0,
    )
    return Clip(
        plan=plan,
        face=FacePath(times_s=(1.0,), boxes=((60.0, 70.0, 260.0, 270.0),), detector="none", purity=0.9),
        domain=domain,
        landmark_scheme="ibug68",
        scores=GOOD_SCORES.model_copy(update=scores or {}),
        provenance=Provenance(
            tool_version="0.1.0", profile="embedded", models={"facemesh": "aa"}, native_fps="25/1", detector="none"
        ),
        flags=("hq",),
        files={suffix: hashlib.sha256(data).hexdigest() for suffix, data in (files or {}).items()},
    )


def make_row(clip_id="film-0-0-0", *, scores=None, **changes):
    """A row of a manifest; ``scores`` are changes to GOOD_SCORES."""
    split, domain = changes.get("split", "train"), changes.get("domain", "real")
    source_id = changes.get("source_id", "film")
    values = {
        "split": split,
        "domain": domain,
        "identity_id": f"who-{source_id}",
        "source_id": source_id,
        "uri": f"https://example.org/{source_id}.mp4",
        "source_sha256": "ab" * 32,
        "title": f"The {source_id}",
        "license": "CC-BY-4.0",
        "credit": "",
        "language": "",
        "num_frames": NUM_FRAMES,
        "fps": FPS,
        "size_px": SIZE_PX,
        "duration_s": NUM_FRAMES / FPS,
        "start_s": 1.0,
        "landmark_scheme": "ibug68",
        "flags": (),
        "visual_shard": shard_file(split, domain, "visual", 0),
        "visual_offset": 0,
        "visual_bytes": 512,
        "speech_shard": shard_file(split, domain, "speech", 0),
        "speech_offset": 0,
        "speech_bytes": 512,
        "scores": GOOD_SCORES.model_copy(update=scores or {}),
    }
    return ManifestRow(clip_id=clip_id, **(values | changes))


def encode_mp4(num_frames=NUM_FRAMES, *, size_px=SIZE_PX, gop=1, fps=FPS, seed=0):
    """H.264 in mp4; ``gop=1`` makes every frame a key frame."""
    buffer = io.BytesIO()
    rng = np.random.default_rng(seed)
    with av.open(buffer, "w", format="mp4", options={"fflags": "+bitexact"}) as container:
        stream = container.add_stream("libx264", rate=fps)
        stream.width = stream.height = size_px
        stream.pix_fmt = "yuv420p"
        stream.codec_context.gop_size = gop
        stream.codec_context.thread_count = 1
        stream.options = {"preset": "ultrafast", "bf": "0"} | ({"x264-params": "keyint=1"} if gop == 1 else {})
        for index in range(num_frames):
            pixels = rng.integers(0, 255, (size_px, size_px, 3), dtype=np.uint8)
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24").reformat(format="yuv420p")
            frame.pts, frame.time_base = index, Fraction(1, fps)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return buffer.getvalue()


def encode_flac(num_samples=NUM_FRAMES * 640, *, rate_hz=16000):
    """Mono 16-bit FLAC."""
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="flac", options={"fflags": "+bitexact"}) as container:
        stream = container.add_stream("flac", rate=rate_hz, layout="mono")
        stream.codec_context.format = "s16"
        wave = (np.sin(np.arange(num_samples) / 9) * 9000).astype(np.int16)[None]
        frame = av.AudioFrame.from_ndarray(wave, format="s16", layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = rate_hz, 0, Fraction(1, rate_hz)
        fifo = av.AudioFifo()
        fifo.write(frame)
        while (block := fifo.read(stream.codec_context.frame_size or 4096, partial=True)) is not None:
            container.mux(stream.encode(block))
        container.mux(stream.encode(None))
    return buffer.getvalue()


def encode_npy(array):
    """The bytes of an .npy file."""
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=array.dtype.hasobject)
    return buffer.getvalue()


_MEDIA = {}


def make_files(num_frames=NUM_FRAMES, *, seed=0, with_options=False):
    """All files of a valid clip by suffix; ``with_options`` adds the optional ones."""
    if (num_frames, seed % 3) not in _MEDIA:
        _MEDIA[num_frames, seed % 3] = encode_mp4(num_frames, seed=seed % 3), encode_flac(num_frames * 640)
    mp4, flac = _MEDIA[num_frames, seed % 3]
    rng = np.random.default_rng(seed)
    sizes = {"T": num_frames, "P": 68, "M": 6, "Tm": 4 * num_frames, "L": 2, "C": 8, "D": 4}
    files = {"mp4": mp4, "flac": flac}
    for field in FIELDS:
        if field.suffix.endswith(".npy") and (with_options or not field.optional):
            array = rng.random(field.shape(sizes)).astype(field.dtype)
            files[field.suffix] = encode_npy(array)
    return files


class Shelf:
    """Release items and the files behind them, as the composition would hand them over."""

    def __init__(self):
        self.items = []
        self.files = {}

    def add(self, clip_id, source="film", *, split="train", domain="real", identity=None, files=None, **clip):
        """Put one clip on the shelf; ``source`` is a name or a Source."""
        source = make_source(source, domain=domain) if isinstance(source, str) else source
        self.files[clip_id] = make_files(seed=len(self.items)) if files is None else files
        record = make_clip(clip_id, source.id, domain=domain, files=self.files[clip_id], **clip)
        digest = hashlib.sha256(source.id.encode()).hexdigest()
        self.items.append(ReleaseItem(record, source, identity or f"who-{source.id}", split, digest, key=clip_id))
        return self

    def read(self, item, suffix):
        """What ``write_release`` calls."""
        return self.files[item.key][suffix]


def small_shelf(num_per_source=3):
    """Two train domains and a test split, all apart."""
    shelf = Shelf()
    places = (("film", "train", "real"), ("toon", "train", "mesh"), ("other", "test", "real"))
    for (source, split, domain), number in itertools.product(places, range(num_per_source)):
        shelf.add(f"{source}-{number}", source, split=split, domain=domain)
    return shelf
