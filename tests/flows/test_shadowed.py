"""Folders that are named as our packages: harmless where Python would not run them, one sentence where it would."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import anitalk
from tests.helpers.films import ROOT

CONSOLE_SCRIPT = Path(sys.executable).with_name("anitalk")
MODULE = [sys.executable, "-m", "anitalk"]


@pytest.fixture(params=anitalk.PACKAGES)
def project(request, tmp_path) -> Path:
    """Another project, with a package of a name that is ours too."""
    (tmp_path / request.param).mkdir()
    (tmp_path / request.param / "__init__.py").write_text("raise SystemExit('this is another project')\n")
    return tmp_path


def run(command: list[str], folder: Path, *first: Path) -> subprocess.CompletedProcess[str]:
    """Run in a folder, with folders that come before this checkout in PYTHONPATH."""
    path = os.pathsep.join(str(part) for part in (*first, ROOT))
    env = os.environ | {"PYTHONPATH": path}
    return subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, check=False)


def is_refused(done: subprocess.CompletedProcess[str], project: Path) -> None:
    """Exit code 2, and one sentence that names the folder and the remedy."""
    assert (done.returncode, done.stdout) == (2, "")
    [sentence] = done.stderr.splitlines()
    assert sentence.startswith(f"anitalk: {project}/")
    assert "hides the installed package" in sentence
    assert "run anitalk from another folder, or take that folder's parent out of PYTHONPATH" in sentence


def test_python_m_in_another_project_is_refused(project):
    is_refused(run([*MODULE, "--help"], project), project)


def test_another_project_in_pythonpath_is_refused(project, tmp_path_factory):
    is_refused(run([*MODULE, "--help"], tmp_path_factory.mktemp("elsewhere"), project), project)


@pytest.mark.skipif(not CONSOLE_SCRIPT.is_file(), reason="the project is not installed in this environment")
def test_the_console_script_in_another_project_is_ours(project):
    done = run([str(CONSOLE_SCRIPT), "--help"], project)
    assert (done.returncode, "Usage" in done.stdout) == (0, True), done.stderr
    is_refused(run([str(CONSOLE_SCRIPT), "--help"], project, project), project)


@pytest.mark.skipif(not CONSOLE_SCRIPT.is_file(), reason="the project is not installed in this environment")
def test_the_console_script_runs_what_it_was_installed_with(tmp_path):
    env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    command = [str(CONSOLE_SCRIPT), "--help"]
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, check=False)
    assert (done.returncode, "Usage" in done.stdout) == (0, True), done.stderr


def test_a_module_of_that_name_is_refused_too(tmp_path):
    (tmp_path / "training.py").write_text("")
    is_refused(run([*MODULE, "--help"], tmp_path), tmp_path)


@pytest.mark.parametrize("name", anitalk.PACKAGES)
def test_a_folder_that_is_no_package_hides_nothing(name, tmp_path):
    (tmp_path / name).mkdir()
    (tmp_path / name / "notes.txt").write_text("my own")
    done = run([*MODULE, "schema", "Source"], tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert anitalk.shadowed(first=tmp_path) is None


@pytest.mark.prefect
def test_prefects_import_of_a_deployment_is_refused(tmp_path):
    """What a worker does with the entrypoint, in a folder of its own."""
    (tmp_path / "training").mkdir()
    (tmp_path / "training" / "__init__.py").write_text("")
    code = "from prefect.flows import load_flow_from_entrypoint as load; load('flows.prefect.train.train_anytalk')"
    done = run([sys.executable, "-c", code], tmp_path)
    assert done.returncode == 1
    last = done.stderr.splitlines()[-1]
    assert f"{tmp_path}/training hides the installed package 'training': run anitalk from another folder" in last


def test_what_rays_workers_would_import_from_the_drivers_folder_is_noticed(project):
    """Ray puts that folder first on their path, also where the driver's own path has not got it."""
    assert anitalk.shadowed() is None
    sentence = anitalk.shadowed(first=project)
    assert sentence is not None
    assert sentence.startswith(f"{project}/")
    assert anitalk.shadowed(first=ROOT) is None
