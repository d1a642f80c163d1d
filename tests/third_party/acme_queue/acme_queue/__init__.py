"""`acme`: work in files of one folder. README.md says how to wire it up.

A piece of work is one file; its name holds when it is due and how often it was tried, and the
folder that it lies in says what is the matter with it. A rename moves it, and is atomic.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import BeforeValidator, Field

from dispatchers import (
    BackendOptions,
    BaseDispatcher,
    Capabilities,
    DispatchRequest,
    ErrorCategory,
    Sent,
    Worker,
    WorkerOptions,
)

from ._spool import Spool
from ._worker import AcmeWorker

__all__ = ["AcmeDispatcher", "AcmeOptions"]


class AcmeOptions(BackendOptions):
    """Options of `acme`."""

    path: Annotated[Path, BeforeValidator(lambda value: Path(value))]
    """The folder; it is made on first use."""
    lease: float = Field(default=60.0, gt=0)
    """Seconds after which a worker that has not looked after its work is given up."""


class AcmeDispatcher(BaseDispatcher):
    """Hands work over by renaming a file into a folder."""

    name = "acme"
    contract = 1
    capabilities = Capabilities(delay=True, retries=True, confirmed=True, durable=True, worker=True)
    Options = AcmeOptions
    options: AcmeOptions

    def __init__(
        self, options: AcmeOptions | None = None, *, alias: str | None = None, **settings: object
    ) -> None:
        super().__init__(options, alias=alias, **settings)
        self.spool = Spool(self.options.path, self.options.lease)

    def _send(self, request: DispatchRequest, body: bytes, *, timeout: float) -> Sent:
        del timeout  # a write to a local disk cannot be bounded, and need not be
        self.spool.put(request.id, body, request.due or request.created_at)
        return Sent(request.id)

    def _category(self, exc: Exception) -> ErrorCategory | None:
        known = isinstance(exc, OSError) and not isinstance(exc, PermissionError | TimeoutError)
        return ErrorCategory.UNAVAILABLE if known and not _is_full(exc) else None

    def _maybe_sent(self, exc: Exception) -> bool:
        # A file gets its name last: work whose handing over failed is not in the folder.
        return not isinstance(exc, OSError)

    def _probe(self, *, timeout: float) -> None:
        del timeout
        self.spool.open()

    def _worker(self, options: WorkerOptions) -> Worker:
        return AcmeWorker(self.spool, self, options)


def _is_full(exc: Exception) -> bool:
    import errno

    full = {errno.ENOSPC, errno.EDQUOT, errno.EMFILE, errno.ENFILE}
    return isinstance(exc, OSError) and exc.errno in full
