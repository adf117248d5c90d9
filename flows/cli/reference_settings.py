"""The page of settings, read from the records that hold them."""

import inspect
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from flows.cli.reference_text import (
    NONE,
    bounds,
    cell,
    code,
    one_line,
    plain_json,
    prose,
    size_words,
    table,
    type_words,
)

_HEAD = """# Settings

Printed by `python -m flows.cli.reference --write` from the settings themselves; [configuration.md](configuration.md)
says how they are given, and which ones matter first.

A setting is written by its dotted name: `--set crop.size_px=256`, or in a YAML file

```yaml
crop: {size_px: 256}
```

`DOMAIN` stands for the name of a domain (`real`, `mesh`, …), and `[]` for each entry of a list, which is given as a
whole. *required* settings have no default. Where a group of settings is `null` by default, that part is off until one
of its settings is given.

"""


@dataclass(frozen=True, slots=True)
class _Group:
    """Settings that lie together: the dotted name before theirs, their record, and its values where there are any."""

    prefix: str
    record: type[BaseModel]
    values: BaseModel | None

    def inner(self) -> Iterator["_Group"]:
        for name, field in self.record.model_fields.items():
            value = None if self.values is None else getattr(self.values, name)
            for part, kind in _records(field.annotation):
                values = value if isinstance(value, kind) else _default_of(kind)
                yield _Group(f"{self.prefix}{name}{part}.", kind, values)


def settings_page() -> str:
    """The whole page: settings of a build, of its engine and weights, of a training and of an evaluation."""
    from schemas.config import BuildConfig, EngineConfig, WeightsConfig
    from training.evaluation.metrics.config import EvaluationConfig
    from training.recipes.registry import RECIPES, find_recipe

    parts = [
        ("Building and releasing", "`anitalk build`, `anitalk release`", [("", BuildConfig)]),
        ("Who does the work", "The same file of settings; no result depends on them", [("engine.", EngineConfig)]),
        ("Where weights lie", "The same file of settings; no result depends on them", [("weights.", WeightsConfig)]),
        *(
            (f"Training {find_recipe(name).title}", f"`anitalk train {name}`", [("", find_recipe(name).Config)])
            for name in RECIPES
        ),
        ("Evaluating", "`anitalk evaluate`", [("", EvaluationConfig)]),
    ]
    text = _HEAD
    for title, command, roots in parts:
        text += f"## {title}\n\n{command}.\n\n"
        for prefix, record in roots:
            text += "".join(_section(group) for group in _groups(_Group(prefix, record, _default_of(record))))
    return text.rstrip("\n") + "\n"


def _groups(group: _Group) -> Iterator[_Group]:
    yield group
    for inner in group.inner():
        yield from _groups(inner)


def _section(group: _Group) -> str:
    # The schema has what is written below a field as well as what Field(description=…) says.
    properties = group.record.model_json_schema()["properties"]
    rows = [
        _row(group, name, field, properties[name].get("description", ""))
        for name, field in group.record.model_fields.items()
    ]
    title = f"### `{group.prefix.rstrip('.')}`\n\n" if group.prefix else ""
    about = prose(inspect.getdoc(group.record) or "")
    return f"{title}{about}\n\n" + table(("setting", "value", "default", "meaning"), rows) + "\n"


def _row(group: _Group, name: str, field: FieldInfo, meaning: str) -> tuple[str, str, str, str]:
    value = field.get_default() if group.values is None else getattr(group.values, name)
    limits = bounds(field.metadata)
    words = type_words(field.annotation) + (f", {limits}" if limits else "")
    is_required = group.values is None and field.is_required()
    default = "required" if is_required else _default_words(name, value, field)
    return f"`{group.prefix}{name}`", cell(words), cell(default), one_line(meaning) or NONE


def _default_words(name: str, value: Any, field: FieldInfo) -> str:
    if isinstance(value, BaseModel):
        return "below"
    if any(part for part, _ in _records(field.annotation)) and value:
        names = plain_json(value)
        return ", ".join(code(each) for each in names) if isinstance(value, dict) else code(names)
    return code(plain_json(value)) + size_words(name, value)


def _records(kind: Any) -> Iterator[tuple[str, type[BaseModel]]]:
    """The records inside a type, each with what its dotted name gets: ``.DOMAIN`` of a dict, ``[]`` of a list."""
    if inspect.isclass(kind) and issubclass(kind, BaseModel):
        yield "", kind
        return
    origin = get_origin(kind)
    part = ".DOMAIN" if origin is dict else "[]" if origin in {tuple, list} else ""
    for inside in get_args(kind):
        for inner, record in _records(inside):
            yield part + inner, record


def _default_of(record: type[BaseModel]) -> BaseModel | None:
    """The record with all its defaults; None where one of its settings has to be given."""
    return None if any(field.is_required() for field in record.model_fields.values()) else record()
