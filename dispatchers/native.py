"""Dispatch to work that a backend's users already have there, by its name; for adapters.

An adapter derives its call from `NativeCall`, and writes a request for which `is_native` is true in
its backend's own shape, with its `arguments` as they are. What becomes of the work in a
worker, retries included, is up to the backend.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from time import monotonic
from typing import Any, Protocol

from pydantic import ValidationError

from dispatchers._config.api import get_dispatcher
from dispatchers._dispatch.base import BaseDispatcher
from dispatchers._dispatch.reporting import refused
from dispatchers._errors import ErrorCategory, RejectedError
from dispatchers._models.envelope import encode
from dispatchers._models.request import NATIVE, DispatchRequest
from dispatchers._models.response import DispatchResponse
from dispatchers._models.validation import options_error
from dispatchers._payload.errors import PayloadError

__all__ = ["NativeCall", "arguments", "former_envelope", "is_native"]


class NativeCall:
    """Dispatches to one piece of work of a backend's own.

    Args:
        name: Its name in the backend.

        dispatcher: The alias of a dispatcher of that backend.

        options: As a request takes them.
    """

    backend = ""
    """The registered name of the backend."""
    kind = "task"
    """The backend's word for it, for messages."""
    honoured = frozenset(
        {"queue", "priority", "delay", "eta", "expires", "time_limit", "deadline"}
        | {"idempotency_key", "deduplicate"}
    )
    """Options that reach the backend, or that its capabilities refuse; others are refused here."""

    def __init__(self, name: str, dispatcher: str, options: Mapping[str, Any]) -> None:
        self.name = name
        """Its name in the backend."""
        self._dispatcher = dispatcher
        self._options = options

    def request(self, *args: Any, **kwargs: Any) -> DispatchRequest:
        """Return the request that `dispatch` would hand over.

        Raises:
            RejectedError: An option does not fit or would not reach the backend, or JSON would
                change an argument.
        """
        # Refused, not left out: an option that has no effect would be found out in production.
        dropped = sorted((self._options.keys() & DispatchRequest.model_fields) - self.honoured)
        if dropped:
            raise self._rejected(
                ErrorCategory.UNSUPPORTED,
                f"{', '.join(dropped)} cannot be given to {self.backend}'s own {self.kind}: "
                f"set it there; possible here are {', '.join(sorted(self.honoured))}",
            )
        try:
            return DispatchRequest.model_validate(self._values(args, kwargs))
        except ValidationError as exc:
            text = str(options_error(exc, DispatchRequest, f"{self.kind} {self.name!r}"))
            raise RejectedError(ErrorCategory.INVALID, text) from exc

    def _values(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
        return {
            **self._options,
            "task": self.name,
            "fingerprint": NATIVE,
            "payload": {"args": list(args), "kwargs": kwargs},
        }

    def dispatch(self, *args: Any, **kwargs: Any) -> DispatchResponse:
        """Hand it over, and say what became of it. Never raises an `Exception`."""
        found = self._prepared(args, kwargs)
        return found if isinstance(found, DispatchResponse) else found[0].dispatch(found[1])

    async def adispatch(self, *args: Any, **kwargs: Any) -> DispatchResponse:
        """Hand it over without blocking the event loop."""
        found = self._prepared(args, kwargs)
        return found if isinstance(found, DispatchResponse) else await found[0].adispatch(found[1])

    def _prepared(
        self, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[BaseDispatcher, DispatchRequest] | DispatchResponse:
        """Return dispatcher and request, or the answer where there is no dispatcher to give one."""
        started = monotonic()
        try:
            return get_dispatcher(self._dispatcher), self.request(*args, **kwargs)
        except Exception as exc:  # noqa: BLE001 - C1
            return refused(str(self._dispatcher), self.backend, exc, started)

    def _rejected(self, category: ErrorCategory, message: str) -> RejectedError:
        return RejectedError(category, f"{self.kind} {self.name!r}: {message}")


def is_native(request: DispatchRequest) -> bool:
    """Tell whether a request is for a backend's own work, and has its arguments."""
    return request.is_native


def arguments(request: DispatchRequest) -> tuple[list[Any], dict[str, Any]]:
    """Return the arguments of native work, by position and by name."""
    payload: Any = request.payload
    return list(payload["args"]), dict(payload["kwargs"])


class ConvertedTask(Protocol):
    """The part of a task that its former messages need."""

    name: str
    function: Callable[..., Any]

    def request(self, *args: Any, **kwargs: Any) -> DispatchRequest:
        """Return the request of a call with these arguments."""
        ...


def former_envelope(
    task: ConvertedTask,
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    *,
    id: str = "",  # noqa: A002
) -> bytes:
    """Return the envelope of a message that a backend's own client wrote for a converted task.

    With it, the message is a run like any other: attempts, back-off, limits and hooks apply.

    Args:
        task: The task.

        args: Arguments by position, as the message has them.

        kwargs: Arguments by name.

        id: The message's id, so that its deliveries are the same request; empty makes a new one.

    Raises:
        ValueError: JSON cannot carry them, and they do not fit the task either.
    """
    try:
        request = task.request(*args, **kwargs)
    except PayloadError:  # text in place of a typed value: the worker reads it as JSON
        values = {"task": task.name, "payload": _by_name(task, args, kwargs)}
        request = DispatchRequest.model_validate(values)
    return encode(request.replace(id=id) if id else request)


def _by_name(task: ConvertedTask, args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """Return arguments by name; those without one are kept, for the worker to say what is wrong."""
    try:
        return dict(inspect.signature(task.function).bind(*args, **kwargs).arguments)
    except TypeError:
        # Too many or unknown ones: the worker's error, and dead letter, should show them.
        return {**{f"argument {place}": each for place, each in enumerate(args, 1)}, **kwargs}
