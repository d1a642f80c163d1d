"""The guard: a bound for calls that cannot be bounded otherwise (C2).

A call runs on a persistent helper thread while its caller waits, at most for the timeout. A call
that is overdue is abandoned: its outcome is unknown to the caller, its helper serves no call until
the call returns, closes what it opened, and only then is at hand again.

::

    RuntimeError
     +-- GuardFullError      too many abandoned calls, or no thread to be had: never begun
          +-- GuardClosedError   closed, or the interpreter is shutting down: never begun
    TimeoutError
     +-- GuardTimeoutError   .started says whether the call had begun
"""

from __future__ import annotations

from collections.abc import Callable
from sys import is_finalizing
from threading import TIMEOUT_MAX
from time import monotonic
from typing import TypeVar

from dispatchers._runtime.fork import notice_fork, renew_after_fork
from dispatchers._runtime.guard_pool import (
    Call,
    GuardClosedError,
    GuardFullError,
    GuardTimeoutError,
    Late,
    OnLate,
    Pool,
    register_closer,
)

__all__ = [
    "Guard",
    "GuardClosedError",
    "GuardFullError",
    "GuardTimeoutError",
    "Late",
    "register_closer",
]

T = TypeVar("T")


class Guard:
    """Runs calls that cannot be bounded otherwise on persistent helper threads.

    Serves any number of threads, each with a helper of its own while it calls. Helpers are daemon
    threads: one that hangs does not keep the process from ending.

    Args:
        name: What the threads and messages are called by.

        cap: So many abandoned calls, and further ones are refused at once. Calls under way when
            the cap is reached are waited for as usual, and may be abandoned as well.
    """

    def __init__(self, name: str, *, cap: int = 8) -> None:
        if cap < 1:
            raise ValueError(f"cap of guard {name!r} is {cap}: it must be at least 1")
        self._cap = cap
        self._pool = Pool(name)
        renew_after_fork(self)

    @property
    def name(self) -> str:
        """Return the name of the threads, and of the guard in messages."""
        return self._pool.name

    @property
    def abandoned(self) -> int:
        """Return how many abandoned calls have not returned yet."""
        return self._pool.abandoned()

    def call(self, fn: Callable[[], T], *, timeout: float, on_late: OnLate | None = None) -> T:
        """Run `fn` with a copy of the caller's context, and wait for it.

        Args:
            fn: What to run. What it raises is raised here, `BaseException` included.

            timeout: Seconds to wait. With none left, nothing is begun.

            on_late: Called on the helper's thread when an abandoned call has returned.

        Raises:
            GuardTimeoutError: It did not return in time; `started` says whether it had begun.
            GuardFullError: Too many abandoned calls hang, or no thread could be started.
            GuardClosedError: The guard was closed, or the interpreter is shutting down.
        """
        notice_fork()  # a fork that Python did not see leaves a pool without threads
        # Read once: a fork in a signal handler would replace `self._pool` under this call.
        pool = self._pool
        # A cheap look first, on every call; `_refuse` looks closely, and may find that it is fine.
        if pool.closed or len(pool.overdue) >= self._cap or is_finalizing():
            self._refuse(pool)
        if not timeout > 0:
            raise GuardTimeoutError(f"no time was left for guard {pool.name!r}", started=False)
        call = Call(fn, on_late)
        try:
            pool.hand_over(call)
            # Above TIMEOUT_MAX, `acquire` raises an OverflowError.
            returned = call.done.acquire(timeout=min(timeout, TIMEOUT_MAX))
        # A signal handler raised (KeyboardInterrupt, a worker's time limit): the call is abandoned.
        except BaseException:
            pool.leave(call)
            raise
        if not returned:
            self._give_up(pool, call, timeout)
        value: T = call.outcome()
        return value

    def _refuse(self, pool: Pool) -> None:
        if pool.closed:
            raise GuardClosedError(f"guard {pool.name!r} was closed")
        if is_finalizing():
            raise GuardClosedError(f"guard {pool.name!r}: the interpreter is shutting down")
        if (abandoned := pool.abandoned()) >= self._cap:
            raise GuardFullError(
                f"{abandoned} calls of guard {pool.name!r} hang: "
                "no further one is begun until one of them returns"
            )

    def _give_up(self, pool: Pool, call: Call, timeout: float) -> None:
        """Raise, unless the outcome came at the last moment."""
        # The order matters: once marked as late, the call has one owner, found by its lock.
        started = pool.leave(call)
        if started and call.done.acquire(blocking=False):
            pool.overdue.discard(call)
            return
        what = "did not return" if started else "did not begin"
        raise GuardTimeoutError(
            f"a call of guard {pool.name!r} {what} within {timeout:g} s", started=started
        )

    def close(self, timeout: float) -> int:
        """Refuse further calls, and wait at most `timeout` seconds for those under way.

        Returns:
            How many calls were left; their helpers end when the calls return.
        """
        until = monotonic() + timeout
        # Taken before `stop`, after which helpers remove themselves from the set.
        helpers = tuple(self._pool.helpers)
        busy = self._pool.stop()
        for helper in helpers:
            helper.wait(until - monotonic())
        return sum(helper.thread.is_alive() for helper in busy)

    def __del__(self) -> None:
        # Absent when the constructor refused its arguments.
        if pool := getattr(self, "_pool", None):
            pool.stop()

    def _after_fork(self) -> None:
        inherited = self._pool
        self._pool = Pool(inherited.name, inherited)
        # A call that forked on a helper thread returns in the child: it must close nothing there.
        inherited.forked = inherited.closed = True
