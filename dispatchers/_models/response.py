"""Responses: status and failure of a dispatch."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from enum import StrEnum
from typing import Any, Self, overload

from pydantic import Field, PrivateAttr, model_validator

from dispatchers._errors import PUBLIC, ErrorCategory, public
from dispatchers._models.base import Model
from dispatchers._models.request import DispatchRequest


class DispatchError(Exception):
    """A dispatch was not `ok`, and the caller asked for an exception.

    Attributes:
        response: The response it was raised from.
    """

    __module__ = PUBLIC

    def __init__(self, response: DispatchResponse) -> None:
        self.response = response
        super().__init__(response)

    def __str__(self) -> str:
        error = self.response.error
        what = f"{error.category}: {error.message}" if error else "no error"
        return f"dispatch through {self.response.dispatcher!r} was {self.response.status}: {what}"


class DispatchUnknownError(DispatchError):
    """It may or may not have been handed over; repeat only where duplicates are recognised."""

    __module__ = PUBLIC


@public
class DispatchStatus(StrEnum):
    """Status of a dispatch; the first four are `ok`."""

    EXECUTED = "executed"
    """Ran here, to its end."""
    ACCEPTED = "accepted"
    """The backend confirmed that it has the work."""
    DUPLICATE = "duplicate"
    """The backend already had this key."""
    DEFERRED = "deferred"
    """Held here until the commit, or until a broker is back; a callback gets the later response."""
    FAILED = "failed"
    """Ran here, and the task failed."""
    REJECTED = "rejected"
    """Certainly not handed over: safe to give to another backend."""
    UNKNOWN = "unknown"
    """May or may not have been handed over: repeat only where duplicates are recognised."""


OK = frozenset(
    {
        DispatchStatus.EXECUTED,
        DispatchStatus.ACCEPTED,
        DispatchStatus.DUPLICATE,
        DispatchStatus.DEFERRED,
    }
)


@public
class DispatchFailure(Model):
    """Why a dispatch is not `ok`."""

    category: ErrorCategory
    """What callers branch on."""
    retryable: bool = False
    """Repeating this request may help and cannot duplicate the work."""
    exception_type: str | None = None
    """The dotted name of the exception's class, where there was one."""
    message: str = ""
    """For people: what happened, to which object, what to do."""


@public
class PassedOver(Model):
    """A dispatcher that rejected a request before another one got it."""

    dispatcher: str
    """Its alias."""
    error: DispatchFailure
    """Why it did not take the work."""


@public
class DispatchResponse(Model):
    """Response to one dispatch: frozen, true when `ok`, JSON both ways."""

    request_id: str
    """The id of the request."""
    task_id: str | None = None
    """The backend's own identifier, where it gave one."""
    dispatcher: str
    """The alias of the dispatcher."""
    backend: str
    """The registered name of the backend; empty when none could be chosen."""
    status: DispatchStatus
    """What is known about the work."""
    confirmed: bool = False
    """The backend itself said that it has the work, or the work ran."""
    durable: bool = False
    """The work survives the death of every process involved."""
    waived: tuple[str, ...] = ()
    """Options the request asked for, which the configuration allows to be left out."""
    passed: tuple[PassedOver, ...] = ()
    """The dispatchers that `failover` asked before, in order, with their errors."""
    error: DispatchFailure | None = None
    """Why it is not `ok`; None when it is."""
    elapsed: float = Field(default=0.0, ge=0)
    """Seconds that the call took."""
    request: DispatchRequest | None = Field(default=None, repr=False)
    """What was dispatched; None when the arguments made no request."""
    _exception: BaseException | None = PrivateAttr(default=None)

    @model_validator(mode="after")
    def _error_where_not_ok(self) -> Self:
        if (self.error is None) is not self.ok:
            raise ValueError(f"a response that is {self.status} has error exactly when not ok")
        return self

    @property
    def ok(self) -> bool:
        """True for executed, accepted, duplicate and deferred."""
        return self.status in OK

    @property
    def is_sync(self) -> bool:
        """The work ran in this process during the call."""
        return self.status in (DispatchStatus.EXECUTED, DispatchStatus.FAILED)

    def __bool__(self) -> bool:
        return self.ok

    def raise_for_error(self) -> Self:
        """Return this response if it is `ok`.

        Raises:
            DispatchUnknownError: The status is `unknown`.

            DispatchError: The status is `failed` or `rejected`.
        """
        if self.ok:
            return self
        unknown = self.status is DispatchStatus.UNKNOWN
        # The task's or client's own exception as the cause: its traceback shows the place.
        raise (DispatchUnknownError if unknown else DispatchError)(self) from self.exception

    @property
    def exception(self) -> BaseException | None:
        """Exception raised in this process; neither travels nor compares."""
        return (self.__pydantic_private__ or {}).get("_exception")

    def __getstate__(self) -> dict[Any, Any]:
        """Without the exception, which may be one that no other process could make."""
        return {**super().__getstate__(), "__pydantic_private__": None}

    def __deepcopy__(self, memo: dict[int, Any] | None = None) -> Self:
        """Itself: nothing of it can change."""
        return self

    def __hash__(self) -> int:
        # pydantic's own hash would hash the payload, which may be large or hold dicts.
        return hash(self.request_id)


MAX_SHOWN = 20
"""Responses in the `repr` of those of a batch."""


@public
class DispatchResponses(Sequence[DispatchResponse]):
    """The responses of several dispatches, in the order of their requests."""

    __slots__ = ("_items",)

    def __init__(self, items: Iterable[DispatchResponse] = ()) -> None:
        self._items = tuple(items)

    @overload
    def __getitem__(self, index: int) -> DispatchResponse: ...
    @overload
    def __getitem__(self, index: slice) -> DispatchResponses: ...
    def __getitem__(self, index: int | slice) -> DispatchResponse | DispatchResponses:
        found = self._items[index]
        return type(self)(found) if isinstance(found, tuple) else found

    def __len__(self) -> int:
        return len(self._items)

    def __repr__(self) -> str:
        shown = [repr(each) for each in self._items[:MAX_SHOWN]]
        # asyncio.run() makes the repr of its result, twice: seconds for a large batch.
        if (more := len(self) - MAX_SHOWN) > 0:
            shown.append(f"... {more} more")
        return f"DispatchResponses([{', '.join(shown)}])"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, DispatchResponses) and self._items == other._items

    def __hash__(self) -> int:
        return hash(tuple(item.request_id for item in self._items))

    def __bool__(self) -> bool:
        """Return `ok`, so that it reads as a single response does."""
        return self.ok

    @property
    def ok(self) -> bool:
        """True when every one is."""
        return all(item.ok for item in self._items)

    @property
    def failed(self) -> FailedResponses:
        """Those that are not `ok`, in order; each has its `.request` for another try."""
        return FailedResponses(item for item in self._items if not item.ok)

    def raise_for_error(self) -> Self:
        """Return these responses if all are `ok`.

        Raises:
            DispatchUnknownError: From the first that is unknown, if any is.

            DispatchError: From the first that is not `ok`.
        """
        failed = self.failed._items
        unknown = [item for item in failed if item.status is DispatchStatus.UNKNOWN]
        # Unknown first: it needs a decision, while the others can simply be repeated.
        for item in (*unknown, *failed):
            item.raise_for_error()
        return self


@public
class FailedResponses(DispatchResponses):
    """The responses of a batch that are not `ok`: true where there are any, as a list is."""

    __slots__ = ()

    def __bool__(self) -> bool:
        return bool(self._items)
