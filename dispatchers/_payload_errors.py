"""What can be wrong with a task's arguments, when it is declared and when it is dispatched."""

from __future__ import annotations

from enum import Enum
from typing import Self

from ._errors import PUBLIC

__all__ = [
    "MISSING",
    "NAIVE",
    "NOT_FINITE",
    "DeclarationError",
    "PayloadError",
    "altered",
    "key_part",
    "retyped",
    "type_name",
]

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
        super().__init__(f"argument {path!r} {problem}" if path else problem)
        self.problem = problem
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (self.problem, self.path)

    def under(self, part: str) -> Self:
        """The same error one level further out: `part` is `name`, `.name` or `[index]`."""
        path = part + self.path
        shown = path if len(path) <= _LONGEST_PATH else f"{path[: _LONGEST_PATH - 3]}..."
        return type(self)(self.problem, shown)


def key_part(key: object, position: int) -> str:
    """The part of a path for an entry of a mapping; a key that may be data shows its position."""
    if type(key) is str and key.isidentifier() and len(key) <= _LONGEST_SHOWN_KEY:
        return f".{key}"
    return f"[key {position}]"


def type_name(value: object) -> str:
    """The value's type for a message, with its article: `a tuple`, `an Order`."""
    if value is None:
        return "None"
    name = type(value).__qualname__.rpartition("<locals>.")[2]
    return f"{'an' if name[:1].lower() in 'aeio' else 'a'} {name}"


def altered(original: object) -> PayloadError:
    """The type is kept, the value is not."""
    return PayloadError(
        f"is {type_name(original)} whose value would arrive altered: "
        "pass a value that its annotation carries as it is"
    )


def retyped(original: object, decoded: object) -> PayloadError:
    """What arrives is of another type; `MISSING` stands for what does not arrive."""
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
