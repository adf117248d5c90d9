"""Whose face it is, as 512 numbers: ArcFace on a face that five points put into its place.

The network was trained on faces whose eyes, nose and mouth corners lie at fixed places of a 112-pixel square, so
half of what it can tell is in the alignment. One frame's numbers change with pose, blur and a hand before the face;
a clip's are the point that lies closest to all of them.
"""

from pathlib import Path

import numpy as np
from jaxtyping import Float, Float32, UInt8

from schemas.errors import UsageError
from schemas.models import Device

Image = UInt8[np.ndarray, "H W 3"]
FivePoints = Float[np.ndarray, "5 2"]
Embedding = Float32[np.ndarray, "512"]

EMBEDDING_SIZE = 512
_TEMPLATE_PX = 112
# Where InsightFace's ``face_align`` puts the eyes (image left first), the nose's tip and the mouth's corners in a
# square of 112: the places that ArcFace (Deng et al., arXiv 1801.07698) is trained and asked with.
ARCFACE_POINTS: Float[np.ndarray, "5 2"] = np.array(
    [[38.2946, 51.6963], [73.5318, 51.5014], [56.0252, 71.7366], [41.5493, 92.3655], [70.7299, 92.2041]]
)
_LEFT_EYE, _RIGHT_EYE, _NOSE_TIP, _MOUTH_CORNERS = slice(36, 42), slice(42, 48), 30, (48, 54)
_MAX_STEPS = 100
_SETTLED = 1e-7
_LEAST_LENGTH = 1e-9


class NoIdentityError(ValueError):
    """These points, or what the network makes of them, name nobody."""


def five_points(ibug68: Float[np.ndarray, "68 C"]) -> FivePoints:
    """Eye centres, nose tip and mouth corners from 68 points (300-W order); columns after x and y are left out."""
    xy = np.asarray(ibug68, np.float64)[:, :2]
    eyes = xy[_LEFT_EYE].mean(axis=0), xy[_RIGHT_EYE].mean(axis=0)
    return np.stack([*eyes, xy[_NOSE_TIP], *(xy[k] for k in _MOUTH_CORNERS)])


def alignment(points: FivePoints, size_px: int = _TEMPLATE_PX) -> Float[np.ndarray, "2 3"]:
    """The turn, scale and shift that bring ``points`` closest to ArcFace's places, from image to square pixels.

    Least squares without reflection (Umeyama, PAMI 13, 1991; in a plane it is linear), as in InsightFace's
    ``norm_crop``. Squares of a multiple of 112 hold the template scaled; of a multiple of 128, with margins:
    8 of 128 at either side and 16 below.

    Raises:
        ValueError: for another size.
        NoIdentityError: when the points coincide.
    """
    target = _template(size_px)
    source = np.asarray(points, np.float64)
    if np.ptp(source, axis=0).max() < 1e-6:
        raise NoIdentityError("the five points of a face coincide")
    # x' = a x - b y + tx, y' = b x + a y + ty
    x, y, ones, zeros = source[:, 0], source[:, 1], np.ones(5), np.zeros(5)
    rows = np.concatenate([np.stack([x, -y, ones, zeros], axis=1), np.stack([y, x, zeros, ones], axis=1)])
    a, b, tx, ty = np.linalg.lstsq(rows, target.T.ravel(), rcond=None)[0]
    return np.array([[a, -b, tx], [b, a, ty]])


def _template(size_px: int) -> FivePoints:
    if size_px % 112 == 0:
        return ARCFACE_POINTS * (size_px / 112)
    if size_px % 128 == 0:
        return (ARCFACE_POINTS + np.array([8.0, 0.0])) * (size_px / 128)
    raise ValueError(f"an aligned face has a side of a multiple of 112 or 128 pixels, not {size_px}")


class ArcFace:
    """The embedding network, through InsightFace.

    Args:
        path: the ONNX file, or a folder of InsightFace's models that holds one.
        device: where it runs.

    Raises:
        UsageError: when the file is missing, or gives no 512 numbers for a square face, or zeros or NaN.
    """

    def __init__(self, path: Path, device: Device = "cpu") -> None:
        from pipeline.models.insightface_models import load_insightface

        self._model = load_insightface(path, "recognition", device)
        self._model.prepare(0 if device == "cuda" else -1)
        self._size_px = int(self._model.input_size[0])
        probe = np.full((self._size_px, self._size_px, 3), 127, np.uint8)
        answer = np.asarray(self._model.get_feat(probe), np.float64)
        shape = answer.shape
        if shape != (1, EMBEDDING_SIZE):
            raise UsageError(
                f"{path} is no ArcFace: it answers a face with {list(shape)}, expected [1, {EMBEDDING_SIZE}] "
                "(InsightFace takes any network with a square input for one)"
            )
        if not _has_direction(answer[0]):
            raise UsageError(f"{path} answers a grey picture with zeros or NaN: fetch or export it again")

    def embed(self, image: Image, points: FivePoints) -> Embedding:
        """The unit embedding of one face.

        Args:
            image: RGB.
            points: eyes (image left first), nose tip, mouth corners, xy in pixels of ``image``.

        Raises:
            NoIdentityError: when the points coincide, or the network answers with zeros or NaN.
        """
        import cv2  # here, since whoever only compares stored embeddings does without

        square = cv2.warpAffine(image, alignment(points, self._size_px), (self._size_px, self._size_px))
        raw = self._model.get_feat(cv2.cvtColor(square, cv2.COLOR_RGB2BGR))[0].astype(np.float64)
        if not _has_direction(raw):
            raise NoIdentityError("the embedding network answered with zeros or NaN")
        return (raw / np.linalg.norm(raw)).astype(np.float32)


def _has_direction(raw: Float[np.ndarray, "512"]) -> bool:
    return bool(np.isfinite(raw).all()) and float(np.linalg.norm(raw)) > _LEAST_LENGTH


def mean_embedding(embeddings: Float[np.ndarray, "T 512"]) -> Embedding:
    """One unit embedding for a clip: the direction of the geometric median of its frames'.

    Up to half of the frames may be of something else (a hand, a blur, another face) before it follows them. By
    Weiszfeld's iteration with the step of Vardi and Zhang (PNAS 97, 2000) where it meets one of the points.

    Args:
        embeddings: unit vectors, one per frame.

    Raises:
        NoIdentityError: when there is none, or they cancel out.
    """
    points = np.asarray(embeddings, np.float64)
    if not len(points):
        raise NoIdentityError("a clip without a single embedding has no identity")
    median = points.mean(axis=0)
    for _ in range(_MAX_STEPS):
        before = median
        median = _step(points, median)
        if np.linalg.norm(median - before) < _SETTLED:
            break
    length = float(np.linalg.norm(median))
    if length < 1e-6:
        raise NoIdentityError("the embeddings of a clip cancel out")
    return (median / length).astype(np.float32)


def _step(points: Float[np.ndarray, "T D"], at: Float[np.ndarray, " D"]) -> Float[np.ndarray, " D"]:
    distance = np.linalg.norm(points - at, axis=1)
    apart = distance > 1e-12
    if not apart.any():
        return at
    weights = 1 / distance[apart]
    target = weights @ points[apart] / weights.sum()
    num_met = len(points) - int(apart.sum())
    if not num_met:
        return target
    pull = float(np.linalg.norm(weights @ (points[apart] - at)))
    stay = min(1.0, num_met / pull) if pull > 0 else 1.0
    return (1 - stay) * target + stay * at
