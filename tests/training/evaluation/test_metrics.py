"""Metrics against the libraries and published figures that define them, and by hand where there is none."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from scipy.linalg import sqrtm
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from schemas.errors import UsageError
from training.evaluation.metrics.frechet import Moments, frechet_distance
from training.evaluation.metrics.likeness import aed_squared, akd_l1, akd_l2, mean_cosine
from training.evaluation.metrics.lpips import Lpips
from training.losses.pixels import l1, psnr_db, ssim
from training.networks.frozen import FrozenFile


def pair(seed, size=(40, 56)):
    rng = np.random.default_rng(seed)
    smooth = rng.random((5, 7, 3)).repeat(8, axis=0).repeat(8, axis=1)[: size[0], : size[1]]
    return smooth, np.clip(smooth + rng.normal(0, rng.uniform(0.01, 0.3), smooth.shape), 0, 1)


def tensor(picture):
    return torch.from_numpy(picture).permute(2, 0, 1)[None]


# ---- pictures --------------------------------------------------------------------------------------------------------


@given(st.integers(0, 1000))
def test_psnr_and_ssim_are_scikit_images(seed):
    first, second = pair(seed)
    assert psnr_db(tensor(second), tensor(first)).item() == pytest.approx(
        peak_signal_noise_ratio(first, second, data_range=1), abs=1e-4
    )
    expected = structural_similarity(
        first, second, data_range=1, channel_axis=2, gaussian_weights=True, sigma=1.5, use_sample_covariance=False
    )
    assert ssim(tensor(second), tensor(first)).item() == pytest.approx(expected, abs=1e-7)


def test_every_pair_of_a_batch_has_its_own_figure():
    first, second = pair(0)
    both = torch.cat([tensor(second), tensor(first)])
    real = torch.cat([tensor(first)] * 2)
    assert ssim(both, real).tolist() == pytest.approx([ssim(both[:1], real[:1]).item(), 1.0])
    assert psnr_db(both, real).tolist()[1] == np.inf
    assert l1(both, real).tolist() == pytest.approx([np.abs(first - second).mean(), 0], abs=1e-6)


def test_pictures_smaller_than_the_window_are_refused():
    with pytest.raises(ValueError, match="11 px and more"):
        ssim(torch.zeros(1, 3, 10, 20), torch.zeros(1, 3, 10, 20))


# ---- LPIPS -----------------------------------------------------------------------------------------------------------


@pytest.mark.assets
def test_lpips_gives_the_published_pictures_their_distances(assets: Path):
    net, heads = "squeezenet1_1_imagenet_fp16.safetensors", "lpips_v0.1_squeeze.pth"
    files = [FrozenFile(path=str(assets / "weights" / name)) for name in (net, heads)]
    lpips = Lpips("squeezenet1_1", *files)
    ref, p0, p1 = (
        tensor(np.asarray(Image.open(assets / "vectors" / f"lpips_ex_{name}.png").convert("RGB"), np.float32) / 255)
        for name in ("ref", "p0", "p1")
    )
    distances = lpips(torch.cat([p0, p1, ref]), torch.cat([ref] * 3))
    assert distances.tolist() == pytest.approx([0.711, 0.148, 0], abs=5e-4)
    with pytest.raises(UsageError, match=r"metrics\.lpips\.heads: the file does not hold the LPIPS heads"):
        Lpips("squeezenet1_1", files[0], files[0])


# ---- Fréchet distance ------------------------------------------------------------------------------------------------


@given(st.integers(0, 1000), st.integers(1, 8), st.integers(3, 40))
def test_the_frechet_distance_is_scipys(seed, width, count):
    rng = np.random.default_rng(seed)
    first = rng.normal(size=(count + width, width)) @ rng.normal(size=(width, width))
    second = rng.normal(size=(count + width, width)) + rng.normal(size=width)
    mean = np.square(first.mean(0) - second.mean(0)).sum()
    c1, c2 = (np.atleast_2d(np.cov(values, rowvar=False)) for values in (first, second))
    expected = mean + np.trace(c1) + np.trace(c2) - 2 * np.trace(np.atleast_2d(sqrtm(c1 @ c2))).real
    distance = frechet_distance(Moments.of(first), Moments.of(second))
    assert distance == pytest.approx(expected, rel=1e-6, abs=1e-6)
    assert distance == pytest.approx(frechet_distance(Moments.of(second), Moments.of(first)), rel=1e-6, abs=1e-6)


def test_equal_sets_are_at_no_distance_and_a_shift_is_its_square_also_with_fewer_pictures_than_features():
    features = np.random.default_rng(0).normal(size=(10, 64))
    assert frechet_distance(Moments.of(features), Moments.of(features)) == pytest.approx(0, abs=1e-6)
    assert frechet_distance(Moments.of(features + 0.5), Moments.of(features)) == pytest.approx(64 * 0.25, abs=1e-6)
    with pytest.raises(ValueError, match="two vectors"):
        Moments.of(features[:1])


# ---- points and embeddings -------------------------------------------------------------------------------------------


def test_keypoint_distances_are_what_their_names_say():
    real = np.zeros((2, 68, 2))
    rendered = real + np.array([3.0, 4.0])
    assert akd_l1(rendered, real) == 3.5
    assert akd_l2(rendered, real) == 5
    rendered[1] = 100
    assert akd_l2(rendered, real, np.array([True, False])) == 5
    with pytest.raises(ValueError, match="no pair"):
        akd_l1(rendered, real, np.array([False, False]))


def test_identity_distance_is_squared_and_cosines_know_no_length():
    first, second = np.array([[1.0, 0], [0, 2]]), np.array([[3.0, 0], [2, 0]])
    assert aed_squared(first, second) == (4 + 8) / 2
    assert mean_cosine(first, second) == 0.5
    assert mean_cosine(first, 7 * first) == pytest.approx(1)
    with pytest.raises(ValueError, match="pair 1"):
        mean_cosine(first, np.array([[1.0, 0], [0, 0]]))
