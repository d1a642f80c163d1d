"""The threads that the guard runs calls on.

There is no lock that is held while other code runs: who does what is decided by operations that
the interpreter does in one step (a list's `pop`, a lock's non-blocking `acquire`). That is why a
signal handler may use the guard that it interrupts, and why a fork cannot leave one locked.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from contextvars import Context, copy_context
from dataclasses import dataclass
from itertools import count
from queue import Empty, SimpleQueue
from typing import Any, Generic, TypeVar

from dispatchers._runtime.log import say

__all__ = [
    "Call",
    "GuardClosedError",
    "GuardFullError",
    "GuardTimeoutError",
    "Late",
    "OnLate",
    "Pool",
    "register_closer",
]


class GuardFullError(RuntimeError):
    """The call was refused before it began: too many earlier ones still hang."""


class GuardClosedError(GuardFullError):
    """The call was refused before it began: the guard is closed or the interpreter ends."""


class GuardTimeoutError(TimeoutError):
    """The call did not return in time.

    Args:
        message: What did not return, and after how long.

        started: True if the call had begun, so that its effect is unknown; False if it never
            began and never will.
    """

    def __init__(self, message: str, *, started: bool) -> None:
        super().__init__(message)
        self.started = started


T = TypeVar("T")


IDLE_SECONDS = 60.0
"""A helper with nothing to do for so long ends, unless it is the last: a burst leaves no crowd."""


_current = threading.local()


@dataclass(frozen=True, slots=True)
class Late(Generic[T]):
    """The end of an abandoned call: a value, or the error it raised."""

    value: T | None
    error: BaseException | None


OnLate = Callable[[Late[Any]], object]


class Call:
    """One call: the thread that pops the ticket decides whether it begins at all.

    `done` is held until the call has returned; the thread that acquires it then owns the outcome.
    """

    __slots__ = ("context", "done", "error", "late", "on_late", "over", "ticket", "value")

    def __init__(self, fn: Callable[[], Any], on_late: OnLate | None) -> None:
        # Popped by the helper to begin or by the caller to take back: only one can succeed.
        self.ticket = [fn]
        # A copy for each call: one context cannot be entered by two threads at once.
        self.context: Context = copy_context()
        self.done = threading.Lock()
        self.done.acquire()
        self.on_late = on_late
        self.late = self.over = False
        self.value: Any = None
        self.error: BaseException | None = None

    def take_back(self) -> bool:
        """Tell whether the call had not begun; then it never will."""
        try:
            self.ticket.pop()
        except IndexError:
            return False
        return True

    def is_missed(self) -> bool:
        """Tell whether the caller gave up just before the outcome was there for the taking."""
        return self.late and self.done.acquire(blocking=False)

    def outcome(self) -> Any:
        """Return what the function returned; or raises what it raised."""
        if (error := self.error) is None:
            return self.value
        # The exception is dropped from the call, which its traceback may refer to.
        self.error = None
        try:
            raise error
        finally:
            del error  # else the traceback would hold the exception that holds the traceback


class Pool:
    """The helpers of one guard in one process; helpers know it, it does not know the guard."""

    __slots__ = ("closed", "forked", "helpers", "idle", "inherited", "name", "numbers", "overdue")

    def __init__(self, name: str, inherited: Pool | None = None) -> None:
        self.name = name
        # Used as a stack: the helper that rested last has warm caches, the others can retire.
        self.idle: list[Helper] = []
        self.helpers: set[Helper] = set()
        self.overdue: set[Call] = set()
        self.numbers = count(1)
        self.closed: bool = inherited is not None and inherited.closed
        self.forked = False
        self.inherited = inherited  # a destructor would close what the parent still uses

    def hand_over(self, call: Call) -> None:
        """Give the call to the helper that rested last, or to a new one.

        Raises:
            GuardFullError: No thread can be started.
        """
        try:
            helper = self.idle.pop()
        except IndexError:
            self._start(call)
        else:
            helper.inbox.put(call)

    def _start(self, call: Call) -> None:
        helper = Helper(self)
        helper.inbox.put(call)
        self.helpers.add(helper)
        try:
            helper.thread.start()
        except RuntimeError as exc:
            self.helpers.discard(helper)
            raise GuardFullError(f"guard {self.name!r} could not start a thread: {exc}") from exc

    def leave(self, call: Call) -> bool:
        """Stop waiting for a call; whether it had begun, so that it is abandoned now."""
        if call.take_back():
            return False
        # Added before `late` is set: the helper that sees `late` removes it again.
        self.overdue.add(call)
        call.late = True
        return True

    def abandoned(self) -> int:
        """Return how many abandoned calls have not returned."""
        for call in tuple(self.overdue):
            if call.over:  # its caller was interrupted at the moment it returned
                self.overdue.discard(call)
        return len(self.overdue)

    def retire(self, helper: Helper) -> bool:
        """Tell whether an idle helper may end: no call can be handed to it any more."""
        if helper.lost:
            return True
        # The last idle helper stays, so that an occasional call need not start a thread.
        if self.idle == [helper]:
            return False
        try:
            self.idle.remove(helper)
        except ValueError:  # another took it a moment ago, or was interrupted while doing so
            helper.lost = True
            return False
        return True

    def stop(self) -> set[Helper]:
        """Let every helper end, at once or after its call; those that were not idle."""
        self.closed = True
        # A helper between two calls may stand in only one of the two.
        helpers = self.helpers.union(self.idle)
        busy = helpers - set(self.idle)
        self.idle.clear()
        for helper in helpers:
            helper.inbox.put(None)
        return busy


class Helper:
    """A thread that runs one call after another."""

    __slots__ = ("closers", "inbox", "lost", "pool", "thread")

    def __init__(self, pool: Pool) -> None:
        self.pool = pool
        self.inbox: SimpleQueue[Call | None] = SimpleQueue()
        self.closers: dict[Callable[[], object], None] = {}
        self.lost = False
        self.thread = threading.Thread(
            target=self._serve, name=f"{pool.name}-guard-{next(pool.numbers)}", daemon=True
        )

    def wait(self, timeout: float) -> None:
        """Wait until the thread has ended, unless it is the current one or not yet started."""
        if self.thread.is_alive() and self.thread is not threading.current_thread():
            self.thread.join(max(0.0, timeout))

    def _serve(self) -> None:
        _current.helper = self
        try:
            while self._serve_next() and not self.pool.closed:
                pass
        finally:
            self.pool.helpers.discard(self)
            self._close_opened()

    def _serve_next(self) -> bool:
        try:
            call = self.inbox.get(timeout=IDLE_SECONDS)
        except Empty:
            return not self.pool.retire(self)
        if call is None:
            return False
        # It got a call although it was missed in `idle`: it is in use again.
        self.lost = False
        self._run(call)
        return True

    def _run(self, call: Call) -> None:
        try:
            fn = call.ticket.pop()
        except IndexError:  # taken back
            self.pool.idle.append(self)
            return
        try:
            call.value = call.context.run(fn)
        except BaseException as exc:  # noqa: BLE001 - the caller raises it
            call.error = exc
        self._settle(call)

    def _settle(self, call: Call) -> None:
        """Give the outcome to the caller, who will find this helper idle, or see to it here."""
        if call.late:
            # Before it is idle: the next caller must not share what an abandoned call left.
            self._finish(call)
            self.pool.idle.append(self)
        else:
            # Before the caller wakes: its next call then finds this helper idle.
            self.pool.idle.append(self)
            call.done.release()
            if call.is_missed():
                self._finish(call)
        call.over = True

    def _finish(self, call: Call) -> None:
        """End an abandoned call: tell what became of it, and close what it opened."""
        try:
            if call.on_late is not None:
                call.context.run(call.on_late, Late(call.value, call.error))
        except BaseException as exc:  # noqa: BLE001 - no caller waits; the helper must live
            self._report("on_late", exc)
        finally:
            self._close_opened()
            self.pool.overdue.discard(call)

    def _close_opened(self) -> None:
        # The last one opened is closed first, as with an exit stack.
        while self.closers and not self.pool.forked:
            closer, _ = self.closers.popitem()
            try:
                closer()
            except BaseException as exc:  # noqa: BLE001 - the others are closed as well
                self._report("closer", exc)

    def _report(self, what: str, exc: BaseException) -> None:
        say(logging.WARNING, "%s of guard %r raised %s", what, self.pool.name, type(exc).__name__)


def register_closer(closer: Callable[[], object]) -> bool:
    """Have the helper thread that runs the current call close what the call opened.

    The helper calls it once: when an abandoned call returns, since the state of what it opened is
    unknown, or when the helper ends. Registering the same closer twice registers it once. In a
    forked child nothing is closed: it is the parent's.

    Returns:
        False if the current thread is no helper; the caller closes by itself then.
    """
    helper: Helper | None = getattr(_current, "helper", None)
    if helper is None:
        return False
    helper.closers[closer] = None
    return True
