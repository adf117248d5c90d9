"""A source is either wholly here under its final name, or a clear reason says why not."""

import errno
import hashlib
import io
import itertools
import json
import os
import pickle
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from pipeline.fetch import addresses, web
from pipeline.fetch.acquire import fetch
from pipeline.fetch.addresses import is_public
from pipeline.fetch.partial import Partial
from pipeline.fetch.politeness import HostLimiter
from schemas.config import AcquireConfig
from schemas.errors import SourceError, ThrottledError, TransientError, UsageError, WorkspaceError
from schemas.source import Fetched, Source
from tests.helpers.web import Exchange, Server, range_start, serving

BODY = bytes(np.random.default_rng(7).integers(0, 256, 300_000, dtype=np.uint8))
CONFIG = AcquireConfig(
    allow_private_addresses=True,
    connect_timeout_s=20.0,
    stall_timeout_s=30.0,  # a server of this process may be kept waiting for a core
    num_attempts=3,
    backoff_s=0.01,
    host_interval_s=0.0,
    file_interval_s=0.0,
)


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with serving() as running:
        yield running


@pytest.fixture(autouse=True)
def _clean(server: Server) -> None:
    server.answers.clear()
    server.requests.clear()


@pytest.fixture(scope="module")
def film() -> bytes:
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=Fraction(25))
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for number in range(10):
            picture = np.full((48, 64, 3), number * 20, dtype=np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode(None))
    return buffer.getvalue()


def source(uri: str, **fields: object) -> Source:
    return Source(id="film-1", uri=uri, domain="real", license="CC0-1.0", title="A film", **fields)


def get(uri: str, into: Path, config: AcquireConfig = CONFIG, **fields: object) -> Fetched:
    return fetch(source(uri, **fields), config, into, limiter=HostLimiter(config))


def leftovers(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


# --- plain files over HTTP ------------------------------------------------------------------------------------------


def test_a_file_arrives_whole_under_its_final_name(server: Server, tmp_path: Path) -> None:
    server.file("/a/film.mp4", BODY)
    reports: list[tuple[str, float | None, float | None]] = []
    limiter = HostLimiter(CONFIG)
    got = fetch(
        source(server.url("/a/film.mp4")), CONFIG, tmp_path, limiter=limiter, report=lambda *x: reports.append(x)
    )
    assert leftovers(tmp_path) == ["film-1.mp4"] == [got.path]
    assert got.locate(tmp_path).read_bytes() == BODY
    assert (got.sha256, got.num_bytes) == (hashlib.sha256(BODY).hexdigest(), len(BODY))
    assert reports[-1] == ("acquire", len(BODY), len(BODY))
    assert got.provenance.media_type == "video/mp4"
    assert got.provenance.tool == "urllib3"
    assert got.provenance.fetched_at.endswith("+00:00")
    assert server.requests[0].headers["Accept-Encoding"] == "identity"
    assert Fetched.model_validate_json(got.model_dump_json()) == got


def test_a_broken_transfer_continues_where_it_ended(server: Server, tmp_path: Path) -> None:
    server.cut_short("/film.mp4", BODY, after=100_000, times=2)
    assert get(server.url("/film.mp4"), tmp_path).locate(tmp_path).read_bytes() == BODY
    assert [request.sent for request in server.requests] == [100_000, 100_000, 100_000]
    assert server.requests[1].headers["Range"] == "bytes=100000-"
    assert server.requests[1].headers["If-Range"] == '"v1"'


def test_a_later_call_continues_an_earlier_ones_partial_file(server: Server, tmp_path: Path) -> None:
    server.cut_short("/film.mp4", BODY, after=120_000, times=1)
    with pytest.raises(TransientError, match="ended before the file did"):
        get(server.url("/film.mp4"), tmp_path, CONFIG.model_copy(update={"num_attempts": 1}))
    assert "film-1.mp4" not in leftovers(tmp_path)
    get(server.url("/film.mp4"), tmp_path)
    assert (tmp_path / "film-1.mp4").read_bytes() == BODY
    assert server.requests[-1].sent == len(BODY) - 120_000
    assert leftovers(tmp_path) == ["film-1.mp4"]


def test_a_killed_process_leaves_bytes_that_the_next_one_uses(server: Server, tmp_path: Path) -> None:
    server.stalling("/film.mp4", BODY, after=200_000)
    script = (
        "import sys; from pathlib import Path; from tests.pipeline.fetch.test_acquire import *; "
        "get(sys.argv[1], Path(sys.argv[2]), AcquireConfig.model_validate_json(sys.argv[3]))"
    )
    arguments = [sys.executable, "-c", script, server.url("/film.mp4"), str(tmp_path), CONFIG.model_dump_json()]
    part = tmp_path / "film-1.part"
    with subprocess.Popen(arguments, cwd=Path(__file__).parents[3]) as child:
        deadline = time.monotonic() + 120
        while not (part.exists() and part.stat().st_size >= 190_000) and time.monotonic() < deadline:
            time.sleep(0.02)
        child.kill()
    kept = part.stat().st_size
    assert kept >= 190_000
    assert "film-1.mp4" not in leftovers(tmp_path)
    server.file("/film.mp4", BODY)
    assert get(server.url("/film.mp4"), tmp_path).locate(tmp_path).read_bytes() == BODY
    assert server.requests[-1].sent == len(BODY) - kept


def test_a_partial_file_of_another_version_is_not_continued(server: Server, tmp_path: Path) -> None:
    server.cut_short("/film.mp4", BODY, after=120_000, times=1)
    with pytest.raises(TransientError):
        get(server.url("/film.mp4"), tmp_path, CONFIG.model_copy(update={"num_attempts": 1}))
    other = BODY[::-1]
    server.file("/film.mp4", other, etag='"v2"')
    assert get(server.url("/film.mp4"), tmp_path).locate(tmp_path).read_bytes() == other


def test_a_partial_file_of_another_address_is_not_continued(server: Server, tmp_path: Path) -> None:
    server.cut_short("/film.mp4", BODY, after=120_000, times=1)
    with pytest.raises(TransientError):
        get(server.url("/film.mp4"), tmp_path, CONFIG.model_copy(update={"num_attempts": 1}))
    server.file("/other.mp4", BODY[::-1])
    assert get(server.url("/other.mp4"), tmp_path).locate(tmp_path).read_bytes() == BODY[::-1]


def test_a_server_that_ignores_if_range_is_caught_by_its_etag(server: Server, tmp_path: Path) -> None:
    server.cut_short("/film.mp4", BODY, after=120_000, times=1)
    with pytest.raises(TransientError):
        get(server.url("/film.mp4"), tmp_path, CONFIG.model_copy(update={"num_attempts": 1}))
    other = BODY[::-1]

    def answer(exchange: Exchange) -> None:
        wanted = exchange.headers.get("Range")
        start = int(wanted.removeprefix("bytes=").partition("-")[0]) if wanted else 0
        headers = {"Content_Range": f"bytes {start}-{len(other) - 1}/{len(other)}"} if start else {}
        exchange.answer(206 if start else 200, other[start:], ETag='"v2"', **headers)

    server.answers["/film.mp4"] = answer
    assert get(server.url("/film.mp4"), tmp_path).locate(tmp_path).read_bytes() == other


@pytest.mark.parametrize("content_range", ["bytes 0-299999/300000", "bytes 99999-299999/300000", "bytes */300000", ""])
def test_a_206_at_another_offset_is_never_appended(server: Server, tmp_path: Path, content_range: str) -> None:
    server.cut_short("/film.mp4", BODY, after=100_000, times=1)
    whole = server.answers["/film.mp4"]

    def answer(exchange: Exchange) -> None:
        if range_start(exchange, '"v1"') is None:
            whole(exchange)
        else:
            exchange.answer(206, BODY, ETag='"v1"', Content_Range=content_range)

    server.answers["/film.mp4"] = answer
    assert get(server.url("/film.mp4"), tmp_path).locate(tmp_path).read_bytes() == BODY


def test_a_server_that_ignores_range_begins_again(server: Server, tmp_path: Path) -> None:
    server.cut_short("/film.mp4", BODY, after=100_000, times=1)
    broken = server.answers["/film.mp4"]

    def answer(exchange: Exchange) -> None:
        if "Range" in exchange.headers:
            exchange.answer(200, BODY, ETag='"v1"')
        else:
            broken(exchange)

    server.answers["/film.mp4"] = answer
    assert get(server.url("/film.mp4"), tmp_path).locate(tmp_path).read_bytes() == BODY


def test_without_a_validator_nothing_is_continued(server: Server, tmp_path: Path) -> None:
    def answer(exchange: Exchange) -> None:
        assert "Range" not in exchange.headers
        exchange.begin(200, Content_Length=len(BODY))
        exchange.send(BODY if len(server.requests) > 1 else BODY[:1000])

    server.answers["/film.mp4"] = answer
    assert get(server.url("/film.mp4"), tmp_path).locate(tmp_path).read_bytes() == BODY


def test_a_whole_partial_file_only_gets_its_name(server: Server, tmp_path: Path) -> None:
    server.file("/film.mp4", BODY)
    get(server.url("/film.mp4"), tmp_path)
    (tmp_path / "film-1.mp4").rename(tmp_path / "film-1.part")  # killed between the last byte and the final name
    facts = {
        "address": hashlib.sha256(server.url("/film.mp4").encode()).hexdigest(),
        "validator": '"v1"',
        "total": len(BODY),
    }
    (tmp_path / "film-1.part.json").write_text(json.dumps(facts))
    server.requests.clear()
    assert get(server.url("/film.mp4"), tmp_path).locate(tmp_path).read_bytes() == BODY
    assert sum(request.sent for request in server.requests) == 0


def test_a_truncated_file_is_never_published(server: Server, tmp_path: Path) -> None:
    server.cut_short("/film.mp4", BODY, after=10, times=99)
    with pytest.raises(TransientError):
        get(server.url("/film.mp4"), tmp_path)
    assert len(server.requests) == CONFIG.num_attempts
    assert "film-1.mp4" not in leftovers(tmp_path)


def test_a_stalled_transfer_ends(server: Server, tmp_path: Path) -> None:
    server.stalling("/film.mp4", BODY, after=50_000)
    with pytest.raises(TransientError, match="sent nothing for too long"):
        get(server.url("/film.mp4"), tmp_path, CONFIG.model_copy(update={"num_attempts": 1, "stall_timeout_s": 2.0}))
    assert (tmp_path / "film-1.part").stat().st_size == 50_000


def test_503_passes(server: Server, tmp_path: Path) -> None:
    server.failing("/film.mp4", 503, 2, BODY)
    assert get(server.url("/film.mp4"), tmp_path).num_bytes == len(BODY)
    assert len(server.requests) == 3


def test_5xx_for_ever_is_transient(server: Server, tmp_path: Path) -> None:
    server.failing("/film.mp4", 500, 99, BODY)
    with pytest.raises(TransientError, match="status 500"):
        get(server.url("/film.mp4"), tmp_path)
    assert len(server.requests) == CONFIG.num_attempts


@pytest.mark.parametrize("status", [401, 403, 404, 410, 400, 204])
def test_a_refusal_is_permanent_and_asked_once(server: Server, tmp_path: Path, status: int) -> None:
    server.failing("/film.mp4", status, 99, BODY)
    with pytest.raises(SourceError, match=str(status)) as caught:
        get(server.url("/film.mp4"), tmp_path)
    assert caught.value.reason == "permanent"
    assert len(server.requests) == 1


def test_nothing_listening_is_transient(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        with pytest.raises(TransientError, match="cannot be reached"):
            get(f"http://127.0.0.1:{taken.getsockname()[1]}/film.mp4", tmp_path)


def test_an_empty_file_is_refused(server: Server, tmp_path: Path) -> None:
    server.file("/film.mp4", b"")
    with pytest.raises(SourceError, match="0 bytes"):
        get(server.url("/film.mp4"), tmp_path)
    assert leftovers(tmp_path) == []


def test_text_named_mp4_is_kept_for_the_probe_to_judge(server: Server, tmp_path: Path) -> None:
    server.file("/film.mp4", b"just text", media_type="video/mp4")
    assert get(server.url("/film.mp4"), tmp_path).num_bytes == 9


def test_a_page_called_video_is_refused(server: Server, tmp_path: Path) -> None:
    server.file("/film.mp4", b"\n<!DOCTYPE html><html>not found</html>", media_type="video/mp4")
    with pytest.raises(SourceError, match="sent a web page and called it video/mp4"):
        get(server.url("/film.mp4"), tmp_path)
    assert leftovers(tmp_path) == []


@pytest.mark.parametrize(("spare", "fits"), [(-1, False), (0, True), (1, True)])
def test_the_size_cap_is_exact(server: Server, tmp_path: Path, spare: int, fits: bool) -> None:
    server.file("/film.mp4", BODY)
    config = CONFIG.model_copy(update={"max_bytes": len(BODY) + spare})
    if fits:
        assert get(server.url("/film.mp4"), tmp_path, config).num_bytes == len(BODY)
        return
    with pytest.raises(SourceError, match=r"max_bytes allows 299999"):
        get(server.url("/film.mp4"), tmp_path, config)
    assert leftovers(tmp_path) == []  # refused by its length, before a byte was written


def test_a_told_length_above_the_cap_is_refused_without_reading(server: Server, tmp_path: Path) -> None:
    server.stalling("/film.mp4", BODY, after=0)
    with pytest.raises(SourceError, match="max_bytes"):
        get(server.url("/film.mp4"), tmp_path, CONFIG.model_copy(update={"max_bytes": 10}))


def test_the_cap_holds_where_no_length_is_told(server: Server, tmp_path: Path) -> None:
    server.endless("/film.mp4")
    with pytest.raises(SourceError, match="max_bytes"):
        get(server.url("/film.mp4"), tmp_path, CONFIG.model_copy(update={"max_bytes": 100_000}))
    assert leftovers(tmp_path) == []
    assert len(server.requests) == 1


def test_a_compressed_answer_is_refused(server: Server, tmp_path: Path) -> None:
    server.answers["/film.mp4"] = lambda exchange: exchange.answer(200, BODY, Content_Encoding="gzip")
    with pytest.raises(SourceError, match="compressed"):
        get(server.url("/film.mp4"), tmp_path)


def test_the_manifests_digest_decides(server: Server, tmp_path: Path) -> None:
    server.file("/film.mp4", BODY)
    right = hashlib.sha256(BODY).hexdigest()
    assert get(server.url("/film.mp4"), tmp_path, sha256=right).sha256 == right
    with pytest.raises(SourceError) as caught:
        get(server.url("/film.mp4"), tmp_path, sha256="0" * 64)
    assert right in str(caught.value)
    assert "0" * 64 in str(caught.value)
    assert leftovers(tmp_path) == []


def test_a_full_disk_is_not_the_sources_fault(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server.file("/film.mp4", BODY)

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(WorkspaceError, match="No space left"):
        get(server.url("/film.mp4"), tmp_path)


# --- redirects and addresses ----------------------------------------------------------------------------------------


def test_redirects_are_followed_and_recorded_without_secrets(server: Server, tmp_path: Path) -> None:
    server.file("/real.webm", BODY, media_type="video/webm")
    server.redirect("/film", "/real.webm?X-Amz-Signature=abc&v=2&token=secret")
    got = get(server.url("/film").replace("http://", "http://me:pw@"), tmp_path)
    assert got.path == "film-1.webm"
    assert got.provenance.final_url == server.url("/real.webm?v=2")
    assert "pw" not in got.model_dump_json()
    assert server.requests[0].headers["Authorization"].startswith("Basic ")


def test_a_login_does_not_travel_to_another_address(server: Server, tmp_path: Path) -> None:
    server.file("/real.mp4", BODY)
    server.redirect("/film.mp4", server.url("/real.mp4", host="localhost"))
    get(server.url("/film.mp4").replace("http://", "http://me:pw@"), tmp_path)
    assert "Authorization" not in server.asked("/real.mp4")[0].headers


@pytest.mark.parametrize(("allowed", "fits"), [(1, False), (2, True), (3, True)])
def test_the_redirect_limit_is_exact(server: Server, tmp_path: Path, allowed: int, fits: bool) -> None:
    server.file("/c.mp4", BODY)
    server.redirect("/a.mp4", "/b.mp4")
    server.redirect("/b.mp4", "/c.mp4", status=308)
    config = CONFIG.model_copy(update={"max_redirects": allowed})
    if fits:
        assert get(server.url("/a.mp4"), tmp_path, config).num_bytes == len(BODY)
        return
    with pytest.raises(SourceError, match="redirects more than 1 times"):
        get(server.url("/a.mp4"), tmp_path, config)


def test_a_redirect_loop_ends(server: Server, tmp_path: Path) -> None:
    server.redirect("/film.mp4", "/film.mp4")
    with pytest.raises(SourceError, match="redirects more than 5 times"):
        get(server.url("/film.mp4"), tmp_path)
    assert len(server.requests) == 6


def test_a_redirect_cannot_leave_the_configured_schemes(server: Server, tmp_path: Path) -> None:
    server.redirect("/film.mp4", server.url("/film.mp4").replace("http://", "https://"))
    with pytest.raises(SourceError, match="'https' is not allowed"):
        get(server.url("/film.mp4"), tmp_path, CONFIG.model_copy(update={"schemes": ("http",)}))


@pytest.mark.parametrize("to", ["http://[::1/x", "http://example.org:99999/"])
def test_a_redirect_to_nonsense_is_a_sentence(server: Server, tmp_path: Path, to: str) -> None:
    server.redirect("/film.mp4", to)
    with pytest.raises(SourceError, match="cannot be read"):
        get(server.url("/film.mp4"), tmp_path)


@pytest.mark.parametrize("to", ["file:///etc/passwd", "ftp://127.0.0.1/x", "gopher://127.0.0.1/"])
def test_a_redirect_cannot_change_to_another_scheme(server: Server, tmp_path: Path, to: str) -> None:
    server.redirect("/film.mp4", to)
    with pytest.raises(SourceError, match="not allowed"):
        get(server.url("/film.mp4"), tmp_path)


@pytest.mark.parametrize(
    "address",
    ["127.0.0.1", "10.0.0.1", "172.16.0.1", "192.168.1.1", "169.254.169.254", "0.0.0.0", "100.64.0.1", "224.0.0.1",  # noqa: S104
     "240.0.0.1", "255.255.255.255", "::1", "::", "fe80::1%eth0", "fc00::1", "ff02::1", "::ffff:127.0.0.1",
     "::ffff:169.254.169.254", "64:ff9b::7f00:1", "2002:7f00:1::1", "2001:db8::1"],
)  # fmt: skip
def test_addresses_that_are_not_public(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize(
    "address", ["8.8.8.8", "1.1.1.1", "2606:4700:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808"]
)
def test_addresses_that_are(address: str) -> None:
    assert is_public(address)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "2130706433", "0x7f.1", "0.0.0.0", "[::ffff:127.0.0.1]"])  # noqa: S104
def test_a_private_host_is_refused_however_it_is_spelt(server: Server, tmp_path: Path, host: str) -> None:
    server.file("/film.mp4", BODY)
    config = CONFIG.model_copy(update={"allow_private_addresses": False})
    with pytest.raises(SourceError, match="not a public address") as caught:
        get(server.url("/film.mp4", host=host), tmp_path, config)
    assert caught.value.reason == "permanent"
    assert server.requests == []


@pytest.fixture
def outside(monkeypatch: pytest.MonkeyPatch) -> AcquireConfig:
    """The rule is on, and the server's 127.0.0.1 passes for public; 127.0.0.2 and localhost stay private."""
    rule = addresses.is_public
    monkeypatch.setattr(addresses, "is_public", lambda address: address == "127.0.0.1" or rule(address))
    return CONFIG.model_copy(update={"allow_private_addresses": False, "num_attempts": 1})


def test_a_redirect_to_a_private_address_is_refused(server: Server, tmp_path: Path, outside: AcquireConfig) -> None:
    server.file("/secret.mp4", BODY)
    server.redirect("/film.mp4", server.url("/secret.mp4", host="127.0.0.2"))
    with pytest.raises(SourceError, match=r"127\.0\.0\.2, which is not a public address"):
        get(server.url("/film.mp4"), tmp_path, outside)
    assert server.asked("/secret.mp4") == []


def test_the_address_that_was_checked_is_the_one_connected_to(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, outside: AcquireConfig
) -> None:
    server.file("/film.mp4", BODY)
    answers = itertools.cycle(["127.0.0.1", "127.0.0.2"])  # a rebinding name: public when checked, private after
    asked: list[str] = []

    def rebinding(host: str, port: int, **_: object) -> list[tuple[object, ...]]:
        asked.append(host)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (next(answers), port))]

    monkeypatch.setattr(socket, "getaddrinfo", rebinding)
    assert get(server.url("/film.mp4", host="films.example"), tmp_path, outside).num_bytes == len(BODY)
    assert asked == ["films.example"]


def test_one_private_address_among_public_ones_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = [(2, 1, 6, "", (address, 80)) for address in ("8.8.8.8", "10.0.0.1")]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: answers)
    with pytest.raises(SourceError, match=r"10\.0\.0\.1"):
        addresses.resolve("films.example", 80, allow_private=False)


def test_a_name_that_does_not_resolve_is_transient(tmp_path: Path) -> None:
    with pytest.raises(TransientError, match="cannot be resolved"):
        get("http://films.invalid/film.mp4", tmp_path)


# --- throttling -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("status", "headers"), [(429, {}), (429, {"Retry_After": 7}), (503, {"Retry_After": 7})])
def test_a_throttled_host_is_left_alone(
    server: Server, tmp_path: Path, status: int, headers: dict[str, str | int]
) -> None:
    server.failing("/film.mp4", status, 1, BODY, **headers)
    server.file("/other.mp4", BODY)
    limiter = HostLimiter(CONFIG)
    with pytest.raises(ThrottledError, match=str(status)):
        fetch(source(server.url("/film.mp4")), CONFIG, tmp_path, limiter=limiter)
    with pytest.raises(ThrottledError, match="left alone for 120 min more"):
        fetch(source(server.url("/other.mp4")), CONFIG, tmp_path, limiter=limiter)
    assert len(server.requests) == 1


def test_a_redirect_does_not_lead_to_a_host_that_is_left_alone(server: Server, tmp_path: Path) -> None:
    server.redirect("/film.mp4", server.url("/real.mp4", host="localhost"))
    server.file("/real.mp4", BODY)
    limiter = HostLimiter(CONFIG)
    limiter.throttled("localhost")
    with pytest.raises(ThrottledError):
        fetch(source(server.url("/film.mp4")), CONFIG, tmp_path, limiter=limiter)
    assert server.asked("/real.mp4") == []


class Clock:
    """Time that passes only by sleeping."""

    def __init__(self) -> None:
        self.now = 1_000_000.0
        self.slept: list[float] = []

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


@pytest.fixture(params=["memory", "folder"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Path | None:
    return tmp_path / "hosts" if request.param == "folder" else None


def test_turns_of_one_host_are_apart_and_hosts_do_not_wait_for_each_other(folder: Path | None) -> None:
    clock = Clock()
    limiter = HostLimiter(AcquireConfig(host_interval_s=5, file_interval_s=1), folder, clock, clock.sleep)
    for host in ("a", "b", "a", "a"):
        limiter.wait(host, "video")
    limiter.wait("a", "file")
    assert clock.slept == [5, 5]


def test_videos_per_hour_hold_over_any_hour(folder: Path | None) -> None:
    clock = Clock()
    limiter = HostLimiter(AcquireConfig(host_interval_s=5, host_videos_per_hour=20), folder, clock, clock.sleep)
    times: list[float] = []
    for _ in range(50):
        limiter.wait("a", "video")
        times.append(clock.now)
    assert all(later - earlier >= 5 for earlier, later in itertools.pairwise(times))
    assert all(times[index + 20] - times[index] >= 3600 for index in range(30))
    assert times[19] - times[0] == 19 * 5  # and no slower than that


@pytest.mark.parametrize(("retry_after", "cooldown"), [(None, 7200), (60, 7200), (9000, 9000), (1e12, 7 * 86400)])
def test_the_breaker_opens_for_the_cool_down(folder: Path | None, retry_after: float | None, cooldown: float) -> None:
    clock = Clock()
    limiter = HostLimiter(AcquireConfig(), folder, clock, clock.sleep)
    limiter.throttled("a", retry_after)
    limiter.wait("b", "video")
    clock.now += cooldown - 1
    with pytest.raises(ThrottledError, match="1 s more"):
        limiter.wait("a", "video")
    clock.now += 1
    limiter.wait("a", "video")


def test_processes_share_turns_through_the_folder(tmp_path: Path) -> None:
    clock = Clock()
    first, second = (HostLimiter(AcquireConfig(), tmp_path, clock, clock.sleep) for _ in range(2))
    first.wait("a", "video")
    second.wait("a", "video")
    assert clock.slept == [5]
    first.throttled("a")
    with pytest.raises(ThrottledError):
        second.check("a")


def test_a_limiter_travels_to_another_process(tmp_path: Path) -> None:
    limiter = HostLimiter(AcquireConfig(), tmp_path)
    limiter.throttled("a")
    with pytest.raises(ThrottledError):
        pickle.loads(pickle.dumps(limiter)).check("a")  # noqa: S301


# --- web pages ------------------------------------------------------------------------------------------------------


def page(video: str) -> str:
    return f"<html><head><title>A talk</title></head><body><video src='{video}'></video></body></html>"


def test_a_pages_video_is_fetched_and_described(server: Server, tmp_path: Path, film: bytes) -> None:
    server.page("/talk", page("/media/clip.mp4"))
    server.file("/media/clip.mp4", film)
    got = get(server.url("/talk?token=secret"), tmp_path)
    assert leftovers(tmp_path) == ["film-1.mp4"]
    assert got.locate(tmp_path).read_bytes() == film
    assert got.provenance.tool == "yt-dlp"
    assert str(got.provenance.title).startswith("A talk")  # yt-dlp numbers the videos of a page
    assert got.provenance.final_url == server.url("/talk")
    assert got.provenance.media_type == "video/mp4"
    assert "secret" not in got.model_dump_json()


def test_a_page_may_not_lead_to_a_private_address(
    server: Server, tmp_path: Path, film: bytes, outside: AcquireConfig
) -> None:
    server.page("/talk", page(server.url("/secret.mp4", host="127.0.0.2")))
    server.file("/secret.mp4", film)
    with pytest.raises(SourceError, match="not a public address") as caught:
        get(server.url("/talk"), tmp_path, outside)
    assert caught.value.reason == "permanent"
    assert server.asked("/secret.mp4") == []


def test_a_pages_redirect_may_not_either(server: Server, tmp_path: Path, film: bytes, outside: AcquireConfig) -> None:
    server.page("/talk", page("/clip.mp4"))
    server.redirect("/clip.mp4", server.url("/secret.mp4", host="127.0.0.2"))
    server.file("/secret.mp4", film)
    with pytest.raises(SourceError, match="not a public address"):
        get(server.url("/talk"), tmp_path, outside)
    assert server.asked("/secret.mp4") == []


def playlist(segments: list[str], key: str = "") -> bytes:
    lines = [
        "#EXTM3U",
        "#EXT-X-VERSION:3",
        "#EXT-X-TARGETDURATION:1",
        "#EXT-X-MEDIA-SEQUENCE:0",
        *([key] if key else []),
    ]
    for segment in segments:
        lines += ["#EXTINF:1.0,", segment]
    return "\n".join([*lines, "#EXT-X-ENDLIST", ""]).encode()


@pytest.mark.parametrize("key", ["", '#EXT-X-KEY:METHOD=AES-256,URI="key.bin"'])
def test_segments_may_not_lead_to_a_private_address(
    server: Server, tmp_path: Path, outside: AcquireConfig, key: str
) -> None:
    segments = [server.url("/secret.ts", host="127.0.0.2")]  # with the key, yt-dlp would ask ffmpeg, past the guard
    server.file("/film.m3u8", playlist(segments, key), media_type="application/vnd.apple.mpegurl")
    server.file("/key.bin", b"k" * 16)
    server.file("/secret.ts", BODY)
    with pytest.raises(SourceError):
        get(server.url("/film.m3u8"), tmp_path, outside)
    assert server.asked("/secret.ts") == []


def test_ffmpeg_never_fetches(server: Server, tmp_path: Path) -> None:
    key = '#EXT-X-KEY:METHOD=AES-256,URI="/key.bin"'  # more than yt-dlp's own code can read
    server.file("/film.m3u8", playlist(["/a.ts"], key), media_type="application/vnd.apple.mpegurl")
    server.file("/key.bin", b"k" * 32)
    server.file("/a.ts", BODY)
    with pytest.raises(SourceError):
        get(server.url("/film.m3u8"), tmp_path)
    assert server.asked("/a.ts") == []


def test_a_page_without_video_is_unsupported(server: Server, tmp_path: Path) -> None:
    server.page("/text", "<html><body>words</body></html>")
    with pytest.raises(SourceError, match="Unsupported URL") as caught:
        get(server.url("/text"), tmp_path)
    assert caught.value.reason == "permanent"
    assert leftovers(tmp_path) == []


def test_a_page_with_several_videos_is_refused_before_any_is_fetched(
    server: Server, tmp_path: Path, film: bytes
) -> None:
    server.page("/talks", page("/1.mp4") + page("/2.mp4"))
    server.file("/1.mp4", film)
    server.file("/2.mp4", film)
    with pytest.raises(SourceError, match="several videos"):
        get(server.url("/talks"), tmp_path)
    assert leftovers(tmp_path) == []


def test_a_pages_video_obeys_the_size_cap(server: Server, tmp_path: Path, film: bytes) -> None:
    server.page("/talk", page("/clip.mp4"))
    server.file("/clip.mp4", film)
    with pytest.raises(SourceError, match="The video has at least"):
        get(server.url("/talk"), tmp_path, CONFIG.model_copy(update={"max_bytes": len(film) - 1}))
    assert leftovers(tmp_path) == []


@pytest.mark.parametrize(
    ("status", "reason"), [(429, "throttled"), (500, "transient"), (404, "permanent"), (403, "permanent")]
)
def test_a_pages_failing_video_is_classed(server: Server, tmp_path: Path, status: int, reason: str) -> None:
    server.page("/talk", page("/clip.mp4"))
    server.failing("/clip.mp4", status, 99, b"")
    with pytest.raises(SourceError) as caught:
        get(server.url("/talk"), tmp_path, CONFIG.model_copy(update={"num_attempts": 1}))
    assert caught.value.reason == reason


@pytest.mark.parametrize(
    ("video", "sentence"),
    [
        ({"is_live": True}, "live stream"),
        ({"live_status": "is_upcoming"}, "live stream"),
        ({"duration": 14401}, "lasts 14401 s"),
        ({"n_entries": 2}, "several videos"),
        ({"protocol": "rtmp"}, "over rtmp only"),
        ({"requested_formats": [{"protocol": "https"}, {"protocol": "mms"}]}, "over mms only"),
    ],
)
def test_what_a_site_says_is_checked_before_the_download(video: dict[str, object], sentence: str) -> None:
    with pytest.raises(SourceError, match=sentence):
        web._check_video({"webpage_url": "https://example.org/v", **video}, AcquireConfig())
    web._check_video({"duration": 14400, "protocol": "https+m3u8_native", "live_status": "was_live"}, AcquireConfig())


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("[youtube] x: Sign in to confirm you’re not a bot. Use --cookies", "throttled"),
        ("Unable to download webpage: HTTP Error 429: Too Many Requests", "throttled"),
        ("[youtube] x: Private video. Sign in if you've been granted access", "permanent"),
        ("[youtube] x: Video unavailable. This video has been removed", "permanent"),
        ("Unsupported URL: https://example.org/", "permanent"),
        ("Unable to download webpage: The read operation timed out", "transient"),
    ],
)
def test_a_sites_words_are_classed(text: str, reason: str) -> None:
    limiter = HostLimiter(AcquireConfig())
    notes = web._Notes()
    notes.warning("No supported JavaScript runtime could be found. YouTube extraction without one is deprecated")
    error = web._named("https://example.org/v", web.DownloadError(f"ERROR: {text}"), notes, limiter)
    assert error.reason == reason
    assert "install deno" in str(error)
    if reason == "throttled":
        with pytest.raises(ThrottledError):
            limiter.check("example.org")


def test_known_sites_are_known_and_plain_hosts_are_not() -> None:
    assert web.has_extractor("https://www.youtube.com/watch?v=aqz-KE-bpKQ")
    assert not web.has_extractor("https://example.org/talk")


# --- local files ----------------------------------------------------------------------------------------------------


def test_a_local_file_is_hashed_where_it_lies(tmp_path: Path) -> None:
    (tmp_path / "häus #1 %41.mp4").write_bytes(BODY)
    (tmp_path / "link.mp4").symlink_to("häus #1 %41.mp4")
    for uri in (str(tmp_path / "link.mp4"), (tmp_path / "link.mp4").as_uri(), (tmp_path / "häus #1 %41.mp4").as_uri()):
        got = get(uri, tmp_path / "into")
        assert got.locate(tmp_path / "into") == tmp_path / "häus #1 %41.mp4"
        assert got.sha256 == hashlib.sha256(BODY).hexdigest()
        assert got.provenance.final_url == (tmp_path / "häus #1 %41.mp4").as_uri()
        assert str(tmp_path) not in got.provenance.uri
    assert not (tmp_path / "into").exists()


def test_only_regular_files_of_the_right_size_and_content_pass(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "empty").touch()
    (tmp_path / "big").write_bytes(b"12345")
    (tmp_path / "loop").symlink_to("loop")
    config = CONFIG.model_copy(update={"max_bytes": 4})
    cases = {"missing": "does not exist", "fifo": "no regular file", "": "no regular file", "empty": "0 bytes"}
    for name, sentence in {**cases, "big": "max_bytes allows 4", "loop": "does not exist"}.items():
        with pytest.raises(SourceError, match=sentence):
            get(str(tmp_path / name), tmp_path, config)
    with pytest.raises(SourceError, match="no regular file"):
        get("/dev/zero", tmp_path)
    with pytest.raises(SourceError, match="the manifest says"):
        get(str(tmp_path / "big"), tmp_path, sha256="0" * 64)
    assert (tmp_path / "big").exists()  # the user's own file is never removed


def test_a_scheme_that_is_not_configured_is_a_usage_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="'file:' is not allowed"):
        get(str(tmp_path), tmp_path, CONFIG.model_copy(update={"schemes": ("https",)}))


# --- object stores --------------------------------------------------------------------------------------------------


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    moto_server = pytest.importorskip("moto.server")
    boto = pytest.importorskip("botocore.session")
    running = moto_server.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    running.start()
    host, port = running.get_host_and_port()
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    client = boto.Session().create_client("s3", region_name="us-east-1")
    client.create_bucket(Bucket="films")
    client.put_object(Bucket="films", Key="a/film.mp4", Body=BODY, ContentType="video/mp4")
    client.put_object(Bucket="films", Key="empty.mp4", Body=b"")
    try:
        yield "s3://films"
    finally:
        running.stop()


def test_an_object_is_read_and_every_refusal_is_a_sentence(bucket: str, tmp_path: Path) -> None:
    got = get(f"{bucket}/a/film.mp4", tmp_path)
    assert got.locate(tmp_path).read_bytes() == BODY
    assert leftovers(tmp_path) == ["film-1.mp4"]
    assert got.provenance.media_type == "video/mp4"
    cases = {"a/none.mp4": "does not exist", "empty.mp4": "0 bytes", "a": "is a folder"}
    for key, sentence in cases.items():
        with pytest.raises(SourceError, match=sentence):
            get(f"{bucket}/{key}", tmp_path)
    with pytest.raises(SourceError, match="max_bytes"):
        get(f"{bucket}/a/film.mp4", tmp_path, CONFIG.model_copy(update={"max_bytes": len(BODY) - 1}))


def test_an_objects_partial_file_is_continued_while_its_etag_holds(bucket: str, tmp_path: Path) -> None:
    uri, etag = f"{bucket}/a/film.mp4", f'"{hashlib.md5(BODY, usedforsecurity=False).hexdigest()}"'
    for validator, kept in ((etag, True), ('"other"', False)):
        partial = Partial(tmp_path, "film-1", uri)
        partial.restart(validator, len(BODY))
        with partial.append() as stream:
            stream.write(b"mark" * 25_000)
        arrived = get(uri, tmp_path).locate(tmp_path).read_bytes()
        assert arrived == (b"mark" * 25_000 + BODY[100_000:] if kept else BODY)


def test_a_store_that_does_not_answer_is_transient(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{taken.getsockname()[1]}")
        with pytest.raises(TransientError, match="could not be read"):
            get("s3://films/film.mp4", tmp_path, CONFIG.model_copy(update={"num_attempts": 1}))


def test_gs_without_its_package_says_what_to_install(tmp_path: Path) -> None:
    try:
        import gcsfs  # noqa: F401
    except ImportError:
        with pytest.raises(UsageError, match="pip install gcsfs"):
            get("gs://films/film.mp4", tmp_path)
