"""Places to write to that tests need: an object store on loopback, and a disk that is soon full."""

import contextlib
import os
import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest
from moto.server import ThreadedMotoServer
from s3fs import S3FileSystem


@contextlib.contextmanager
def object_store(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """An S3 server for the length of the block: the one of ANITALK_S3_ENDPOINT, or moto's on a free port."""
    S3FileSystem.clear_instance_cache()
    given = os.environ.get("ANITALK_S3_ENDPOINT")
    server = None if given else ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    if server is not None:
        server.start()
        host, port = server.get_host_and_port()
        given = f"http://{host}:{port}"
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            monkeypatch.setenv(name, "test")
        monkeypatch.delenv("AWS_PROFILE", raising=False)
    assert given
    monkeypatch.setenv("AWS_ENDPOINT_URL", given)
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    try:
        yield given
    finally:
        S3FileSystem.clear_instance_cache()
        if server is not None:
            server.stop()


def bucket() -> str:
    """A new bucket's address."""
    name = f"anitalk-{uuid.uuid4().hex[:12]}"
    fsspec.filesystem("s3").mkdir(name)
    return f"s3://{name}"


@contextlib.contextmanager
def small_disk(folder: Path, size: str, *, remount: str = "") -> Iterator[Path]:
    """A memory disk of ``size`` at ``folder``, or that disk mounted anew with an option; skips where it may not be."""
    folder.mkdir(exist_ok=True)
    options = ["-o", f"remount,{remount}"] if remount else ["-t", "tmpfs", "-o", f"size={size}", "tmpfs"]
    mounted = subprocess.run(["mount", *options, str(folder)], capture_output=True, text=True, check=False)
    if mounted.returncode != 0:
        pytest.skip(f"needs a small disk, and this user may not mount one: {mounted.stderr.strip()}")
    try:
        yield folder
    finally:
        if remount:
            subprocess.run(["mount", "-o", "remount,rw", str(folder)], check=True)
        else:
            subprocess.run(["umount", "--lazy", str(folder)], check=True)
