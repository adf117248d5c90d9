"""The seconds that a manifest asks for are the film's, wherever its file's clock begins."""

import json

import pytest

from flows.cli import application as cli
from pipeline.analyse.windows import on_files_clock
from schemas.base import TimeSpan
from tests.golden.test_keys import VIDEO
from tests.helpers import films as films_module
from tests.helpers.films import build
from tests.helpers.streams import ffmpeg

films = films_module.films  # fixture
ASKED = (TimeSpan(start_s=0.25, stop_s=3.5), TimeSpan(start_s=5.0, stop_s=6.0))


def test_a_clock_that_begins_at_nought_leaves_spans_and_so_keys_as_they_are():
    assert on_files_clock(ASKED, VIDEO) == ASKED
    assert on_files_clock((), VIDEO.model_copy(update={"start_s": 3600.0})) == ()


@pytest.mark.parametrize("start_s", [-1.5, 0.08, 3600.0])
def test_spans_move_with_the_first_frame(start_s):
    moved = on_files_clock(ASKED, VIDEO.model_copy(update={"start_s": start_s}))
    assert [span.start_s - start_s for span in moved] == pytest.approx([0.25, 5.0])
    assert [span.duration_s for span in moved] == pytest.approx([3.25, 1.0])


def test_a_recording_gives_the_same_seconds_as_the_film_that_it_shows(films, tmp_path, capsys):
    """Its packets are the film's own, its clock begins at an hour."""
    recording = tmp_path / "recording.ts"
    moved = ["-muxdelay", "0", "-muxpreload", "0", "-output_ts_offset", "3600"]
    ffmpeg("-i", films / "talker.mp4", "-c", "copy", *moved, recording)
    manifest = tmp_path / "manifest.csv"
    sources = {"film": films / "talker.mp4", "recording": recording}  # nothing lies in their second span
    rows = [f"{name},{path},real,CC0-1.0,{name},0.2-3.4;50-60" for name, path in sources.items()]
    manifest.write_text("\n".join(["id,uri,domain,license,title,spans", *rows]))
    assert build(manifest, tmp_path / "ws") == 0
    capsys.readouterr()
    assert cli.run(["clips", "-w", str(tmp_path / "ws"), "-f", "json"]) == 0
    clips = {clip["source_id"]: clip for clip in json.loads(capsys.readouterr().out)}
    assert clips["film"]["start_s"] == pytest.approx(0.2)
    assert clips["recording"]["start_s"] == pytest.approx(3600.2, abs=0.001)
    assert clips["film"]["num_frames"] == clips["recording"]["num_frames"] > 70
