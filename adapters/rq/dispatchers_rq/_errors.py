"""The exceptions of runs."""

from __future__ import annotations


class RunTimeoutError(TimeoutError):
    """The run took longer than its time limit."""


class RunFailedError(Exception):
    """The work failed without an exception of its handler, or in a worker of RQ's own."""
