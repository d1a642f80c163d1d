"""RQ's own jobs: functions that somebody already has, dispatched to by their import path."""

from __future__ import annotations

from collections.abc import Callable
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

__all__ = ["NativeJob", "native"]


def native(
    function: Callable[..., Any] | str, *, dispatcher: str = "default", **options: Any
) -> NativeJob:
    """A function that somebody already runs with RQ, to be dispatched to without rewriting it.

    Its job is the one that `enqueue` writes, with RQ's JSON serializer: a worker of RQ's own needs
    `--serializer rq.serializers.JSONSerializer`. What becomes of it, retries included, is RQ's.

    Args:
        function: The function, or its import path where this process does not have it.

        dispatcher: The alias of a dispatcher of `rq`.

        options: `queue`, `delay`, `eta`, `expires`, `time_limit`, `deadline`, `deduplicate` or
            `idempotency_key`, as a request takes them.
    """
    return NativeJob(path_of(function), dispatcher, options)


def path_of(function: Callable[..., Any] | str) -> str:
    """The path that a worker imports it by."""
    if isinstance(function, str):
        return function
    return f"{function.__module__}.{function.__qualname__}"


class NativeJob:
    """Dispatches one of RQ's own jobs; made by `native`."""

    def __init__(self, name: str, dispatcher: str, options: dict[str, Any]) -> None:
        self.name = name
        """The import path of its function."""
        self._dispatcher = dispatcher
        self._options = options

    def request(self, *args: Any, **kwargs: Any) -> DispatchRequest:
        """The request that `dispatch` would hand over.

        Raises:
            ValidationError: An option does not fit, or JSON would change an argument.
        """
        headers = {**self._options.get("headers", {}), NATIVE: "1"}
        payload = {"args": list(args), "kwargs": kwargs}
        values = {**self._options, "task": self.name, "headers": headers, "payload": payload}
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
            backend="rq",
            status=DispatchStatus.REJECTED,
            error=DispatchFailure(
                category=ErrorCategory.INVALID if invalid else ErrorCategory.CONFIGURATION,
                retryable=False,
                exception_type=type(exc).__name__,
                message=f"job {self.name!r}: {exc}",
            ),
        )
