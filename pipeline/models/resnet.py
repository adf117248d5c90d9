"""ResNet-50 in plain torch, with the tensor names of torchvision, so that weights trained there load here.

He et al., "Deep Residual Learning for Image Recognition", CVPR 2016, with the stride in the 3×3 convolution as
torchvision has it (its "v1.5").
"""

from torch import Tensor, nn
from torch.nn import functional

_BLOCKS = (3, 4, 6, 3)
_EXPANSION = 4
NUM_FEATURES = 2048


class _Bottleneck(nn.Module):
    def __init__(self, width_in: int, width: int, stride: int) -> None:
        super().__init__()
        width_out = _EXPANSION * width
        self.conv1 = nn.Conv2d(width_in, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, width_out, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(width_out)
        self.downsample: nn.Module | None = None
        if stride != 1 or width_in != width_out:
            conv = nn.Conv2d(width_in, width_out, 1, stride, bias=False)
            self.downsample = nn.Sequential(conv, nn.BatchNorm2d(width_out))

    def forward(self, x: Tensor) -> Tensor:
        y = functional.relu(self.bn1(self.conv1(x)))
        y = functional.relu(self.bn2(self.conv2(y)))
        y = self.bn3(self.conv3(y))
        return functional.relu(y + (x if self.downsample is None else self.downsample(x)))


class ResNet50(nn.Module):
    """[N, 3, S, S] to logits [N, K] and the features before them [N, 2048]."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        width_in = 64
        for number, num_blocks in enumerate(_BLOCKS):
            width, stride = 64 << number, 1 if number == 0 else 2
            blocks = []
            for block in range(num_blocks):
                blocks.append(_Bottleneck(width_in, width, stride if block == 0 else 1))
                width_in = _EXPANSION * width
            self.add_module(f"layer{number + 1}", nn.Sequential(*blocks))
        self.fc = nn.Linear(NUM_FEATURES, num_classes)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:  # noqa: D102
        x = functional.relu(self.bn1(self.conv1(x)))
        x = functional.max_pool2d(x, 3, 2, 1)
        for number in range(len(_BLOCKS)):
            x = self.get_submodule(f"layer{number + 1}")(x)
        features = x.mean(dim=(2, 3))
        return self.fc(features), features
