"""Sidecars: written shard by shard beside a release, joined by key, and refused where they belong elsewhere."""

import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch

from schemas.errors import AnitalkError, CheckpointError, DataError, UsageError
from schemas.release import RELEASE_FILE
from tests.helpers.pair_shards import NUM_FRAMES, numbered_release, shards_of
from tests.helpers.web import serving
from tests.training.data.test_loader import SMALL, same, take
from tests.training.data.test_loader_sources import serve
from training.data import PairsConfig, Windows, open_batches
from training.data.opening import Sample
from training.data.sidecar import SIDECAR_FILE, SidecarRecord, SidecarWriter
from training.data.window_arrays import open_arrays

T = 3
CHECKPOINT = "c" * 64
CONFIG = PairsConfig(**SMALL, backoff_s=0.0, num_attempts=3)


@pytest.fixture(autouse=True)
def _no_cache_of_the_user(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def release(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("release")
    return numbered_release(folder, {"mesh": 2, "real": 4}, test={"real": 2})


def encode(sample: Sample) -> dict[str, np.ndarray]:
    """Latents [T, 4] of which each row begins with the frame's and the clip's number, as the poses do."""
    pose = open_arrays(sample, Windows(1, ("pose.npy",))).stored["pose.npy"].read(0, NUM_FRAMES)
    return {"latents.npy": np.column_stack([pose[:, :2], np.full((len(pose), 2), 7, np.float32)])}


def writer(folder: Path, release: Path, **changes) -> SidecarWriter:
    arguments = {"checkpoint_sha256": CHECKPOINT, "fields": ("latents.npy",)} | changes
    return SidecarWriter(folder, str(release), **arguments)


def encoded(folder: Path, release: Path, **changes) -> SidecarRecord:
    own = writer(folder, release, **changes)
    for shard in own.pending():
        own.write(shard, encode)
    return own.finish()


def windows(folder: object, **changes) -> Windows:
    arguments = {"sidecar": str(folder), "sidecar_fields": ("latents.npy",)} | changes
    return Windows(T, ("pose.npy",), **arguments)


@pytest.fixture(scope="module")
def sidecar(release, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("sidecar")
    encoded(folder, release)
    return folder


# ---- reading -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("num_workers", [0, 2])
@pytest.mark.parametrize("reference", [False, True])
def test_what_was_written_comes_with_its_window(release, sidecar, num_workers, reference):
    config = CONFIG.model_copy(update={"num_workers": num_workers})
    for batch in take(open_batches(release, config, windows(sidecar, reference=reference)), 8):
        for side in (batch.window, batch.reference) if reference else (batch.window,):
            assert side.fields["latents.npy"].shape == (5, T, 4)
            assert (side.fields["latents.npy"][..., :2] == side.fields["pose.npy"][..., :2]).all()
            assert (side.fields["latents.npy"][..., 0] == side.start[:, None] + torch.arange(T)).all()


def test_a_sidecar_holds_all_splits(release, sidecar):
    config = CONFIG.model_copy(update={"split": "test"})
    [batch] = take(open_batches(release, config, windows(sidecar)), 1)
    assert (batch["latents.npy"][..., :2] == batch["pose.npy"][..., :2]).all()


def test_a_sidecar_alone_is_enough(release, sidecar):
    draw = Windows(T, (), sidecar=str(sidecar), sidecar_fields=("latents.npy",))
    [batch] = take(open_batches(release, CONFIG, draw), 1)
    assert set(batch.fields) == {"latents.npy"}


def test_a_sidecar_may_lie_elsewhere(release, sidecar):
    with serving() as server:
        url, _ = serve(server, release)
        serve_at(server, sidecar, "/latents")
        draw = windows(server.url("/latents"), checkpoint_sha256=CHECKPOINT)
        there = take(open_batches(url, CONFIG, draw), 5)
    assert same(there, take(open_batches(release, CONFIG, windows(sidecar)), 5))


def serve_at(server, folder: Path, root: str) -> None:
    for path in folder.rglob("*.*"):
        body = path.read_bytes()
        server.answers[f"{root}/{path.relative_to(folder).as_posix()}"] = lambda exchange, body=body: exchange.answer(
            200, body
        )


def test_a_loader_with_a_sidecar_goes_on_where_another_stopped_and_only_with_that_sidecar(release, sidecar, tmp_path):
    whole, later = (open_batches(release, CONFIG, windows(sidecar)) for _ in range(2))
    take(whole, 3)
    state = json.loads(json.dumps(whole.state_dict()))
    later.load_state_dict(state)
    assert same(take(later, 3), take(whole, 3))
    moved = tmp_path / "moved"
    shutil.copytree(sidecar, moved)
    open_batches(release, CONFIG, windows(moved)).load_state_dict(state)

    def otherwise(sample: Sample) -> dict[str, np.ndarray]:
        return {name: values + 1 for name, values in encode(sample).items()}

    own = writer(tmp_path / "other", release)
    for shard in own.pending():
        own.write(shard, otherwise)
    own.finish()
    with pytest.raises(CheckpointError, match="made with shards"):
        open_batches(release, CONFIG, windows(tmp_path / "other")).load_state_dict(state)


def refused(kind: type[AnitalkError], release: object, draw: Windows) -> str:
    with pytest.raises(kind) as caught:
        take(open_batches(release, CONFIG, draw), 30)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_sidecar_of_another_release_or_checkpoint_is_refused(release, sidecar, tmp_path):
    other = tmp_path / "r"
    shutil.copytree(release, other)
    record = json.loads((other / RELEASE_FILE).read_text())
    (other / RELEASE_FILE).write_text(json.dumps(record | {"name": "v2"}))
    assert "belongs to another release than" in refused(UsageError, other, windows(sidecar))
    text = refused(UsageError, release, windows(sidecar, checkpoint_sha256="d" * 64))
    assert "was made by the checkpoint cccccccccccc… and not by dddddddddddd…" in text
    take(open_batches(release, CONFIG, windows(sidecar, checkpoint_sha256=CHECKPOINT)), 1)


def test_what_is_not_there_is_refused(release, sidecar, tmp_path):
    assert "there is no finished sidecar at" in refused(UsageError, release, windows(tmp_path))
    draw = windows(sidecar, sidecar_fields=("mouths.npy",))
    assert "holds latents.npy and no mouths.npy" in refused(UsageError, release, draw)
    assert "name the release's folder" in refused(
        UsageError, [str(path) for path in shards_of(release)], windows(sidecar)
    )
    (tmp_path / SIDECAR_FILE).write_text("{}")
    assert "is damaged or of another version" in refused(DataError, release, windows(tmp_path))


def test_missing_shards_and_missing_keys_are_refused(release, sidecar, tmp_path):
    partial = tmp_path / "partial"
    shutil.copytree(sidecar, partial)
    record = json.loads((partial / SIDECAR_FILE).read_text())
    changed = dict(record, shards=record["shards"][1:])
    (partial / SIDECAR_FILE).write_text(json.dumps(changed))
    assert "holds 0 of the 1 clips of train/mesh/train-mesh-visual-000000.tar" in refused(
        UsageError, release, windows(partial)
    )

    [row] = [row for row in record["shards"] if row["release_shard"].endswith("train-mesh-visual-000000.tar")]
    [other] = [row for row in record["shards"] if row["release_shard"].endswith("train-mesh-visual-000001.tar")]
    swapped = dict(other, release_shard=row["release_shard"]), dict(row, release_shard=other["release_shard"])
    shards = [*swapped, *(shard for shard in record["shards"] if shard not in (row, other))]
    (partial / SIDECAR_FILE).write_text(json.dumps(dict(record, shards=shards)))
    assert "lacks the clip mesh-" in refused(DataError, release, windows(partial))


def test_a_damaged_tar_is_skipped_and_counted(release, sidecar, tmp_path):
    damaged = tmp_path / "damaged"
    shutil.copytree(sidecar, damaged)
    [path] = damaged.glob("train/real/*-000001.tar")
    data = bytearray(path.read_bytes())
    data[700] ^= 1
    path.write_bytes(bytes(data))
    loader = open_batches(release, CONFIG.model_copy(update={"max_skipped_ratio": 0.5}), windows(damaged))
    take(loader, 20)
    assert set(loader.skipped) == {"shard"}


# ---- writing -------------------------------------------------------------------------------------------------------


def contents(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()
    }


def test_equal_encodings_are_equal_bytes(release, sidecar, tmp_path):
    record = encoded(tmp_path, release)
    assert contents(tmp_path) == contents(sidecar)
    assert record.checkpoint_sha256 == CHECKPOINT
    assert len(record.shards) == 6
    assert sum(row.num_samples for row in record.shards) == 8
    with tarfile.open(tmp_path / record.shards[0].path) as tar:
        assert [(member.mtime, member.uid, member.uname, member.mode) for member in tar] == [(0, 0, "", 0o644)]


KILLED = """
import os, signal, sys
from pathlib import Path
from tests.training.data.test_sidecar import encode, writer
own = writer(Path(sys.argv[1]), Path(sys.argv[2]))
def dying(sample):
    if sample.key == sys.argv[3]:
        os.kill(os.getpid(), signal.SIGKILL)
    return encode(sample)
for shard in own.pending():
    own.write(shard, dying)
"""


def test_a_killed_run_keeps_what_it_finished_and_ends_in_equal_bytes(release, sidecar, tmp_path):
    folder = tmp_path / "latents"
    root = str(Path(__file__).resolve().parents[3])
    child = subprocess.run(
        [sys.executable, "-c", KILLED, str(folder), str(release), "real-4"],
        env={**os.environ, "PYTHONPATH": root, "OMP_NUM_THREADS": "1"},
        check=False,
    )
    assert child.returncode == -signal.SIGKILL
    own = writer(folder, release)
    pending = own.pending()
    assert 0 < len(pending) < len(own.shards)
    with pytest.raises(DataError, match=f"lacks {len(pending)} shards"):
        own.finish()
    assert "there is no finished sidecar" in refused(UsageError, release, windows(folder))
    for shard in pending:
        own.write(shard, encode)
    own.finish()
    assert contents(folder) == contents(sidecar)
    assert not writer(folder, release).pending(), "a finished one is found finished"


def test_a_folder_of_another_checkpoint_is_not_gone_on_with(release, sidecar, tmp_path):
    with pytest.raises(UsageError, match="holds a sidecar of another release, checkpoint or fields"):
        writer(sidecar, release, checkpoint_sha256="d" * 64)
    writer(tmp_path, release)
    with pytest.raises(UsageError, match="name another folder"):
        writer(tmp_path, release, fields=("mouths.npy",))


@pytest.mark.parametrize(
    ("arrays", "said"),
    [
        ({"mouths.npy": np.zeros((NUM_FRAMES, 2))}, "has mouths.npy, and the sidecar latents.npy"),
        ({"latents.npy": np.full((NUM_FRAMES, 2), np.nan)}, "holds NaN or infinity in latents.npy"),
        ({"latents.npy": np.zeros((NUM_FRAMES - 1, 2))}, f"has 7 rows in latents.npy for {NUM_FRAMES} frames"),
    ],
)
def test_an_encoding_that_nobody_could_join_is_refused_as_it_is_written(release, tmp_path, arrays, said):
    own = writer(tmp_path, release)
    with pytest.raises(DataError, match=said):
        own.write(own.pending()[0], lambda sample: arrays if sample.key else {})
    assert not list(tmp_path.rglob("*.tar"))


def test_a_release_is_nothing_that_a_sidecar_may_be_written_into(release):
    before = sorted(release.rglob("*"))
    for folder in (release, release / "latents"):
        with pytest.raises(UsageError, match="lies in the release itself"):
            writer(folder, release)
    assert sorted(release.rglob("*")) == before


def test_a_tar_that_cannot_be_written_is_said(release, tmp_path):
    folder = tmp_path / "latents"
    own = writer(folder, release)
    (folder / "train").write_text("in the way")
    shard = next(shard for shard in own.pending() if shard.name.startswith("train"))
    with pytest.raises(UsageError, match="cannot be written"):
        own.write(shard, encode)
