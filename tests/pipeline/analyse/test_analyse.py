"""One decode pass finds shots and faces; a source cut into runs gives what one run over all of it gives."""

import io
import math
from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest

from pipeline.analyse.plan import overlap, plan_clips
from pipeline.analyse.runs import analyse_run, join_runs
from pipeline.analyse.windows import Window, windows_of
from pipeline.fetch.probe import probe
from pipeline.media.arrays import npy
from pipeline.media.decode import iter_frames
from pipeline.models.detectors import BlazeFace, FaceBox
from schemas.analysis import AnalysisRun
from schemas.base import TimeSpan
from schemas.config import CropConfig, DetectorChoice, DomainConfig, FaceConfig, ProbeConfig, ShotConfig
from schemas.errors import DecodeError
from schemas.face import DETECTION_ROW
from tests.helpers.media import Coding, iter_dip, iter_gradual, iter_moving_face, iter_shots, read_counter, write_video

LENGTHS = [40, 70, 25, 90, 33, 62, 80]  # 400 frames, 16 s
CUTS = [int(c) for c in np.cumsum(LENGTHS)[:-1]]
# Short transitions let boundaries come out soon, so that short runs end at them as ten-minute runs do.
SHORT = {"max_fade_s": 0.2, "max_dissolve_s": 0.2}


class Everywhere:
    """Sees one face in the middle of every picture."""

    name, dense = "blazeface_short", True

    def detect(self, image):
        height, width = image.shape[:2]
        return [FaceBox((width * 0.3, height * 0.2, width * 0.6, height * 0.9), 0.9)]


def domain(**shots) -> DomainConfig:
    return DomainConfig(
        description="test",
        detectors=(DetectorChoice(model="blazeface_short", min_score=0.5),),
        presence_gate=False,
        landmarker="none",
        shots=ShotConfig(**shots),
        faces=FaceConfig(analysis_side_px=160, min_face_px=20.0),
    )


@pytest.fixture(scope="module")
def film(tmp_path_factory):
    path = tmp_path_factory.mktemp("film") / "shots.mp4"
    write_video(path, iter_shots(LENGTHS, (160, 96)), start_s=Fraction(1, 2), coding=Coding(gop=50))
    return path, probe(path, "film", "ab" * 32, ProbeConfig())


def runs_of(film, config, until_s=None) -> tuple[list[AnalysisRun], list[np.ndarray], list[np.ndarray]]:
    path, video = film
    runs, clocks, rows = [], [], []
    for window in windows_of(video, config.shots.run_s, until_s):
        run, clock, seen = analyse_run(path, video, config, [Everywhere()], None, window)
        runs.append(run)
        clocks.append(clock)
        rows.append(seen)
    return runs, clocks, rows


def together(film, config, until_s=None):
    """Shots, tracks and times of a whole film from its runs."""
    runs, clocks, rows = runs_of(film, config, until_s)
    times = np.concatenate(clocks)
    return *join_runs(runs, times, rows, config.faces), times


def edges(shots) -> list[tuple]:
    return [(s.span.start, s.span.stop, round(s.start_s, 6), round(s.stop_s, 6), s.boundary, s.clean) for s in shots]


@pytest.fixture(scope="module")
def whole(film):
    return together(film, domain(**SHORT))


def test_one_run_finds_the_films_shots(film, whole):
    shots, _, times = whole
    assert len(windows_of(film[1], 600.0, None)) == 1
    assert [shot.span.start for shot in shots] == [0, *CUTS]
    assert [shot.boundary for shot in shots] == ["start"] + ["cut"] * len(CUTS)
    assert times == pytest.approx(0.5 + np.arange(400) / 25, abs=1e-9)
    assert shots[-1].stop_s == pytest.approx(16.5)
    assert all(a.stop_s == b.start_s and a.span.stop == b.span.start for a, b in pairwise(shots))


def test_every_shots_face_is_followed(whole):
    shots, tracks, times = whole
    assert [track.shot_index for track in tracks] == list(range(len(LENGTHS)))
    for track in tracks:
        span = shots[track.shot_index].span
        assert all(span.start <= frame < span.stop for frame in track.frames)
        assert track.times_s == tuple(times[frame] for frame in track.frames)
        assert track.boxes[0] == pytest.approx((160 * 0.3, 96 * 0.2, 160 * 0.6, 96 * 0.9))


@pytest.mark.parametrize("run_s", [0.4, 1.0, 2.0, 3.7, 5.0])
def test_many_runs_give_the_shots_and_times_of_one(film, whole, run_s):
    """Also where an edge lies on a cut, and where runs are shorter than what they look at beyond their edges."""
    config = domain(run_s=run_s, **SHORT)
    shots, tracks, times = together(film, config)
    assert len(windows_of(film[1], run_s, None)) == round(16 / run_s)
    assert np.array_equal(times, whole[2])
    assert edges(shots) == edges(whole[0])
    assert [track.shot_index for track in tracks] == list(range(len(LENGTHS))), "no edge divides a track"
    for one, other in zip(tracks, whole[1], strict=True):
        assert abs(one.frames[0] - other.frames[0]) <= 5
        assert abs(one.frames[-1] - other.frames[-1]) <= 5


@pytest.mark.parametrize("run_s", [2.0, 3.0])
def test_fades_and_dissolves_across_an_edge_are_those_of_one_run(tmp_path, run_s):
    path = tmp_path / "gradual.mp4"
    write_video(path, iter_gradual((160, 96)))
    made = (path, probe(path, "gradual", "ab" * 32, ProbeConfig()))
    one = together(made, domain())
    assert {shot.boundary for shot in one[0]} >= {"fade"}
    assert edges(together(made, domain(run_s=run_s))[0]) == edges(one[0])


def test_a_flat_picture_longer_than_what_is_seen_beyond_an_edge_leaves_the_same_shots(tmp_path):
    """Six seconds of black over several edges of one second, with runs that look 1.6 s beyond theirs: at most a shot
    of nothing but transition comes in between."""
    path = tmp_path / "black.mp4"
    write_video(path, iter_dip(50, 150, (160, 96)))
    made = (path, probe(path, "black", "ab" * 32, ProbeConfig()))
    one, many = (together(made, domain(run_s=run_s, **SHORT))[0] for run_s in (600.0, 1.0))
    assert [shot.boundary for shot in one] == ["start", "fade"]
    assert [shot.clean for shot in many if shot.clean] == [shot.clean for shot in one]


def test_a_run_begins_on_the_exact_frame(film):
    path, video = film
    runs, clocks, _ = runs_of(film, domain(run_s=2.0, **SHORT))
    number = 0
    for run, clock in zip(runs, clocks, strict=True):
        first = next(iter_frames(path, video, start_s=float(clock[0])))
        assert read_counter(first.to_array((160, 96), "rgb24")) == number
        number += run.num_frames
    assert number == 400


def test_a_run_can_be_repeated_and_needs_no_other(film):
    path, video = film
    config = domain(run_s=2.0, **SHORT)
    runs, clocks, rows = runs_of(film, config)
    for number in (5, 2):
        window = windows_of(video, 2.0, None)[number]
        again, times, seen = analyse_run(path, video, config, [Everywhere()], None, window)
        assert again == runs[number]
        assert np.array_equal(times, clocks[number])
        assert np.array_equal(seen, rows[number])


@pytest.mark.parametrize("run_s", [600.0, 2.0])
def test_nothing_after_the_wanted_time_is_read(film, run_s):
    for until_s in (4.5, 4.51, 9.3):
        shots, _, times = together(film, domain(run_s=run_s, **SHORT), until_s)
        assert times[-1] < until_s <= times[-1] + 0.04 + 1e-9
        assert shots[-1].stop_s == pytest.approx(times[-1] + 0.04)


def test_a_film_without_frames_is_an_error_of_the_source(film):
    path, video = film
    with pytest.raises(DecodeError, match=r"shots\.mp4 holds no frame"):
        analyse_run(path, video, domain(), [Everywhere()], None, Window(None, 0.1))


def test_detections_survive_being_stored(film):
    _, _, rows = runs_of(film, domain(**SHORT))
    again = np.load(io.BytesIO(npy(rows[0])), allow_pickle=False)
    assert again.dtype == DETECTION_ROW
    assert np.array_equal(again, rows[0])


def test_progress_is_told_in_seconds(film):
    path, video = film
    told: list[float] = []
    analyse_run(path, video, domain(), [Everywhere()], None, Window(None, 2.0), progress=told.append)
    assert told == pytest.approx([0.5 + k / 25 for k in range(38)])


# --- from a film to its crop ---------------------------------------------------------------------------------


@pytest.mark.parametrize("aspect", [Fraction(1), Fraction(4, 3)])
def test_a_known_face_is_cropped_where_it_is(tmp_path, aspect):
    """The astronaut sways over the picture; her square is the one that her true boxes give."""
    made = list(iter_moving_face(100, (640, 360), sway_px=30.0))
    path = tmp_path / "face.mp4"
    write_video(path, (image for image, _ in made), coding=Coding(sample_aspect_ratio=aspect))
    video = probe(path, "face", "ab" * 32, ProbeConfig())
    config = domain().model_copy(update={"faces": FaceConfig()})
    run, times, rows = analyse_run(path, video, config, [BlazeFace(min_score=0.5)], None)
    shots, tracks = join_runs([run], times, [rows], config.faces)
    plans, refusals = plan_clips(video, shots, tracks, times, CropConfig(), stride=5)
    # Without the gate a false alarm may come by, but makes no clip.
    assert (len(plans), {one.reason for one in refusals} - {"track_too_short"}) == (1, set())
    plan = plans[0].plan
    assert (plan.num_frames, plan.face_ratio, plan.num_neighbours) == (100, 1.0, 0)
    stretch = float(aspect)
    truth = np.array([box for _, box in made]) * [stretch, 1, stretch, 1]
    track = tracks[0]
    ious = [overlap(box, tuple(truth[frame])) for box, frame in zip(track.boxes, track.frames, strict=True)]
    assert np.mean(ious) > 0.65
    low, high = truth[:, :2].min(0), truth[:, 2:].max(0)
    side = max(1.6 * np.median((truth[:, 2:] - truth[:, :2]).max(1)), 1.05 * (high - low).max())
    side = 2 * math.ceil(side / 2)  # squares lie on even pixels
    centre = (low + high) / 2
    wanted = (centre[0] - side / 2, centre[1] - side / 2, centre[0] + side / 2, centre[1] + side / 2)
    square = (plan.square.x0, plan.square.y0, plan.square.x1, plan.square.y1)
    assert overlap(square, wanted) > 0.7
    assert (low >= square[:2]).all()
    assert (high <= square[2:]).all()


def test_only_the_wanted_part_becomes_clips(film):
    _, video = film
    wanted = [TimeSpan(start_s=4.9, stop_s=11.0)]
    shots, tracks, times = together(film, domain(**SHORT), 11.0)
    planned, _ = plan_clips(video, shots, tracks, times, CropConfig(min_clip_s=1.0), stride=5, wanted=wanted)
    plans = [one.plan for one in planned]
    assert plans
    assert all(plan.span.start_s >= 4.9 - 1e-6 and plan.span.stop_s <= 11.0 + 1e-6 for plan in plans)
