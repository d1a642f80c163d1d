"""Dramatiq's own actors: dispatched to by name as they are."""

from __future__ import annotations

from typing import Any

from dispatchers import (
    ConfigurationError,
    DispatchFailure,
    DispatchRequest,
    DispatchResponse,
    DispatchStatus,
    ErrorCategory,
    get_dispatcher,
)

from ._message import NATIVE

__all__ = ["NativeActor", "native"]


def native(actor: Any, *, dispatcher: str = "default", **options: Any) -> NativeActor:
    """An actor that somebody already has, to be dispatched to without rewriting it.

    Its message is the one that `send` writes; what it does with it, retries included, is
    Dramatiq's.

    Args:
        actor: The actor, or its name; it need not be registered here.

        dispatcher: The alias of a dispatcher of `dramatiq`.

        options: `queue`, `priority`, `delay`, `eta`, `expires`, `time_limit` or `deadline`, as a
            request takes them. Without `queue` it is the actor's, where that is known.
    """
    if not isinstance(actor, str):
        options = {"queue": str(actor.queue_name), **options}
    return NativeActor(
        actor if isinstance(actor, str) else str(actor.actor_name), dispatcher, options
    )


class NativeActor:
    """Dispatches to one of Dramatiq's own actors; made by `native`."""

    def __init__(self, name: str, dispatcher: str, options: dict[str, Any]) -> None:
        self.name = name
        """Its name in Dramatiq."""
        self._dispatcher = dispatcher
        self._options = options

    def request(self, *args: Any, **kwargs: Any) -> DispatchRequest:
        """The request that `dispatch` would hand over.

        Raises:
            ValidationError: An option does not fit, or JSON would change an argument.
        """
        payload = {"args": list(args), "kwargs": kwargs}
        values = {**self._options, "task": self.name, "headers": {NATIVE: "1"}, "payload": payload}
        return DispatchRequest.model_validate(values)

    def dispatch(self, *args: Any, **kwargs: Any) -> DispatchResponse:
        """Hand it over, and say what became of it. Never raises an `Exception`."""
        try:
            request = self.request(*args, **kwargs)
            found = get_dispatcher(self._dispatcher)
        except Exception as exc:  # noqa: BLE001 - C1
            return self._refused(exc)
        return found.dispatch(request)

    async def adispatch(self, *args: Any, **kwargs: Any) -> DispatchResponse:
        """The same without blocking the event loop."""
        try:
            request = self.request(*args, **kwargs)
            found = get_dispatcher(self._dispatcher)
        except Exception as exc:  # noqa: BLE001 - C1
            return self._refused(exc)
        return await found.adispatch(request)

    def _refused(self, exc: Exception) -> DispatchResponse:
        wrong = isinstance(exc, ConfigurationError)  # which is a ValueError as well
        invalid = isinstance(exc, ValueError | TypeError) and not wrong
        return DispatchResponse(
            request_id="",
            dispatcher=self._dispatcher,
            backend="dramatiq",
            status=DispatchStatus.REJECTED,
            error=DispatchFailure(
                category=ErrorCategory.INVALID if invalid else ErrorCategory.CONFIGURATION,
                retryable=False,
                exception_type=type(exc).__name__,
                message=f"actor {self.name!r}: {exc}",
            ),
        )
