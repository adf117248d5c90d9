"""Digests of models that lie in folders: told from the files, and the same as the loaded network's."""

import hashlib
import json
from pathlib import Path

import pytest
from safetensors.numpy import load_file, save_file

from pipeline.clip.meters import model_files
from pipeline.models.files.folders import WEIGHTS_FILE, folder_sha256, hubert_sha256
from pipeline.models.speech import Hubert
from schemas.config import BuildConfig
from schemas.errors import UsageError
from tests.helpers.hubert_files import random_hubert


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    """A small HuBERT in one weights file."""
    return random_hubert(tmp_path_factory.mktemp("hubert"))


@pytest.fixture
def divided(whole, tmp_path) -> Path:
    """The same network in two weights files."""
    folder = tmp_path / "divided"
    folder.mkdir()
    for path in whole.iterdir():
        if path.name != WEIGHTS_FILE:
            (folder / path.name).write_bytes(path.read_bytes())
    divide(load_file(whole / WEIGHTS_FILE), folder)
    return folder


def divide(tensors, folder: Path) -> None:
    names = sorted(tensors)
    parts = {"model-00001-of-00002.safetensors": names[::2], "model-00002-of-00002.safetensors": names[1::2]}
    for file, own in parts.items():
        save_file({name: tensors[name] for name in own}, folder / file, {"format": "pt"})
    index = {"metadata": {}, "weight_map": {name: file for file, own in parts.items() for name in own}}
    (folder / f"{WEIGHTS_FILE}.index.json").write_text(json.dumps(index))


def test_one_weights_file_counts_by_its_bytes(whole):
    assert hubert_sha256(str(whole), (-1,)) == hashlib.sha256((whole / WEIGHTS_FILE).read_bytes()).hexdigest()


def test_several_files_count_by_the_networks_tensors_without_the_network(divided, monkeypatch):
    expected = Hubert(str(divided), (-1,)).tensors_sha256()
    monkeypatch.setattr("pipeline.models.speech.Hubert", lambda *_: pytest.fail("the network was loaded"))
    assert hubert_sha256(str(divided), (-1,)) == expected


def test_several_files_with_older_names_count_by_what_the_network_makes_of_them(divided):
    expected = hubert_sha256(str(divided), (-1,))
    tensors = {
        f"hubert.{name}": value for file in divided.glob("*.safetensors") for name, value in load_file(file).items()
    }
    for file in divided.glob("*.safetensors"):
        file.unlink()
    divide(tensors, divided)
    assert hubert_sha256(str(divided), (-1,)) == expected


def test_hubert_and_clip_are_among_the_files_of_every_domain(whole):
    config = BuildConfig.model_validate({"speech": {"hubert": str(whole)}, "router": {"clip": str(whole)}})
    digests = model_files(config).digests("disney_animal")
    weights = hashlib.sha256((whole / WEIGHTS_FILE).read_bytes()).hexdigest()
    assert (digests["hubert"], digests["clip"]) == (weights, weights)


def test_a_folder_that_is_gone_is_said_with_its_setting(tmp_path):
    with pytest.raises(UsageError, match=r"router\.clip: .*lacks model\.safetensors"):
        folder_sha256(str(tmp_path), "router.clip")
    with pytest.raises(UsageError, match=r"set speech\.hubert to a folder"):
        hubert_sha256(str(tmp_path / "none"), (-1,))
    with pytest.raises(UsageError, match=r"set speech\.hubert to a folder"):
        hubert_sha256(str(tmp_path), (-1,))
