"""Faults that the stand-in produces on request."""

from __future__ import annotations

import threading
from typing import Annotated

from grpc import StatusCode
from pydantic import AfterValidator, BaseModel, ConfigDict, Field

__all__ = ["Misbehaviour", "Orders"]


def _known(code: str) -> str:
    if code not in StatusCode.__members__ or code == "OK":
        raise ValueError(f"no status code {code!r} of gRPC: UNAVAILABLE, RESOURCE_EXHAUSTED, ...")
    return code


class Misbehaviour(BaseModel):
    """Orders to the stand-in; those that count are used up, the others stay until changed."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    fail: int = Field(default=0, ge=0)
    """So many calls are answered with `code`, and nothing is done."""
    code: Annotated[str, AfterValidator(_known)] = "UNAVAILABLE"
    """The name of gRPC's status code for `fail`."""
    lose_reply: int = Field(default=0, ge=0)
    """So many calls are carried out, and the answer never comes."""
    answer_delay: float = Field(default=0.0, ge=0)
    """Seconds before a call is answered."""
    refuse_batches: bool = False
    """Batch calls are not implemented, as in a service of an earlier version."""
    duplicate: int = Field(default=0, ge=0)
    """So many tasks that a worker has acknowledged are delivered once more."""
    lose_response: int = Field(default=0, ge=0)
    """So many of the workers' responses get lost: those tasks are delivered again."""
    reorder: bool = False
    """Tasks that are due are delivered in any order."""
    delivery_delay: float = Field(default=0.0, ge=0)
    """Seconds before a task that is due is delivered."""


class Orders:
    """The orders in force, used up by many threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.current = Misbehaviour()

    def give(self, orders: Misbehaviour) -> None:
        """Replace the orders."""
        with self._lock:
            self.current = orders

    def takes(self, name: str) -> bool:
        """Return true if a counted order applies now, and count it."""
        with self._lock:
            left: int = getattr(self.current, name)
            if left:
                self.current = self.current.model_copy(update={name: left - 1})
            return bool(left)
