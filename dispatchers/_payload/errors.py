"""Errors of a task's declaration and of its arguments."""

from __future__ import annotations

from enum import Enum
from typing import Self

from dispatchers._errors import PUBLIC

MISSING: object = object()
"""In the place of a value that is not there."""


NAIVE = (
    "is a datetime without a time zone, which names no instant: "
    "pass an aware one, such as datetime.now(UTC)"
)


NOT_FINITE = "is NaN or infinite, for which JSON has no number: pass None, or text"


# Longer keys, and such with other characters, are data rather than names: counted, not shown.
_LONGEST_SHOWN_KEY = 32


_LONGEST_PATH = 120


class DeclarationError(TypeError):
    """A task is declared with a signature whose arguments could not travel exactly."""

    __module__ = PUBLIC


class PayloadError(ValueError):
    """Arguments do not fit the task, or could not travel exactly; the message never shows a value.

    Args:
        problem: What is wrong and what to do about it; it reads on from the argument's name.

        path: Where, as in `user.tags[2]`; empty for the arguments as a whole.

    """

    __module__ = PUBLIC

    def __init__(self, problem: str, path: str = "") -> None:
        path = path if len(path) <= _LONGEST_PATH else f"{path[: _LONGEST_PATH - 3]}..."
        super().__init__(f"argument {path!r} {problem}" if path else problem)
        self.problem = problem
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        # By default it would be made from its `args`, in which the two are one text.
        return type(self), (self.problem, self.path)

    def under(self, part: str) -> Self:
        """Return the error with `part` before its path."""
        return type(self)(self.problem, part + self.path)


def key_part(key: object, position: int) -> str:
    """Return the part of a path for an entry of a mapping."""
    # `type`: a subclass of str may bring methods of its own.
    if type(key) is str and key.isidentifier() and len(key) <= _LONGEST_SHOWN_KEY:
        return f".{key}"
    return f"[key {position}]"


def type_name(value: object) -> str:
    """Return a value's type with its article: `a tuple`, `an Order`."""
    if value is None:
        return "None"
    name = type(value).__qualname__.rpartition("<locals>.")[2]
    return f"{'an' if name[:1].lower() in 'aeio' else 'a'} {name}"


def unwritable(cause: Exception) -> PayloadError:
    """Return the error for arguments of which no more is known than what they raised."""
    return PayloadError(
        f"the arguments cannot be written as JSON ({type(cause).__name__}): pass plain values"
    )


def altered(original: object) -> PayloadError:
    """Return the error for a value that would change."""
    return PayloadError(
        f"is {type_name(original)} whose value would arrive altered: "
        "pass a value that its annotation carries as it is"
    )


def retyped(original: object, decoded: object) -> PayloadError:
    """Return the error for a value that would change its type."""
    if decoded is MISSING or original is MISSING:
        return PayloadError("would not arrive: pass a value that its annotation carries as it is")
    if isinstance(original, type(decoded)):
        return _subclass(original, decoded)
    given, arriving = type_name(original), type_name(decoded)
    if decoded is None or hasattr(original, "__next__"):
        return PayloadError(f"is {given}, which JSON would turn into {arriving}: pass {arriving}")
    return PayloadError(
        f"is {given}, which JSON would turn into {arriving}: "
        f"pass {arriving}, or annotate it as {given}"
    )


def _subclass(original: object, decoded: object) -> PayloadError:
    base = type(decoded).__qualname__
    cure = f"pass a plain {base}, or annotate it with its own type"
    if isinstance(original, Enum):
        cure = "pass its .value, or annotate it with its own type"
    elif base in {"str", "int", "float"}:
        cure = f"pass {base}(...) of it"
    return PayloadError(
        f"is {type_name(original)}, which would arrive as {type_name(decoded)}, its base: {cure}"
    )
