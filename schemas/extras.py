"""Which of the project's extras bring a package, read from the installed distribution, and how to install them."""

import re
from functools import cache
from importlib.metadata import PackageNotFoundError, requires

DISTRIBUTION = "anitalk"
_DEVELOPMENT = "dev"  # holds all the others, and is for people who change the project
# Modules that another distribution brings than the one of their name.
_BROUGHT_BY = {
    "aiohttp": "s3fs",
    "annotated_types": "pydantic",
    "botocore": "s3fs",
    "cv2": "opencv-python-headless",
    "google": "onnx",  # protobuf, whose errors its reader raises
    "huggingface_hub": "transformers",
    "markupsafe": "Jinja2",
    "PIL": "pillow",
    "pydantic_core": "pydantic",
    "skimage": "scikit-image",
    "sklearn": "scikit-learn",
    "yaml": "pyyaml",
}
_NAME = re.compile(r"[A-Za-z0-9._-]+")
_EXTRA = re.compile(r"""extra\s*==\s*['"]([^'"]+)['"]""")


@cache
def extras_by_package() -> dict[str, tuple[str, ...]]:
    """For each required distribution, by its normalised name, the extras that ask for it in the order of their names.

    A distribution that every installation has is under no extra: its tuple is empty. All is empty where the project
    runs from a folder that was never installed.
    """
    try:
        lines = requires(DISTRIBUTION) or []
    except PackageNotFoundError:
        lines = []
    extras: dict[str, set[str]] = {}
    for line in lines:
        name, extra = _NAME.match(line), _EXTRA.search(line)
        if name is not None:
            wanted = extras.setdefault(_normalised(name[0]), set())
            wanted |= {extra[1]} if extra else set()
    return {name: tuple(sorted(names)) for name, names in extras.items()}


def extras_of(module: str) -> tuple[str, ...]:
    """The extras that bring a module, without that of the developers where there are others; empty where none does.

    Args:
        module: top-level name, as in ``import module``.
    """
    extras = extras_by_package().get(_normalised(_BROUGHT_BY.get(module, module)), ())
    return tuple(extra for extra in extras if extra != _DEVELOPMENT) or extras


def install_command(*extras: str) -> str:
    """How to install extras: from a checkout or a wheel file, because the project is on no package index."""
    named = f"[{','.join(extras)}]" if extras else ""
    return f"pip install '.{named}' in a checkout of anitalk (or its wheel file in place of the dot)"


def missing_package(module: str) -> str:
    """One sentence about a module that cannot be imported: what to install.

    Args:
        module: top-level name.
    """
    extras = extras_of(module)
    if not extras:
        return f"the package '{module}' is not installed: install anitalk again, {install_command()}"
    if len(extras) == 1:
        return f"the package '{module}' is not installed: {install_command(*extras)}"
    *others, last = extras
    choice = f"the extras {', '.join(others)} and {last} each bring it"
    return f"the package '{module}' is not installed: {choice}, for example {install_command(extras[0])}"


def _normalised(name: str) -> str:
    """A distribution's name as indexes compare it (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()
