"""Profile standard: what it needs, what is said when that is missing, and a build with real weights."""

import json
import tarfile

import pytest

from flows.cli import application as cli
from flows.settings import overlaid, read_settings
from pipeline.clip.meters import model_files
from pipeline.models.files.model_files import ModelFiles
from pipeline.models.files.packaged import PACKAGED_MODELS
from pipeline.models.files.weights import WeightsStore, shipped_registry
from pipeline.release.verify import verify_release
from schemas.config import BuildConfig, WeightsConfig
from schemas.profiles import PROFILES
from tests.helpers import films as films_module
from tests.helpers.films import HEAD, TALKER, build, write_manifest

films = films_module.films  # a fixture
NEEDED = {"scrfd_500m_kps", "yunet_n", "pfld", "light_asd"}


def needed(models: ModelFiles) -> set[str]:
    return {name for domain in models.config.domains for name in models.needed(domain)} - set(PACKAGED_MODELS)


def test_standard_is_on_by_default_only_with_what_was_run_with_real_weights():
    assert needed(model_files(PROFILES["standard"])) == NEEDED
    assert all(shipped_registry()[name].at_hand for name in NEEDED)
    assert PROFILES["standard"].expression is None
    assert PROFILES["standard"].identity is None
    assert PROFILES["standard"].speech.hubert == ""


def test_embedded_says_nothing_of_what_it_does_not_have():
    assert PROFILES["embedded"] == BuildConfig()
    stored = json.loads(BuildConfig().model_dump_json())
    assert not {"speaker", "expression", "identity", "quality", "router"} & stored.keys()
    for domain in stored["domains"].values():
        assert "pose" not in domain
        assert not {"one_speaker", "min_speaker_z", "min_stability", "max_overlay"} & domain["limits"].keys()


def test_a_profile_may_be_named_by_the_file_and_what_is_off_stays_off_in_a_release(tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text("profile: standard\nspeaker: null\ndomains: {real: {limits: {one_speaker: false}}}\n")
    settings = read_settings(path)
    assert settings.build.profile == "standard"
    assert settings.build.speaker is None
    assert settings.build.domains["mesh"].limits.one_speaker
    assert overlaid(settings.build, settings.weights).build == settings.build
    plain = read_settings(None, profile="standard")
    assert plain.build == PROFILES["standard"]
    assert overlaid(plain.build, plain.weights).build == PROFILES["standard"]


def test_without_weights_everything_missing_is_said_before_any_work(tmp_path, capsys):
    manifest = write_manifest(tmp_path / "manifest.yaml", [{"id": "a", "uri": str(tmp_path / "a.mp4")}])
    workspace = tmp_path / "ws"
    arguments = ["build", str(manifest), "-w", str(workspace), "--inline", "--profile", "standard"]
    assert cli.run([*arguments, "--set", f"weights.dir={tmp_path / 'none'}"]) == 2
    messages = capsys.readouterr().err
    assert "Traceback" not in messages
    for name in NEEDED:
        licence = shipped_registry()[name].licence
        assert f"{name}: " in messages
        assert licence in " ".join(messages.split())
    assert "anitalk weights fetch light_asd pfld scrfd_500m_kps yunet_n --accept-license" in " ".join(messages.split())
    assert not workspace.exists()


@pytest.mark.parametrize("name", sorted(NEEDED - {"yunet_n"}))
def test_a_clips_key_depends_on_every_weights_file(name, monkeypatch):
    config = PROFILES["standard"]
    other = shipped_registry()[name].model_copy(
        update={"files": tuple(file.model_copy(update={"sha256": "0" * 64}) for file in shipped_registry()[name].files)}
    )
    before = model_files(config).digests("real")
    changed = model_files(config, WeightsStore(registry={**shipped_registry(), name: other}))
    assert changed.digests("real") == before | {name: "0" * 64}
    seen = changed.detection_digests("real") != model_files(config).detection_digests("real")
    assert seen == (name == "scrfd_500m_kps")


def test_own_files_are_named_from_the_root_on(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    network = "{path: face.onnx, width_px: 64, height_px: 64, layout: yolo_face}"
    settings = read_settings(
        None,
        [
            "domains.real.landmarker={path: own.onnx, input_px: 32}",
            f"domains.mesh.detectors=[{{model: mine, min_score: 0.5, onnx: {network}}}]",
            "expression.weights=./e.onnx",
            "identity.weights=./i.onnx",
        ],
    ).build
    networks = needed(model_files(settings, WeightsStore(WeightsConfig(dir=str(tmp_path)))))
    assert networks == {str(tmp_path / name) for name in ("own.onnx", "face.onnx", "e.onnx", "i.onnx")}


@pytest.mark.assets
def test_a_release_made_by_standard_is_sound_names_its_models_and_is_not_for_commerce(films, assets, tmp_path, capsys):
    sources = [
        {"id": film.id, "uri": str(films / f"{film.id}.mp4"), "domain": film.domain, "license": film.license}
        for film in (TALKER, HEAD)
    ]
    manifest = write_manifest(tmp_path / "manifest.yaml", sources)
    weights = f"weights.dir={assets / 'weights'}"
    settings = ("--profile", "standard", "--set", weights, "--release", "first")
    assert build(manifest, tmp_path / "ws", *settings) == 0
    release = tmp_path / "ws" / "releases" / "first"
    assert not verify_release(str(release))
    models = json.loads((release / "release.json").read_text())["models"]
    assert models.keys() >= {"scrfd_500m_kps", "pfld", "light_asd"}
    with tarfile.open(next(release.glob("*/real/*visual*.tar"))) as tar:
        [info] = [json.loads(tar.extractfile(member).read()) for member in tar.getnames() if member.endswith(".json")]
    assert info["provenance"]["profile"] == "standard"
    assert info["provenance"]["detector"] == "scrfd_500m"
    assert info["provenance"]["models"].keys() >= {"scrfd_500m_kps", "pfld", "light_asd"}
    assert info["scores"]["speaker"]["status"] in {"known", "unknown"}
    assert info["scores"]["landmark_ratio"] > 0.9

    capsys.readouterr()
    assert cli.run(["release", "second", "-w", str(tmp_path / "ws"), "--commercial-only"]) == 2
    messages = " ".join(capsys.readouterr().err.split())
    for name in ("scrfd_500m_kps", "pfld"):
        assert f"{name} ({shipped_registry()[name].licence})" in messages
    assert "light_asd (" not in messages, "its terms allow it"
    assert not (tmp_path / "ws" / "releases" / "second").exists()
