"""Answers for a dispatch that ran out of stack or memory: made beforehand (C1).

Where not even a function can be called any more, one of these is returned as it is.
"""

from __future__ import annotations

from dispatchers._errors import ErrorCategory
from dispatchers._models.base import build
from dispatchers._models.response import (
    DispatchFailure,
    DispatchResponse,
    DispatchResponses,
    DispatchStatus,
)


def _answer(status: DispatchStatus) -> DispatchResponse:
    error = {
        "category": ErrorCategory.CAPACITY,
        "retryable": False,
        "exception_type": None,
        "message": "the call stack or the memory of this process is exhausted",
    }
    values = {
        "request_id": "",
        "task_id": None,
        "dispatcher": "",
        "backend": "",
        "status": status,
        "confirmed": False,
        "durable": False,
        "waived": (),
        "passed": (),
        "error": build(DispatchFailure, error),
        "elapsed": 0.0,
        "request": None,
    }
    return build(DispatchResponse, values)


REJECTED = _answer(DispatchStatus.REJECTED)
"""The backend was not contacted."""

UNKNOWN = _answer(DispatchStatus.UNKNOWN)
"""The backend may have the work."""

ALL_REJECTED = DispatchResponses((REJECTED,))
"""One response for all requests of a batch."""

ALL_UNKNOWN = DispatchResponses((UNKNOWN,))
"""One response for all requests of a batch."""
