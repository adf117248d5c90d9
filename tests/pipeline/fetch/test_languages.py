"""Of several tagged sound tracks the one in the manifest's language is used, and ordinary films are as they were."""

from types import SimpleNamespace
from typing import Any

import pytest

from pipeline.build.jobs import ProbeJob
from pipeline.fetch.probe import probe
from pipeline.media.audio import read_audio
from schemas.base import canonical_json
from schemas.config import ProbeConfig
from schemas.languages import same_language
from schemas.source import Source
from tests.golden.test_keys import FETCHED
from tests.helpers.media import Sound, clicks, iter_numbered, onsets_s, write_video
from tests.helpers.streams import SIZE, ffmpeg

CONFIG = ProbeConfig()
CLICKS_S = {"ger": 0.4, "eng": 0.9, "fre": 1.4}  # when each track clicks


def film(folder, suffix, languages, dispositions=()):
    """A film of 2 s with one track for each language, the first of them the default."""
    inputs, marks = [], []
    for number, language in enumerate(languages):
        part = folder / f"{number}.mp4"
        write_video(part, iter_numbered(50, SIZE), sound=Sound(clicks([CLICKS_S[language]], 2.0)))
        inputs += ["-i", part]
        marks += ["-map", f"{number}:a", f"-metadata:s:a:{number}", f"language={language}"]
        marks += [f"-disposition:a:{number}", (dict(enumerate(dispositions)) | {0: "default"}).get(number, "0")]
    path = folder / f"film.{suffix}"
    ffmpeg(*inputs, "-map", "0:v", *marks, "-c", "copy", path)
    return path


def described(path):
    return probe(path, "film", "ab" * 32, CONFIG)


def heard(path, video) -> float:
    (onset,) = onsets_s(read_audio(path, video.audio.index, video.start_s, 32_000), 16_000)
    return onset


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "ts"])
def test_the_language_chooses_the_track(tmp_path, suffix):
    path = film(tmp_path, suffix, ["ger", "eng", "fre"])
    probed = described(path)
    for language, code in {"en": "eng", "en-GB": "eng", "fra": "fre", "fr": "fre", "de": "ger", "DEU": "ger"}.items():
        video = probed.in_language(language)
        assert heard(path, video) == pytest.approx(CLICKS_S[code], abs=0.06)
        assert video.audio is not None
        assert video.audio.language == (None if code == "ger" else code)  # recorded where there was a choice
        assert probed.missing_language(language) is None
    for language in (None, "it", "und"):
        assert heard(path, probed.in_language(language)) == pytest.approx(CLICKS_S["ger"], abs=0.06)
    assert probed.missing_language(None) is None
    assert probed.missing_language("it") == "no track is tagged 'it': the default one, tagged 'ger', is used"


@pytest.mark.parametrize("disposition", ["visual_impaired", "comment"])
def test_descriptions_and_commentaries_are_not_chosen(tmp_path, disposition):
    path = film(tmp_path, "mkv", ["ger", "eng"], ["", disposition])
    probed = described(path)
    assert heard(path, probed.in_language("en")) == pytest.approx(CLICKS_S["ger"], abs=0.06)


def test_without_a_choice_a_record_is_that_of_a_film_with_one_track(tmp_path):
    """So that no key of an earlier build changes."""
    single = described(film(tmp_path, "mp4", ["eng"]))
    for language in (None, "en", "de"):
        assert single.in_language(language) == single
        assert single.missing_language(language) is None
    assert b"language" not in canonical_json(single)
    assert b"other_audio" not in canonical_json(single)
    alike = described(film(tmp_path, "mp4", ["eng", "eng"]))  # a second track in the same language gives no choice
    assert b"language" not in canonical_json(alike)
    several = described(film(tmp_path, "mp4", ["ger", "eng"]))
    for language in (None, "de", "it"):
        text = canonical_json(several.in_language(language))
        assert b"language" not in text
        assert b"other_audio" not in text


def test_a_build_warns_where_no_track_is_in_the_language(tmp_path, caplog):
    path = film(tmp_path, "mp4", ["ger", "eng"])
    context: Any = SimpleNamespace(media=lambda *_: path, config=SimpleNamespace(probe=CONFIG))
    for language, said in (("en", ""), ("it", "film: no track is tagged 'it'")):
        source = Source(id="film", uri="file:///f.mp4", domain="real", license="MIT", title="F", language=language)
        ProbeJob(source=source, key="k", fetched=FETCHED).compute(context, lambda *_: None)
        assert said in caplog.text
        assert bool(said) == bool(caplog.text)


@pytest.mark.parametrize(("a", "b", "same"), [
    ("en", "eng", True), ("de", "ger", True), ("ger", "deu", True), ("zh-Hant", "chi", True), ("pt_BR", "por", True),
    ("EN", "en", True), ("gsw", "gsw", True), ("en", "ger", False), ("und", "und", False), (None, "en", False),
    ("", "", False), ("e", "en", False),
])  # fmt: skip
def test_tags_of_one_language(a, b, same):
    assert same_language(a, b) == same_language(b, a) == same
