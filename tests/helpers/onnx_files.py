"""Small ONNX files with known answers, and random ones in the layout of a real network; none of them was trained."""

import numpy as np


def save(path, nodes, inputs, outputs, constants):
    """Write one graph; shapes may hold names for free axes."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    def value(name, shape):
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)

    graph = helper.make_graph(
        [
            helper.make_node(kind, list(given), list(results), **attributes)
            for kind, given, results, attributes in nodes
        ],
        "test",
        [value(*tensor) for tensor in inputs],
        [value(*tensor) for tensor in outputs],
        [numpy_helper.from_array(np.asarray(array), name) for name, array in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(model)
    onnx.save(model, str(path))
    return path


def constant_answers(path, answers, size=(64, 64)):
    """A network that answers any picture of ``size`` (width, height) with the same arrays, by name."""
    nodes = [
        ("ReduceSum", ("image",), ("sum",), {"keepdims": 0}),
        ("Mul", ("sum", "zero"), ("nothing",), {}),
        *(("Add", (f"{name}_value", "nothing"), (name,), {}) for name in answers),
    ]
    constants = {"zero": np.float32(0)} | {f"{name}_value": np.float32(array) for name, array in answers.items()}
    shapes = [(name, list(np.shape(array))) for name, array in answers.items()]
    return save(path, nodes, [("image", [1, 3, size[1], size[0]])], shapes, constants)


def random_arcface(path, size_px=112, num_outputs=512, seed=0):
    """A random stand-in with ArcFace's tensors: [N, 3, side, side] in, [N, 512] out. It knows nobody."""
    rng = np.random.default_rng(seed)
    cells = (size_px // 16) ** 2
    constants = {
        "kernel": rng.normal(0, 0.05, (8, 3, 16, 16)).astype(np.float32),
        "matrix": rng.normal(0, 0.1, (8 * cells, num_outputs)).astype(np.float32),
    }
    nodes = [
        ("Conv", ("input.1", "kernel"), ("seen",), {"strides": [16, 16], "name": "conv"}),
        ("Relu", ("seen",), ("positive",), {"name": "relu"}),
        ("Flatten", ("positive",), ("flat",), {"name": "flatten"}),
        ("MatMul", ("flat", "matrix"), ("683",), {"name": "gemm"}),
    ]
    return save(path, nodes, [("input.1", ["N", 3, size_px, size_px])], [("683", ["N", num_outputs])], constants)


def arcface_of_colour(path, matrix, bias, at_most=None, size_px=112):
    """With ArcFace's tensors: ``bias`` [512] + the mean RGB, -1 to 1, times ``matrix`` [3, 512]. It knows colours.

    With ``at_most``, the mean's distance below that takes the mean's place: pictures brighter than it become ``bias``.
    """
    darkness = [("Sub", ("at_most", "colour"), ("below",), {}), ("Relu", ("below",), ("looked",), {})]
    nodes = [
        ("ReduceMean", ("input.1",), ("colour",), {"axes": [2, 3], "keepdims": 0}),
        *(darkness if at_most is not None else [("Identity", ("colour",), ("looked",), {})]),
        ("MatMul", ("looked", "matrix"), ("made",), {}),
        ("Add", ("made", "bias"), ("683",), {}),
    ]
    constants = {"matrix": np.float32(matrix), "bias": np.float32(bias), "at_most": np.float32([at_most or 0.0])}
    return save(path, nodes, [("input.1", ["N", 3, size_px, size_px])], [("683", ["N", 512])], constants)


def linear(path, weight, bias, side):
    """``bias`` [V] + ``weight`` [V, 3·side·side] times the picture."""
    nodes = [
        ("Flatten", ("picture",), ("flat",), {}),
        ("Gemm", ("flat", "weight", "bias"), ("points",), {"transB": 1}),
    ]
    constants = {"weight": np.float32(weight), "bias": np.float32(bias)}
    return save(path, nodes, [("picture", ["batch", 3, side, side])], [("points", ["batch", len(bias)])], constants)


def constant(path, values, side=32):
    """The same ``values``, whatever the picture."""
    flat = np.asarray(values, np.float32).ravel()
    return linear(path, np.zeros((flat.size, 3 * side * side)), flat, side)


def centre_finder(path, shape, side=32):
    """``shape`` [P, 2], in shares of the square, around the centre of the picture's red: points that follow a blob."""
    grid = (np.arange(side) + 0.5) / side
    positions = np.stack([np.tile(grid, side), np.repeat(grid, side)])
    nodes = [
        ("Slice", ("picture", "from", "to", "axis"), ("red",), {}),
        ("Flatten", ("red",), ("flat",), {}),
        ("ReduceSum", ("flat", "last"), ("mass",), {"keepdims": 1}),
        ("Max", ("mass", "least"), ("whole",), {}),
        ("MatMul", ("flat", "place"), ("moment",), {}),
        ("Div", ("moment", "whole"), ("centre",), {}),
        ("MatMul", ("centre", "repeat"), ("centres",), {}),
        ("Add", ("centres", "shape"), ("points",), {}),
    ]
    constants = {
        "from": np.array([0]), "to": np.array([1]), "axis": np.array([1]), "last": np.array([1]),
        "least": np.float32([1e-3]),
        "place": np.float32(positions.T),
        "repeat": np.tile(np.eye(2, dtype=np.float32), len(shape)),
        "shape": np.float32(shape).reshape(1, -1),
    }  # fmt: skip
    return save(path, nodes, [("picture", [1, 3, side, side])], [("points", [1, 2 * len(shape)])], constants)
