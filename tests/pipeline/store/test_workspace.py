"""One writer at a time, results that show only when they are whole, and a ledger that forgets nothing."""

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest

from pipeline.store import workspace as workspace_module
from pipeline.store.workspace import Workspace
from schemas.base import canonical_json
from schemas.errors import UsageError, WorkspaceError
from schemas.funnel import FunnelDrop
from schemas.ledger import LedgerRow
from tests.helpers.films import ROOT, environment
from tests.helpers.stores import bucket, object_store

RECORD = FunnelDrop(reason="x", count=1)  # any record will do


@pytest.fixture(params=["disk", "s3"])
def workspace(request, tmp_path, monkeypatch) -> Iterator[Workspace]:
    if request.param == "disk":
        yield Workspace(tmp_path / "ws", create=True)
        return
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    with object_store(monkeypatch):
        yield Workspace(f"{bucket()}/ws", create=True)


@pytest.fixture
def local(tmp_path) -> Workspace:
    return Workspace(tmp_path / "ws", create=True)


def row(**changes: object) -> LedgerRow:
    usual = {"stage": "clip", "source_id": "a", "item": "a/shot0", "attempt": 1, "outcome": "done"}
    return LedgerRow.model_validate(usual | changes)


# --- results ---


def test_a_result_shows_when_its_record_is_there_and_not_before(workspace, monkeypatch):
    assert workspace.result("clip", "k", FunnelDrop) is None
    real, seen = workspace.storage.write, []

    def watched(name: str, data: bytes) -> None:
        seen.append((name, workspace.result("clip", "k", FunnelDrop)))
        real(name, data)

    monkeypatch.setattr(workspace.storage, "write", watched)
    workspace.publish("clip", "k", RECORD, {"mp4": b"film", "flac": b"sound"})
    assert [name for name, _ in seen] == [f"results/clip/k/{name}" for name in ("flac", "mp4", "record.json")]
    assert all(result is None for _, result in seen)
    assert workspace.result("clip", "k", FunnelDrop) == RECORD
    assert workspace.result_file("clip", "k", "mp4") == b"film"


def test_a_result_whose_writing_was_cut_off_is_made_again(workspace, monkeypatch):
    real = workspace.storage.write

    def dying(name: str, data: bytes) -> None:
        if name.endswith("record.json"):
            raise KeyboardInterrupt
        real(name, data)

    monkeypatch.setattr(workspace.storage, "write", dying)
    with pytest.raises(KeyboardInterrupt):
        workspace.publish("clip", "k", RECORD, {"mp4": b"half"})
    monkeypatch.setattr(workspace.storage, "write", real)
    assert workspace.result("clip", "k", FunnelDrop) is None
    workspace.publish("clip", "k", RECORD, {"mp4": b"whole"})
    assert workspace.result_file("clip", "k", "mp4") == b"whole"


@pytest.mark.parametrize("damage", [b"", b"{", b'{"reason":"x"}', b'{"reason":"x","count":1,"more":2}', b"\xff\xfe"])
def test_a_damaged_record_is_named_with_what_to_do(local, damage):
    local.publish("clip", "k", RECORD)
    local.storage.write("results/clip/k/record.json", damage)
    with pytest.raises(WorkspaceError, match="is damaged: delete that folder and run again") as caught:
        local.result("clip", "k", FunnelDrop)
    assert local.storage.path("results/clip/k") in str(caught.value)


def test_a_damaged_row_is_named(local):
    name = "ledger/a/clip_a_1.json"
    local.storage.write(name, b"{")
    with pytest.raises(WorkspaceError, match="is damaged: delete that file and run again") as caught:
        local.ledger()
    assert name in str(caught.value)


# --- ledger ---


def test_attempts_count_up_per_item_and_stage(workspace):
    attempts = [workspace.log(row()).attempt for _ in range(3)]
    assert attempts == [1, 2, 3]
    assert workspace.log(row(item="a/shot1")).attempt == 1
    assert workspace.log(row(stage="plan")).attempt == 1
    assert len(workspace.ledger()) == len(workspace.ledger("a")) == 5
    assert workspace.ledger("b") == []


def test_no_row_is_lost_when_many_write_at_once(workspace):
    def log() -> None:
        for _ in range(4):
            workspace.log(row())

    threads = [threading.Thread(target=log) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(ledger_row.attempt for ledger_row in workspace.ledger("a")) == list(range(1, 21))


def test_rows_of_a_source_whose_id_begins_alike_stay_apart(workspace):
    workspace.log(row())
    workspace.log(row(source_id="ab", item="ab"))
    assert [ledger_row.source_id for ledger_row in workspace.ledger("a")] == ["a"]


def test_a_row_says_when(local):
    logged = local.log(row())
    age = datetime.now(UTC) - datetime.fromisoformat(logged.at)
    assert timedelta(0) <= age < timedelta(seconds=10)


# --- opening ---


def test_a_workspace_that_is_none_is_said(tmp_path):
    with pytest.raises(UsageError, match="is not a workspace: 'anitalk build MANIFEST --workspace"):
        Workspace(tmp_path)
    assert list(tmp_path.iterdir()) == [], "looking leaves nothing behind"


def test_a_file_is_no_workspace(tmp_path):
    (tmp_path / "file").write_text("")
    for create in (True, False):
        with pytest.raises(UsageError, match="is a file: name a folder"):
            Workspace(tmp_path / "file", create=create)
    with pytest.raises(UsageError, match="a file is in the way where a folder is needed"):
        Workspace(tmp_path / "file" / "ws", create=True)


def test_a_place_that_nobody_may_write_is_said():
    with pytest.raises(UsageError, match=r"cannot write /proc/anitalk: .*choose another place"):
        Workspace("/proc/anitalk", create=True)


# --- the lock ---

HOLDER = (
    "import sys, time; from pipeline.store.workspace import Workspace\n"
    "with Workspace(sys.argv[1], create=True).lock():\n"
    "    print('held', flush=True); time.sleep(60)\n"
)


def hold(uri: str) -> subprocess.Popen[str]:
    """A process that holds a workspace's lock."""
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, uri], env=environment(), cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    return holder


def test_a_second_process_is_told_who_holds_the_workspace_and_how_long(workspace):
    holder = hold(workspace.storage.uri)
    try:
        with pytest.raises(UsageError) as caught, workspace.lock():
            pytest.fail("two held the lock")
    finally:
        holder.kill()
        holder.wait()
    text = str(caught.value)
    assert f"in use by process {holder.pid} on " in text
    assert "s ago)" in text
    assert "wait for it or end it, then run again" in text
    assert "\n" not in text


def test_a_killed_holder_frees_a_disks_lock_at_once(local):
    holder = hold(local.storage.uri)
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    with local.lock():
        assert json.loads(local.storage.read("lock.json"))["pid"] == os.getpid()


def test_a_lock_is_free_again_after_its_block_also_after_an_error(workspace):
    with pytest.raises(RuntimeError), workspace.lock():
        raise RuntimeError
    with workspace.lock():
        pass
    assert "lock.json" not in workspace.storage.names("")


def test_a_full_disk_does_not_keep_the_lock(local, monkeypatch):
    def refuse(*_: object) -> None:
        raise WorkspaceError("cannot write: the disk is full")

    real = local.storage.write
    monkeypatch.setattr(
        local.storage, "write", lambda name, data: refuse() if name != "lock.json" else real(name, data)
    )
    monkeypatch.setattr(local.storage, "delete", refuse)
    with pytest.raises(WorkspaceError, match="the disk is full"), local.lock():
        local.publish("clip", "k", RECORD)
    monkeypatch.undo()
    with local.lock():
        pass


@pytest.fixture
def remote(tmp_path, monkeypatch) -> Iterator[Workspace]:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    with object_store(monkeypatch):
        yield Workspace(f"{bucket()}/ws", create=True)


def leave_lock(workspace: Workspace, age_s: float, name: str = "lock.json", pid: int = 7) -> bytes:
    at = (datetime.now(UTC) - timedelta(seconds=age_s)).isoformat(timespec="milliseconds")
    record = canonical_json({"host": "elsewhere", "pid": pid, "since": at, "at": at})
    workspace.storage.write(name, record)
    return record


def test_a_stores_lock_expires_by_age(remote):
    limit = workspace_module._LOCK_EXPIRES_S
    leave_lock(remote, limit - 20)
    with pytest.raises(UsageError, match=r"process 7 on elsewhere.*it is overruled after 180 s"), remote.lock():
        pytest.fail("the other one may be alive")
    leave_lock(remote, limit)
    with remote.lock():
        assert json.loads(remote.storage.read("lock.json"))["pid"] == os.getpid()
    assert not remote.storage.exists("lock.json")


def test_of_ten_that_overrule_a_dead_lock_one_gets_it(remote):
    leave_lock(remote, 1000)
    barrier, done = threading.Barrier(10), threading.Barrier(10)
    outcomes: list[bool] = []

    def take() -> None:
        mine = Workspace(remote.storage.uri, create=True)
        barrier.wait()
        try:
            with mine.lock():
                outcomes.append(True)
                done.wait(60)
        except UsageError:
            outcomes.append(False)
            done.wait(60)

    threads = [threading.Thread(target=take) for _ in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes) == [False] * 9 + [True]


def test_one_that_died_while_overruling_is_overruled_in_turn(remote, monkeypatch):
    leave_lock(remote, 1000)
    real = remote.storage.write

    def dying(name: str, data: bytes) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(remote.storage, "write", dying)
    with pytest.raises(KeyboardInterrupt), remote.lock():
        pytest.fail("it died before it had the lock")
    monkeypatch.setattr(remote.storage, "write", real)
    with pytest.raises(UsageError, match="in use"), remote.lock():
        pytest.fail("it may be alive")
    [note] = remote.storage.names("locks")
    leave_lock(remote, 500, note)
    with remote.lock():
        pass


def test_the_heartbeat_keeps_a_lock_young_and_survives_a_lost_connection(remote, monkeypatch):
    monkeypatch.setattr(workspace_module, "_HEARTBEAT_S", 0.05)
    real, beats, enough = remote.storage.write, [], threading.Event()

    def shaky(name: str, data: bytes) -> None:
        beats.append(name)
        if len(beats) == 1:
            raise WorkspaceError("cannot reach the store")
        real(name, data)
        if len(beats) > 2:
            enough.set()

    with remote.lock():
        first = json.loads(remote.storage.read("lock.json"))
        monkeypatch.setattr(remote.storage, "write", shaky)
        assert enough.wait(20)
        now = json.loads(remote.storage.read("lock.json"))
    assert now["at"] > first["at"]
    assert now["since"] == first["since"]


def test_a_run_whose_lock_was_taken_neither_renews_nor_removes_the_new_one(remote, monkeypatch):
    monkeypatch.setattr(workspace_module, "_HEARTBEAT_S", 0.05)
    with remote.lock():
        theirs = leave_lock(remote, 0, pid=8)
        threading.Event().wait(0.5)
        assert remote.storage.read("lock.json") == theirs
    assert remote.storage.read("lock.json") == theirs


def test_a_store_that_refuses_the_lock_is_a_users_mistake(remote):
    with pytest.raises(UsageError, match="there is no such bucket"), Workspace("s3://absent/ws", create=True).lock():
        pytest.fail("there is no such bucket")
