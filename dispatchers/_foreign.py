"""Dispatchers that are no `BaseDispatcher`: anybody's object with the four methods."""

from __future__ import annotations

from collections.abc import Iterable
from time import monotonic
from typing import TypeGuard

from ._backend_check import FINAL
from ._contract import BaseDispatcher, Dispatcher
from ._errors import ErrorCategory
from ._refusal import unsent
from ._report import told
from ._request import DispatchRequest
from ._response import DispatchResponse, DispatchResponses, DispatchStatus
from ._verdict import failure, place_of, readable, type_name

__all__ = ["alias_of", "is_dispatcher", "safe"]

LONGEST = 255
"""Characters of an alias that a response repeats."""


def is_dispatcher(value: object) -> TypeGuard[Dispatcher]:
    """Whether a value hands requests over, as far as can be seen; never raises."""
    return not isinstance(value, type) and all(callable(_attribute(value, m)) for m in FINAL)


def alias_of(value: object) -> str:
    """An alias, or that of a dispatcher, as a response can carry it; never raises."""
    alias = value if isinstance(value, str) else _attribute(value, "alias")
    return readable(alias[:LONGEST]) if isinstance(alias, str) else ""


def _attribute(value: object, name: str) -> object:
    try:
        return getattr(value, name, None)
    except Exception:  # noqa: BLE001 - a broken property is no reason to raise (C1)
        return None


def safe(dispatcher: Dispatcher) -> Dispatcher:
    """The dispatcher itself, or around one that is not ours what keeps it from raising (C1)."""
    return dispatcher if isinstance(dispatcher, BaseDispatcher) else _Foreign(dispatcher)


class _Foreign:
    """Answers for a dispatcher that raises, or whose answer is none."""

    def __init__(self, dispatcher: Dispatcher) -> None:
        self._dispatcher = dispatcher

    @property
    def alias(self) -> str:
        """The dispatcher's own."""
        return alias_of(self._dispatcher)

    def dispatch(self, request: DispatchRequest, /) -> DispatchResponse:
        """Hand over one request."""
        started = monotonic()
        try:
            return self._one(self._dispatcher.dispatch(request))
        except Exception as exc:  # noqa: BLE001 - C1
            return self._unknown(request, exc, started)

    async def adispatch(self, request: DispatchRequest, /) -> DispatchResponse:
        """The same without blocking the event loop."""
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
        """The same without blocking the event loop."""
        given, started = list(requests), monotonic()
        try:
            return self._each(await self._dispatcher.adispatch_many(given), given)
        except Exception as exc:  # noqa: BLE001 - C1
            return self._all_unknown(given, exc, started)

    def _one(self, answer: object) -> DispatchResponse:
        if isinstance(answer, DispatchResponse):
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
        """It raised, and nobody can tell how far it got (C3)."""
        message = f"dispatcher {self.alias!r}: {type_name(exc)} at {place_of(exc)}"
        error = failure(ErrorCategory.INTERNAL, message, exc)
        unknown, elapsed = DispatchStatus.UNKNOWN, monotonic() - started
        return told(unsent(self.alias, "", request, unknown, error, exc, elapsed))
