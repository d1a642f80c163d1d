"""Work that runs in the call: RQ's `is_async=False`."""

from __future__ import annotations

from typing import Any

from rq.utils import import_attribute

from dispatchers import (
    DispatchFailure,
    DispatchRequest,
    DispatchStatus,
    ErrorCategory,
    Outcome,
    Reason,
    RejectedError,
    Sent,
)

__all__ = ["answer", "run_native"]

NOT_RUN = {
    Reason.UNKNOWN_TASK: ErrorCategory.NOT_FOUND,
    Reason.INVALID_ARGUMENTS: ErrorCategory.INVALID,
    Reason.NO_ENVELOPE: ErrorCategory.INVALID,
    Reason.EXPIRED: ErrorCategory.INVALID,
    Reason.IN_FLIGHT: ErrorCategory.CONFLICT,
    Reason.STORE_UNAVAILABLE: ErrorCategory.UNAVAILABLE,
}


def answer(outcome: Outcome) -> Sent:
    """What became of a run, as an answer.

    Raises:
        RejectedError: It did not run.
    """
    if outcome.reason in (Reason.SUCCEEDED, Reason.DISCARDED):
        return Sent(outcome.request_id, DispatchStatus.EXECUTED)
    if outcome.reason is Reason.DUPLICATE:
        return Sent(outcome.request_id, DispatchStatus.DUPLICATE)
    if outcome.reason in NOT_RUN:
        said = outcome.error.message if outcome.error else ""
        raise RejectedError(NOT_RUN[outcome.reason], said or f"not run: {outcome.reason.value}")
    kind = outcome.error.exception_type if outcome.error else None
    return _failed(outcome.task or "", outcome.request_id, kind, outcome.exception)


def run_native(request: DispatchRequest) -> Sent:
    """Call the function that a job of RQ's own names.

    Raises:
        RejectedError: There is none.
    """
    try:
        function: Any = import_attribute(request.task)
    except (ImportError, AttributeError, ValueError) as exc:
        message = f"no function {request.task!r} can be imported: {type(exc).__name__}"
        raise RejectedError(ErrorCategory.NOT_FOUND, message) from exc
    payload: Any = request.payload
    try:
        function(*payload["args"], **payload["kwargs"])
    except Exception as exc:  # noqa: BLE001 - whatever it raises is the answer
        return _failed(request.task, request.id, type(exc).__name__, exc)
    return Sent(request.id, DispatchStatus.EXECUTED)


def _failed(task: str, number: str | None, kind: str | None, exc: BaseException | None) -> Sent:
    error = DispatchFailure(
        category=ErrorCategory.HANDLER,
        retryable=False,
        exception_type=kind,
        message=f"task {task!r} failed with {kind}",
    )
    return Sent(number, DispatchStatus.FAILED, error=error, exception=exc)
