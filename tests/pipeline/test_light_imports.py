"""What only reads records and plans starts fast: it must not pull in packages that decode, compute or train."""

import subprocess
import sys

import pytest

HEAVY = ("av", "cv2", "matplotlib", "onnxruntime", "pandas", "scenedetect", "scipy", "torch", "transformers")
RECORDS = ("arrow", "cliplist", "config", "explanations", "profiles", "release", "sample", "source", "weights")
LIGHT = {
    "schemas": tuple(f"schemas.{name}" for name in RECORDS),
    "store": tuple(f"pipeline.store.{name}" for name in ("ledger", "reviews", "storage", "tombstones", "workspace")),
    "plans": ("pipeline.analyse.listed", "pipeline.analyse.plan"),
}


@pytest.mark.parametrize("modules", LIGHT.values(), ids=LIGHT)
def test_reading_and_planning_import_nothing_heavy(modules):
    code = f"import sys, {', '.join(modules)}; print(*sorted({set(HEAVY)!r} & set(sys.modules)))"
    outcome = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert outcome.stdout.split() == []
