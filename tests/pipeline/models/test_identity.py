"""Alignment and averaging of face embeddings. No real ArcFace weights are at hand: the network here is random."""

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from skimage.data import astronaut

from pipeline.models.identity import ARCFACE_POINTS, ArcFace, alignment, five_points, mean_embedding
from schemas.errors import UsageError
from tests.helpers.onnx_files import random_arcface

# Eyes (image left first), nose tip, mouth corners, read off the photograph.
ASTRONAUT_POINTS = np.array([[204.0, 114.0], [244.0, 113.0], [222.0, 133.0], [209.0, 152.0], [243.0, 151.0]])


@pytest.fixture(scope="module")
def arcface(tmp_path_factory) -> ArcFace:
    return ArcFace(random_arcface(tmp_path_factory.mktemp("weights") / "random_standin_arcface.onnx"))


# --- alignment -------------------------------------------------------------------------------------------

moves = st.tuples(st.floats(0.2, 5), st.floats(-3.1, 3.1), st.floats(-500, 500), st.floats(-500, 500))


def moved(points, move):
    scale, angle, dx, dy = move
    turn = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    return points @ turn.T + [dx, dy]


def applied(matrix, points):
    return points @ matrix[:, :2].T + matrix[:, 2]


@given(moves)
def test_any_turn_scale_and_shift_is_undone(move):
    assert np.allclose(applied(alignment(moved(ARCFACE_POINTS, move)), moved(ARCFACE_POINTS, move)), ARCFACE_POINTS)


@given(st.lists(st.floats(-20, 20), min_size=10, max_size=10), st.sampled_from([112, 128, 224, 256]))
def test_it_is_insightfaces_alignment(noise, size_px):
    face_align = pytest.importorskip("insightface.utils.face_align")
    points = ASTRONAUT_POINTS + np.reshape(noise, (5, 2))
    assert np.allclose(alignment(points, size_px), face_align.estimate_norm(points, size_px), atol=1e-3)


def test_a_mirrored_face_is_not_turned_over():
    matrix = alignment(ARCFACE_POINTS * [-1, 1])
    assert np.linalg.det(matrix[:, :2]) > 0


@pytest.mark.parametrize("size_px", [100, 120, 0.5])
def test_other_sizes_are_refused(size_px):
    with pytest.raises(ValueError, match="112 or 128"):
        alignment(ARCFACE_POINTS, size_px)


def test_points_in_one_place_are_refused():
    with pytest.raises(ValueError, match="coincide"):
        alignment(np.ones((5, 2)))


def test_five_points_of_68():
    points = np.zeros((68, 3))
    points[36:42, 0], points[42:48, 0], points[30, 0], points[48, 0], points[54, 0] = 1, 2, 3, 4, 5
    assert five_points(points)[:, 0].tolist() == [1, 2, 3, 4, 5]


# --- averaging -------------------------------------------------------------------------------------------


def unit(vectors):
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


@given(st.integers(1, 30), st.integers(0, 2**31))
def test_the_mean_is_a_unit_vector_whatever_the_order(num, seed):
    rng = np.random.default_rng(seed)
    frames = unit(rng.normal(size=(num, 512)) + 5 * unit(rng.normal(size=512)))
    mean = mean_embedding(frames)
    assert np.linalg.norm(mean) == pytest.approx(1, abs=1e-5)
    assert np.allclose(mean, mean_embedding(frames[::-1]), atol=1e-5)


def test_of_one_frame_or_of_equal_ones_it_is_that():
    embedding = unit(np.random.default_rng(0).normal(size=512))
    assert np.allclose(mean_embedding(embedding[None]), embedding, atol=1e-6)
    assert np.allclose(mean_embedding(np.tile(embedding, (9, 1))), embedding, atol=1e-6)


@pytest.mark.parametrize(("strangers", "follows"), [(9, True), (10, False), (11, False)])
def test_up_to_half_of_the_frames_may_be_somebody_else(strangers, follows):
    """19, 20 and 21 frames, 10 of one face; the plain mean would lean to the strangers from the first on."""
    rng = np.random.default_rng(1)
    face, stranger = unit(rng.normal(size=512)), unit(rng.normal(size=512))
    frames = unit(np.concatenate([np.tile(face, (10, 1)), np.tile(stranger, (strangers, 1))]))
    assert (mean_embedding(frames) @ face > 0.99) == follows
    assert unit(frames.mean(axis=0)) @ face < 0.8


def test_nothing_and_opposites_have_no_mean():
    with pytest.raises(ValueError, match="without a single"):
        mean_embedding(np.zeros((0, 512)))
    embedding = unit(np.ones(512))
    with pytest.raises(ValueError, match="cancel out"):
        mean_embedding(np.stack([embedding, -embedding]))


# --- the network, with random weights --------------------------------------------------------------------


def test_the_embedding_follows_the_face_and_not_the_frame(arcface):
    image = astronaut()
    before = arcface.embed(image, ASTRONAUT_POINTS)
    assert before.shape == (512,)
    assert np.linalg.norm(before) == pytest.approx(1, abs=1e-5)
    matrix = cv2.getRotationMatrix2D((222, 130), 20, 1.3)
    turned = cv2.warpAffine(image, matrix, (512, 512))
    after = arcface.embed(turned, ASTRONAUT_POINTS @ matrix[:, :2].T + matrix[:, 2])
    elsewhere = arcface.embed(image, ASTRONAUT_POINTS + np.array([0, 200]))
    assert before @ after > 0.99
    assert before @ elsewhere < before @ after - 0.02


def test_it_reads_as_insightface_does(arcface):
    """One network through InsightFace's own alignment and colour order (BGR)."""
    face_align = pytest.importorskip("insightface.utils.face_align")
    image = astronaut()
    bgr = np.ascontiguousarray(image[:, :, ::-1])
    theirs = arcface._model.get_feat(face_align.norm_crop(bgr, ASTRONAUT_POINTS))[0]
    assert arcface.embed(image, ASTRONAUT_POINTS) @ unit(theirs) == pytest.approx(1, abs=1e-4)


def test_embedding_twice_gives_the_same(arcface):
    assert np.array_equal(arcface.embed(astronaut(), ASTRONAUT_POINTS), arcface.embed(astronaut(), ASTRONAUT_POINTS))


def test_another_number_of_outputs_is_no_arcface(tmp_path):
    path = random_arcface(tmp_path / "random_standin_136.onnx", num_outputs=136)
    with pytest.raises(UsageError, match=r"no ArcFace.*\[1, 136\], expected \[1, 512\]"):
        ArcFace(path)


@pytest.mark.assets
def test_a_landmark_network_is_no_arcface(assets):
    with pytest.raises(UsageError, match=r"no ArcFace.*136"):
        ArcFace(assets / "weights" / "pfld.onnx")


@pytest.mark.assets
@pytest.mark.parametrize("file", ["scrfd_500m_kps.onnx", "fsanet-1x1-iter-688590.onnx"])
def test_other_networks_are_no_arcface(assets, file):
    with pytest.raises(UsageError, match="should be a model for face recognition"):
        ArcFace(assets / "weights" / file)


def test_a_missing_file_is_a_usage_error(tmp_path):
    with pytest.raises(UsageError, match="missing"):
        ArcFace(tmp_path / "w600k_r50.onnx")
