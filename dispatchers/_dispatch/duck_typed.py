"""Duck-typed dispatchers: any object with the four methods."""

from __future__ import annotations

from collections.abc import Iterable
from time import monotonic
from typing import TypeGuard

from dispatchers._dispatch.base import BaseDispatcher
from dispatchers._dispatch.error_mapping import category_of, failure, place_of, readable, type_name
from dispatchers._dispatch.protocol import FINAL, Dispatcher, is_instance
from dispatchers._dispatch.reporting import told, unsent
from dispatchers._models.request import DispatchRequest
from dispatchers._models.response import DispatchResponse, DispatchResponses, DispatchStatus

LONGEST = 255
"""Characters of an alias that a response repeats."""


def is_dispatcher(value: object) -> TypeGuard[Dispatcher]:
    """Return true for a value with the four methods of a dispatcher; never raises."""
    return not is_instance(value, type) and all(callable(_attribute(value, m)) for m in FINAL)


def alias_of(value: object) -> str:
    """Return the alias for a response; never raises."""
    alias = value if is_instance(value, str) else _attribute(value, "alias")
    return readable(alias[:LONGEST]) if is_instance(alias, str) else ""


def _attribute(value: object, name: str) -> object:
    try:
        return getattr(value, name, None)
    except Exception:  # noqa: BLE001 - a broken property must not raise (C1)
        return None


def safe(dispatcher: Dispatcher) -> Dispatcher:
    """Return a dispatcher that never raises (C1)."""
    ours = is_instance(dispatcher, BaseDispatcher)  # type: ignore[type-abstract] # is asked only
    return dispatcher if ours else _Foreign(dispatcher)


class _Foreign:
    """Answers for a dispatcher that raises, or whose answer is none."""

    def __init__(self, dispatcher: Dispatcher) -> None:
        self._dispatcher = dispatcher

    @property
    def alias(self) -> str:
        """Alias of the dispatcher."""
        return alias_of(self._dispatcher)

    def dispatch(self, request: DispatchRequest, /) -> DispatchResponse:
        """Hand over one request."""
        started = monotonic()
        try:
            return self._one(self._dispatcher.dispatch(request))
        except Exception as exc:  # noqa: BLE001 - C1
            return self._unknown(request, exc, started)

    async def adispatch(self, request: DispatchRequest, /) -> DispatchResponse:
        """Hand over without blocking the event loop."""
        started = monotonic()
        try:
            return self._one(await self._dispatcher.adispatch(request))
        except Exception as exc:  # noqa: BLE001 - C1
            return self._unknown(request, exc, started)

    def dispatch_many(self, requests: Iterable[DispatchRequest], /) -> DispatchResponses:
        """Hand over several requests."""
        given, started = list(requests), monotonic()
        try:
            return self._each(self._dispatcher.dispatch_many(given), given)
        except Exception as exc:  # noqa: BLE001 - C1
            return self._all_unknown(given, exc, started)

    async def adispatch_many(self, requests: Iterable[DispatchRequest], /) -> DispatchResponses:
        """Hand over without blocking the event loop."""
        given, started = list(requests), monotonic()
        try:
            return self._each(await self._dispatcher.adispatch_many(given), given)
        except Exception as exc:  # noqa: BLE001 - C1
            return self._all_unknown(given, exc, started)

    def _one(self, answer: object) -> DispatchResponse:
        if is_instance(answer, DispatchResponse):
            return answer
        raise TypeError(f"{type(self._dispatcher).__name__} gave no DispatchResponse")

    def _each(self, answers: Iterable[object], given: list[DispatchRequest]) -> DispatchResponses:
        responses = DispatchResponses(self._one(answer) for answer in answers)
        if len(responses) != len(given):
            raise TypeError(f"{len(responses)} responses for {len(given)} requests")
        return responses

    def _all_unknown(
        self, given: list[DispatchRequest], exc: Exception, started: float
    ) -> DispatchResponses:
        return DispatchResponses(self._unknown(request, exc, started) for request in given)

    def _unknown(
        self, request: DispatchRequest, exc: Exception, started: float
    ) -> DispatchResponse:
        return told(unknown(self.alias, request, exc, started))


def unknown(
    alias: str, request: DispatchRequest, exc: Exception, started: float
) -> DispatchResponse:
    """Return the answer for a dispatcher that raised, and may have got far (C3)."""
    message = f"dispatcher {alias!r}: {type_name(exc)} at {place_of(exc)}"
    error = failure(category_of(exc), message, exc)
    status, elapsed = DispatchStatus.UNKNOWN, monotonic() - started
    return unsent(alias, "", request, status, error, exc, elapsed)
