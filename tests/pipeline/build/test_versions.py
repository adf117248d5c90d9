"""Every stage has a version beside its code, and no job class has to be known by name."""

from typing import get_args

from pipeline import analyse, clip, curate, fetch
from pipeline.analyse.windows import WHOLE, Window
from pipeline.build.jobs import AcquireJob, AnalyseJob, ClipJob, Needs, ProbeJob, RunsPlanJob, Stage
from pipeline.build.results import STAGE_VERSIONS
from tests.golden.test_keys import FETCHED, PLANNED, VIDEO
from tests.helpers.release_items import make_source

FOLDERS = (fetch, analyse, clip, curate)


def test_every_stage_has_one_version_in_one_folder():
    named = [stage for folder in FOLDERS for stage in folder.VERSIONS]
    assert sorted(named) == sorted({*get_args(Stage), "trim", "collection"})
    assert {**STAGE_VERSIONS, **curate.VERSIONS} == {
        "acquire": 1, "probe": 1, "analyse": 2, "plan": 2, "clip": 3, "trim": 1, "collection": 1,
    }  # fmt: skip


def test_jobs_say_what_they_need():
    given = {"source": make_source("film"), "key": "0" * 64}
    seen = given | {"fetched": FETCHED, "video": VIDEO}
    middle = Window(1.0, 2.5, open_end=True)
    assert AcquireJob(**given).needs == Needs(cpus=0.0, fetches=True)
    assert ProbeJob(**given, fetched=FETCHED).needs == Needs()
    assert RunsPlanJob(**given, video=VIDEO, run_keys=()).needs == Needs()
    assert AnalyseJob(**seen, window=WHOLE, number=0).needs == Needs(gpu=True, media_s=4.0)
    assert AnalyseJob(**seen, window=middle, number=1).needs == Needs(gpu=True, media_s=1.5)
    assert ClipJob(**seen, planned=PLANNED).needs == Needs(gpu=True, media_s=3.0)
