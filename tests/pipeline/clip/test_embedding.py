"""Face embeddings in a build: made of readable frames, kept in the workspace, released on request, never required.

No real ArcFace weights are at hand: the networks here are random, or know colours.
"""

import io
import json
import shutil
import tarfile
from pathlib import Path

import av
import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flows.cli import application as cli
from pipeline.build.results import Results, load_build
from pipeline.build.survey import Survey, survey
from pipeline.clip.embedding import EMBEDDING_FILE, EmbeddingTap, looked_at, read_embedding
from pipeline.curate.choice import ReleaseOptions, choose
from pipeline.curate.collect import collect, collection_key, ridge_groups, stored_collection
from pipeline.models.files.model_file import sha256_of
from pipeline.models.identity import ArcFace, five_points, mean_embedding
from pipeline.release.verify import verify_release
from pipeline.store.workspace import Workspace
from schemas.config import BuildConfig, SplitConfig
from schemas.errors import WorkspaceError
from tests.helpers import films as films_module
from tests.helpers.films import HEAD, TALKER, Built, build, digests, write_manifest
from tests.helpers.media import Sound, write_video
from tests.helpers.onnx_files import arcface_of_colour, random_arcface, save

films = films_module.films  # a fixture
FACE = (0.0, 0.0, 1.0, 1.0)
IBUG = np.zeros((68, 3), np.float32)
# Eyes, nose tip and mouth corners of a face in the middle of 128 px.
IBUG[36:42, :2], IBUG[42:48, :2], IBUG[30, :2], IBUG[48, :2], IBUG[54, :2] = (46, 50), (82, 50), (64, 72), (49, 92), (79, 92)  # fmt: skip  # noqa: E501
RED_OR_BLUE = np.zeros((3, 512))
RED_OR_BLUE[[0, 2], 0] = 1.0, -1.0
ALL_ALIKE = np.eye(1, 512, 1)[0] * 0.02


def of_colour(folder: Path) -> Path:
    """A constructed stand-in: faces redder than blue lie opposite to the others."""
    return arcface_of_colour(folder / "constructed-standin.onnx", RED_OR_BLUE, ALL_ALIKE)


# --- which frames ----------------------------------------------------------------------------------------


@given(st.integers(1, 600), st.integers(1, 40))
def test_frames_are_looked_at_in_the_middle_of_equal_parts(num_frames, num_looks):
    found = looked_at(num_frames, num_looks)
    assert found == sorted(set(found))
    assert len(found) == min(num_frames, num_looks)
    assert 0 <= found[0] <= found[-1] < num_frames
    gaps = np.diff([-found[0] - 1, *found, 2 * num_frames - found[-1]])
    assert np.ptp(gaps) <= 2


@pytest.fixture(scope="module")
def afraid_of_light(tmp_path_factory) -> ArcFace:
    """A constructed stand-in that answers bright pictures with zeros."""
    path = tmp_path_factory.mktemp("weights") / "constructed-standin.onnx"
    return ArcFace(arcface_of_colour(path, np.eye(3, 512), np.zeros(512), at_most=0.5))


def picture(red: int, green: int = 0, blue: int = 0) -> np.ndarray:
    return np.broadcast_to(np.uint8([red, green, blue]), (128, 128, 3)).copy()


def finished(network, frames, readable, num_looks=8):
    meter = EmbeddingTap(network, len(frames), num_looks)
    for frame in frames:
        meter.add(frame, FACE)
    return meter.finish(np.stack([IBUG] * len(frames)), np.array(readable, np.float32))


def test_only_frames_that_were_read_count(afraid_of_light):
    red, blue = picture(200), picture(0, 0, 200)
    found = finished(afraid_of_light, [red, blue, blue, red], [1, 0, 0, 1])
    np.testing.assert_array_equal(found, finished(afraid_of_light, [red], [1]))
    assert found @ finished(afraid_of_light, [red, blue, blue, red], [0, 1, 1, 0]) < 0.9


def test_a_clip_of_which_no_frame_says_anything_has_none(afraid_of_light):
    dark, light = picture(0), picture(255, 255, 255)
    assert finished(afraid_of_light, [dark] * 3, [0, 0, 0]) is None
    assert finished(afraid_of_light, [light] * 3, [1, 1, 1]) is None
    np.testing.assert_array_equal(
        finished(afraid_of_light, [light, dark, light], [1, 1, 1]), finished(afraid_of_light, [dark], [1])
    )
    meter = EmbeddingTap(afraid_of_light, 1, 1)
    meter.add(dark, FACE)
    assert meter.finish(np.ones((1, 68, 3), np.float32), np.ones(1, np.float32)) is None, "points in one place"


def test_an_embedding_is_read_back_or_refused():
    def stored(array) -> bytes:
        buffer = io.BytesIO()
        np.save(buffer, array)
        return buffer.getvalue()

    one = np.random.default_rng(0).normal(size=512).astype(np.float32)
    np.testing.assert_array_equal(read_embedding(stored(one)), one)
    nan = np.where(np.arange(512) == 7, np.nan, one).astype(np.float32)
    for bad in (stored(one[:511]), stored(one.astype(np.float64)), stored(nan), stored(one)[:-9], b"", b"text"):
        with pytest.raises(ValueError, match=r"."):
            read_embedding(bad)


# --- from a film to a release ----------------------------------------------------------------------------


def opened(workspace: Path, **limits: float) -> tuple[Results, Survey]:
    """A workspace's clips, with other limits for identities."""
    place = Workspace(workspace)
    made = load_build(place)
    collection = made.config.collection
    changed = collection.model_copy(update={"identities": collection.identities.model_copy(update=limits)})
    results = Results(place, made.config.model_copy(update={"collection": changed}))
    return results, survey(results, made.sources)


def members_of(release: Path, clip_id: str) -> dict[str, bytes]:
    for path in sorted(release.rglob("*-visual-*.tar")):
        with tarfile.open(path) as tar:
            names = [name for name in tar.getnames() if name.startswith(f"{clip_id}.")]
            if names:
                return {name.partition(".")[2]: tar.extractfile(name).read() for name in names}
    raise AssertionError(f"{clip_id} is not in {release}")


def suffixes_of(release: Path) -> set[str]:
    found = set()
    for path in sorted(release.rglob("*.tar")):
        with tarfile.open(path) as tar:
            found |= {name.partition(".")[2] for name in tar.getnames()}
    return found


@pytest.fixture(scope="module")
def known(films, tmp_path_factory) -> Built:
    """A talker with an embedding by a random stand-in, and a rendered head, of whom there is none."""
    folder = tmp_path_factory.mktemp("known")
    weights = random_arcface(folder / "random-standin.onnx")
    sources = [
        {"id": film.id, "uri": str(films / f"{film.id}.mp4"), "domain": film.domain, "license": film.license}
        for film in (TALKER, HEAD)
    ]
    made = Built(write_manifest(folder / "manifest.yaml", sources), folder / "ws")
    settings = ("--set", f"identity.weights={weights}", "--set", "crop.size_px=320")
    assert (
        build(
            made.manifest,
            made.workspace,
            *settings,
            "--release",
            "first",
        )
        == 0
    )
    return made


def test_the_workspace_keeps_embeddings_and_a_release_holds_none(known):
    _, found = opened(known.workspace)
    files = {made.source.id: EMBEDDING_FILE in made.clip.files for made in found.clips}
    assert files == {"talker": True, "head": False}, "the default domain is real"
    assert all("no_identity" not in made.clip.flags for made in found.clips), "the head was not asked for"
    assert EMBEDDING_FILE not in suffixes_of(known.release)
    assert not verify_release(str(known.release))
    assert "It contains no face embeddings" in (known.release / "README.md").read_text()


@pytest.fixture(scope="module")
def with_identity(known) -> Path:
    release = known.workspace / "releases" / "faces"
    assert cli.run(["release", "faces", "-w", str(known.workspace), "--with-identity"]) == 0
    return release


def test_a_release_with_identity_is_sound_though_a_clip_has_none(known, with_identity):
    assert not verify_release(str(with_identity))
    rows = {row["source_id"]: row for row in pq.read_table(with_identity / "manifest.parquet").to_pylist()}
    assert rows.keys() == {"talker", "head"}
    assert EMBEDDING_FILE in members_of(with_identity, rows["talker"]["clip_id"])
    assert EMBEDDING_FILE not in members_of(with_identity, rows["head"]["clip_id"])
    assert pq.read_schema(with_identity / "manifest.parquet") == pq.read_schema(known.release / "manifest.parquet")
    card = (with_identity / "README.md").read_text()
    assert "It contains face embeddings" in card
    assert "biometric" in card
    assert (
        "`identity.npy` | visual | `f4` | 512 | – | face embedding; only in releases made --with-identity (optional)"
        in card
    )
    assert "<strong>It contains face embeddings</strong>" in (with_identity / "card.html").read_text()


def test_wids_reads_clips_with_and_without_one(with_identity, tmp_path):
    import wids

    found = {}
    for index in sorted(with_identity.glob("index-*-visual.json")):
        data = wids.ShardListDataset(str(index), cache_dir=str(tmp_path / index.stem))
        found |= {sample[".json"]["source_id"]: sample for sample in data}
    assert found["talker"][".identity.npy"].shape == (512,)
    assert ".identity.npy" not in found["head"]


@pytest.mark.parametrize("form", ["json", "csv", "parquet"])
def test_the_listing_of_clips_has_no_new_columns(known, form, tmp_path, capsys):
    output = tmp_path / f"clips.{form}"
    arguments = ["clips", "-w", str(known.workspace), "--format", form]
    assert cli.run([*arguments, *(["-o", str(output)] if form == "parquet" else [])]) == 0
    told = output.read_bytes() if form == "parquet" else capsys.readouterr().out.encode()
    assert b"talker" in told
    assert b"embedding" not in told


def test_the_numbers_can_be_made_again_from_the_sample(known, with_identity):
    """Of the frames and points of the released clip, by the network that its provenance names."""
    made = next(one for one in opened(known.workspace)[1].clips if one.source.id == "talker")
    members = members_of(with_identity, made.clip.clip_id)
    info = json.loads(members["json"])
    weights = known.workspace.parent / "random-standin.onnx"
    assert sha256_of(weights) in info["provenance"]["models"].values()
    with av.open(io.BytesIO(members["mp4"])) as container:
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    points = np.load(io.BytesIO(members["landmarks.npy"]), allow_pickle=False)
    network = ArcFace(weights)
    again = mean_embedding(
        np.stack(
            [network.embed(frames[k], five_points(points[k])) for k in looked_at(len(frames), 8) if points[k, 0, 2] > 0]
        )
    )
    stored = read_embedding(members[EMBEDDING_FILE])
    assert np.linalg.norm(stored) == pytest.approx(1, abs=1e-5)
    other = network.embed(frames[0], five_points(points[0]) + np.array([60, 60]))
    print(f"again {again @ stored:.4f}, beside the face {other @ stored:.4f}")
    assert again @ stored > 0.99, "encoding is all that lies between"
    assert other @ stored < again @ stored - 0.01


def test_what_is_off_changes_nothing(films, known, tmp_path):
    """The same film without embeddings: another key, and all other files the same."""
    manifest = known.manifest
    assert build(manifest, tmp_path / "ws", "--set", "crop.size_px=320") == 0
    plain = {path.split("/", 2)[2]: digest for path, digest in clip_files(tmp_path / "ws").items()}
    more = {path.split("/", 2)[2]: digest for path, digest in clip_files(known.workspace).items()}
    assert {name: more[name] for name in plain} == plain
    assert {name.split("/")[-1] for name in more.keys() - plain.keys()} == {EMBEDDING_FILE}
    assert "identity" not in json.loads((tmp_path / "ws" / "build.json").read_text())["config"]
    assert "identity" not in json.loads(BuildConfig().model_dump_json())
    assert BuildConfig().collection.identities.model_dump().keys() == {"max_distance"}


def clip_files(workspace: Path) -> dict[str, str]:
    """Digests of all files of clips but their records, by source."""
    _, found = opened(workspace)
    return {
        f"clip/{made.key}/{made.source.id}/{name}": digest
        for made in found.clips
        for name, digest in digests(workspace / "results" / "clip" / made.key).items()
        if name != "record.json"
    }


def test_a_source_that_is_taken_down_leaves_no_embedding(known, with_identity, tmp_path):
    place = tmp_path / "ws"
    shutil.copytree(known.workspace, place)
    assert list(place.glob(f"results/clip/*/{EMBEDDING_FILE}"))
    assert cli.run(["forget", "talker", "-w", str(place), "--drop-old"]) == 0
    assert not list(place.glob(f"results/**/{EMBEDDING_FILE}"))
    assert EMBEDDING_FILE not in suffixes_of(place / "releases" / "faces-r2")
    assert not (place / "releases" / "faces").exists()
    assert not verify_release(str(place / "releases" / "faces-r2"))


def test_a_face_that_nobody_reads_is_said_and_not_invented(films, tmp_path, capsys):
    weights = random_arcface(tmp_path / "random-standin.onnx")
    manifest = write_manifest(tmp_path / "manifest.yaml", [{"id": "talker", "uri": str(films / "talker.mp4")}])
    settings = ("--set", f"identity.weights={weights}", "--set", "domains.real.landmarker=none")
    assert build(manifest, tmp_path / "ws", *settings) == 0
    _, found = opened(tmp_path / "ws")
    [made] = found.clips
    assert "no_identity" in made.clip.flags
    assert EMBEDDING_FILE not in made.clip.files
    capsys.readouterr()
    assert cli.run(["release", "faces", "-w", str(tmp_path / "ws"), "--with-identity"]) == 2
    told = " ".join(capsys.readouterr().err.split())
    assert "no face could be read in the domains that its setting identity.domains names" in told
    assert cli.run(["release", "plain", "-w", str(tmp_path / "ws")]) == 0


@pytest.mark.assets
def test_a_real_talker_has_one(assets, tmp_path):
    weights = random_arcface(tmp_path / "random-standin.onnx")
    video = assets / "video" / "tps_driving.mp4"
    manifest = write_manifest(tmp_path / "manifest.yaml", [{"id": "driver", "uri": str(video)}])
    settings = ("--set", f"identity.weights={weights}", "--release", "first")
    assert build(manifest, tmp_path / "ws", *settings) == 0
    results, found = opened(tmp_path / "ws")
    [made] = found.clips
    embedding = read_embedding(results.workspace.result_file("clip", made.key, EMBEDDING_FILE))
    assert np.linalg.norm(embedding) == pytest.approx(1, abs=1e-5)
    assert made.clip.flags.count("no_identity") == 0
    assert stored_collection(results, found).people == {}


# --- who is who ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def coloured(films, tmp_path_factory) -> Path:
    """One film of three shots: the talker, the talker with red and blue exchanged, and the talker again."""
    folder = tmp_path_factory.mktemp("coloured")
    with av.open(str(films / "talker.mp4")) as container:
        taken = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)][:88]
    there_and_back = [*taken, *taken[-2:-20:-1]]
    exchanged = [np.ascontiguousarray(frame[:, :, ::-1]) for frame in there_and_back]
    silence = Sound(np.zeros(3 * len(there_and_back) * 640, np.float32), 16000)
    write_video(folder / "film.mp4", [*there_and_back, *exchanged, *there_and_back], sound=silence)
    manifest = write_manifest(folder / "manifest.yaml", [{"id": "film", "uri": str(folder / "film.mp4")}])
    settings = ("--set", f"identity.weights={of_colour(folder)}")
    assert build(manifest, folder / "ws", *settings) == 0
    return folder / "ws"


def people_of(results: Results, found: Survey) -> list[str]:
    """Identities in the order of time."""
    identities = collect(results, found).identities
    return [identities[one.clip.clip_id] for one in sorted(found.clips, key=lambda one: one.clip.plan.span.start_s)]


def test_embeddings_tell_people_apart_where_prints_do_not(coloured, tmp_path):
    """The prints see no colour, the constructed stand-in nothing else."""
    assert people_of(*opened(coloured)) == ["film", "film-2", "film"]
    assert people_of(*opened(coloured, min_cosine=-1)) == ["film"] * 3
    shutil.copytree(coloured, tmp_path / "ws")
    results, found = opened(tmp_path / "ws")
    for made in found.clips:
        made.clip.files.pop(EMBEDDING_FILE)
    assert people_of(results, found) == ["film"] * 3, "by their prints"


def test_prints_and_embeddings_are_never_compared(coloured, tmp_path):
    """A clip without an embedding stays alone in a source whose other clips have one, whatever its print is like."""
    results, found = opened(coloured, max_distance=9.0)
    found.clips.sort(key=lambda one: one.clip.plan.span.start_s)
    found.clips[2].clip.files.pop(EMBEDDING_FILE)
    assert people_of(results, found) == ["film", "film-2", "film-3"]


def test_the_collection_depends_on_what_is_used(coloured, known):
    keys = {collection_key(*opened(coloured, **limits)) for limits in ({}, {"min_cosine": 0.6}, {"min_tie_cosine": 0.6})}  # fmt: skip  # noqa: E501
    assert len(keys) == 3
    results, found = opened(coloured)
    key = collection_key(results, found)
    for made in found.clips:
        made.clip.files.pop(EMBEDDING_FILE)
    assert collection_key(results, found) != key


def test_a_damaged_embedding_ends_a_release_with_a_remedy(coloured, tmp_path):
    shutil.copytree(coloured, tmp_path / "ws")
    results, found = opened(tmp_path / "ws", min_cosine=0.51)
    path = tmp_path / "ws" / "results" / "clip" / found.clips[0].key / EMBEDDING_FILE
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(WorkspaceError, match=r"identity.npy is missing .* delete the folder results/clip/.* run"):
        collect(results, found)


@pytest.fixture(scope="module")
def strangers(films, tmp_path_factory) -> Path:
    """Two films of two titles, in which the constructed stand-in sees one person: both are redder than blue."""
    folder = tmp_path_factory.mktemp("strangers")
    sources = [
        {"id": film.id, "uri": str(films / f"{film.id}.mp4"), "domain": film.domain, "license": film.license}
        for film in (TALKER, HEAD)
    ]
    manifest = write_manifest(folder / "manifest.yaml", sources)
    settings = ("--set", f"identity.weights={of_colour(folder)}", "--set", "identity.domains=[real, mesh]")
    assert build(manifest, folder / "ws", *settings) == 0
    return folder / "ws"


@pytest.mark.parametrize(("min_tie_cosine", "tied"), [(-1.0, True), (0.4, True), (1.0, False)])
def test_one_person_in_two_sources_is_not_divided_by_a_split(strangers, min_tie_cosine, tied):
    results, found = opened(strangers, min_tie_cosine=min_tie_cosine)
    collection = collect(results, found)
    assert collection.people == ({"head": "head", "talker": "head"} if tied else {})
    assert set(collection.identities.values()) == {"talker", "head"}, "they keep their names"
    assert len(ridge_groups(found.clips, collection.duplicates, collection.people)) == (1 if tied else 2)
    asked = SplitConfig(train={"real": 1}, test={"mesh": 1})
    config = results.config.model_copy(update={"split": asked})
    made = load_build(results.workspace)
    choice = choose(Results(results.workspace, config), made, found, ReleaseOptions(), collection)
    assert set(choice.split.assignment.values()) == ({"train"} if tied else {"train", "test"})


# --- weights ---------------------------------------------------------------------------------------------


def zeros(folder: Path) -> Path:
    return arcface_of_colour(folder / "zeros.onnx", np.zeros((3, 512)), np.zeros(512))


def points(folder: Path) -> Path:
    return random_arcface(folder / "points.onnx", num_outputs=136)


def text(folder: Path) -> Path:
    (folder / "text.onnx").write_text("text")
    return folder / "text.onnx"


def two_answers(folder: Path) -> Path:
    nodes = [("Identity", ("input.1",), (name,), {}) for name in ("a", "b")]
    shape = ["N", 3, 112, 112]
    return save(folder / "two.onnx", nodes, [("input.1", shape)], [("a", shape), ("b", shape)], {})


@pytest.mark.parametrize(
    ("given", "more", "sentence"),
    [
        (lambda _: "arcface_r50", "", "arcface_r50: 174.4 MB, InsightFace: non-commercial research only"),
        (lambda _: "arcface_r50", "", "anitalk weights fetch arcface_r50 --accept-license"),
        (lambda _: "arcface", "", "there are no weights 'arcface', perhaps 'arcface_r50'"),
        (lambda folder: folder / "none.onnx", "", "none.onnx does not exist, or is no file"),
        (text, "", "text.onnx is no network that ONNX Runtime can run"),
        (points, "", "points.onnx is no ArcFace: it answers a face with [1, 136], expected [1, 512]"),
        (zeros, "", "zeros.onnx answers a grey picture with zeros or NaN: fetch or export it again"),
        (random_path := lambda folder: random_arcface(folder / "random-standin.onnx"), "device=cuda", "CUDA"),
        (random_path, "num_frames=0", "identity.num_frames: Input should be greater than or equal to 1"),
        (random_path, "device=tpu", "identity.device: Input should be 'cpu' or 'cuda', found 'tpu'"),
    ],
)  # fmt: skip
def test_weights_that_cannot_be_used_are_said_before_any_work(films, tmp_path, capsys, given, more, sentence):
    manifest = write_manifest(tmp_path / "manifest.yaml", [{"id": "talker", "uri": str(films / "talker.mp4")}])
    settings = ["--set", f"identity.weights={given(tmp_path)}", "--set", f"weights.dir={tmp_path / 'none'}"]
    settings += ["--set", f"identity.{more}"] if more else []
    assert build(manifest, tmp_path / "ws", *settings) == 2
    told = " ".join(capsys.readouterr().err.split())
    assert sentence in told
    assert "Traceback" not in told
    assert not (tmp_path / "ws").exists()
