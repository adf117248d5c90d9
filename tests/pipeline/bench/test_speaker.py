"""The bench of sync: what a rank is, and every talker's own sound against others' and its own at other times."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.bench.landmarks import measured_landmarkers
from pipeline.bench.models import asset_models
from pipeline.bench.mouths import mouth_rows
from pipeline.bench.speaker import WAYS, rank_of, shifts_of, summarise, sync_rows
from pipeline.bench.takes import TALKERS, filmed_takes, render_films, rendered_takes
from pipeline.demo.films import DEMO_FILMS, shorten
from schemas.accuracy import SyncRow

scores = st.none() | st.sampled_from([-0.2, 0.0, 0.1, 0.3, 0.9])


# --- laws ------------------------------------------------------------------------------------------------


@given(scores, st.lists(scores, max_size=6))
def test_a_rank_counts_those_who_are_as_good(own, others):
    rank = rank_of(own, others)
    assert 1 <= rank <= 1 + len(others)
    assert rank == rank_of(own, list(reversed(others)))
    if own is not None:
        better = sum(other is not None and other > own for other in others)
        equal = sum(other == own for other in others)
        assert rank == 1 + better + equal, "a tie is no proof"
    else:
        assert rank == 1 + len(others), "no answer is the worst one"


@given(st.integers(1, 500))
def test_a_moved_sound_is_never_nearer_than_a_second_and_a_half_either_way(num_frames):
    duration_s = num_frames / 25
    for shift_s in shifts_of(duration_s):
        assert shift_s >= 1.5
        assert duration_s - shift_s >= 1.5 - 1e-6
    assert (len(shifts_of(duration_s)) > 0) == (duration_s >= 3)


def row(**changes) -> SyncRow:
    given_ = {
        "model": "m", "pool": "filmed", "domain": "real", "media": "a", "num_frames": 75, "num_sounds": 5, "rank": 1,
        "num_shifts": 1, "shift_rank": 1, "score": 0.5, "best_other": 0.1, "best_shift": 0.2, "z": 2.0, "p": 0.01,
        "lag_frames": 0, "true_lag_frames": None, "ms_per_s": 1.0,
    }  # fmt: skip
    return SyncRow.model_validate(given_ | changes)


def test_a_summary_counts_first_places_by_domain_and_pool():
    rows = [row(), row(rank=2, z=4.0), row(shift_rank=3, z=None), row(domain="mesh", z=None), row(pool="rendered")]
    told = [(one.pool, one.domain, one.num_clips, one.first_of_sounds, one.first_of_shifts, one.median_z)
            for one in summarise(rows)]  # fmt: skip
    assert told == [
        ("filmed", "real", 3, 2, 2, 3.0),
        ("filmed", "mesh", 1, 1, 1, None),
        ("rendered", "real", 1, 1, 1, 2.0),
    ]


# --- films whose truth is known --------------------------------------------------------------------------


@pytest.fixture(scope="module")
def rendered(tmp_path_factory, assets):
    """The first shots of two rendered talkers, one of them with a sound that comes three frames late."""
    talkers = [film for film in DEMO_FILMS if film.id in {"mesh-ada", "mesh-cleo"}]
    chosen = [shorten(replace(film, shots=film.shots[:1]), 4.2) for film in talkers]
    models = asset_models(assets)
    films = render_films(tmp_path_factory.mktemp("rendered"), chosen)
    return rendered_takes(films, models), models


@pytest.mark.assets
def test_what_was_drawn_is_what_is_measured(rendered):
    takes, models = rendered
    assert [take.media for take in takes] == ["rendered mesh-ada", "rendered mesh-cleo"]
    for take in takes:
        assert take.true_opening.shape == take.valid.shape == (take.num_frames,)
        assert not np.isnan(take.true_opening).any()
    rows = mouth_rows(takes, measured_landmarkers(models))
    assert len(rows) == 4
    for one in rows:
        print(one)
        assert one.num_seen == one.num_frames
        assert one.correlation >= 0.9
        assert one.mean_abs_error <= 0.1


@pytest.mark.assets
def test_a_lag_that_was_made_is_found(rendered):
    rows = {(one.model, one.media): one for one in sync_rows(*rendered, "rendered", ("untrained", "ridge"))}
    for media, lag in (("rendered mesh-ada", 0), ("rendered mesh-cleo", -3)):
        own = rows["untrained", media]
        assert own.true_lag_frames == lag
        assert abs(own.lag_frames - lag) <= 1
        assert (own.rank, own.shift_rank) == (1, 1)
        assert own.p < 0.05
        assert own.score > max(own.best_other, own.best_shift)
        assert rows["ridge", media].num_sounds == 2


@pytest.mark.slow
@pytest.mark.assets
def test_own_sounds_come_first_or_second_and_most_come_first(assets):
    models = asset_models(assets)
    rows = sync_rows(filmed_takes(assets, models), models, "filmed")
    assert len(rows) == len(WAYS) * len(TALKERS)
    for one in rows:
        print(f"{one.model:<20} {one.media[:12]:<12} {one.rank}/{one.num_sounds} {one.shift_rank}/{1 + one.num_shifts}")
        assert one.num_sounds == len(TALKERS)
        assert one.score is not None
        if one.z is not None:
            assert one.rank <= 2
            assert one.shift_rank == 1
    for model, least in (("untrained", 5), ("ridge", 5), ("light_asd", 4)):
        assert sum(one.rank == 1 for one in rows if one.model == model) >= least, model
