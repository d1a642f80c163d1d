"""Undoing what was done when a later part fails."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable
from functools import partial
from types import TracebackType
from typing import Any, ParamSpec, Self, overload

from dispatchers._tasks.calls import Dispatching
from dispatchers._tasks.task import Task
from dispatchers.workflows._futures import Restart
from dispatchers.workflows._language import within

P = ParamSpec("P")


class Undo:
    """Actions that undo what a block has done, run backwards if it fails or is cancelled.

    ::

        async with undo() as undone:
            payment = await charge.step(order)
            undone.by(refund, payment)
    """

    def __init__(self) -> None:
        self._actions: list[Callable[[], Awaitable[Any]]] = []
        self._is_open = False

    @overload
    def by(self, action: Task[P, Any], /, *args: P.args, **kwargs: P.kwargs) -> None: ...
    @overload
    def by(self, action: Dispatching[P, Any], /, *args: P.args, **kwargs: P.kwargs) -> None: ...
    @overload
    def by(
        self, action: Callable[P, Awaitable[Any]], /, *args: P.args, **kwargs: P.kwargs
    ) -> None: ...
    def by(self, action: Any, /, *args: Any, **kwargs: Any) -> None:
        """Add an action: a task, which is run as a step, or an async function of the workflow.

        Raises:
            TypeError: It is a plain function, which would be called again at every replay.

            RuntimeError: The block has not begun or has ended, so that nothing would undo it.
        """
        if not self._is_open:
            raise RuntimeError(
                "undo() undoes nothing outside of its block: write `async with undo() as undone:` "
                "and add the action within"
            )
        if isinstance(action, Dispatching):
            self._actions.append(partial(action.step, *args, **kwargs))
        elif inspect.iscoroutinefunction(action):
            self._actions.append(partial(action, *args, **kwargs))
        else:
            raise TypeError(
                f"{action!r} undoes nothing durably: give a task, or an async function that "
                "awaits steps"
            )

    async def __aenter__(self) -> Self:
        within("undo()")
        self._is_open = True
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._is_open = False
        if exc is None or isinstance(exc, Restart):
            return
        failures = [
            failure for action in reversed(self._actions) if (failure := await _run(action))
        ]
        if failures:
            text = f"{len(failures)} of {len(self._actions)} actions could not undo what was done"
            raise BaseExceptionGroup(text, [exc, *failures])


async def _run(action: Callable[[], Awaitable[Any]]) -> BaseException | None:
    try:
        await action()
    except (Exception, asyncio.CancelledError) as exc:  # noqa: BLE001 - the others are tried still
        return exc
    return None


def undo() -> Undo:
    """Return a block whose parts are undone, the last first, if it fails or is cancelled."""
    return Undo()
