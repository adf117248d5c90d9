"""Functions and modules stay small enough to be read at once."""

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
FOLDERS = ("pipeline", "flows", "schemas", "training")
MAX_MODULE_LINES = 350
MAX_FUNCTION_LINES = 40
USUAL_FUNCTION_LINES = 25  # of all functions but one in twenty


def modules() -> Iterator[tuple[str, str]]:
    """Every module's path and text."""
    for folder in FOLDERS:
        for path in sorted((ROOT / folder).rglob("*.py")):
            yield str(path.relative_to(ROOT)), path.read_text()


def functions() -> Iterator[tuple[str, int]]:
    """Every function's path with its line and name, and its lines without the docstring."""
    for path, text in modules():
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                first = node.body[0]
                documented = isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant)
                spent = (first.end_lineno or 0) - first.lineno + 1 if documented else 0
                yield f"{path}:{node.lineno}: {node.name}", (node.end_lineno or 0) - node.lineno + 1 - spent


def test_no_module_is_too_long():
    lengths = {path: text.count("\n") for path, text in modules()}
    assert len(lengths) > 100
    assert not {path: length for path, length in lengths.items() if length > MAX_MODULE_LINES}


def test_no_function_is_too_long():
    assert not {name: length for name, length in functions() if length > MAX_FUNCTION_LINES}


def test_nearly_all_functions_are_short():
    lengths = [length for _, length in functions()]
    assert len(lengths) > 1000
    assert sum(length > USUAL_FUNCTION_LINES for length in lengths) / len(lengths) < 0.05
