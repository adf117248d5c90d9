"""What the embedded profile makes of real media that nobody here made: one build of everything, then its promises."""

import csv
import io
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np
import pytest
import yaml

from flows.cli import listings
from pipeline.build.results import Results, load_build
from pipeline.build.survey import FinishedClip, Survey, survey
from pipeline.curate.choice import ReleaseOptions, choose
from pipeline.release.verify import verify_release
from pipeline.store.workspace import Workspace
from schemas.sample import fields_of

pytestmark = pytest.mark.assets

DOMAINS = {
    "sintel": "disney_human",
    "penny_and_chip_beach_surfing": "disney_human",
    "yongen": "disney_human",
    "bigbuckbunny": "disney_animal",
    "cat_nobel": "disney_animal",
    "dog_22": "disney_animal",
    "no_duration": "disney_animal",
    "man_FaceTalk": "mesh",
}
BROKEN = {"error": "decode", "test_case_1185230": "decode"}
TALKERS = ("WDA_AlexandriaOcasioCortez_000", "tps_driving", "man_FaceTalk")
GRID = ("bbaf2n", "id2_vcd_swwp2s")


def domain_of(name: str) -> str:
    return next((domain for start, domain in DOMAINS.items() if name.startswith(start)), "real")


class Built:
    """The one build of all media."""

    def __init__(self, folder: Path) -> None:
        self.workspace = Workspace(folder)
        self.build = load_build(self.workspace)
        self.results = Results(self.workspace, self.build.config)
        self.found: Survey = survey(self.results, self.build.sources)
        self.release = folder / "releases" / "all"

    def clips(self, name: str) -> list[FinishedClip]:
        return [made for made in self.found.clips if made.source.id.startswith(name)]

    def array(self, made: FinishedClip, name: str) -> np.ndarray:
        return np.load(io.BytesIO(self.workspace.result_file("clip", made.key, name)), allow_pickle=False)


@pytest.fixture(scope="module")
def built(assets: Path, tmp_path_factory: pytest.TempPathFactory) -> Built:
    folder = tmp_path_factory.mktemp("all")
    media = [path for path in sorted((assets / "video").iterdir()) if path.suffix != ".align"]
    sources = [
        {
            "id": path.stem[:40],
            "uri": str(path),
            "domain": domain_of(path.stem),
            "license": "LicenseRef-test-only",
            "title": path.stem,
        }
        for path in media
    ]
    (folder / "manifest.yaml").write_text(yaml.safe_dump({"sources": sources}))
    command = [sys.executable, "-m", "anitalk", "build", str(folder / "manifest.yaml"), "--inline"]
    # In a process of its own, as a user would; decoders must not share state with other tests.
    done = subprocess.run(
        [*command, "--workspace", str(folder / "ws"), "--release", "all"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr + done.stdout
    return Built(folder / "ws")


def test_every_broken_file_is_in_the_ledger_with_its_own_reason(built: Built):
    failed = {row.source_id: row for row in built.found.rows if row.outcome == "failed"}
    assert {source: row.reason_class for source, row in failed.items()} == BROKEN
    assert len({row.message for row in failed.values()}) == len(BROKEN)
    assert all(source in row.message for source, row in failed.items())
    assert built.found.left == []


def test_the_release_verifies(built: Built):
    assert verify_release(str(built.release)) == []


def test_plain_webdataset_and_wids_read_it(built: Built, tmp_path: Path):
    import webdataset as wds
    import wids

    shards = sorted(str(path) for path in built.release.rglob("*-visual-*.tar"))
    keys = {sample["__key__"] for sample in wds.WebDataset(shards, shardshuffle=False)}
    assert keys == set(choose_all(built))
    indexed: set[str] = set()
    for index in sorted(built.release.glob("index-*-visual.json")):
        data = wids.ShardListDataset(str(index), cache_dir=str(tmp_path / index.stem))
        indexed |= {data[i]["__key__"] for i in range(len(data))}
    assert {key.rsplit("/", 1)[-1] for key in indexed} == keys


def choose_all(built: Built) -> dict[str, str]:
    return dict(choose(built.results, built.build, built.found, ReleaseOptions()).split.assignment)


def test_every_clip_has_exactly_its_frames_and_matching_arrays(built: Built):
    assert built.found.clips
    for made in built.found.clips:
        num_frames = made.clip.plan.num_frames
        with av.open(io.BytesIO(built.workspace.result_file("clip", made.key, "mp4"))) as container:
            frames = list(container.decode(video=0))
        assert len(frames) == num_frames
        assert all(frame.key_frame for frame in frames)
        sizes = {"T": num_frames, "P": 68, "M": 6, "A": num_frames * 640, "Tm": num_frames * 4}
        for suffix, field in {**fields_of("visual"), **fields_of("speech")}.items():
            if suffix.endswith(".npy") and not field.optional:
                array = built.array(made, suffix)
                assert array.shape == field.shape(sizes), (made.clip.clip_id, suffix)
                assert np.isfinite(array.astype(np.float64)).all()


def true_boundaries(assets: Path, file: str) -> Iterator[tuple[str, int, int]]:
    with (assets / "truth" / "shots.csv").open() as opened:
        for row in csv.DictReader(opened):
            if row["file"] == file and row["kind"] != "not_a_cut" and "AMBIGUOUS" not in row["note"]:
                yield row["kind"], int(row["start_frame"]), int(row["end_frame"])


@pytest.mark.parametrize(
    "file", ["sintel.mp4", "penny_and_chip_beach_surfing.mp4", "bigbuckbunny.mp4", "tps_driving.mp4"]
)
def test_no_clip_contains_a_labelled_boundary(built: Built, assets: Path, file: str):
    for made in built.clips(Path(file).stem[:40]):
        video = built.results.video(made.source)
        assert video is not None
        for kind, start, stop in true_boundaries(assets, file):
            boundary_s = [video.start_s + frame / float(video.average_fps) for frame in (start, stop)]
            span = made.clip.plan.span
            inside = span.start_s < boundary_s[0] < span.stop_s or span.start_s < boundary_s[1] < span.stop_s
            assert not inside, f"{made.clip.clip_id} {span} holds the {kind} of frames {start}-{stop}"


@pytest.mark.parametrize("name", TALKERS)
def test_a_talker_becomes_one_clip_in_sync(built: Built, name: str):
    (made,) = built.clips(name)
    scores = made.clip.scores
    assert choose_all(built).keys() >= {made.clip.clip_id}
    assert scores.face_ratio >= 0.98
    assert scores.sync.status == "known"
    assert scores.sync.p is not None
    assert scores.sync.p < 0.05
    assert abs(scores.sync.lag_frames or 0) <= 5
    assert made.clip.plan.num_frames >= 4 * 25


@pytest.mark.parametrize("name", GRID)
def test_grid_sentences_become_clips_of_their_length(built: Built, name: str):
    (made,) = built.clips(name)
    assert made.clip.plan.num_frames == 75
    assert made.clip.scores.speech_ratio is not None
    assert 0.3 <= made.clip.scores.speech_ratio <= 0.9
    assert made.clip.scores.sync.status == "unknown"
    assert "3.2 s" in made.clip.scores.sync.why
    assert made.clip.clip_id in choose_all(built)


def test_silent_media_are_rejected_with_the_number(built: Built):
    decisions = {
        one.clip_id: one for one in choose(built.results, built.build, built.found, ReleaseOptions()).decisions
    }
    (d9,) = built.clips("d9")
    assert (decisions[d9.clip.clip_id].reason, decisions[d9.clip.clip_id].measured) == ("not_speaking", 0.0)
    for name in ("yongen", "goldeneye"):
        for made in built.clips(name):
            decision = decisions[made.clip.clip_id]
            assert not decision.keep
            if made.clip.scores.native_crop_px >= 160:  # a face of 94 px in one of them, which comes first
                assert (decision.reason, decision.measured) == ("no_audio", 0.0)
            else:
                assert (decision.reason, decision.measured) == ("low_resolution", made.clip.scores.native_crop_px)


def test_shot_times_of_variable_rate_and_late_files(built: Built):
    rows, _ = listings.shot_rows(built.results, built.build)
    starts = {name: [row["start_s"] for row in rows if row["source_id"] == name] for name in ("goldeneye-vfr-drop3", "fades", "delayed_start")}  # fmt: skip  # noqa: E501
    assert starts["goldeneye-vfr-drop3"] == pytest.approx([0.0, 3.754, 8.759], abs=1 / 16)
    assert starts["fades"] == pytest.approx([0.0, 84 / 25, 167 / 25], abs=1 / 25)
    assert starts["delayed_start"] == [1.075]
