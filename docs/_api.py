"""The API reference, from the code: signatures, first paragraphs and members of public names."""

from __future__ import annotations

import importlib
import inspect
import re
from collections.abc import Callable, Iterator, Mapping
from enum import Enum
from types import ModuleType
from typing import Any

from pydantic import BaseModel

MODULES = (
    *("dispatchers", "dispatchers.hooks", "dispatchers.held", "dispatchers.frameworks"),
    *("dispatchers.forwarding", "dispatchers.moving"),
    *("dispatchers.implementation", "dispatchers.native", "dispatchers.delivery"),
    "dispatchers.worker",
    *("dispatchers.net", "dispatchers.redis", "dispatchers.rabbitmq", "dispatchers.stores"),
    *("dispatchers.workflows", "dispatchers.journals"),
    *("dispatchers.http", "dispatchers.sqlite", "dispatchers.testing"),
    *("dispatchers.testing.workflows", "dispatchers.testing.journals"),
    *("dispatchers.testing.sources", "dispatchers.testing.passing"),
    *("dispatchers.testing.faults", "dispatchers.testing.servers", "dispatchers.testing.endpoint"),
    *("dispatchers_celery", "dispatchers_dramatiq", "dispatchers_rq"),
    *("dispatchers_django_rq", "dispatchers_django_q", "dispatchers_cloud_tasks"),
    *("dispatchers_sqs", "dispatchers_django_tasks"),
    *("dispatchers_django", "dispatchers_fastapi"),
)
"""Every module whose `__all__` is public, in the order of the page."""
LONGEST = 88
"""Characters of a signature before it is broken at its parameters."""


Docs = Callable[[type], Mapping[str, str]]
"""Gives the texts under the names in the body of a class."""


def reference(docs: Docs) -> str:
    """Return the whole reference as Markdown."""
    modules = map(importlib.import_module, MODULES)
    return "\n".join(line for module in modules for line in _module(module, docs))


def _module(module: ModuleType, docs: Docs) -> Iterator[str]:
    yield f"\n## {module.__name__}\n"
    yield _paragraph(module)
    for name in module.__all__:
        yield from _entry(name, getattr(module, name), docs)


def _entry(name: str, value: Any, docs: Docs) -> Iterator[str]:
    yield f"\n### {name}\n"
    if inspect.isroutine(value) or (inspect.isclass(value) and not issubclass(value, _VALUES)):
        yield from ("```text", _signature(name, value), "```", "")
    yield (
        _paragraph(value)
        if inspect.isclass(value) or callable(value)
        else f"`{type(value).__name__}`."
    )
    if inspect.isclass(value) and (rows := list(_members(value, docs))):
        yield from ("", "| member | meaning |", "| --- | --- |", *rows)


_VALUES = (BaseModel, Enum, BaseException)
"""Classes whose signatures say nothing that their members do not."""


def _signature(name: str, value: Any) -> str:
    try:
        found = inspect.signature(value)
    except (TypeError, ValueError):
        return name
    line = f"{name}{_shown(found)}"
    if len(line) <= LONGEST or not found.parameters:
        return line
    head, _, result = line.rpartition(")")
    inside = head.removeprefix(f"{name}(")
    parts = re.split(r", (?![^\[\](]*[\])])", inside)
    return "\n".join([f"{name}(", *(f"    {part}," for part in parts), f"){result}"])


class _Text:
    """An annotation as it is written, without the quotes of a string."""

    def __init__(self, annotation: object) -> None:
        self.text = annotation if isinstance(annotation, str) else _name(annotation)

    def __repr__(self) -> str:
        return self.text


def _shown(found: inspect.Signature) -> str:
    empty = inspect.Parameter.empty
    parameters = [
        each if each.annotation is empty else each.replace(annotation=_Text(each.annotation))
        for each in found.parameters.values()
    ]
    result = found.return_annotation
    result = result if result is empty else _Text(result)
    text = str(found.replace(parameters=parameters, return_annotation=result))
    text = re.sub(r"frozenset\(\{(.*?)\}\)", _sorted, text)
    text = re.sub(r"<object object at [^>]*>", "...", text)
    text = re.sub(r"<function (\S+) at [^>]*>", r"\1", text)
    return re.sub(r"<(?:class )?'?([\w.]+)'?(?: object at [^>]*)?>", r"\1", text)


def _sorted(found: re.Match[str]) -> str:
    return f"frozenset({{{', '.join(sorted(found[1].split(', ')))}}})"


def _name(annotation: object) -> str:
    text = annotation.__name__ if inspect.isclass(annotation) else str(annotation)
    text = re.sub(r"ForwardRef\('(.*?)'\)", r"\1", text)
    return re.sub(r"\b(?:\w+\.)+(?=\w)", "", text)


def _members(cls: type, docs: Docs) -> Iterator[str]:
    if issubclass(cls, Enum):
        yield from (f"| `{value}` | {_flat(text)} |" for value, text in docs(cls).items())
    elif issubclass(cls, BaseModel):
        known = docs(cls)
        yield from (f"| `{name}` | {_flat(known.get(name, ''))} |" for name in cls.model_fields)
    for name, member in inspect.getmembers_static(cls):
        called = member.fget if isinstance(member, property) else getattr(cls, name, None)
        if not (name.startswith("_") or _is_inherited(cls, name)) and inspect.isroutine(called):
            yield f"| `{name}` | {_flat(_paragraph(called))} |"


def _is_inherited(cls: type, name: str) -> bool:
    """Leave out what pydantic, pytest and Python themselves bring."""
    owner = next(each for each in cls.__mro__ if name in vars(each))
    return not owner.__module__.startswith("dispatchers")


def _paragraph(value: object) -> str:
    text = inspect.getdoc(value) or ""
    return " ".join(text.split("\n\n")[0].split())


def _flat(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")
