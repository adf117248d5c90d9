"""Open ONNX files: one thread, on the device that was asked for, never on another one quietly.

Weights that training left denormal (the PFLD at hand has 459,210 below 1e-20) make multiplications trap into microcode
on some processors: on a Xeon, a face took 80 ms instead of 3 (docs/benchmarks.md); others do not mind. They are set to
zero when the file is loaded; the answers are the same to the bit.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from jaxtyping import Float32
from onnxruntime.capi.onnxruntime_pybind11_state import (
    Fail,
    InvalidArgument,
    InvalidGraph,
    InvalidProtobuf,
    NoSuchFile,
    NotImplemented,  # noqa: A004 - the runtime's name
    RuntimeException,
)

from schemas.errors import UsageError
from schemas.extras import install_command
from schemas.models import Device

# What the runtime raises for a file it cannot run; they share no base but Exception.
ONNX_ERRORS = (Fail, InvalidArgument, InvalidGraph, InvalidProtobuf, NoSuchFile, NotImplemented, RuntimeException)
_NEGLIGIBLE = 1e-20


def session_options() -> Any:
    """One thread inside the runtime: workers run side by side, and the number of threads may change the sums."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.log_severity_level = 4  # what goes wrong is said once, by us
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
    """Load an ONNX file; weights beside it in further files are refused.

    Raises:
        UsageError: when the file or a package is missing, or it is nothing that the runtime can run.
    """
    check_file(path)
    try:
        session = onnxruntime.InferenceSession(
            _normal_weights(path), sess_options=session_options(), providers=execution_providers(device)
        )
    except ONNX_ERRORS as error:
        raise not_onnx(path, error) from error
    check_device(session, device, path)
    return session


def check_device(session: onnxruntime.InferenceSession, device: Device, path: Path) -> None:
    """Refuse a session that was asked for CUDA and is not on it: the runtime falls back with a line in its log.

    Raises:
        UsageError: naming the file.
    """
    if device == "cuda" and "CUDAExecutionProvider" not in session.get_providers():
        raise UsageError(
            f"ONNX Runtime cannot run {path.name} on CUDA here: this machine has no usable GPU, or its CUDA libraries "
            "are not those that onnxruntime-gpu was made for ('anitalk doctor'); mend that, or choose the CPU"
        )


def check_file(path: Path) -> None:
    """Raise the UsageError of a model file that is not there."""
    if not path.is_file():
        raise UsageError(f"the model file {path} is missing: check the path, or fetch the file first")


def not_onnx(path: Path, error: Exception) -> UsageError:
    """The error for a file that ONNX Runtime refuses, in one line."""
    return UsageError(f"the model file {path} is no network that ONNX Runtime can run ({_line(error)}): fetch it again")


def _normal_weights(path: Path) -> bytes:
    """The file's content with negligible weights set to zero."""
    try:
        import onnx
        from google.protobuf.message import DecodeError
        from onnx import numpy_helper
    except ImportError as error:
        raise UsageError(f"the model file {path.name} needs the package onnx: {install_command('standard')}") from error
    try:
        # Never the files that it may name beside it: what was hashed is all that is run.
        model = onnx.load_model(path, load_external_data=False)
    except (DecodeError, OSError) as error:
        raise not_onnx(path, error) from error
    for tensor in model.graph.initializer:
        if tensor.data_type == onnx.TensorProto.FLOAT and tensor.data_location != onnx.TensorProto.EXTERNAL:
            values = numpy_helper.to_array(tensor)
            if (small := (np.abs(values) < _NEGLIGIBLE) & (values != 0)).any():
                tensor.CopyFrom(numpy_helper.from_array(np.where(small, np.float32(0), values), tensor.name))
    return model.SerializeToString()


class OnnxNetwork:
    """One picture in, one array out.

    Args:
        path: an ONNX file of its own.
        expected_input: its shape; the first axis, the batch, may be free in the file.
        what: names the network in messages, with what led to it.

    Raises:
        UsageError: when the file is missing, no ONNX, or has not one input of that shape.
    """

    def __init__(self, path: Path, expected_input: Sequence[int], what: str) -> None:
        self._what = f"{what} ({path})"
        self._session = open_session(path)
        inputs = self._session.get_inputs()
        shapes = [_shape(entry.shape) for entry in inputs]
        if len(inputs) != 1 or not _fits(inputs[0].shape, expected_input) or inputs[0].type != "tensor(float)":
            wanted, given = _shape(expected_input), ", ".join(shapes)
            kinds = "" if all(entry.type == "tensor(float)" for entry in inputs) else " not all of 32-bit floats"
            raise UsageError(f"{self._what} takes inputs of shape {given}{kinds}: one of floats {wanted} is expected")
        self._input: str = inputs[0].name
        self.path = path

    def run(self, blob: Float32[np.ndarray, "1 3 H W"]) -> Float32[np.ndarray, "..."]:
        """The network's first output."""
        answers: Any = self._session.run(None, {self._input: blob})
        return np.asarray(answers[0], np.float32)

    def probe(self, blob: Float32[np.ndarray, "1 3 H W"], num_values: int, expected: str) -> Float32[np.ndarray, "..."]:
        """Run it once at load, and refuse it if it fails or does not give so many finite values.

        Args:
            blob: a picture that could be met.
            num_values: of the first output.
            expected: what they are, for the message.

        Raises:
            UsageError: saying what it gave.
        """
        try:
            given = self.run(blob)
        except ONNX_ERRORS as error:
            raise UsageError(f"{self._what} fails on a first picture: {_line(error)}") from error
        if given.size != num_values:
            raise UsageError(f"{self._what} gives an output of shape {_shape(given.shape)}: expected {expected}")
        if not np.isfinite(given).all():
            raise UsageError(f"{self._what} gives numbers that are not finite on a first picture: expected {expected}")
        return given


def _line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).split("\n", maxsplit=1)[0][:200]


def _fits(shape: Sequence[int | str | None], expected: Sequence[int]) -> bool:
    """Whether a declared shape allows the expected one; names and None stand for any length."""
    return len(shape) == len(expected) and all(
        not isinstance(given, int) or given == wanted for given, wanted in zip(shape, expected, strict=True)
    )


def _shape(shape: Sequence[int | str | None]) -> str:
    return "[" + ", ".join("?" if size is None else str(size) for size in shape) + "]"
