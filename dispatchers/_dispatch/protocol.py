"""Protocol of a dispatcher, and the answer of an adapter."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple, Protocol, TypeGuard, TypeVar

from dispatchers._errors import public
from dispatchers._models.request import DispatchRequest
from dispatchers._models.response import (
    DispatchFailure,
    DispatchResponse,
    DispatchResponses,
    DispatchStatus,
)

T = TypeVar("T")

FINAL = ("dispatch", "adispatch", "dispatch_many", "adispatch_many")


CONTRACT = 1
"""The number of the contract between the core and adapters that this core speaks."""


Item = tuple[DispatchRequest, bytes]
"""A request and its envelope."""


class Dispatcher(Protocol):
    """Protocol of a dispatcher, as callers need it."""

    @property
    def alias(self) -> str:
        """Name it is configured under."""
        ...

    def dispatch(self, request: DispatchRequest, /) -> DispatchResponse:
        """Hand over one request. Never raises."""
        ...

    async def adispatch(self, request: DispatchRequest, /) -> DispatchResponse:
        """Hand over without blocking the event loop."""
        ...

    def dispatch_many(self, requests: Iterable[DispatchRequest], /) -> DispatchResponses:
        """Hand over several requests under one deadline. Never raises."""
        ...

    async def adispatch_many(self, requests: Iterable[DispatchRequest], /) -> DispatchResponses:
        """Hand over without blocking the event loop."""
        ...


@public
class Sent(NamedTuple):
    """Answer of an adapter after handing over one envelope."""

    task_id: str | None = None
    """The backend's own identifier of the work."""
    status: DispatchStatus = DispatchStatus.ACCEPTED
    """`ACCEPTED`, `DUPLICATE`, `DEFERRED`, or for work that ran here `EXECUTED` or `FAILED`."""
    confirmed: bool | None = None
    """Whether the backend itself confirmed; None is what the capabilities say."""
    durable: bool | None = None
    """Whether the work survives; None is what the capabilities say."""
    error: DispatchFailure | None = None
    """Why, with `FAILED`."""
    exception: BaseException | None = None
    """What the task raised, with `FAILED`."""


def is_instance(value: object, kind: type[T]) -> TypeGuard[T]:
    """Return `isinstance(value, kind)`; false for a proxy whose target is not there.

    Web frameworks hand out proxies whose `__class__` raises outside of a request.
    """
    try:
        return isinstance(value, kind)
    except Exception:  # noqa: BLE001 - C1: asking a value its class runs foreign code
        return False
