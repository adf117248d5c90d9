"""Run a .tflite file: LiteRT with XNNPACK, on one thread.

OpenCV reads the same files and answers within 1e-4 of this, but takes twice as long over them.
"""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from jaxtyping import Float32


class TfliteNetwork:
    """A network that takes one picture. Keeps no state between pictures; not to be shared between threads."""

    def __init__(self, path: Path) -> None:
        from ai_edge_litert.interpreter import Interpreter

        with _quiet_stderr():
            # One thread: workers run side by side, and sums keep their order.
            self._interpreter = Interpreter(model_path=str(path), num_threads=1)
            self._interpreter.allocate_tensors()
        [given] = self._interpreter.get_input_details()
        self._input = given["index"]
        self._outputs = {out["name"]: out["index"] for out in self._interpreter.get_output_details()}

    def run(self, picture: Float32[np.ndarray, "H W 3"]) -> dict[str, np.ndarray]:
        """The network's answers for one picture, by the names in the file.

        Raises:
            ValueError: for a picture of another size than the network's.
        """
        self._interpreter.set_tensor(self._input, picture[None])
        self._interpreter.invoke()
        return {name: self._interpreter.get_tensor(index) for name, index in self._outputs.items()}


@contextlib.contextmanager
def _quiet_stderr() -> Iterator[None]:
    """Keep the runtime's greeting, which its library writes past Python, off the user's terminal."""
    kept = os.dup(2)
    with open(os.devnull, "w") as nowhere:  # noqa: PTH123
        os.dup2(nowhere.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(kept, 2)
            os.close(kept)
