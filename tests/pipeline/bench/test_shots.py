"""The bench of shot boundaries: what meets a transition, what is one too many, and what our detector reaches."""

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pydantic import ValidationError
from scipy.sparse import csr_matrix
from scipy.sparse.csgraph import maximum_bipartite_matching

from pipeline.bench.shots import (
    BASELINES,
    CUT_SLACK,
    GRADUAL_SLACK,
    OURS,
    Transition,
    count_hits,
    joins,
    labelled_transitions,
    shot_rows,
    with_dips_joined,
)
from pipeline.demo.films import DEMO_FILMS, shorten
from pipeline.demo.sources import render_film, timeline
from schemas.accuracy import ShotRow
from schemas.errors import UsageError

transitions = st.lists(
    st.builds(
        lambda first, length, doubtful: Transition(first, first + length, doubtful),
        st.integers(0, 60),
        st.sampled_from([0, 0, 5, 30]),
        st.booleans(),
    ),
    max_size=8,
)
frames = st.lists(st.integers(0, 100), max_size=12, unique=True)


# --- laws ------------------------------------------------------------------------------------------------


@given(transitions, frames)
@example([Transition(0, 30), Transition(10, 10)], [10, 20])  # only the long one can do without frame 10
def test_as_many_pairs_as_there_can_be_of_one_boundary_and_one_transition(truth, found):
    num_true, num_found, num_hits = count_hits(truth, found)
    certain = [one for one in truth if not one.doubtful]
    assert num_true == len(certain)
    assert num_hits <= num_found <= len(found)
    meets = np.array([[one.meets(frame) for frame in found] for one in certain], int).reshape(len(certain), len(found))
    most = int((maximum_bipartite_matching(csr_matrix(meets)) >= 0).sum()) if meets.size else 0
    assert num_hits == most


@given(transitions, frames)
def test_only_doubt_excuses_a_boundary(truth, found):
    sure = [Transition(one.first, one.last) for one in truth]
    assert count_hits(sure, found)[1] == len(found)
    doubtful = [Transition(one.first, one.last, doubtful=True) for one in truth]
    in_none = sum(not any(one.meets(frame) for one in truth) for frame in found)
    assert count_hits(doubtful, found) == (0, in_none, 0)


@given(transitions, frames, st.integers(-500, 500))
def test_only_distances_count(truth, found, by):
    moved = [Transition(one.first + by, one.last + by, one.doubtful) for one in truth]
    assert count_hits(moved, [frame + by for frame in found]) == count_hits(truth, found)


@given(transitions)
def test_the_truth_itself_finds_all(truth):
    apart = [Transition(k * 200 + one.first, k * 200 + one.last) for k, one in enumerate(truth)]
    assert count_hits(apart, [(one.first + one.last) // 2 for one in apart]) == (len(apart),) * 3


# --- limits ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("transition", "slack"), [(Transition(100, 100), CUT_SLACK), (Transition(100, 130), GRADUAL_SLACK)]
)
def test_slack_is_included_and_ends_there(transition, slack):
    for distance, meets in ((slack - 1, True), (slack, True), (slack + 1, False)):
        assert transition.meets(transition.first - distance) == meets
        assert transition.meets(transition.last + distance) == meets


@pytest.mark.parametrize(
    ("found", "figures"),
    [
        ([], (0, None, 0.0, 0.0)),
        ([50], (1, 1.0, 0.5, 0.667)),
        ([50, 104], (2, 1.0, 1.0, 1.0)),
        ([50, 51, 104], (2, 0.667, 1.0, 0.8)),  # one cut told twice
        ([50, 95, 104], (2, 0.667, 1.0, 0.8)),  # one dissolve told twice
        ([70], (0, 0.0, 0.0, 0.0)),
        ([50, 104, 200], (2, 1.0, 1.0, 1.0)),  # where the labeller had doubts
    ],
)
def test_figures_of_a_cut_and_a_dissolve(found, figures):
    truth = [Transition(50, 50), Transition(100, 110), Transition(195, 205, doubtful=True)]
    num_true, num_found, num_hits = count_hits(truth, found)
    row = ShotRow(
        media="film", truth="labels", detector="d", num_true=num_true, num_found=num_found, num_hits=num_hits,
        ms_per_frame=0.0,
    )  # fmt: skip
    assert (row.num_hits, row.precision, row.recall, row.f1) == figures


def test_nothing_to_find_and_nothing_found_has_no_figure():
    row = ShotRow(media="f", truth="exact", detector="d", num_true=0, num_found=0, num_hits=0, ms_per_frame=0.0)
    assert (row.precision, row.recall, row.f1) == (None, None, None)
    assert row.model_copy(update={"num_found": 1}).f1 == 0
    with pytest.raises(ValidationError, match="2 hits of 3 transitions by 1 boundaries"):
        ShotRow(media="f", truth="exact", detector="d", num_true=3, num_found=1, num_hits=2, ms_per_frame=0.0)


def test_a_fade_out_and_the_fade_in_after_it_are_one_transition():
    rows = [
        ("fade_in", Transition(30, 40)),
        ("fade_out", Transition(10, 20)),
        ("cut", Transition(60, 60)),
        ("fade_in", Transition(70, 80)),
        ("fade_out", Transition(90, 95, doubtful=True)),
        ("fade_in", Transition(96, 99)),
        ("fade_out", Transition(110, 120)),
    ]
    assert with_dips_joined(rows) == [
        Transition(10, 40),
        Transition(60, 60),
        Transition(70, 80),
        Transition(90, 99, doubtful=True),
        Transition(110, 120),
    ]


def test_joins_of_a_rendered_film_are_between_its_shots():
    for film in DEMO_FILMS:
        spans = timeline(film)
        made = joins(spans)
        assert len(made) == len(film.shots) - 1
        for span, join in zip(spans[1:], made, strict=True):
            assert join.first <= span.frame <= join.last + 1
            assert (join.first == join.last) == (span.join == "cut")


# --- films -----------------------------------------------------------------------------------------------


def test_missing_media_are_a_usage_error(tmp_path):
    with pytest.raises(UsageError, match=r"shots\.csv are missing: check the folder of assets"):
        shot_rows(tmp_path, [])
    (tmp_path / "truth").mkdir()
    (tmp_path / "truth" / "shots.csv").write_text("file,kind,start_frame,end_frame,note\na.mp4,cut,3,3,\n")
    with pytest.raises(UsageError, match=r"a\.mp4 is missing"):
        shot_rows(tmp_path, [])


def test_every_detector_is_asked_about_every_film(tmp_path):
    (tmp_path / "truth").mkdir()
    (tmp_path / "truth" / "shots.csv").write_text("file,kind,start_frame,end_frame,note\n")
    film = shorten(DEMO_FILMS[-1], 1.2)
    render_film(film, tmp_path / "cat.mp4")
    rows = shot_rows(tmp_path, [(tmp_path / "cat.mp4", timeline(film))])
    assert [row.detector for row in rows] == [OURS, *(one.__name__ for one in BASELINES)]
    assert {(row.media, row.truth, row.num_true) for row in rows} == {("rendered cat", "exact", 1)}
    assert (rows[0].num_found, rows[0].num_hits) == (1, 1)


@pytest.mark.assets
def test_labels_become_transitions(assets):
    films = labelled_transitions(assets)
    assert set(films) == {
        "sintel.mp4", "bigbuckbunny.mp4", "penny_and_chip_beach_surfing.mp4", "tps_driving.mp4"
    }  # fmt: skip
    assert films["bigbuckbunny.mp4"] == films["tps_driving.mp4"] == []
    certain = [one for one in films["sintel.mp4"] if not one.doubtful]
    assert len(certain) == 20
    assert sum(one.first == one.last for one in certain) == 10
    assert Transition(248, 306) in certain


@pytest.mark.assets
def test_ours_is_no_worse_than_any_baseline_on_the_labelled_films(assets):
    rows = shot_rows(assets, [])
    for row in rows:
        print(f"{row.media[:14]:<14} {row.detector:<18} {row.precision} {row.recall} {row.f1}")
    for media in {row.media for row in rows}:
        own, *others = [row for row in rows if row.media == media]
        assert (own.f1 or 0.0) >= max(row.f1 or 0.0 for row in others)
        assert own.num_found - own.num_hits <= min(row.num_found - row.num_hits for row in others)
    [sintel] = [row for row in rows if (row.media, row.detector) == ("sintel.mp4", OURS)]
    assert sintel.f1 >= 0.95
