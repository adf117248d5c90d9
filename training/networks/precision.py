"""Run coordinates, softmax-argmax and grids in single precision whatever the networks around them use.

bfloat16 has 8 significant bits: a coordinate in [-1, 1] would be off by a pixel at 256 px.
"""

from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar

import torch
from torch import Tensor

P = ParamSpec("P")
R = TypeVar("R")


def single_precision(function: Callable[P, R]) -> Callable[P, R]:
    """Decorate a function of tensors: half-precision arguments become float32, and autocast is off inside."""

    def widened(value: object) -> object:
        return value.float() if isinstance(value, Tensor) and value.is_floating_point() else value

    @wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        devices = {value.device.type for value in (*args, *kwargs.values()) if isinstance(value, Tensor)} - {"meta"}
        with torch.autocast(min(devices, default="cpu"), enabled=False):
            return function(*map(widened, args), **{name: widened(value) for name, value in kwargs.items()})  # pyright: ignore[reportCallIssue]

    return call
