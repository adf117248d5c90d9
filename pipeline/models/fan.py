"""FAN, the face alignment network (Bulat and Tzimiropoulos, ICCV 2017), from the package face-alignment.

Only the package's networks and its crop are used. Its own class fetches weights and a detector when it is made, reads
one weights file with pickle, sends one face at a time through the network, and cuts the points to whole pixels.

No real FAN weights were at hand: everything here was run against random stand-ins with the real layout, and agrees
with the package's own class to the pixel that it cuts off. Accuracy was not measured.

Weights come as state dicts (version 1.5 of the package: ``2DFAN4-….pth.tar``), which are read as plain tensors, or as
TorchScript archives (until 1.4: ``2DFAN4-….zip``). An archive is a program, which loading it runs: one is loaded
only if its SHA-256 is among those that the caller vouches for.
"""

import zipfile
from collections.abc import Collection, Iterable, Iterator
from itertools import islice
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import numpy as np
from jaxtyping import Float32

from pipeline.models.landmarkers import Image, Landmarker
from pipeline.models.layouts import IBUG_68, FacePoints, with_depth
from pipeline.models.one_thread import one_thread
from pipeline.models.torch_device import check_torch_device
from schemas.errors import UsageError
from schemas.extras import install_command
from schemas.face import XYXY
from schemas.files import sha256_of_file
from schemas.models import Device

# Of the package: side of the crop and of the heat maps, and pixels of the picture per unit of its "scale".
_CROP_PX, _MAP_PX, _UNIT_PX = 256, 64, 200.0
# The crop of a box: its side is 200/195 of width plus height, its centre lies .12 of the height above the box's. The
# package's detectors draw boxes as WIDER FACE does, forehead to chin, much as ours: taken over as they are.
_REFERENCE, _RAISED = 195.0, 0.12


class FaceAlignment68(Landmarker):
    """FAN's 68 points in the picture, or in 3-D with the network for depth; reads several frames at once.

    A point's certainty is the height of its heat map, 0 to 1; the frame's confidence is their mean.

    Args:
        points: the weights of 2DFAN or, with ``depth``, of 3DFAN.
        depth: the weights of the network for depth; without it points get the average face's depth.
        min_confidence: below it there is no face.
        trusted: SHA-256 of TorchScript archives that may be run.
        batch_size: frames read at once.
        device: where the networks run.

    Raises:
        UsageError: when the package, a file or the device is missing, a file is not a network of this kind, or it is
            an archive nobody vouches for.
    """

    scheme = "ibug68"
    layout = IBUG_68

    def __init__(
        self,
        points: Path,
        depth: Path | None = None,
        *,
        min_confidence: float = 0.5,
        trusted: Collection[str] = (),
        batch_size: int = 8,
        device: Device = "cpu",
    ) -> None:
        try:
            import torch
            from face_alignment.models import FAN, ResNetDepth
        except ImportError as error:
            raise UsageError(
                f"the landmarker FAN needs the package {error.name}: {install_command('standard')}"
            ) from error
        self._torch = torch
        check_torch_device(torch, device, "landmarks.fan_device")
        self._device = device
        self._points = _network(points, trusted, lambda weights: FAN(_num_modules(weights))).to(self._device)
        self._depth = _network(depth, trusted, lambda _: ResNetDepth()).to(self._device) if depth else None
        self._min_confidence = min_confidence
        self._batch_size = batch_size

    def reset(self) -> None:
        """Nothing is remembered."""

    def locate(self, image: Image, box: XYXY) -> FacePoints | None:
        """Find the face in ``box`` (xyxy pixels, hairline to chin) of an RGB image."""
        return self._read([image], [box])[0]

    def locate_each(self, images: Iterable[Image], boxes: Iterable[XYXY]) -> Iterator[FacePoints | None]:
        """Find the face in every frame; holds no more than ``batch_size`` of them.

        Raises:
            ValueError: for more boxes than images, or more images than boxes.
        """
        pairs = zip(images, boxes, strict=True)
        while batch := list(islice(pairs, self._batch_size)):
            yield from self._read([image for image, _ in batch], [box for _, box in batch])

    def _read(self, images: list[Image], boxes: list[XYXY]) -> list[FacePoints | None]:
        from face_alignment.utils import crop, flip

        torch, squares = self._torch, [_square(box) for box in boxes]
        crops = np.stack([crop(image, centre, scale) for image, (centre, scale) in zip(images, squares, strict=True)])
        blob = torch.from_numpy(crops.transpose(0, 3, 1, 2).astype(np.float32) / 255).to(self._device)
        with one_thread(torch), torch.no_grad():
            maps = _last(self._points(blob)) + flip(_last(self._points(flip(blob))), is_label=True)
            maps = (maps / 2).float().cpu().numpy()
            local = np.stack([_peaks(heatmaps) for heatmaps in maps])
            depths = None if self._depth is None else self._depths(blob, local)
        faces: list[FacePoints | None] = []
        for number, (centre, scale) in enumerate(squares):
            certainty = np.clip(maps[number].max(axis=(1, 2)), 0, 1).astype(np.float32)
            if certainty.mean() < self._min_confidence:
                faces.append(None)
                continue
            zoom = _UNIT_PX * scale / _MAP_PX
            # Half a pixel is what the package's cutting to whole pixels takes off on average.
            xy = (local[number] - _MAP_PX / 2) * zoom + centre - 0.5
            if depths is None:
                points = with_depth(xy, IBUG_68)
            else:
                depth = depths[number] * (_UNIT_PX * scale / _CROP_PX)
                points = np.concatenate([xy, (depth - depth[IBUG_68.rigid].mean())[:, None]], axis=1)
            faces.append(FacePoints(points.astype(np.float32), float(certainty.mean()), certainty))
        return faces

    def _depths(self, blob: Any, local: Float32[np.ndarray, "N 68 2"]) -> Float32[np.ndarray, "N 68"]:
        """The network for depth sees the crop and a spot per point."""
        from face_alignment.utils import draw_gaussian

        spots = np.zeros((len(local), IBUG_68.num_points, _CROP_PX, _CROP_PX), np.float32)
        for number, points in enumerate(local * (_CROP_PX / _MAP_PX)):
            for point, spot in enumerate(points):
                if (spot > 0).all():
                    spots[number, point] = draw_gaussian(spots[number, point], spot, 2)
        seen = self._torch.cat((blob, self._torch.from_numpy(spots).to(self._device)), 1)
        return self._depth(seen).float().cpu().numpy() if self._depth is not None else np.zeros(local.shape[:2])


def _square(box: XYXY) -> tuple[np.ndarray, float]:
    """Centre and "scale" of the package's crop."""
    x0, y0, x1, y1 = box
    return np.array([(x0 + x1) / 2, (y0 + y1) / 2 - _RAISED * (y1 - y0)]), (x1 - x0 + y1 - y0) / _REFERENCE


def _peaks(maps: Float32[np.ndarray, "68 64 64"]) -> Float32[np.ndarray, "68 2"]:
    """Where each heat map is highest, in its pixels with the corner at 0, a quarter towards the higher neighbour.

    The package's own function is compiled when it is first called, which costs every process seconds.
    """
    row, column = np.divmod(maps.reshape(len(maps), -1).argmax(axis=1), maps.shape[2])
    peaks = np.stack([column, row], axis=1).astype(np.float32) + 0.5
    inside = (column > 0) & (column < _MAP_PX - 1) & (row > 0) & (row < _MAP_PX - 1)
    each, x, y = np.flatnonzero(inside), column[inside], row[inside]
    peaks[each, 0] += 0.25 * np.sign(maps[each, y, x + 1] - maps[each, y, x - 1])
    peaks[each, 1] += 0.25 * np.sign(maps[each, y + 1, x] - maps[each, y - 1, x])
    return peaks


def _last(output: Any) -> Any:
    """The last of the stacked hourglasses; archives give it alone."""
    return output[-1] if isinstance(output, list | tuple) else output


def _num_modules(weights: dict[str, Any]) -> int:
    return max(1, sum(name.startswith("conv_last") and name.endswith(".weight") for name in weights))


def _network(path: Path, trusted: Collection[str], make: Any) -> Any:
    """A network with the weights of a file, ready to read.

    Raises:
        UsageError: saying which file is missing, not trusted, or of another network.
    """
    import torch

    if not path.is_file():
        raise UsageError(f"the weights of the landmarker FAN are not at {path}: put the file there")
    if _is_program(path):
        digest = sha256_of_file(path)
        if digest not in trusted:
            raise UsageError(
                f"{path} is a TorchScript archive, which is a program, and nobody vouches for its SHA-256 "
                f"{digest[:12]}…: use the file that the registry of weights names, or its state dict (.pth.tar)"
            )
        return torch.jit.load(str(path), map_location="cpu").eval()
    try:
        weights = torch.load(path, map_location="cpu", weights_only=True)
        weights = {name.removeprefix("module."): value for name, value in weights.get("state_dict", weights).items()}
        network = make(weights)
        network.load_state_dict(weights)
    except (RuntimeError, UnpicklingError, EOFError, AttributeError, KeyError) as error:
        raise UsageError(
            f"{path} does not hold the weights of FAN as face-alignment publishes them: expected a state dict of "
            f"{'its network' if isinstance(error, RuntimeError) else 'plain tensors'}"
        ) from error
    return network.eval()


def _is_program(path: Path) -> bool:
    """Whether a file is a TorchScript archive: a zip with code in it."""
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any("/code/" in name or name.endswith("/constants.pkl") for name in archive.namelist())
