"""A batch of one task's dispatches."""

from __future__ import annotations

from collections.abc import Iterator
from time import monotonic
from typing import TYPE_CHECKING, Generic, ParamSpec

from ._request import DispatchRequest
from ._response import DispatchResponse, DispatchResponses

if TYPE_CHECKING:
    from ._dispatching import Dispatching

__all__ = ["TaskBatch"]

P = ParamSpec("P")


class TaskBatch(Generic[P]):
    """Work to dispatch together: `add` and `dispatch` raise no `Exception`.

    What does not fit is kept as the answer that it will get, in its place.
    """

    def __init__(self, dispatching: Dispatching[P]) -> None:
        self._dispatching = dispatching
        self._items: list[DispatchRequest | DispatchResponse] = []

    def add(self, /, *args: P.args, **kwargs: P.kwargs) -> None:
        """Add one call of the task."""
        started = monotonic()
        dispatching = self._dispatching
        try:
            self._items.append(dispatching._prepared(args, kwargs)[1])
        except Exception as exc:  # noqa: BLE001 - C1: the answer stands in its place
            self._items.append(dispatching._refused(exc, started))

    def __repr__(self) -> str:
        return f"<batch of {len(self._items)} of task {self._dispatching._task.name!r}>"

    def __len__(self) -> int:
        return len(self._items)

    def dispatch(self) -> DispatchResponses:
        """Hand everything over under one deadline; one response each, in order."""
        requests = self._requests()
        if not requests:
            return self._merged(iter(()))
        started = monotonic()
        try:
            dispatcher = self._dispatching._route()[1]
        except Exception as exc:  # noqa: BLE001 - C1: the configuration changed since `add`
            return self._merged(self._dispatching._refused(exc, started) for _ in requests)
        return self._merged(iter(dispatcher.dispatch_many(requests)))

    async def adispatch(self) -> DispatchResponses:
        """The same without blocking the event loop."""
        requests = self._requests()
        if not requests:
            return self._merged(iter(()))
        started = monotonic()
        try:
            dispatcher = self._dispatching._route()[1]
        except Exception as exc:  # noqa: BLE001 - C1
            return self._merged(self._dispatching._refused(exc, started) for _ in requests)
        return self._merged(iter(await dispatcher.adispatch_many(requests)))

    def _requests(self) -> list[DispatchRequest]:
        return [item for item in self._items if isinstance(item, DispatchRequest)]

    def _merged(self, answers: Iterator[DispatchResponse]) -> DispatchResponses:
        return DispatchResponses(
            item if isinstance(item, DispatchResponse) else next(answers) for item in self._items
        )
