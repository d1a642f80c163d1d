"""RabbitMQ: the connections of one process, taken by one thread at a time, kept for the next."""

from __future__ import annotations

import os
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from time import monotonic
from typing import Any

from dramatiq.common import dq_name

from dispatchers import ErrorCategory, RejectedError

from ._errors import ReturnedError, category_of
from ._link import Link
from ._message import Packet

__all__ = ["RabbitPublisher"]

KEPT = 10
"""Idle connections that are kept; more threads at once connect anew."""
AT_ONCE = 100
"""Messages under way without a confirm."""


class RabbitPublisher:
    """Publishes to a RabbitMQ as Dramatiq's broker does, confirmed and within bounds.

    Args:
        broker: Dramatiq's; its parameters are taken, its connections are not used.

        address: Where that is, for messages.

        confirm: Wait for RabbitMQ's confirms.

        mandatory: Have RabbitMQ give back what no queue took.
    """

    def __init__(self, broker: Any, address: str, *, confirm: bool, mandatory: bool) -> None:
        self._broker = broker
        self._address = address
        self._confirm, self._mandatory = confirm, mandatory
        self._pid = os.getpid()
        self._idle: list[Link] = []
        self._parents: list[list[Link]] = []
        self._closed = False

    def publish(self, packets: Sequence[Packet], until: float) -> list[Exception | None]:
        """Publish; None for each that RabbitMQ has and has put into a queue, else why not.

        Raises:
            RejectedError: There is no connection: nothing was handed over.
        """
        answers: list[Exception | None] = []
        with self.lent(until) as link:
            for start in range(0, len(packets), AT_ONCE):
                if link.usable:
                    answers += _published(link, packets[start : start + AT_ONCE], until)
        untried = RejectedError(ErrorCategory.UNAVAILABLE, "the connection failed before its turn")
        return [*answers, *[untried] * (len(packets) - len(answers))]

    def waiting(self, queues: Sequence[str], timeout: float) -> int:
        """How many messages wait in these queues; those that a worker holds are not among them."""
        until = monotonic() + timeout
        with self.lent(until) as link:
            return sum(link.size(n, until) for name in queues for n in (name, dq_name(name)))

    def probe(self, timeout: float) -> None:
        """Reach the server, or raise."""
        with self.lent(monotonic() + timeout):
            pass

    @contextmanager
    def lent(self, until: float) -> Generator[Link]:
        """A connection for the block; one that raised is closed, and never used again.

        Raises:
            RejectedError: There is none to be had: nothing was handed over.
        """
        link = self._kept() or self._opened(until)
        try:
            yield link
        except BaseException:
            link.abandon()
            raise
        self._give_back(link)

    def _give_back(self, link: Link) -> None:
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

    def _opened(self, until: float) -> Link:
        """A new connection, to the first server that takes it."""
        found = self._broker.parameters
        places = found if isinstance(found, list) else [found]
        for number, parameters in enumerate(places):
            left = until - monotonic()
            share = monotonic() + left / (len(places) - number)
            try:
                return Link(
                    self._broker,
                    parameters,
                    share,
                    confirm=self._confirm,
                    mandatory=self._mandatory,
                )
            except Exception as exc:
                if number + 1 == len(places):
                    category = category_of(exc) or ErrorCategory.UNAVAILABLE
                    raise RejectedError(category, self._why(exc)) from exc
        raise RejectedError(ErrorCategory.CONFIGURATION, "the broker has no server: give its url")

    def _why(self, exc: Exception) -> str:
        kind = type(exc).__name__
        return f"no connection to the broker at {self._address} ({kind}): is it running there?"

    def close(self) -> None:
        """Close what is idle, and keep nothing any more."""
        self._closed = True
        while self._idle:
            self._idle.pop().abandon()


def _published(link: Link, packets: Sequence[Packet], until: float) -> list[Exception | None]:
    """What came back is tried once more, its queue declared again: someone deleted it."""
    answers = link.publish(packets, until)
    returned = [n for n, each in enumerate(answers) if isinstance(each, ReturnedError)]
    if returned and link.usable:
        link.forget_queues()
        again = link.publish([packets[n] for n in returned], until)
        for place, answer in zip(returned, again, strict=True):
            answers[place] = answer
    return answers
