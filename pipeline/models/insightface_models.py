"""Load models through InsightFace's own interface, from local files only.

The package chooses what a file is by the shapes of its tensors: YuNet opens as a SCRFD and a landmark
network as an ArcFace, both without an error. And where a folder is missing it starts a download. So the caller says
what the file should be, and the path is looked at first.
"""

from pathlib import Path
from typing import Any, Literal

from pipeline.models.onnx_session import (
    ONNX_ERRORS,
    Device,
    check_device,
    execution_providers,
    not_onnx,
    session_options,
)
from schemas.errors import UsageError
from schemas.extras import install_command

Task = Literal["detection", "recognition"]
_MEND = f"install the extra: {install_command('standard')}"


def load_insightface(path: Path, task: Task, device: Device = "cpu") -> Any:
    """One model of InsightFace.

    Args:
        path: an ONNX file, or a folder with a detector in it and any other models, such as an unpacked model pack.
        task: what the model must be for.
        device: where it runs.

    Raises:
        UsageError: when the package or the path is missing, or holds no such model.
    """
    _check_path(path)
    try:
        from insightface.app import FaceAnalysis
        from insightface.model_zoo import get_model
    except ImportError as error:
        raise UsageError(f"the package insightface, which runs {path.name}, is missing: {_MEND}") from error
    options = {"providers": execution_providers(device), "sess_options": session_options()}
    model: Any
    try:
        if path.is_dir():
            model = FaceAnalysis(name=str(path), allowed_modules=["detection", task], **options).models.get(task)
        else:
            model = get_model(str(path), **options)
    except ONNX_ERRORS as error:
        raise not_onnx(path, error) from error
    except AssertionError as error:  # how FaceAnalysis says that no file of the folder is a detector
        raise UsageError(f"the model folder {path} holds no face detector: point to an unpacked model pack") from error
    own_task = getattr(model, "taskname", "nothing that InsightFace knows")
    if own_task != task:
        raise UsageError(f"{path} should be a model for face {task}, and InsightFace finds: {own_task}; choose another")
    check_device(model.session, device, path)
    return model


def _check_path(path: Path) -> None:
    if path.is_dir():
        if not any(path.glob("*.onnx")):
            raise UsageError(f"the model folder {path} holds no ONNX file: point to an unpacked model pack")
    elif not path.is_file():
        raise UsageError(f"the model {path} is missing: check the path, or fetch the file first")
    elif path.suffix != ".onnx":
        raise UsageError(f"{path} must have the ending .onnx: InsightFace takes any other name for a download")
