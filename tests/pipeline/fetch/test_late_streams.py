"""Streams that begin in mid-file, as in recordings of broadcasts: what was there at the beginning is used."""

import av
import numpy as np
import pytest

from pipeline.fetch.probe import probe
from pipeline.media.audio import read_audio
from pipeline.media.decode import demux, iter_frames, open_media
from schemas.config import ProbeConfig
from tests.helpers.media import read_counter
from tests.helpers.streams import SIZE, with_late_streams
from training.film.film import opened, tolerant

CONFIG = ProbeConfig()


@pytest.fixture(scope="module", params=["ts", "flv"])
def late(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("late")
    return with_late_streams(folder, request.param), folder / f"first.{request.param}"


def test_the_made_films_hold_streams_that_are_not_seen_at_first(late):
    path, first = late
    with av.open(str(first)) as alone, av.open(str(path)) as short_look:
        assert len(short_look.streams) == len(alone.streams)
    with av.open(str(path), options={"analyzeduration": "60000000", "probesize": "50000000"}) as long_look:
        assert len(long_look.streams) > len(short_look.streams)


def test_the_first_streams_are_described_as_if_they_were_alone(late):
    videos = [probe(path, "film", "ab" * 32, CONFIG) for path in late]
    both, alone = (video.model_dump(exclude={"num_bytes"}) for video in videos)
    assert both == alone


def test_pictures_and_sound_are_those_of_the_first_streams(late):
    path, _ = late
    video = probe(path, "film", "ab" * 32, CONFIG)
    numbers = [read_counter(frame.to_array(SIZE, "rgb24")) for frame in iter_frames(path, video)]
    assert numbers == list(range(300))
    entered = next(iter_frames(path, video, start_s=video.start_s + 10.0))
    assert read_counter(entered.to_array(SIZE, "rgb24")) == 250
    if video.audio is not None:
        heard = [read_audio(part, video.audio.index, video.start_s + 9.0, 48_000) for part in late]
        np.testing.assert_array_equal(heard[0], heard[1])
        assert np.abs(heard[0]).max() > 0.1


def test_films_to_animate_are_read_in_the_same_way(late):
    path, _ = late
    if path.suffix == ".flv":
        pytest.skip("FLV is no film to animate by")
    with opened(path) as container:
        assert sum(1 for _ in tolerant(container, container.streams.video[0], path.name)) == 300


def test_every_reading_ends_however_many_streams_appear(late):
    """Whether PyAV's own reading fails depends on what memory held before."""
    path, _ = late
    for _ in range(20):
        with open_media(path) as container:
            packets = list(demux(container, *container.streams))
            assert [packet.size for packet in packets[-len(container.streams) :]] == [0] * len(container.streams)
