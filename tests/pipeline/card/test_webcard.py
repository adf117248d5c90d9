"""The HTML card: one page that needs nothing else, says every number, and that no title or credit can take over."""

import hashlib
import json
import random
import re
from html.parser import HTMLParser

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.card.describe import describe_release, write_cards
from pipeline.card.gallery import draw_gallery, read_members, spread_over_sources
from pipeline.card.histogram import MEASURES, count_into, draw_histogram, histograms, round_edges
from pipeline.card.markdown import draw_funnel
from pipeline.card.web import MAX_PICTURE_BYTES, MAX_ROWS, write_web_card
from pipeline.draw.sheet import MAX_SHEET_CLIPS, frames_of
from pipeline.release.shards import write_release
from pipeline.release.verify import verify_release
from pipeline.store.storage import Storage
from schemas.base import canonical_json
from schemas.config import PackConfig, SelectLimits
from schemas.errors import WorkspaceError
from schemas.funnel import Funnel, FunnelDrop, FunnelStep
from schemas.models import ModelCard
from schemas.release import (
    ABOUT_FILE,
    FUNNEL_FILE,
    OVERVIEW_FILE,
    RELEASE_FILE,
    WEB_CARD_FILE,
    About,
    Coverage,
    LostRow,
    Release,
    ReleaseSource,
    sheet_file,
)
from schemas.scores import SyncScore
from tests.helpers.release_items import SETUP, make_row, small_shelf

HASH = "ab12cd34" * 8
HOSTILE = (
    "</title></style><script>alert(1)</script> \" onload=\"alert(2)' onload='alert(3) <img src=x onerror=alert(4)> "
    "javascript:alert(5) data:text/html,x https://t.co/x {{ 7 * 7 }} &lt;b&gt; \u202egnp.\x00\n<a href=//x>x</a>"
)
FUNNEL = Funnel(
    steps=(
        FunnelStep(
            stage="select",
            entered=2003,
            passed=1250,
            drops=(
                FunnelDrop(reason="padding", count=700, median_measured=0.183, limit=0.1),
                FunnelDrop(reason="low_resolution", count=53, median_measured=121.5, limit=160),
            ),
        ),
    )
)
MODEL = ModelCard(
    name="mesh",
    file="mesh.tflite",
    sha256=HASH,
    package="mediapipe",
    licence="Apache-2.0",
    commercial_use=True,
    domains=("real",),
    measured="49 of 49",
)
ABOUT = About(
    funnel=FUNNEL,
    models=(MODEL,),
    domains={"real": "filmed people", "mesh": "rendered heads"},
    limits={"real": SelectLimits(), "mesh": SelectLimits(max_abs_yaw_deg=45.0)},
)


def listed_source(source_id="film", **changes):
    values = {"uri": "https://example.org/f", "title": "A film", "domain": "real", "license": "CC-BY-4.0"}
    return ReleaseSource(source_id=source_id, **({**values, "credit": "Somebody", "sha256": HASH} | changes))


def make_release(rows, sources=None, **changes):
    counts = {}
    for row in rows:
        counts.setdefault(row.split, {}).setdefault(row.domain, 0)
        counts[row.split][row.domain] += 1
    values = {
        "name": "first",
        "tool_version": "0.1.0",
        "config_hash": HASH,
        "inputs_hash": HASH,
        "num_clips": len(rows),
        "duration_s": sum(row.duration_s for row in rows),
        "counts": counts,
        "requested": {"train": {"real": 9}},
        "shards": (),
        "sources": tuple(sources or [listed_source()]),
        "models": {"mesh": HASH},
        "files": {},
        "with_identity": False,
    }
    return Release(**(values | changes))


def many_rows(count, num_sources=60, domains=("disney_animal", "disney_human", "mesh", "real")):
    """Clips with scores like those of real ones; one in five has no known sync."""
    rng = random.Random(7)  # noqa: S311 - the same every time
    rows = []
    for number in range(count):
        known = rng.random() < 0.8
        sync = {"status": "known", "score": 0.4, "lag_frames": 0, "z": rng.gauss(4, 1), "p": 0.01}
        scores = {
            "yaw_abs_median_deg": abs(rng.gauss(0, 20)),
            "native_crop_px": rng.uniform(160, 900),
            "speech_ratio": rng.uniform(0.25, 1),
            "sync": SyncScore(**sync) if known else SyncScore(status="unknown", why="short"),
        }
        rows.append(
            make_row(
                f"clip-{number:05d}",
                scores=scores,
                domain=domains[number % len(domains)],
                source_id=f"source-{number % num_sources:03d}",
                duration_s=round(rng.uniform(2.56, 20), 2),
            )
        )
    return rows


def pictures_of(domains, num_bytes=150_000):
    rng = np.random.default_rng(1)
    return {sheet_file(domain): rng.bytes(num_bytes) for domain in domains}


class Page(HTMLParser):
    """Elements with their attributes as a browser's parser would see them, and the text between."""

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.elements, self.text = [], []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text.append(data)

    def tags(self):
        return {tag for tag, _ in self.elements}


# ---- one page that needs nothing else --------------------------------------------------------------


@pytest.fixture(scope="module")
def page():
    rows = many_rows(40)
    return write_web_card(make_release(rows), ABOUT, rows, pictures=pictures_of(["real", "mesh"]))


def test_nothing_is_loaded_and_nothing_runs(page):
    parsed = Page(page)
    assert not parsed.tags() & {"script", "link", "iframe", "object", "embed", "base", "form", "a", "use", "video"}
    loaded = {
        attrs[name] for _, attrs in parsed.elements for name in ("src", "href", "srcset", "data") if name in attrs
    }
    assert loaded
    assert all(address.startswith("data:image/jpeg;base64,") for address in loaded)
    assert "url(" not in page
    assert "@import" not in page
    assert not [name for _, attrs in parsed.elements for name in attrs if name.startswith("on")]


def test_the_page_forbids_itself_scripts_and_foreign_addresses(page):
    (policy,) = (
        attrs["content"] for _, attrs in Page(page).elements if attrs.get("http-equiv") == "Content-Security-Policy"
    )
    assert policy == "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


def test_the_same_rows_in_any_order_give_the_same_page(page):
    rows = many_rows(40)
    release, pictures = make_release(rows), pictures_of(["real", "mesh"])
    rows = [rows[place] for place in np.random.default_rng(1).permutation(len(rows))]
    assert write_web_card(release, ABOUT, rows, pictures=dict(reversed(pictures.items()))) == page


def test_it_reads_in_dark_on_phones_and_on_paper(page):
    for needed in ("prefers-color-scheme: dark", "@media print", "width=device-width"):
        assert needed in page


# ---- hostile text ----------------------------------------------------------------------------------


def test_hostile_titles_credits_and_names_stay_text():
    rows = [make_row(title=HOSTILE, license=HOSTILE, credit=HOSTILE)]
    source = listed_source(title=HOSTILE, license=HOSTILE, credit=HOSTILE, uri="javascript:alert(6)//" + HOSTILE)
    about = About(
        funnel=Funnel(
            steps=(FunnelStep(stage=HOSTILE, entered=1, passed=0, drops=(FunnelDrop(reason=HOSTILE, count=1),)),)
        ),
        models=(MODEL.model_copy(update={"file": HOSTILE, "licence": HOSTILE, "measured": HOSTILE}),),
        domains={"real": HOSTILE},
        coverage=Coverage(
            num_listed=1, num_same=0, num_other=0, lost=(LostRow(source_id="x", num_clips=1, reason=HOSTILE),)
        ),
    )
    hostile = write_web_card(make_release(rows, [source]), about, rows)
    plain_about = about.model_copy(
        update={
            "funnel": Funnel(
                steps=(FunnelStep(stage="s", entered=1, passed=0, drops=(FunnelDrop(reason="r", count=1),)),)
            ),
            "models": (MODEL,),
            "domains": {"real": "d"},
        }
    )
    rows = [make_row(license="own terms")]
    plain = write_web_card(make_release(rows, [listed_source(license="own terms")]), plain_about, rows)
    found, expected = Page(hostile), Page(plain)
    assert [(tag, sorted(attrs)) for tag, attrs in found.elements] == [
        (tag, sorted(attrs)) for tag, attrs in expected.elements
    ]
    text = " ".join(found.text)
    assert "<script>alert(1)</script>" in text
    assert "{{ 7 * 7 }}" in text
    assert not {"\u202e", "\x00"} & set(hostile)


@given(st.text(max_size=60) | st.text(alphabet="<>&\"'/=ab :{}%#!-\n", max_size=40))
@settings(max_examples=60, deadline=None)
def test_any_title_leaves_the_structure_alone_and_is_read_as_it_is(title):
    rows = [make_row()]
    found = Page(write_web_card(make_release(rows, [listed_source(title=title)]), ABOUT, rows))
    plain = Page(write_web_card(make_release(rows, [listed_source(title="plain")]), ABOUT, rows))
    assert [(tag, sorted(attrs)) for tag, attrs in found.elements] == [
        (tag, sorted(attrs)) for tag, attrs in plain.elements
    ]


def test_no_secret_of_an_address_is_shown():
    source = listed_source(uri="https://me:hunter2@example.org/f.mp4?X-Amz-Signature=abc")
    rows = [make_row()]
    page = write_web_card(make_release(rows, [source]), ABOUT, rows)
    assert "example.org/f.mp4" in page
    assert "hunter2" not in page
    assert "abc" not in page.replace(HASH, "")


# ---- every number ----------------------------------------------------------------------------------


def test_counts_shortfall_funnel_licences_models_and_credits_are_there():
    rows = [make_row("a", duration_s=90.0), make_row("b", split="test", license="CC-BY-NC-4.0", source_id="other")]
    sources = [listed_source(), listed_source("other", license="CC-BY-NC-4.0", credit="© Somebody else")]
    text = " ".join(" ".join(Page(write_web_card(make_release(rows, sources), ABOUT, rows)).text).split())
    for needed in (
        "train real 1 1.5 9 8",
        "falls short of what was asked for by 8 clips",
        "1,250 of 2,003 clips passed",
        "padding 700 (median 0.183, limit 0.1)",
        "1 of 2 sources are not known to allow commercial use",
        "CC-BY-NC-4.0 1 1 no",
        f"mesh mesh.tflite mediapipe Apache-2.0 yes real 49 of 49 {HASH}",
        "© Somebody else",
        "yaw is positive when the nose points to the left",
    ):
        assert needed in text


def test_coverage_and_take_downs_are_told_only_where_there_are_some():
    rows = [make_row()]
    lost = (LostRow(source_id="gone", num_clips=2, reason="its address answers 404"),)
    about = ABOUT.model_copy(
        update={"coverage": Coverage(num_listed=9, num_same=4, num_other=3, lost=lost), "forgotten": 1}
    )
    told = " ".join(Page(write_web_card(make_release(rows), about, rows)).text)
    assert "gone" in told
    assert "404" in told
    assert "1 source was taken down" in told
    silent = " ".join(Page(write_web_card(make_release(rows), ABOUT, rows)).text)
    assert "Rebuilt from" not in silent
    assert "taken down" not in silent


def test_both_cards_credit_every_source_up_to_the_page_s_bound():
    rows = [make_row()]
    sources = [listed_source(f"s{number:04d}", credit=f"Credit {number:04d}") for number in range(MAX_ROWS + 3)]
    cards = write_cards(make_release(rows, sources), ABOUT, rows, {})
    page = cards[WEB_CARD_FILE].decode()
    assert page.count("Credit 0") == MAX_ROWS
    assert "3 more are credited in README.md" in page
    assert cards["README.md"].decode().count("Credit 0") == MAX_ROWS + 3


# ---- distributions ---------------------------------------------------------------------------------

NUMBERS = st.floats(-1e9, 1e9, allow_nan=False) | st.floats(-1, 1) | st.integers(-5, 5).map(float)


@given(st.lists(NUMBERS | st.none(), max_size=60))
@settings(deadline=None)
def test_every_value_is_counted_once_in_the_bin_that_holds_it(values):
    known = [value for value in values if value is not None]
    edges = round_edges(known)
    drawn = count_into(MEASURES[0], edges, values, None)
    assert sum(drawn.counts) == drawn.num_known == len(known)
    assert drawn.num_known + drawn.num_unknown == len(values)
    assert 1 <= len(drawn.counts) <= 24
    span = edges[-1] - edges[0]
    assert edges[0] <= min(known, default=0) + 1e-9 * span
    assert edges[-1] >= max(known, default=0) - 1e-9 * span


def test_a_value_on_an_edge_belongs_to_the_bin_that_begins_there():
    drawn = count_into(MEASURES[0], (0.0, 5.0, 10.0), [0.0, 4.999, 5.0, 10.0, None], None)
    assert drawn.counts == (2, 2)
    assert drawn.num_unknown == 1
    assert count_into(MEASURES[0], (0.0, 5.0), [], None).summary == "none measured of 0"


def test_bars_say_their_numbers_and_the_summary_says_the_whole():
    rows = [make_row(f"c{k}", scores={"yaw_abs_median_deg": float(k)}) for k in range(101)]
    yaw = histograms(rows, {"real": SelectLimits()}, ["real"])["real"][0]
    assert yaw.summary == "n 101, median 50°, 5–95 % 5 to 95°"
    bars = re.findall(r"<title>[^<]*: ([\d,]+) clips?</title>", draw_histogram(yaw))
    assert [int(bar) for bar in bars] == [count for count in yaw.counts if count]


@pytest.mark.parametrize("limit", [30.0, 45.0, 60.0])
def test_the_limit_is_marked_where_it_lies_and_left_out_where_there_is_none(limit):
    rows = [make_row(scores={"yaw_abs_median_deg": 76.0})]  # in the bin that begins at 75
    yaw = histograms(rows, {"real": SelectLimits(max_abs_yaw_deg=limit)}, ["real"])["real"][0]
    svg = str(draw_histogram(yaw))
    assert f"at most {limit:.0f}°" in svg
    (mark,) = re.findall(r'<path class="limit" d="M([\d.]+) ', svg)
    bar_of_75 = re.findall(r'<rect class="bar" x="([\d.]+)"[^>]*>', svg)[0]
    per_degree = (float(bar_of_75) - 0.5 - 30) / 75
    assert float(mark) == pytest.approx(30 + per_degree * limit, abs=0.1)
    assert 'class="limit"' not in str(draw_histogram(histograms(rows, {}, ["real"])["real"][0]))


def test_domains_share_their_edges():
    rows = [make_row("a"), make_row("b", domain="mesh", duration_s=19.0)]
    drawn = histograms(rows, {}, ["mesh", "real"])
    for one, other in zip(drawn["mesh"], drawn["real"], strict=True):
        assert one.edges == other.edges


# ---- size ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("num_clips", "num_sources"), [(1500, 60), (10_000, 60), (10_000, 5000)])
def test_the_page_stays_below_three_megabytes(num_clips, num_sources):
    rows = many_rows(num_clips, num_sources)
    sources = [listed_source(f"s{number}", title="T" * 80, credit="C" * 120) for number in range(num_sources)]
    pictures = pictures_of({row.domain for row in rows}, 400_000)
    page = write_web_card(make_release(rows, sources), ABOUT, rows, pictures=pictures)
    assert page.count("data:image/jpeg") == 4
    assert len(page.encode()) < 3_000_000


def test_sheets_beyond_the_page_s_room_are_left_beside_it():
    rows = many_rows(40)
    pictures = pictures_of({row.domain for row in rows}, MAX_PICTURE_BYTES // 3)
    page = write_web_card(make_release(rows), ABOUT, rows, pictures=pictures)
    assert page.count("data:image/jpeg") == 3
    assert "sheets/real.jpg" in page


# ---- pictures come from the shards -----------------------------------------------------------------


@pytest.fixture
def made(tmp_path):
    """A release of nine clips with its rows, described from its own shards."""
    kept = {}

    def describe(record, rows):
        kept["rows"] = list(rows)
        return describe_release(Storage(tmp_path), record, ABOUT.model_copy(update={"models": ()}), rows)

    shelf = small_shelf()
    release = write_release(
        Storage(tmp_path), "v1", shelf.items, shelf.read, setup=SETUP, pack=PackConfig(), describe=describe
    )
    return tmp_path, release, kept["rows"], shelf


def test_a_clip_is_read_back_from_its_shard_by_its_row_alone(made):
    folder, _, rows, shelf = made
    for row in rows:
        members = read_members(Storage(folder), row)
        for suffix in ("mp4", "landmarks.npy", "pose.npy"):
            assert members[suffix] == shelf.files[row.clip_id][suffix]
    wrong = rows[0].model_copy(update={"visual_offset": rows[0].visual_offset + 512})
    with pytest.raises(WorkspaceError, match=r"verify the release|cannot be read"):
        read_members(Storage(folder), wrong)
    with pytest.raises(WorkspaceError, match="found"):
        read_members(Storage(folder), rows[0].model_copy(update={"clip_id": "other"}))


def test_pictures_and_cards_can_be_made_again_from_the_release_alone(made):
    folder, release, rows, _ = made
    about = About.model_validate_json((folder / ABOUT_FILE).read_bytes())
    again = describe_release(Storage(folder), release, about, rows[::-1])
    assert again.keys() == {
        ABOUT_FILE, "README.md", WEB_CARD_FILE, OVERVIEW_FILE, FUNNEL_FILE, sheet_file("mesh"), sheet_file("real"),
    }  # fmt: skip
    for path, data in again.items():
        assert (folder / path).read_bytes() == data
        assert release.files[path] == hashlib.sha256(data).hexdigest()


def test_what_was_taken_out_is_in_no_picture(made):
    folder, _, rows, _ = made
    left = [row for row in rows if row.source_id != "toon"]
    pictures = draw_gallery(Storage(folder), left)
    assert pictures.keys() == {OVERVIEW_FILE, sheet_file("real")}
    assert pictures[sheet_file("real")] == (folder / sheet_file("real")).read_bytes()
    assert pictures[OVERVIEW_FILE] != (folder / OVERVIEW_FILE).read_bytes()


def test_only_the_shown_clips_are_read(made, monkeypatch):
    folder, _, rows, _ = made
    storage, read = Storage(folder), []
    real = storage.read_range
    monkeypatch.setattr(storage, "read_range", lambda *place: read.append(place) or real(*place))
    monkeypatch.setattr("pipeline.card.gallery.MAX_SHEET_CLIPS", 2)
    draw_gallery(storage, rows)
    assert len(read) == 3 + 2 + 2  # one clip per source, and two for each of two domains


def test_the_pictures_show_the_released_frames(made):
    folder, _, rows, shelf = made
    row = min((row for row in rows if row.domain == "mesh"), key=lambda row: row.clip_id)
    picture = cv2.imdecode(np.frombuffer((folder / sheet_file("mesh")).read_bytes(), np.uint8), cv2.IMREAD_COLOR)
    frame = frames_of(shelf.files[row.clip_id]["mp4"], [0])[0]
    # Noise averages out over a tile, but not its hue; the overlays of the fixture's random points lie on top.
    tile = picture[:198, :198, ::-1].astype(int)
    assert tile.mean() == pytest.approx(frame.mean(), abs=25)
    assert tile.std() > 15


def test_a_sheet_shows_as_many_sources_as_it_can():
    rows = many_rows(300, num_sources=7, domains=("real",))
    chosen = spread_over_sources(rows, MAX_SHEET_CLIPS)
    assert len(chosen) == MAX_SHEET_CLIPS
    assert {row.source_id for row in chosen} == {row.source_id for row in rows}
    assert spread_over_sources(rows[::-1], MAX_SHEET_CLIPS) == chosen
    gone = chosen[0].clip_id
    rest = spread_over_sources([row for row in rows if row.clip_id != gone], MAX_SHEET_CLIPS)
    assert len({row.clip_id for row in rest} - {row.clip_id for row in chosen}) == 1


# ---- the verifier ----------------------------------------------------------------------------------


def faults_of(folder):
    return [str(fault) for fault in verify_release(str(folder))]


def reseal(folder, change):
    record = json.loads((folder / RELEASE_FILE).read_bytes())
    change(record)
    (folder / RELEASE_FILE).write_bytes(canonical_json(record))


def test_a_described_release_verifies_and_so_does_one_of_the_version_before(made):
    folder, release, _, _ = made
    assert faults_of(folder) == []
    newer = {ABOUT_FILE, WEB_CARD_FILE, sheet_file("mesh"), sheet_file("real")}
    assert newer <= release.files.keys()
    for path in newer:
        (folder / path).unlink()
    reseal(folder, lambda record: [record["files"].pop(path) for path in newer])
    assert faults_of(folder) == []


@pytest.mark.parametrize("path", [ABOUT_FILE, WEB_CARD_FILE, "sheets/real.jpg", "README.md", OVERVIEW_FILE])
def test_a_changed_card_or_picture_is_found(made, path):
    folder = made[0]
    data = bytearray((folder / path).read_bytes())
    data[len(data) // 2] ^= 1
    (folder / path).write_bytes(data)
    assert any(line.startswith(f"{path}: expected sha256 ") for line in faults_of(folder))


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b"{}", "funnel: Field required"),
        (b'{"funnel": {"steps": []}}', "is not in canonical form"),
        (canonical_json(About(funnel=FUNNEL, models=(MODEL,))), f"model mesh: expected sha256 aa, found {HASH}"),
    ],
)
def test_an_about_that_is_none_or_contradicts_the_record_is_named(made, data, problem):
    folder = made[0]
    (folder / ABOUT_FILE).write_bytes(data)

    def change(record):
        record["files"][ABOUT_FILE] = hashlib.sha256(data).hexdigest()
        record["models"]["mesh"] = "aa"

    reseal(folder, change)
    assert any(line.startswith(ABOUT_FILE) and problem in line for line in faults_of(folder))


def test_an_about_without_its_cards_is_named(made):
    folder = made[0]
    (folder / WEB_CARD_FILE).unlink()
    reseal(folder, lambda record: record["files"].pop(WEB_CARD_FILE))
    assert f"{RELEASE_FILE}: lists about.json but not card.html, which is written from it" in faults_of(folder)


def test_the_funnel_picture_is_the_abouts(made):
    assert (made[0] / FUNNEL_FILE).read_bytes() == draw_funnel(FUNNEL)
