"""The connections of one process: taken by one thread at a time, and kept for the next."""

from __future__ import annotations

import os
from collections.abc import Generator
from contextlib import contextmanager
from time import monotonic

from dispatchers import ErrorCategory, RejectedError
from dispatchers.net import bounded

from ._app import Application
from ._errors import category_of
from ._gate import opening
from ._link import Link, open_link

__all__ = ["Links"]

KEPT = 10
"""Idle connections that are kept, as many as Celery's own pool has."""


class Links:
    """Lends connections out.

    Args:
        application: Whose broker it is.

        confirm: Wait for RabbitMQ's confirms.

        mandatory: Have RabbitMQ give back what no queue took.
    """

    def __init__(self, application: Application, *, confirm: bool, mandatory: bool) -> None:
        self._application = application
        self._confirm, self._mandatory = confirm, mandatory
        self._pid = os.getpid()
        self._idle: list[Link] = []
        self._parents: list[list[Link]] = []
        self._closed = False

    @contextmanager
    def lent(self, timeout: float) -> Generator[Link]:
        """A connection for the block; one that raised is closed, and never used again.

        Raises:
            RejectedError: There is none to be had: nothing was handed over.
        """
        link = self._kept() or self._opened(timeout)
        try:
            yield link
        except BaseException:
            link.abandon()
            raise
        self.give_back(link)

    def give_back(self, link: Link) -> None:
        """Keep it for the next, if there is room."""
        wanted = not self._closed and self._pid == os.getpid() and len(self._idle) < KEPT
        if wanted and link.usable:
            self._idle.append(link)
        else:
            link.abandon()

    def _kept(self) -> Link | None:
        if self._pid != os.getpid():
            self._leave_to_the_parent()
        while self._idle:
            try:
                link = self._idle.pop()
            except IndexError:  # another thread took the last
                return None
            if link.is_alive():
                return link
            link.abandon()
        return None

    def _leave_to_the_parent(self) -> None:
        """After a fork the sockets are the parent's: not used, and not closed, which would tell."""
        self._parents.append(self._idle)
        self._idle, self._pid = [], os.getpid()

    def _opened(self, timeout: float) -> Link:
        application = self._application
        until = monotonic() + timeout

        def connect() -> Link:
            left = max(until - monotonic(), 0.001)
            confirm, mandatory = self._confirm, self._mandatory
            with opening():
                link = open_link(application, left, confirm=confirm, mandatory=mandatory)
            if monotonic() > until:  # nobody waits for it any more
                link.abandon()
            return link

        try:
            return bounded(connect, timeout=timeout)
        except RejectedError:
            raise
        except Exception as exc:
            category = category_of(exc) or ErrorCategory.UNAVAILABLE
            raise RejectedError(category, _why(application, exc)) from exc

    def close(self) -> None:
        """Close what is idle, and keep nothing any more."""
        self._closed = True
        while self._idle:
            self._idle.pop().abandon()


def _why(application: Application, exc: Exception) -> str:
    kind = type(exc).__name__
    return f"no connection to the broker at {application.address} ({kind}): is it running there?"
