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
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

from dispatchers._dispatch.hook_registry import hooks
from dispatchers._models.request import DispatchRequest
from dispatchers._models.response import DispatchResponse

if TYPE_CHECKING:
    from dispatchers._models.outcome import Outcome
    from dispatchers._worker.run import Run

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


def before_dispatch(hook: _B) -> _B:
    """Call `hook(request)` before each dispatch; a request that it returns takes its place.

    Raises:
        TypeError: It is not a function, or an async one.
    """
    hooks.before_dispatch += (_callable(hook),)
    return hook


def after_dispatch(hook: _A) -> _A:
    """Call `hook(response)` after each dispatch, whatever became of it.

    Raises:
        TypeError: It is not a function, or an async one.
    """
    hooks.after_dispatch += (_callable(hook),)
    return hook


def before_run(hook: _R) -> _R:
    """Call `hook(run)` in the worker before each run, in the context of the run.

    Raises:
        TypeError: It is not a function, or an async one.
    """
    hooks.before_run += (_callable(hook),)
    return hook


def after_run(hook: _O) -> _O:
    """Call `hook(run, outcome)` in the worker after each run.

    Raises:
        TypeError: It is not a function, or an async one.
    """
    hooks.after_run += (_callable(hook),)
    return hook


def _callable(hook: _H) -> _H:
    given: object = hook
    if not callable(given):
        raise TypeError(f"a hook is a function, not {type(hook).__name__}")
    # Hooks run on threads without an event loop, too.
    if inspect.iscoroutinefunction(hook):
        raise TypeError(
            f"hook {getattr(hook, '__qualname__', '')} is async, and nothing would await it: "
            "write a function that starts what must be awaited"
        )
    return hook


def remove(hook: Callable[..., object]) -> None:
    """Take `hook` off whatever it was added to; nothing happens if it was not."""
    # New tuples: a dispatch under way goes on with those that it began with.
    for name, added in vars(hooks).items():
        setattr(hooks, name, tuple(each for each in added if each is not hook))
