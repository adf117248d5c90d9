"""Where a torch network runs: where it is told, since another device gives other numbers under the same key."""

from typing import Any

from schemas.errors import UsageError
from schemas.models import Device


def check_torch_device(torch: Any, device: Device, setting: str) -> None:
    """Refuse a device that this machine lacks.

    Args:
        torch: the package.
        device: what was asked for.
        setting: where it was asked for.

    Raises:
        UsageError: when it is CUDA, and there is none.
    """
    if device == "cuda" and not torch.cuda.is_available():
        raise UsageError(
            f"{setting} is cuda, and torch finds no CUDA on this machine ('anitalk doctor'): "
            f"set {setting} to cpu, or build where there is a GPU and a torch made for it"
        )
