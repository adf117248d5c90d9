"""Outside its own folder nothing of training knows AnyTalk: neither by import nor by the name of a class."""

import ast

from tests.conftest import ROOT

TRAINING = ROOT / "training"
OWN = TRAINING / "recipes" / "anytalk"


def outside():
    return [path for path in sorted(TRAINING.rglob("*.py")) if OWN not in path.parents]


def classes_of_anytalk():
    trees = [ast.parse(path.read_text(encoding="utf-8")) for path in OWN.glob("*.py")]
    return {node.name for tree in trees for node in ast.walk(tree) if isinstance(node, ast.ClassDef)}


def test_only_the_registry_says_where_anytalk_lies():
    mentions = {
        path.relative_to(TRAINING).as_posix()
        for path in outside()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if (isinstance(node, ast.ImportFrom) and (node.module or "").startswith("training.recipes.anytalk"))
        or (isinstance(node, ast.Constant) and str(node.value).startswith("training.recipes.anytalk"))
    }
    assert mentions == {"recipes/registry.py"}


def test_no_class_of_anytalk_is_named_elsewhere():
    own = {name for name in classes_of_anytalk() if name.startswith("AnyTalk")}
    assert len(own) >= 6
    named = {
        (path.name, node.id)
        for path in outside()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Name) and node.id in own
    }
    assert named == set()
