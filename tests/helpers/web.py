"""A web server on loopback that behaves as badly as real ones do, and counts what it sent."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit


@dataclass
class Request:
    """One request as the server saw it, with the body bytes it got in return."""

    path: str
    headers: Message  # names in any case
    sent: int = 0


Answer = Callable[["Exchange"], None]


class Exchange(BaseHTTPRequestHandler):
    """One request; its path chooses the answer."""

    protocol_version = "HTTP/1.1"
    server: "Server"
    seen: Request

    def do_GET(self) -> None:
        path = urlsplit(self.path).path
        self.seen = Request(path, self.headers)
        self.server.requests.append(self.seen)
        self.close_connection = True
        answer = self.server.answers.get(path)
        if answer is None:
            self.answer(404, b"not here")
            return
        answer(self)

    do_HEAD = do_GET  # noqa: N815

    def begin(self, status: int, **headers: str | int) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), str(value))
        self.send_header("Connection", "close")
        self.end_headers()

    def send(self, body: bytes) -> None:
        self.seen.sent += len(body)  # before the client has it all and a test asks
        try:
            self.wfile.write(body)
            self.wfile.flush()
        except OSError:
            self.seen.sent -= len(body)

    def answer(self, status: int, body: bytes, **headers: str | int) -> None:
        self.begin(status, **{"Content_Length": len(body), **headers})
        if self.command != "HEAD":
            self.send(body)

    def log_message(self, *args: object) -> None:
        pass


@dataclass
class _Counter:
    calls: int = 0


class Server(ThreadingHTTPServer):
    """Answers by path; ``requests`` lists what was asked."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Exchange)
        self.answers: dict[str, Answer] = {}
        self.requests: list[Request] = []
        self.closing = threading.Event()

    def url(self, path: str, host: str = "127.0.0.1") -> str:
        return f"http://{host}:{self.server_address[1]}{path}"

    def asked(self, path: str) -> list[Request]:
        return [request for request in self.requests if request.path == path]

    def file(self, path: str, body: bytes, media_type: str = "video/mp4", etag: str = '"v1"') -> None:
        """A file that can be continued, as RFC 9110 has it."""

        def answer(exchange: Exchange) -> None:
            headers: dict[str, str | int] = {"Content_Type": media_type, "ETag": etag}
            start = range_start(exchange, etag)
            if start is None:
                exchange.answer(200, body, **headers)
            elif start >= len(body):
                exchange.answer(416, b"", Content_Range=f"bytes */{len(body)}")
            else:
                content_range = f"bytes {start}-{len(body) - 1}/{len(body)}"
                exchange.answer(206, body[start:], Content_Range=content_range, **headers)

        self.answers[path] = answer

    def cut_short(self, path: str, body: bytes, *, after: int, times: int, etag: str = '"v1"') -> None:
        """The same file, but the first ``times`` answers break off after ``after`` bytes."""
        counter = _Counter()
        self.file(path, body, etag=etag)
        whole = self.answers[path]

        def answer(exchange: Exchange) -> None:
            counter.calls += 1
            if counter.calls > times:
                whole(exchange)
                return
            start = range_start(exchange, etag) or 0
            status = 206 if start else 200
            headers: dict[str, str | int] = {"Content_Length": len(body) - start, "Content_Type": "video/mp4"}
            if start:
                headers["Content_Range"] = f"bytes {start}-{len(body) - 1}/{len(body)}"
            exchange.begin(status, ETag=etag, **headers)
            exchange.send(body[start : start + after])

        self.answers[path] = answer

    def failing(self, path: str, status: int, times: int, then: bytes, **headers: str | int) -> None:
        """An error ``times`` times, then a file."""
        counter = _Counter()

        def answer(exchange: Exchange) -> None:
            counter.calls += 1
            if counter.calls <= times:
                exchange.answer(status, b"busy", **headers)
            else:
                exchange.answer(200, then, Content_Type="video/mp4")

        self.answers[path] = answer

    def redirect(self, path: str, to: str, status: int = 302) -> None:
        self.answers[path] = lambda exchange: exchange.answer(status, b"", Location=to)

    def page(self, path: str, html: str) -> None:
        self.answers[path] = lambda exchange: exchange.answer(200, html.encode(), Content_Type="text/html")

    def stalling(self, path: str, body: bytes, *, after: int) -> None:
        """Promises the whole body, sends some of it, then nothing."""

        def answer(exchange: Exchange) -> None:
            exchange.begin(200, Content_Length=len(body), Content_Type="video/mp4", ETag='"v1"')
            exchange.send(body[:after])
            self.closing.wait(20)

        self.answers[path] = answer

    def endless(self, path: str) -> None:
        """Chunks without a length, as long as somebody reads."""

        def answer(exchange: Exchange) -> None:
            exchange.begin(200, Transfer_Encoding="chunked", Content_Type="video/mp4")
            deadline = time.monotonic() + 20
            while time.monotonic() < deadline and not self.closing.is_set():
                try:
                    exchange.wfile.write(b"1000\r\n" + b"x" * 4096 + b"\r\n")
                except OSError:
                    return
                exchange.seen.sent += 4096

        self.answers[path] = answer


def range_start(exchange: Exchange, etag: str) -> int | None:
    """Where the client wants to continue, if its copy is of this file."""
    wanted = exchange.headers.get("Range")
    if not wanted or exchange.headers.get("If-Range", etag) != etag:
        return None
    return int(wanted.removeprefix("bytes=").partition("-")[0])


@contextmanager
def serving() -> Iterator[Server]:
    """A running server, gone at the end."""
    server = Server()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.closing.set()
        server.shutdown()
        server.server_close()
        thread.join(5)
