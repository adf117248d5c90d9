"""``anitalk train`` on shards that it cannot or should not read: one sentence, before the first step where it can."""

import json
import shutil

import numpy as np
import pytest
import yaml

from flows.cli import run
from schemas.errors import EXIT_FAULTS, EXIT_USAGE
from tests.helpers.pair_shards import numbered_release, rewritten, shards_of
from tests.helpers.release_items import encode_npy
from tests.helpers.web import serving
from tests.training.data.test_loader_sources import edit_json, nan_pose, spoil
from tests.training.engine.test_train_cli import SETTINGS, command


@pytest.fixture(scope="module")
def release(tmp_path_factory):
    return numbered_release(tmp_path_factory.mktemp("release"), {"mesh": 2, "real": 4}, min_shards=2, test={"real": 1})


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    path = tmp_path_factory.mktemp("config") / "small.yaml"
    patience = {"data": {**SETTINGS["data"], "num_attempts": 2, "backoff_s": 0}}
    path.write_text(yaml.safe_dump({**SETTINGS, **patience, "pretrain": {"num_pairs": 4, "domains": []}}))
    return path


def sentence_of(capsys):
    """The one sentence."""
    [line] = [line for line in capsys.readouterr().err.splitlines() if line.startswith("anitalk: ")]
    assert "Traceback" not in line
    return line


def trained(shards, config, folder, *more):
    """Exit code of a run on shards that are named one by one."""
    first, *others = shards
    named = [part for path in others for part in ("--shards", path)]
    return run([*command(first, config, folder), *named, *more])


CONVENTIONS = {
    "no convention": ({"pose_convention": None}, "has no pose_convention, so its angles could mean anything"),
    "another convention": ({"pose_convention": "hopenet"}, "has the pose_convention 'hopenet'"),
    "another version": ({"schema_version": 2}, "has schema version 2 and this version reads 1"),
}


@pytest.mark.parametrize("kind", CONVENTIONS)
def test_labels_that_mean_something_else(kind, release, config, tmp_path, capsys):
    changes, sentence = CONVENTIONS[kind]
    shards = rewritten(release, tmp_path / "shards", edit_json(**changes))
    assert trained(shards, config, tmp_path / "run") == EXIT_FAULTS
    assert sentence in sentence_of(capsys)
    assert not (tmp_path / "run").exists()


def cut_short(release, folder):
    """A release whose first shard ends early."""
    shutil.copytree(release, folder)
    shard = shards_of(folder)[0]
    shard.write_bytes(shard.read_bytes()[:9000])
    return folder, shard


def test_a_truncated_tar(release, config, tmp_path, capsys):
    folder, shard = cut_short(release, tmp_path / "r")
    assert run(command(folder, config, tmp_path / "run")) == EXIT_FAULTS
    assert f"{shard} has 9000 bytes where its release says" in sentence_of(capsys)
    assert trained([str(shutil.copy(shard, tmp_path / "loose.tar"))], config, tmp_path / "run") == EXIT_FAULTS
    assert "loose.tar: the tar is damaged or cut off" in sentence_of(capsys)
    assert not (tmp_path / "run").exists()


def test_an_address_that_nobody_answers(release, config, tmp_path, capsys):
    with serving() as server:
        there = server.url("/v1")
        assert run(command(there, config, tmp_path / "run")) == EXIT_USAGE
        assert f"no finished release at {there}" in sentence_of(capsys)
    assert run(command(there, config, tmp_path / "run")) == EXIT_FAULTS
    assert f"{there}/release.json cannot be read after 2 attempts" in sentence_of(capsys)
    assert run(command(f"{there}/a.tar", config, tmp_path / "run")) == EXIT_FAULTS
    assert "check the address and the network" in sentence_of(capsys)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ("pretrain.domains=[disney_human]", "there is no domain 'disney_human' in the split 'train' of these shards"),
        ("data.num_workers=3", "has 2 shards for 3 readers (ranks × workers), and each needs one of its own"),
    ],
)
def test_what_the_shards_cannot_give(change, sentence, release, config, tmp_path, capsys):
    assert run(command(release, config, tmp_path / "run", "--set", change)) == EXIT_USAGE
    assert sentence in sentence_of(capsys)
    assert not (tmp_path / "run").exists()


def test_labels_that_are_no_numbers(release, config, tmp_path, capsys):
    spoilt = rewritten(release, tmp_path / "one", spoil("-5", "pose.npy", nan_pose))
    few = ["--set", "data.max_skipped_ratio=0.9", "--set", "pretrain.num_pairs=24"]
    assert trained(spoilt, config, tmp_path / "run", *few) == 0
    assert "unusable samples skipped: {'labels': " in capsys.readouterr().err
    every = rewritten(release, tmp_path / "every", spoil("", "pose.npy", nan_pose))
    assert trained(every, config, tmp_path / "none") == EXIT_FAULTS
    line = sentence_of(capsys)
    assert "16 of 16 opened clips had to be skipped" in line
    assert "pose.npy holds NaN or infinity" in line
    assert not list((tmp_path / "none" / "checkpoints").glob("step-*"))


def test_points_of_another_number_than_their_scheme_has(release, config, tmp_path, capsys):
    def fewer(key, members):
        members["landmarks.npy"] = encode_npy(np.ones((8, 67, 3), np.float32))

    shards = rewritten(release, tmp_path / "shards", fewer)
    assert trained(shards, config, tmp_path / "run") == EXIT_FAULTS
    assert "landmarks.npy has shape (8, 67, 3) of float32, which no clip of its length has" in sentence_of(capsys)


def test_a_record_of_a_release_that_another_version_wrote(release, config, tmp_path, capsys):
    shutil.copytree(release, tmp_path / "r")
    path = tmp_path / "r" / "release.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"schema_version": 7}))
    assert run(command(tmp_path / "r", config, tmp_path / "run")) == EXIT_FAULTS
    assert "release.json is damaged or of another version (schema_version: " in sentence_of(capsys)
    assert not (tmp_path / "run").exists()
