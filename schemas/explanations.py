"""What a record's fields mean, in the words of the string below each field.

Such strings leave no trace at run time, so they are read from the source, and only when somebody asks: pydantic's own
``use_attribute_docstrings`` reads them when a class is made, which cost every command about 50 ms.
"""

import ast
import inspect
import textwrap
from functools import cache

from pydantic import BaseModel


@cache
def explanations(kind: type[BaseModel]) -> dict[str, str]:
    """The explanation of every field that has one, by the field's name, each as one line of text.

    Raises:
        OSError: when the source of ``kind`` is not there, as for a class that was made by code.
    """
    texts: dict[str, str] = {}
    for record in reversed(kind.__mro__):
        if issubclass(record, BaseModel) and record is not BaseModel:
            texts |= _own_explanations(record)
    return {
        name: field.description or texts[name]
        for name, field in kind.model_fields.items()
        if field.description or name in texts
    }


def _own_explanations(record: type[BaseModel]) -> dict[str, str]:
    """The strings that stand directly below the fields that ``record`` itself defines."""
    definition = ast.parse(textwrap.dedent(inspect.getsource(record))).body[0]
    if not isinstance(definition, ast.ClassDef):
        return {}
    texts: dict[str, str] = {}
    for field, below in zip(definition.body, definition.body[1:], strict=False):
        if not (isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name)):
            continue
        if isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant) and isinstance(below.value.value, str):
            texts[field.target.id] = " ".join(below.value.value.split())
    return texts
