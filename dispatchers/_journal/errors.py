"""Failures of a journal."""

from __future__ import annotations


class JournalError(Exception):
    """A journal could not do what it was asked.

    Args:
        message: The journal, the reason and the cure, for people.

        maybe_written: It may have been recorded nevertheless: read before anything follows.
    """

    def __init__(self, message: str, *, maybe_written: bool = False) -> None:
        super().__init__(message)
        self.maybe_written = maybe_written


class LimitError(JournalError):
    """An entry from outside goes beyond a limit: to repeat the call does not help."""
