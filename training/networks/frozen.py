"""Load networks that are never trained, from files that the user has; nothing is ever downloaded here.

A weights file from elsewhere is data: safetensors, or a pickle that holds nothing but tensors. A pickle that asks for
anything else could run a program of its author's, and is refused.
"""

import pickle
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from schemas.base import Record
from schemas.errors import UsageError
from schemas.files import sha256_of_file
from training.networks.arcface import ArcFace
from training.networks.backbones import AlexNet, EmocaResNet, ExpressionResNet, SqueezeNet, Vgg19
from training.networks.fan import FaceAlignment
from training.networks.inception import Inception

_NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "vgg19": Vgg19,
    "alexnet": AlexNet,
    "squeezenet1_1": SqueezeNet,
    "expression_resnet50": ExpressionResNet,
    "emoca_resnet50": EmocaResNet,
    "inception": Inception,
    "iresnet50": partial(ArcFace, "iresnet50"),
    "iresnet100": partial(ArcFace, "iresnet100"),
    "fan": FaceAlignment,
}
_COUNTER = "num_batches_tracked"  # read by training only; converted files often lack it


class FrozenFile(Record):
    """A local file of weights, and its SHA-256 where it is to be checked."""

    path: str | None = None
    """The local file; None: not given."""
    sha256: str | None = None
    """What the file must have; None: not checked."""


def load(name: str, file: FrozenFile, *, key: str) -> nn.Module:
    """The network, in evaluation mode and single precision, without gradients for its own weights.

    Args:
        name: ``vgg19``, ``alexnet``, ``squeezenet1_1`` or ``expression_resnet50`` with torchvision's tensor names;
            ``emoca_resnet50``, ``inception``, ``iresnet50``, ``iresnet100`` or ``fan`` with their authors'.
        file: its weights.
        key: the setting that names the file, for messages.

    Raises:
        UsageError: when the file is missing, damaged, untrusted, or holds another network.
    """
    network = _NETWORKS[name]()
    tensors = read(file, key=key)
    if isinstance(network, EmocaResNet):
        tensors = network.renamed(tensors)
    return fill(network, tensors, name=name, key=key, unused=getattr(network, "UNUSED", ()))


def read(file: FrozenFile, *, key: str) -> dict[str, Tensor]:
    """The tensors of a local weights file.

    Raises:
        UsageError: when it is missing, damaged, not the file meant, or more than tensors.
    """
    if file.path is None:
        raise UsageError(f"{key}.path is not set: name a local weights file, or set the weight to 0")
    path = Path(file.path).expanduser()
    if not path.is_file():
        raise UsageError(f"{key}.path: {path} is not there: name a local weights file, or set the weight to 0")
    if file.sha256 is not None and (digest := sha256_of_file(path)) != file.sha256:
        raise UsageError(f"{key}: {path} has SHA-256 {digest}, expected {file.sha256}: fetch it again")
    if path.suffix == ".safetensors":
        try:
            return load_file(path)
        except SafetensorError as error:
            raise UsageError(f"{key}: {path} is no readable safetensors file: fetch it again") from error
    return _unpickled(path, key)


def fill(
    network: nn.Module, tensors: Mapping[str, Tensor], *, name: str, key: str, unused: tuple[str, ...] = ()
) -> nn.Module:
    """Put ``tensors`` into a network and freeze it.

    Args:
        network: to fill; its tensors become single precision.
        tensors: by name; each of the network's must be there in its shape, and nothing else.
        name: of the network, for messages.
        key: the setting that names the file, for messages.
        unused: beginnings of names that the file may have beside them.

    Raises:
        UsageError: naming the first tensor that differs.
    """
    wanted = {
        tensor: tuple(value.shape) for tensor, value in network.state_dict().items() if not tensor.endswith(_COUNTER)
    }
    given = {
        tensor: value
        for tensor, value in tensors.items()
        if not tensor.endswith(_COUNTER) and not tensor.startswith(unused)
    }
    shapes = {tensor: tuple(value.shape) for tensor, value in given.items()}
    wrong = sorted(tensor for tensor in wanted.keys() | shapes.keys() if wanted.get(tensor) != shapes.get(tensor))
    if wrong:
        raise UsageError(
            f"{key}: the file does not hold {name}: {len(wrong)} tensors differ, such as {wrong[0]} "
            f"(expected {wanted.get(wrong[0], 'none')}, found {shapes.get(wrong[0], 'none')})"
        )
    network.load_state_dict({tensor: value.float() for tensor, value in given.items()}, strict=False)
    return network.float().eval().requires_grad_(False)


def _unpickled(path: Path, key: str) -> dict[str, Tensor]:
    try:
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise UsageError(
            f"{key}: {path} holds more than tensors and could run a program when read: convert it to safetensors "
            "where you trust it"
        ) from error
    except (RuntimeError, EOFError, OSError, ValueError, KeyError) as error:
        raise UsageError(f"{key}: {path} is no readable weights file: fetch it again") from error
    if not isinstance(loaded, Mapping) or not all(isinstance(value, Tensor) for value in loaded.values()):
        raise UsageError(f"{key}: {path} is not a plain table of tensors: save its state dict as safetensors")
    return dict(loaded)
