"""Run a face detector that a user brings as an ONNX file.

Nothing in such a file says what its outputs mean, and a wrong guess still gives boxes. So the layout is
named in the configuration, and the network is shown a picture once, when it is loaded: what it answers must have
the shapes of that layout and scores that can be scores.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from jaxtyping import Float, Float32

from pipeline.models.detectors import BgrImage, FaceBox
from pipeline.models.onnx_session import ONNX_ERRORS, Device, open_session
from schemas.detectors import OnnxDetectorConfig
from schemas.errors import UsageError

Outputs = Mapping[str, Float[np.ndarray, "..."]]
STRIDES = (8, 16, 32)
_SCRFD_ANCHORS = 2
# A logistic may round to a hair above 1.
_SCORE_TOLERANCE = 1e-3


@dataclass(frozen=True, slots=True)
class Candidates:
    """Boxes before suppression: xyxy in pixels of the network's input [N, 4], and their scores [N].

    ``score_range`` is the lowest and highest number that the network itself calls a score.
    """

    boxes: Float[np.ndarray, "N 4"]
    scores: Float[np.ndarray, " N"]
    score_range: tuple[float, float]


class LayoutError(ValueError):
    """The outputs are not those of the layout; the message says what was expected and found."""


class OnnxDetector:
    """A user's own detector behind the project's interface.

    Args:
        name: the one its faces bear.
        config: the file, its input and the layout of its outputs.
        min_score: inclusive.
        device: where it runs.

    Raises:
        UsageError: when the file cannot be run, or its answer to a probe picture does not fit ``config``.
    """

    dense = False  # how long it takes is not known

    def __init__(self, name: str, config: OnnxDetectorConfig, min_score: float, device: Device = "cpu") -> None:
        self.name = name
        self._config = config
        self._min_score = min_score
        self._session = open_session(Path(config.path), device)
        self._input = self._session.get_inputs()[0].name
        self._outputs = [output.name for output in self._session.get_outputs()]
        self._decode = _LAYOUTS[config.layout]
        self._probe()

    def detect(self, image: BgrImage) -> list[FaceBox]:
        """All faces from ``min_score``, best first. ``image`` is BGR."""
        blob, scale = self._blob(image)
        candidates = self._decode(self._run(blob), self._size())
        strong = candidates.scores >= self._min_score
        boxes, scores = candidates.boxes[strong], candidates.scores[strong]
        corner_size = np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], axis=1)
        kept = cv2.dnn.NMSBoxes(corner_size.tolist(), scores.tolist(), 0.0, self._config.max_iou)
        faces = [FaceBox(self._grown(boxes[k] / scale), float(scores[k])) for k in np.ravel(kept).astype(int)]
        return sorted(faces, key=lambda face: (-face.score, face.box))

    def _size(self) -> tuple[int, int]:
        return self._config.width_px, self._config.height_px

    def _blob(self, image: BgrImage) -> tuple[Float32[np.ndarray, "1 3 H W"], float]:
        """The picture in the input's top left corner, padded with black, and how much it was scaled."""
        config = self._config
        height, width = image.shape[:2]
        scale = min(config.width_px / width, config.height_px / height)
        size = (
            min(config.width_px, max(1, round(width * scale))),
            min(config.height_px, max(1, round(height * scale))),
        )
        canvas = np.zeros((config.height_px, config.width_px, 3), np.uint8)
        how = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
        canvas[: size[1], : size[0]] = cv2.resize(image, size, interpolation=how)
        swap = config.channels == "rgb"
        return cv2.dnn.blobFromImage(canvas, config.scale, mean=config.mean, swapRB=swap), scale

    def _run(self, blob: Float32[np.ndarray, "1 3 H W"]) -> Outputs:
        answers: Any = self._session.run(self._outputs, {self._input: blob})
        return dict(zip(self._outputs, answers, strict=True))

    def _grown(self, box: Float[np.ndarray, " 4"]) -> tuple[float, float, float, float]:
        x0, y0, x1, y1 = (float(edge) for edge in box)
        sides, height = self._config.grow_sides * (x1 - x0), y1 - y0
        return x0 - sides, y0 - self._config.grow_top * height, x1 + sides, y1 + self._config.grow_bottom * height

    def _probe(self) -> None:
        width, height = self._size()
        where = f"the detector {self.name!r} ({self._config.path})"
        try:
            candidates = self._decode(self._run(self._blob(_probe_picture(width, height))[0]), (width, height))
        except ONNX_ERRORS as error:
            reason = str(error).split("\n", maxsplit=1)[0][:200]
            raise UsageError(
                f"{where} does not take a picture of {width}×{height} ({reason}): "
                "set width_px and height_px to what it was exported with"
            ) from error
        except LayoutError as error:
            raise UsageError(
                f"{where} does not fit the layout {self._config.layout!r} at {width}×{height}: {error}; "
                "set layout, width_px and height_px to what it was exported with"
            ) from error
        if not (np.isfinite(candidates.boxes).all() and np.isfinite(candidates.scores).all()):
            raise UsageError(
                f"{where} answers a plain picture with NaN or infinity: check mean and scale, or its export"
            )
        low, high = candidates.score_range
        if low < -_SCORE_TOLERANCE or high > 1 + _SCORE_TOLERANCE:
            raise UsageError(
                f"{where} gives scores from {low:.3g} to {high:.3g}, expected 0 to 1: "
                f"export it with the logistic at its end, or choose another layout than {self._config.layout!r}"
            )


def _probe_picture(width: int, height: int) -> BgrImage:
    """Colours that run across the picture: nothing to find, but no two cells see the same."""
    y, x = np.mgrid[0:height, 0:width]
    return np.stack([x * 255 // width, y * 255 // height, (x + y) * 255 // (width + height)], axis=-1).astype(np.uint8)


def _centres(width: int, height: int, stride: int, anchors: int = 1) -> Float[np.ndarray, "N 2"]:
    """Corner (x, y) of every cell in pixels, row by row, each repeated per anchor."""
    y, x = np.mgrid[0 : height // stride, 0 : width // stride]
    return np.repeat(np.stack([x, y], axis=-1).reshape(-1, 2) * float(stride), anchors, axis=0)


def _yunet(outputs: Outputs, size: tuple[int, int]) -> Candidates:
    """Score = sqrt(class x object); centres in strides from the cell's corner, sizes as exponents (Wu et al. 2023)."""
    boxes, scores, named = [], [], []
    for stride in STRIDES:
        corner = _centres(*size, stride)
        raw = [_named(outputs, f"{kind}_{stride}", len(corner), columns) for kind, columns in _YUNET_COLUMNS.items()]
        box = raw[2].astype(np.float64)
        centre = corner + box[:, :2] * stride
        half = np.exp(box[:, 2:]) * stride / 2
        boxes.append(np.concatenate([centre - half, centre + half], axis=1))
        named += raw[:2]
        scores.append(np.sqrt(np.clip(raw[0][:, 0], 0, 1) * np.clip(raw[1][:, 0], 0, 1)))
    return Candidates(np.concatenate(boxes), np.concatenate(scores).astype(np.float64), _range(*named))


_YUNET_COLUMNS = {"cls": 1, "obj": 1, "bbox": 4}


def _range(*parts: Float[np.ndarray, "..."]) -> tuple[float, float]:
    return min(float(part.min()) for part in parts), max(float(part.max()) for part in parts)


def _named(outputs: Outputs, name: str, num_rows: int, num_columns: int) -> Float[np.ndarray, "N C"]:
    if name not in outputs:
        raise LayoutError(f"expected an output {name}, found {', '.join(outputs)}")
    output = outputs[name]
    if output.size != num_rows * num_columns or output.shape[-1] != num_columns:
        raise LayoutError(f"expected {name} of [{num_rows}, {num_columns}], found {list(output.shape)}")
    return output.reshape(num_rows, num_columns)


def _scrfd(outputs: Outputs, size: tuple[int, int]) -> Candidates:
    """Distances of the four edges from the cell's corner, in strides (Guo et al. 2021; InsightFace's files)."""
    boxes, scores = [], []
    for stride in STRIDES:
        corner = _centres(*size, stride, _SCRFD_ANCHORS)
        score, edges = _shaped(outputs, len(corner), 1), _shaped(outputs, len(corner), 4).astype(np.float64) * stride
        boxes.append(np.concatenate([corner - edges[:, :2], corner + edges[:, 2:]], axis=1))
        scores.append(score[:, 0].astype(np.float64))
    return Candidates(np.concatenate(boxes), np.concatenate(scores), _range(*scores))


def _shaped(outputs: Outputs, num_rows: int, num_columns: int) -> Float[np.ndarray, "N C"]:
    """The one output of this shape: exporters give these no names."""
    size = num_rows * num_columns
    fitting = [output for output in outputs.values() if output.shape[-1:] == (num_columns,) and output.size == size]
    if len(fitting) != 1:
        shapes = ", ".join(str(list(output.shape)) for output in outputs.values())
        raise LayoutError(f"expected one output of [{num_rows}, {num_columns}], found {shapes}")
    return fitting[0].reshape(num_rows, num_columns)


def _yolo_face(outputs: Outputs, size: tuple[int, int]) -> Candidates:
    """Rows of centre x, y, width, height and score, in pixels of the input (Ultralytics' export of one class)."""
    width, height = size
    num_cells = sum((width // stride) * (height // stride) for stride in STRIDES)
    shapes = ", ".join(str(list(output.shape)) for output in outputs.values())
    rows = next(iter(outputs.values()))
    if len(outputs) != 1 or rows.ndim != 3 or rows.shape[0] != 1 or rows.shape[1] < 5 or rows.shape[2] != num_cells:
        raise LayoutError(f"expected one output of [1, 5 or more, {num_cells}], found {shapes}")
    centre, half = rows[0, :2].T.astype(np.float64), rows[0, 2:4].T.astype(np.float64) / 2
    boxes = np.concatenate([centre - half, centre + half], axis=1)
    return Candidates(boxes, rows[0, 4].astype(np.float64), _range(rows[0, 4]))


_LAYOUTS: dict[str, Callable[[Outputs, tuple[int, int]], Candidates]] = {
    "yunet": _yunet,
    "scrfd": _scrfd,
    "yolo_face": _yolo_face,
}
