"""The bench of animation measures every way there is here, and says on what."""

import pytest
import torch

from flows.cli import application as cli
from training.bench.animate import AnimateFigures, measure_animate

pytestmark = pytest.mark.usefixtures("one_thread_in_torch")


def test_figures_are_per_frame_and_compared_with_their_own_batch():
    ms = {("first", 1): 40.0, ("then", 1): 10.0, ("first", 8): 160.0, ("then", 8): 80.0}
    lines = AnimateFigures("256", 256, "a machine", 3, ms).lines()
    assert lines[2:6] == [
        "| 256 | 1 | first | 40.00 | 25.00 | 1.00 |",
        "| 256 | 1 | then | 10.00 | 100.00 | 4.00 |",
        "| 256 | 8 | first | 20.00 | 50.00 | 1.00 |",
        "| 256 | 8 | then | 10.00 | 100.00 | 2.00 |",
    ]
    assert lines[-2].startswith("a machine; pictures of 256 px")


def test_all_ways_of_a_processor_are_measured():
    figures = measure_animate("tiny64", torch.device("cpu"), batch_sizes=(1, 2), num_rounds=2)
    ways = [
        "source looked at for every frame",
        "source once",
        "norms folded",
        "2D channels last",
        "3D channels last",
    ]
    assert list(figures.ms) == [(way, size) for size in (1, 2) for way in ways]
    assert min(figures.ms.values()) > 0


def test_the_command_prints_a_table_and_says_what_is_wrong(capsys):
    arguments = ["bench", "animate", "--rounds", "1", "--batch-size", "1", "--device", "cpu", "--preset"]
    assert cli.run([*arguments, "tiny64"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("| preset | batch | | ms per frame | frames/s | × first |\n")
    assert f"processor time of 1 threads together, torch {torch.__version__}; pictures of 64 px" in out
    assert cli.run([*arguments, "128"]) == 2
    assert "there is no preset '128': choose from 256, 256-plain, 512, tiny64" in capsys.readouterr().err
