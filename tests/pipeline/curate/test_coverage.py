"""Every clip of a rebuilt list is made or lost, with a reason that tells nothing of the machine."""

import pytest

from pipeline.build.survey import FinishedClip, Survey
from pipeline.curate.coverage import coverage_of
from schemas.base import Box, TimeSpan
from schemas.cliplist import ListedClip
from schemas.ledger import LedgerRow
from tests.helpers.release_items import make_clip, make_source

SHA = "ab" * 32


def listed(source_id="film", sha256=SHA):
    return ListedClip(
        source_id=source_id, span=TimeSpan(start_s=0, stop_s=3), box=Box(x0=0, y0=0, x1=9, y1=9), sha256=sha256
    )


def made(clip_id, source_id="film", sha256=SHA):
    return FinishedClip("key", make_clip(clip_id, source_id), make_source(source_id), sha256)


def row(stage, item, outcome="failed", **more):
    source_id = item.split("/")[0]
    return LedgerRow(stage=stage, source_id=source_id, item=item, attempt=1, outcome=outcome, **more)


@pytest.mark.parametrize(("sha256", "field"), [(SHA, "num_same"), ("cd" * 32, "num_other"), ("", "num_unnamed")])
def test_made_clips_count_by_the_file_they_were_made_from(sha256, field):
    coverage = coverage_of([listed(sha256=sha256)] * 2, Survey(clips=[made("a"), made("b")]))
    assert coverage is not None
    assert (coverage.num_listed, getattr(coverage, field), coverage.num_lost) == (2, 2, 0)


def test_lost_clips_have_a_reason_each():
    rows = [
        row("acquire", "gone", reason_class="permanent", message="/home/somebody/gone.mp4 does not exist"),
        row("acquire", "film", "done"),
        row("plan", "film/shot00000", "rejected", reason_class="rejected", reason="not_in_file", measured=9, limit=8),
        row("clip", "film/x", reason_class="crash", message="/home/somebody/x"),
    ]
    clips = [listed(), listed(), listed(), listed("gone"), listed("gone"), listed("late")]
    coverage = coverage_of(clips, Survey(rows=rows, clips=[made("a")]))
    assert coverage is not None
    assert coverage.num_same == 1
    assert [(lost.source_id, lost.num_clips, lost.reason) for lost in coverage.lost] == [
        ("film", 1, "they could not be cut (crash)"),
        ("film", 1, "they do not lie inside the file that was found"),
        ("gone", 2, "the source's file could not be fetched (permanent)"),
        ("late", 1, "they have no outcome yet"),
    ]


def test_a_build_without_a_list_has_no_coverage():
    assert coverage_of([], Survey(clips=[made("a")])) is None
