"""Requirements that a class must meet to serve as a backend."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator

from dispatchers._dispatch.base import BaseDispatcher
from dispatchers._dispatch.protocol import CONTRACT, FINAL
from dispatchers._models.capabilities import Capabilities
from dispatchers._models.options import BackendOptions

__all__ = ["class_problems"]

NAME = re.compile(r"[a-z][a-z0-9_-]*")


RESERVED = frozenset({"auto"})


TIMED = ("_send", "_asend", "_send_many", "_asend_many", "_probe", "_stats")
"""The methods that the core calls with `timeout=`."""


def class_problems(cls: object, name: object) -> list[str]:
    """Return the problems of a class as the backend `name`."""
    if not isinstance(cls, type) or not issubclass(cls, BaseDispatcher):
        what = cls.__name__ if isinstance(cls, type) else f"an object of {type(cls).__name__}"
        return [f"{what} is not a subclass of BaseDispatcher"]
    # Every problem at once: an author mends them in one go.
    return [
        *_name_problems(cls, name),
        *_contract_problems(cls),
        *_attribute_problems(cls),
        *_member_problems(cls),
        *_signature_problems(cls),
    ]


def _name_problems(cls: type[BaseDispatcher], name: object) -> Iterator[str]:
    own = getattr(cls, "name", None)
    if not isinstance(own, str) or not NAME.fullmatch(own):
        yield f"`name` must be lower-case letters, digits, '_' and '-', it is {own!r}"
    elif own in RESERVED:
        yield f"the name {own!r} is reserved"
    elif own != name:
        yield f"it is registered as {name!r}, its `name` is {own!r}: make them equal"


def _contract_problems(cls: type[BaseDispatcher]) -> Iterator[str]:
    number: object = getattr(cls, "contract", None)
    if number is None:
        yield f"`contract` is missing: write `contract = {CONTRACT}` in the class"
    # Not `isinstance`: True is an int, and not a contract number.
    elif type(number) is not int:
        yield f"`contract` must be a whole number, it is {number!r}"
    elif number > CONTRACT:
        yield (
            f"it is written for contract {number}, this core speaks {CONTRACT}: upgrade dispatchers"
        )
    elif number < CONTRACT:
        yield (
            f"it is written for contract {number}, this core speaks {CONTRACT}: upgrade the adapter"
        )


def _attribute_problems(cls: type[BaseDispatcher]) -> Iterator[str]:
    if not isinstance(getattr(cls, "capabilities", None), Capabilities):
        yield "`capabilities` must be a Capabilities(...)"
    options: object = getattr(cls, "Options", None)
    if not isinstance(options, type) or not issubclass(options, BackendOptions):
        yield "`Options` must be a subclass of BackendOptions"
    library: object = getattr(cls, "library", None)
    if library is not None and not isinstance(library, str):
        yield "`library` must be the name of a module, or None"


def _member_problems(cls: type[BaseDispatcher]) -> Iterator[str]:
    abstract = set(getattr(cls, "__abstractmethods__", ()))
    if missing := sorted(abstract | {name for name in cls.required if not _defines(cls, name)}):
        yield f"missing: {', '.join(missing)}"
    for name in FINAL:
        # At run time too: `final` is only a word to type checkers.
        if getattr(cls, name) is not getattr(BaseDispatcher, name):
            yield f"`{name}` is final: write `_send` instead"


def _defines(cls: type[BaseDispatcher], name: str) -> bool:
    own = getattr(cls, name, None)
    return callable(own) and own is not getattr(BaseDispatcher, name, None)


def _signature_problems(cls: type[BaseDispatcher]) -> Iterator[str]:
    for name in TIMED:
        if not _takes_timeout(getattr(cls, name, None)):
            yield f"`{name}` must take the keyword `timeout`, in seconds"


def _takes_timeout(method: object) -> bool:
    if not callable(method):
        return True
    try:
        parameters = inspect.signature(method).parameters
    except (TypeError, ValueError):
        # A method of C has no signature to read: it gets the benefit of the doubt.
        return True
    # A decorator's `**kwargs` may pass it on.
    if any(each.kind is each.VAR_KEYWORD for each in parameters.values()):
        return True
    found = parameters.get("timeout")
    return found is not None and found.kind in {found.KEYWORD_ONLY, found.POSITIONAL_OR_KEYWORD}
