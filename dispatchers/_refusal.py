"""The response where no dispatcher could be asked."""

from __future__ import annotations

from time import monotonic

from ._model import build
from ._report import told
from ._request import DispatchRequest, new_id
from ._response import DispatchFailure, DispatchResponse, DispatchStatus
from ._verdict import without_contact

__all__ = ["refused", "unsent"]


def unsent(
    alias: str,
    backend: str,
    request: object,
    status: DispatchStatus,
    error: DispatchFailure,
    exc: Exception | None,
    elapsed: float,
) -> DispatchResponse:
    """A response that is not `ok`."""
    known = request if isinstance(request, DispatchRequest) else None
    values = {
        "request_id": known.id if known else new_id(),
        "task_id": None,
        "dispatcher": alias,
        "backend": backend,
        "status": status,
        "confirmed": False,
        "durable": False,
        "waived": (),
        "error": error,
        "elapsed": elapsed,
        "request": known,
    }
    return build(DispatchResponse, values, None if exc is None else {"_exception": exc})


def refused(alias: str, backend: str, exc: Exception, started: float) -> DispatchResponse:
    """The answer to a dispatch that never reached a dispatcher, told to hooks and log."""
    status, error = without_contact(exc)
    elapsed = monotonic() - started
    return told(unsent(alias, backend, None, status, error, exc, elapsed))
