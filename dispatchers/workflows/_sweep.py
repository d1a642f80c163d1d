"""Waking executions whose wake-up was lost, is not known to any queue, or could not leave."""

from __future__ import annotations

import logging
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from heapq import heappop, heappush
from random import SystemRandom

from dispatchers._config.api import resolve
from dispatchers._dispatch.base import BaseDispatcher
from dispatchers._errors import ConfigurationError, RejectedError
from dispatchers._journal.errors import JournalError
from dispatchers._journal.loading import journal as current_journal
from dispatchers._journal.memory import MemoryJournal
from dispatchers._journal.values import Query, Status, WakeUp
from dispatchers._runtime import clock
from dispatchers._runtime.fork import renew_after_fork
from dispatchers._runtime.log import say_once
from dispatchers._tasks.task import catalogue
from dispatchers._worker.steps import wake_of
from dispatchers._worker.waking import TURN, turn_request

__all__ = [
    "Sweeper",
    "is_in_process",
    "refuse_memory",
    "retry_stuck",
    "sweep",
    "sweep_here",
    "sweep_in_worker",
    "sweeper",
]

TIMEOUT = 5.0
"""Seconds for one call of the journal."""
INTERVAL = 5.0
"""Seconds between two sweeps of a process."""
CHANCE = SystemRandom()
"""Not the state of the application's own `random`, which a thread would change meanwhile."""
CHUNK = 100
"""Executions that are looked for at once."""


def sweep(limit: int = 1_000) -> int:
    """Wake executions that want a turn and may not be woken.

    Args:
        limit: At most so many.

    Returns:
        How many were woken.

    Raises:
        ConfigurationError: No journal is configured.

        JournalError: It could not be asked.
    """
    journal = current_journal()
    total = 0
    while total < limit:
        wanted = min(CHUNK, limit - total)
        due = journal.due(limit=wanted, timeout=TIMEOUT)
        total += _wake(due)
        if len(due) < wanted:
            break
    return total


def retry_stuck(limit: int = 1_000) -> int:
    """Wake executions that are stuck: this process may have the code that they wait for.

    Args:
        limit: At most so many.

    Returns:
        How many were woken.

    Raises:
        ConfigurationError: No journal is configured.

        JournalError: It could not be asked.
    """
    found = current_journal().find(Query(status=(Status.STUCK,), limit=limit), timeout=TIMEOUT)
    return _wake([wake_of(record, "stuck") for record in found])


def _wake(due: Sequence[WakeUp]) -> int:
    by_dispatcher: defaultdict[str, list[WakeUp]] = defaultdict(list)
    for wake in due:
        # Handed back by workers that lack it, it would come again and again, and more each time.
        if _is_known(wake.workflow):
            by_dispatcher[wake.dispatcher].append(wake)
    return sum(_dispatched(alias, wakes) for alias, wakes in by_dispatcher.items())


def _is_known(workflow: str) -> bool:
    if catalogue.find(workflow + TURN) is not None:
        return True
    words = "executions of %s wait for a worker that imports it"
    say_once(sweep, logging.WARNING, words, workflow)
    return False


def _dispatched(alias: str, wakes: Sequence[WakeUp]) -> int:
    try:
        responses = resolve(alias).dispatch_many([turn_request(wake) for wake in wakes])
    except (ConfigurationError, RejectedError) as exc:
        say_once(sweep, logging.ERROR, "executions cannot be woken: %s", str(exc))
        return 0
    return len([response for response in responses if response.ok])


class Sweeper:
    """A thread that sweeps now and then, one in each process.

    Args:
        interval: Seconds between two sweeps.
    """

    def __init__(self, interval: float = INTERVAL) -> None:
        self.interval = interval
        self._changed = threading.Condition(threading.RLock())
        self._thread: threading.Thread | None = None
        self._instants: list[float] = []
        """The instants of timers that this process is to fire, a heap."""
        self._has_retried = False
        renew_after_fork(self)

    @property
    def is_running(self) -> bool:
        """Tell whether it sweeps."""
        return self._thread is not None

    def start(self, first: Callable[[], object] = bool) -> None:
        """Begin, unless it has begun.

        Args:
            first: Called before the first sweep.
        """
        with self._changed:
            if self._thread is None:
                self._thread = threading.Thread(
                    target=self._run, args=(first,), name="dispatchers-sweep", daemon=True
                )
                self._thread.start()

    def stop(self) -> None:
        """End it, and wait until it has ended."""
        with self._changed:
            thread, self._thread = self._thread, None
            self._changed.notify_all()
        if thread is not None and thread is not threading.current_thread():
            thread.join()

    def sweep_for_others(self) -> int:
        """Sweep in this call, as a scheduler asks for it; returns how many were woken.

        The first time in a process what is stuck is woken, too: code that fits may have come.

        Raises:
            ConfigurationError: No journal is configured.

            JournalError: It could not be asked.
        """
        retried = 0 if self._has_retried else retry_stuck()
        self._has_retried = True
        return retried + sweep()

    def look_at(self, at: float) -> None:
        """Sweep at an instant as well, in seconds since the epoch."""
        with self._changed:
            heappush(self._instants, at)
            self._changed.notify_all()

    def _run(self, first: Callable[[], object]) -> None:
        _guarded(first)
        while self._wait():
            _guarded(sweep)

    def _wait(self) -> bool:
        """Wait until it is time; false at the end."""
        # Not all workers of a deployment at once.
        until = time.monotonic() + self.interval * CHANCE.uniform(0.8, 1.2)
        with self._changed:
            while self._is_wanted():
                left = until - time.monotonic()
                if self._instants:
                    left = min(left, self._instants[0] - time.time())
                if left <= 0:
                    self._forget_past()
                    return True
                self._changed.wait(left)
            return False

    def _is_wanted(self) -> bool:
        return self._thread is threading.current_thread()

    def _forget_past(self) -> None:
        now = time.time()
        while self._instants and self._instants[0] <= now:
            heappop(self._instants)

    def _after_fork(self) -> None:
        self._changed = threading.Condition(threading.RLock())
        self._thread = None
        self._has_retried = False


def _guarded(work: Callable[[], object]) -> None:
    try:
        work()
    except ConfigurationError:
        return  # the configuration has changed since, and names no journal any more
    except JournalError as exc:
        say_once(sweep, logging.ERROR, "the journal of executions: %s; swept again later", str(exc))
    # A step that runs here may raise `SystemExit`: no timer would fire any more in this process.
    except BaseException as exc:  # noqa: BLE001 - a journal is foreign code, and sweeping goes on
        say_once(sweep, logging.ERROR, "a sweep raised %s: %s", type(exc).__name__, str(exc))


sweeper = Sweeper()
"""The one of this process."""


def sweep_in_worker(dispatcher: BaseDispatcher) -> None:
    """Sweep in the process of a worker that has workflows, from now on.

    Args:
        dispatcher: The one whose work it runs.

    Raises:
        ConfigurationError: Its processes have no journal in common.
    """
    refuse_memory(dispatcher)
    sweeper.start(retry_stuck)


def refuse_memory(dispatcher: BaseDispatcher) -> None:
    """Refuse a journal within one process where the work of a dispatcher runs in several.

    Raises:
        ConfigurationError: It is so.
    """
    if isinstance(current_journal(), MemoryJournal) and not is_in_process(dispatcher):
        raise ConfigurationError(
            f'workflows = "memory" is a journal within one process, and work of '
            f"{dispatcher.alias!r} ({dispatcher.name}) runs in several: write "
            'workflows = "sqlite:/path/to/file"'
        )


def sweep_here(alias: str | None) -> None:
    """Sweep in this process if no worker would: what is woken here runs here.

    Args:
        alias: The dispatcher of the executions.
    """
    if sweeper.is_running or clock.is_moved_by_hand():
        return
    if isinstance(current_journal(), MemoryJournal) or is_in_process(resolve(alias)):
        sweeper.start()


def is_in_process(dispatcher: BaseDispatcher) -> bool:
    """Tell whether a dispatcher's work runs in the process that hands it over."""
    return getattr(dispatcher, "journal", None) == "memory"
