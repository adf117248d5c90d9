"""Reviews leave a workspace and come back: nothing is lost, nothing is doubled, and nothing comes in by half."""

import csv
import io
import json
import shutil
import string
import xml.etree.ElementTree as ET
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flows.cli import application as cli
from pipeline.build.results import load_build
from pipeline.curate.select import limits_of
from pipeline.review.exchange.agreement import agreement, cohens_kappa
from pipeline.review.exchange.annotations import iter_annotations
from pipeline.review.exchange.drafts import Draft, LeftOut
from pipeline.review.exchange.importing import read_reviews, store
from pipeline.review.exchange.labelstudio import label_studio_tasks
from pipeline.review.exchange.rows import COLUMNS, to_csv, to_jsonl, to_parquet
from pipeline.review.exchange.screened import Screened, read_screened
from pipeline.review.state import ScreeningState
from pipeline.store.reviews import ReviewLog, standing
from pipeline.store.workspace import Workspace
from schemas.base import FrameSpan
from schemas.config import SplitConfig
from schemas.decision import RejectReason
from schemas.errors import UsageError
from schemas.review import MAX_NAME, MAX_NOTE, REVIEW_REASONS, Review, ReviewAction
from tests.helpers.exchanged import NUM_FRAMES, WHEN, said, stocked

FORMS = {"jsonl": to_jsonl, "csv": to_csv, "parquet": to_parquet}
HEADER = "clip_id,version,who,at,action,reason,note\n"


@pytest.fixture(scope="module")
def shelf(tmp_path_factory) -> Path:
    """A workspace without reviews; read only."""
    return Path(stocked(tmp_path_factory.mktemp("shelf") / "ws").storage.root)


@pytest.fixture(scope="module")
def before(shelf) -> Screened:
    return read_screened(Workspace(shelf))


@pytest.fixture
def own(shelf, tmp_path) -> Path:
    """A workspace to write to."""
    return Path(shutil.copytree(shelf, tmp_path / "ws"))


def versions(screened: Screened) -> dict[str, str]:
    return {clip_id: finished.key for clip_id, finished in screened.clips.items()}


def everything(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def review(*arguments: object) -> int:
    return cli.run(["review", *(str(argument) for argument in arguments)])


# ---- our own formats -----------------------------------------------------------------------------------------------

_TEXT = st.text(st.characters(codec="utf-8"), max_size=40) | st.sampled_from(
    ["=1+1", "'=1+1", "''-1", "'tis", "@x", "\tx", 'a,b\r\n"c"', "＝1", "\r", " ", "\ufeff"]
)
_IDS = st.text(string.ascii_letters + string.digits + "-_", min_size=1, max_size=20).filter(str.isalnum)


@st.composite
def reviews(draw: st.DrawFn) -> list[tuple[str, dict]]:
    """Any reviews of film-0 to film-2, as clip and fields; the version is filled in by the test."""
    drawn = []
    for _ in range(draw(st.integers(1, 6))):
        action = draw(st.sampled_from(list(ReviewAction)))
        start = draw(st.integers(0, NUM_FRAMES - 1))
        own_field = {
            ReviewAction.REJECT: {"reason": draw(st.sampled_from(RejectReason))},
            ReviewAction.DOMAIN: {"domain": draw(st.sampled_from(["real", "mesh"]))},
            ReviewAction.IDENTITY: {"identity_id": draw(_IDS)},
            ReviewAction.TRIM: {"trim": FrameSpan(start=start, stop=draw(st.integers(start + 1, NUM_FRAMES)))},
        }.get(action, {})
        at = draw(st.datetimes()).isoformat(timespec="milliseconds") + draw(st.sampled_from(["Z", "+00:00"]))
        who = draw(_TEXT.filter(bool))
        shared = {"who": who, "at": at, "note": draw(_TEXT), "blind": draw(st.booleans()), "origin": draw(_TEXT)}
        drawn.append((f"film-{draw(st.integers(0, 2))}", {"action": action} | own_field | shared))
    return drawn


def records_of(drawn, screened: Screened, *, stale: bool = False) -> list[Review]:
    """The drawn fields as records; each undo takes back the first review of its clip, or becomes an acceptance."""
    records: list[Review] = []
    for clip_id, fields in drawn:
        version = "of-old" if stale else screened.clips[clip_id].key
        if fields["action"] is ReviewAction.UNDO:
            first = next((record.review_id for record in records if record.clip_id == clip_id), None)
            fields |= {"undoes": first} if first else {"action": ReviewAction.ACCEPT}  # noqa: PLW2901
        records.append(Review.of(clip_id=clip_id, version=version, **fields))
    return records


@pytest.mark.parametrize("form", FORMS)
@given(drawn=reviews(), stale=st.booleans())
def test_a_round_trip_gives_the_same_records(before, tmp_path_factory, form, drawn, stale):
    given_records = list({record.review_id: record for record in records_of(drawn, before, stale=stale)}.values())
    path = tmp_path_factory.getbasetemp() / f"trip.{form}"
    path.write_bytes(FORMS[form](given_records))
    incoming = read_reviews(path, before)
    assert incoming.reviews == given_records
    assert incoming.num_stale == (len(given_records) if stale else 0)


@pytest.mark.parametrize("form", FORMS)
def test_an_empty_copy_of_the_workspace_gets_all_reviews_once(shelf, own, tmp_path, form, capsys):
    screened = read_screened(Workspace(own))
    key = versions(screened)
    log = ReviewLog(Workspace(own))
    first = said("film-0", key["film-0"], "reject", reason="blurred", note="=SUM(A1)\nand\u2028more")
    for record in (
        first,
        said("film-0", key["film-0"], "undo", undoes=first.review_id),
        said("film-1", "an-earlier-version", who="'ben"),
        said("film-2", key["film-2"], "trim", trim={"start": 3, "stop": 60}, blind=True),
    ):
        log.append(record)
    copy = Path(shutil.copytree(shelf, tmp_path / "copy"))
    table = tmp_path / f"table.{form}"
    assert review("export", "-w", own, "-f", form, "-o", table) == 0
    assert review("import", "-w", copy, table) == 0
    assert "4 reviews of 3 clips imported, 0 were there already" in (out := capsys.readouterr().out)
    assert "1 are of other versions" in out
    assert {path: (copy / path).read_bytes() for path in everything(copy)} == {
        path: (own / path).read_bytes() for path in everything(own)
    }
    assert review("import", "-w", copy, table) == 0
    assert "0 reviews of 0 clips imported, 4 were there already" in capsys.readouterr().out
    assert everything(copy) == everything(own)


def test_a_spreadsheet_sees_no_formula(before):
    signs = ["=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠"]
    records = [said("film-0", "v", note=f"{sign}cmd", who=f"{sign}x", at=WHEN) for sign in signs]
    cells = [cell for row in csv.reader(io.StringIO(to_csv(records).decode(), newline="")) for cell in row]
    assert not [cell for cell in cells if cell[:1] in signs]


def test_tables_go_to_the_screen(own, capsysbinary):
    log = ReviewLog(Workspace(own))
    log.append(said("film-0", "v"))
    assert review("export", "-w", own, "-f", "csv") == 0
    head, row = capsysbinary.readouterr().out.decode().splitlines()
    assert head == ",".join(COLUMNS)
    assert row.endswith(["", ",v,ann,2026-01-02T03:04:05.678+00:00,accept,,,,,,,,false,"][1])


def test_a_table_by_hand_gets_its_ids(before, tmp_path):
    path = tmp_path / "hand.csv"
    key = versions(before)["film-0"]
    path.write_text(HEADER + f'film-0,{key},ann,2026-01-02T03:04:05Z,reject,blurred,"soft, all of it"\n')
    (record,) = read_reviews(path, before).reviews
    assert record == said(
        "film-0", key, "reject", reason="blurred", at="2026-01-02T03:04:05.000+00:00", note="soft, all of it"
    )


# ---- bad files -----------------------------------------------------------------------------------------------------

BAD_ROWS = {
    "film-9,{v},ann,{at},accept,,": ["line 2: clip_id: 'film-9': no clip of that id is in this workspace"],
    "film-0,{v},ann,{at},maybe,,": ["line 2: action: Input should be 'accept', 'reject'"],
    "film-0,{v},ann,{at},reject,ugly,": ["line 2: reason: Input should be"],
    "film-0,{v},ann,{at},reject,,": ["line 2: action: reject: reason is missing"],
    "film-0,{v},ann,{at},accept,blurred,": ["line 2: action: accept: reason is given"],
    "film-0,{v},ann,yesterday,accept,,": ["line 2: at: 'yesterday' is no UTC time such as"],
    "film-0,{v},ann,2026-02-30T00:00:00Z,accept,,": ["line 2: at: '2026-02-30T00:00:00Z' is no UTC time"],
    "film-0,{v},ann,2026-01-02T00:00:00+02:00,accept,,": ["line 2: at: '2026-01-02T00:00:00+02:00' is no UTC time"],
    "film-0,{v},,{at},accept,,": ["line 2: who: is missing; every review needs clip_id, version, who, at, action"],
    "film-0,,ann,{at},accept,,": ["line 2: version: is missing"],
    "film-0,{v},ann,{at}": ["line 2: has 4 cells where the header has 7 columns"],
    "no/../where,{v},ann,soon,dance,,": ["line 2: clip_id:", "line 2: at:", "line 2: action:"],
    "film-0,{v}," + "n" * (MAX_NAME + 1) + ",{at},accept,,": ["line 2: who: String should have at most 80"],
    "film-0,{v},ann,{at},accept,," + "n" * (MAX_NOTE + 1): ["line 2: note: String should have at most 2000"],
}  # fmt: skip


@pytest.mark.parametrize("row", BAD_ROWS)
def test_every_mistake_is_told_with_line_and_field_and_nothing_is_kept(own, tmp_path, row, capsys):
    key = versions(read_screened(Workspace(own)))["film-0"]
    path, there = tmp_path / "bad.csv", everything(own)
    good = f"film-0,{key},ann,{WHEN},accept,,"
    path.write_text(HEADER + row.format(v=key, at=WHEN) + f"\n{good}\n")
    assert review("import", "-w", own, path) == 2
    error = capsys.readouterr().err
    for expected in BAD_ROWS[row]:
        assert expected in error
    assert "nothing was imported" in error
    assert everything(own) == there


@pytest.mark.parametrize(
    ("name", "data", "expected"),
    [
        ("a.csv", b"", "is empty; expected a header line"),
        ("a.csv", HEADER.encode(), "holds no reviews"),
        ("a.csv", b"colour,clip_id\n", "unknown column 'colour'; missing column 'version'"),
        ("a.csv", b"clip_id,clip_id,version,who,at,action\n", "repeated column 'clip_id'"),
        ("a.csv", b'clip_id,version,who,at,action\n"open', "is not CSV"),
        ("a.csv", "clip_id,who\nfilm,Bj\u00f6rn\n".encode("latin-1"), "line 2: byte 0xf6 is not UTF-8"),
        ("a.csv", HEADER.encode("utf-16"), "line 1: byte 0xff is not UTF-8"),
        ("a.jsonl", b'{"clip_id": "film-0"}\nnonsense\n', "line 2: is not a JSON object"),
        ("a.jsonl", b'{"clip_id": "film-0"}\n{"clip_id": 1, "clip_id": 2}\n', "line 2: is not a JSON object: field"),
        ("a.jsonl", b'{"clip_id": "film-0", "trim_start": NaN}\n[]\n', "NaN is not a JSON value"),
        ("a.jsonl", b'{"clip_id": "film-0", "sex": 1}\n', "line 1: sex: is no field of a review"),
        ("a.jsonl", b'{"clip_id": ["film-0"], "version": {}}\n', "line 1: clip_id: Input should be a valid string"),
        ("a.json", b"{}", "line 1: clip_id: is missing"),
        ("a.json", b"[1, {}]", "task 1: is no object"),
        ("a.json", b"[1, {}]", "task 2: has neither 'data' nor 'annotation_id'"),
        ("a.json", b'[{"data": {}}]', "task 1: annotations: is no list"),
        ("a.json", b'[{"data": {}, "annotations": [{"result": 7}]}]', "task 1, annotation 1: result: is no list"),
        ("a.json", b"[" * 100_000, "is no JSON that can be read"),
        ("a.json", b"[" + b"9" * 5000 + b"]", "is no JSON that can be read"),
        ("a.json", b'[{"data": {}', "line 1: is not JSON"),
        ("a.parquet", b"PAR1 and no more", "is no readable Parquet file"),
        ("a.zip", b"PK\x03\x04\xff\xfe", "is not UTF-8"),
    ],
)  # fmt: skip
def test_a_file_of_no_known_format_is_refused_in_a_sentence(before, tmp_path, name, data, expected):
    path = tmp_path / name
    path.write_bytes(data)
    with pytest.raises(UsageError) as caught:
        read_reviews(path, before)
    assert expected in str(caught.value)


def test_what_is_no_file_is_refused(before, tmp_path):
    for path in (tmp_path, tmp_path / "nowhere.csv", Path("/dev/zero")):
        with pytest.raises(UsageError, match="name a file of reviews"):
            read_reviews(path, before)


def test_a_file_without_end_is_not_read_whole(before, tmp_path, monkeypatch):
    monkeypatch.setattr("pipeline.review.exchange.importing.MAX_IMPORT_BYTES", 1 << 20)
    path = tmp_path / "long.csv"
    path.write_bytes(b" " * ((1 << 20) + 1))
    with pytest.raises(UsageError, match="larger than 1 MiB: divide it"):
        read_reviews(path, before)


def test_a_parquet_file_that_unpacks_to_too_much_is_refused(before, tmp_path, monkeypatch):
    monkeypatch.setattr("pipeline.review.exchange.rows.MAX_UNPACKED_BYTES", 100)
    path = tmp_path / "bomb.parquet"
    path.write_bytes(to_parquet([said("film-0", "v")] * 1000))
    with pytest.raises(UsageError, match="would unpack to more than"):
        read_reviews(path, before)


def test_a_parquet_file_of_other_columns_is_refused(before, tmp_path):
    path = tmp_path / "other.parquet"
    pq.write_table(pa.table({"clip_id": ["film-0"], "score": [1.0]}), path)
    with pytest.raises(UsageError, match=r"unknown column 'score'; missing column 'version'"):
        read_reviews(path, before)


def test_a_file_gives_the_terminal_no_orders(before, own, tmp_path, capsys):
    path = tmp_path / "orders.jsonl"
    path.write_text('{"clip_id": "\\u001b[2J", "\\u001b[31m": 1, "at": "\\u001b[0m"}\n')
    with pytest.raises(UsageError) as caught:
        read_reviews(path, before)
    assert "\x1b" not in str(caught.value)
    for who in ("\x1b[2Jann", "ben"):
        ReviewLog(Workspace(own)).append(said("film-0", "v", who=who))
    assert review("agreement", "-w", own) == 0
    assert "\x1b" not in capsys.readouterr().out


def test_a_thousand_mistakes_are_counted_and_twenty_shown(before, tmp_path):
    path = tmp_path / "bad.csv"
    path.write_text(HEADER + f"film-9,v,ann,{WHEN},accept,,\n" * 1000)
    with pytest.raises(UsageError) as caught:
        read_reviews(path, before)
    lines = str(caught.value).splitlines()
    assert "1000 faults; nothing was imported" in lines[0]
    assert (len(lines), lines[-1]) == (22, "  and 980 more")


def test_what_is_said_of_clips_that_are_not_here_can_be_left_out(before, tmp_path):
    path = tmp_path / "some.csv"
    key = versions(before)["film-0"]
    path.write_text(HEADER + f"film-9,v,ann,{WHEN},accept,,\nfilm-0,{key},ann,{WHEN},accept,,\n")
    incoming = read_reviews(path, before, skip_unknown=True)
    assert [record.clip_id for record in incoming.reviews] == ["film-0"]
    assert incoming.left_out == {"of clips that are not here": 1}


@pytest.mark.parametrize(("stop", "fine"), [(NUM_FRAMES, True), (NUM_FRAMES + 1, False)])
def test_a_trim_stays_inside_the_clip(before, tmp_path, stop, fine):
    path = tmp_path / "trim.jsonl"
    path.write_bytes(to_jsonl([said("film-0", versions(before)["film-0"], "trim", trim={"start": 0, "stop": stop})]))
    if fine:
        assert read_reviews(path, before).reviews
        return
    with pytest.raises(UsageError, match=f"line 1: trim_stop: {stop} is beyond the clip's {NUM_FRAMES} frames"):
        read_reviews(path, before)


def test_an_unknown_domain_is_refused(before, tmp_path):
    path = tmp_path / "domain.jsonl"
    path.write_bytes(to_jsonl([said("film-0", "v", "domain", domain="surreal")]))
    with pytest.raises(UsageError, match="line 1: domain: 'surreal' is no domain; allowed: disney_animal"):
        read_reviews(path, before)


def test_an_undo_needs_what_it_undoes(before, tmp_path):
    first = said("film-0", "v")
    for undo in (said("film-0", "v", "undo", undoes="nothing"), said("film-1", "v", "undo", undoes=first.review_id)):
        path = tmp_path / "undo.jsonl"
        path.write_bytes(to_jsonl([undo, first]))
        with pytest.raises(UsageError, match=r"line 1: undoes: \S+ is no review of film-"):
            read_reviews(path, before)


def test_a_changed_row_under_its_old_id_is_not_lost_in_silence(own, tmp_path):
    old = said("film-0", "v", note="as it was")
    ReviewLog(Workspace(own)).append(old)
    path = tmp_path / "changed.csv"
    path.write_bytes(to_csv([old]).replace(b"as it was", b"as it is"))
    with pytest.raises(UsageError, match=r"line 2: review_id: .* is another review already"):
        read_reviews(path, read_screened(Workspace(own)))


# ---- Label Studio --------------------------------------------------------------------------------------------------


def annotation(number: int, result: list[dict], **more) -> dict:
    """An annotation as https://labelstud.io/guide/task_format.html shows one."""
    return {
        "id": number,
        "result": result,
        "was_cancelled": False,
        "ground_truth": False,
        "created_at": "2026-03-09T22:16:08.728353Z",
        "updated_at": "2026-03-09T22:16:08.728378Z",
        "lead_time": 4.288,
        "result_count": 0,
        "task": number,
        "completed_by": 10,
    } | more


def chosen(control: str, value: str) -> dict:
    return {
        "id": f"r-{control}",
        "type": "choices",
        "from_name": control,
        "to_name": "video",
        "origin": "manual",
        "value": {"choices": [value]},
    }


def task(clip_id: str, version: str, annotations: list[dict], number: int = 1) -> dict:
    return {
        "id": number,
        "data": {"video": "/x.mp4", "clip_id": clip_id, "version": version},
        "annotations": annotations,
        "drafts": [],
        "predictions": [],
        "project": 83,
        "created_at": "2026-03-09T21:52:49.513742Z",
        "updated_at": "2026-03-09T22:16:08.746926Z",
    }


def taken(screened: Screened, tasks: list[dict], tmp_path: Path):
    path = tmp_path / "export.json"
    path.write_text(json.dumps(tasks))
    return read_reviews(path, screened)


FULL = [
    chosen("verdict", "reject"),
    chosen("reason", "occluded"),
    chosen("relabel", "mesh"),
    {"id": "i", "type": "textarea", "from_name": "person", "to_name": "video", "value": {"text": ["ada"]}},
    {"id": "n", "type": "textarea", "from_name": "note", "to_name": "video", "value": {"text": ["a hand", "a cup"]}},
    {
        "id": "t",
        "type": "timelinelabels",
        "from_name": "trim",
        "to_name": "video",
        "value": {"ranges": [{"start": 3, "end": 5}], "timelinelabels": ["keep"]},
    },
    {"id": "o", "type": "choices", "from_name": "own control", "to_name": "video", "value": {"choices": ["x"]}},
]
AT = "2026-03-09T22:16:08.728+00:00"


def expected_full(version: str, who: str) -> list[Review]:
    shared = {"version": version, "who": who, "at": AT, "origin": "labelstudio"}
    return [
        said("film-0", action="reject", reason="occluded", note="a hand\na cup", **shared),
        said("film-0", action="domain", domain="mesh", **shared),
        said("film-0", action="identity", identity_id="ada", **shared),
        said("film-0", action="trim", trim={"start": 2, "stop": 5}, **shared),
    ]


def test_an_annotation_becomes_reviews(before, tmp_path):
    key = versions(before)["film-0"]
    person = {"id": 7, "email": "ada@example.org", "first_name": "Ada", "last_name": "L"}
    incoming = taken(
        before,
        [
            task(
                "film-0",
                key,
                [
                    annotation(1, FULL),
                    annotation(2, [chosen("verdict", "accept")], completed_by=person),
                    annotation(3, [chosen("verdict", "accept")], was_cancelled=True),
                    annotation(4, []),
                ],
            )
        ],
        tmp_path,
    )
    accepted = said("film-0", key, who="ada@example.org", at=AT, origin="labelstudio")
    assert incoming.reviews == [*expected_full(key, "labelstudio-10"), accepted]
    assert incoming.left_out == {"skipped in Label Studio": 1, "without a word on the clip": 1}


def test_the_small_export_says_the_same(before, tmp_path):
    key = versions(before)["film-0"]
    small = {
        "video": "/x.mp4",
        "clip_id": "film-0",
        "version": key,
        "domain": "real",
        "id": 1,
        "verdict": "reject",
        "reason": "occluded",
        "relabel": "mesh",
        "person": "ada",
        "note": {"text": ["a hand", "a cup"]},
        "trim": [{"ranges": [{"start": 3, "end": 5}], "timelinelabels": ["keep"]}],
        "annotator": 10,
        "annotation_id": 1,
        "created_at": "2026-03-09T22:16:08.728353Z",
        "updated_at": "2026-03-09T22:16:08.728378Z",
        "lead_time": 4.288,
    }
    assert taken(before, [small], tmp_path).reviews == expected_full(key, "labelstudio-10")
    by_mail = taken(before, [small | {"annotator": "ada@example.org"}], tmp_path).reviews
    assert by_mail == expected_full(key, "ada@example.org")


def test_one_task_alone_is_read_too(before, tmp_path):
    path = tmp_path / "task.json"
    path.write_text(json.dumps(task("film-0", "v", [annotation(1, [chosen("verdict", "accept")])]), indent=1))
    incoming = read_reviews(path, before)
    assert (len(incoming.reviews), incoming.num_stale) == (1, 1)


@pytest.mark.parametrize(
    ("result", "more", "expected"),
    [
        ([chosen("verdict", "maybe")], {}, "verdict: 'maybe' is neither accept nor reject"),
        ([chosen("verdict", "accept"), chosen("verdict", "reject")], {}, "verdict: has 2 values"),
        ([chosen("verdict", "reject"), chosen("reason", "ugly")], {}, "reason: Input should be"),
        ([chosen("relabel", "surreal")], {}, "domain: 'surreal' is no domain"),
        ([FULL[4]], {}, "note: a note alone cannot be kept"),
        ([FULL[3] | {"value": {"text": ["no such id!"]}}], {}, "identity_id: 'no such id!' is not a usable id"),
        ([FULL[5] | {"value": {"ranges": [{"start": 5, "end": 3}]}}], {}, "trim: a frame span needs"),
        ([FULL[5] | {"value": {"ranges": [{"start": 0, "end": 3}]}}], {}, "trim: a frame span needs"),
        ([FULL[5] | {"value": {"ranges": [{"start": None, "end": 3}]}}], {}, "trim: needs whole frame numbers"),
        ([FULL[5] | {"value": {"ranges": [{"start": 1, "end": 3}] * 2}}], {}, "trim: has 2 values"),
        ([chosen("verdict", "accept")], {"updated_at": "soon"}, "updated_at: 'soon' is no time"),
        ([chosen("verdict", "accept")], {"updated_at": float("nan")}, "updated_at: 'nan' is no time"),
        ([chosen("verdict", "accept")], {"completed_by": [1]}, "completed_by: is neither a number nor"),
    ],
)  # fmt: skip
def test_a_bad_annotation_is_told_with_its_place(before, tmp_path, result, more, expected):
    tasks = [task("film-0", "v", [annotation(1, [chosen("verdict", "accept")]), annotation(2, result, **more)])]
    with pytest.raises(UsageError) as caught:
        taken(before, tasks, tmp_path)
    assert f"  task 1, annotation 2: {expected}" in str(caught.value)


def test_a_task_of_another_project_is_refused(before, tmp_path):
    foreign = task("film-0", "v", [annotation(1, [chosen("verdict", "accept")])]) | {"data": {"image": "/1.jpg"}}
    with pytest.raises(UsageError, match="clip_id: is missing"):
        taken(before, [foreign], tmp_path)


def test_a_later_look_overrules_and_the_same_file_adds_nothing(own, tmp_path):
    key = versions(read_screened(Workspace(own)))["film-0"]
    log = ReviewLog(Workspace(own))
    accepted = task("film-0", key, [annotation(1, [chosen("verdict", "accept")])])
    changed = task("film-0", key, [annotation(1, [chosen("verdict", "reject")], updated_at="2026-03-10T00:00:00Z")])
    counts = [
        store(log, taken(read_screened(Workspace(own)), [done], tmp_path)) for done in (accepted, accepted, changed)
    ]
    assert counts == [1, 0, 1]
    verdict = read_screened(Workspace(own)).standing["film-0"].verdict
    assert verdict is not None
    assert (verdict.action, verdict.reason) == (ReviewAction.REJECT, RejectReason.REVIEWER)


def test_a_thousand_annotations_are_imported(own, tmp_path, capsys):
    key = versions(read_screened(Workspace(own)))
    tasks = [
        task(
            f"film-{number % 3}",
            key[f"film-{number % 3}"],
            [
                annotation(
                    2 * number + k,
                    [chosen("verdict", "reject"), chosen("reason", REVIEW_REASONS[number % 9].value)],
                    updated_at=f"2026-03-09T22:{number // 60:02}:{number % 60:02}.728378Z",
                    completed_by=k,
                )
                for k in (0, 1)
            ],
            number=number,
        )
        for number in range(500)
    ]
    path = tmp_path / "project-83.json"
    path.write_text(json.dumps(tasks))
    assert review("import", "-w", own, path) == 0
    assert "1000 reviews of 3 clips imported, 0 were there already" in capsys.readouterr().out
    assert len(ReviewLog(Workspace(own)).read()) == 1000
    assert review("import", "-w", own, path) == 0
    assert "0 reviews of 0 clips imported, 1000 were there already" in capsys.readouterr().out


def test_tasks_are_what_label_studio_documents(own, tmp_path, capsys):
    key = versions(read_screened(Workspace(own)))["film-0"]
    ReviewLog(Workspace(own)).append(said("film-0", key, "reject", reason="overlay", note="<b>"))
    folder = tmp_path / "for label studio"
    assert review("export", "-w", own, "-f", "labelstudio", "-o", folder) == 0
    assert f"DOCUMENT_ROOT={tmp_path}" in capsys.readouterr().out
    tasks = json.loads((folder / "tasks.json").read_text())
    assert [exported["data"]["clip_id"] for exported in tasks] == ["film-0", "film-1", "film-2"]
    assert tasks[0]["data"]["video"] == "/data/local-files/?d=for%20label%20studio/videos/film-0.mp4"
    assert (folder / "videos" / "film-0.mp4").read_bytes() == Workspace(own).result_file("clip", key, "mp4")
    assert (tasks[1]["data"]["filter_keeps"], tasks[1]["data"]["filter_reason"]) == (False, "not_speaking")
    (said_before,), (filtered,), _ = (exported["predictions"] for exported in tasks)
    assert (said_before["model_version"], said_before["score"]) == ("reviewers", 1.0)
    assert filtered["model_version"].startswith("filters-")
    assert filtered["score"] == round(1 / 3, 4)  # one verdict, against the filters
    root = ET.fromstring((folder / "labeling-config.xml").read_text())  # noqa: S314 - our own
    video = root.find("Video")
    assert video is not None
    assert video.get("value", "").removeprefix("$") in tasks[0]["data"]
    choices = {tag.get("name"): [choice.get("value") for choice in tag] for tag in root.iter("Choices")}
    assert choices["verdict"] == ["accept", "reject"]
    assert choices["reason"] == [reason.value for reason in REVIEW_REASONS]
    controls = {tag.get("name") for tag in root if tag.get("toName") == video.get("name")}
    assert controls.isdisjoint(tasks[0]["data"].keys() - {"video"})  # JSON_MIN mixes both
    ids = [
        result["id"] for exported in tasks for prediction in exported["predictions"] for result in prediction["result"]
    ]
    assert len(ids) == len(set(ids))
    for exported in tasks:
        for result in exported["predictions"][0]["result"]:
            assert result["from_name"] in controls
            assert result["to_name"] == video.get("name")


@given(drawn=reviews())
def test_a_pre_annotation_that_is_submitted_says_what_was_said(before, drawn):
    records = [
        record
        for record in records_of(
            [(clip_id, fields | {"blind": False, "note": ""}) for clip_id, fields in drawn], before
        )
        if record.action is not ReviewAction.UNDO and (record.reason is None or record.reason in REVIEW_REASONS)
    ]
    screened = replace(before, reviews=records, standing=standing(records, versions(before)))
    for exported in json.loads(label_studio_tasks(screened, "/")):
        stands = screened.standing.get(exported["data"]["clip_id"])
        if stands is None or stands.verdict is None:
            continue
        submitted = exported | {"annotations": [annotation(1, exported["predictions"][0]["result"])]}
        drafts = [entry.values for entry in iter_annotations([submitted]) if isinstance(entry, Draft)]
        fields = ("action", "reason", "domain", "identity_id", "trim")
        kept = [stands.verdict, stands.domain, stands.identity, stands.trim]
        assert [{name: Review.of(**draft).model_dump()[name] for name in fields} for draft in drafts] == [
            {name: review.model_dump()[name] for name in fields} for review in kept if review
        ]


def test_films_stay_where_they_are_when_an_address_is_given(own, tmp_path):
    folder = tmp_path / "tasks"
    arguments = ("-w", own, "-f", "labelstudio", "-o", folder, "--video-prefix", "https://example.org/films/")
    assert review("export", *arguments) == 0
    assert everything(folder) == {"tasks.json", "labeling-config.xml"}
    first = json.loads((folder / "tasks.json").read_text())[0]
    assert first["data"]["video"] == "https://example.org/films/film-0.mp4"
    assert review("export", *arguments) == 2  # the folder is there


def test_a_skipped_annotation_is_no_review():
    cancelled = task("film-0", "v", [annotation(1, FULL, was_cancelled=True)])
    assert list(iter_annotations([cancelled])) == [LeftOut("skipped in Label Studio")]


# ---- agreement -----------------------------------------------------------------------------------------------------


def verdicts(who: str, words: str, *, day: int = 1, blind: bool = False) -> list[Review]:
    """One verdict per letter on film-0, film-1 and so on: a or r."""
    more = {"a": {}, "r": {"reason": "blurred"}}
    return [
        said(
            f"film-{number}",
            "v",
            "accept" if word == "a" else "reject",
            who=who,
            at=f"2026-01-{day:02}T00:00:{number:02}.000+00:00",
            blind=blind,
            **more[word],
        )
        for number, word in enumerate(words)
        if word in more
    ]


def test_kappa_of_a_worked_example():
    # Both say yes 20 times and no 15 times; one alone yes 5 and the other alone 10: .7 observed, .5 by chance.
    pairs = [(True, True)] * 20 + [(False, False)] * 15 + [(True, False)] * 5 + [(False, True)] * 10
    assert cohens_kappa(pairs) == pytest.approx(0.4)


@given(st.lists(st.tuples(st.booleans(), st.booleans()), max_size=30))
def test_kappa_is_symmetric_at_most_one_and_full_agreement_is_one(pairs):
    kappa = cohens_kappa(pairs)
    assert kappa == cohens_kappa([(b, a) for a, b in pairs])
    assert kappa == cohens_kappa([(not a, not b) for a, b in pairs])
    same = [(a, a) for a, _ in pairs]
    assert cohens_kappa(same) == (1.0 if len(set(same)) == 2 else None)
    if kappa is not None:
        assert -1 <= kappa <= 1
        assert (kappa == 1) == all(a == b for a, b in pairs)


def test_only_clips_that_both_judged_count_and_the_latest_verdict_of_each():
    agreed = agreement([*verdicts("ann", "aarr-"), *verdicts("ben", "rarra"), *verdicts("ben", "a", day=2)])
    (pair,) = agreed.pairs
    assert (pair.first, pair.second, pair.num_clips, pair.num_agreed, pair.kappa) == ("ann", "ben", 4, 4, 1.0)
    assert agreed.num_reviewers == 2
    assert agreed.second_looks == ()  # who changes their mind has seen what they said before


def test_what_was_undone_and_other_versions_do_not_count():
    ann, ben = verdicts("ann", "ar"), verdicts("ben", "ar")
    undo = said("film-0", "v", "undo", who="ben", at="2026-02-01T00:00:00.000+00:00", undoes=ben[0].review_id)
    old = said("film-2", "earlier", who="ann")
    new = said("film-2", "v", who="ben")
    (pair,) = agreement([*ann, *ben, undo, old, new]).pairs
    assert (pair.num_clips, pair.num_agreed, pair.kappa) == (1, 1, None)


def test_a_blind_second_look_is_compared_with_the_first():
    agreed = agreement([*verdicts("ann", "aarr"), *verdicts("ann", "aara", day=2, blind=True)])
    assert agreed.pairs == ()
    (own_row,) = agreed.second_looks
    assert (own_row.first, own_row.second, own_row.num_clips, own_row.num_agreed) == ("ann", "ann", 4, 3)
    assert own_row.kappa == pytest.approx(0.5)


def test_the_command_shows_agreement(own, capsys):
    assert review("agreement", "-w", own) == 0
    assert "nobody has judged a clip so far" in capsys.readouterr().out
    log = ReviewLog(Workspace(own))
    for record in [*verdicts("ann", "ar"), *verdicts("ben", "ar")]:
        log.append(record)
    assert review("agreement", "-w", own, "--format", "json") == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert row == {"first": "ann", "second": "ben", "num_clips": 2, "num_agreed": 2, "kappa": 1.0}


def test_commands_that_make_no_sense_are_refused(own, tmp_path, capsys):
    assert review("export", "-w", own, "-f", "csv", "--video-prefix", "x") == 2
    assert "belongs to --format labelstudio" in capsys.readouterr().err
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").touch()
    for form in ("html", "labelstudio"):
        assert review("export", "-w", own, "-f", form, "-o", tmp_path / "full") == 2
        assert "is there already" in capsys.readouterr().err
    assert review("export", "-w", tmp_path / "none", "-f", "csv") == 2
    assert review("import", "-w", tmp_path / "none", tmp_path) == 2


def test_the_paper_preset_binds_what_leaves_as_it_binds_the_page_and_the_release(own):
    workspace = Workspace(own)
    build = load_build(workspace)
    config = build.config.model_copy(update={"split": SplitConfig(preset="paper")})
    workspace.storage.write("build.json", build.model_copy(update={"config": config}).model_dump_json().encode())
    limits = read_screened(workspace).limits
    assert {limit.min_native_crop_px for limit in limits.values()} == {256.0}
    assert limits == limits_of(config) == ScreeningState(workspace).catalogue.limits
