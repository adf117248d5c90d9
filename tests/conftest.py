"""Fixtures shared by all tests."""

import os
from pathlib import Path

import pytest
from hypothesis import settings

# The same examples on every machine; HYPOTHESIS_PROFILE=explore looks for new ones.
settings.register_profile("repeatable", derandomize=True, deadline=None)
settings.register_profile("explore", deadline=None)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "repeatable"))

ROOT = Path(__file__).resolve().parents[1]
ASSETS = Path(os.environ.get("ANITALK_ASSETS", ROOT.parent / "shared" / "assets"))


@pytest.fixture(scope="session")
def assets() -> Path:
    """The folder of real media, weights and hand-labelled truth."""
    if not (ASSETS / "README.md").is_file():
        message = f"needs real media, which are not part of the repository: set ANITALK_ASSETS (looked in {ASSETS})"
        if os.environ.get("ANITALK_REQUIRE_ASSETS"):
            pytest.fail(message)
        pytest.skip(message)
    return ASSETS


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    try:
        import cv2
    except ImportError:  # an environment with only the train extra
        return
    cv2.setNumThreads(1)


@pytest.fixture(scope="module")
def one_thread_in_torch():
    """For modules whose numbers depend on it, or that would crowd the machine; also for their other fixtures."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
