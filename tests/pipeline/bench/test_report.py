"""The accuracy bench as a page: every row is on it, and what is missing is said before any work."""

import itertools
from pathlib import Path

import pytest

from flows.cli import application as cli
from pipeline.bench.detection import describe
from pipeline.bench.picture import draw
from pipeline.bench.report import Accuracy, absent_weights, bench_files, summarise_faces, to_markdown
from pipeline.models.files.packaged import PACKAGED_MODELS
from pipeline.models.files.weights import shipped_registry
from schemas.accuracy import DetectionRow, LandmarkRow, MouthRow, PoseRow, ShotRow, StillRow, SyncRow
from schemas.detectors import STANDARD_DETECTORS

ROOT = Path(__file__).resolve().parents[3]
MODEL, SETTINGS = describe(STANDARD_DETECTORS["real"])
FOUND = Accuracy(
    detection=(
        DetectionRow(
            domain="real", model=MODEL, settings=SETTINGS, hits=3, num_faces=4, false_alarms=1, num_frames=9,
            ms_per_frame=1.5, real_weights=True,
        ),
    ),
    stills=tuple(
        StillRow(
            photograph=name, model="yunet", settings="≥ 0.60", num_faces=num, num_found=found, ms_per_frame=9.0,
        )
        for name, num, found in (("six.jpg", 6, 5), ("none.jpg", 0, 1))
    ),
    shots=(
        ShotRow(
            media="film.mp4", truth="labels", detector="anitalk", num_true=4, num_found=5, num_hits=3, ms_per_frame=2.0,
        ),
    ),
    landmarks=(
        LandmarkRow(
            domain="real", media="a|b.jpg", reference="labels", landmarker="pfld", num_faces=1, num_found=1,
            nme_68=0.05, nme_51=None, ms_per_face=4.0,
        ),
    ),
    poses=(
        PoseRow(
            landmarker="pfld", pose="mesh", num_heads=2, yaw_error_deg=1.0, pitch_error_deg=2.0, roll_error_deg=3.0,
            num_frames=7, yaw_jitter_deg=0.1, pitch_jitter_deg=0.2, roll_jitter_deg=0.3, ms_per_frame=0.4,
        ),
    ),
    mouths=(
        MouthRow(
            domain="mesh", media="rendered ada", landmarker="pfld", num_frames=99, num_seen=98, correlation=0.93,
            mean_abs_error=0.08,
        ),
    ),
    sync=(
        SyncRow(
            model="light_asd", pool="filmed", domain="real", media="talk.mp4", num_frames=75, num_sounds=5, rank=1,
            num_shifts=3, shift_rank=2, score=0.4, best_other=0.3, best_shift=0.5, z=3.5, p=0.02, lag_frames=None,
            true_lag_frames=None, ms_per_s=280.0,
        ),
    ),
    models=(),
    absent=absent_weights(),
)  # fmt: skip


def test_the_page_holds_every_row_and_no_row_breaks_its_table():
    lines = to_markdown(FOUND, "accuracy.png").splitlines()
    for part in (
        f"| real | {MODEL} | {SETTINGS} | 3 | 4 | 1 | 9 | 1.5 | yes |",
        "a\\|b.jpg",
        "talk.mp4",
        "| pfld | mesh |",
        "| model | settings | six.jpg (6) | none.jpg (0) |",
        "| yunet | ≥ 0.60 | 5 | 1 |",
        "| film.mp4 | labels | anitalk | 4 | 5 | 3 | 2.0 | 0.6 | 0.75 | 0.667 |",
        "| mesh | rendered ada | pfld | 99 | 98 | 0.93 | 0.08 |",
        "| light_asd | filmed | real | 1 | 1 | 0 | 3.5 |",
    ):
        assert sum(part in line for line in lines) == 1, part
    tables = [line.replace("\\|", "") for line in lines if line.startswith("|")]
    starts = [index for index, line in enumerate(tables) if line.startswith("|---")]
    for start, stop in zip(starts, [*(one - 1 for one in starts[1:]), len(tables)], strict=True):
        assert len({line.count("|") for line in tables[start - 1 : stop]}) == 1
    assert "| – |" in next(line for line in lines if "a\\|b" in line), "an unknown number is a dash"


def test_the_picture_shows_the_profiles_share_and_is_the_same_every_time():
    assert [row.recall for row in summarise_faces(FOUND.detection)["standard"]] == [0.75]
    first = draw(FOUND)
    assert first.startswith(b"\x89PNG")
    assert draw(FOUND) == first


def test_every_model_of_the_registry_is_measured_or_listed_as_not_at_hand():
    absent = {one.name for one in absent_weights()}
    assert absent | set(bench_files()) >= set(shipped_registry())
    assert not absent & set(bench_files())
    # Face points, speech, expression, identity and the detector of an InsightFace pack.
    assert absent >= {"fan2d", "fan3d", "fan_depth", "hubert_large_ll60k", "arcface_r50", "scrfd_10g"}
    page = to_markdown(FOUND, "accuracy.png").split("## Not run with real weights")[1]
    for name in absent:
        assert f"| {name} |" in page


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip("|").split("|")]


def rows_of(text: str, after: str) -> dict[str, dict[str, str]]:
    """The first table after some words: by the first word of a row, then by column."""
    lines = text.split(after, 1)[1].splitlines()
    start = next(number for number, line in enumerate(lines) if line.startswith("|"))
    table = [cells(line) for line in itertools.takewhile(lambda line: line.startswith("|"), lines[start:])]
    return {row[0].split(" (")[0]: dict(zip(table[0][1:], row[1:], strict=True)) for row in table[2:]}


def test_the_page_of_models_repeats_the_figures_of_the_page_of_accuracy():
    page, models = ((ROOT / name).read_text() for name in ("docs/accuracy.md", "docs/models-and-weights.md"))
    told = rows_of(models, "labelled faces found, and false alarms")
    measured = rows_of(page, "## Faces, in short")
    assert {"embedded", "standard"} <= told.keys()
    for name, row in told.items():
        assert row == {domain: measured[name][domain] for domain in row}


def test_missing_media_and_weights_are_said_before_any_work(tmp_path, capsys):
    assert cli.run(["bench", "accuracy", "--assets", str(tmp_path / "none"), "-o", str(tmp_path / "a.md")]) == 2
    assert "is no folder of assets" in capsys.readouterr().err
    (tmp_path / "truth").mkdir()
    assert cli.run(["bench", "accuracy", "--assets", str(tmp_path), "-o", str(tmp_path / "a.md")]) == 2
    told = capsys.readouterr().err
    assert all(f"{name}: " in told for name in bench_files() if name not in PACKAGED_MODELS)
    assert not (tmp_path / "a.md").exists()


@pytest.mark.slow
@pytest.mark.assets
def test_the_whole_bench_becomes_a_page(assets, tmp_path):
    page = tmp_path / "accuracy.md"
    assert cli.run(["bench", "accuracy", "--assets", str(assets), "-o", str(page)]) == 0
    assert (tmp_path / "accuracy.png").read_bytes().startswith(b"\x89PNG")
    text = page.read_text()
    assert str(assets) not in text
    for part in ("scrfd_500m", "haar_frontal", "einstein.jpg", "ThresholdDetector", "fsanet", "light_asd", "hubert"):
        assert part in text
