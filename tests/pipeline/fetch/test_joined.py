"""Recordings joined end to end begin their clock anew: turned away in a sentence whose remedy helps."""

from fractions import Fraction

import numpy as np
import pytest

from pipeline.fetch.probe import probe
from pipeline.media.audio import read_audio
from pipeline.media.decode import iter_frames
from schemas.config import ProbeConfig
from schemas.errors import DecodeError
from tests.helpers.media import Coding, Sound, clicks, iter_numbered, onsets_s, read_counter, write_video
from tests.helpers.streams import SIZE, ffmpeg, joined, numbered_film

CONFIG = ProbeConfig()
RATE = 16_000


def described(path):
    return probe(path, "film", "ab" * 32, CONFIG)


@pytest.mark.parametrize("suffix", ["ts", "mpg"])
@pytest.mark.parametrize("lengths", [(4, 3), (3, 4), (2, 6, 2)])
def test_joined_recordings_are_turned_away(tmp_path, suffix, lengths):
    codec = "libx264" if suffix == "ts" else "mpeg2video"
    parts = []
    for number, seconds in enumerate(lengths):
        parts.append(tmp_path / f"{number}.{suffix}")
        images = iter_numbered(25 * seconds, SIZE, 500 * number)
        write_video(parts[-1], images, sound=Sound(clicks([], seconds), codec="mp2"), coding=Coding(codec, bframes=0))
    path = joined(tmp_path / f"joined.{suffix}", *parts)
    with pytest.raises(DecodeError, match=rf"joined\.{suffix} jumps back in time from") as caught:
        described(path)
    assert len(str(caught.value)) < 250
    assert all(described(part).num_bytes for part in parts)


def test_the_remedy_gives_both_parts_each_with_its_sound(tmp_path):
    parts = [numbered_film(tmp_path / "a.ts", 4), numbered_film(tmp_path / "b.ts", 3, first=100)]
    path, anew = joined(tmp_path / "joined.ts", *parts), tmp_path / "new.mp4"
    with pytest.raises(DecodeError, match="ffmpeg -i FILE -c copy NEW"):
        described(path)
    ffmpeg("-i", path, "-c", "copy", anew)
    video = described(anew)
    shown = {read_counter(frame.to_array(SIZE, "rgb24")): frame.time_s for frame in iter_frames(anew, video)}
    assert len(shown) >= 174  # a frame may be lost at the joint, or a pause come in
    assert video.audio is not None
    heard = onsets_s(read_audio(anew, video.audio.index, 0.0, 15 * RATE), RATE)
    flashes = [shown[round(25 * (k + Fraction(1, 2)))] for k in range(7)]
    np.testing.assert_allclose(heard, flashes, atol=0.06)


def test_a_part_that_repeats_another_loses_nothing(tmp_path):
    """Some recorders store packets twice; the second ones are the first ones again."""
    part = numbered_film(tmp_path / "a.ts", 4)
    twice = described(joined(tmp_path / "twice.ts", part, part))
    alone = described(part)
    assert twice.model_dump(exclude={"num_bytes"}) == alone.model_dump(exclude={"num_bytes"})
    frames = iter_frames(tmp_path / "twice.ts", twice)
    assert [read_counter(frame.to_array(SIZE, "rgb24")) for frame in frames] == list(range(100))


def test_less_than_may_be_missing_does_no_harm(tmp_path):
    part, short = numbered_film(tmp_path / "a.ts", 4), tmp_path / "b.ts"
    write_video(short, iter_numbered(15, SIZE, 200), coding=Coding(bframes=0))
    video = described(joined(tmp_path / "joined.ts", part, short))
    assert video.stop_s == pytest.approx(described(part).stop_s, abs=1e-6)
    assert video.average_fps == 25


def test_recordings_whose_clock_goes_on_are_one_film(tmp_path):
    part, later, moved = tmp_path / "a.ts", tmp_path / "b.ts", tmp_path / "moved.ts"
    numbered_film(part, 4)
    numbered_film(later, 3, first=100)
    ffmpeg("-copyts", "-i", later, "-c", "copy", "-output_ts_offset", "6", "-muxdelay", "0", moved)
    path = joined(tmp_path / "joined.ts", part, moved)
    video = described(path)
    numbers = [read_counter(frame.to_array(SIZE, "rgb24")) for frame in iter_frames(path, video)]
    assert len(numbers) >= 174
    assert (numbers[0], numbers[-1]) == (0, 174)


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "ts", "avi"])
@pytest.mark.parametrize("bframes", [0, 3, 8])
def test_reordered_and_uneven_frames_are_no_jump(tmp_path, suffix, bframes):
    path = tmp_path / f"film.{suffix}"
    times = None if suffix == "avi" else [Fraction(k, 30) + Fraction(max(0, k - 60), 8) for k in range(150)]
    coding = Coding("mpeg4", bframes=min(bframes, 2)) if suffix == "avi" else Coding(bframes=bframes)
    write_video(path, iter_numbered(150, SIZE), times_s=times, coding=coding)
    assert described(path).duration_s > 4


@pytest.mark.assets
def test_no_film_of_the_assets_jumps(assets):
    films = sorted(path for folder in ("video", "more/video") for path in (assets / folder).iterdir())
    sentences = []
    for path in films:
        try:
            described(path)
        except Exception as error:  # noqa: BLE001 - whatever else is wrong with some of them
            sentences.append(str(error))
    assert len(films) > 50
    assert not [sentence for sentence in sentences if "jumps back" in sentence]
