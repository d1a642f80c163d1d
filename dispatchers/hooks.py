"""Functions that see every dispatch and every run.

::

    from dispatchers import hooks

    @hooks.before_dispatch
    def stamp(request: DispatchRequest) -> DispatchRequest:
        return request.replace(headers={**request.headers, "tenant": current_tenant()})

A hook that raises changes nothing: the error is logged and the work goes on.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, TypeVar

from ._log import say
from ._request import DispatchRequest
from ._response import DispatchResponse

if TYPE_CHECKING:
    from ._current import Run
    from ._outcome import Outcome

__all__ = ["after_dispatch", "after_run", "before_dispatch", "before_run", "remove"]

BeforeDispatch = Callable[[DispatchRequest], DispatchRequest | None]
AfterDispatch = Callable[[DispatchResponse], None]
BeforeRun = Callable[["Run"], None]
AfterRun = Callable[["Run", "Outcome"], None]

_B = TypeVar("_B", bound=BeforeDispatch)
_A = TypeVar("_A", bound=AfterDispatch)
_R = TypeVar("_R", bound=BeforeRun)
_O = TypeVar("_O", bound=AfterRun)
_H = TypeVar("_H", bound=Callable[..., object])


class Hooks:
    """The hooks of this process, in the order they were added; tuples, so that reading is safe."""

    def __init__(self) -> None:
        self.before_dispatch: tuple[BeforeDispatch, ...] = ()
        self.after_dispatch: tuple[AfterDispatch, ...] = ()
        self.before_run: tuple[BeforeRun, ...] = ()
        self.after_run: tuple[AfterRun, ...] = ()


hooks = Hooks()


def before_dispatch(hook: _B) -> _B:
    """Call `hook(request)` before each dispatch; a request that it returns takes its place.

    Raises:
        TypeError: It is no function, or an async one.
    """
    hooks.before_dispatch += (_callable(hook),)
    return hook


def after_dispatch(hook: _A) -> _A:
    """Call `hook(response)` after each dispatch, whatever became of it.

    Raises:
        TypeError: It is no function, or an async one.
    """
    hooks.after_dispatch += (_callable(hook),)
    return hook


def before_run(hook: _R) -> _R:
    """Call `hook(run)` in the worker before each run, in the context of the run.

    Raises:
        TypeError: It is no function, or an async one.
    """
    hooks.before_run += (_callable(hook),)
    return hook


def after_run(hook: _O) -> _O:
    """Call `hook(run, outcome)` in the worker after each run.

    Raises:
        TypeError: It is no function, or an async one.
    """
    hooks.after_run += (_callable(hook),)
    return hook


def _callable(hook: _H) -> _H:
    given: object = hook
    if not callable(given):
        raise TypeError(f"a hook is a function, not {type(hook).__name__}")
    if inspect.iscoroutinefunction(hook):
        raise TypeError(
            f"hook {getattr(hook, '__qualname__', '')} is async, and nobody would await it: "
            "write a function that starts what must be awaited"
        )
    return hook


def remove(hook: Callable[..., object]) -> None:
    """Take `hook` off whatever it was added to; nothing happens if it was not."""
    for name, added in vars(hooks).items():
        setattr(hooks, name, tuple(each for each in added if each is not hook))


_seen: ContextVar[Sequence[DispatchRequest]] = ContextVar("dispatchers_seen", default=())


@contextmanager
def seen(requests: Sequence[DispatchRequest]) -> Generator[None]:
    """Leave these very requests alone: the hooks saw them when they were held."""
    token = _seen.set(requests)
    try:
        yield
    finally:
        _seen.reset(token)


def changed(request: DispatchRequest) -> DispatchRequest:
    """The request after every `before_dispatch` hook, unless it was held after them."""
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


def tell(event: str, *values: object) -> None:
    """Call every hook of `event` with `values`."""
    for hook in getattr(hooks, event):
        try:
            hook(*values)
        except Exception as exc:  # noqa: BLE001 - a hook that raises changes nothing
            failed(event, hook, exc)


def failed(event: str, hook: object, exc: Exception) -> None:
    """Log that a hook raised: its name and the type, for the text may quote a payload."""
    name = getattr(hook, "__qualname__", type(hook).__name__)
    words = "%s hook %s raised %s; it is ignored"
    say(logging.WARNING, words, event, name, type(exc).__name__)
