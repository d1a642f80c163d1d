"""The protocol between a worker and its child processes: frames of bytes over two pipes."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from enum import IntEnum

__all__ = ["ATTEMPT", "NUMBER", "SECONDS", "Frame", "Kind", "Parser", "frame"]

# Little-endian without padding: length of the payload, kind, number of the job.
_HEADER = struct.Struct("<IBI")


ATTEMPT = struct.Struct("<II")
"""Attempt and deliveries, before the envelope."""


SECONDS = struct.Struct("<d")


NUMBER = struct.Struct("<I")


Frame = tuple[int, int, bytes]
"""Kind, number of the job, payload."""


class Kind(IntEnum):
    """The first ones go to the child, the others come from it."""

    SETUP = 0
    """Configuration as JSON, once."""
    RUN = 1
    """A job: `ATTEMPT`, then its envelope."""
    CLASSIFY = 2
    """The same, for a run that was killed at its time limit: return its outcome."""
    RECALL = 3
    """Give back the jobs that have not begun."""
    STOP = 4
    """As `RECALL`, and tell the running handler to give up soon."""
    FLUSH = 5
    """Write what the handler has printed: the process is about to be killed."""
    DISMISS = 6
    """End: the worker has no more jobs, and will end what handlers have left."""
    READY = 10
    """The task modules are imported."""
    BROKEN = 11
    """They could not be; the payload has the reason."""
    DONE = 12
    """The job succeeded after `SECONDS` in its handler."""
    OUTCOME = 13
    """It ended otherwise: an `Outcome` as JSON."""
    LIMIT = 14
    """It has a time limit: `SECONDS` are left."""
    RECALLED = 15
    """Numbers of jobs that were not begun and will not be."""
    EFFECTS = 17
    """Effects of the run, before its end is told: packed `Effects`."""
    PUTS = 18
    """The run has put jobs into the worker's file itself, before its end is told."""
    CRASHED = 16
    """The handler raised what is no `Exception`; the payload is its name."""


def frame(kind: Kind, number: int = 0, payload: bytes = b"") -> bytes:
    """One frame as bytes."""
    return _HEADER.pack(len(payload), kind, number) + payload


class Parser:
    """Joins frames from the pieces in which a pipe delivers them."""

    def __init__(self) -> None:
        self._pending = bytearray()

    def feed(self, data: bytes) -> Iterator[Frame]:
        """The frames that are complete now; each is to be taken before the next call."""
        pending = self._pending
        # In place: joining new bytes objects would copy a large envelope once per piece.
        pending += data
        start = 0
        while len(pending) - start >= _HEADER.size:
            size, kind, number = _HEADER.unpack_from(pending, start)
            end = start + _HEADER.size + size
            if len(pending) < end:
                break
            yield kind, number, bytes(pending[start + _HEADER.size : end])
            start = end
        del pending[:start]
