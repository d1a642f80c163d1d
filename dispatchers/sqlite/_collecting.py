"""The place for effects of the run that is under way; most processes have none."""

from __future__ import annotations

from contextvars import ContextVar
from typing import Protocol

from dispatchers._models.request import DispatchRequest
from dispatchers.sqlite._records import NewJob

__all__ = ["Collects", "collector_of", "current"]


class Collects(Protocol):
    """Collects jobs that are put together with what they follow from."""

    path: str
    """The file of the worker."""
    puts: bool
    """The run puts jobs into the file itself."""

    @property
    def is_open(self) -> bool:
        """Tell whether there is anything to follow from."""
        ...

    def follow(self, job: NewJob, request: DispatchRequest) -> None:
        """Collect a job."""
        ...


current: ContextVar[Collects | None] = ContextVar("dispatchers_sqlite_effects", default=None)


def collector_of(path: str) -> Collects | None:
    """Return what collects the effects of this run on a file, if its worker applies them."""
    found = current.get()
    return found if found is not None and found.path == path else None
