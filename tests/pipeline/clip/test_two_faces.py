"""Two faces, one voice: the clip of the one who speaks is kept, and a changed limit computes nothing."""

from pathlib import Path

import av
import cv2
import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml

from flows.cli import application as cli
from pipeline.build.results import load_build, results_of
from pipeline.build.survey import survey
from pipeline.curate.choice import ReleaseOptions, choose
from pipeline.release.verify import verify_release
from pipeline.store.workspace import Workspace
from schemas.decision import RejectReason
from schemas.release import MANIFEST_FILE
from tests.helpers.media import Sound, write_video

pytestmark = [pytest.mark.assets, pytest.mark.slow]
TILE_PX, NUM_FRAMES = 256, 125
LEFT, RIGHT = "WDA_AlexandriaOcasioCortez_000.mp4", "tps_driving.mp4"


def tiles(path: Path) -> list[np.ndarray]:
    with av.open(str(path)) as container:
        pictures = (frame.to_ndarray(format="rgb24") for frame in container.decode(video=0))
        return [
            cv2.resize(picture, (TILE_PX, TILE_PX), interpolation=cv2.INTER_AREA)
            for picture, _ in zip(pictures, range(NUM_FRAMES), strict=False)
        ]


def voice(path: Path) -> np.ndarray:
    resampler = av.AudioResampler("flt", "mono", 16000)
    with av.open(str(path)) as container:
        blocks = [block for frame in container.decode(audio=0) for block in resampler.resample(frame)]
    blocks += resampler.resample(None)
    return np.concatenate([block.to_ndarray()[0] for block in blocks])[: 640 * NUM_FRAMES]


@pytest.fixture(scope="module")
def built(assets, tmp_path_factory) -> Path:
    """Two films of the same pair, one with the voice of each; every clip has both kinds of score."""
    folder = tmp_path_factory.mktemp("pair")
    pair = [tiles(assets / "video" / name) for name in (LEFT, RIGHT)]
    pictures = [np.concatenate(both, axis=1) for both in zip(*pair, strict=True)]
    sources = []
    for side, name in (("left", LEFT), ("right", RIGHT)):
        write_video(folder / f"{side}.mp4", pictures, sound=Sound(voice(assets / "video" / name), 16000))
        film = {"id": side, "uri": str(folder / f"{side}.mp4"), "domain": "real", "license": "LicenseRef-x"}
        sources.append({**film, "title": side})
    (folder / "manifest.yaml").write_text(yaml.safe_dump({"sources": sources}))
    weights = assets / "weights" / "finetuning_TalkSet.model"
    settings = ["--set", f"speaker.weights={weights}", "--set", "crop.size_px=256"]
    settings += ["--set", "domains.real.limits.one_speaker=true", "--set", "domains.real.limits.min_sync_z=-99"]
    place = ["-w", str(folder / "ws"), "--inline", "--release", "first"]
    done = cli.run(["build", str(folder / "manifest.yaml"), *place, *settings])
    assert done == 0
    return folder / "ws"


def decided(folder: Path, **limits: object):
    """Decisions by (source, side of the face), under other limits."""
    place = Workspace(folder)
    build = load_build(place)
    real = build.config.domains["real"]
    changed = {"real": real.model_copy(update={"limits": real.limits.model_copy(update=limits)})}
    config = build.config.model_copy(update={"domains": {**build.config.domains, **changed}})
    results = results_of(place, build, config)
    found = survey(results, build.sources)
    sides = {
        made.clip.clip_id: (made.source.id, "left" if made.clip.plan.face.x0 < TILE_PX - 60 else "right", made.clip)
        for made in found.clips
    }
    made = choose(results, build, found, ReleaseOptions())
    return {sides[one.clip_id][:2]: (one, sides[one.clip_id][2]) for one in made.decisions}


@pytest.mark.parametrize("speaks", ["left", "right"])
def test_the_one_who_speaks_is_kept_and_the_other_rejected_with_its_score(built, speaks):
    silent = {"left": "right", "right": "left"}[speaks]
    found = decided(built)
    assert len(found) == 4, "two faces in each of two films"
    kept, own = found[speaks, speaks]
    lost, other = found[speaks, silent]
    print(f"{speaks} speaks: {own.scores.speaker} against {other.scores.speaker}")
    assert kept.keep
    assert lost.reason is RejectReason.NOT_THE_SPEAKER
    assert (lost.measured, lost.limit) == (other.scores.speaker.score, own.scores.speaker.score)
    assert own.plan.num_neighbours == other.plan.num_neighbours == 0, "each square holds one face"


def test_off_both_stay_and_nothing_is_computed(built):
    before = {path: path.stat().st_mtime_ns for path in sorted(built.rglob("*")) if path.is_file()}
    assert all(one.keep for one, _ in decided(built, one_speaker=False).values())
    assert before == {path: path.stat().st_mtime_ns for path in sorted(built.rglob("*")) if path.is_file()}


def test_the_release_says_who_spoke(built):
    release = built / "releases" / "first"
    assert not verify_release(str(release))
    rows = pq.read_table(release / MANIFEST_FILE).to_pylist()
    assert {row["source_id"] for row in rows} == {"left", "right"}
    assert all(row["scores_speaker"]["status"] == "known" for row in rows)


def test_without_the_network_the_mouth_and_the_loudness_decide(built):
    for name, (_, clip) in decided(built).items():
        assert clip.scores.sync.z is not None, name
    found = decided(built)
    for speaks, silent in (("left", "right"), ("right", "left")):
        assert found[speaks, speaks][1].scores.sync.z > found[speaks, silent][1].scores.sync.z
