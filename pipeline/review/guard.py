"""Who may talk to the screening server: this page, opened by who was given its address, and nobody else.

A browser lets any web page send requests to this machine's own addresses, and lets a name be pointed at them later.
So a request has to name a host that is ours, carry the cookie that only the printed address gives, and, where it
changes something, come from a page of ours.
"""

import hmac
import ipaddress
import json
import os
import secrets
import socket
from collections.abc import Awaitable, Callable, MutableMapping
from http.cookies import CookieError, SimpleCookie
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

from pipeline.store.storage import clear_write_errors

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

MAX_BODY_BYTES = 64 * 1024
_SAFE = {"GET", "HEAD"}
_HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "media-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
}


def read_token(path: Path) -> str:
    """The server's token, kept in a file that only its owner reads: a page stays valid when the server is restarted."""
    with clear_write_errors(str(path)):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        except FileExistsError:
            kept = path.read_text(encoding="ascii").strip()
            if len(kept) >= 32 and not path.stat().st_mode & 0o077:
                return kept
            path.unlink()  # cut off while it was written, or read by others
            return read_token(path)
        token = secrets.token_urlsafe(32)
        with os.fdopen(descriptor, "w", encoding="ascii") as file:
            file.write(token)
        return token


def own_names(host: str) -> frozenset[str]:
    """Names by which this machine may be addressed; addresses in digits, which nobody can redirect, come besides."""
    names = {"localhost", host.lower()}
    if not is_loopback(host):
        names |= {socket.gethostname().lower(), socket.getfqdn().lower()}
    return frozenset(names)


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches an address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


class Guard:
    """Let requests through that are the page's own; answer all others here.

    Args:
        app: what is guarded.
        token: that the printed address carries.
        host: to which the server listens.
        cookie: the name of the cookie; another one for each workspace, since ports share theirs.
    """

    def __init__(self, app: App, *, token: str, host: str, cookie: str) -> None:
        self._app, self._token, self._cookie = app, token, cookie
        self._names, self._loopback_only = own_names(host), is_loopback(host)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self._app(scope, receive, send)
            return
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        refusal = self._refusal(scope, headers)
        if refusal is not None:
            await _answer(send, *refusal)
        elif self._is_entry(scope):
            cookie = f"{self._cookie}={self._token}; Path=/; HttpOnly; SameSite=Strict; Max-Age=31536000"
            await _answer(send, 303, "", {"location": "/", "set-cookie": cookie, "cache-control": "no-store"})
        elif not self._is_known(headers):
            await _answer(send, 401, "open the address that 'anitalk review' printed: it carries the token")
        else:
            await self._app(scope, receive, _with_headers(send))

    def _refusal(self, scope: Scope, headers: dict[str, str]) -> tuple[int, str] | None:
        if not self._is_ours(headers.get("host", "")):
            return 400, "this server is not known by that name: use the address that 'anitalk review' printed"
        if scope["method"] in _SAFE:
            return None
        if headers.get("origin") != f"{scope['scheme']}://{headers['host']}":
            return 403, "only the screening page itself may change anything"
        if headers.get("content-type", "").split(";")[0].strip() != "application/json":
            return 415, "only JSON is taken"
        length = headers.get("content-length", "")
        # Without a length nobody can say beforehand how much would come.
        if not length.isdecimal() or len(length) > 12 or int(length) > MAX_BODY_BYTES:
            return 413, f"at most {MAX_BODY_BYTES} bytes are taken, and their number has to be said"
        return None

    def _is_ours(self, host: str) -> bool:
        name = host.rsplit(":", 1)[0] if not host.endswith("]") else host
        name = name.strip("[]").lower()
        try:
            address = ipaddress.ip_address(name)
        except ValueError:
            return name in self._names
        return address.is_loopback or not self._loopback_only

    def _is_entry(self, scope: Scope) -> bool:
        given = parse_qs(scope["query_string"].decode("latin-1")).get("token", [""])[0]
        return scope["method"] in _SAFE and scope["path"] == "/" and self._is_token(given)

    def _is_known(self, headers: dict[str, str]) -> bool:
        try:
            cookies = SimpleCookie(headers.get("cookie", ""))
        except CookieError:
            return False
        return self._cookie in cookies and self._is_token(cookies[self._cookie].value)

    def _is_token(self, given: str) -> bool:
        return hmac.compare_digest(given.encode(), self._token.encode())


def _with_headers(send: Send) -> Send:
    async def sending(message: MutableMapping[str, Any]) -> None:
        if message["type"] == "http.response.start":
            extra = [(name.encode(), value.encode()) for name, value in _HEADERS.items()]
            message = {**message, "headers": [*message.get("headers", []), *extra]}
        await send(message)

    return sending


async def _answer(send: Send, status: int, sentence: str, headers: dict[str, str] | None = None) -> None:
    body = json.dumps({"error": sentence}).encode() if sentence else b""
    sent = {"content-type": "application/json", "content-length": str(len(body)), **(headers or {})}
    start = {
        "type": "http.response.start",
        "status": status,
        "headers": [(name.encode(), value.encode("latin-1")) for name, value in sent.items()],
    }
    await _with_headers(send)(start)
    await send({"type": "http.response.body", "body": body})
