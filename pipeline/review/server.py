"""The screening server: the page, what it asks for, and the one way in for what people say.

Whatever a request names is looked up among the known clips by its id; no part of an address ever becomes a path.
Media, arrays and thumbnails carry the clip's version in their address, so a browser may keep them for good.
"""

import asyncio
import contextlib
import getpass
import json
import logging
import os
import re
import socket
import threading
import time
import webbrowser
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from pipeline.review.clipfiles import ClipFiles
from pipeline.review.desk import Desk
from pipeline.review.detail import detail_of, packed_arrays
from pipeline.review.guard import App, Guard, is_loopback, read_token
from pipeline.review.order import Why
from pipeline.store.storage import clear_write_errors
from pipeline.store.workspace import Workspace
from schemas.base import content_hash
from schemas.errors import AnitalkError, UsageError
from schemas.face import MOTION_CHANNELS
from schemas.files import now_iso
from schemas.review import MAX_NAME, REVIEW_REASONS

log = logging.getLogger(__name__)

STATIC = Path(__file__).parent / "static"
PAGE_ROWS = 1000  # of the list at once
_MOST_UNDONE = 200
_RANGE = re.compile(r"bytes=(\d{1,18}-\d{0,18}|-\d{1,18})")
_FOREVER = "private, max-age=31536000, immutable"


def make_app(desk: Desk, files: ClipFiles, *, reviewer: str) -> Starlette:
    """The routes without their guard."""
    pages = Pages(desk, files, reviewer)
    routes = [
        Route("/", pages.index),
        Route("/api/start", pages.start),
        Route("/api/clips", pages.clips),
        Route("/api/clips/{clip_id}", pages.clip),
        Route("/api/queue", pages.queue),
        Route("/api/changes", pages.changes),
        Route("/api/reviews", pages.mine, methods=["GET"]),
        Route("/api/reviews", pages.say, methods=["POST"]),
        Route("/api/refresh", pages.refresh, methods=["POST"]),
        Route("/media/{clip_id}/{version}", pages.media),
        Route("/thumbs/{clip_id}/{version}", pages.thumbnail),
        Route("/arrays/{clip_id}/{version}", pages.arrays),
        Mount("/static", StaticFiles(directory=STATIC)),
    ]
    return Starlette(routes=routes, exception_handlers={AnitalkError: _refused})


def _refused(_: Request, error: Exception) -> JSONResponse:
    """A sentence for the page: 404 and the like say so themselves."""
    return JSONResponse({"error": str(error)}, 422 if isinstance(error, UsageError) else 500)


class Pages:
    """What is answered to each address."""

    def __init__(self, desk: Desk, files: ClipFiles, reviewer: str) -> None:
        self._desk, self._files, self._reviewer = desk, files, reviewer
        self._drawing = asyncio.Semaphore(max(2, (os.cpu_count() or 2) // 2))

    def index(self, _: Request) -> Response:
        """The page."""
        return FileResponse(STATIC / "index.html", headers={"cache-control": "no-cache"})

    def start(self, _: Request) -> Response:
        """All that does not depend on a clip."""
        catalogue = self._desk.catalogue
        sources = {entry.made.source.id: entry.made.source for entry in catalogue.entries}
        return _json(
            {
                "edition": catalogue.edition,
                "workspace": self._desk.workspace.storage.uri,
                "place": content_hash(self._desk.workspace.storage.path(""))[:12],
                "reviewer": self._reviewer,
                "now": now_iso("milliseconds"),
                "num_clips": len(catalogue.entries),
                "page_rows": PAGE_ROWS,
                "domains": catalogue.domains,
                "reasons": [reason.value for reason in REVIEW_REASONS],
                "channels": MOTION_CHANNELS,
                "compared": catalogue.collection is not None,
                "sources": [{"id": name, "title": sources[name].title} for name in catalogue.source_ids],
            }
        )

    def clips(self, request: Request) -> Response:
        """A part of the list."""
        start = _number(request, "start")
        catalogue = self._desk.catalogue
        return _json({"edition": catalogue.edition, "start": start, "rows": catalogue.rows(start, PAGE_ROWS)})

    def clip(self, request: Request) -> Response:
        """All about one clip."""
        return _json(detail_of(self._desk, self._desk.entry(request.path_params["clip_id"])))

    def queue(self, request: Request) -> Response:
        """The clips to ask a reviewer about, in that order."""
        turns = self._desk.queue(_reviewer(request))
        return _json(
            {
                "edition": self._desk.catalogue.edition,
                "ids": [turn.clip_id for turn in turns],
                "blind": [turn.clip_id for turn in turns if turn.why is Why.RECHECK],
                "chances": [None if turn.probability is None else round(turn.probability, 2) for turn in turns],
            }
        )

    def changes(self, request: Request) -> Response:
        """What is new since the page last asked, by whomever."""
        self._desk.reread_if_due()
        sequence, states = self._desk.changes(_number(request, "after"))
        content = {
            "edition": self._desk.catalogue.edition,
            "sequence": sequence,
            "states": states,
            "now": now_iso("milliseconds"),
        }
        return _json({**content, "worked_s": round(self._desk.worked_s())})

    def mine(self, request: Request) -> Response:
        """What a reviewer can undo, the newest last."""
        return _json({"reviews": self._desk.latest_of(_reviewer(request), _MOST_UNDONE)})

    async def say(self, request: Request) -> Response:
        """Take a review; the answer comes when it is on the disk."""
        fields = await _body(request)
        review = await run_in_threadpool(self._desk.say, fields)
        state = self._desk.state(review.clip_id)
        return _json({"review_id": review.review_id, "clip_id": review.clip_id, "state": state})

    async def refresh(self, request: Request) -> Response:
        """Read the clips of the workspace again."""
        await _body(request)
        await run_in_threadpool(self._desk.refresh)
        return _json({"edition": self._desk.catalogue.edition})

    def media(self, request: Request) -> Response:
        """A clip's mp4, or any one part of it."""
        entry_key = self._key(request)
        if entry_key is None:
            return _made_anew()
        path = self._files.media(entry_key)
        size = path.stat().st_size
        asked = request.headers.get("range")
        if asked is not None and not _is_range(asked, size):
            return Response(status_code=416, headers={"content-range": f"bytes */{size}"})
        return FileResponse(path, media_type="video/mp4", headers=_kept(entry_key))

    async def thumbnail(self, request: Request) -> Response:
        """A clip's picture in the grid; few are drawn at a time, so that a screenful of them holds up no clip."""
        async with self._drawing:
            if await request.is_disconnected():
                return Response(status_code=499)
            return await run_in_threadpool(self._thumbnail, request)

    def _thumbnail(self, request: Request) -> Response:
        key = self._key(request)
        return self._answered(request, key, lambda key: self._files.thumbnail(key).read_bytes(), "image/jpeg")

    def arrays(self, request: Request) -> Response:
        """What was measured frame by frame."""
        key = self._key(request)
        entry = self._desk.entry(request.path_params["clip_id"])
        return self._answered(
            request, key, lambda _: packed_arrays(self._desk.catalogue, entry), "application/octet-stream"
        )

    def _key(self, request: Request) -> str | None:
        """The key of the clip that is asked for; None when it is no longer of that version."""
        key = self._desk.entry(request.path_params["clip_id"]).made.key
        return key if request.path_params["version"] == key else None

    def _answered(self, request: Request, key: str | None, make: Callable[[str], bytes], media_type: str) -> Response:
        if key is None:
            return _made_anew()
        if request.headers.get("if-none-match") == _kept(key)["etag"]:
            return Response(status_code=304, headers=_kept(key))
        return Response(make(key), media_type=media_type, headers=_kept(key))


def _json(content: Mapping[str, Any]) -> Response:
    return JSONResponse(content, headers={"cache-control": "no-store"})


def _kept(key: str) -> dict[str, str]:
    return {"etag": f'"{key}"', "cache-control": _FOREVER}


def _made_anew() -> Response:
    return JSONResponse({"error": "this clip has been made anew since: load the page again"}, 404)


def _is_range(asked: str, size: int) -> bool:
    """Whether one part of a file of that size is asked for, which begins inside it."""
    match = _RANGE.fullmatch(asked.strip())
    if match is None:
        return False
    first, last = match[1].split("-")
    if not first:
        return int(last) > 0
    return int(first) < size and (not last or int(first) <= int(last))


def _number(request: Request, name: str) -> int:
    given = request.query_params.get(name, "0")
    if not given.isdecimal() or len(given) > 12:
        raise UsageError(f"{name} is a number, found {given[:40]!r}")
    return int(given)


def _reviewer(request: Request) -> str:
    name = request.query_params.get("reviewer", "")
    if not 0 < len(name) <= MAX_NAME:
        raise UsageError(f"a reviewer's name has 1 to {MAX_NAME} letters")
    return name


async def _body(request: Request) -> dict[str, Any]:
    try:
        content = json.loads(await request.body())
    except (ValueError, RecursionError) as error:
        raise UsageError("the request is no JSON") from error
    if not isinstance(content, dict):
        raise UsageError("the request is no JSON object")
    return content


# ---- running it ----------------------------------------------------------------------------------------------------


def open_page(
    workspace: str, *, host: str = "127.0.0.1", port: int = 0, reviewer: str | None = None, browser: bool = True
) -> None:
    """Serve the screening page of a workspace until it is interrupted.

    Args:
        workspace: folder or URI.
        host: address to listen to; loopback unless others shall reach it.
        port: 0 for the one of the last time where it is free, else any.
        reviewer: the name that pages begin with; this user's by default.
        browser: open the page there.

    Raises:
        UsageError: when there is no build, or the address cannot be used.
    """
    opened = Workspace(workspace)
    state = opened.state_folder / "review"
    token = read_token(state / "token")
    listening = _listen(host, port, state / "port")
    desk = Desk(opened)
    app = make_app(desk, ClipFiles(opened), reviewer=reviewer or _login())
    cookie = f"anitalk_{content_hash(opened.storage.path(''))[:12]}"
    guarded = Guard(app, token=token, host=host, cookie=cookie)
    address = f"http://{_shown(host)}:{listening.getsockname()[1]}/?token={token}"
    print(f"{len(desk.catalogue.entries)} clips: {address}", flush=True)  # noqa: T201
    if not is_loopback(host):
        print("others on the network can reach this page: whoever has the address can decide", flush=True)  # noqa: T201
    _serve(guarded, listening, address if browser else None)


def _serve(app: App, listening: socket.socket, address: str | None) -> None:
    server = uvicorn.Server(
        uvicorn.Config(app, log_level="warning", access_log=False, lifespan="off", timeout_graceful_shutdown=2)  # type: ignore[arg-type]
    )
    if address is not None:
        threading.Thread(target=_open_when_ready, args=(server, address), daemon=True).start()
    with listening:
        server.run(sockets=[listening])


def _open_when_ready(server: uvicorn.Server, address: str) -> None:
    while not server.started and not server.should_exit:
        time.sleep(0.02)
    webbrowser.open(address)


def _listen(host: str, port: int, memory: Path) -> socket.socket:
    """A listening socket; its port is kept, so that pages find a restarted server again."""
    for wanted in [port] if port else [*_remembered(memory), 0]:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        listening = socket.socket(family, socket.SOCK_STREAM)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listening.bind((host, wanted))
            listening.listen(128)
        except (OSError, OverflowError) as error:
            listening.close()
            if wanted == 0 or port:
                raise UsageError(f"cannot listen to {host} at port {wanted} ({error}): choose another") from error
            continue
        with clear_write_errors(str(memory)):
            memory.write_text(str(listening.getsockname()[1]), encoding="ascii")
        return listening
    raise AssertionError("the last port to be tried is any")


def _remembered(memory: Path) -> Iterator[int]:
    with contextlib.suppress(OSError, ValueError):
        port = int(memory.read_text(encoding="ascii"))
        if 0 < port < 65536:
            yield port


def _shown(host: str) -> str:
    """An address that a browser on this machine can open."""
    if host in {"0.0.0.0", "::"}:  # noqa: S104 - it is compared, not listened to
        return socket.gethostname()
    return f"[{host}]" if ":" in host else host


def _login() -> str:
    try:
        return getpass.getuser()[:MAX_NAME] or "reviewer"
    except (KeyError, OSError):  # a user without a name, as in some containers
        return "reviewer"
