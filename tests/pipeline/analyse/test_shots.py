"""Shot boundaries: laws of the partition, synthetic films with known joints, and hand-labelled real media."""

import csv
from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.analyse import looks
from pipeline.analyse.shots import ShotDetector, shots_between
from pipeline.fetch.probe import probe
from pipeline.media.decode import fit_within, iter_frames
from schemas.base import FrameSpan
from schemas.config import ProbeConfig, ShotConfig
from schemas.media import Boundary
from tests.helpers.media_shots import SIZE, Scene, Truth, film, photo

# Settings were chosen on seeds 1 to 3; these were looked at only as a score.
HELD_OUT_SEEDS = (201, 202, 203, 204, 205)
SINGLE_TAKES = (
    "WDA_AlexandriaOcasioCortez_000.mp4",
    "bbaf2n.mpg",
    "bigbuckbunny.mp4",
    "carphone_pristine.mp4",
    "cat_nobel.mp4",
    "d9.mp4",
    "dog_22.mp4",
    "id2_vcd_swwp2s.mpg",
    "man_FaceTalk_170809_00138_TA_condition_FaceTalk_170725_00137_TA_audio.mp4",
    "tps_driving.mp4",
    "yongen.mp4",
)


def detect(frames: Iterable[np.ndarray], fps: Fraction = Fraction(25), first: int = 0) -> list[Boundary]:
    detector = ShotDetector(ShotConfig(), fps)
    found = [b for k, image in enumerate(frames, first) for b in detector.push(k, float(k / fps), image)]
    return found + detector.finish()


def read(path: Path, side_px: int = ShotConfig().cut_side_px) -> tuple[list[np.ndarray], list[float], Fraction]:
    """The pictures as analysis makes them."""
    video = probe(path, "film", "0", ProbeConfig(min_side_px=1))
    size = fit_within(video.width_px, video.height_px, side_px)
    frames = [(frame.to_array(size, "bgr24"), frame.time_s) for frame in iter_frames(path, video)]
    return [image for image, _ in frames], [time_s for _, time_s in frames], video.average_fps


def inside(found: list[Boundary], num_frames: int) -> list[Boundary]:
    return [b for b in found if 0 < b.frame < num_frames]


def matched(truth: list[Truth], found: list[Boundary]) -> list[tuple[Truth, Boundary]]:
    """Pairs: a cut within a frame of its place, a gradual one anywhere in its extent (a frame of slack)."""
    left, pairs = list(found), []
    for t in truth:
        low, high = (t.frame - 1, t.frame + 1) if t.kind == "cut" else (t.start - 1, t.stop + 1)
        hit = next((b for b in left if low <= b.frame <= high), None)
        if hit:
            left.remove(hit)
            pairs.append((t, hit))
    return pairs


def f1(num_matched: int, num_true: int, num_found: int) -> float:
    return 2 * num_matched / (num_true + num_found)


boundaries = st.builds(
    lambda frame, kind, start, length: Boundary(frame=frame, kind=kind, start_frame=start, stop_frame=start + length),
    st.integers(0, 130),
    st.sampled_from(["cut", "fade", "dissolve", "limit"]),
    st.integers(0, 130),
    st.integers(0, 60),
)


@given(st.lists(boundaries, max_size=12), st.integers(0, 60), st.integers(1, 60))
def test_shots_partition_the_span_whatever_the_boundaries(given_boundaries, start, length):
    span = FrameSpan(start=start, stop=start + length)
    shots = shots_between(given_boundaries, span, lambda frame: frame / 25)
    assert [f for s in shots for f in range(s.span.start, s.span.stop)] == list(range(span.start, span.stop))
    assert shots[0].boundary == "start"
    assert {s.span.start for s in shots[1:]} == {b.frame for b in given_boundaries if span.start < b.frame < span.stop}
    for shot in shots:
        assert (shot.start_s, shot.stop_s) == (shot.span.start / 25, shot.span.stop / 25)
        free = set(range(shot.span.start, shot.span.stop))
        free -= {f for b in given_boundaries for f in range(b.start_frame, b.stop_frame)}
        assert (shot.clean is None) == (not free)
        if shot.clean:
            assert set(range(shot.clean.start, shot.clean.stop)) <= free
            assert len(shot.clean) * (len(given_boundaries) + 1) >= len(free)


def test_clean_span_leaves_out_the_transitions_at_both_ends():
    made = [
        Boundary(frame=40, kind="dissolve", start_frame=35, stop_frame=45),
        Boundary(frame=80, kind="fade", start_frame=70, stop_frame=90),
    ]
    shots = shots_between(made, FrameSpan(start=0, stop=100), lambda frame: frame / 25)
    assert [(s.clean.start, s.clean.stop) for s in shots] == [(0, 35), (45, 70), (90, 100)]
    assert [s.boundary for s in shots] == ["start", "dissolve", "fade"]


@given(st.integers(0, 2**32 - 1), st.sampled_from([1.0, 30.0]), st.integers(-8, 8), st.floats(0.5, 1.5))
def test_blocks_are_found_as_opencv_finds_them(seed, noise, shift, gain):
    """The same mean of best normalised cross-correlations, weighted by contrast, as by matchTemplate."""
    rng = np.random.default_rng(seed)
    a = cv2.GaussianBlur(rng.uniform(0, 255, (36, 64)).astype(np.float32), (0, 0), 2)
    a[12:24, 16:32] = 100  # a flat block matches nothing
    b = np.roll(a, shift, axis=1) * np.float32(gain) + rng.normal(0, noise, a.shape).astype(np.float32)
    found = total = 0.0
    for y in range(0, 36, 12):
        for x in range(0, 64, 16):
            block = a[y : y + 12, x : x + 16]
            if block.std() >= 1:
                area = b[max(0, y - 6) : y + 18, max(0, x - 6) : x + 22]
                found += block.std() * max(0.0, cv2.matchTemplate(area, block, cv2.TM_CCOEFF_NORMED).max())
                total += block.std()
    assert looks._blocks_found(a, b) == pytest.approx(found / total, abs=1e-4)


def test_alike_means_similar_enough_both_ways():
    rng = np.random.default_rng(0)
    pictures = [
        looks.look_at(k, rng.integers(0, 255, (9, 16, 3), np.uint8).repeat(10, 0).repeat(10, 1)) for k in range(4)
    ]
    for a in pictures:
        for b in pictures:
            measured = looks.similarity(a, b)
            limits = (measured - 1e-6, measured, measured + 1e-6)
            assert [looks.is_similar(a, b, least) for least in limits] == [True, True, False]


@pytest.fixture(scope="module")
def scored() -> tuple[list[tuple[Truth, Boundary]], int, int]:
    pairs, num_true, num_found = [], 0, 0
    for seed in HELD_OUT_SEEDS:
        made = film(seed, num_scenes=40)
        found = inside(detect(made.frames), len(made.frames))
        pairs += matched(made.truth, found)
        num_true, num_found = num_true + len(made.truth), num_found + len(found)
    return pairs, num_true, num_found


def test_boundaries_of_synthetic_films(scored):
    pairs, num_true, num_found = scored
    assert num_true >= 200
    assert f1(len(pairs), num_true, num_found) >= 0.97


def test_extents_cover_the_transitions_of_synthetic_films(scored):
    gradual = [(t, b) for t, b in scored[0] if t.kind != "cut"]
    covered = sum(len(set(range(t.start, t.stop)) & set(range(b.start_frame, b.stop_frame))) for t, b in gradual)
    assert covered / sum(t.stop - t.start for t, _ in gradual) >= 0.9


def test_the_same_film_gives_the_same_boundaries_at_any_first_frame():
    frames = film(7, num_scenes=8).frames
    zero, later = detect(frames), detect(frames, first=1000)
    assert [(b.frame + 1000, b.start_frame + 1000, b.stop_frame + 1000, b.kind) for b in zero] == [
        (b.frame, b.start_frame, b.stop_frame, b.kind) for b in later
    ]


def test_boundaries_come_in_order_and_memory_does_not_grow():
    frames = film(8, num_scenes=6).frames
    detector = ShotDetector(ShotConfig(), Fraction(25))
    sizes, out = [], []
    for repeat in range(4):
        for k, image in enumerate(frames):
            frame = repeat * len(frames) + k
            out += detector.push(frame, frame / 25, image)
        sizes.append(detector.num_remembered)
    out += detector.finish()
    assert [b.frame for b in out] == sorted(b.frame for b in out)
    assert max(sizes) <= 320


@pytest.mark.parametrize(("length", "expected"), [(1, []), (7, []), (8, [40, 48])])  # 0.25 s at 25 fps
def test_an_interruption_is_a_shot_only_if_it_is_longer_than_a_flash(length, expected):
    rng = np.random.default_rng(3)
    talker, insert = (Scene(photo(name), 90, rng, None) for name in ("astronaut", "coffee"))
    frames = [(insert if 40 <= k < 40 + length else talker).frame(k).astype(np.uint8) for k in range(90)]
    assert [b.frame for b in detect(frames)] == expected


@pytest.mark.parametrize("length", [1, 4])
@pytest.mark.parametrize("level", [0, 255])
def test_a_short_blank_within_a_shot_is_no_boundary(length, level):
    talker = Scene(photo("astronaut"), 60, np.random.default_rng(4), None)
    frames = [talker.frame(k).astype(np.uint8) for k in range(60)]
    frames[30 : 30 + length] = [np.full_like(frames[0], level)] * length
    assert detect(frames) == []


def test_frames_out_of_order_are_refused():
    detector = ShotDetector(ShotConfig(), Fraction(25))
    image = np.zeros((SIZE[1], SIZE[0], 3), np.uint8)
    detector.push(5, 0.2, image)
    with pytest.raises(ValueError, match="expected 6, found 8"):
        detector.push(8, 0.32, image)


def test_nothing_pushed_nothing_found():
    assert ShotDetector(ShotConfig(), Fraction(25)).finish() == []


@pytest.mark.parametrize("length", [1, 2])
def test_a_run_of_a_frame_or_two_has_no_boundary(length):
    assert detect([np.full((90, 160, 3), 128, np.uint8)] * length) == []


@pytest.mark.assets
@pytest.mark.parametrize("name", SINGLE_TAKES)
def test_a_single_take_has_no_boundary(assets, name):
    frames, _, fps = read(assets / "video" / name)
    assert detect(frames, fps) == []


@pytest.fixture(scope="module")
def sintel(assets) -> tuple[list[Boundary], list[dict[str, str]]]:
    frames, _, fps = read(assets / "video" / "sintel.mp4")
    with (assets / "truth" / "shots.csv").open(newline="") as table:
        rows = [row for row in csv.DictReader(table) if row["file"] == "sintel.mp4"]
    return detect(frames, fps), rows


def _extent(row: dict[str, str]) -> tuple[int, int]:
    return int(row["start_frame"]), int(row["end_frame"])


@pytest.mark.assets
def test_sintel_hard_cuts(sintel):
    found, rows = sintel
    cuts = [_extent(row)[0] for row in rows if row["kind"] == "cut" and "AMBIGUOUS" not in row["note"]]
    left_out = [_extent(row)[0] for row in rows if row["kind"] == "cut" and "AMBIGUOUS" in row["note"]]
    mine = [b.frame for b in found if b.kind == "cut" and all(abs(b.frame - x) > 1 for x in left_out)]
    assert len(cuts) == 10
    assert f1(sum(any(abs(c - m) <= 1 for m in mine) for c in cuts), len(cuts), len(mine)) >= 0.93


@pytest.mark.assets
def test_sintel_fades_and_dissolves(sintel):
    found, rows = sintel
    soft = [r for r in rows if r["kind"] in {"fade_in", "fade_out", "dissolve"} and "AMBIGUOUS" not in r["note"]]
    met = [any(a - 8 <= b.frame <= z + 8 for b in found) for a, z in map(_extent, soft)]
    assert sum(met) / len(met) >= 0.8


@pytest.mark.assets
def test_sintel_traps(sintel):
    found, rows = sintel
    soft = [_extent(r) for r in rows if r["kind"] in {"fade_in", "fade_out", "dissolve"}]
    bare = [b.frame for b in found if not any(a <= b.frame <= z for a, z in soft)]
    for a, z in (_extent(r) for r in rows if r["kind"] == "not_a_cut"):
        assert not [frame for frame in bare if a <= frame <= z]


@pytest.mark.assets
def test_dips_through_black_lie_in_the_middle(assets):
    frames, _, fps = read(assets / "video" / "fades.mp4")
    found = inside(detect(frames, fps), len(frames))
    assert [b.frame for b in found] == pytest.approx([84, 167], abs=1)
    assert {b.kind for b in found} == {"fade"}


@pytest.mark.assets
def test_variable_rate_boundaries_have_their_frames_own_times(assets):
    frames, times, fps = read(assets / "video" / "goldeneye-vfr-drop3.mp4")
    shots = shots_between(detect(frames, fps), FrameSpan(start=0, stop=len(frames)), lambda f: [*times, times[-1]][f])
    assert [s.start_s for s in shots] == pytest.approx([0, 3.754, 8.759], abs=0.05)


@pytest.mark.assets
def test_a_cartoon_dissolve_is_found(assets):
    frames, _, fps = read(assets / "video" / "penny_and_chip_beach_surfing.mp4")
    near = [b for b in detect(frames, fps) if 90 < b.frame < 140]
    assert [b.kind for b in near] == ["dissolve"]
    assert near[0].start_frame <= 109
    assert near[0].stop_frame >= 120


def test_framings_alike_in_another_room_are_two_shots():
    """Two heads in the middle of the picture resemble each other in luma; the colour of the room tells them apart."""
    grey = np.full((90, 160), 120, np.uint8)
    cv2.circle(grey, (80, 40), 24, 200, -1)
    cv2.circle(grey, (72, 36), 3, 20, -1)
    cv2.circle(grey, (88, 36), 3, 20, -1)

    def room(blue: float, red: float) -> np.ndarray:
        return np.clip(grey[..., None] * np.array([blue, 1.0, red]), 0, 255).astype(np.uint8)

    frames = [room(1.25, 0.75)] * 40 + [room(0.75, 1.25)] * 40
    assert [(b.frame, b.kind) for b in detect(frames)] == [(40, "cut")]
    flash = [room(1.25, 0.75)] * 40 + [room(0.75, 1.25)] * 3 + [room(1.25, 0.75)] * 40
    assert detect(flash) == []
