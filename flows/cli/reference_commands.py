"""The page of commands, read from the command line itself."""

import inspect
from collections.abc import Iterator
from typing import Annotated, Any, get_args, get_origin, get_type_hints

import typer

from flows.cli.application import app
from flows.cli.reference_text import NONE, cell, code, one_line, prose, table, type_words

_HEAD = """# Commands

Printed by `python -m flows.cli.reference --write` from the command line itself; `anitalk COMMAND --help` says the same.
`python -m anitalk` is the same program. The pages that [README.md](../README.md#read-on) lists say when to use what.

Exit codes: 0 finished (also where items were rejected), 1 faults were found, 2 a mistake in what was asked, 3 the clips
wait for screening, 130 interrupted, 143 a training was told to end and has saved.

"""


def commands() -> Iterator[tuple[str, Any]]:
    """Every command and group below ``anitalk`` with its name in full, in the order of ``--help``."""

    def walk(group: Any, path: tuple[str, ...]) -> Iterator[tuple[str, Any]]:
        for name, command in group.commands.items():
            if command.hidden:
                continue
            yield " ".join((*path, name)), command
            if hasattr(command, "commands"):
                yield from walk(command, (*path, name))

    return walk(typer.main.get_command(app), ("anitalk",))


def command_table() -> str:
    """One row per command that does something: its name, linked to the reference, and what it is for."""
    rows = [
        (f"[`{name}`](docs/commands.md#{_anchor(name)})", one_line(_summary(command)))
        for name, command in commands()
        if not hasattr(command, "commands") or command.params
    ]
    return table(("command", "what it does"), rows)


def command_pages() -> str:
    """The whole page: every command with all its arguments and options."""
    root = typer.main.get_command(app)
    sections = [_section("anitalk", root), *(_section(name, command) for name, command in commands())]
    return _HEAD + "\n".join(sections)


def _section(name: str, command: Any) -> str:
    text = f"## {name}\n\n```\n{_usage(name, command)}\n```\n\n{prose(command.help or '')}\n"
    if hasattr(command, "commands"):
        inner = ", ".join(f"[`{name} {child}`](#{_anchor(f'{name} {child}')})" for child in command.commands)
        text += f"\nCommands: {inner}.\n"
    rows = [_row(parameter, kind) for parameter, kind in _parameters(command)]
    return text + ("\n" + table(("argument or option", "value", "default", "meaning"), rows) if rows else "")


def _parameters(command: Any) -> Iterator[tuple[Any, Any]]:
    """What a command takes, with the annotation in its function; ``--help`` is everybody's."""
    hints = get_type_hints(inspect.unwrap(command.callback), include_extras=True) if command.callback else {}
    for parameter in command.params:
        if parameter.name != "help" and not getattr(parameter, "hidden", False):
            yield parameter, hints.get(parameter.name, str)


def _usage(name: str, command: Any) -> str:
    words = [name]
    optional = False
    for parameter, _ in _parameters(command):
        if _is_argument(parameter):
            words.append(_argument(parameter) if parameter.required else f"[{_argument(parameter)}]")
        elif parameter.required:
            words.append(f"{parameter.opts[0]} {_variable(parameter)}")
        else:
            optional = True
    words += ["[OPTIONS]"] if optional else []
    return " ".join([*words, "COMMAND …"] if hasattr(command, "commands") else words)


def _row(parameter: Any, annotation: Any) -> tuple[str, str, str, str]:
    names = [_argument(parameter)] if _is_argument(parameter) else [*parameter.opts, *parameter.secondary_opts]
    kind, info = _split(annotation)
    if kind is bool:
        value = NONE
    else:
        value = type_words(kind) + _limits(info) + (", repeatable" if _is_repeatable(parameter) else "")
    default = "required" if parameter.required else _default(parameter.default)
    return ", ".join(f"`{name}`" for name in names), cell(value), cell(default), one_line(parameter.help or NONE)


def _split(annotation: Any) -> tuple[Any, Any]:
    """The type of one value, and what Typer was told of it; ``T | None`` and ``list[T]`` are T."""
    info = None
    if get_origin(annotation) is Annotated:
        annotation, info = get_args(annotation)[:2]
    while (inside := [kind for kind in get_args(annotation) if kind is not type(None)]) and (
        get_origin(annotation) is list or type(None) in get_args(annotation)
    ):
        annotation = inside[0]
    return annotation, info


def _limits(info: Any) -> str:
    least, most = getattr(info, "min", None), getattr(info, "max", None)
    return (f", ≥ {least}" if least is not None else "") + (f", ≤ {most}" if most is not None else "")


def _default(value: Any) -> str:
    return NONE if value is None or value is False or value in ("", [], ()) else code(value)


def _is_argument(parameter: Any) -> bool:
    return not str(parameter.opts[0]).startswith("-")


def _is_repeatable(parameter: Any) -> bool:
    return bool(getattr(parameter, "multiple", False)) or parameter.nargs == -1


def _argument(parameter: Any) -> str:
    return str(parameter.metavar or parameter.name).upper()


def _variable(parameter: Any) -> str:
    return str(parameter.opts[0]).lstrip("-").upper()


def _summary(command: Any) -> str:
    return (command.help or "").split("\n\n")[0]


def _anchor(name: str) -> str:
    return name.replace(" ", "-")
