"""The dataset card: every source, every number, and nothing that a source could smuggle in."""

import html
import io
import json
import re
import tarfile
import unicodedata
from collections.abc import Sequence

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from pydantic import ValidationError

from pipeline.card.markdown import code, draw_funnel, inert, write_card
from schemas.funnel import Funnel, FunnelDrop, FunnelStep
from schemas.models import ModelCard
from schemas.release import (
    About,
    Coverage,
    LostRow,
    ManifestRow,
    Release,
    ReleaseSource,
    ShardRecord,
    shard_file,
)
from schemas.sample import FIELDS
from tests.helpers.release_items import make_row

HASH = "ab12cd34" * 8
HOSTILE = (
    "Film | x\n# Head\n<script>alert(1)</script> <img src=x> [a](javascript:b) ![p](http://t.co/x) "
    "`c` **d** $e$ www.f.com"
)

FUNNEL = Funnel(
    steps=(
        FunnelStep(
            stage="fetch", unit="sources", entered=4, passed=2, pending=1, drops=(FunnelDrop(reason="decode", count=1),)
        ),
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


def make_source(source_id: str = "talk", title: str = "A talk", **more: str) -> ReleaseSource:
    fields = {"uri": f"https://x.org/{source_id}", "domain": "real", "license": "CC BY 4.0", "credit": "X", **more}
    return ReleaseSource(source_id=source_id, title=title, sha256=HASH, **fields)


def make_release(*sources: ReleaseSource, **more: object) -> Release:
    shards = tuple(
        ShardRecord(
            path=shard_file("train", "real", series, 0),
            series=series,
            split="train",
            domain="real",
            num_samples=1,
            num_bytes=1,
            sha256=HASH,
        )
        for series in ("visual", "speech")
    )
    fields = {
        "name": "demo-v1",
        "tool_version": "0.1.0",
        "config_hash": HASH,
        "inputs_hash": HASH,
        "num_clips": 1250,
        "duration_s": 7500.0,
        "counts": {"train": {"real": 300, "mesh": 900}, "test": {"real": 50}},
        "requested": {"train": {"real": 300, "mesh": 1000}},
        "shards": shards,
        "sources": sources or (make_source(),),
        "models": {"mesh": HASH},
        "files": {"overview.png": HASH},
        "with_identity": False,
        **more,
    }
    return Release(**fields)


def card_of(release: Release, funnel: Funnel = FUNNEL, rows: Sequence[ManifestRow] = (), **more: object) -> str:
    return write_card(release, About(funnel=funnel, models=(MODEL,)), rows, **more)


def cells(card: str, first: str) -> list[str]:
    """The cells of the only table row that begins with ``first``."""
    (line,) = (line for line in card.splitlines() if line.startswith(f"| {first} |"))
    return [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]


def shown(markdown: str) -> str:
    """What a reader sees of it once rendered; live markup would leave tags in it."""
    rendered = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"]).render(markdown)
    return html.unescape(rendered.removeprefix("<p>").removesuffix("</p>\n")).replace("\u200c", "")


# ---- the funnel: nothing vanishes ------------------------------------------------------------------


@given(st.integers(0, 99), st.integers(0, 99), st.lists(st.integers(1, 99), max_size=4), st.integers(-1, 1))
def test_a_step_sums_up_or_cannot_exist(passed, pending, counts, error):
    drops = tuple(FunnelDrop(reason=f"r{k}", count=count) for k, count in enumerate(counts))
    entered = passed + pending + sum(counts) + error
    fields = {"stage": "select", "entered": entered, "passed": passed, "pending": pending, "drops": drops}
    if error:
        with pytest.raises(ValidationError):
            FunnelStep(**fields)
    else:
        assert FunnelStep(**fields).num_dropped == sum(counts)


def test_steps_of_one_unit_are_continuous_and_a_new_unit_may_begin_anew():
    first = FunnelStep(stage="a", entered=5, passed=5)
    with pytest.raises(ValidationError, match="breaks between 'a' and 'b'"):
        Funnel(steps=(first, FunnelStep(stage="b", entered=4, passed=4)))
    Funnel(steps=(first, FunnelStep(stage="b", entered=4, passed=4, unit="shots")))


def test_a_reason_counts_once_per_step():
    with pytest.raises(ValidationError, match="counts one reason twice"):
        FunnelStep(stage="a", entered=2, passed=0, drops=(FunnelDrop(reason="x", count=1),) * 2)


# ---- the card's numbers are the release's ----------------------------------------------------------


def test_counts_requests_and_shortfall_are_the_releases_own():
    rows = [
        make_row("a", duration_s=60.0),
        make_row("b", duration_s=30.0),
        make_row("c", duration_s=600.0, domain="mesh"),
        make_row("d", duration_s=6.0, split="test"),
    ]
    card = card_of(make_release(), rows=rows)
    rows = [line for line in card.splitlines() if re.match(r"\| (train|test) ", line)]
    assert rows == [
        "| train | `mesh` | 900 | 10.0 | 1,000 | 100 |",
        "| train | `real` | 300 | 1.5 | 300 | – |",
        "| test | `real` | 50 | 0.1 | – | – |",
    ]
    assert "falls short of what was asked for by 100 clips" in card
    assert "1,250 talking-head clips, 125 minutes, from 1 source:" in card


def test_a_domain_that_got_nothing_is_listed():
    card = card_of(make_release(requested={"val": {"disney_human": 7}}))
    assert "| val | `disney_human` | 0 | 0.0 | 7 | 7 |" in card


def test_a_release_that_got_all_it_asked_for_claims_no_shortfall():
    assert "falls short" not in card_of(make_release(requested={"train": {"real": 300}}))


def test_the_funnel_table_holds_every_number():
    card = card_of(make_release())
    assert cells(card, "**select**")[2:5] == ["2,003", "1,250", "753"]
    assert cells(card, "↳ `padding`")[4:] == ["700", "0.183", "0.1"]
    assert cells(card, "↳ `low_resolution`")[4:] == ["53", "121.5", "160"]
    assert cells(card, "↳ `decode`")[4:] == ["1", "–", "–"]
    assert cells(card, "↳ no outcome yet")[4] == "1"


def test_every_source_is_credited():
    sources = [make_source(f"s{k}", title=f"Title {k}", credit=f"Credit {k}") for k in range(40)]
    card = card_of(make_release(*sources))
    for k in range(40):
        assert cells(card, f"`s{k}`")[1:6] == [
            f"Title {k}",
            "`real`",
            "CC BY 4.0",
            f"Credit {k}",
            f"`https://x.org/s{k}`",
        ]


def test_every_field_of_a_sample_is_explained():
    card = card_of(make_release())
    for field in FIELDS:
        assert f"| `{field.suffix}` | {field.series} |" in card


def test_a_model_that_nobody_described_is_shown_as_unknown():
    card = card_of(make_release(models={"mesh": HASH, "mystery": "f" * 64}))
    assert cells(card, "`mesh`")[3:5] == ["Apache-2.0", "yes"]
    assert cells(card, "`mystery`")[3:5] == ["not known", "not known: assume no"]
    assert "Not for commercial use" in card
    assert "Not for commercial use" not in card_of(make_release())


def test_pictures_are_linked_only_when_they_are_in_the_release():
    assert "](overview.png)" in card_of(make_release(), pictures={"overview.png"})
    assert "](funnel.png)" not in card_of(make_release(), pictures={"overview.png"})
    assert "](funnel.png)" in card_of(make_release(), pictures={"funnel.png"})


def test_limits_and_people_depend_on_what_is_in_it():
    card = card_of(make_release())
    assert "Clips of real people" in card
    assert "no face embeddings" in card
    assert "cats" not in card
    animals = card_of(make_release(counts={"train": {"disney_animal": 3}}, requested={}, with_identity=True))
    assert "cascade for cats" in animals
    assert "It contains face embeddings" in animals
    assert "No domain of filmed people" in animals


def test_an_empty_release_has_a_card():
    card = card_of(make_release(num_clips=0, counts={}, requested={}, shards=(), models={}), Funnel(steps=()))
    assert "does not tell what was left out" in card
    assert "0 talking-head clips" in card
    assert "## Reading it" not in card


def test_coverage_and_take_downs_are_told_only_where_there_are_some():
    lost = (LostRow(source_id="gone", num_clips=2, reason="its address | answers 404"),)
    coverage = Coverage(num_listed=14, num_same=4, num_other=3, num_unnamed=5, lost=lost)
    card = write_card(make_release(), About(funnel=FUNNEL, coverage=coverage, forgotten=2), ())
    assert cells(card, "made from the very same file")[1] == "4"
    assert cells(card, "made, and the list does not say from which file")[1] == "5"
    assert cells(card, "not made")[1] == "2"
    assert cells(card, "`gone`")[1:] == ["2", "its address \\| answers 404"]
    assert "2 sources were taken down" in card
    plain = card_of(make_release())
    assert "Rebuilt from a clip list" not in plain
    assert "taken down" not in plain


@pytest.mark.parametrize("error", [-1, 0, 1])
def test_a_coverage_loses_no_clip_without_a_reason(error):
    lost = (LostRow(source_id="gone", num_clips=2, reason="404"),)
    numbers = {"num_listed": 9 + error, "num_same": 4, "num_other": 3, "lost": lost}
    if error:
        with pytest.raises(ValidationError, match="loses clips without a reason"):
            Coverage(**numbers)
    else:
        assert Coverage(**numbers).num_lost == 2


def test_the_same_release_gives_the_same_card():
    assert card_of(make_release()) == card_of(make_release())


# ---- the front matter is what Hugging Face reads ---------------------------------------------------


def front_matter(card: str) -> dict:
    return yaml.safe_load(card.split("---\n")[1])


def test_front_matter_names_known_licences_and_calls_the_rest_other():
    sources = [make_source("a"), make_source("b", license="my own"), make_source("c", license="CC-BY-3.0")]
    matter = front_matter(card_of(make_release(*sources), pretty_name="Demo: x\n---\nlicense: mit"))
    assert matter["license"] == ["cc-by-3.0", "cc-by-4.0", "other"]
    assert matter["pretty_name"] == "Demo: x --- license: mit"
    assert matter["size_categories"] == ["1K<n<10K"]
    assert matter["configs"][0]["data_files"] == [{"split": "train", "path": "train/*/*-visual-*.tar"}]


# ---- hostile text stays inert ----------------------------------------------------------------------


def test_a_hostile_title_stays_in_its_cell():
    source = make_source(
        title=HOSTILE, credit=HOSTILE, license=HOSTILE, uri="https://u:secret@x.org/`|<b>\n?token=1&v=2"
    )
    card = card_of(make_release(source), pretty_name=HOSTILE, contact=HOSTILE)
    assert len(cells(card, "`talk`")) == 7
    body = card.split("---\n", 2)[2]
    assert "<" not in re.sub(r"`[^`\n]*`", "", body)
    assert "secret" not in card
    assert "token" not in card
    assert not re.search(r"(?<!\\)\]\((?!overview)", body)
    assert [line for line in body.splitlines() if line.startswith("# ")] == [f"# {inert(HOSTILE)}"]


@given(st.text(max_size=80) | st.text(alphabet="-+*_`~[]()<>!|#&;\\$=1. \na:/@w", max_size=30))
@settings(max_examples=500)
def test_inert_text_renders_as_itself(text):
    safe = str(inert(text))
    visible = "".join(" " if char.isspace() else char for char in text)
    visible = "".join(char for char in visible if unicodedata.category(char) not in ("Cc", "Cf", "Cs"))
    assert shown(safe) == " ".join(visible.split())
    assert not re.search(r"(?i)https?:|www\.|\n|(?<!\\)(\\\\)*[|$]", safe)


@given(st.text(alphabet=st.sampled_from("ab`|\n\r\t\x00<>\u2028 "), max_size=20))
def test_code_cannot_be_left(text):
    safe = str(code(text))
    assert safe == "–" or (safe[0] == safe[-1] == "`" and not set("`|\n\r\t\x00\u2028 ") & set(safe[1:-1]))


# ---- the examples run ------------------------------------------------------------------------------


def lay_out(folder, release: Release) -> None:
    """As much of a release as the card's examples read."""
    place = folder / release.shards[0].path
    place.parent.mkdir(parents=True)
    with tarfile.open(place, "w") as tar:
        for suffix, value in (("landmarks.npy", np.zeros((9, 68, 3))), ("pose.npy", np.zeros((9, 7))), ("json", None)):
            data = io.BytesIO()
            np.save(data, value) if value is not None else data.write(b'{"domain": "real"}')
            member = tarfile.TarInfo(f"clip-1.{suffix}")
            member.size = data.tell()
            data.seek(0)
            tar.addfile(member, data)
    shards = [{"url": release.shards[0].path, "nsamples": 1, "filesize": place.stat().st_size}]
    index = {"__kind__": "wids-shard-index-v1", "wids_version": 1, "shardlist": shards}
    (folder / "index-train-visual.json").write_text(json.dumps(index))
    row = {"clip_id": ["clip-1"], "split": ["train"], "domain": ["real"], "duration_s": [0.36]}
    pq.write_table(pa.table(row), folder / "manifest.parquet")


def test_the_reading_examples_run(tmp_path, monkeypatch, capsys):
    release = make_release()
    lay_out(tmp_path, release)
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", card_of(release), flags=re.DOTALL)
    assert len(blocks) == 3
    for block in blocks:
        exec(block, {})  # noqa: S102 - our own text
    out = capsys.readouterr().out
    assert "clip-1 (9, 7) real" in out
    assert "1 (9, 68, 3)" in out
    assert '["clip-1"]' in out.replace("\n", "").replace(" ", "")


# ---- the picture -----------------------------------------------------------------------------------


def test_the_funnel_picture_has_a_row_per_step_and_the_same_bytes():
    png = draw_funnel(FUNNEL)
    assert png == draw_funnel(FUNNEL)
    image = cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_COLOR)
    assert image.shape == (8 + 2 * 46, 1280, 3)
    assert cv2.imdecode(np.frombuffer(draw_funnel(Funnel(steps=())), np.uint8), 1) is not None


def test_bars_are_as_long_as_their_share():
    half = Funnel(steps=(FunnelStep(stage="a", entered=10, passed=5, drops=(FunnelDrop(reason="x", count=5),)),))
    image = cv2.imdecode(np.frombuffer(draw_funnel(half), np.uint8), cv2.IMREAD_COLOR)[16, :, ::-1].astype(int)
    assert (np.abs(image - (72, 133, 148)).max(axis=1) < 3).sum() == pytest.approx(280, abs=2)
