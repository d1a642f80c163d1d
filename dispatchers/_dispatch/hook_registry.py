"""The hooks of this process, and how they are called."""

from __future__ import annotations

import logging
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from types import MappingProxyType
from typing import Any

from dispatchers._errors import is_a
from dispatchers._models.failures import is_end, is_interruption
from dispatchers._models.request import DispatchRequest
from dispatchers._runtime.cancellation import is_cancellation
from dispatchers._runtime.log import say


class Hooks:
    """The hooks of this process, in the order they were added; tuples, so that reading is safe."""

    def __init__(self) -> None:
        self.before_dispatch: tuple[Callable[..., Any], ...] = ()
        self.after_dispatch: tuple[Callable[..., Any], ...] = ()
        self.before_run: tuple[Callable[..., Any], ...] = ()
        self.after_run: tuple[Callable[..., Any], ...] = ()


hooks = Hooks()


_seen: ContextVar[Sequence[DispatchRequest]] = ContextVar("dispatchers_seen", default=())


@contextmanager
def seen(requests: Sequence[DispatchRequest]) -> Generator[None]:
    """Leave these very requests alone: the hooks saw them when they were held."""
    token = _seen.set(requests)
    try:
        yield
    finally:
        _seen.reset(token)


NONE: Mapping[int, DispatchRequest] = MappingProxyType({})
_untold: ContextVar[Mapping[int, DispatchRequest]] = ContextVar("dispatchers_untold", default=NONE)


class inner:  # noqa: N801 - called as a function; a generator would take three times as long
    """Leave log and hooks out of the dispatches of these very requests by another dispatcher.

    The one that called it has shown them to the hooks, and tells what became of them.
    """

    __slots__ = ("_requests", "_seen_before", "_untold_before")

    def __init__(self, requests: Sequence[DispatchRequest]) -> None:
        self._requests = requests

    def __enter__(self) -> None:
        requests = self._requests
        self._seen_before = _seen.set(requests)
        # The requests themselves as well: the id of one that is gone may be that of another.
        self._untold_before = _untold.set({id(each): each for each in requests})

    def __exit__(self, *_: object) -> None:
        _untold.reset(self._untold_before)
        _seen.reset(self._seen_before)


def is_inner(request: DispatchRequest | None) -> bool:
    """Tell whether a request is one that the dispatcher which called this one tells of."""
    return id(request) in _untold.get()


def changed(request: DispatchRequest) -> DispatchRequest:
    """Return the request as the hooks leave it, once."""
    # By identity: a copy that was changed since is another request.
    if any(each is request for each in _seen.get()):
        return request
    for hook in hooks.before_dispatch:
        try:
            given: object = hook(request)
        except Exception as exc:  # noqa: BLE001 - a hook that raises changes nothing
            failed("before_dispatch", hook, exc)
        else:
            request = given if isinstance(given, DispatchRequest) else request
    return request


told: ContextVar[tuple[object, ...]] = ContextVar("dispatchers_told", default=())
"""The values that hooks are being called with; the testing kit tells hooks from callers by it."""


def tell(event: str, *values: object, shielded: bool = False) -> None:
    """Call every hook of `event` with `values`.

    Args:
        event: The name of the event.

        values: What the hooks are called with.

        shielded: Ignore what is no `Exception`, such as a `sys.exit()`, as well: in a worker it
            would have a run that is over made again, and for ever.
    """
    if not (added := getattr(hooks, event)):
        return
    token = told.set(values)
    try:
        for hook in added:
            try:
                hook(*values)
            except BaseException as exc:  # a hook that raises changes nothing
                if not (is_a(exc, Exception) or (shielded and _is_of_hook(exc))):
                    raise
                failed(event, hook, exc)
    finally:
        told.reset(token)


def _is_of_hook(exc: BaseException) -> bool:
    """Tell whether a hook raised it, and not what runs the hook."""
    if type(exc) is SystemExit:  # workers end by subclasses of it
        return True
    return not (is_end(exc) or is_interruption(exc) or is_cancellation(exc))


def failed(event: str, hook: object, exc: BaseException) -> None:
    """Log that a hook raised: its name and the type, for the text may quote a payload."""
    name = getattr(hook, "__qualname__", type(hook).__name__)
    words = "%s hook %s raised %s; it is ignored"
    say(logging.WARNING, words, event, name, type(exc).__name__)
