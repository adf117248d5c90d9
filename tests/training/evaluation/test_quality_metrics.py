"""CPBD and NIQE, which look at one picture alone: against their references where there are, and by what they mean."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from scipy.ndimage import gaussian_filter
from skimage.feature import canny as reference_canny

from schemas.errors import UsageError
from training.evaluation.metrics.cpbd import canny, cpbd, edge_widths
from training.evaluation.metrics.niqe import BLOCK_PX, Naturalness, _asymmetric, block_features, niqe


def scene(seed, size=(130, 200)):
    """Patches of grey of many sizes and a little grain, 0 to 255."""
    rng = np.random.default_rng(seed)
    patches = sum(
        rng.random((size[0] // step + 1, size[1] // step + 1)).repeat(step, 0).repeat(step, 1)[: size[0], : size[1]]
        for step in (5, 11, 23, 47)
    )
    return np.round(np.clip(255 * patches / 4 + rng.normal(0, 2, size), 0, 255))


def still(assets: Path, name, longest=300):
    with Image.open(assets / "stills" / name) as picture:
        grey = picture.convert("L")
        grey.thumbnail((longest, longest))
        return np.asarray(grey, np.float64)


# ---- CPBD ------------------------------------------------------------------------------------------------------------


@given(st.integers(0, 40), st.floats(0, 2))
def test_edges_are_scikit_images(seed, blur):
    picture = gaussian_filter(scene(seed, (70, 90)), blur)
    assert np.array_equal(canny(picture), reference_canny(picture))


@pytest.mark.parametrize("half", [1, 2, 3, 5])
def test_the_width_of_an_edge_is_that_of_its_slope(half):
    slope = [*range(1, half + 1), *range(half, 0, -1)]  # steepest in the middle, at one pixel
    line = 5.0 * np.cumsum([0] * 30 + slope + [0] * 30)
    for picture in (np.tile(line, (64, 1)), np.tile(line[::-1], (64, 1))):
        widths = edge_widths(picture)
        assert set(np.unique(widths[widths > 0])) == {2 * half}
    assert not edge_widths(np.tile(line[:, None], (1, 64))).any()  # a level edge is not measured


@pytest.mark.assets
@pytest.mark.parametrize(
    ("name", "longest", "expected"),  # printed by the package cpbd 1.0.7 for these very arrays
    [("aflw-test.jpg", 300, 0.338353), ("cat1.jpg", 300, 0.624012), ("einstein.jpg", 300, 0.708866)],
)
def test_cpbd_is_that_of_the_package(assets: Path, name, longest, expected):
    assert cpbd(still(assets, name, longest)) == pytest.approx(expected, abs=1e-6)


@pytest.mark.assets
@pytest.mark.parametrize("name", ["aflw-test.jpg", "liveportrait_s30.jpg", "sadtalker_art_0.png", "twogirls.jpg"])
def test_the_more_blur_the_lower_cpbd(assets: Path, name):
    picture = still(assets, name)
    figures = [cpbd(gaussian_filter(picture, blur)) for blur in (0, 1, 2, 4)]
    assert figures == sorted(figures, reverse=True)
    assert 1 >= figures[0] > figures[1] > figures[2] >= 0  # from some blur on no edge is narrow


def test_a_picture_without_edges_has_no_cpbd_and_a_small_one_is_refused():
    assert cpbd(np.full((64, 64), 80.0)) == 0
    with pytest.raises(ValueError, match="64 px and more"):
        cpbd(np.zeros((63, 200)))


# ---- NIQE ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("shape", "left", "right"), [(1.0, 1.0, 1.0), (2.0, 0.5, 1.5), (4.0, 2.0, 1.0)])
def test_shape_and_widths_of_known_samples_are_found(shape, left, right):
    """|x / width|^shape follows a gamma distribution; each side has a share as large as its width."""
    rng = np.random.default_rng(0)
    sides = np.where(rng.random((2, 300, 300)) < left / (left + right), -left, right)
    samples = sides * rng.gamma(1 / shape, size=sides.shape) ** (1 / shape)
    fitted = _asymmetric(samples)
    for values, expected in zip(fitted, (shape, left, right), strict=True):
        assert values == pytest.approx(np.full(2, expected), rel=0.03)


def test_a_picture_has_36_numbers_per_whole_block():
    features, contrast = block_features(scene(0, (2 * BLOCK_PX + 50, 3 * BLOCK_PX)))
    assert features.shape == (6, 36)
    assert np.isfinite(features).all()
    assert (contrast > 0).all()


@pytest.mark.parametrize(
    ("seed", "size", "expected"),  # printed by the package basicsr 1.4.2 for these arrays and parameters
    [(0, (200, 300), 10.3946236), (1, (192, 192), 9.3842598)],
)
def test_niqe_is_that_of_the_package(seed, size, expected):
    assert niqe(scene(seed, size), Naturalness(np.zeros(36), np.eye(36))) == pytest.approx(expected, abs=1e-6)


@pytest.mark.assets
def test_disturbed_pictures_are_further_from_undisturbed_ones(assets: Path, tmp_path: Path):
    names = ["aflw-test.jpg", "cat3.jpg", "einstein.jpg", "t1.jpg", "twogirls.jpg"]
    pictures = [still(assets, name, 512) for name in names]
    natural = Naturalness.of(pictures)
    natural.save(tmp_path / "natural.safetensors")
    natural = Naturalness.read(tmp_path / "natural.safetensors", "metrics.niqe")
    rng = np.random.default_rng(0)
    for picture in pictures:
        own = niqe(picture, natural)
        assert niqe(gaussian_filter(picture, 3), natural) > own
        assert niqe(np.clip(picture + rng.normal(0, 40, picture.shape), 0, 255), natural) > own


def test_pictures_that_have_no_statistics_have_no_niqe():
    natural = Naturalness(np.zeros(36), np.eye(36))
    assert np.isnan(niqe(np.full((192, 192), 50.0), natural))
    with pytest.raises(ValueError, match="two blocks"):
        niqe(scene(0, (191, 190)), natural)
    with pytest.raises(ValueError, match="two blocks"):
        Naturalness.of([])


def test_parameters_come_from_npz_too_and_from_nothing_that_could_run(tmp_path: Path):
    mean, covariance = np.arange(36.0), np.eye(36)
    np.savez(tmp_path / "good.npz", mu_pris_param=mean[None], cov_pris_param=covariance)
    assert np.array_equal(Naturalness.read(tmp_path / "good.npz", "k").mean, mean)
    np.savez(tmp_path / "object.npz", mu_pris_param=np.array([{}], dtype=object), cov_pris_param=covariance)
    np.savez(tmp_path / "short.npz", mu_pris_param=mean[:5], cov_pris_param=covariance)
    np.savez(tmp_path / "nan.npz", mu_pris_param=mean * np.nan, cov_pris_param=covariance)
    np.save(tmp_path / "array.npy", mean)
    (tmp_path / "cut.npz").write_bytes((tmp_path / "good.npz").read_bytes()[:200])
    for name in ("object.npz", "short.npz", "nan.npz", "array.npy", "cut.npz", "nowhere.npz"):
        with pytest.raises(UsageError, match=r"metrics\.niqe: .*" + name):
            Naturalness.read(tmp_path / name, "metrics.niqe")
