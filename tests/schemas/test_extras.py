"""Whatever package is missing, its sentence names an extra that brings it."""

import ast
import sys
from pathlib import Path

import pytest

from anitalk import PACKAGES
from schemas.extras import _BROUGHT_BY, extras_by_package, extras_of, install_command, missing_package
from tests.conftest import ROOT

# Modules that one of ours imports, and nothing that is installed with an extra alone brings: optional stores.
OPTIONAL = {"gcsfs", "adlfs"}
EXTRAS = {
    "schemas": set(),
    "training": {"train"},
    "pipeline": {"build", "standard", "review"},
    "flows": {"build", "standard", "review", "train", "deploy"},
}


def imports(package: str) -> set[str]:
    """Top-level names of everything that is imported in a package, at the head of a module or inside."""
    names: set[str] = set()
    for path in (ROOT / package).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                names |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                names.add(node.module.split(".")[0])
    return names - set(sys.stdlib_module_names) - {*PACKAGES, "anitalk"} - OPTIONAL


@pytest.mark.parametrize("package", EXTRAS)
def test_every_import_is_brought_by_every_installation_or_an_extra_of_its_package(package):
    for module in sorted(imports(package)):
        brought_by = extras_of(module)
        if not brought_by:
            distribution = _BROUGHT_BY.get(module, module).lower().replace("_", "-")
            assert distribution in extras_by_package(), f"{module}: no extra brings it, and not every installation"
        else:
            assert EXTRAS[package] & set(brought_by), f"{module} is brought by {brought_by}"


@pytest.mark.parametrize(
    ("module", "extras"),
    [
        ("starlette", ("review",)),
        ("prefect", ("deploy",)),
        ("lightning_fabric", ("train",)),
        ("cv2", ("build",)),
        ("face_alignment", ("standard",)),
        ("torch", ("build", "train")),
        ("pytest", ("dev",)),
        ("numpy", ()),
    ],
)
def test_the_installed_distribution_says_which_extra_brings_a_module(module, extras):
    assert extras_of(module) == extras
    sentence = missing_package(module)
    assert f"'{module}' is not installed" in sentence
    assert all(extra in sentence for extra in extras)


def test_the_remedy_needs_no_index():
    """The project is on none: only a checkout or a file can be installed."""
    command = install_command("build", "review")
    assert command.startswith("pip install '.[build,review]' in a checkout")
    sources = [path for package in PACKAGES for path in Path(ROOT / package).rglob("*.py")]
    assert not [path for path in sources if "pip install 'anitalk" in path.read_text(encoding="utf-8")]
