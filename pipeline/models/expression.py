"""Expression networks: AffectNet's eight classes from a face, by a file of weights.

Two forms are read: ``.safetensors`` of torchvision's ResNet-50 with eight outputs, and ``.onnx`` of any network with
one picture in and two arrays out, the logits and the features before them.
"""

from pathlib import Path
from typing import Any, Protocol

import cv2
import numpy as np
from jaxtyping import Float32, UInt8

from pipeline.models.one_thread import one_thread
from pipeline.models.torch_device import check_torch_device
from schemas.errors import UsageError
from schemas.expression import EMOTIONS, ExpressionInput
from schemas.face import XYXY
from schemas.models import Device

Pictures = Float32[np.ndarray, "N 3 S S"]
Found = tuple[Float32[np.ndarray, "N 8"], Float32[np.ndarray, "N D"]]


class _Network(Protocol):
    def __call__(self, pictures: Pictures) -> Found:
        """Logits in the network's own order, and features."""
        ...


class ExpressionNetwork:
    """One expression network; stateless between calls, one thread on the CPU.

    Args:
        weights: the ``.safetensors`` or ``.onnx`` file.
        given: how pictures are made and in which order the classes come out.
        device: where it runs.

    Raises:
        UsageError: when the file or the device is missing, of another form, or holds another network.
    """

    def __init__(self, weights: Path, given: ExpressionInput, device: Device = "cpu") -> None:
        if not weights.is_file():
            raise UsageError(f"expression: the weights file {weights} is not there: set expression.weights to a file")
        if weights.suffix not in _FORMS:
            raise UsageError(f"expression: {weights} is neither {' nor '.join(sorted(_FORMS))}: convert it to one")
        self.given = given
        self._network: _Network = _FORMS[weights.suffix](weights, given.size_px, device)
        self._order = [given.classes.index(name) for name in EMOTIONS]

    def look(self, pictures: Pictures) -> Found:
        """Logits in the order of ``EMOTIONS`` and features of prepared pictures."""
        logits, features = self._network(pictures)
        return np.ascontiguousarray(logits[:, self._order]), features


def prepare(crop: UInt8[np.ndarray, "H W 3"], face: XYXY, given: ExpressionInput) -> Float32[np.ndarray, "3 S S"]:
    """The network's view of a face: exactly what ``ExpressionInput`` says.

    Args:
        crop: RGB.
        face: the clip's one face box on it, xyxy in pixels.
        given: scale, size, mean and spread.
    """
    height, width = crop.shape[:2]
    half = given.scale * max(face[2] - face[0], face[3] - face[1]) / 2
    middle_x, middle_y = (face[0] + face[2]) / 2, (face[1] + face[3]) / 2
    x0, y0 = max(0, round(middle_x - half)), max(0, round(middle_y - half))
    x1, y1 = min(width, round(middle_x + half)), min(height, round(middle_y + half))
    part = crop[y0:y1, x0:x1] if x1 > x0 and y1 > y0 else crop
    levels = part.astype(np.float32) / 255
    scaled = cv2.resize(levels, (given.size_px, given.size_px), interpolation=cv2.INTER_LINEAR)
    normal = (scaled - np.array(given.mean, np.float32)) / np.array(given.spread, np.float32)
    return np.ascontiguousarray(normal.transpose(2, 0, 1), np.float32)


class _ResNet:
    def __init__(self, weights: Path, size_px: int, device: Device) -> None:
        del size_px  # it pools over whatever comes
        import torch
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        from pipeline.models.resnet import ResNet50

        try:
            state = load_file(weights)
        except SafetensorError as error:
            raise UsageError(f"expression: {weights} is no readable safetensors file: fetch it again") from error
        self._torch = torch
        network = ResNet50(len(EMOTIONS))
        wanted = {name: tuple(value.shape) for name, value in network.state_dict().items()}
        shapes = {name: tuple(value.shape) for name, value in state.items()}
        # Counters that only training reads; files that were converted often lack them.
        names = {name for name in wanted.keys() | shapes.keys() if not name.endswith("num_batches_tracked")}
        wrong = sorted(name for name in names if wanted.get(name) != shapes.get(name))
        if wrong:
            raise UsageError(
                f"expression: {weights} is no ResNet-50 with {len(EMOTIONS)} outputs under torchvision's names: "
                f"{len(wrong)} tensors differ, such as {wrong[0]} (expected {wanted.get(wrong[0], 'none')}, "
                f"found {shapes.get(wrong[0], 'none')})"
            )
        network.load_state_dict(state, strict=False)
        check_torch_device(torch, device, "expression.device")
        self._device = device
        self._network = network.float().eval().to(self._device)

    def __call__(self, pictures: Pictures) -> Found:
        torch = self._torch
        with torch.inference_mode(), one_thread(torch):
            logits, features = self._network(torch.from_numpy(pictures).to(self._device))
        return logits.cpu().numpy(), features.cpu().numpy()


class _Onnx:
    def __init__(self, weights: Path, size_px: int, device: Device) -> None:
        from pipeline.models.onnx_session import open_session

        self._session = open_session(weights, device)
        inputs, outputs = self._session.get_inputs(), self._session.get_outputs()
        self._input = inputs[0].name
        shapes = [output.shape for output in outputs]
        logits = [index for index, shape in enumerate(shapes) if len(shape) == 2 and shape[1] == len(EMOTIONS)]
        pictured = len(inputs) == 1 and len(inputs[0].shape) == 4 and inputs[0].shape[1] == 3
        sized = pictured and all(side == size_px or not isinstance(side, int) for side in inputs[0].shape[2:])
        free = pictured and not isinstance(inputs[0].shape[0], int)
        if not (sized and free and len(outputs) == 2 and len(logits) == 1 and all(len(shape) == 2 for shape in shapes)):
            raise UsageError(
                f"expression: {weights} takes {[given.shape for given in inputs]} and gives {shapes}, expected one "
                f"[N, 3, {size_px}, {size_px}] and two, the logits [N, {len(EMOTIONS)}] and the features [N, D]: "
                "export it with both outputs and a free number of pictures"
            )
        self._logits = logits[0]

    def __call__(self, pictures: Pictures) -> Found:
        answers: Any = self._session.run(None, {self._input: pictures})
        outputs = [np.asarray(answer, np.float32) for answer in answers]
        return outputs[self._logits], outputs[1 - self._logits]


_FORMS: dict[str, Any] = {".safetensors": _ResNet, ".onnx": _Onnx}
