"""One decode pass finds shots and faces; a source cut into runs gives what one run over all of it gives."""

from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest

from pipeline.analyse import analyse_run
from pipeline.crop import overlap, plan_clips
from pipeline.errors import DecodeError
from pipeline.media.decode import iter_frames
from pipeline.models.detectors import BlazeFace, FaceBox
from pipeline.probe import probe
from pipeline.results import joined
from schemas.analysis import AnalysisRun
from schemas.base import TimeSpan
from schemas.config import CropConfig, DetectorChoice, DomainConfig, FaceConfig, ProbeConfig, ShotConfig
from tests.media import Coding, iter_moving_face, iter_shots, read_counter, write_video

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


def runs_of(film, config, until_s=None) -> tuple[list[AnalysisRun], list[np.ndarray]]:
    path, video = film
    runs: list[AnalysisRun] = []
    clocks = []
    while not runs or runs[-1].next_start_s is not None:
        last = runs[-1] if runs else None
        run, clock = analyse_run(
            path, video, config, [Everywhere()], None,
            start_frame=last.stop_frame if last else 0,
            start_s=last.next_start_s if last else None,
            began_with=last.ended_by if last else None,
            until_s=until_s,
        )  # fmt: skip
        runs.append(run)
        clocks.append(clock)
        assert len(runs) < 50
    return runs, clocks


def edges(shots) -> list[tuple]:
    return [(s.span.start, s.span.stop, round(s.start_s, 6), round(s.stop_s, 6), s.boundary, s.clean) for s in shots]


@pytest.fixture(scope="module")
def whole(film):
    return runs_of(film, domain(**SHORT))


def test_one_run_finds_the_films_shots(film, whole):
    (run,), (clock,) = whole
    assert [shot.span.start for shot in run.shots] == [0, *CUTS]
    assert [shot.boundary for shot in run.shots] == ["start"] + ["cut"] * len(CUTS)
    assert (run.start_frame, run.stop_frame, run.next_start_s, run.ended_by) == (0, 400, None, None)
    assert clock == pytest.approx(0.5 + np.arange(400) / 25, abs=1e-9)
    assert run.shots[-1].stop_s == pytest.approx(16.5)
    assert all(a.stop_s == b.start_s and a.span.stop == b.span.start for a, b in pairwise(run.shots))


def test_every_shots_face_is_followed(whole):
    (run,), (clock,) = whole
    assert {track.shot_index for track in run.tracks} == set(range(len(LENGTHS)))
    for track in run.tracks:
        span = run.shots[track.shot_index].span
        assert all(span.start <= frame < span.stop for frame in track.frames)
        assert track.times_s == tuple(clock[frame] for frame in track.frames)
        assert track.boxes[0] == pytest.approx((160 * 0.3, 96 * 0.2, 160 * 0.6, 96 * 0.9))


@pytest.mark.parametrize("run_s", [1.0, 2.0, 5.0])
def test_many_runs_give_the_shots_of_one(film, whole, run_s):
    runs, clocks = runs_of(film, domain(run_s=run_s, **SHORT))
    assert len(runs) > 1
    assert all(a.stop_frame == b.start_frame for a, b in pairwise(runs))
    assert np.array_equal(np.concatenate(clocks), whole[1][0])
    shots, tracks = joined(runs)
    found = [one for one in edges(shots) if one[4] != "limit"]
    assert [one[0] for one in found] == [0, *CUTS]
    if run_s > 4:  # no shot is as long as a run, so none had to be divided
        assert edges(shots) == edges(whole[0][0].shots)
    # A track needs two sightings, so a sliver of a divided shot may have none.
    assert {t.shot_index for t in tracks} >= {k for k, shot in enumerate(shots) if len(shot.span) > 10}
    assert [t.track_index for t in tracks] == list(range(len(tracks)))


def test_runs_with_long_transitions_still_end_at_cuts(film):
    """Boundaries are held back 9 s for a dissolve that might come; a run that is ended by force still prefers one."""
    runs, _ = runs_of(film, domain(run_s=3.0))
    assert [run.ended_by.kind for run in runs if run.ended_by] == ["cut"] * (len(runs) - 1)
    assert [shot.span.start for shot in joined(runs)[0]] == [0, *CUTS]


def test_a_run_begins_on_the_exact_frame(film):
    path, video = film
    for run in runs_of(film, domain(run_s=2.0, **SHORT))[0][:-1]:
        first = next(iter_frames(path, video, start_s=run.next_start_s))
        assert read_counter(first.to_array((160, 96), "rgb24")) == run.stop_frame
        assert run.ended_by is not None
        assert run.ended_by.frame == run.stop_frame
        assert run.shots[-1].stop_s == run.next_start_s


def test_a_run_can_be_repeated(film):
    path, video = film
    config = domain(run_s=2.0, **SHORT)
    runs, clocks = runs_of(film, config)
    for before, run, clock in zip(runs, runs[1:], clocks[1:], strict=False):
        again, times = analyse_run(
            path, video, config, [Everywhere()], None,
            start_frame=before.stop_frame, start_s=before.next_start_s, began_with=before.ended_by,
        )  # fmt: skip
        assert again == run
        assert np.array_equal(times, clock)


@pytest.mark.parametrize(("num", "parts"), [(99, 1), (100, 1), (101, 1), (102, 2), (120, 2), (220, 3)])
def test_a_long_shot_is_divided_at_two_runs(tmp_path, num, parts):
    """run_s 2: a shot of 4 s and one frame is whole, one frame more is divided, and nothing is trimmed there."""
    path = tmp_path / "long.mp4"
    write_video(path, iter_shots([num], (160, 96)))
    made = (path, probe(path, "long", "ab" * 32, ProbeConfig()))
    runs, _ = runs_of(made, domain(run_s=2.0, **SHORT))
    shots, tracks = joined(runs)
    assert [shot.boundary for shot in shots] == ["start"] + ["limit"] * (parts - 1)
    assert [shot.span.start for shot in shots] == [0, 101, 202][:parts]
    assert [run.ended_by.kind for run in runs[:-1] if run.ended_by] == ["limit"] * (parts - 1)
    assert all(shot.clean == shot.span for shot in shots)
    if parts > 1 and num > 200:
        config = CropConfig(min_clip_s=1.0)
        times = np.arange(num) / 25
        plans, _ = plan_clips(made[1], shots, tracks, times, config, stride=5)
        assert plans[0].span.stop_s == pytest.approx(101 / 25)


@pytest.mark.parametrize("run_s", [600.0, 2.0])
def test_nothing_after_the_wanted_time_is_read(film, run_s):
    for until_s in (4.5, 4.51, 9.3):
        runs, clocks = runs_of(film, domain(run_s=run_s, **SHORT), until_s)
        times = np.concatenate(clocks)
        assert times[-1] < until_s <= times[-1] + 0.04 + 1e-9
        assert runs[-1].shots[-1].stop_s == pytest.approx(times[-1] + 0.04)


def test_a_wanted_end_exactly_at_a_limit_ends_the_runs(tmp_path):
    path = tmp_path / "long.mp4"
    write_video(path, iter_shots([150], (160, 96)))
    made = (path, probe(path, "long", "ab" * 32, ProbeConfig()))
    for until_s in (3.96, 4.0, 4.04, 4.08):
        runs, clocks = runs_of(made, domain(run_s=2.0, **SHORT), until_s)
        assert np.concatenate(clocks)[-1] == pytest.approx(until_s - 0.04)
        assert runs[-1].ended_by is None


def test_a_wanted_part_after_the_end_is_an_error_of_the_source(film):
    path, video = film
    with pytest.raises(DecodeError, match=r"shots\.mp4 holds no frame"):
        analyse_run(path, video, domain(), [Everywhere()], None, start_frame=400, start_s=60.0)


def test_progress_is_told_in_seconds(film):
    path, video = film
    told: list[float] = []
    analyse_run(path, video, domain(), [Everywhere()], None, until_s=2.0, progress=told.append)
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
    run, times = analyse_run(path, video, config, [BlazeFace(min_score=0.5)], None)
    plans, refusals = plan_clips(video, run.shots, run.tracks, times, CropConfig(), stride=5)
    assert (len(plans), refusals) == (1, [])
    plan = plans[0]
    assert (plan.num_frames, plan.face_ratio, plan.num_neighbours) == (100, 1.0, 0)
    stretch = float(aspect)
    truth = np.array([box for _, box in made]) * [stretch, 1, stretch, 1]
    track = run.tracks[0]
    ious = [overlap(box, tuple(truth[frame])) for box, frame in zip(track.boxes, track.frames, strict=True)]
    assert np.mean(ious) > 0.65
    low, high = truth[:, :2].min(0), truth[:, 2:].max(0)
    side = max(1.6 * np.median((truth[:, 2:] - truth[:, :2]).max(1)), 1.05 * (high - low).max())
    centre = (low + high) / 2
    wanted = (centre[0] - side / 2, centre[1] - side / 2, centre[0] + side / 2, centre[1] + side / 2)
    square = (plan.square.x0, plan.square.y0, plan.square.x1, plan.square.y1)
    assert overlap(square, wanted) > 0.7
    assert (low >= square[:2]).all()
    assert (high <= square[2:]).all()


def test_only_the_wanted_part_becomes_clips(film):
    path, video = film
    wanted = [TimeSpan(start_s=4.9, stop_s=11.0)]
    run, times = analyse_run(path, video, domain(**SHORT), [Everywhere()], None, until_s=11.0)
    plans, _ = plan_clips(video, run.shots, run.tracks, times, CropConfig(min_clip_s=1.0), stride=5, wanted=wanted)
    assert plans
    assert all(plan.span.start_s >= 4.9 - 1e-6 and plan.span.stop_s <= 11.0 + 1e-6 for plan in plans)
