"""Small ONNX files with known answers; none of them was trained."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

OPSET, IR = 13, 8  # what every ONNX Runtime in use reads


def save(
    path: Path,
    nodes: Sequence[onnx.NodeProto],
    weights: dict[str, np.ndarray],
    input_shape: Sequence[int | str],
    output_shape: Sequence[int | str],
) -> Path:
    """A graph from ``picture`` to ``points``."""
    graph = helper.make_graph(
        list(nodes),
        "known",
        [helper.make_tensor_value_info("picture", TensorProto.FLOAT, input_shape)],
        [helper.make_tensor_value_info("points", TensorProto.FLOAT, output_shape)],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR)
    onnx.save(model, path)
    return path


def linear(path: Path, weight: np.ndarray, bias: np.ndarray, side: int) -> Path:
    """``bias`` + ``weight`` times the picture; [V, 3·side·side] and [V]."""
    nodes = [
        helper.make_node("Flatten", ["picture"], ["flat"]),
        helper.make_node("Gemm", ["flat", "weight", "bias"], ["points"], transB=1),
    ]
    weights = {"weight": weight.astype(np.float32), "bias": bias.astype(np.float32)}
    return save(path, nodes, weights, ["batch", 3, side, side], ["batch", len(bias)])


def constant(path: Path, values: np.ndarray, side: int = 32) -> Path:
    """The same ``values``, whatever the picture."""
    flat = np.asarray(values, np.float32).ravel()
    return linear(path, np.zeros((flat.size, 3 * side * side)), flat, side)


def centre_finder(path: Path, shape: np.ndarray, side: int = 32) -> Path:
    """``shape`` [P, 2], in shares of the square, around the centre of the picture's red: points that follow a blob."""
    grid = (np.arange(side) + 0.5) / side
    place = np.stack([np.tile(grid, side), np.repeat(grid, side)])
    nodes = [
        helper.make_node("Slice", ["picture", "from", "to", "axis"], ["red"]),
        helper.make_node("Flatten", ["red"], ["flat"]),
        helper.make_node("ReduceSum", ["flat", "last"], ["mass"], keepdims=1),
        helper.make_node("Max", ["mass", "least"], ["whole"]),
        helper.make_node("MatMul", ["flat", "place"], ["moment"]),
        helper.make_node("Div", ["moment", "whole"], ["centre"]),
        helper.make_node("MatMul", ["centre", "repeat"], ["centres"]),
        helper.make_node("Add", ["centres", "shape"], ["points"]),
    ]
    weights = {
        "from": np.array([0]), "to": np.array([1]), "axis": np.array([1]), "last": np.array([1]),
        "least": np.array([1e-3], np.float32),
        "place": place.T.astype(np.float32),
        "repeat": np.tile(np.eye(2, dtype=np.float32), len(shape)),
        "shape": shape.astype(np.float32).reshape(1, -1),
    }  # fmt: skip
    return save(path, nodes, weights, [1, 3, side, side], [1, 2 * len(shape)])
