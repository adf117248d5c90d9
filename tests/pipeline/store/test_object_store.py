"""A workspace in an object store holds the same bytes as one on a disk, through every command."""

import json
from pathlib import Path

import fsspec
import pytest

from flows.cli import application as cli
from pipeline.store.storage import Storage
from pipeline.store.workspace import Workspace
from tests.helpers import films as films_module
from tests.helpers.films import build, digests, write_manifest
from tests.helpers.stores import bucket, object_store

films, built = films_module.films, films_module.built  # fixtures


def remote_digests(uri: str) -> dict[str, str]:
    import hashlib

    storage = Storage(uri)
    return {name: hashlib.sha256(storage.read(name)).hexdigest() for name in storage.names("")}


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def test_a_build_in_an_object_store_equals_one_on_a_disk(built, tmp_path, monkeypatch, capsys):
    with object_store(monkeypatch):
        uri = f"{bucket()}/team/ws"
        assert build(built.manifest, uri, "--release", "first") == 0
        out = capsys.readouterr().out
        assert f"release  {uri}/releases/first\n" in out
        assert remote_digests(f"{uri}/releases/first") == digests(built.release)
        assert remote_digests(f"{uri}/results/clip") == digests(built.workspace / "results" / "clip")
        assert not Storage(uri).exists("lock.json")

        assert cli.run(["verify", f"{uri}/releases/first"]) == 0
        assert capsys.readouterr().out == f"{uri}/releases/first: verified, no faults\n"

        rows = Storage(uri).names("ledger")
        assert build(built.manifest, uri) == 0
        assert Storage(uri).names("ledger") == rows, "running again does nothing"
        assert cli.run(["release", "first", "-w", uri]) == 0
        assert cli.run(["release", "first", "-w", uri, "--set", "split.seed=5"]) == 2
        assert "releases are never changed" in capsys.readouterr().err

        for command in (["status", "--json"], ["clips", "-f", "json"], ["decisions", "-f", "json"]):
            answers = []
            for workspace in (uri, str(built.workspace)):
                capsys.readouterr()
                assert cli.run([command[0], "-w", workspace, *command[1:]]) == 0
                answers.append(json.loads(capsys.readouterr().out))
            if command[0] == "status":
                for answer in answers:
                    for row in answer["failures"]:
                        row.update(at="", took_s=0.0)
            assert answers[0] == answers[1], command
        assert cli.run(["show", "talker", "-w", uri, "-o", str(tmp_path / "sheet.png")]) == 0
        assert cli.run(["gc", "-w", uri]) == 0

        # A fault in the store is found there.
        shard = next(name for name in Storage(f"{uri}/releases/first").names("") if name.endswith(".tar"))
        Storage(f"{uri}/releases/first").write(shard, b"damaged")
        assert cli.run(["verify", f"{uri}/releases/first"]) == 1
        assert shard in capsys.readouterr().out


def test_a_local_workspace_releases_into_a_store_and_a_source_comes_from_one(films, built, tmp_path, monkeypatch):
    with object_store(monkeypatch):
        shelf = bucket()
        arguments = ["release", "first", "-w", str(built.workspace), "--to", f"{shelf}/releases"]
        assert cli.run(arguments) == 0
        assert remote_digests(f"{shelf}/releases/first") == digests(built.release)
        assert cli.run(arguments) == 0, "it is there already"

        fsspec.filesystem("s3").put_file(str(films / "cat.mp4"), f"{shelf.removeprefix('s3://')}/in/cat.mp4")
        manifest = write_manifest(tmp_path / "m.yaml", [{"id": "cat", "uri": f"{shelf}/in/cat.mp4"}])
        assert build(manifest, f"{shelf}/ws") == 0
        rows = Workspace(f"{shelf}/ws").ledger()
        assert {row.stage for row in rows if row.outcome == "done"} == {"acquire", "probe", "analyse", "plan"}


def test_a_store_without_that_bucket_or_that_workspace_is_one_sentence(built, monkeypatch, capsys):
    with object_store(monkeypatch):
        here = bucket()
        for command, code, said in (
            (
                ["build", str(built.manifest), "-w", "s3://absent-bucket/ws"],
                2,
                "there is no such bucket: make it first",
            ),
            (["status", "-w", f"{here}/ws"], 2, f"nothing has been built in {here}/ws"),
            (["verify", f"{here}/releases/none"], 2, f"no finished release at {here}/releases/none"),
        ):
            assert cli.run(command) == code
            output = capsys.readouterr()
            assert said in output.out + output.err
            assert "Traceback" not in output.err


def test_a_store_that_is_lost_during_a_build_ends_it_in_one_sentence_and_it_goes_on_later(
    built, tmp_path, monkeypatch, capsys
):
    with object_store(monkeypatch):
        uri = f"{bucket()}/ws"
        real = Storage.write

        def losing(self: Storage, name: str, data: bytes) -> None:
            if name.startswith("results/clip"):
                monkeypatch.setattr(self.fs, "pipe_file", lost)
            real(self, name, data)

        def lost(*_: object, **__: object) -> None:
            raise ConnectionError("Could not connect to the endpoint")

        with monkeypatch.context() as away:
            away.setattr(Storage, "write", losing)
            assert build(built.manifest, uri) == 1
        text = capsys.readouterr().err
        assert f"anitalk: cannot reach {uri}/results/clip/" in text
        assert "Traceback" not in text
