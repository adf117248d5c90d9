"""What another program may import: declared by ``__all__``, there with the ``train`` extra alone, used by examples."""

import ast
import importlib
import re
import subprocess
import sys

import pytest

from anitalk import PACKAGES
from tests.conftest import ROOT

PUBLIC = {
    "training.data": {
        *("AugmentConfig", "Batch", "BatchLoader", "Draw", "FramePairs", "PairLoader", "PairsConfig", "Quota", "Side"),
        *("WindowBatch", "WindowSide", "Windows", "as_float", "augment", "open_batches", "pairs"),
    },
    "training.engine.trained": {"SavedCheckpoint", "find_checkpoint", "load_driver", "recipe_of"},
    "training.engine.animator": {"SAFE_DEG", "AnimateConfig", "Animator", "Picture", "Pictures"},
}
# Of the extras of a builder, a deployment and the screening page; none is there with the train extra alone.
ABSENT = (
    *("cv2", "fastapi", "filelock", "insightface", "jinja2", "matplotlib", "mediapipe", "onnxruntime", "prefect"),
    *("psutil", "ray", "scenedetect", "scipy", "skimage", "sklearn", "starlette", "tenacity", "transformers"),
    *("uvicorn", "yt_dlp"),
)


def of_examples() -> dict[str, set[str]]:
    """Names by module that the documents' Python examples import from our packages."""
    names: dict[str, set[str]] = {}
    for path in [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]:
        for text in re.findall(r"^```python\n(.*?)^```", path.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL):
            for node in ast.walk(ast.parse(text)):
                if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] in PACKAGES:
                    names.setdefault(node.module, set()).update(alias.name for alias in node.names)
    return names


@pytest.mark.parametrize("name", PUBLIC)
def test_public_names_are_declared_and_there(name):
    module = importlib.import_module(name)
    assert set(module.__all__) == PUBLIC[name]
    assert all(hasattr(module, part) for part in module.__all__)


def test_examples_import_public_names_only():
    examples = of_examples()
    assert examples
    private = {name: parts - PUBLIC.get(name, set()) for name, parts in examples.items()}
    assert not any(private.values()), private


def test_public_names_need_the_train_extra_alone():
    lines = "; ".join(f"from {name} import *" for name in PUBLIC)
    code = f"import sys; sys.modules.update(dict.fromkeys({ABSENT!r})); {lines}"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("package", PACKAGES)
def test_every_package_says_that_it_is_typed(package):
    assert (ROOT / package / "py.typed").is_file()
