"""Open ONNX files: one thread, on the device that was asked for, never on another one quietly."""

from pathlib import Path
from typing import Any, Literal

import onnxruntime
from onnxruntime.capi.onnxruntime_pybind11_state import (
    Fail,
    InvalidArgument,
    InvalidGraph,
    InvalidProtobuf,
    NoSuchFile,
    NotImplemented,  # noqa: A004 - the runtime's name
    RuntimeException,
)

from pipeline.errors import UsageError
from pipeline.models.local_file import check_file

Device = Literal["cpu", "cuda"]

# What the runtime raises for a file it cannot run; they share no base but Exception.
ONNX_ERRORS = (Fail, InvalidArgument, InvalidGraph, InvalidProtobuf, NoSuchFile, NotImplemented, RuntimeException)


def session_options() -> Any:
    """One thread inside the runtime: workers run side by side, and the number of threads may change the sums."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.log_severity_level = 3  # errors; every other remark is about the file's exporter
    return options


def execution_providers(device: Device) -> list[str]:
    """The runtime's names for a device.

    Raises:
        UsageError: for CUDA where the installed runtime has none; it would fall back to the CPU with a warning.
    """
    if device == "cpu":
        return ["CPUExecutionProvider"]
    if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
        raise UsageError(
            "the installed ONNX Runtime has no CUDA: install onnxruntime-gpu instead of onnxruntime, or choose the CPU"
        )
    return ["CUDAExecutionProvider", "CPUExecutionProvider"]


def open_session(path: Path, device: Device = "cpu") -> onnxruntime.InferenceSession:
    """Load an ONNX file.

    Raises:
        UsageError: when the file is missing, or is nothing that the runtime can run.
    """
    check_file(path)
    try:
        return onnxruntime.InferenceSession(
            str(path), sess_options=session_options(), providers=execution_providers(device)
        )
    except ONNX_ERRORS as error:
        raise not_onnx(path, error) from error


def not_onnx(path: Path, error: Exception) -> UsageError:
    """The error for a file that ONNX Runtime refuses, in one line."""
    reason = str(error).split("\n", maxsplit=1)[0][:200]
    return UsageError(f"the weights file {path} is no network that ONNX Runtime can run ({reason}): fetch it again")
