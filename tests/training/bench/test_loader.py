"""The loader's bench runs on real shards and its figures are about the same frames."""

import pytest

from flows.cli import application as cli
from schemas.errors import UsageError
from tests.helpers.pair_shards import numbered_release
from training.bench.loader import LoaderFigures, measure_loader
from training.data import PairsConfig


def test_shares_are_ratios_of_what_was_measured():
    figures = LoaderFigures(size_px=64, num_pairs=10, loader_ms=4.0, bare_ms=3.0, usual_ms=8.0)
    assert figures.share == 0.75
    assert "| loader | 4.00 | 250 | 0.75 |" in figures.lines()
    assert "| bare decoding | 3.00 | 333 | 1.00 |" in figures.lines()
    assert not any("waiting" in line for line in figures.lines())


def test_it_measures_a_release_and_a_training_beside_it(tmp_path):
    release = numbered_release(tmp_path, {"mesh": 2, "real": 4})
    config = PairsConfig(batch_size=4, num_workers=1)
    figures = measure_loader(release, config, num_batches=3, step_ms=1.0)
    assert (figures.size_px, figures.num_pairs, figures.num_workers) == (64, 12, 1)
    assert min(figures.loader_ms, figures.bare_ms, figures.usual_ms) > 0
    assert 0 <= figures.wait_ratio <= 1
    with pytest.raises(UsageError, match="at least one batch"):
        measure_loader(release, config, num_batches=0)


def test_the_command_prints_the_table_and_says_what_is_wrong(tmp_path, capsys):
    release = numbered_release(tmp_path / "r", {"real": 3}, min_shards=1)
    arguments = ["bench", "loader", "--batch-size", "2", "--batches", "2", "--shards"]
    assert cli.run([*arguments, str(release)]) == 0
    out = capsys.readouterr().out
    assert out.startswith("| one core | ms per pair | pairs/s | ÷ bare decoding |\n")
    assert "4 pairs of 64 px; the loader reaches " in out
    assert cli.run([*arguments, str(tmp_path / "nothing")]) == 2
    assert f"anitalk: no finished release at {tmp_path / 'nothing'}" in capsys.readouterr().err
    assert cli.run([*arguments, str(tmp_path / "nothing.tar")]) == 1
