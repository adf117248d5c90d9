"""What a release says of itself, and what it does not look at."""

from pipeline import pictures
from pipeline.release import hubert_setup
from pipeline.results import Results, load_build
from pipeline.survey import survey
from pipeline.workspace import Workspace
from schemas.config import BuildConfig, SpeechConfig
from tests.films import Built, built  # noqa: F401 - a fixture


def test_no_folder_of_this_machine_leaves_with_a_release():
    speech = SpeechConfig(hubert="/home/somebody/weights/hubert-large", hubert_layers=(6, -1))
    told = hubert_setup(BuildConfig(speech=speech))
    assert told == {"model": "hubert-large", "layers": "6 -1", "rate_conversion": "mean"}
    assert hubert_setup(BuildConfig()) == {}


def test_an_overview_decodes_only_what_it_shows(built: Built, monkeypatch):  # noqa: F811
    workspace = Workspace(built.workspace)
    clips = survey(Results(workspace, load_build(workspace).config), load_build(workspace).sources).clips
    read: list[str] = []
    real = workspace.result_file
    monkeypatch.setattr(workspace, "result_file", lambda stage, key, name: read.append(name) or real(stage, key, name))
    monkeypatch.setattr(pictures, "MAX_OVERVIEW_ROWS", 1)
    assert len({made.source.id for made in clips}) > 1
    pictures.overview(workspace, clips)
    assert read.count("mp4") == 1
