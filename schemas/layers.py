"""Settings in layers: defaults, a YAML file that names what differs, then single ``key.inside=value``.

Builder and trainer read their settings alike, and neither may import the other.
"""

from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any, cast

import yaml
from pydantic import ValidationError

_MAX_BYTES = 1024 * 1024
_Values = Mapping[str, Any]


class LayerError(ValueError):
    """A file or a single setting that cannot be read, in one sentence."""


def layered(base: Mapping[str, Any], path: Path | None, overrides: Iterable[str], *, example: str) -> dict[str, Any]:
    """``base``, a file over it, and single settings over both.

    Args:
        base: plain values, mapping in mapping.
        path: a YAML file.
        overrides: ``key.inside=value``, the value as YAML.
        example: of an override, for messages.

    Raises:
        LayerError: saying what of it cannot be read.
    """
    layers = [] if path is None else [_read_file(path)]
    layers += [_read_override(text, example) for text in overrides]
    result = dict(base)
    for layer in layers:
        result = merged(result, layer)
    return result


def problems_of(error: ValidationError, given: Any, where: str, prefix: str = "") -> list[str]:
    """A sentence for every setting that is unknown or has a value that is not allowed.

    Args:
        error: of validating ``given``.
        given: all settings, defaults among them, so that a misspelt name is told from its neighbours.
        where: names where the settings come from.
        prefix: of their names.
    """
    sentences: list[str] = []
    for problem in error.errors():
        path = [str(part) for part in problem["loc"]]
        name = f"{where}: {prefix}{'.'.join(path) or 'settings'}"
        if problem["type"] == "extra_forbidden":
            sentences.append(f"{name}: there is no such setting{_meant(given, path)}")
            continue
        value = "" if isinstance(problem["input"], dict) else f", found {problem['input']!r}"
        sentences.append(f"{name}: {problem['msg'].removeprefix('Value error, ')}{value}")
    return sentences


def _meant(given: Any, path: list[str]) -> str:
    """The neighbour whose name is nearest to a name that nobody knows."""
    inside = given
    for part in path[:-1]:
        inside = cast("_Values", inside).get(part) if isinstance(inside, Mapping) else None
    neighbours = [str(name) for name in cast("_Values", inside)] if isinstance(inside, Mapping) else []
    near = get_close_matches(path[-1], [name for name in neighbours if name != path[-1]], n=1)
    return f"; did you mean {near[0]}?" if near else ": 'anitalk schema' and docs/settings.md list them"


def merged(base: Mapping[str, Any], change: Mapping[str, Any]) -> dict[str, Any]:
    """``base`` with ``change`` laid over it, mapping by mapping; lists and values are replaced."""
    result = dict(base)
    for key, value in change.items():
        below = result.get(key)
        both = isinstance(below, Mapping) and isinstance(value, Mapping)
        result[key] = merged(cast("_Values", below), cast("_Values", value)) if both else value
    return result


def _read_file(path: Path) -> dict[str, Any]:
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise LayerError(f"the configuration {path} is larger than {_MAX_BYTES} bytes: is it the right file?")
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise LayerError(f"cannot read the configuration {path}: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise LayerError(f"the configuration {path} is not YAML: {' '.join(str(error).split())}") from error
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise LayerError(f"the configuration {path} must be a mapping of settings, found a {type(content).__name__}")
    return cast("dict[str, Any]", content)


def _read_override(text: str, example: str) -> dict[str, Any]:
    name, separator, value = text.partition("=")
    if not separator or not name.strip():
        raise LayerError(f"--set takes key=value, such as {example}; found {text!r}")
    try:
        content: Any = yaml.safe_load(value)
    except yaml.YAMLError as error:
        raise LayerError(f"--set {name}: {value!r} is not a YAML value") from error
    for part in reversed(name.strip().split(".")):
        content = {part: content}
    return content
