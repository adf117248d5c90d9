"""The bench of sync: every talker's own sound against the others', by every way to tell."""

import pytest

from pipeline.bench.models import asset_models
from pipeline.bench.speaker import TALKERS, sync_rows

pytestmark = [pytest.mark.assets, pytest.mark.slow]


def test_own_sounds_come_first_or_second_and_most_come_first(assets):
    rows = sync_rows(assets, asset_models(assets))
    assert len(rows) == 3 * len(TALKERS)
    for row in rows:
        print(
            f"{row.model:<10} {row.media[:12]:<12} {row.rank}/{row.num_sounds} z {row.z} p {row.p} {row.ms_per_s} ms/s"
        )
        assert row.num_sounds == len(TALKERS)
        assert row.rank <= 2
        assert row.score is not None
    for model, least in (("untrained", 5), ("ridge", 5), ("light_asd", 4)):
        assert sum(row.rank == 1 for row in rows if row.model == model) >= least, model
