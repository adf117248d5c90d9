"""Run an ONNX file on one thread, and refuse one that is not what was expected.

Weights that training left denormal (the PFLD at hand has 459,210 below 1e-20) make every multiplication trap into
microcode: 80 ms a face instead of 3. They are set to zero when the file is loaded; the answers are the same to the bit.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32

from pipeline.errors import UsageError

_NEGLIGIBLE = 1e-20


class OnnxNetwork:
    """One picture in, one array out.

    Args:
        path: an ONNX file of its own; weights beside it in further files are refused.
        expected_input: its shape; the first axis, the batch, may be free in the file.
        what: names the network in messages, with what led to it.

    Raises:
        UsageError: when the file is missing, no ONNX, or has not one input of that shape.
    """

    def __init__(self, path: Path, expected_input: Sequence[int], what: str) -> None:
        self._what = f"{what} ({path})"
        self._session = _session(path, self._what)
        inputs = self._session.get_inputs()
        shapes = [_shape(entry.shape) for entry in inputs]
        if len(inputs) != 1 or not _fits(inputs[0].shape, expected_input) or inputs[0].type != "tensor(float)":
            wanted, found = _shape(expected_input), ", ".join(shapes)
            kinds = "" if all(entry.type == "tensor(float)" for entry in inputs) else " not all of 32-bit floats"
            raise UsageError(f"{self._what} takes inputs of shape {found}{kinds}: one of floats {wanted} is expected")
        self._input: str = inputs[0].name
        self.path = path

    def run(self, blob: Float32[np.ndarray, "1 3 H W"]) -> Float32[np.ndarray, "..."]:
        """The network's first output."""
        return np.asarray(self._session.run(None, {self._input: blob})[0], np.float32)

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
            found = self.run(blob)
        except Exception as error:  # ONNX Runtime's exceptions share no base of their own
            first_line = str(error).strip().splitlines()[0][:200]
            raise UsageError(f"{self._what} fails on a first picture: {first_line}") from error
        if found.size != num_values:
            raise UsageError(f"{self._what} gives an output of shape {_shape(found.shape)}: expected {expected}")
        if not np.isfinite(found).all():
            raise UsageError(f"{self._what} gives numbers that are not finite on a first picture: expected {expected}")
        return found


def _session(path: Path, what: str) -> Any:
    try:
        import onnx
        from onnx import numpy_helper
    except ImportError as error:
        raise UsageError(f"{what} needs the package onnx: pip install 'anitalk[standard]'") from error
    import onnxruntime

    if not path.is_file():
        raise UsageError(f"{what} is not there: expected an ONNX file")
    try:
        # Never the files that it may name beside it: what was hashed is all that is run.
        model = onnx.load_model(path, load_external_data=False)
        for tensor in model.graph.initializer:
            if tensor.data_type == onnx.TensorProto.FLOAT:
                values = numpy_helper.to_array(tensor)
                kept = np.where(np.abs(values) < _NEGLIGIBLE, np.float32(0), values)
                tensor.CopyFrom(numpy_helper.from_array(kept, tensor.name))
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 4  # what goes wrong is said once, by us
        return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # protobuf's, onnx's and ONNX Runtime's share no base
        raise UsageError(
            f"{what} cannot be loaded: expected an ONNX file that ONNX Runtime runs, found {type(error).__name__}"
        ) from error


def _fits(shape: Sequence[int | str | None], expected: Sequence[int]) -> bool:
    """Whether a declared shape allows the expected one; names and None stand for any length."""
    return len(shape) == len(expected) and all(
        not isinstance(found, int) or found == wanted for found, wanted in zip(shape, expected, strict=True)
    )


def _shape(shape: Sequence[int | str | None]) -> str:
    return "[" + ", ".join("?" if size is None else str(size) for size in shape) + "]"
