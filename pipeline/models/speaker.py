"""Light-ASD: does this face make this sound? Its input as its authors made it, and its logits per frame.

Sound goes in as 13 MFCC at 100 Hz and faces as 112 px grey squares at 25 fps: the middle of the square that upstream
cuts around a detected face, which is its lower half (mouth, chin, most of the nose).
"""

import pickle
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from jaxtyping import Float32, Float64, UInt8
from scipy.fft import dct

from pipeline.models.one_thread import one_thread
from schemas.errors import UsageError
from schemas.face import XYXY

if TYPE_CHECKING:
    import torch

FACE_PX = 112
NUM_CEPSTRA = 13
LIGHT_ASD_FPS = 25
_RATE_HZ = 16000
_STEPS_PER_FRAME = 4
# Of the training faces, levels 0 to 1 (upstream).
_MEAN, _SPREAD = 0.4161, 0.1688
# Upstream cuts 1.4 sides of its S3FD box, a fifth of the side below the middle, and keeps the middle half of that: .7
# and .2. With this project's boxes five talkers were told apart a little better by .85 and .15, and nearly as well by
# the whole box.
_SIDE, _DOWN = 0.85, 0.15
_CHUNK_FRAMES = 50  # per pass of the visual encoder: 250 MB

# Davis and Mermelstein's cepstra with the constants of python_speech_features, which the network was trained on.
_WINDOW, _HOP, _FFT, _NUM_FILTERS, _LIFTER, _PRE_EMPHASIS = 400, 160, 512, 26, 22, 0.97


class LightAsd:
    """The published network on the CPU, one thread; stateless between calls.

    Args:
        weights: the state dict as upstream publishes it (``finetuning_TalkSet.model``).

    Raises:
        UsageError: when the file is missing, is no state dict, or is one of another network.
    """

    def __init__(self, weights: Path) -> None:
        import torch

        from pipeline.models.light_asd import LightAsdNetwork

        self._torch = torch
        self._network = LightAsdNetwork()
        _fill(self._network, _state(weights), weights)
        self._network.eval()

    def faces(self, faces: UInt8[np.ndarray, "T 112 112"]) -> Float32[np.ndarray, "T 128"]:
        """What the network sees, per frame.

        A long clip goes through in pieces that overlap by what one frame depends on, so that memory stays flat and
        the numbers are those of one pass.
        """
        from pipeline.models.light_asd import CONTEXT_FRAMES

        torch = self._torch
        pieces = []
        with torch.inference_mode(), one_thread(torch):
            for first in range(0, len(faces), _CHUNK_FRAMES):
                low, high = max(0, first - CONTEXT_FRAMES), first + _CHUNK_FRAMES + CONTEXT_FRAMES
                piece = torch.from_numpy((faces[low:high].astype(np.float32) / 255 - _MEAN) / _SPREAD)
                seen = self._network.faces(piece[None, None])[0]
                pieces.append(seen[first - low : first - low + _CHUNK_FRAMES].numpy())
        return np.concatenate(pieces)

    def sound(self, samples: Float32[np.ndarray, " A"], num_frames: int) -> Float32[np.ndarray, "T 128"]:
        """What the network hears, per video frame; ``samples`` as ``mfcc`` takes them."""
        torch = self._torch
        inputs = torch.from_numpy(mfcc(samples, num_frames).astype(np.float32).T.copy())
        with torch.inference_mode(), one_thread(torch):
            return self._network.sound(inputs[None, None])[0].numpy()

    def logits(
        self, faces: Float32[np.ndarray, "T 128"], sounds: Float32[np.ndarray, "B T 128"]
    ) -> Float32[np.ndarray, "B T"]:
        """Logit of "this face speaks" per frame, for one face with each of B sounds."""
        torch = self._torch
        seen = torch.from_numpy(faces)[None].expand(len(sounds), -1, -1)
        with torch.inference_mode(), one_thread(torch):
            return self._network.speaking(seen, torch.from_numpy(sounds)).numpy()


def lower_face(crop: UInt8[np.ndarray, "H W 3"], box: XYXY) -> UInt8[np.ndarray, "112 112"]:
    """The network's view of a face, grey; what lies beyond the picture repeats its edge.

    Args:
        crop: RGB.
        box: the face on it, brows or hairline to chin, xyxy in pixels.
    """
    side = max(box[2] - box[0], box[3] - box[1])
    middle_x, middle_y = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2 + _DOWN * side
    scale = FACE_PX / max(_SIDE * side, 1.0)
    shift = FACE_PX / 2 - scale * np.array([middle_x, middle_y])
    gray = cv2.cvtColor(crop, cv2.COLOR_RGB2GRAY)
    if scale < 0.5:  # bilinear sampling would skip pixels
        shrunk = cv2.resize(gray, None, fx=2 * scale, fy=2 * scale, interpolation=cv2.INTER_AREA)
        return np.asarray(_cut(shrunk, 0.5, shift), np.uint8)
    return np.asarray(_cut(gray, scale, shift), np.uint8)


def _cut(gray: np.ndarray, scale: float, shift: np.ndarray) -> np.ndarray:
    matrix = np.array([[scale, 0.0, shift[0]], [0.0, scale, shift[1]]])
    return cv2.warpAffine(gray, matrix, (FACE_PX, FACE_PX), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)


def mfcc(samples: Float32[np.ndarray, " A"], num_frames: int) -> Float64[np.ndarray, "N 13"]:
    """Cepstra of 16 kHz sound at 100 Hz, N = 4 T, exactly four per video frame; the first one is the log energy.

    Rectangular windows of 25 ms every 10 ms, pre-emphasis .97, 26 triangles on the mel scale between whole FFT bins,
    natural log, orthonormal DCT-II, sine lifter 22: python_speech_features' defaults. The end is padded with silence.

    Args:
        samples: mono, -1 to 1, from the first frame's time; 640 per video frame.
        num_frames: T.
    """
    num_steps = _STEPS_PER_FRAME * num_frames
    # The published features are of 16-bit numbers.
    signal = np.zeros((num_steps - 1) * _HOP + _WINDOW)
    kept = min(len(samples), len(signal))
    signal[:kept] = np.round(samples[:kept].astype(np.float64) * 32768)
    emphasised = np.append(signal[0], signal[1:] - _PRE_EMPHASIS * signal[:-1])
    blocks = np.lib.stride_tricks.sliding_window_view(emphasised, _WINDOW)[::_HOP]
    power = np.square(np.abs(np.fft.rfft(blocks, _FFT))) / _FFT
    tiny = np.finfo(float).eps
    energy, bands = power.sum(axis=1), power @ _filters().T
    log_bands = np.log(np.where(bands == 0, tiny, bands))
    cepstra = np.asarray(dct(log_bands, type=2, axis=1, norm="ortho"))[:, :NUM_CEPSTRA]
    cepstra *= 1 + _LIFTER / 2 * np.sin(np.pi * np.arange(NUM_CEPSTRA) / _LIFTER)
    cepstra[:, 0] = np.log(np.where(energy == 0, tiny, energy))
    return cepstra


@lru_cache(maxsize=1)
def _filters() -> Float64[np.ndarray, "26 257"]:
    top = 2595 * np.log10(1 + _RATE_HZ / 2 / 700)
    edges_hz = 700 * (10 ** (np.linspace(0, top, _NUM_FILTERS + 2) / 2595) - 1)
    edges = np.floor((_FFT + 1) * edges_hz / _RATE_HZ)
    bins = np.arange(_FFT // 2 + 1)
    low, peak, high = edges[:-2, None], edges[1:-1, None], edges[2:, None]
    rising, falling = (bins - low) / (peak - low), (high - bins) / (high - peak)
    return np.where((low <= bins) & (bins < peak), rising, np.where((peak <= bins) & (bins < high), falling, 0.0))


def _state(weights: Path) -> dict[str, "torch.Tensor"]:
    import torch

    get = "fetch it again, or name the file that Light-ASD publishes as finetuning_TalkSet.model"
    try:
        state: Any = torch.load(weights, weights_only=True, map_location="cpu")
    except FileNotFoundError as error:
        raise UsageError(f"Light-ASD: the weights file {weights} is not there: {get}") from error
    except (OSError, RuntimeError, EOFError, ValueError, pickle.UnpicklingError) as error:
        raise UsageError(f"Light-ASD: {weights} is no readable PyTorch state dict: {get}") from error
    if not isinstance(state, dict) or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise UsageError(f"Light-ASD: {weights} is no state dict of tensors: {get}")
    return state


def _fill(network: Any, state: dict[str, "torch.Tensor"], weights: Path) -> None:
    wanted = {name: tuple(value.shape) for name, value in network.state_dict().items()}
    shapes = {name: tuple(value.shape) for name, value in state.items()}
    wrong = sorted(name for name in wanted.keys() | shapes.keys() if wanted.get(name) != shapes.get(name))
    if wrong:
        raise UsageError(
            f"Light-ASD: {weights} holds another network: {len(wrong)} of {len(wanted)} tensors differ, such as "
            f"{wrong[0]} (expected {wanted.get(wrong[0], 'none')}, found {shapes.get(wrong[0], 'none')}); "
            "name the file that Light-ASD publishes as finetuning_TalkSet.model"
        )
    network.load_state_dict(state)
