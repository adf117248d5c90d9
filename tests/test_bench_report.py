"""The accuracy bench as a page: every row is on it, and what is missing is said before any work."""

import pytest

from flows import cli
from pipeline.bench.detection import describe
from pipeline.bench.report import Accuracy, _recalls, bench_files, draw, to_markdown
from pipeline.models.packaged import PACKAGED_MODELS
from schemas.accuracy import DetectionRow, LandmarkRow, PoseRow, SyncRow
from schemas.detectors import STANDARD_DETECTORS

MODEL, SETTINGS = describe(STANDARD_DETECTORS["real"])
FOUND = Accuracy(
    detection=(
        DetectionRow(
            domain="real", model=MODEL, settings=SETTINGS, hits=3, num_faces=4, false_alarms=1, num_frames=9,
            ms_per_frame=1.5, real_weights=True,
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
    sync=(
        SyncRow(
            model="light_asd", domain="real", media="talk.mp4", num_frames=75, num_sounds=5, rank=1, score=0.4, z=3.5,
            p=0.02, ms_per_s=280.0,
        ),
    ),
    models=(),
)  # fmt: skip


def test_the_page_holds_every_row_and_no_row_breaks_its_table():
    lines = to_markdown(FOUND, "accuracy.png").splitlines()
    for part in (
        f"| real | {MODEL} | {SETTINGS} | 3 | 4 | 1 | 9 | 1.5 | yes |",
        "a\\|b.jpg",
        "talk.mp4",
        "| pfld | mesh |",
    ):
        assert sum(part in line for line in lines) == 1, part
    tables = [line.replace("\\|", "") for line in lines if line.startswith("|")]
    starts = [index for index, line in enumerate(tables) if line.startswith("|---")]
    for start, stop in zip(starts, [*(one - 1 for one in starts[1:]), len(tables)], strict=True):
        assert len({line.count("|") for line in tables[start - 1 : stop]}) == 1
    assert "| – |" in next(line for line in lines if "a\\|b" in line), "an unknown number is a dash"


def test_the_picture_shows_the_profiles_share_and_is_the_same_every_time():
    assert _recalls(FOUND, STANDARD_DETECTORS) == {"real": 0.75}
    first = draw(FOUND)
    assert first.startswith(b"\x89PNG")
    assert draw(FOUND) == first


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
    for part in ("scrfd_500m", "einstein.jpg", "fsanet", "light_asd"):
        assert part in text
