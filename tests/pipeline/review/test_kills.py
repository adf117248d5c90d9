"""However often the screening server is killed, nobody's word is lost and none is there twice."""

import http.client
import itertools
import json
import random
import threading
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import pytest

from pipeline.review.state import ScreeningState
from pipeline.store.reviews import ReviewLog
from schemas.review import REVIEW_REASONS, Review
from tests.helpers.screened import NUM_FRAMES, Server, small_workspace, start_server

NUM_PAGES = 4
FEWEST_ANSWERS = 3  # of a server, before it is killed
UNREACHED = (OSError, http.client.HTTPException)


@dataclass
class Page:
    """What the page does without a browser: one review at a time, the very same again until it is answered."""

    who: str
    server: Server
    cookie: str
    versions: dict[str, str]
    stop: threading.Event
    connection: http.client.HTTPConnection | None = None
    answered: list[tuple[dict[str, object], str]] = field(default_factory=list)
    cut_short: list[dict[str, object]] = field(default_factory=list)  # what a server had been sent when it died
    refused: list[str] = field(default_factory=list)

    def screen(self) -> None:
        """Until told to stop; what is begun by then is still said."""
        for number in itertools.count():
            if self.stop.is_set() or self.refused:
                return
            body = self.words(number)
            while (answer := self.answer_to(body)) is None:
                self.connection = None
                time.sleep(0.05)
            if "review_id" in answer:
                self.answered.append((body, answer["review_id"]))
            else:
                self.refused.append(str(answer))

    def answer_to(self, body: dict[str, object]) -> dict[str, str] | None:
        """What the server says; None when it cannot be reached, or dies."""
        if self.connection is None:
            self.connection = http.client.HTTPConnection(self.host, timeout=20)
            try:
                self.connection.connect()
            except OSError:
                return None
        try:
            return self.post(self.connection, body)
        except UNREACHED:
            self.cut_short.append(body)
            return None

    @property
    def host(self) -> str:
        return self.server.origin.removeprefix("http://")

    def post(self, connection: http.client.HTTPConnection, body: dict[str, object]) -> dict[str, str]:
        headers = {"Cookie": self.cookie, "Origin": self.server.origin, "Content-Type": "application/json"}
        connection.request("POST", "/api/reviews", json.dumps(body), headers)
        return json.loads(connection.getresponse().read())

    def words(self, number: int) -> dict[str, object]:
        """Something new each time: of another clip, of another kind, a millisecond later."""
        names = list(self.versions)
        clip_id = names[number % len(names)]
        at = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(milliseconds=number)
        said: list[dict[str, object]] = [
            {"action": "accept"},
            {"action": "reject", "reason": REVIEW_REASONS[number % len(REVIEW_REASONS)].value},
            {"action": "trim", "trim": {"start": number % 9, "stop": NUM_FRAMES}},
            {"action": "identity", "identity_id": f"somebody-{number}"},
        ]
        known = {"clip_id": clip_id, "version": self.versions[clip_id], "who": self.who}
        return {**known, "at": at.isoformat(timespec="milliseconds"), **said[number % len(said)]}


def cookie_of(server: Server) -> str:
    connection = http.client.HTTPConnection(server.origin.removeprefix("http://"), timeout=20)
    connection.request("GET", f"/?token={server.token}")
    return (connection.getresponse().getheader("set-cookie") or "").split(";")[0]


def wait_for_answers(pages: list[Page]) -> None:
    wanted = sum(len(page.answered) for page in pages) + FEWEST_ANSWERS
    end = time.monotonic() + 60
    while sum(len(page.answered) for page in pages) < wanted:
        assert time.monotonic() < end, [page.refused for page in pages]
        time.sleep(0.005)


@pytest.mark.parametrize("num_kills", [4, pytest.param(50, marks=[pytest.mark.slow, pytest.mark.timeout(900)])])
def test_what_was_answered_is_kept_and_what_was_sent_twice_is_there_once(tmp_path, num_kills):
    """Four people decide without a pause while the server dies, each time at another moment of some request."""
    workspace = small_workspace(tmp_path / "ws")
    moment, stop, server = random.Random(11), threading.Event(), start_server(workspace)  # noqa: S311 - moments, not secrets
    cookie, versions = cookie_of(server), ScreeningState(workspace).catalogue.versions
    pages = [Page(f"r{number}", server, cookie, versions, stop) for number in range(NUM_PAGES)]
    threads = [threading.Thread(target=page.screen) for page in pages]
    try:
        for thread in threads:
            thread.start()
        for _ in range(num_kills):
            wait_for_answers(pages)
            time.sleep(moment.uniform(0, 0.1))
            server.kill()
            again = start_server(workspace)
            assert again.address == server.address, "pages find it where it was"
            server = again
        wait_for_answers(pages)
    finally:
        stop.set()
        for thread in threads:
            thread.join(timeout=60)
        server.kill()
    assert [page.refused for page in pages] == [[]] * NUM_PAGES
    answered = [pair for page in pages for pair in page.answered]
    cut_short = sum(len(page.cut_short) for page in pages)
    assert cut_short >= num_kills, "as many as were killed had something to answer"
    files = list((tmp_path / "ws" / "decisions").rglob("*.json"))
    stored = ReviewLog(workspace).read()
    assert len(files) == len(stored) == len(answered)
    assert {record.review_id: record for record in stored} == {name: Review.of(**body) for body, name in answered}
    print(f"{num_kills} kills: {cut_short} reviews cut short and sent again, {len(answered)} answered and stored")
