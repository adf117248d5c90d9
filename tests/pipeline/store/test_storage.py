"""Whatever happens while something is written, readers see the old bytes or the new ones."""

import contextlib
import errno
import multiprocessing
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.store import storage as storage_module
from pipeline.store.storage import Storage
from schemas.errors import UsageError, WorkspaceError
from tests.helpers.films import environment
from tests.helpers.stores import bucket, object_store, small_disk

SIZES = (0, 1, 70_000)


@pytest.fixture(params=["disk", "s3"])
def storage(request, tmp_path, monkeypatch) -> Iterator[Storage]:
    if request.param == "disk":
        yield Storage(tmp_path / "root")
        return
    with object_store(monkeypatch):
        yield Storage(f"{bucket()}/root")


# --- laws of every place ---


def test_what_was_written_is_read_and_later_writes_replace_it(storage):
    for size in SIZES:
        storage.write("a/b.bin", b"x" * size)
        assert storage.read("a/b.bin") == b"x" * size
    assert storage.exists("a/b.bin")


def test_what_was_never_written_is_absent_everywhere(storage):
    assert storage.read_if_there("nothing") is None
    assert not storage.exists("nothing")
    assert storage.names("") == []
    assert storage.names("no/such/folder") == []
    storage.delete("nothing")
    with pytest.raises(FileNotFoundError):
        storage.read("nothing")


def test_names_are_sorted_relative_and_of_one_folder(storage):
    for name in ("b/2", "a/9", "b/10", "ab/1", "a/deep/er/1"):
        storage.write(name, b"")
    assert storage.names("") == ["a/9", "a/deep/er/1", "ab/1", "b/10", "b/2"]
    assert storage.names("a") == ["a/9", "a/deep/er/1"]
    assert storage.names("b/") == ["b/10", "b/2"]


def test_deleting_takes_an_object_or_all_below_a_folder(storage):
    for name in ("a/1", "a/b/2", "ab/3", "c"):
        storage.write(name, b"")
    storage.delete("a")
    assert storage.names("") == ["ab/3", "c"]
    storage.delete("c")
    assert storage.names("") == ["ab/3"]
    assert not storage.exists("a/1")


def test_a_new_object_is_written_once_and_never_replaced(storage):
    assert storage.write_new("lock", b"mine")
    assert not storage.write_new("lock", b"yours")
    assert storage.read("lock") == b"mine"
    storage.delete("lock")
    assert storage.write_new("lock", b"yours")


def test_of_twenty_threads_that_create_one_object_exactly_one_wins(storage):
    barrier = threading.Barrier(20)
    winners: list[int] = []

    def create(number: int) -> None:
        barrier.wait()
        if storage.write_new("race/lock", str(number).encode()):
            winners.append(number)

    threads = [threading.Thread(target=create, args=(number,)) for number in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(winners) == 1
    assert storage.read("race/lock") == str(winners[0]).encode()
    assert storage.names("") == ["race/lock"]


def test_a_file_is_published_whole(storage, tmp_path):
    tar = tmp_path / "made.tar"
    tar.write_bytes(b"t" * 70_000)
    storage.put_file(tar, "train/shard.tar")
    assert storage.read("train/shard.tar") == b"t" * 70_000
    assert storage.names("train") == ["train/shard.tar"]


def test_an_unknown_scheme_is_a_users_mistake():
    with pytest.raises(UsageError, match="cannot use 'nonsense://x'"):
        Storage("nonsense://x")


# --- a disk ---


def _create_in_a_process(root: str, number: int, barrier: object, wins: object) -> None:
    barrier.wait()  # type: ignore[attr-defined]
    if Storage(root).write_new("lock", str(number).encode()):
        wins.put(number)  # type: ignore[attr-defined]


def test_of_many_processes_that_create_one_file_exactly_one_wins(tmp_path):
    context = multiprocessing.get_context("fork")
    barrier, wins = context.Barrier(8), context.Queue()
    arguments = [(str(tmp_path / "root"), number, barrier, wins) for number in range(8)]
    processes = [context.Process(target=_create_in_a_process, args=given) for given in arguments]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    assert (tmp_path / "root" / "lock").read_bytes() == str(wins.get(timeout=60)).encode()
    assert wins.empty()


def test_a_reader_never_sees_half_of_a_write(tmp_path):
    storage = Storage(tmp_path)
    contents = {bytes([letter]) * 300_000 for letter in b"abc"}
    storage.write("file", min(contents))
    stop = threading.Event()
    seen: set[bytes] = set()

    def read() -> None:
        while not stop.is_set():
            seen.add(storage.read("file"))

    reader = threading.Thread(target=read)
    reader.start()
    for _ in range(30):
        for content in contents:
            storage.write("file", content)
    stop.set()
    reader.join()
    assert seen <= contents


class _PowerCutError(BaseException):
    """Ends the write as a killed process does: no ``except Exception`` may repair anything."""


@pytest.mark.parametrize("point", ["replace", "_sync"])
def test_a_write_that_is_cut_off_before_its_rename_leaves_the_old_file(tmp_path, monkeypatch, point):
    storage = Storage(tmp_path)
    storage.write("file", b"old")

    def cut(*_: object) -> None:
        raise _PowerCutError

    if point == "replace":
        monkeypatch.setattr(Path, "replace", cut)
    else:
        monkeypatch.setattr(storage_module, "_sync", cut)
    with pytest.raises(_PowerCutError):
        storage.write("file", b"new")
    assert storage.read("file") == b"old"
    assert storage.names("") == ["file"]


def test_a_killed_write_leaves_the_old_file_and_no_name_that_is_listed(tmp_path):
    Storage(tmp_path).write("file", b"old")
    code = (
        "import os, signal, sys; from pathlib import Path; from pipeline.store.storage import Storage\n"
        "Path.replace = lambda *a: os.kill(os.getpid(), signal.SIGKILL)\n"
        "Storage(sys.argv[1]).write('file', b'new' * 1000)\n"
    )
    ended = subprocess.run([sys.executable, "-c", code, str(tmp_path)], env=environment(), check=False)
    assert ended.returncode == -9
    assert len(list(tmp_path.iterdir())) == 2, "the unfinished file is there"
    assert Storage(tmp_path).names("") == ["file"]
    assert Storage(tmp_path).read("file") == b"old"
    Storage(tmp_path).write("file", b"newer")
    assert Storage(tmp_path).read("file") == b"newer"


def test_data_are_on_the_disk_before_the_name_points_to_them(tmp_path, monkeypatch):
    steps: list[str] = []
    real_fsync, real_replace = os.fsync, Path.replace
    monkeypatch.setattr(os, "fsync", lambda fd: (steps.append("fsync"), real_fsync(fd))[1])
    monkeypatch.setattr(Path, "replace", lambda a, b: (steps.append("rename"), real_replace(a, b))[1])
    Storage(tmp_path).write("file", b"data")
    assert steps == ["fsync", "rename", "fsync"], "the file, its name, its folder"


@pytest.mark.parametrize(
    ("number", "remedy"),
    [
        (errno.ENOSPC, "the disk is full: free some space"),
        (errno.EDQUOT, "the disk quota is used up"),
        (errno.EROFS, "the file system is read-only: choose another place"),
        (errno.EACCES, "no permission to write there"),
        (errno.EIO, "the disk reports an error"),
    ],
)
@pytest.mark.parametrize("write", ["write", "write_new"])
def test_a_disk_that_refuses_is_one_sentence_with_a_remedy(tmp_path, monkeypatch, number, remedy, write):
    def refuse(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(Path, "write_bytes", refuse)
    with pytest.raises(WorkspaceError, match=remedy) as caught:
        getattr(Storage(tmp_path), write)("a/file", b"data")
    assert str(tmp_path / "a" / "file") in str(caught.value)
    assert "\n" not in str(caught.value)
    assert Storage(tmp_path).names("") == []


@pytest.mark.parametrize("write", ["write", "write_new"])
def test_a_file_where_a_folder_is_needed_is_said_and_not_taken_for_the_object(tmp_path, write):
    (tmp_path / "ledger").write_text("in the way")
    with pytest.raises(WorkspaceError, match="a file is in the way where a folder is needed"):
        getattr(Storage(tmp_path), write)("ledger/row.json", b"data")


def test_a_folder_where_a_file_is_needed_is_said(tmp_path):
    (tmp_path / "file").mkdir()
    with pytest.raises(WorkspaceError, match="a folder is in the way"):
        Storage(tmp_path).write("file", b"data")


def test_a_really_full_disk_keeps_what_was_there(tmp_path):
    with small_disk(tmp_path / "disk", "1m") as disk:
        storage = Storage(disk)
        storage.write("file", b"old")
        with pytest.raises(WorkspaceError, match="the disk is full: free some space and run the same command again"):
            storage.write("file", bytes(4_000_000))
        assert storage.read("file") == b"old"
        assert storage.names("") == ["file"]
        assert list(disk.iterdir()) == [disk / "file"], "the unfinished file went away to make room"


def test_a_read_only_disk_is_said(tmp_path):
    with small_disk(tmp_path / "disk", "1m") as disk:
        Storage(disk).write("file", b"old")
        with small_disk(disk, "1m", remount="ro"):
            for write in (Storage(disk).write, Storage(disk).write_new):
                with pytest.raises(WorkspaceError, match="the file system is read-only: choose another place"):
                    write("a/other", b"data")
            assert Storage(disk).read("file") == b"old"


# --- an object store ---


def test_a_missing_bucket_is_said_where_it_matters(monkeypatch):
    with object_store(monkeypatch):
        bucket()
        storage = Storage("s3://no-such-bucket/root")
        assert storage.read_if_there("file") is None
        assert storage.names("") == []
        for write in (storage.write, storage.write_new):
            with pytest.raises(WorkspaceError, match="there is no such bucket: make it first"):
                write("file", b"data")


def test_a_store_that_does_not_answer_is_one_sentence(monkeypatch):
    # Waiting for a lost connection is right, but slow here.
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    monkeypatch.setattr("s3fs.core.S3_RETRYABLE_ERRORS", ())
    monkeypatch.delenv("ANITALK_S3_ENDPOINT", raising=False)  # a server of our own, for it has to go away
    with object_store(monkeypatch):
        storage = Storage(f"{bucket()}/root")
        storage.write("file", b"data")
    for act in (lambda: storage.read("file"), lambda: storage.write("file", b""), lambda: storage.names("")):
        with pytest.raises(WorkspaceError, match="cannot reach s3://") as caught:
            act()
        assert "\n" not in str(caught.value)


def test_creation_asks_the_store_to_refuse_and_asks_again_when_two_cross(monkeypatch):
    with object_store(monkeypatch):
        storage = Storage(f"{bucket()}/root")
        real = storage.fs.pipe_file
        asked: list[str | None] = []

        def crossing(path: str, data: bytes, mode: str | None = None) -> None:
            asked.append(mode)
            if len(asked) == 1:
                refused = Exception("409")
                refused.response = {"ResponseMetadata": {"HTTPStatusCode": 409}}  # type: ignore[attr-defined]
                raise OSError(errno.EBUSY, "conflict") from refused
            real(path, data, mode=mode)

        monkeypatch.setattr(storage.fs, "pipe_file", crossing)
        assert storage.write_new("lock", b"mine")
        assert asked == ["create", "create"]
        assert not storage.write_new("lock", b"yours")
        with contextlib.suppress(Exception):
            storage.delete("lock")
