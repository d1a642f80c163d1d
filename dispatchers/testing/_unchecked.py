"""Noticing responses that nobody looks at: in a test, a refusal that goes unseen is a bug.

A refused response is watched by giving it another class, which differs in one thing: the first
look at it is noted, and turns it back. Responses that are `ok` are never touched.
"""

from __future__ import annotations

import sys
from types import FrameType
from typing import Any, Self

from dispatchers import hooks
from dispatchers._errors import ErrorCategory
from dispatchers._response import DispatchResponse, DispatchStatus

__all__ = ["WATCHED", "UncheckedDispatches"]

WATCHED = frozenset({ErrorCategory.INVALID, ErrorCategory.UNSUPPORTED, ErrorCategory.CONFIGURATION})
"""What a programmer must mend: no retry and no other backend cures it."""
LOOKS = frozenset(
    {"ok", "status", "error", "exception", "raise_for_error", "model_dump", "model_dump_json"}
)
"""Whoever reads one of these knows what became of the dispatch."""


class Unlooked(DispatchResponse):
    """A response that nobody has looked at yet."""

    def __getattribute__(self, name: str) -> Any:
        if name in LOOKS and not _is_being_told(self):
            _looked_at(self)
            return getattr(self, name)
        return super().__getattribute__(name)

    def __eq__(self, other: object) -> bool:
        _looked_at(self)
        return bool(self == other)

    def __hash__(self) -> int:
        return DispatchResponse.__hash__(self)

    def __reduce_ex__(self, protocol: Any) -> Any:
        _looked_at(self)
        return self.__reduce_ex__(protocol)

    def __repr_name__(self) -> str:
        """Looks like what it is: printing it is no look."""
        return DispatchResponse.__name__


def _looked_at(response: DispatchResponse) -> None:
    object.__setattr__(response, "__class__", DispatchResponse)


def _is_being_told(response: DispatchResponse) -> bool:
    """Whether a hook asks: hooks see every response, and are no caller."""
    frame: FrameType | None = sys._getframe(2)
    while frame is not None:
        if frame.f_code is hooks.tell.__code__:
            return any(value is response for value in frame.f_locals["values"])
        frame = frame.f_back
    return False


class UncheckedDispatches:
    """Watches the dispatches of a block; afterwards `left` has those that nobody looked at."""

    def __init__(self) -> None:
        self._seen: list[DispatchResponse] = []

    def __enter__(self) -> Self:
        self._hook = hooks.after_dispatch(self._watch)
        return self

    def __exit__(self, *_: object) -> None:
        hooks.remove(self._hook)
        self.take()

    def _watch(self, response: DispatchResponse) -> None:
        error = response.error
        refused = response.status is DispatchStatus.REJECTED
        if refused and error is not None and error.category in WATCHED:
            object.__setattr__(response, "__class__", Unlooked)
            self._seen.append(response)

    def take(self) -> list[str]:
        """A line for each that nobody has looked at so far; they are not told again."""
        left = [each for each in self._seen if type(each) is Unlooked]
        self._seen.clear()
        return [_line(response) for response in left]


def _line(response: DispatchResponse) -> str:
    _looked_at(response)
    task = response.request.task if response.request else "a request"
    error = response.error
    words = f"{error.category}: {error.message}" if error else ""
    return f"{task} through {response.dispatcher!r} ({response.backend}): {words}"
