"""Weights are exactly the files that the registry means, or nothing begins; and they arrive whole or not at all."""

import hashlib
import json
import os
import shutil
import zipfile
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import yaml

from flows.cli import application as cli
from flows.cli import weights as command
from flows.settings import overlaid, read_settings
from pipeline.clip.meters import model_files
from pipeline.fetch.politeness import HostLimiter
from pipeline.models.detector_table import DETECTORS, DetectorModel
from pipeline.models.detectors import BlazeFace
from pipeline.models.files import fetching
from pipeline.models.files import model_file as files
from pipeline.models.files import weights as weights_module
from pipeline.models.files.fetching import Arrival, fetch_weights
from pipeline.models.files.packaged import PACKAGED_MODELS, packaged_model
from pipeline.models.files.weights import WeightsStore, shipped_registry
from pipeline.models.registry import ModelSet
from schemas.config import AcquireConfig, BuildConfig, WeightsConfig
from schemas.detectors import DetectorChoice
from schemas.errors import SourceError, UsageError
from schemas.files import sha256_of_file
from schemas.weights import Weights, WeightsError, joint_sha256, read_weights
from tests.helpers import films as films_module
from tests.helpers.films import QUICK, write_manifest
from tests.helpers.web import Server, serving

films = films_module.films  # a fixture
BODY = bytes(np.random.default_rng(3).integers(0, 256, 200_000, dtype=np.uint8))
OTHER = bytes(np.random.default_rng(4).integers(0, 256, 90_000, dtype=np.uint8))
CONFIG = AcquireConfig(
    allow_private_addresses=True, stall_timeout_s=30.0, num_attempts=2, backoff_s=0.01, file_interval_s=0.0
)
NETWORK = [
    "--set", "acquire.allow_private_addresses=true", "--set", "acquire.file_interval_s=0", "--set",
    "acquire.backoff_s=0.01", "--set", "acquire.num_attempts=2",
]  # fmt: skip
Run = Callable[..., tuple[int, str, str]]


def sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def entry(name: str, *parts: dict, **more) -> Weights:
    """An entry of one file (``body``) or of the files that are given."""
    plain = {"path": f"{name}.onnx", "url": "https://example.org/a", "sha256": sha(BODY), "num_bytes": len(BODY)}
    values = {
        "name": name, "files": [plain | part for part in (parts or ({},))], "licence": "MIT", "commercial_use": True,
        "origin": "example.org/models", "domains": ("real",), "input": "a picture", "output": "faces", "at_hand": True,
    }  # fmt: skip
    return Weights.model_validate(values | more)


def store_of(folder: Path, *entries: Weights) -> WeightsStore:
    return WeightsStore(WeightsConfig(dir=str(folder)), {weights.name: weights for weights in entries})


def put(folder: Path, path: str, data: bytes = BODY) -> Path:
    target = folder / path
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(data)
    return target


@pytest.fixture
def run(capsys) -> Run:
    """Run a command in this process: its exit code, standard output and errors."""

    def call(*arguments: object) -> tuple[int, str, str]:
        capsys.readouterr()
        code = cli.run([str(argument) for argument in arguments])
        output = capsys.readouterr()
        assert "Traceback" not in output.err
        return code, output.out, output.err

    return call


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with serving() as running:
        yield running


@pytest.fixture(autouse=True)
def _clean(server: Server) -> None:
    server.answers.clear()
    server.requests.clear()


# --- the registry ---------------------------------------------------------------------------------------------------

ONE = """
[net]
licence = "MIT"
commercial_use = true
origin = "example.org"
domains = []
input = "a picture"
output = "faces"
at_hand = false
[[net.files]]
path = "net.onnx"
url = "https://example.org/net.onnx"
"""


def test_the_shipped_registry_names_what_the_standard_profile_needs():
    registry = shipped_registry()
    wanted = (
        "scrfd_500m_kps scrfd_2.5g_kps scrfd_10g yunet_n pfld fsanet_1x1 fsanet_var fan2d fan3d fan_depth light_asd "
    )
    wanted += "arcface_r50 lbpcascade_animeface hubert_large_ll60k hubert_base_ls960 affectnet8_enet_b0 clip_vit_l14"
    assert set(registry) == set(wanted.split())
    assert not set(registry) & set(PACKAGED_MODELS), "one name must mean one model"
    for weights in registry.values():
        known = all(file.sha256 and file.num_bytes for file in weights.files)
        assert known or not weights.at_hand, weights.name
    closed = {name for name, weights in registry.items() if weights.commercial_use is False}
    assert closed == {"scrfd_500m_kps", "scrfd_2.5g_kps", "scrfd_10g", "arcface_r50"}


@pytest.mark.assets
def test_entries_at_hand_are_the_files_that_were_measured(assets):
    store = WeightsStore(WeightsConfig(dir=str(assets / "weights")))
    there = {name for name in store.registry if store.state(name).verified}
    assert there == {name for name, weights in store.registry.items() if weights.at_hand}
    for file in (file for name in there for file in store.registry[name].files):
        assert (store.folder / file.path).stat().st_size == file.num_bytes


@pytest.mark.assets
def test_the_tensors_in_the_registry_are_those_of_the_files(assets):
    import onnxruntime

    store, options = WeightsStore(WeightsConfig(dir=str(assets / "weights"))), onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    entries = [weights for weights in store.registry.values() if weights.at_hand and weights.path.endswith(".onnx")]
    assert len(entries) == 6
    for weights in entries:
        session = onnxruntime.InferenceSession(store.path(weights.name), options, providers=["CPUExecutionProvider"])
        assert {tensor.name: tuple(tensor.shape) for tensor in session.get_inputs()} == weights.inputs, weights.name
        assert {tensor.name: tuple(tensor.shape) for tensor in session.get_outputs()} == weights.outputs, weights.name


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        ("[net]", "[net", "where.toml is not TOML: "),
        ('licence = "MIT"', "", "where.toml: net.licence: Field required"),
        ("domains = []", 'domain = "real"', "where.toml: net.domain: Extra inputs are not permitted"),
        ("commercial_use = true", 'commercial_use = "maybe"', "where.toml: net.commercial_use: "),
        ('url = "https', 'sha256 = "ABC"\nurl = "https', "where.toml: net.files.0.sha256: "),
        ("https://example.org/net.onnx", "file:///etc/passwd", "is not an address to fetch from"),
        ("https://example.org/net.onnx", "ftp://example.org/net", "scheme 'ftp:' is not allowed"),
        ('url = "https', 'download_num_bytes = 3\nurl = "https', "belong to files with member or convert"),
        ("[net]", 'net2 = "x"\n[net]', "where.toml: net2: expected a table, [net2], found 'x'"),
        ("[net]", "[Net]", "where.toml: Net"),
    ],
)
def test_a_wrong_registry_says_where(before, after, said):
    text = ONE.replace(before, after).replace("net.files", "Net.files" if "[Net]" in after else "net.files")
    with pytest.raises(WeightsError) as caught:
        read_weights(text, "where.toml")
    assert said in str(caught.value)


@pytest.mark.parametrize(
    "path",
    [
        "../net.onnx",
        "/net.onnx",
        "a/../../net.onnx",
        "a//net.onnx",
        "C:\\\\net.onnx",
        ".hidden",
        "a/.b",
        "a/",
        "",
        "~/n",
    ],
)
def test_no_path_leaves_the_folder(path):
    with pytest.raises(WeightsError, match=r"where: net.files.0.path: .*not a path below the weights folder"):
        read_weights(ONE.replace("net.onnx", path, 1), "where")


def test_two_entries_cannot_have_one_file_and_several_files_share_a_folder():
    with pytest.raises(WeightsError, match=r"2 entries have the file net\.onnx"):
        read_weights(ONE + ONE.replace("net]", "other]").replace("net.files", "other.files"), "where")
    more = '[[net.files]]\npath = "b.onnx"\nurl = "https://example.org/b"\n'
    with pytest.raises(WeightsError, match="in a folder of the entry's name: net/"):
        read_weights(ONE + more, "where")


def test_unknown_commercial_use_is_not_a_yes():
    known, unknown = entry("a"), entry("b", commercial_use="unknown")
    assert (known.commercial_use, known.asks_consent) == (True, False)
    assert (unknown.commercial_use, unknown.asks_consent) == (None, True)
    assert entry("c", commercial_use=False).asks_consent


# --- the folder -----------------------------------------------------------------------------------------------------


def test_a_model_is_its_verified_file(tmp_path):
    store = store_of(tmp_path, entry("net", licence="CC-BY-NC-4.0", commercial_use=False))
    path = put(tmp_path, "net.onnx")
    model = store.model("net")
    assert (model.path, model.sha256) == (path, sha(BODY)) == (store.path("net"), store.sha256("net"))
    assert (model.card.name, model.card.licence, model.card.commercial_use) == ("net", "CC-BY-NC-4.0", False)


def test_a_damaged_file_is_refused_in_one_sentence_also_when_it_changes_later(tmp_path):
    store = store_of(tmp_path, entry("net"))
    path = put(tmp_path, "net.onnx")
    assert store.path("net") == path
    put(tmp_path, "net.onnx", BODY[:-1] + b"x")
    with pytest.raises(UsageError) as caught:
        store.path("net")
    text = str(caught.value)
    assert all(part in text for part in (str(path), sha(BODY), sha(BODY[:-1] + b"x"), "anitalk weights fetch net"))
    assert "\n" not in text


def test_a_file_is_hashed_once_per_state(tmp_path, monkeypatch):
    reads = []
    monkeypatch.setattr(files, "sha256_of_file", lambda path: reads.append(path) or sha256_of_file(path))
    store, path = store_of(tmp_path, entry("net")), put(tmp_path, "net.onnx")
    for _ in range(3):
        store.path("net")
        WeightsStore(store.config, store.registry).path("net")
    assert len(reads) == 1
    put(tmp_path, "net.onnx")
    os.utime(path, ns=(1, 1))
    store.path("net")
    assert len(reads) == 2


def test_everything_missing_is_said_at_once_with_licence_size_and_command(tmp_path):
    unknown = {"path": "b.onnx", "num_bytes": None, "sha256": None}
    store = store_of(
        tmp_path,
        entry("a"),
        entry("b", unknown, licence="none stated", commercial_use="unknown"),
        entry("c"),
        entry("d"),
    )
    put(tmp_path, "c.onnx")
    put(tmp_path, "d.onnx", b"something else")
    assert [weights.name for weights in store.missing(["b", "a", "c", "d"])] == ["a", "b"]
    with pytest.raises(UsageError) as caught:
        store.check(["a", "b", "c", "d", "nowhere", str(tmp_path / "own.onnx")])
    text = str(caught.value)
    assert f"2 models are missing from the weights folder {tmp_path}:" in text
    assert "\n  a: 0.2 MB, MIT (commercial use allowed)\n" in text
    assert "\n  b: size unknown, none stated (commercial use unknown)\n" in text
    assert f"anitalk weights fetch a b --accept-license --set weights.dir={tmp_path}" in text
    assert f"{tmp_path / 'd.onnx'} is not the file that d means" in text
    assert "there are no weights 'nowhere'" in text
    assert f"{tmp_path / 'own.onnx'} does not exist" in text


def test_keys_need_no_file_where_the_registry_knows_its_checksum(tmp_path):
    unpinned = entry("new", {"path": "new.onnx", "sha256": None})
    store = store_of(tmp_path, entry("net"), unpinned)
    assert store.sha256("net") == sha(BODY)
    with pytest.raises(UsageError, match="1 model is missing"):
        store.sha256("new")
    put(tmp_path, "new.onnx", OTHER)
    assert store.sha256("new") == sha(OTHER)


def test_a_folder_of_files_is_one_model(tmp_path):
    two = ({"path": "net/config.json"}, {"path": "net/model.safetensors", "sha256": sha(OTHER), "num_bytes": 90_000})
    store = store_of(tmp_path, entry("net", *two))
    put(tmp_path, "net/config.json")
    with pytest.raises(UsageError, match="1 model is missing"):
        store.path("net")
    put(tmp_path, "net/model.safetensors", OTHER)
    model = store.model("net")
    assert model.path == tmp_path / "net"
    assert model.sha256 == joint_sha256({"net/config.json": sha(BODY), "net/model.safetensors": sha(OTHER)})
    assert store.registry["net"].num_bytes == len(BODY) + len(OTHER)


# --- models of a configuration --------------------------------------------------------------------------------------


@pytest.fixture
def stand_in(monkeypatch) -> Callable[..., BuildConfig]:
    """The default settings, but people are detected by BlazeFace with the file of another name."""

    def use(file: str) -> BuildConfig:
        model = DetectorModel(lambda choice, path: BlazeFace(choice.min_score, path), file, "nothing: for tests")
        monkeypatch.setitem(DETECTORS, "stand_in", model)
        plain = BuildConfig()
        choice = DetectorChoice(model="stand_in", min_score=0.5)
        real = plain.domains["real"].model_copy(update={"detectors": (choice,)})
        return plain.model_copy(update={"domains": plain.domains | {"real": real}})

    return use


def test_a_users_own_file_counts_by_its_content_and_not_by_its_place(tmp_path, stand_in):
    network = packaged_model("face_detection_short_range").path.read_bytes()
    first, moved = put(tmp_path / "a", "own.tflite", network), put(tmp_path / "b", "own.tflite", network)
    recorded = []
    for path in (first, moved):
        models = ModelSet(model_files(stand_in(str(path)), store_of(tmp_path)))
        models.check()
        recorded.append(models.files.detection_digests("real"))
        assert models.detectors("real")[0].name == "blazeface_short"
        [card] = [card for card in models.files.cards({"real"}) if card.file == "own.tflite"]
        assert (card.commercial_use, str(tmp_path) in card.model_dump_json()) == (None, False)
    own = {f"own-{sha(network)[:12]}": sha(network)}
    assert recorded == [own | {"face_landmark": packaged_model("face_landmark").sha256}] * 2
    put(tmp_path / "b", "own.tflite", BODY)
    assert models.files.detection_digests("real") != recorded[0]


def test_embedded_needs_no_weights_and_reads_no_registry(tmp_path, monkeypatch):
    monkeypatch.setattr(weights_module, "shipped_registry", lambda: pytest.fail("the registry was read"))
    models = ModelSet(model_files(BuildConfig(), WeightsStore(WeightsConfig(dir=str(tmp_path / "none")))))
    models.check()
    assert {name for domain in BuildConfig().domains for name in models.files.digests(domain)} == set(PACKAGED_MODELS)


def test_hubert_can_be_named_by_the_registry(tmp_path):
    config = BuildConfig.model_validate({"speech": {"hubert": "net"}})
    models = ModelSet(model_files(config, store_of(tmp_path, entry("net"))))
    assert models.files.digests("real")["net"] == sha(BODY)
    with pytest.raises(UsageError, match=r"1 model is missing .*\n  net: "):
        models.check()


# --- settings -------------------------------------------------------------------------------------------------------


def test_where_weights_lie_changes_nothing_that_is_computed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "c.yaml").write_text("weights: {dir: w, mirror: 's3://bucket/w'}\nengine: {workers: 3}\n")
    settings = read_settings(tmp_path / "c.yaml")
    assert settings.weights == WeightsConfig(dir=str(tmp_path / "w"), mirror="s3://bucket/w")
    assert (settings.engine.workers, settings.build) == (3, BuildConfig())
    again = overlaid(settings.build, settings.weights, None, ["weights.dir=/other"])
    assert (again.weights.dir, again.weights.mirror) == ("/other", "s3://bucket/w")
    assert str(WeightsStore().folder).endswith("anitalk/weights")
    for wrong, said in (("weights.folder=x", r"weights\.folder"), ("weights.dir=s3://b/w", "a folder of this machine")):
        with pytest.raises(UsageError, match=said):
            read_settings(None, [wrong])


# --- fetching -------------------------------------------------------------------------------------------------------


def fetch(store: WeightsStore, *names: str, config: AcquireConfig = CONFIG, mirror: str = "") -> list[Arrival]:
    entries = [store.entry(name) for name in names]
    return list(
        fetch_weights(
            entries, store, config, limiter=HostLimiter(config), watch=lambda *_: None, mirror=mirror
        )
    )  # fmt: skip


def left(folder: Path) -> list[str]:
    """What a fetch leaves in the folder, but for its lock."""
    names = (path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    return sorted(name for name in names if name != ".incoming/lock")


def test_a_file_arrives_verified_under_its_name(server, tmp_path):
    server.file("/net", BODY, "application/octet-stream")
    store = store_of(tmp_path, entry("net", {"url": server.url("/net")}))
    [arrival] = fetch(store, "net")
    assert (arrival.path, arrival.sha256, arrival.verified) == (tmp_path / "net.onnx", sha(BODY), True)
    assert store.state("net").verified
    assert left(tmp_path) == ["net.onnx"]
    assert fetch(store, "net") == []
    assert len(server.requests) == 1


def test_a_broken_transfer_goes_on_where_it_stopped_also_in_the_next_run(server, tmp_path):
    server.cut_short("/net", BODY, after=60_000, times=2)
    store = store_of(tmp_path, entry("net", {"url": server.url("/net")}))
    with pytest.raises(SourceError):
        fetch(store, "net")
    assert store.state("net").state == "missing"
    assert not (tmp_path / "net.onnx").exists()
    fetch(store, "net")
    assert [request.headers["Range"] for request in server.requests] == [None, "bytes=60000-", "bytes=120000-"]
    assert [request.sent for request in server.requests] == [60_000, 60_000, 80_000]
    assert (tmp_path / "net.onnx").read_bytes() == BODY


@pytest.mark.parametrize("num_bytes", [len(BODY), None])
def test_another_content_is_refused_and_not_kept(server, tmp_path, num_bytes):
    changed = BODY[:-1] + bytes([BODY[-1] ^ 1])
    server.file("/net", changed)
    store = store_of(tmp_path, entry("net", {"url": server.url("/net"), "num_bytes": num_bytes}))
    put(tmp_path, "net.onnx", b"damaged before")
    with pytest.raises(SourceError) as caught:
        fetch(store, "net")
    assert all(part in str(caught.value) for part in (sha(BODY), sha(changed), "was not kept", "--from"))
    assert (tmp_path / "net.onnx").read_bytes() == b"damaged before"
    assert left(tmp_path) == ["net.onnx"]


@pytest.mark.parametrize("extra", [0, 1])
def test_more_bytes_than_stated_are_not_received(server, tmp_path, extra):
    server.file("/net", BODY)
    store = store_of(tmp_path, entry("net", {"url": server.url("/net"), "num_bytes": len(BODY) - extra}))
    if extra:
        with pytest.raises(SourceError, match=rf"has 200000 bytes, {len(BODY) - 1} are expected of net\.onnx"):
            fetch(store, "net")
        assert left(tmp_path) == []
    else:
        assert fetch(store, "net")


def test_a_page_a_private_address_and_a_closed_scheme_are_refused(server, tmp_path):
    server.page("/net", "<!doctype html><p>log in")
    store = store_of(tmp_path, entry("net", {"url": server.url("/net")}))
    with pytest.raises(SourceError, match=r"text/html: it is a page and not net\.onnx"):
        fetch(store, "net")
    with pytest.raises(SourceError, match="not a public address"):
        fetch(store, "net", config=CONFIG.model_copy(update={"allow_private_addresses": False}))
    with pytest.raises(UsageError, match=r"acquire\.schemes does not allow http:"):
        fetch(store, "net", config=CONFIG.model_copy(update={"schemes": ("https",)}))


def test_without_a_checksum_what_came_is_recorded_and_must_stay_that(server, tmp_path):
    server.file("/net", BODY)
    store = store_of(tmp_path, entry("net", {"url": server.url("/net"), "sha256": None, "num_bytes": None}))
    [arrival] = fetch(store, "net")
    assert not arrival.verified
    assert json.loads((tmp_path / "net.onnx.fetched.json").read_text())["sha256"] == sha(BODY)
    state = store.state("net")
    assert (state.state, state.verified) == ("present", False)
    put(tmp_path, "net.onnx", OTHER)
    assert store.state("net").state == "damaged"


def archive(**members: bytes) -> bytes:
    buffer = BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as opened:
        for name, data in members.items():
            opened.writestr(f"{name}.onnx", data)
    return buffer.getvalue()


def test_members_of_one_archive_cost_one_transfer(server, tmp_path):
    packed = archive(a=BODY, b=OTHER, c=b"not wanted")
    server.file("/pack.zip", packed, "application/zip")
    url = {"url": server.url("/pack.zip"), "download_sha256": sha(packed), "download_num_bytes": len(packed)}
    first = entry("one", {**url, "member": "a.onnx"})
    second = entry("two", {**url, "member": "b.onnx", "sha256": sha(OTHER), "num_bytes": len(OTHER)})
    gone = entry("gone", {**url, "member": "nowhere.onnx"})
    store = store_of(tmp_path, first, second, gone)
    assert [arrival.verified for arrival in fetch(store, "one", "two")] == [True, True]
    assert len(server.requests) == 1
    assert left(tmp_path) == ["one.onnx", "two.onnx"]
    assert (tmp_path / "two.onnx").read_bytes() == OTHER
    with pytest.raises(SourceError, match=r"holds no nowhere\.onnx"):
        fetch(store, "gone")


def test_a_state_dict_becomes_safetensors_without_unpickling_code(server, tmp_path):
    import torch
    from safetensors.torch import load_file

    base = torch.arange(24, dtype=torch.float32).reshape(4, 6)
    tensors = {"a.weight": base, "a.view": base.t(), "count": torch.tensor(3)}
    buffer = BytesIO()
    torch.save(tensors, buffer)
    server.file("/model.bin", buffer.getvalue(), "application/octet-stream")
    buffer = BytesIO()
    torch.save({"a": Path("/tmp/x")}, buffer)  # noqa: S108 - an object that only unpickling could make
    server.file("/evil.bin", buffer.getvalue(), "application/octet-stream")
    unknown = {"sha256": None, "num_bytes": None, "convert": "torch_to_safetensors"}
    good = entry("good", {**unknown, "path": "good.safetensors", "url": server.url("/model.bin")})
    evil = entry("evil", {**unknown, "path": "evil.safetensors", "url": server.url("/evil.bin")})
    store = store_of(tmp_path, good, evil)
    fetch(store, "good")
    read = load_file(store.path("good"))
    assert {name: tensor.tolist() for name, tensor in read.items()} == {n: t.tolist() for n, t in tensors.items()}
    with pytest.raises(SourceError, match="cannot be read as a state dict"):
        fetch(store, "evil")
    assert not (tmp_path / "evil.safetensors").exists()


def test_a_mirror_is_another_weights_folder(server, tmp_path):
    two = ({"path": "net/config.json"}, {"path": "net/model.bin", "sha256": sha(OTHER), "num_bytes": len(OTHER)})
    registry = (entry("net", *two), entry("pack", {"path": "x.onnx", "member": "x.onnx"}))
    mirror = tmp_path / "mirror"
    for path, data in (("net/config.json", BODY), ("net/model.bin", OTHER), ("x.onnx", BODY)):
        put(mirror, path, data)
        server.file(f"/w/{path}", data, "application/octet-stream")
    for source in (str(mirror), mirror.as_uri(), server.url("/w/")):
        store = store_of(tmp_path / hashlib.sha256(source.encode()).hexdigest()[:6], *registry)
        assert all(arrival.verified for arrival in fetch(store, "net", "pack", mirror=source))
        assert left(store.folder) == ["net/config.json", "net/model.bin", "x.onnx"]
    (mirror / "x.onnx").unlink()
    put(mirror, "net/model.bin", BODY)
    store = store_of(tmp_path / "last", *registry)
    with pytest.raises(SourceError, match=r"mirror/x\.onnx does not exist"):
        fetch(store, "pack", mirror=str(mirror))
    with pytest.raises(SourceError, match="has 200000 bytes, 90000 are expected"):
        fetch(store, "net", mirror=str(mirror))
    assert left(store.folder) == ["net/config.json"]


def test_one_fetch_at_a_time(server, tmp_path):
    store = store_of(tmp_path, entry("net"))
    (tmp_path / ".incoming").mkdir()
    with fetching._alone(tmp_path / ".incoming"), pytest.raises(UsageError, match="another 'anitalk weights fetch'"):
        fetch(store, "net")


# --- the command ----------------------------------------------------------------------------------------------------


@pytest.fixture
def registry(monkeypatch) -> Callable[..., None]:
    """Put a registry in the shipped one's place."""

    def use(*entries: Weights) -> None:
        monkeypatch.setattr(weights_module, "shipped_registry", lambda: {weights.name: weights for weights in entries})

    return use


def test_terms_that_ask_for_consent_are_shown_and_must_be_accepted(server, tmp_path, run, registry, monkeypatch):
    server.file("/net", BODY)
    url = {"url": server.url("/net")}
    terms = [("open", True, "MIT"), ("closed", False, "research only"), ("silent", "unknown", "none stated")]
    registry(*(entry(name, url, licence=licence, commercial_use=use) for name, use, licence in terms))
    where = ["--set", f"weights.dir={tmp_path}", *NETWORK]
    code, out, _ = run("weights", "fetch", "open", *where)
    assert (code, "open: MIT; commercial use: yes" in out) == (0, True)
    for name, licence in (("closed", "research only"), ("silent", "none stated")):
        code, out, err = run("weights", "fetch", name, *where)
        assert (code, f"{name}: {licence}" in out, "--accept-license" in err) == (2, True, True)
        assert not (tmp_path / f"{name}.onnx").exists()
    assert run("weights", "fetch", "closed", "--accept-license", *where)[0] == 0
    for tty in (command.sys.stdin, command.sys.stdout):
        monkeypatch.setattr(tty, "isatty", lambda: True)
    silent = [entry("silent", url, commercial_use="unknown")]
    for answer in (False, True):
        monkeypatch.setattr(command.typer, "confirm", lambda _, answer=answer: answer)
        if answer:
            command._agree(silent, accepted=False)
        else:
            with pytest.raises(UsageError, match="--accept-license"):
                command._agree(silent, accepted=False)


def test_list_and_verify_tell_present_missing_and_damaged(tmp_path, run, registry):
    registry(entry("a"), entry("b"), entry("c"), entry("d", {"path": "d.onnx", "sha256": None, "num_bytes": None}))
    for name in "abd":
        put(tmp_path, f"{name}.onnx")
    where = ["--set", f"weights.dir={tmp_path}"]
    code, out, _ = run("weights", "verify", *where)
    assert (code, "3 of 4 are there and sound, of which the registry knows no checksum for d" in out) == (0, True)
    put(tmp_path, "b.onnx", OTHER)
    code, out, _ = run("weights", "list", "--format", "json", *where)
    rows = json.loads(out)
    assert (code, [row["state"] for row in rows]) == (0, ["present", "damaged", "missing", "present"])
    assert [row["verified"] for row in rows] == [True, False, False, False]
    code, out, _ = run("weights", "verify", *where)
    assert (code, f"{tmp_path / 'b.onnx'} is not the file that b means" in out) == (1, True)
    assert [run("weights", "verify", name, *where)[0] for name in "abcd"] == [0, 1, 1, 0]
    assert "damaged" in run("weights", "list", *where)[1]


def test_mistakes_are_two_and_failures_one(server, tmp_path, run, registry):
    registry(entry("net", {"url": server.url("/gone")}))
    where = ["--set", f"weights.dir={tmp_path}", *NETWORK]
    assert run("weights", "fetch", *where)[0] == 2
    assert run("weights", "fetch", "net", "--all", *where)[0] == 2
    code, _, err = run("weights", "fetch", "nett", *where)
    assert (code, "there are no weights 'nett', perhaps 'net'" in err) == (2, True)
    assert run("weights", "fetch", "../net", *where)[0] == 2
    assert "names the host 'there'" in run("weights", "fetch", "net", "--from", "file://there/w", *where)[2]
    code, _, err = run("weights", "fetch", "net", "--set", f"weights.dir={put(tmp_path, 'file')}")
    assert (code, f"weights.dir is no folder: {tmp_path / 'file'}" in err) == (2, True)
    code, _, err = run("weights", "fetch", "net", *where)
    assert (code, "does not exist (404)" in err) == (1, True)
    put(tmp_path, "net.onnx")
    assert run("weights", "fetch", "--all", *where)[:2] == (0, f"nothing to fetch: all of it is in {tmp_path}\n")


def test_a_mirror_of_the_settings_takes_the_publishers_place(tmp_path, run, registry):
    registry(entry("net"))
    put(tmp_path / "mirror", "net.onnx")
    (tmp_path / "c.yaml").write_text(f"weights: {{dir: {tmp_path / 'w'}, mirror: {tmp_path / 'mirror'}}}\n")
    code, out, err = run("weights", "fetch", "--all", "--config", tmp_path / "c.yaml")
    assert (code, f"{tmp_path / 'w' / 'net.onnx'}: verified" in out) == (0, True)
    assert "fetching net.onnx (0.2 MB)" in err


# --- from weights to a release --------------------------------------------------------------------------------------


def test_a_release_names_its_weights_and_commercial_only_refuses_it(films, tmp_path, run, registry, stand_in):
    """The network is the packaged one, in the weights folder under terms that it does not have.

    The registry knows no checksum of it, so whoever computes a key must look at the file, and know where it lies.
    """
    network = packaged_model("face_detection_short_range").path.read_bytes()
    closed = entry(
        "stand_in", {"path": "stand_in.tflite", "sha256": None, "num_bytes": None},
        licence="for research only", commercial_use=False,
    )  # fmt: skip
    registry(closed)
    folder, workspace = tmp_path / "my-weights", tmp_path / "ws"
    manifest = write_manifest(tmp_path / "m.yaml", [{"id": "talker", "uri": str(films / "talker.mp4")}])
    stand_in("stand_in")
    choice = {"model": "stand_in", "min_score": 0.5}
    settings = {"domains": {"real": {"detectors": [choice]}}, "weights": {"dir": str(folder)}}
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(settings))
    building = ["build", manifest, "-w", workspace, "--config", tmp_path / "c.yaml", *QUICK]

    code, _, err = run(*building)
    assert (code, "stand_in: size unknown, for research only (no commercial use)" in err) == (2, True)
    assert not workspace.exists(), "missing weights are said before any work begins"
    put(folder, "stand_in.tflite", network)
    assert run(*building, "--release", "first")[0] == 0

    card = (workspace / "releases" / "first" / "README.md").read_text()
    assert "| `stand_in` | `stand_in.tflite` | example.org/models | for research only | no |" in card
    record = json.loads((workspace / "releases" / "first" / "release.json").read_text())
    assert record["models"]["stand_in"] == sha(network)
    published = b"".join(path.read_bytes() for path in (workspace / "releases").rglob("*") if path.is_file())
    assert b"my-weights" not in published, "a release tells no folder of this machine"

    code, _, err = run("release", "second", "-w", workspace, "--commercial-only")
    assert (code, "stand_in (for research only)" in err, "--commercial-only" in err) == (2, True, True)
    assert not (workspace / "releases" / "second").exists()
    code, out, _ = run("status", "-w", workspace)
    assert (code, "1 of 1      clips" in out) == (0, True), "the build remembers where its weights lie"

    shutil.move(folder, tmp_path / "moved")
    code, _, err = run("release", "third", "-w", workspace)
    assert (code, f"1 model is missing from the weights folder {folder}" in err) == (2, True)
    assert run("release", "third", "-w", workspace, "--set", f"weights.dir={tmp_path / 'moved'}")[0] == 0
