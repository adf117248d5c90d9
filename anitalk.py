"""The ``anitalk`` command, also as ``python -m anitalk``; it notices when another folder hides one of its packages.

The packages keep the names of their folders in the repository (``pipeline``, ``training`` and so on), which other
projects use too. A folder of such a name with an ``__init__.py`` that comes earlier on Python's path would be run
instead of ours.
"""

import sys
from importlib.util import find_spec
from pathlib import Path

PACKAGES = ("schemas", "pipeline", "training", "flows", "manifests")
EXIT_USAGE = 2


def shadowed() -> str | None:
    """What hides one of our packages, and the remedy, as a sentence; None where all of them are ours."""
    home = Path(__file__).resolve().parent
    for name in PACKAGES:
        spec = find_spec(name)
        folders = [Path(folder).resolve() for folder in (spec.submodule_search_locations or ())] if spec else []
        if folders and folders[0].parent == home:
            continue
        hiding = folders[0] if folders else Path(spec.origin).resolve() if spec and spec.origin else None
        if hiding is None:
            return f"the package '{name}' is not beside {Path(__file__).name}: install anitalk again"
        return (
            f"{hiding} hides the installed package '{name}': run anitalk from another folder, "
            "or take that folder's parent out of PYTHONPATH"
        )
    return None


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
