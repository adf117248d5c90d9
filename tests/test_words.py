"""A name says what a thing is: five words that say nothing, and cannot be searched for, name nothing."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
WORDS = {"found", "made", "told", "place", "one"}


def bound(node: ast.AST) -> Iterator[str]:
    """The names that a node binds: variables, attributes, parameters, functions, classes and imports."""
    match node:
        case ast.Name(id=name, ctx=ast.Store()) | ast.Attribute(attr=name, ctx=ast.Store()) | ast.arg(arg=name):
            yield name
        case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
            yield name
        case ast.alias(name=name, asname=other):
            yield other or name
        case ast.ExceptHandler(name=str(name)) | ast.MatchAs(name=str(name)) | ast.MatchStar(name=str(name)):
            yield name
        case ast.MatchMapping(rest=str(name)):
            yield name


def vague(text: str) -> list[tuple[int, str]]:
    """Line and name of every vague name that a module's text binds."""
    nodes = (node for node in ast.walk(ast.parse(text)) if hasattr(node, "lineno"))
    return sorted((node.lineno, name) for node in nodes for name in bound(node) if name in WORDS)


@pytest.mark.parametrize(
    "text",
    [
        "one = 1",
        "self.made = 1",
        "def f(place): pass",
        "def f(*told): pass",
        "lambda *, found: 0",
        "def found(): pass",
        "async def made(): pass",
        "class one: pass",
        "[0 for one in ()]",
        "with x as place: pass",
        "(told := 1)",
        "from x import y as found",
        "class Kept:\n    made: str",
        "try: pass\nexcept E as told: pass",
        "match x:\n    case [*one]: pass",
        "match x:\n    case {**made}: pass",
    ],
)
def test_every_way_to_bind_a_name_is_seen(text):
    assert len(vague(text)) == 1


def test_what_is_no_binding_is_left_alone():
    assert not vague('f(one, place=1)["made"] = x.found\n"told"\nfound_faces = 1')


# Of tests/pipeline those that were gone through: the others still bind such names.
SEARCHABLE = ["pipeline", "flows", "schemas", "training", "benchmarks"]
SEARCHABLE += [f"tests/{name}" for name in ("docs", "flows", "golden", "helpers", "schemas", "training")]
SEARCHABLE += [f"tests/pipeline/{name}" for name in ("fetch", "media", "models", "release", "review", "store")]


@pytest.mark.parametrize("folder", SEARCHABLE)
def test_names_say_what_they_are(folder):
    paths = sorted((ROOT / folder).rglob("*.py"))
    assert paths
    names = {str(path.relative_to(ROOT)): vague(path.read_text(encoding="utf-8")) for path in paths}
    assert not {path: spots for path, spots in names.items() if spots}
