"""Networks that judge and are never trained, with torchvision's tensor names.

Only the layers that are looked at are built; what a file has beyond them is named in ``UNUSED``.
"""

from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_SPREAD = (0.229, 0.224, 0.225)


class _Tapped(nn.Module):
    """Pictures in [0, 1] to the features after some layers of ``features``."""

    mean: Tensor
    spread: Tensor
    UNUSED: ClassVar[tuple[str, ...]] = ()
    MIN_PX: ClassVar[int] = 16

    def __init__(self, layers: Sequence[nn.Module], taps: Sequence[int]) -> None:
        super().__init__()
        self.taps = tuple(taps)
        self.features = nn.Sequential(*layers)
        for name, values in (("mean", IMAGENET_MEAN), ("spread", IMAGENET_SPREAD)):
            self.register_buffer(name, torch.tensor(values).view(3, 1, 1), persistent=False)

    def forward(self, pictures: Float[Tensor, "B 3 H W"]) -> list[Float[Tensor, "B C h w"]]:
        """Features after every tapped layer, first to last."""
        x, taps = (pictures - self.mean) / self.spread, []
        for index, layer in enumerate(self.features):
            x = layer(x)
            if index in self.taps:
                taps.append(x)
        return taps


class Vgg19(_Tapped):
    """VGG19 up to relu5_1 (Simonyan and Zisserman, 2015), tapped after the first ReLU of each of its five groups."""

    UNUSED = ("features.30.", "features.32.", "features.34.", "classifier.")

    def __init__(self) -> None:
        layers: list[nn.Module] = []
        width = 3
        for group, count in enumerate((2, 2, 4, 4, 1)):
            layers += [nn.MaxPool2d(2)] if group else []
            for _ in range(count):
                wider = min(64 << group, 512)
                layers += [nn.Conv2d(width, wider, 3, padding=1), nn.ReLU()]
                width = wider
        super().__init__(layers, (1, 6, 11, 20, 29))


class AlexNet(_Tapped):
    """The convolutions of AlexNet (Krizhevsky, 2014, one column), tapped after each ReLU as LPIPS has it."""

    UNUSED = ("classifier.",)
    MIN_PX = 31

    def __init__(self) -> None:
        super().__init__(
            [
                *(nn.Conv2d(3, 64, 11, 4, 2), nn.ReLU(), nn.MaxPool2d(3, 2)),
                *(nn.Conv2d(64, 192, 5, padding=2), nn.ReLU(), nn.MaxPool2d(3, 2)),
                *(nn.Conv2d(192, 384, 3, padding=1), nn.ReLU()),
                *(nn.Conv2d(384, 256, 3, padding=1), nn.ReLU()),
                *(nn.Conv2d(256, 256, 3, padding=1), nn.ReLU()),
            ],
            (1, 4, 7, 9, 11),
        )


class _Fire(nn.Module):
    def __init__(self, width_in: int, squeezed: int, half: int) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(width_in, squeezed, 1)
        self.expand1x1 = nn.Conv2d(squeezed, half, 1)
        self.expand3x3 = nn.Conv2d(squeezed, half, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.relu(self.squeeze(x))
        return torch.cat([functional.relu(self.expand1x1(x)), functional.relu(self.expand3x3(x))], dim=1)


class SqueezeNet(_Tapped):
    """SqueezeNet 1.1 (Iandola et al., 2016); the default taps are those of LPIPS."""

    UNUSED = ("classifier.",)
    MIN_PX = 17
    LPIPS_TAPS: ClassVar[tuple[int, ...]] = (1, 4, 7, 9, 10, 11, 12)

    def __init__(self, taps: Sequence[int] = LPIPS_TAPS) -> None:
        def pool() -> nn.Module:
            return nn.MaxPool2d(3, 2, ceil_mode=True)

        super().__init__(
            [
                *(nn.Conv2d(3, 64, 3, 2), nn.ReLU(), pool(), _Fire(64, 16, 64), _Fire(128, 16, 64), pool()),
                *(_Fire(128, 32, 128), _Fire(256, 32, 128), pool(), _Fire(256, 48, 192), _Fire(384, 48, 192)),
                *(_Fire(384, 64, 256), _Fire(512, 64, 256)),
            ],
            taps,
        )


class _Bottleneck(nn.Module):
    """Halves the picture in its second convolution, or, as Caffe's networks, in its first (``early``)."""

    def __init__(self, width_in: int, width: int, stride: int, *, early: bool) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width_in, width, 1, stride if early else 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, 1 if early else stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, 4 * width, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(4 * width)
        bends = stride > 1 or width_in != 4 * width
        shortcut = nn.Sequential(nn.Conv2d(width_in, 4 * width, 1, stride, bias=False), nn.BatchNorm2d(4 * width))
        self.downsample = shortcut if bends else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        features = functional.relu(self.bn1(self.conv1(x)))
        features = functional.relu(self.bn2(self.conv2(features)))
        return functional.relu(self.bn3(self.conv3(features)) + self.downsample(x))


class ExpressionResNet(nn.Module):
    """ResNet-50 with eight outputs, as the builder's expression stage reads it; inputs are prepared by the caller."""

    UNUSED: ClassVar[tuple[str, ...]] = ()
    EARLY: ClassVar[bool] = False

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        width_in = 64
        for stage, count in enumerate((3, 4, 6, 3)):
            width = 64 << stage
            strides = [2 if stage else 1, *[1] * (count - 1)]
            widths = [width_in, *[4 * width] * (count - 1)]
            sizes = zip(widths, strides, strict=True)
            blocks = [_Bottleneck(before, width, stride, early=self.EARLY) for before, stride in sizes]
            self.add_module(f"layer{stage + 1}", nn.Sequential(*blocks))
            width_in = 4 * width
        self.fc = nn.Linear(width_in, 8)

    def forward(self, faces: Float[Tensor, "B 3 S S"]) -> tuple[Float[Tensor, "B 8"], Float[Tensor, "B 2048"]]:
        """Logits in the network's own order, and the features before them."""
        x = self._pooled(functional.relu(self.bn1(self.conv1(faces))))
        for stage in range(4):
            x = self.get_submodule(f"layer{stage + 1}")(x)
        features = x.mean(dim=(2, 3))
        return self.fc(features), features

    @staticmethod
    def _pooled(x: Tensor) -> Tensor:
        return functional.max_pool2d(x, 3, 2, 1)


class EmocaResNet(ExpressionResNet):
    """The ResNet-50 that EMOCA's authors trained on AffectNet, on a body of VGGFace2's (Cao et al., 2018) from Caffe.

    Under its names every tensor would fit torchvision's network as well, which halves pictures elsewhere and would
    silently give other numbers.
    """

    EARLY = True

    @staticmethod
    def _pooled(x: Tensor) -> Tensor:
        return functional.max_pool2d(x, 3, 2, ceil_mode=True)

    @staticmethod
    def renamed(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """By the names of :class:`ExpressionResNet`, with the first eight of the head's rows.

        The head has AffectNet's eight expressions first, then whatever else it was trained for: perhaps a class for
        none, then valence and arousal. The body's own classifier, of faces, is never asked.
        """
        renamed = {name.removeprefix("backbone."): value for name, value in tensors.items() if "linear." not in name}
        renamed = {name: value for name, value in renamed.items() if not name.startswith("fc.")}
        return renamed | {
            f"fc.{part}": tensors[f"linear.{part}"][:8] for part in ("weight", "bias") if f"linear.{part}" in tensors
        }
