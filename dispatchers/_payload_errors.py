"""What can be wrong with a task's arguments, when it is declared and when it is dispatched."""

from __future__ import annotations

from typing import Self

__all__ = [
    "NAIVE",
    "NOT_FINITE",
    "DeclarationError",
    "PayloadError",
    "key_part",
    "type_name",
]

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


class PayloadError(ValueError):
    """Arguments do not fit the task, or could not travel exactly; the message never shows a value.

    Args:
        problem: What is wrong and what to do about it; it reads on from the argument's name.

        path: Where, as in `user.tags[2]`; empty for the arguments as a whole.

    """

    def __init__(self, problem: str, path: str = "") -> None:
        super().__init__(f"argument {path!r} {problem}" if path else problem)
        self.problem = problem
        self.path = path

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
