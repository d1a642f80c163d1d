"""Local steps: functions that run in the turn, between the code's own lines."""

from __future__ import annotations

import asyncio
import functools
import inspect
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

from dispatchers._journal.failure import Failure
from dispatchers._journal.values import Answer, EntryKind
from dispatchers._payload.errors import DeclarationError
from dispatchers._payload.result import ResultCodec
from dispatchers._runtime import clock
from dispatchers._runtime.loop_thread import run_coroutine


class LocalCall(NamedTuple):
    """A local step that is not answered yet."""

    number: int
    """The number of its command."""
    function: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    results: ResultCodec

    def run(self) -> Answer:
        """Call the function, to its end. Outside of the workflow's loop; raises no `Exception`."""
        try:
            value = self.function(*self.args, **self.kwargs)
            if inspect.isawaitable(value):
                value = run_coroutine(_awaited(value))
            body = self.results.encode(value)
        except (Exception, asyncio.CancelledError) as exc:  # noqa: BLE001 - it failed
            return Answer(EntryKind.FAILED, Failure.of(exc).encode(), clock.time())
        return Answer(EntryKind.DONE, body, clock.time())


async def _awaited(value: Awaitable[Any]) -> Any:
    return await value


Described = tuple[str, ResultCodec]
"""The name by which a function is compared at replay, and the codec of its results."""

_described: WeakKeyDictionary[Any, Described] = WeakKeyDictionary()


def described(function: Callable[..., Any]) -> Described:
    """Return name and codec of a function.

    Raises:
        DeclarationError: The result cannot travel.
    """
    # Partial functions and bound methods are new objects at each call.
    while isinstance(function, functools.partial):
        function = function.func
    if inspect.ismethod(function):
        function = function.__func__
    try:
        found = _described.get(function)
        if found is None:
            found = _described[function] = _described_anew(function)
    except DeclarationError:
        raise
    except TypeError:  # an object without hash or weak references
        return _described_anew(function)
    return found


def _described_anew(function: Callable[..., Any]) -> Described:
    name = _name_of(function)
    try:
        return name, _codec_of(function)
    except DeclarationError as exc:
        raise DeclarationError(f"local({name}, ...): {exc}") from exc


def _name_of(function: Callable[..., Any]) -> str:
    return getattr(function, "__qualname__", None) or type(function).__qualname__


def _codec_of(function: Callable[..., Any]) -> ResultCodec:
    if isinstance(function, type):
        return ResultCodec(function)
    # Functions written in C have no annotations.
    return ResultCodec.of(*() if inspect.isbuiltin(function) else (function,))
