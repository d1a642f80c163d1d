"""Find responses that a test does not check: a refusal that goes unseen is a bug.

A refused response is watched by giving it another class, which differs in one thing: the first
read of its outcome is noted, and turns it back. Responses that are `ok` are never touched.
"""

from __future__ import annotations

from typing import Any, Self

from dispatchers import hooks
from dispatchers._dispatch.hook_registry import told
from dispatchers._errors import ErrorCategory
from dispatchers._models.response import DispatchResponse, DispatchStatus

__all__ = ["WATCHED", "UncheckedDispatches"]

WATCHED = frozenset({ErrorCategory.INVALID, ErrorCategory.UNSUPPORTED, ErrorCategory.CONFIGURATION})
"""Categories that only a change of the program cures, no retry and no other backend."""
CHECKS = frozenset(
    {"ok", "status", "error", "exception", "raise_for_error", "model_dump", "model_dump_json"}
)
"""Attributes that tell what became of the dispatch."""


class Unchecked(DispatchResponse):
    """A response that has not been checked yet."""

    def __getattribute__(self, name: str) -> Any:
        # Before the read: `_check` gives back the plain class, whose attribute is then the answer.
        if name in CHECKS and not _is_being_told(self):
            _check(self)
            return getattr(self, name)
        return super().__getattribute__(name)

    def __eq__(self, other: object) -> bool:
        _check(self)
        return bool(self == other)

    def __hash__(self) -> int:
        return DispatchResponse.__hash__(self)

    def __reduce_ex__(self, protocol: Any) -> Any:
        _check(self)
        return self.__reduce_ex__(protocol)

    def __repr_name__(self) -> str:
        """Keep the name: printing a response does not check it."""
        return DispatchResponse.__name__


def _check(response: DispatchResponse) -> None:
    # Past the model's own `__setattr__`: responses are frozen.
    object.__setattr__(response, "__class__", DispatchResponse)


def _is_being_told(response: DispatchResponse) -> bool:
    """Return True while hooks are told: they see every response, and check none."""
    return any(each is response for each in told.get())


class UncheckedDispatches:
    """Watches the dispatches of a block; `take` tells those that were not checked."""

    def __init__(self) -> None:
        self._seen: list[DispatchResponse] = []

    def __enter__(self) -> Self:
        # A hook sees the responses of every dispatcher, those of configured aliases included.
        self._hook = hooks.after_dispatch(self._watch)
        return self

    def __exit__(self, *_: object) -> None:
        hooks.remove(self._hook)
        self.take()

    def _watch(self, response: DispatchResponse) -> None:
        error = response.error
        refused = response.status is DispatchStatus.REJECTED
        if refused and error is not None and error.category in WATCHED:
            object.__setattr__(response, "__class__", Unchecked)
            self._seen.append(response)

    def take(self) -> list[str]:
        """Return a line for each unchecked response, and forget them."""
        # Those that were read have turned back into the plain class.
        left = [each for each in self._seen if type(each) is Unchecked]
        self._seen.clear()
        return [_line(response) for response in left]


def _line(response: DispatchResponse) -> str:
    _check(response)
    task = response.request.task if response.request else "a request"
    error = response.error
    words = f"{error.category}: {error.message}" if error else ""
    return f"{task} through {response.dispatcher!r} ({response.backend}): {words}"
