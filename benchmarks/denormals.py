"""What denormal weights cost on the processor at hand: an ONNX file as it is, and as this package loads it.

    python benchmarks/denormals.py MODEL.onnx [--repetitions 20]

Some processors take a multiplication of a denormal number out of their fast path (PFLD took 80 ms a face instead of 3
on an Intel Xeon), others do not mind (AMD EPYC 9005: 1.6 ms either way). So the figure is printed with the machine, and
no test asserts it; tests hold that no such weight is left and that no answer changes by a bit.
"""

import argparse
import os
import platform
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import numpy_helper

from pipeline.models.onnx_session import open_session, session_options


def main() -> None:
    """Print a table: how many such weights a file has, and what they cost."""
    parser = argparse.ArgumentParser(description="Time an ONNX file with and without its denormal weights.")
    parser.add_argument("model", type=Path, help="an ONNX file with one input of fixed size")
    parser.add_argument("--repetitions", type=int, default=20, help="of either, in turns; the quickest counts")
    asked = parser.parse_args()
    plain = onnxruntime.InferenceSession(
        str(asked.model), sess_options=session_options(), providers=["CPUExecutionProvider"]
    )
    normal = open_session(asked.model)
    given = plain.get_inputs()[0]
    shape = [size if isinstance(size, int) else 1 for size in given.shape]
    blob = np.random.default_rng(0).random(shape, np.float32)
    plain_ms, normal_ms = quickest_ms(
        [lambda: plain.run(None, {given.name: blob}), lambda: normal.run(None, {given.name: blob})], asked.repetitions
    )
    print(f"{processor()}; ONNX Runtime {onnxruntime.__version__}, one thread; {asked.model.name}")
    print("| denormal weights | ms as it is | ms without them | ratio |\n| --- | --- | --- | --- |")
    print(f"| {count_denormal(asked.model)} | {plain_ms:.2f} | {normal_ms:.2f} | {plain_ms / normal_ms:.1f} |")


def count_denormal(path: Path) -> int:
    """How many 32-bit weights are smaller than the smallest normal number, and not 0."""
    tensors = [numpy_helper.to_array(tensor) for tensor in onnx.load_model(path).graph.initializer]
    floats = [values for values in tensors if values.dtype == np.float32]
    return sum(int(((values != 0) & (np.abs(values) < np.finfo(np.float32).tiny)).sum()) for values in floats)


def quickest_ms(calls: list[Callable[[], Any]], repetitions: int) -> list[float]:
    """Milliseconds of processor time that each call took at best; taken in turns, so that a slow while slows all."""
    ms = np.full((repetitions, len(calls)), np.inf)
    for turn in range(repetitions):
        for number, call in enumerate(calls):
            began = time.process_time()
            call()
            ms[turn, number] = 1000 * (time.process_time() - began)
    return ms.min(axis=0).tolist()


def processor() -> str:
    """What it ran on."""
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines() if Path("/proc/cpuinfo").is_file() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return f"{names[0] if names else platform.machine()}, {os.cpu_count()} cores"


if __name__ == "__main__":
    main()
