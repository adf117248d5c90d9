"""Models that transformers loads from a folder: which weights lie there, told without loading them."""

import hashlib
from pathlib import Path

import numpy as np

from pipeline.models.files.model_file import sha256_of
from schemas.errors import UsageError
from schemas.models import ModelCard

WEIGHTS_FILE = "model.safetensors"
# Written by every HuBERT as the network names its tensors now; older files leave it out, or have other names.
_PRESENT_NAME = "masked_spec_embed"
_PLAIN_DTYPES = {"F32", "F16"}


def folder_card(name: str, folder: str, sha256: str) -> ModelCard:
    """What the dataset card says of a model in a folder of the user's."""
    return ModelCard(
        name=name, file=Path(folder).name, sha256=sha256, package="transformers",
        licence="as its folder states", commercial_use=None, domains=(), measured="",
    )  # fmt: skip


def folder_sha256(folder: str, setting: str) -> str:
    """SHA-256 of the weights file in a folder.

    Args:
        folder: as ``save_pretrained`` writes it.
        setting: which names the folder, for the error.

    Raises:
        UsageError: when it is not there, or cannot be read.
    """
    try:
        return sha256_of(Path(folder) / WEIGHTS_FILE)
    except OSError as error:
        raise UsageError(
            f"{setting}: {folder!r} lacks {WEIGHTS_FILE}, or it cannot be read ({error.strerror}): name a local folder "
            "as save_pretrained writes it (the build downloads no weights by itself)"
        ) from error


def local_folder(name: str) -> str:
    """The folder of a model that is named by it, or by a hub name whose files are in the local cache.

    Given a hub name, transformers asks the hub even with ``local_files_only``; given a folder it asks nobody.

    Raises:
        OSError: when neither is on this machine.
        ValueError: for what is no name.
    """
    if Path(name).is_dir():
        return name
    from huggingface_hub import snapshot_download

    return snapshot_download(name, local_files_only=True)


def hubert_sha256(name: str, layers: tuple[int, ...]) -> str:
    """What keys depend on of a HuBERT folder: its weights file, or its tensors where they lie in several files.

    Tensors count by the network's own names in float32. A folder whose files have other names or dtypes than that is
    the one case in which the network has to be loaded to ask for its digest.

    Args:
        name: a local folder or a hub name.
        layers: as configured; only where the network has to be loaded.

    Raises:
        UsageError: when the folder is not on this machine or holds no such network.
    """
    try:
        folder = Path(local_folder(name))
        if (folder / WEIGHTS_FILE).is_file():
            return sha256_of(folder / WEIGHTS_FILE)
        digest = _tensors_sha256(sorted(folder.glob("model-*.safetensors")))
    except (OSError, ValueError) as error:
        raise UsageError(
            f"the HuBERT model {name!r} is not on this machine as safetensors with its preprocessor_config.json: "
            f"set speech.hubert to a folder that holds them (the build downloads no weights by itself)"
        ) from error
    if digest is None:
        from pipeline.models.speech import Hubert

        return Hubert(name, layers).tensors_sha256()
    return digest


def _tensors_sha256(paths: list[Path]) -> str | None:
    """Names and values of all tensors, sorted; None where the files do not hold them as the network would."""
    from safetensors import safe_open

    where: dict[str, Path] = {}
    for path in paths:
        with safe_open(path, "np") as tensors:
            for name in tensors.keys():  # noqa: SIM118 - an open file, no mapping
                if tensors.get_slice(name).get_dtype() not in _PLAIN_DTYPES:
                    return None
                where[name] = path
    if _PRESENT_NAME not in where:
        return None
    digest = hashlib.sha256()
    for name, path in sorted(where.items()):
        with safe_open(path, "np") as tensors:
            digest.update(name.encode())
            digest.update(np.ascontiguousarray(tensors.get_tensor(name), np.float32).tobytes())
    return digest.hexdigest()
