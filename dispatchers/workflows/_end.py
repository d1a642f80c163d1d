"""The end of an execution's code."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, NamedTuple

from dispatchers._errors import class_name
from dispatchers._journal.failure import Failure
from dispatchers._journal.values import Status
from dispatchers._models.failures import is_of_the_runner
from dispatchers.workflows._futures import Restart


class End(NamedTuple):
    """End of an execution's code."""

    status: Status
    """`COMPLETED`, `FAILED`, `CANCELLED`; `RUNNING` where it begins anew."""
    output: bytes | None = None
    """The result or the failure, as JSON."""
    why: str | None = None
    """The reason, for people, unless it is completed."""
    restart: bytes | None = None
    """The arguments with which it begins anew, encoded by `again`."""


def end_of(
    main: asyncio.Task[Any], encode: Callable[[Any], bytes], cancelled_for: str | None
) -> End:
    """Return the end that a task came to.

    Args:
        main: The task of the code, which is done.

        encode: Encodes its result.

        cancelled_for: The reason for which it was cancelled; None if it was not.

    Raises:
        BaseException: The turn was interrupted, which says nothing of the code.
    """
    if main.cancelled():
        return _cancelled(cancelled_for)
    exc = main.exception()
    if exc is not None and is_of_the_runner(exc):
        raise exc
    if isinstance(exc, Restart):
        return End(Status.RUNNING, restart=exc.arguments)
    if exc is not None:
        return _failed(exc)
    try:
        return End(Status.COMPLETED, encode(main.result()))
    except Exception as unfit:  # noqa: BLE001 - the result is what the code made it
        return _failed(unfit)


def _cancelled(why: str | None) -> End:
    if why is None:
        return _failed(asyncio.CancelledError("the code cancelled itself"))
    words = why or "cancelled"
    failure = Failure(words, "cancelled", class_name(asyncio.CancelledError))
    return End(Status.CANCELLED, failure.encode(), words)


def _failed(exc: BaseException) -> End:
    failure = Failure.of(exc)
    kind = failure.exception_type
    return End(Status.FAILED, failure.encode(), f"{kind}: {failure.message}" if kind else None)
