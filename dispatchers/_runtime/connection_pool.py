"""The connections of one process: used by one thread at a time, kept for the next."""

from __future__ import annotations

import logging
import os
import ssl
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from time import monotonic
from typing import Generic, Protocol, TypeVar

from dispatchers._errors import ErrorCategory, RejectedError
from dispatchers._runtime.log import say

__all__ = ["ConnectionPool", "Pooled", "first_of"]

MAX_IDLE = 10
"""Idle connections that are kept, as many as Celery's and kombu's own pools have."""


class Pooled(Protocol):
    """A connection as a pool needs it."""

    @property
    def usable(self) -> bool:
        """False once it failed: what it answers next may answer an earlier question."""
        ...

    def is_alive(self) -> bool:
        """Tell whether the server has not hung up, as far as is known without asking it."""
        ...

    def abandon(self) -> None:
        """Close the socket at once, without a farewell that a dead server could block."""
        ...


C = TypeVar("C", bound=Pooled)


class ConnectionPool(Generic[C]):
    """Lends connections, and opens a new one where none is idle.

    Connections of a parent process are neither used nor closed after a fork: a farewell over the
    shared socket would end them for the parent as well.

    Args:
        connect: Opens a connection within so many seconds.

        category: The category of an exception that `connect` raised; None is `unavailable`.

        address: Where that is, for messages; no credentials.

        max_idle: Idle connections that are kept; more threads at once connect anew.
    """

    def __init__(
        self,
        connect: Callable[[float], C],
        *,
        category: Callable[[BaseException], ErrorCategory | None],
        address: str,
        max_idle: int = MAX_IDLE,
    ) -> None:
        self._connect = connect
        self._category = category
        self._address = address
        self._max_idle = max_idle
        self._pid = os.getpid()
        self._idle: list[C] = []
        self._inherited: list[list[C]] = []
        self._closed = False

    @contextmanager
    def lent(self, timeout: float) -> Generator[C]:
        """Lend a connection for the block; one whose block raised is closed.

        Raises:
            RejectedError: None is to be had: nothing was handed over.
        """
        # An idle connection first: opening one costs round trips and, with TLS, a handshake.
        connection = self._kept() or self._opened(timeout)
        try:
            yield connection
        except BaseException:
            # Its state is unknown after an error: a late answer would be taken for the next one's.
            connection.abandon()
            raise
        self._give_back(connection)

    def close(self) -> None:
        """Close what is idle, and keep nothing any more."""
        self._closed = True
        while (connection := self._pop()) is not None:
            connection.abandon()

    def _kept(self) -> C | None:
        self._disown_after_fork()
        while (connection := self._pop()) is not None:
            if connection.is_alive():
                return connection
            connection.abandon()
        return None

    # A list's `pop` is one step for the interpreter, so that no lock is held at a fork. The
    # last one returned goes first: it is the least likely to have been closed by the server.
    def _pop(self) -> C | None:
        try:
            return self._idle.pop()
        except IndexError:  # another thread may have taken the last
            return None

    def _give_back(self, connection: C) -> None:
        wanted = not self._closed and self._pid == os.getpid() and len(self._idle) < self._max_idle
        if wanted and connection.usable:
            self._idle.append(connection)
        else:
            connection.abandon()

    def _disown_after_fork(self) -> None:
        if self._pid != os.getpid():
            self._inherited.append(self._idle)  # kept: collecting them would close them
            self._idle, self._pid = [], os.getpid()

    def _opened(self, timeout: float) -> C:
        try:
            return self._connect(timeout)
        # It says already that nothing was handed over, and why.
        except RejectedError:
            raise
        except Exception as exc:
            category = self._category(exc) or _category(exc)
            raise RejectedError(category, self._reason(exc, category)) from exc

    def _reason(self, exc: Exception, category: ErrorCategory) -> str:
        denied = category is ErrorCategory.AUTHENTICATION
        cure = "check user, password and certificates" if denied else "is it running there?"
        return f"no connection to the broker at {self._address} ({type(exc).__name__}): {cure}"


S = TypeVar("S")
T = TypeVar("T")


def first_of(
    servers: Sequence[S],
    connect: Callable[[S, float], T],
    timeout: float,
    *,
    name: Callable[[S], str],
) -> T:
    """Return a connection to the first server that takes it.

    Args:
        servers: At least one, tried in turn.

        connect: Connects to one of them within so many seconds.

        timeout: Seconds for all of them together.

        name: A server's address for the log; no credentials.

    Raises:
        Exception: What the last one raised.
    """
    until = monotonic() + timeout
    *others, last = servers
    for number, server in enumerate(others):
        # An even share of what is left: a dead first server must leave time for the others.
        share = (until - monotonic()) / (len(servers) - number)
        try:
            return connect(server, share)
        except Exception as exc:  # noqa: BLE001 - the next may take it
            say(logging.DEBUG, "no connection to %s: %s", name(server), type(exc).__name__)
    return connect(last, until - monotonic())


def _category(exc: Exception) -> ErrorCategory:
    if isinstance(exc, TimeoutError):  # first: a handshake that gets no answer is one, too
        return ErrorCategory.TIMEOUT
    refused = isinstance(exc, ssl.SSLError)
    return ErrorCategory.AUTHENTICATION if refused else ErrorCategory.UNAVAILABLE
