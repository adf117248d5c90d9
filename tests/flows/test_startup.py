"""Small commands load little: the modules that are there at their end (``benchmarks/startup.py`` has the times)."""

import subprocess
import sys

import pytest

from tests.helpers import films as films_module
from tests.helpers.films import ROOT, environment

films, built = films_module.films, films_module.built  # fixtures

# What decodes, looks, listens, draws, learns or talks to a cluster.
WORK = {
    *("av", "cv2", "imagehash", "insightface", "jinja2", "lightning_fabric", "matplotlib", "mediapipe", "onnxruntime"),
    *("PIL", "prefect", "ray", "scenedetect", "scipy", "silero_vad", "skimage", "sklearn", "starlette", "tensorboard"),
    *("torch", "transformers", "webdataset", "yt_dlp"),
}
PROGRAM = """
import sys
from flows.cli import run
code = run(sys.argv[1:])
names = sorted({name.split(".")[0] for name in sys.modules})
sys.stderr.write(f"\\n{code} {' '.join(names)}\\n")
"""


def loaded(*arguments: str) -> set[str]:
    """Top-level modules in a process of its own after a command that has ended well."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *arguments],
        env=environment(),
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    code, *names = done.stderr.splitlines()[-1].split(" ")
    assert code == "0", done.stderr
    return set(names)


def test_help_loads_no_settings_and_no_storage():
    assert not loaded("--help") & (WORK | {"fsspec", "numpy", "pyarrow", "pydantic"})


@pytest.mark.parametrize("form", [[], ["--json"]])
def test_status_reads_records_and_loads_nothing_that_works(built, form):
    names = loaded("status", "-w", str(built.workspace), *form)
    assert "pydantic" in names
    assert not names & (WORK | {"pyarrow", "rich"})


@pytest.mark.parametrize("name", ["sources", "clips", "decisions"])
def test_listings_load_nothing_that_works(built, name):
    assert not loaded(name, "-w", str(built.workspace), "-f", "csv") & (WORK | {"pyarrow", "rich"})
