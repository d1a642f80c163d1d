"""What stands under the fields of a model, read from its source when somebody asks.

pydantic can do so for every model when it is defined (`use_attribute_docstrings`), which would make
up a tenth of `import dispatchers`.
"""

from __future__ import annotations

import ast
import inspect
import textwrap
from itertools import pairwise

from pydantic import BaseModel

__all__ = ["field_docstrings"]


def field_docstrings(model: type[BaseModel]) -> dict[str, str]:
    """The text under each field, a subclass's before its base's; none where source is missing."""
    found: dict[str, str] = {}
    for cls in reversed(model.__mro__):
        if issubclass(cls, BaseModel) and cls is not BaseModel:
            found |= _of_class(cls)
    return found


def _of_class(cls: type) -> dict[str, str]:
    try:
        source = textwrap.dedent(inspect.getsource(cls))
    except (OSError, TypeError):
        return {}
    definition = ast.parse(source).body[0]
    body = definition.body if isinstance(definition, ast.ClassDef) else []
    return dict(filter(None, (_documented(first, then) for first, then in pairwise(body))))


def _documented(first: ast.stmt, then: ast.stmt) -> tuple[str, str] | None:
    match first, then:
        case (
            ast.AnnAssign(target=ast.Name(id=name)),
            ast.Expr(value=ast.Constant(value=str(text))),
        ):
            return name, inspect.cleandoc(text)
        case _:
            return None
