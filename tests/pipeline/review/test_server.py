"""The screening server: nobody but its page is listened to, no path leaves the workspace, no word is lost."""

import concurrent.futures
import http.client
import json
import shutil
import socket
import struct
from datetime import UTC, datetime, timedelta
from urllib.parse import quote

import numpy as np
import pytest
from starlette.testclient import TestClient

from flows.cli import application as cli
from pipeline.review.clipfiles import ClipFiles
from pipeline.review.guard import MAX_BODY_BYTES, Guard, is_loopback, read_token
from pipeline.review.server import make_app
from pipeline.review.state import ScreeningState
from pipeline.store.reviews import ReviewLog
from pipeline.store.workspace import Workspace
from schemas.base import canonical_json
from schemas.config import EMBEDDED_DOMAINS, BuildConfig
from schemas.errors import UsageError
from schemas.review import REVIEW_REASONS
from schemas.router import DomainEvidence, RouterScore
from schemas.scores import SpeakerScore
from tests.helpers.screened import (
    AT,
    NUM_FRAMES,
    SIZE_PX,
    review,
    running,
    small_workspace,
    stock_clips,
    template,
    unlike_workspace,
)
from tests.helpers.stores import bucket, object_store

TOKEN = "t" * 43
BASE = "http://127.0.0.1:8000"
CLIP = "film0000-0"
EVERYWHERE = "0.0.0.0"  # noqa: S104 - nothing listens to it here


@pytest.fixture(scope="module")
def stocked(tmp_path_factory):
    """A workspace to copy, never to change."""
    return small_workspace(tmp_path_factory.mktemp("screened") / "ws").storage.root


@pytest.fixture
def workspace(stocked, tmp_path):
    shutil.copytree(stocked, tmp_path / "ws")
    return Workspace(tmp_path / "ws")


@pytest.fixture
def screening(workspace):
    return ScreeningState(workspace)


@pytest.fixture
def client(screening):
    """A page that has come by the printed address."""
    with client_of(screening) as opened:
        opened.get(f"/?token={TOKEN}")
        yield opened


def client_of(screening, *, host="127.0.0.1", base=BASE):
    app = Guard(make_app(screening, ClipFiles(screening.workspace), reviewer="ann"), token=TOKEN, host=host, cookie="c")
    return TestClient(app, base_url=base, headers={"origin": base}, follow_redirects=False)


def now(ahead_s=0.0):
    return (datetime.now(UTC) + timedelta(seconds=ahead_s)).isoformat(timespec="milliseconds")


def words(screening, clip_id=CLIP, **fields):
    """A review as the page sends it."""
    known = {"clip_id": clip_id, "version": screening.catalogue.versions[clip_id], "who": "ann", "at": now()}
    return {"action": "accept", **known, **fields}


def media(screening, clip_id=CLIP):
    return f"/media/{clip_id}/{screening.catalogue.versions[clip_id]}"


# --- who is listened to ---


@pytest.mark.parametrize("path", ["/", "/api/start", "/api/clips", "/static/main.js", "/media/a/b"])
@pytest.mark.parametrize("cookie", [None, "", "wrong", TOKEN[:-1], TOKEN + "t", "ü"])
def test_without_the_token_nothing_is_answered(screening, path, cookie):
    with client_of(screening) as client:
        headers = {} if cookie is None else {"cookie": f"c={quote(cookie)}"}
        assert client.get(path, headers=headers).status_code == 401
        assert client.get(f"{path}?token=wrong").status_code == 401


def test_the_token_becomes_a_cookie_that_no_script_and_no_other_site_can_use(screening):
    with client_of(screening) as client:
        answer = client.get(f"/?token={TOKEN}")
        assert (answer.status_code, answer.headers["location"]) == (303, "/")
        cookie = answer.headers["set-cookie"]
        assert "HttpOnly" in cookie
        assert "SameSite=Strict" in cookie
        assert client.get("/").status_code == 200


FOREIGN_HOSTS = ["evil.example", "evil.example:8000", "10.0.0.7", "127.0.0.1.evil.example", "", "[::2]"]


@pytest.mark.parametrize("host", FOREIGN_HOSTS)
def test_a_foreign_host_is_refused(client, host):
    assert client.get("/api/start", headers={"host": host}).status_code == 400


@pytest.mark.parametrize("host", ["localhost:8000", "127.0.0.1", "[::1]:8000"])
def test_this_machine_may_be_named_in_its_own_ways(client, host):
    assert client.get("/api/start", headers={"host": host, "cookie": f"c={TOKEN}"}).status_code == 200


def test_beyond_loopback_addresses_and_own_names_are_known_and_others_are_not(screening):
    with client_of(screening, host=EVERYWHERE) as client:
        for host, status in ((socket.gethostname(), 200), ("192.168.1.5:80", 200), ("evil.example", 400)):
            headers = {"host": host, "cookie": f"c={TOKEN}"}
            assert client.get("/api/start", headers=headers).status_code == status, host


FOREIGN_ORIGINS = ["http://evil.example", "http://localhost:8000", "null", "https://127.0.0.1:8000", None]


@pytest.mark.parametrize("origin", FOREIGN_ORIGINS)
def test_a_foreign_origin_changes_nothing(client, screening, origin):
    headers = {"origin": origin} if origin else {}
    if origin is None:
        del client.headers["origin"]
    answer = client.post("/api/reviews", json=words(screening), headers=headers)
    assert answer.status_code == 403
    assert ReviewLog(screening.workspace).read() == []


def test_only_small_json_is_taken(client, screening):
    said = json.dumps(words(screening))
    assert client.post("/api/reviews", content=said, headers={"content-type": "text/plain"}).status_code == 415
    much = json.dumps({"note": "x" * MAX_BODY_BYTES})
    assert client.post("/api/reviews", content=much, headers={"content-type": "application/json"}).status_code == 413
    parts = client.post("/api/reviews", content=iter([b"{}"]), headers={"content-type": "application/json"})
    assert parts.status_code == 413
    for text in ("", "[]", "{", "[" * 40_000, "NaN"):
        answer = client.post("/api/reviews", content=text, headers={"content-type": "application/json"})
        assert (answer.status_code, "error" in answer.json()) == (422, True), text[:10]
    assert ReviewLog(screening.workspace).read() == []


def test_every_answer_forbids_foreign_scripts(client):
    for path in ("/", "/static/main.js", "/api/start", "/nowhere"):
        policy = client.get(path).headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy


def test_the_token_stays_the_same_and_is_its_owners_alone(tmp_path):
    path = tmp_path / "state" / "token"
    token = read_token(path)
    assert len(token) >= 43
    assert path.stat().st_mode & 0o077 == 0
    assert read_token(path) == token
    path.chmod(0o644)  # others may have read it
    assert read_token(path) != token


def test_what_is_loopback():
    assert [is_loopback(host) for host in ("127.0.0.1", "127.9.9.9", "::1", "localhost")] == [True] * 4
    assert [is_loopback(host) for host in (EVERYWHERE, "::", "10.0.0.1", "example.org")] == [False] * 4


# --- paths ---

TRAVERSALS = [
    "/media/..%2f..%2f..%2fetc%2fpasswd/v", "/media/../../../../etc/passwd", "/media/%2e%2e/%2e%2e/build.json",
    "/thumbs/..%2f..%2fbuild.json/x", "/arrays/....//....//etc/passwd/x", "/static/../server.py",
    "/static/..%2fserver.py", "/static/%2e%2e/%2e%2e/errors.py", "/static//etc/passwd", "/static/..%5cserver.py",
    f"/media/{CLIP}/..%2frecord.json", f"/media/{CLIP}%00/x", "/api/clips/..%2f..%2fbuild.json",
]  # fmt: skip


def test_no_path_leaves_what_is_served(workspace):
    """By a raw connection: clients tidy such paths away."""
    with running(workspace) as server:
        cookie = cookie_of(server)
        for path in TRAVERSALS:
            connection = http.client.HTTPConnection(server.origin.removeprefix("http://"), timeout=20)
            connection.request("GET", path, headers={"Cookie": cookie})
            answer = connection.getresponse()
            body = answer.read()
            assert answer.status in {404, 405, 422}, (path, body[:200])
            assert not any(text in body for text in (b"root:", b"def ", b"sources")), path


def cookie_of(server):
    connection = http.client.HTTPConnection(server.origin.removeprefix("http://"), timeout=20)
    connection.request("GET", f"/?token={server.token}")
    return connection.getresponse().getheader("set-cookie").split(";")[0]


# --- media ---


def test_any_one_part_of_a_clip_can_be_had(client, screening):
    whole = client.get(media(screening))
    size = len(whole.content)
    assert (whole.status_code, whole.headers["content-type"]) == (200, "video/mp4")
    assert "immutable" in whole.headers["cache-control"]
    for asked, part in {
        "bytes=0-0": whole.content[:1],
        "bytes=10-19": whole.content[10:20],
        f"bytes={size - 3}-": whole.content[-3:],
        "bytes=-5": whole.content[-5:],
        f"bytes=4-{'9' * 18}": whole.content[4:],
        f"bytes=-{'9' * 18}": whole.content,
    }.items():
        answer = client.get(media(screening), headers={"range": asked})
        assert (answer.status_code, answer.content) == (206, part), asked


@pytest.mark.parametrize(
    "asked",
    ["bytes=999999999-", f"bytes={'9' * 18}-{'9' * 18}", "bytes=" + "9" * 5000 + "-", "bytes=5-2", "bytes=-0",
     "bytes=-", "bytes=0-1,3-4", "bytes=a-b", "items=0-1", "bytes", "", "bytes=0-0," * 500],
)  # fmt: skip
def test_other_ranges_are_refused(client, screening, asked):
    answer = client.get(media(screening), headers={"range": asked})
    assert answer.status_code == 416
    assert answer.headers["content-range"].startswith("bytes */")


def test_arrays_come_as_they_are_stored(client, screening):
    version = screening.catalogue.versions[CLIP]
    answer = client.get(f"/arrays/{CLIP}/{version}")
    (length,) = struct.unpack_from("<I", answer.content)
    assert length % 4 == 0
    shapes = json.loads(answer.content[4 : 4 + length])
    assert shapes["landmarks"] == [NUM_FRAMES, 68, 3]
    offset, arrays = 4 + length, {}
    for name, shape in shapes.items():
        count = int(np.prod(shape))
        arrays[name] = np.frombuffer(answer.content, "<f4", count, offset).reshape(shape)
        offset += 4 * count
    assert offset == len(answer.content)
    stored = np.load(screening.workspace.storage.path(f"results/clip/{version}/landmarks.npy"))
    np.testing.assert_array_equal(arrays["landmarks"], stored)
    assert arrays["envelope"].max() == pytest.approx(1)
    assert arrays["box"].shape == (NUM_FRAMES, 4)
    plan = screening.entry(CLIP).finished.clip.plan
    scale = SIZE_PX / plan.square.width_px
    expected = [(plan.face.x0 - plan.square.x0) * scale, (plan.face.y1 - plan.square.y0) * scale]
    np.testing.assert_allclose(arrays["box"][0][[0, 3]], expected, rtol=1e-5)
    again = client.get(f"/arrays/{CLIP}/{version}", headers={"if-none-match": answer.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")


def test_a_thumbnail_is_made_once(client, screening):
    version = screening.catalogue.versions[CLIP]
    first = client.get(f"/thumbs/{CLIP}/{version}")
    assert first.headers["content-type"] == "image/jpeg"
    assert first.content[:2] == b"\xff\xd8"
    (kept,) = screening.workspace.scratch_folder.rglob("*.jpg")
    screening.workspace.storage.delete(f"results/clip/{version}/mp4")
    kept.write_bytes(b"as it was")
    assert client.get(f"/thumbs/{CLIP}/{version}").content == b"as it was"


def test_files_that_are_missing_or_damaged_are_said_in_a_sentence(client, screening):
    version = screening.catalogue.versions[CLIP]
    folder = f"results/clip/{version}"
    screening.workspace.storage.write(f"{folder}/mp4", b"no film")
    screening.workspace.storage.delete(f"{folder}/pose.npy")
    for path in (f"/thumbs/{CLIP}/{version}", f"/arrays/{CLIP}/{version}"):
        answer = client.get(path)
        assert answer.status_code == 500
        assert "error" in answer.json()


def test_another_version_of_a_clip_is_not_served(client):
    for kind in ("media", "thumbs", "arrays"):
        assert client.get(f"/{kind}/{CLIP}/{'0' * 64}").status_code == 404


# --- the list ---


def test_the_list_and_the_details(client, screening):
    start = client.get("/api/start").json()
    assert start["num_clips"] == 12
    assert start["reasons"] == [reason.value for reason in REVIEW_REASONS]
    rows = client.get("/api/clips?start=0").json()["rows"]
    assert [row["id"] for row in rows] == [entry.clip_id for entry in screening.catalogue.entries]
    assert rows[1]["missed"] == "several_faces"
    assert client.get("/api/clips?start=11").json()["rows"] == rows[11:]
    detail = client.get("/api/clips/film0000-1").json()
    (missed,) = [score for score in detail["scores"] if score["missed"]]
    assert [missed[name] for name in ("name", "value", "limit", "reason")] == ["neighbours", 1, 0, "several_faces"]
    assert detail["neighbours"] == ["film0000-0", "film0000-2"]
    assert detail["compared"] is False
    assert detail["source"]["license"] == "CC-BY-4.0"


SEEN = DomainEvidence(human=0, presence=1, cat=0, evenness=0, grain=0, crispness=0, outline=0)


def test_what_is_measured_besides_is_shown_with_its_limit_where_it_has_one(tmp_path):
    router = RouterScore(proposed="mesh", probability=0.934, claim=0.04, doubtful=True, evidence=SEEN)
    speaker = SpeakerScore(status="known", score=0.5, share=0.8, following=0.6, z=0.4, p=0.3)
    scores = {"stability": 0.62, "overlay": 7.0, "router": router, "speaker": speaker}
    real = EMBEDDED_DOMAINS["real"]
    strict = real.limits.model_copy(update={"max_overlay": 3.0, "min_speaker_z": 1.0})
    config = BuildConfig(domains={**EMBEDDED_DOMAINS, "real": real.model_copy(update={"limits": strict})})
    workspace = stock_clips(tmp_path / "ws", [template(0, **scores), template(1)], config=config)
    with client_of(ScreeningState(workspace)) as client:
        client.get(f"/?token={TOKEN}")
        routed, plain = client.get("/api/clips?start=0").json()["rows"]
        assert (routed["proposed"], plain.get("proposed")) == ("mesh", None)
        detail = client.get(f"/api/clips/{routed['id']}").json()
        assert detail["router"] == {"proposed": "mesh", "probability": 0.93, "claim": 0.04}
        shown = {score["name"]: (score["value"], score["limit"], score["missed"]) for score in detail["scores"]}
        assert shown["stability"] == (0.62, None, False)
        assert shown["overlay"] == (7, 3, True)
        assert shown["speaker_z"] == (0.4, 1, True)
        detail = client.get(f"/api/clips/{plain['id']}").json()
        shown = {score["name"]: (score["value"], score["limit"]) for score in detail["scores"]}
        assert detail["router"] is None
        assert "stability" not in shown, "neither measured nor asked for"
        assert shown["overlay"] == (None, 3)


WRONG = ["/api/clips/nobody", "/api/clips?start=-1", "/api/clips?start=9e9", "/api/queue", "/api/changes?after=x"]


@pytest.mark.parametrize("path", WRONG)
def test_wrong_questions_get_a_sentence(client, path):
    answer = client.get(path)
    assert answer.status_code == 422
    assert "error" in answer.json()


# --- what people say ---


def test_a_review_is_stored_before_it_is_answered(client, screening, workspace):
    answer = client.post("/api/reviews", json=words(screening, action="reject", reason="blurred"))
    assert answer.status_code == 200
    (stored,) = ReviewLog(Workspace(workspace.storage.root)).read()
    assert (stored.review_id, stored.who, stored.reason) == (answer.json()["review_id"], "ann", "blurred")
    assert answer.json()["state"]["verdict"]["reason"] == "blurred"
    assert CLIP not in client.get("/api/queue?reviewer=ann").json()["ids"]


def test_verdicts_teach_the_queue_how_likely_each_clip_is_to_be_accepted(tmp_path):
    """Somebody accepts what is sharp, of every clip but each third one."""
    screening = ScreeningState(unlike_workspace(tmp_path / "ws"))
    with client_of(screening) as client:
        client.get(f"/?token={TOKEN}")
        before = client.get("/api/queue?reviewer=ann").json()
        assert before["chances"] == [None] * 40
        names = [entry.clip_id for entry in screening.catalogue.entries]
        for number, clip_id in enumerate(names):
            if number % 3:
                verdict = {"action": "accept"} if number >= 20 else {"action": "reject", "reason": "blurred"}
                assert client.post("/api/reviews", json=words(screening, clip_id, **verdict)).status_code == 200
        after = client.get("/api/queue?reviewer=ann").json()
    chances = dict(zip(after["ids"], after["chances"], strict=True))
    waiting = [name for name in after["ids"] if name not in after["blind"]]
    assert set(waiting) == set(names[::3])
    assert [chances[name] for name in names[::3]] == sorted(chances[name] for name in waiting)
    assert chances[names[0]] < 0.2
    assert chances[names[39]] > 0.8
    doubts = [round(abs(chances[name] - 0.5), 2) for name in waiting]
    assert doubts == sorted(doubts), "the least certain come first"


def test_saying_the_same_again_changes_nothing(client, screening):
    said = words(screening)
    first, second = (client.post("/api/reviews", json=said).json() for _ in range(2))
    assert first == second
    assert len(ReviewLog(screening.workspace).read()) == 1


def test_undoing_brings_back_what_was_before(client, screening):
    accepted = client.post("/api/reviews", json=words(screening)).json()["review_id"]
    undone = client.post("/api/reviews", json=words(screening, action="undo", undoes=accepted)).json()
    assert undone["state"] is None
    assert client.get("/api/reviews?reviewer=ann").json()["reviews"] == []
    assert CLIP in client.get("/api/queue?reviewer=ann").json()["ids"]
    again = client.post("/api/reviews", json=words(screening, action="undo", undoes=undone["review_id"])).json()
    assert again["state"]["verdict"]["action"] == "accept"


@pytest.mark.parametrize(
    "change",
    [
        {"clip_id": "nobody"}, {"version": "0" * 64}, {"who": ""}, {"who": "x" * 81}, {"at": "today"},
        {"at": "2999-01-01T00:00:00.000+00:00"}, {"at": "2026-01-01T00:00:00"},
        {"action": "delete"}, {"action": "reject"}, {"reason": "blurred"},
        {"action": "reject", "reason": "nonsense"}, {"action": "domain", "domain": "nowhere"},
        {"action": "identity", "identity_id": "../x"}, {"action": "undo", "undoes": "nobody"},
        {"action": "trim", "trim": {"start": 0, "stop": NUM_FRAMES + 1}},
        {"action": "trim", "trim": {"start": 5, "stop": 5}},
        {"review_id": "mine"}, {"origin": "csv"}, {"more": 1}, {"note": "x" * 2001}, {"clip_id": ["a"]},
    ],
    ids=str,
)  # fmt: skip
def test_what_cannot_be_is_refused_with_a_sentence(client, screening, change):
    answer = client.post("/api/reviews", json=words(screening) | change)
    assert answer.status_code == 422, answer.text
    assert answer.json()["error"]
    assert ReviewLog(screening.workspace).read() == []


def test_a_page_learns_what_others_say(client, screening, workspace):
    before = client.get("/api/changes?after=0").json()
    assert before["states"] == {}
    client.post("/api/reviews", json=words(screening, who="bob"))
    after = client.get(f"/api/changes?after={before['sequence']}").json()
    assert after["states"][CLIP]["verdict"]["who"] == "bob"
    assert client.get(f"/api/changes?after={after['sequence']}").json()["states"] == {}
    # Another server, or an import.
    ReviewLog(workspace).append(review(workspace, "film0001-1", version=screening.catalogue.versions["film0001-1"]))
    screening.reread()
    changes = client.get(f"/api/changes?after={after['sequence']}").json()
    assert changes["states"]["film0001-1"]["verdict"]["who"] == "bob"


def test_what_was_said_of_an_earlier_version_is_shown_and_does_not_hold(workspace):
    ReviewLog(workspace).append(review(workspace, CLIP, version="earlier", action="reject", reason="blurred"))
    screening = ScreeningState(workspace)
    state = screening.state(CLIP)
    assert state is not None
    assert "verdict" not in state
    assert state["stale"][0]["reason"] == "blurred"
    assert CLIP in [turn.clip_id for turn in screening.queue("ann")]
    screening.say(words(screening))  # of this version: the old word is answered
    assert "stale" not in (screening.state(CLIP) or {})


def test_clips_that_come_later_are_seen_on_demand(client, screening, workspace):
    small_workspace(workspace.storage.root, 15)
    edition = client.get("/api/start").json()["edition"]
    assert client.get("/api/start").json()["num_clips"] == 12
    assert client.post("/api/refresh", json={}).json()["edition"] != edition
    assert client.get("/api/start").json()["num_clips"] == 15


def test_time_spent_leaves_breaks_out(workspace):
    versions = ScreeningState(workspace).catalogue.versions
    for minute, second in ((0, 0), (0, 30), (9, 0), (9, 10)):
        at = f"2026-01-02T03:{minute:02d}:{second:02d}.000+00:00"
        ReviewLog(workspace).append(review(workspace, CLIP, version=versions[CLIP], at=at))
    assert ScreeningState(workspace).worked_s() == 30 + 120 + 10  # of the long pause two minutes count


# --- many at once ---


def test_concurrent_writers_lose_nothing(workspace):
    """Eight reviewers on two servers of one workspace, all at once."""
    screenings = [ScreeningState(workspace), ScreeningState(workspace)]
    clips = list(screenings[0].catalogue.versions)

    def speak(number):
        screening = screenings[number % 2]
        for clip_id in clips:
            screening.say(words(screening, clip_id, who=f"r{number}", at=AT))
        return number

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        assert sorted(pool.map(speak, range(8))) == list(range(8))
    stored = ReviewLog(workspace).read()
    assert len(stored) == len({record.review_id for record in stored}) == 8 * len(clips)
    for screening in screenings:
        screening.reread()
        assert all(len(screening.reviews_of(clip_id)) == 8 for clip_id in clips)


def test_thumbnails_wanted_by_many_at_once_are_whole(screening):
    files = ClipFiles(screening.workspace)
    keys = list(screening.catalogue.versions.values()) * 4
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        pictures = [path.read_bytes() for path in pool.map(files.thumbnail, keys)]
    assert all(picture.endswith(b"\xff\xd9") for picture in pictures)
    assert len(set(pictures)) == len(screening.catalogue.versions)


# --- an object store ---


def test_a_workspace_in_an_object_store(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    with object_store(monkeypatch):
        workspace = small_workspace(f"{bucket()}/ws", 4)
        screening = ScreeningState(workspace)
        with client_of(screening) as client:
            client.get(f"/?token={TOKEN}")
            whole = client.get(media(screening))
            assert client.get(media(screening), headers={"range": "bytes=7-9"}).content == whole.content[7:10]
            assert client.get(media(screening).replace("media", "thumbs")).status_code == 200
            assert client.get(media(screening).replace("media", "arrays")).status_code == 200
            assert client.post("/api/reviews", json=words(screening)).status_code == 200
        assert len(ReviewLog(workspace).read()) == 1
        # No more than asked for is kept on this machine, whatever is looked at.
        keys = list(screening.catalogue.versions.values())
        files = ClipFiles(workspace, most_bytes=len(whole.content) * 2)
        for key in keys:
            assert files.media(key).read_bytes()
        assert len(list(workspace.scratch_folder.rglob("*.mp4"))) <= 2
        assert files.media(keys[0]).read_bytes() == whole.content


# --- the command ---


def test_a_killed_server_comes_back_at_the_same_address_with_everything(workspace):
    with running(workspace) as server:
        said = canonical_json(words(ScreeningState(workspace)))
        connection = http.client.HTTPConnection(server.origin.removeprefix("http://"), timeout=20)
        headers = {"Cookie": cookie_of(server), "Origin": server.origin, "Content-Type": "application/json"}
        connection.request("POST", "/api/reviews", said, headers)
        assert connection.getresponse().status == 200
        server.kill()
        assert len(ReviewLog(workspace).read()) == 1
        with running(workspace) as again:
            assert again.address == server.address
            with running(workspace) as third:  # the port is taken, so another one
                assert third.origin != again.origin


@pytest.mark.parametrize("host", ["256.1.1.1", "nowhere.invalid"])
def test_an_address_that_is_none_is_said_in_a_sentence(workspace, host, capsys):
    assert cli.run(["review", "--workspace", workspace.storage.root, "--no-open", "--host", host]) == 2
    assert "cannot listen" in capsys.readouterr().err


def test_a_taken_port_is_said_in_a_sentence(workspace, capsys):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        assert cli.run(["review", "--workspace", workspace.storage.root, "--no-open", "--port", port]) == 2
    assert "choose another" in capsys.readouterr().err


def test_no_workspace_is_said_in_a_sentence(tmp_path, capsys):
    assert cli.run(["review", "--workspace", str(tmp_path / "none"), "--no-open"]) == 2
    assert "is not a workspace" in capsys.readouterr().err
    assert cli.run(["review"]) == 2
    with pytest.raises(UsageError):
        ScreeningState(Workspace(tmp_path / "none", create=True))
