"""The screening page in a real browser: what a person does with keys, a mouse or a finger, and what is stored of it.

Debian's Chromium, driven by Playwright; its own browsers are never fetched.
"""

import contextlib
import os
import shutil
import socket
import threading
import time
from pathlib import Path

import pytest
import uvicorn

from pipeline.review.clipfiles import ClipFiles
from pipeline.review.guard import Guard
from pipeline.review.order import Asked, Order, Why
from pipeline.review.server import make_app
from pipeline.review.state import ScreeningState
from pipeline.store.reviews import ReviewLog, standing
from pipeline.store.workspace import Workspace
from schemas.base import FrameSpan
from schemas.review import REVIEW_REASONS
from schemas.router import DOUBTFUL_FLAG, RouterScore
from tests.helpers.screened import NUM_FRAMES, review, running, small_workspace, stock_clips, template, unlike_workspace
from tests.pipeline.review.test_server import SEEN

playwright = pytest.importorskip("playwright.sync_api")
pytestmark = pytest.mark.browser

CHROMIUM = Path(os.environ.get("ANITALK_CHROMIUM", "/usr/bin/chromium"))
FIRST, SECOND = "film0000-0", "film0000-2"  # the second of the list is outside the limits, and so asked about later
NEW_WORDS_MS = 60_000  # more than a page takes to learn of something, on a busy machine too


@pytest.fixture(scope="module")
def chromium(request):
    if not CHROMIUM.is_file():
        message = f"needs Debian's Chromium at {CHROMIUM} (apt-get install chromium, or ANITALK_CHROMIUM)"
        if os.environ.get("ANITALK_REQUIRE_ASSETS"):
            pytest.fail(message)
        pytest.skip(message)
    # Playwright switches stacks, after which Python 3.11 may fail to parse the sources that longer reports show.
    style, request.config.option.tbstyle = request.config.option.tbstyle, "native"
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=str(CHROMIUM), args=["--no-sandbox"])
        yield browser
        browser.close()
    request.config.option.tbstyle = style


@pytest.fixture(scope="module")
def stocked(tmp_path_factory):
    """A workspace to copy, never to change."""
    return small_workspace(tmp_path_factory.mktemp("screened") / "ws").storage.root


@pytest.fixture
def workspace(stocked, tmp_path):
    shutil.copytree(stocked, tmp_path / "ws")
    return Workspace(tmp_path / "ws")


@contextlib.contextmanager
def served(workspace):
    """The server in this process; gives the address to open."""
    token, host = "t" * 43, "127.0.0.1"
    listening = socket.create_server((host, 0))
    app = Guard(
        make_app(ScreeningState(workspace), ClipFiles(workspace), reviewer="ann"), token=token, host=host, cookie="c"
    )
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning", lifespan="off", timeout_graceful_shutdown=1))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
    thread.start()
    try:
        yield f"http://{host}:{listening.getsockname()[1]}/?token={token}"
    finally:
        server.should_exit = True
        thread.join()
        listening.close()


@pytest.fixture
def address(workspace):
    with served(workspace) as url:
        yield url


class Page:
    """One person's browser window; what goes wrong in it is kept."""

    def __init__(self, browser, address, *, size=(1280, 720), name=None, quiet=True):
        self.context = browser.new_context(viewport={"width": size[0], "height": size[1]})
        self.page = self.context.new_page()
        self.faults, self.hosts, self.quiet = [], set(), quiet
        self.page.on("pageerror", lambda error: self.faults.append(str(error)))
        self.page.on("console", lambda message: message.type == "error" and self.faults.append(message.text))
        self.page.on("request", lambda request: self.hosts.add(request.url.split("/")[2]))
        if name:
            self.context.add_init_script(f"sessionStorage.setItem('reviewer', '{name}')")
        self.page.goto(address)
        self.ready()

    def ready(self):
        self.until("performance.getEntriesByName('ready').length > 0")
        self.until("document.querySelector('video.shown')?.readyState >= 2")

    def close(self):
        self.context.close()
        assert len(self.hosts) == 1, f"something was asked of others: {self.hosts}"
        assert not self.quiet or not self.faults

    def until(self, script, arg=None, timeout=NEW_WORDS_MS):
        """Until a script gives something true; Playwright's own waiting needs what the page's policy forbids."""
        self.wait_for(lambda: self.page.evaluate(script, arg), f"{script} ({arg})", timeout)

    def wait_for(self, condition, what="", timeout=NEW_WORDS_MS):
        """Until something is true, in turns with the page's own events."""
        end = time.monotonic() + timeout / 1000
        while not condition():
            assert time.monotonic() < end, f"not in {timeout} ms: {what}"
            self.page.wait_for_timeout(20)

    def press(self, *keys):
        for key in keys:
            self.page.keyboard.press(key)

    def clip(self):
        return self.page.evaluate("location.hash.slice(1)")

    def shows(self, clip_id):
        self.until(f"location.hash === '#{clip_id}'")
        self.until(f"document.querySelector('video.shown')?.src.includes('/{clip_id}/')")

    def says(self, selector, text, timeout=NEW_WORDS_MS):
        script = "([where, text]) => document.querySelector(where)?.textContent.includes(text)"
        self.until(script, [selector, text], timeout)

    def video(self, script):
        return self.page.evaluate(
            f"(() => {{ const video = document.querySelector('video.shown'); return {script} }})()"
        )

    def stored(self):
        """Until all that was said is on the server's disk."""
        script = "Object.keys(localStorage).every((name) => !name.startsWith('outbox') || localStorage[name] === '[]')"
        self.until(script)


@pytest.fixture
def open_page(chromium, address):
    """Open the page, once or more often; all must close without a fault."""
    pages = []

    def opened(**options):
        pages.append(Page(chromium, address, **options))
        return pages[-1]

    yield opened
    for page in pages:
        page.close()


def said(workspace):
    return ReviewLog(workspace).read()


def verdicts(workspace):
    """Action and reason of each clip that has a verdict."""
    versions = ScreeningState(workspace).catalogue.versions
    stands = standing(said(workspace), versions)
    return {name: (str(clip.verdict.action), clip.verdict.reason) for name, clip in stands.items() if clip.verdict}


# --- playing ---


def test_the_clip_plays_at_once_over_and_over_and_with_sound_after_the_first_key(open_page):
    page = open_page()
    assert page.video("video.loop")
    assert page.video("video.muted")
    assert page.page.get_by_text("muted until your first key or tap").is_visible()
    before = page.video("video.currentTime")
    page.until("(before) => document.querySelector('video.shown').currentTime > before + .2", arg=before)
    page.press("l")
    assert not page.video("video.muted")
    assert not page.page.get_by_text("muted until your first key or tap").is_visible()
    page.video("video.currentTime = video.duration - .1")
    page.until("document.querySelector('video.shown').currentTime < 1")
    assert not page.video("video.paused")


def test_frames_step_and_the_pace_changes(open_page):
    page = open_page()
    page.press("k", ",", ".")
    assert page.video("video.paused")
    page.says("#time", f"/ {NUM_FRAMES}")
    frame = int(page.page.text_content("#time").split("/")[0])
    for count in (1, 2, 3):
        page.press(".")
        page.says("#time", f"{(frame + count) % NUM_FRAMES} /")
    page.video("video.currentTime = 60.5 / 25")
    page.says("#time", "60 /")
    page.press(*"," * 40)  # as a key that is held, faster than frames are painted
    page.until("document.querySelector('#time').textContent.startsWith('20 /')")
    page.page.wait_for_timeout(200)
    page.says("#time", "20 /")
    page.press("-", "-")
    assert page.video("video.playbackRate") == 0.5
    page.press("+", "+", "+")
    assert page.video("video.playbackRate") == 1.5


def test_overlays_are_drawn_over_the_frame_and_can_be_hidden(open_page):
    page = open_page()
    painted = "document.getElementById('overlay').getContext('2d').getImageData(0,0,400,400).data.some((v) => v)"
    page.until(painted)
    page.press("l")
    page.until(f"!({painted})")
    for key in "pb":
        page.press(key)
        page.until(painted)
        page.press(key)
        page.until(f"!({painted})")


def test_what_is_known_of_the_clip_stands_beside_it(open_page):
    page = open_page()
    page.press("n", "n")
    page.page.goto(page.page.url.split("#")[0] + "#film0000-1")
    page.page.reload()
    page.ready()
    page.says("#scores .missed", "Other faces")
    page.says("#scores .missed", "several faces")
    page.says("#context", "CC-BY-4.0")
    page.says("#context", "Nobody")
    page.says("#context", "not compared yet")
    assert page.page.locator("#context .strip button").count() == 2


# --- deciding ---


def test_accept_and_the_next_clip_is_there(open_page, workspace):
    page = open_page()
    page.shows(FIRST)
    page.press("a")
    page.shows(SECOND)
    page.says("#toast", "Accepted")
    page.stored()
    assert verdicts(workspace) == {FIRST: ("accept", None)}
    assert said(workspace)[0].who == "ann"


def test_every_reason_has_its_key(open_page, workspace):
    page = open_page()
    clips = []
    for number in range(1, 10):
        clips.append(page.clip())
        page.press(*(["r"] if number % 2 else []), str(number))
        page.until("(before) => location.hash !== '#' + before", arg=clips[-1])
    page.stored()
    assert verdicts(workspace) == {name: ("reject", reason) for name, reason in zip(clips, REVIEW_REASONS, strict=True)}


def test_the_same_with_a_mouse(open_page, workspace):
    page = open_page()
    page.page.get_by_role("button", name="blurred").click()
    page.shows(SECOND)
    page.page.get_by_role("button", name="Accept").click()
    page.until(f"location.hash !== '#{SECOND}'")
    page.page.get_by_role("button", name="Undo").click()
    page.shows(SECOND)
    page.stored()
    assert verdicts(workspace) == {FIRST: ("reject", "blurred")}


def test_undo_goes_all_the_way_back(open_page, workspace):
    page = open_page()
    page.press("a")
    page.shows(SECOND)
    page.press("3")
    page.until(f"location.hash !== '#{SECOND}'")
    page.press("u")
    page.shows(SECOND)
    page.says("#verdict", "undecided")
    page.press("u")
    page.shows(FIRST)
    page.says("#toast", "Undone: accept")
    page.press("u")
    page.says("#toast", "nothing of yours")
    page.stored()
    assert verdicts(workspace) == {}
    assert [str(record.action) for record in said(workspace)] == ["accept", "reject", "undo", "undo"]


def test_skipped_clips_come_again_at_the_end(open_page):
    page = open_page()
    page.press("s")
    page.shows(SECOND)
    for _ in range(10):
        before = page.clip()
        page.press(" ")
        page.until("(before) => location.hash !== '#' + before", arg=before)
    page.press("s")
    page.shows(FIRST)


def test_a_trim_is_stored_and_only_that_part_plays(open_page, workspace):
    page = open_page()
    page.press("k")
    page.video("video.currentTime = 20.5 / 25")
    page.says("#time", "20 /")
    page.press("[")
    page.video("video.currentTime = 49.5 / 25")
    page.says("#time", "49 /")
    page.press("]")
    page.says("#title", "cut to 20–50")
    page.page.evaluate(
        """() => {
          const video = document.querySelector("video.shown");
          window.painted = [];
          const note = (_, { mediaTime }) => {
            window.painted.push(Math.floor(mediaTime * 25 + 0.5));
            video.requestVideoFrameCallback(note);
          };
          video.requestVideoFrameCallback(note);
        }"""
    )
    page.press("k")
    # How many frames are painted too many or too few is the machine's affair; that it turns back, and to where, is not.
    page.until("painted.filter((frame, k) => k && frame < painted[k - 1]).length >= 2")
    painted = page.page.evaluate("painted")
    turns = [k for k in range(1, len(painted)) if painted[k] < painted[k - 1]]
    assert all(20 <= painted[k] < 50 <= painted[k - 1] for k in turns), painted
    assert min(painted[turns[0] :]) >= 20
    page.stored()
    (last,) = [record for record in said(workspace) if record.action == "trim"][-1:]
    assert (last.trim.start, last.trim.stop) == (20, 50)
    page.press("u", "u")
    page.until("!document.querySelector('#title').textContent.includes('cut to')")


def test_domain_and_identity_by_keyboard(open_page, workspace):
    page = open_page()
    page.press("d")
    page.page.get_by_role("dialog").wait_for()
    page.press("2")
    page.says("#title", "disney human")
    page.press("i")
    identity = page.page.get_by_role("combobox", name="Identity")
    identity.fill("ada-lovelace")
    page.press("Enter")
    page.says("#title", "ada-lovelace")
    page.press("i")
    identity.fill("no/id")
    page.press("Enter")
    page.until("document.querySelector('dialog').open && !document.querySelector('dialog input').validity.valid")
    page.press("Escape")
    page.stored()
    assert {(str(record.action), record.domain or record.identity_id) for record in said(workspace)} == {
        ("domain", "disney_human"),
        ("identity", "ada-lovelace"),
    }


def test_what_was_said_of_an_earlier_version_is_confirmed_with_one_key(chromium, workspace):
    ReviewLog(workspace).append(review(workspace, FIRST, version="earlier", action="reject", reason="overlay"))
    with served(workspace) as address:
        page = Page(chromium, address)
        page.shows(FIRST)
        page.says("#title .stale", "bob said “reject: overlay”")
        page.press("c")
        page.shows(SECOND)
        page.stored()
        page.close()
    assert verdicts(workspace) == {FIRST: ("reject", "overlay")}


def test_a_cut_of_an_earlier_version_is_not_confirmed_and_the_page_says_why(chromium, workspace):
    """What was said besides is; the clip stays, so that it can be cut anew."""
    for action in ({"action": "trim", "trim": FrameSpan(start=3, stop=60)}, {"action": "accept"}):
        ReviewLog(workspace).append(review(workspace, FIRST, version="earlier", **action))
    with served(workspace) as address:
        page = Page(chromium, address)
        page.shows(FIRST)
        page.says("#title .stale", "make it anew with [ ]")
        page.press("c")
        page.says("#toast", "The cut named frames of another version")
        page.says("#verdict", "accepted")
        page.press("c")
        page.until("document.querySelector('#toast').textContent.startsWith('The cut')")
        page.press("k", "]")
        page.until("!document.querySelector('#title .stale')")
        page.stored()
        page.close()
    assert [str(record.action) for record in said(workspace) if record.version != "earlier"] == ["accept", "trim"]


def test_a_clip_that_looks_like_another_domain_says_so(chromium, tmp_path):
    router = RouterScore(proposed="mesh", probability=0.93, claim=0.04, doubtful=True, evidence=SEEN)
    scores = {"router": router, "stability": 0.62, "overlay": 7.0}
    clip, files = template(0, **scores)
    clip = clip.model_copy(update={"flags": ("hq", DOUBTFUL_FLAG)})
    with served(stock_clips(tmp_path / "ws", [(clip, files)])) as address:
        page = Page(chromium, address)
        page.says("#title .warn", "domain doubtful: looks mesh")
        page.says("#scores", "Looks likemesh, 0.93")
        page.says("#scores", "Steadiness0.62")
        page.says("#scores", "Burnt in, strokes7")
        page.close()


def test_a_clip_whose_files_are_gone_says_so_and_the_next_one_plays(chromium, workspace):
    with served(workspace) as address:
        shutil.rmtree(workspace.storage.path(f"results/clip/{ScreeningState(workspace).catalogue.versions[SECOND]}"))
        page = Page(chromium, address, quiet=False)  # the browser itself complains of what is not there
        page.press("a")
        page.until(f"location.hash === '#{SECOND}'")
        page.says("#screen-note", "run 'anitalk build' again")
        page.press("s")
        page.shows("film0001-0")
        page.until("document.querySelector('#screen-note').hidden")
        page.ready()
        page.close()


def test_after_some_verdicts_the_page_tells_chances_and_asks_in_another_order(chromium, tmp_path):
    """What is sharp is accepted; the later the clip, the sharper."""
    with served(unlike_workspace(tmp_path / "ws")) as address:
        page = Page(chromium, address)
        assert "likely" not in (page.page.text_content("#title") or "")
        queues = []
        page.page.on("requestfinished", lambda asked: "/api/queue" in asked.url and queues.append(asked))
        for _ in range(20):
            before = page.clip()
            page.press("a" if int(before.split("-")[1]) >= 15 else "6")
            page.until("(before) => location.hash !== '#' + before", arg=before)
            page.stored()
        page.says("#title", "% likely accepted")
        page.wait_for(lambda: len(queues) >= 2)
        page.page.wait_for_timeout(200)  # whoever asked once too often would have by then
        assert len(queues) == 2, "one after every ten"
        here, order = page.clip(), queues[-1].response().json()["ids"]
        page.press("s")
        page.shows(next(clip_id for clip_id in order if clip_id != here))
        page.close()


def test_a_second_look_is_blind(chromium, workspace, monkeypatch):
    versions = ScreeningState(workspace).catalogue.versions
    ReviewLog(workspace).append(review(workspace, FIRST, version=versions[FIRST], action="reject", reason="overlay"))
    turns = [Asked(FIRST, None, Why.RECHECK), Asked(SECOND, None, Why.LIMITS)]
    monkeypatch.setattr(Order, "turns", lambda *_: turns)
    with served(workspace) as address:
        page = Page(chromium, address)
        page.shows(FIRST)
        page.says("#verdict", "second look")
        page.page.wait_for_selector("#context h3")
        assert "overlay" not in page.page.text_content(".about")
        page.press("g")
        assert "overlay" not in page.page.text_content("#tiles")
        page.press("g", "a")
        page.shows(SECOND)
        page.stored()
        page.close()
    assert [record.blind for record in said(workspace)] == [False, True]


# --- the grid ---


def count(page):
    return int(page.page.text_content("#count").split()[0])


def test_filters(open_page):
    page = open_page()
    page.press("a", "6", "g")
    assert count(page) == 12
    for name, value, expected in (
        ("verdict", "accept", 1), ("verdict", "reject", 1), ("verdict", "open", 10), ("verdict", "missed", 1),
        ("reason", "blurred", 1), ("reason", "several_faces", 1), ("domain", "mesh", 6), ("who", "ann", 2),
        ("flag", "hq", 12),
    ):  # fmt: skip
        page.page.select_option(f"[name={name}]", value)
        assert count(page) == expected, (name, value)
        assert page.page.locator(".tile").count() == expected
        page.page.get_by_role("button", name="Clear").click()
    page.page.check("[name=stale]")
    assert count(page) == 0
    page.page.get_by_role("button", name="Clear").click()
    page.page.locator("#tiles").focus()
    page.press("/")
    page.page.keyboard.type("film0002")
    assert count(page) == 3
    page.press("Escape")
    page.page.locator(".tile").nth(1).click()
    page.shows("film0002-1")
    page.says("#title .place", "of 3")


def test_tiles_are_judged_by_keyboard(open_page, workspace):
    page = open_page()
    page.press("g", "ArrowRight", "a", "4", "u", "Home")
    page.says(".tile.accept .sub", "real")
    page.press("End", "Enter")
    page.shows("film0000-1")  # outside the limits: the last of the list
    page.stored()
    assert verdicts(workspace) == {SECOND: ("accept", None)}


def test_help_lists_every_key_and_closes(open_page):
    page = open_page()
    page.press("?")
    dialog = page.page.get_by_role("dialog")
    for key in "arusndigkmlpbc":
        assert dialog.locator("kbd", has_text=key).count(), key
    page.press("a")  # decides nothing behind the help
    page.press("Escape")
    assert page.clip() == FIRST
    assert not dialog.is_visible()


@pytest.mark.parametrize("size", [(1280, 720), (1024, 768), (768, 1024)])
def test_everything_has_its_place_and_its_name(open_page, size):
    page = open_page(size=size)
    for key in ("", "g"):
        if key:
            page.press(key)
        page.page.wait_for_timeout(200)
        assert page.page.evaluate("[document.documentElement.scrollWidth, document.documentElement.scrollHeight]") == [
            *size
        ]
        faults = page.page.evaluate(
            """() => [...document.querySelectorAll('button, select, input, [role=slider]')]
              .filter((node) => node.offsetParent && !node.closest('.columns'))
              .flatMap((node) => {
                const box = node.getBoundingClientRect();
                const label = node.getAttribute('aria-label') || node.labels?.[0]?.textContent;
                const name = label || node.textContent.trim();
                const inside = box.left >= 0 && box.top >= 0 && box.right <= innerWidth && box.bottom <= innerHeight;
                const fits = node.scrollWidth <= node.clientWidth + 1 || node.matches('input, select');
                return name && inside && fits ? [] : [`${node.id || node.outerHTML} ${name} ${inside} ${fits}`];
              })"""
        )
        assert faults == []


def test_focus_is_seen_and_reaches_every_button(open_page):
    page = open_page()
    reached = set()
    for _ in range(60):
        page.press("Tab")
        name, outline = page.page.evaluate(
            "[document.activeElement.id, getComputedStyle(document.activeElement).outlineStyle]"
        )
        if name:
            reached.add(name)
            assert outline != "none", name
    wanted = "to-grid reviewer theme help play trim-in faster curve accept skip undo next domain identity"
    assert set(wanted.split()) <= reached


# --- several people, and what goes wrong ---


def test_a_workspace_screened_by_keyboard_alone(open_page, workspace):
    page = open_page()
    for number in range(12):
        before = page.clip()
        page.press("a" if number % 3 else "2")
        if number < 11:
            page.until("(before) => location.hash !== '#' + before", arg=before)
    page.says("#toast", "Every clip of this list is decided")
    page.says("#totals", "12 of 12 decided")
    page.stored()
    assert len(verdicts(workspace)) == 12
    assert sum(action == "accept" for action, _ in verdicts(workspace).values()) == 8


def test_two_people_at_once(open_page, workspace):
    ann, bob = open_page(), open_page(name="bob")
    ann.press("a")
    bob.says("#totals", "1 of 12")
    bob.press("1")  # of the very clip: both words are kept, the later one holds
    ann.press("g")
    ann.says(".tile.reject", "not speaking")
    ann.press("g")
    for page in (ann, bob, ann, bob):
        before = page.clip()
        page.press("a")
        page.until("(before) => location.hash !== '#' + before", arg=before)
    for page in (ann, bob):
        page.stored()
    words = said(workspace)
    assert sorted(record.who for record in words) == ["ann"] * 3 + ["bob"] * 3
    assert verdicts(workspace)[FIRST] == ("reject", "not_speaking")
    ann.press("u", "u", "u")
    ann.stored()
    left = standing(said(workspace), ScreeningState(workspace).catalogue.versions).values()
    assert {clip.verdict.who for clip in left if clip.verdict} == {"bob"}


def test_a_reload_in_the_middle_changes_nothing(open_page, workspace):
    page = open_page()
    page.press("a", "a", "5")
    before = page.clip()
    page.page.reload()
    page.ready()
    page.shows(before)
    page.says("#totals", "3 of 12")
    page.press("u")
    page.says("#toast", "Undone: reject")
    page.stored()
    assert len(verdicts(workspace)) == 2


def test_a_killed_server_loses_nothing_and_the_page_recovers_by_itself(chromium, workspace):
    with running(workspace, "--reviewer", "ann") as server:
        page = Page(chromium, server.address, quiet=False)  # the browser itself complains of what it cannot reach
        page.press("a")
        page.stored()
        server.kill()
        page.shows(SECOND)
        page.press("7", "a", "u")
        page.says("#banner", "nothing is lost")
        page.says("#banner", "3 decisions wait")
        with running(workspace, "--reviewer", "ann") as again:
            assert again.origin == server.origin
            page.says("#toast", "The server is back")
            page.stored()
            assert not page.page.locator("#banner").is_visible()
            page.until("!document.querySelector('video.shown').paused && !document.querySelector('video.shown').error")
        page.close()
    assert [str(record.action) for record in said(workspace)] == ["accept", "reject", "accept", "undo"]
    assert verdicts(workspace) == {FIRST: ("accept", None), SECOND: ("reject", "overlay")}
