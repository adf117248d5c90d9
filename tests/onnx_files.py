"""Small ONNX files with known answers, and random ones in the layout of a real network; weights of nothing."""

import numpy as np


def save(path, nodes, inputs, outputs, constants):
    """Write one graph; shapes may hold names for free axes."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    def value(name, shape):
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)

    graph = helper.make_graph(
        [helper.make_node(kind, list(given), list(made), **attributes) for kind, given, made, attributes in nodes],
        "test",
        [value(*one) for one in inputs],
        [value(*one) for one in outputs],
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
