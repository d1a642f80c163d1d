"""Connections are lent to one thread at a time, kept for the next, and never shared by a fork."""

from __future__ import annotations

import os
import ssl
import sys

import pytest

from dispatchers import ErrorCategory, RejectedError
from dispatchers.net import ConnectionPool


class Connection:
    """A connection of a server that is always there."""

    def __init__(self) -> None:
        self.usable = True
        self.alive = True
        self.abandoned = False

    def is_alive(self) -> bool:
        return self.alive

    def abandon(self) -> None:
        self.abandoned = True


class Broker:
    """Opens connections, and remembers them."""

    def __init__(self, error: Exception | None = None) -> None:
        self.opened: list[Connection] = []
        self.error = error

    def connect(self, timeout: float) -> Connection:
        if self.error is not None:
            raise self.error
        self.opened.append(Connection())
        return self.opened[-1]

    def pool(self, max_idle: int = 10) -> ConnectionPool[Connection]:
        return ConnectionPool(
            self.connect,
            category=lambda exc: ErrorCategory.PERMISSION if exc.args == ("no",) else None,
            address="broker:1",
            max_idle=max_idle,
        )


def test_an_idle_connection_is_used_again():
    """C2: an established connection pays nothing per send."""
    broker = Broker()
    pool = broker.pool()

    with pool.lent(1) as first:
        pass
    with pool.lent(1) as second:
        pass

    assert first is second


def test_two_at_once_have_one_each():
    """A connection serves one thread at a time; no more than `max_idle` are kept."""
    broker = Broker()
    pool = broker.pool(max_idle=1)

    with pool.lent(1) as first, pool.lent(1) as second:
        pass

    assert first is not second
    assert [each.abandoned for each in broker.opened] == [True, False]


@pytest.mark.parametrize("fault", ["raised", "unusable", "dead"])
def test_a_broken_connection_is_closed_and_never_used_again(fault):
    """C3: an answer that comes late must not be taken for that of the next request."""
    broker = Broker()
    pool = broker.pool()

    try:
        with pool.lent(1) as first:
            first.usable, first.alive = fault != "unusable", fault != "dead"
            if fault == "raised":
                raise OSError("reset")
    except OSError:
        pass
    with pool.lent(1) as second:
        pass

    assert first.abandoned
    assert second is not first


@pytest.mark.parametrize(
    ("error", "category"),
    [
        (OSError("refused"), ErrorCategory.UNAVAILABLE),
        (OSError("no"), ErrorCategory.PERMISSION),
        (TimeoutError("no answer"), ErrorCategory.TIMEOUT),
        (ssl.SSLError("self-signed"), ErrorCategory.AUTHENTICATION),
        (RejectedError(ErrorCategory.CAPACITY, "full"), ErrorCategory.CAPACITY),
    ],
)
def test_without_a_connection_nothing_was_handed_over(error, category):
    """C3: a connection that cannot be opened rejects, with the client's exception as the cause."""
    pool = Broker(error).pool()

    with pytest.raises(RejectedError) as caught, pool.lent(1):
        pass

    assert caught.value.category is category
    assert caught.value is error or caught.value.__cause__ is error


def test_a_closed_pool_keeps_nothing():
    """C8: what is idle is closed, and what comes back afterwards as well."""
    broker = Broker()
    pool = broker.pool()
    with pool.lent(1), pool.lent(1):
        pass

    with pool.lent(1):
        pool.close()

    assert all(each.abandoned for each in broker.opened)


@pytest.mark.skipif(sys.platform == "win32", reason="it cannot fork")
def test_a_child_opens_its_own():
    """C8: after a fork the parent's connections are neither used nor closed by the child."""
    broker = Broker()
    pool = broker.pool()
    with pool.lent(1) as parents:
        pass

    child = os.fork()
    if not child:
        with pool.lent(1) as own:
            os._exit(0 if own is not parents and not parents.abandoned else 1)

    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
