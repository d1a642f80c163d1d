"""`override`: other settings for a while."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from functools import wraps
from types import TracebackType
from typing import Any, ParamSpec, Self, TypeVar, cast

from dispatchers._config.checks import raise_all
from dispatchers._config.container import Given, is_dispatcher
from dispatchers._config.layers import Layer, code_layer
from dispatchers._config.lifecycle import View, state
from dispatchers._errors import ConfigurationError

__all__ = ["explicit_layer", "override"]

P = ParamSpec("P")


T = TypeVar("T")


def explicit_layer(settings: object, target: str | None, origin: str) -> Layer:
    """Return a layer given from code, with the target selected."""
    values = code_layer({} if settings is None else settings, origin).values
    if target is not None:
        values["target"] = target
    return Layer(values, origin)


class override:  # noqa: N801 - reads as a verb, like a function
    """Use other settings for a while: a context manager or decorator.

    The whole process sees them, other threads too. They beat every other source; a dispatcher
    or a task that they name begins afresh. On exit everything is as it was.

    ::

        with override(default="memory"):
            ...

    Args:
        settings: In the shape of `dispatchers.toml`.

        target: The target to select.

        dispatchers: By alias: a dispatcher (not owned, never closed), a table of `backend` and
            options, or the name of a backend.

    Raises:
        ConfigurationError: On entering, if something of it is wrong.
    """

    def __init__(
        self,
        settings: Mapping[str, object] | None = None,
        /,
        *,
        target: str | None = None,
        **dispatchers: Given,
    ) -> None:
        self._layer = explicit_layer(settings, target, "override()")
        self._dispatchers = {k: _given(k, v) for k, v in dispatchers.items()}
        self._entered: list[tuple[Layer, Layer]] = []

    def __enter__(self) -> Self:
        # Another layer each time: it is told apart by identity when it is left.
        own = Layer(self._layer.values, self._layer.origin, dispatchers=self._dispatchers)
        named = None if self._layer.values else self._dispatchers
        explicit = state.view.explicit
        state.change(
            lambda view: view.changed((*view.stack, own), view.explicit, anew=False),
            lambda snapshot: raise_all(snapshot, named),
        )
        self._entered.append((own, explicit))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        own, explicit = self._entered.pop()
        state.change(lambda view: _without(view, own, explicit))

    def __call__(self, function: Callable[P, T]) -> Callable[P, T]:
        """Decorate a function or coroutine function to run with these settings."""
        if inspect.iscoroutinefunction(function):
            return cast("Callable[P, T]", self._around_async(function))

        @wraps(function)
        def inside(*args: P.args, **kwargs: P.kwargs) -> T:
            with self:
                return function(*args, **kwargs)

        return inside

    def _around_async(self, function: Callable[P, Any]) -> Callable[P, Any]:
        @wraps(function)
        async def inside(*args: P.args, **kwargs: P.kwargs) -> Any:
            with self:
                return await function(*args, **kwargs)

        return inside


def _without(view: View, own: Layer, explicit: Layer) -> View:
    # Not simply the last one: threads and tasks may leave in another order than they entered.
    stack = tuple(each for each in view.stack if each is not own)
    return view.changed(stack, explicit, anew=view.explicit is not explicit)


def _given(alias: str, given: object) -> Given:
    if isinstance(given, str) or is_dispatcher(given):
        return given
    if isinstance(given, Mapping):
        return code_layer(given, f"override({alias}=...)").values
    raise ConfigurationError(
        f"override({alias}=...) takes a dispatcher, a table of options or the name of a backend, "
        f"not {type(given).__name__}"
    )
