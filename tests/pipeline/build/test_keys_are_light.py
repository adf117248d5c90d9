"""Whoever asks where a build stands waits for no network runtime and no codec."""

import json
import subprocess
import sys

import pytest

HEAVY = {
    "av",
    "cv2",
    "matplotlib",
    "mediapipe",
    "onnxruntime",
    "scenedetect",
    "scipy",
    "sklearn",
    "torch",
    "transformers",
}


def imported_by(code: str) -> set[str]:
    """The packages that a fresh interpreter has imported after some code."""
    told = f"{code}\nimport json, sys\nprint(json.dumps(sorted({{name.split('.')[0] for name in sys.modules}})))"
    done = subprocess.run([sys.executable, "-c", told], capture_output=True, text=True, check=True)
    return set(json.loads(done.stdout.splitlines()[-1]))


@pytest.mark.assets
def test_every_key_of_standard(assets):
    code = f"""
from pathlib import Path
from tests.golden.test_keys import keys_of, with_assets
assert len(keys_of("standard", with_assets(Path({str(assets)!r})))) == 4
"""
    assert not imported_by(code) & HEAVY


def test_every_key_with_all_meters(tmp_path):
    code = f"""
from pathlib import Path
from tests.golden.test_keys import keys_under, with_all_meters
assert len(keys_under(with_all_meters(Path({str(tmp_path)!r})))) == 4
"""
    assert not imported_by(code) & HEAVY


def test_the_page_that_says_where_a_build_stands():
    assert not imported_by("import flows.cli.status, pipeline.build.survey, pipeline.curate.choice") & HEAVY


def test_what_is_heavy_would_be_seen():
    assert {"cv2", "av"} <= imported_by("import pipeline.clip.make") & HEAVY
