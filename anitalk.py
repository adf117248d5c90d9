"""The ``anitalk`` command, also as ``python -m anitalk``; it notices when another folder hides one of its packages.

The packages keep the names of their folders in the repository (``pipeline``, ``training`` and so on), which other
projects use too. A folder of such a name with an ``__init__.py`` that comes earlier on Python's path would be run
instead of ours.
"""

import os
import sys
from importlib.machinery import ModuleSpec, PathFinder
from importlib.util import find_spec
from pathlib import Path

PACKAGES = ("schemas", "pipeline", "training", "flows", "manifests")
EXIT_USAGE = 2
# Set on the nodes of a Ray cluster, which get this module and each package in folders of their own, side by side.
SHIPPED = "ANITALK_SHIPPED"


def shadowed(first: Path | None = None) -> str | None:
    """What hides one of our packages, and the remedy, as a sentence; None where all of them are ours.

    Args:
        first: a folder that comes before Python's own path in the processes that will be started.
    """
    for name in PACKAGES:
        spec = _spec(name, first)
        folders = [Path(folder).resolve() for folder in (spec.submodule_search_locations or ())] if spec else []
        if folders and _is_ours(folders[0]):
            continue
        hiding = folders[0] if folders else Path(spec.origin).resolve() if spec and spec.origin else None
        if hiding is None:
            return f"the package '{name}' is not beside {Path(__file__).name}: install anitalk again"
        return (
            f"{hiding} hides the installed package '{name}': run anitalk from another folder, "
            "or take that folder's parent out of PYTHONPATH"
        )
    return None


def _spec(name: str, first: Path | None) -> ModuleSpec | None:
    spec = PathFinder.find_spec(name, [str(first)]) if first is not None else None
    # A folder without __init__.py has no origin, and gives way to a package anywhere on the path.
    return spec if spec is not None and spec.origin is not None else find_spec(name)


def _is_ours(folder: Path) -> bool:
    home = Path(__file__).resolve().parent
    return folder.parent == home or (SHIPPED in os.environ and folder.parent.parent == home.parent)


def main() -> None:
    """Run the command line, unless it would run somebody else's code."""
    problem = shadowed()
    if problem is not None:
        sys.stderr.write(f"anitalk: {problem}\n")
        sys.exit(EXIT_USAGE)
    from flows.cli import main as run

    run()


if __name__ == "__main__":
    main()
