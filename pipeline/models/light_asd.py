"""The network of Light-ASD, in plain torch, with the tensor names of its published weights.

Liao et al., "A Light Weight Model for Active Speaker Detection", CVPR 2023: two encoders whose 3-D (2-D for sound)
convolutions are divided into one over space (or mel bands) and one over time, in two widths side by side; their sum
goes through a forward and then a backward GRU. Written from the paper and the shapes of the weights.
"""

from typing import Any

from torch import Tensor, nn
from torch.nn import functional

_WIDTHS = (32, 64, 128)
_EPS = 1e-3  # of every batch normalisation
CONTEXT_FRAMES = 6  # that a visual embedding sees on each side: two per block


class _Block(nn.Module):
    """Paths of width 3 and 5, each over one axis and then over time; their sum is mixed by a convolution of width 1.

    Tensor names begin with ``s`` (space) or ``m`` (mel bands) for the first axis and ``t`` for time.
    """

    def __init__(self, axis: str, width_in: int, width: int, *, halve: bool = False) -> None:
        super().__init__()
        visual = axis == "s"
        conv: Any = nn.Conv3d if visual else nn.Conv2d
        norm: Any = nn.BatchNorm3d if visual else nn.BatchNorm2d
        self._axis = axis
        stride = (1, 2, 2) if halve else 1
        for size in (3, 5):
            half = size // 2
            across = ((1, size, size), (0, half, half)) if visual else ((size, 1), (half, 0))
            along = ((size, 1, 1), (half, 0, 0)) if visual else ((1, size), (0, half))
            self.add_module(f"{axis}_{size}", conv(width_in, width, across[0], stride, across[1], bias=False))
            self.add_module(f"bn_{axis}_{size}", norm(width, eps=_EPS))
            self.add_module(f"t_{size}", conv(width, width, along[0], 1, along[1], bias=False))
            self.add_module(f"bn_t_{size}", norm(width, eps=_EPS))
        self.last = conv(width, width, 1, bias=False)
        self.bn_last = norm(width, eps=_EPS)

    def forward(self, x: Tensor) -> Tensor:
        return functional.relu(self.bn_last(self.last(self._path(x, 3) + self._path(x, 5))))

    def _path(self, x: Tensor, size: int) -> Tensor:
        for name in (f"{self._axis}_{size}", f"t_{size}"):
            x = functional.relu(self.get_submodule(f"bn_{name}")(self.get_submodule(name)(x)))
        return x


class _Encoder(nn.Module):
    def __init__(self, axis: str) -> None:
        super().__init__()
        first, second, third = _WIDTHS
        self.block1 = _Block(axis, 1, first, halve=axis == "s")
        self.block2 = _Block(axis, first, second)
        self.block3 = _Block(axis, second, third)

    def pooled(self, x: Tensor, size: tuple[int, ...], stride: tuple[int, ...], padding: tuple[int, ...]) -> Tensor:
        pool: Any = functional.max_pool3d if x.ndim == 5 else functional.max_pool2d
        x = pool(self.block1(x), size, stride, padding)
        return self.block3(pool(self.block2(x), size, stride, padding))


class VisualEncoder(_Encoder):
    """[1, 1, T, 112, 112] normalised grey faces to [1, T, 128]."""

    def __init__(self) -> None:
        super().__init__("s")

    def forward(self, faces: Tensor) -> Tensor:  # noqa: D102
        features = self.pooled(faces, (1, 3, 3), (1, 2, 2), (0, 1, 1))
        return features.amax(dim=(3, 4)).transpose(1, 2)


class AudioEncoder(_Encoder):
    """[1, 1, 13, 4T] MFCC to [1, T, 128]: two poolings bring 100 Hz to 25 Hz."""

    def __init__(self) -> None:
        super().__init__("m")

    def forward(self, mfcc: Tensor) -> Tensor:  # noqa: D102
        features = self.pooled(mfcc, (1, 3), (1, 2), (0, 1))
        return features.mean(dim=2).transpose(1, 2)


class _Passes(nn.Module):
    """A GRU forward in time, then one backward over what it gave."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.gru_forward = nn.GRU(width, width, batch_first=True)
        self.gru_backward = nn.GRU(width, width, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.gelu(self.gru_forward(x)[0]).flip(1)
        return functional.gelu(self.gru_backward(x)[0].flip(1))


class _Fusion(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.visualEncoder = VisualEncoder()
        self.audioEncoder = AudioEncoder()
        self.GRU = _Passes(_WIDTHS[-1])


class _Head(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.FC = nn.Linear(_WIDTHS[-1], 2)


class LightAsdNetwork(nn.Module):
    """The whole network under the names of the published weights; ``lossV`` is a head that only training uses."""

    def __init__(self) -> None:
        super().__init__()
        self.model = _Fusion()
        self.lossAV = _Head()
        self.lossV = _Head()

    def faces(self, faces: Tensor) -> Tensor:
        """[1, 1, T, 112, 112] to [1, T, 128]."""
        return self.model.visualEncoder(faces)

    def sound(self, mfcc: Tensor) -> Tensor:
        """[1, 1, 13, 4T] to [1, T, 128]."""
        return self.model.audioEncoder(mfcc)

    def speaking(self, faces: Tensor, sounds: Tensor) -> Tensor:
        """Logit of "speaks" per frame, [B, T], of embeddings [B, T, 128]."""
        return self.lossAV.FC(self.model.GRU(faces + sounds))[..., 1]
