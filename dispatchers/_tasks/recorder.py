"""The workflow in which a task is called, as the task sees it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Protocol

from dispatchers._models.envelope import Head
from dispatchers._models.response import DispatchResponse

if TYPE_CHECKING:
    from asyncio import Future

    from dispatchers._tasks.definition import TaskDefinition


class Outgoing(Protocol):
    """Head and way of a request, looked up only where one is made."""

    def _head(self) -> Head:
        """Return all of the request but id, time and payload."""
        ...

    def _alias(self) -> str:
        """Return the alias of the dispatcher that is to get it."""
        ...


class Recorder(Protocol):
    """Recorder of what the code of a workflow asks for."""

    def step(self, task: TaskDefinition, payload: bytes, outgoing: Outgoing) -> Future[Any]:
        """Ask for a run of the task, and return the future of its result."""
        ...

    def send(self, task: TaskDefinition, payload: bytes, outgoing: Outgoing) -> DispatchResponse:
        """Hold a dispatch until the turn is committed."""
        ...

    def call(self, task: TaskDefinition, step: Callable[[], Future[Any]]) -> Awaitable[Any]:
        """Return the awaitable of an async task's call; refuse that of a sync one."""
        ...


recording: ContextVar[Recorder | None] = ContextVar("dispatchers_recording", default=None)
"""The recorder of the workflow whose code is running; None anywhere else."""
