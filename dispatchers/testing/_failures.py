"""Failures on demand: what a recording dispatcher answers instead of taking the work."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from dispatchers._dispatch.protocol import Sent
from dispatchers._errors import ErrorCategory, RejectedError
from dispatchers._models.request import DispatchRequest
from dispatchers._models.response import DispatchFailure, DispatchStatus

__all__ = ["FailureStatus", "InjectedError", "InjectedFailure", "anything"]

FailureStatus = Literal["rejected", "unknown", "failed"]
Predicate = Callable[[DispatchRequest], bool]


def anything(request: DispatchRequest) -> bool:
    """True of every request."""
    del request
    return True


class InjectedError(Exception):
    """Raised where a client's own exception would be, by a test's wish.

    Attributes:
        category: What the answer says.
    """

    def __init__(self, category: ErrorCategory) -> None:
        super().__init__("a test asked for this failure")
        self.category = category


class InjectedFailure:
    """One wish of a test: which requests fail, how, and how often.

    Args:
        matches: Which requests.

        category: What the answer says; the breaker and `retryable` follow from it as ever.

        status: `rejected`, `unknown`, or `failed` as if the task had run here and failed.

        times: How many requests; None is all.

        arrives: With `unknown`, whether the work is taken although the answer says nothing.

    Raises:
        ValueError: An argument does not fit.
    """

    def __init__(
        self,
        matches: Predicate,
        category: ErrorCategory | str,
        status: FailureStatus,
        times: int | None,
        *,
        arrives: bool = False,
    ) -> None:
        self.category = ErrorCategory(category)
        self.status = DispatchStatus(status)
        self.arrives = arrives
        self._matches = matches
        self._left = times
        if self.status not in RAISES:
            raise ValueError(f"no failure has the status {status!r}: rejected, unknown or failed")
        if times is not None and times < 1:
            raise ValueError(f"times is {times}: a failure happens at least once")
        if arrives and self.status is not DispatchStatus.UNKNOWN:
            raise ValueError(f"work that arrives is not {status}: arrives goes with 'unknown'")

    @property
    def spent(self) -> bool:
        """Return true once it has happened as often as asked."""
        return self._left == 0

    def takes(self, request: DispatchRequest) -> bool:
        """Return true if `request` fails by it, and count that."""
        # Asked in this order: a predicate that counts its calls is not called for nothing.
        if self.spent or not self._matches(request):
            return False
        if self._left is not None:
            self._left -= 1
        return True

    def happen(self) -> Sent:
        """Answer FAILED, or raise what a client would.

        Raises:
            RejectedError: The wish was `rejected`.

            InjectedError: The wish was `unknown`.
        """
        if self.status is DispatchStatus.REJECTED:
            raise RejectedError(self.category, "a test asked for this failure")
        if self.status is DispatchStatus.UNKNOWN:
            # Not a RejectedError, which says that nothing was sent.
            raise InjectedError(self.category)
        error = DispatchFailure(category=self.category, message="a test asked for this failure")
        return Sent(status=DispatchStatus.FAILED, error=error)


RAISES = frozenset({DispatchStatus.REJECTED, DispatchStatus.UNKNOWN, DispatchStatus.FAILED})
