"""Settings in layers: defaults, a YAML file that names what differs, then single ``key.inside=value``.

Builder and trainer read their settings alike, and neither may import the other.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, cast

import yaml

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
