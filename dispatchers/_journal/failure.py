"""The failure of a command or of an execution, as the journal keeps it."""

from __future__ import annotations

from typing import NamedTuple

from pydantic_core import from_json, to_json

from dispatchers._errors import ErrorCategory, StepError, class_name, readable, step_error
from dispatchers._payload.errors import PayloadError


class Failure(NamedTuple):
    """Failure of a step, or of a whole execution; as JSON the body of `FAILED`, or the output."""

    message: str
    """The exception's own words."""
    category: str = ErrorCategory.HANDLER.value
    """`handler`, `timeout`, `invalid` ...: an `ErrorCategory` where one fits."""
    exception_type: str | None = None
    """The dotted name of the exception's class, where there was one."""
    attempts: int = 1
    """How often it was tried."""

    @classmethod
    def of(cls, exc: BaseException, *, attempts: int = 1) -> Failure:
        """Return the failure that an exception is; a step's own is passed on."""
        exc = readable(exc)
        if isinstance(exc, StepError):
            return cls(exc.message, exc.category, exc.exception_type, exc.attempts)
        return cls(_words(exc), _category(exc), class_name(type(exc)), attempts)

    def encode(self) -> bytes:
        """Encode as JSON text, which `decode` reads."""
        return to_json(self._asdict())

    @classmethod
    def decode(cls, body: bytes) -> Failure:
        """Read a failure; what a newer version has added is left out."""
        known = {name: value for name, value in from_json(body).items() if name in cls._fields}
        return cls(**known)

    def error(self, step: str) -> StepError:
        """Return the exception that a workflow gets.

        Args:
            step: The step, for people: `shop.charge (3)`.
        """
        values = {name: value for name, value in self._asdict().items() if name != "message"}
        return step_error(self.message, **values, step=step)


LONGEST = 2_000
"""Characters of an exception's own words: a journal has limits, and people read them."""

MAX_PARTS = 5
"""Exceptions of a group that are told."""


def _words(exc: BaseException) -> str:
    """Return an exception's own words, and those of a group's parts: its own say how many."""
    text = _own_words(exc)
    if isinstance(exc, BaseExceptionGroup):
        parts = "; ".join(f"{class_name(type(e))}: {_words(e)}" for e in exc.exceptions[:MAX_PARTS])
        text = f"{text}: {parts}"
    return _cut(text)


def for_people(reason: object) -> str:
    """Return a reason that was given, as a journal takes it: UTF-8, `LONGEST` characters, no None.

    What cannot be recorded as it is must not keep an execution from being ended.
    """
    return "" if reason is None else _cut(_own_words(reason))


def _cut(text: str) -> str:
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}..."


def _own_words(told: object) -> str:
    try:
        # Surrogates have no UTF-8; an exception's text may be any text.
        return str(told).encode(errors="replace").decode()
    except Exception:  # noqa: BLE001 - its `__str__` is foreign code
        return ""


def _category(exc: BaseException) -> str:
    if isinstance(exc, PayloadError):
        return ErrorCategory.INVALID.value
    if isinstance(exc, TimeoutError):
        return ErrorCategory.TIMEOUT.value
    return ErrorCategory.HANDLER.value


def failure(
    category: str, message: str, *, exception_type: str | None = None, attempts: int = 0
) -> bytes:
    """Return a failure as JSON; its fields are those of `StepError`.

    Args:
        category: A word to branch on: `exception`, `too_large`, `terminated` ...

        message: For people.

        exception_type: The qualified name of the exception's class.

        attempts: Attempts that were made.
    """
    return Failure(message, category, exception_type, attempts).encode()
