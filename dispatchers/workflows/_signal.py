"""Signals: typed values that an execution is sent from outside."""

from __future__ import annotations

from typing import Any, Generic, TypeVar

from dispatchers._models.response import DispatchResponse
from dispatchers._payload.errors import PayloadError
from dispatchers._payload.result import ResultCodec
from dispatchers.workflows._events import Event
from dispatchers.workflows._keys import checked_name
from dispatchers.workflows._language import within
from dispatchers.workflows._workflow import Workflow

T = TypeVar("T")


class Signal(Generic[T]):
    """Signal of a workflow, at module level: `approval = Signal("approval", Approval)`.

    Args:
        name: The name, the same for sender and workflow.

        kind: The type of its value, which JSON must carry exactly.

    Raises:
        DeclarationError: Values of that type could not travel, or the name is no text that can.
    """

    def __init__(self, name: str, kind: type[T]) -> None:
        checked_name("a signal", name)
        self.name = name
        self.codec = ResultCodec(kind, "signal")

    async def receive(self) -> T:
        """Wait for the next one; those that came before are received first, in their order.

        Raises:
            NotDurableError: No workflow is running here.
        """
        commands = within(f"signal {self.name!r}: receive()")
        body = await commands.signals.receive(self.name)
        try:
            received: T = self.codec.decode(body)
        except PayloadError as exc:
            commands.halt(f"signal {self.name!r}: the recorded value does not fit: {exc}")
            raise
        return received

    def send(self, workflow: Workflow[..., Any], key: str, value: T) -> DispatchResponse:
        """Send a value to an execution, which need not have begun; how it went is the answer.

        Args:
            workflow: The workflow.

            key: The idempotency key of the execution's start, or the id of the request.

            value: The value; one that does not fit is the answer, as is a key that does not.

        Raises:
            TypeError: The first argument is no workflow.
        """
        event = self._event(workflow, value)
        return workflow._send(key, event) if isinstance(event, Event) else event

    async def asend(self, workflow: Workflow[..., Any], key: str, value: T) -> DispatchResponse:
        """Send a value to an execution without blocking the event loop."""
        event = self._event(workflow, value)
        return await workflow._asend(key, event) if isinstance(event, Event) else event

    def _event(self, workflow: Workflow[..., Any], value: T) -> Event | DispatchResponse:
        if not isinstance(workflow, Workflow):
            raise TypeError(f"{self!r} is sent to a function with @workflow, not to {workflow!r}")
        try:
            return Event(kind="signal", name=self.name, body=self.codec.encode(value).decode())
        except PayloadError as exc:
            return workflow._refused(PayloadError(f"signal {self.name!r}: {exc}"))

    def __repr__(self) -> str:
        return f"<signal {self.name!r}>"
