"""The threads of `thread`, and the queue between them and those who dispatch.

One re-entrant lock keeps the state; every change under it is one step of the interpreter, so that
a signal handler or a finalizer may dispatch, or close, in the midst of it. Workers are woken by
tokens in a `SimpleQueue`, whose `put` is safe there too: no wake-up is lost to a re-entrant call.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from contextlib import suppress
from queue import Empty, SimpleQueue
from time import monotonic

from dispatchers._errors import ErrorCategory, RejectedError
from dispatchers._models.dead_letter import DeadLetterStore
from dispatchers._models.outcome import Action, Outcome
from dispatchers._models.stats import Stats, tallied
from dispatchers._worker.runner import RunSettings, run_envelope
from dispatchers.backends._drain_at_exit import exit_watch
from dispatchers.backends._job import DEFAULT_QUEUE, Keys, Work, crashed, follow_up
from dispatchers.backends._priority_queue import Backlog

__all__ = ["Pool"]

IDLE = 60.0
"""Seconds after which a thread with nothing to do ends; the next work starts another."""


class Pool:
    """Runs work on up to `workers` threads; one process's own, dropped in a forked child.

    Args:
        alias: The dispatcher's, for names and messages.

        workers: How many runs at once.

        capacity: How much may wait.

        settings: What the configuration says about runs.

        letters: The store of work that failed permanently.
    """

    def __init__(
        self,
        alias: str,
        workers: int,
        capacity: int,
        settings: RunSettings,
        letters: DeadLetterStore | None,
    ) -> None:
        self.label = f"{alias!r} (thread)"
        self._alias = alias
        self._limit = workers
        self._capacity = capacity
        self._settings = settings
        self._letters = letters
        self._lock = threading.RLock()
        self._changed = threading.Condition(self._lock)
        # More tokens than work do no harm: a thread that finds nothing waits again.
        self._tokens: SimpleQueue[None] = SimpleQueue()
        self._backlog = Backlog()
        self._keys = Keys()
        self._threads: set[threading.Thread] = set()
        self._running: set[Work] = set()
        self._inside = 0
        self._given_up = 0
        self._closing = False
        self._over = False
        self._abandoned = False

    # The side of those who dispatch.

    def put(self, work: Work, due: float | None = None) -> str | None:
        """Let `work` wait, until `due` on the monotonic clock if that is given.

        Returns:
            The id of work under its key that waits or runs already; it is not put then.

        Raises:
            RejectedError: The queue is full or closed.
        """
        with self._lock:
            if known := self._keys.known(work):
                return known
            self._refuse()
            self._hire()
            self._keys.add(work)
            self._push(work, due)
            if self._over:  # closed by a signal handler, since the question above
                self._backlog.clear()
                self._refuse()
        return None

    def _refuse(self) -> None:
        if self._closing:
            raise RejectedError(ErrorCategory.CLOSED, f"dispatcher {self._alias!r} was closed")
        if len(self._backlog) >= self._capacity:
            raise RejectedError(
                ErrorCategory.CAPACITY,
                f"queue of {self._alias!r} is full: {self._capacity} waiting",
            )

    def _push(self, work: Work, due: float | None) -> None:
        work.due = monotonic() if due is None else due
        self._backlog.add(work, due)
        self._tokens.put(None)

    def _hire(self) -> None:
        """Start a thread if there may be more of them and none is free for one more run."""
        count = len(self._threads)
        if count >= self._limit or count > len(self._running) + len(self._backlog):
            return
        thread = threading.Thread(
            # Not a daemon: the interpreter's exit waits for accepted work.
            target=self._work,
            name=f"dispatchers-{self._alias}-{count}",
            daemon=False,
        )
        self._threads.add(thread)
        try:
            exit_watch.watch(self)
            thread.start()
        except RuntimeError as exc:  # no more threads, or the interpreter is shutting down
            self._threads.discard(thread)
            # With other threads alive the work is only later, not lost.
            if not count:
                raise RejectedError(
                    ErrorCategory.CAPACITY, f"no thread could be started for {self._alias!r}"
                ) from exc

    def counted(self, dead: Mapping[str, int] | None) -> list[Stats]:
        """Return the figures of the work by the queue it names."""
        with self._lock:
            pending = self._backlog.pending()
            running = [work.queue or DEFAULT_QUEUE for work in self._running]
        waiting = ((work.queue or DEFAULT_QUEUE, work.due) for work in pending)
        return tallied(waiting, running, now=monotonic(), dead=dead, queues=(DEFAULT_QUEUE,))

    # The side of the workers.

    def _work(self) -> None:
        while (work := self._take()) is not None:
            outcome = self._outcome(work)
            # The handler forked: this is the child, and the work belongs to the parent.
            if self._abandoned:
                return
            self._settle(work, outcome)

    def _take(self) -> Work | None:
        """The next work that is due; None for a thread that is not needed any more."""
        while True:
            expired = self._waited()
            with self._lock:
                for _ in range(self._backlog.promote(monotonic())):
                    self._tokens.put(None)
                if (work := self._backlog.pop()) is not None:
                    self._running.add(work)
                    return work
                if self._closing or (expired and not self._backlog):
                    self._leave()
                    return None

    def _waited(self) -> bool:
        """Wait for a token; true where none came for as long as a thread is kept idle."""
        due = self._backlog.next_due
        wait = IDLE if due is None else min(max(0.0, due - monotonic()), IDLE)
        try:
            self._tokens.get(timeout=wait)
        except Empty:
            return True
        return False

    def _leave(self) -> None:
        self._threads.discard(threading.current_thread())
        self._changed.notify_all()

    def _outcome(self, work: Work) -> Outcome:
        assert work.context is not None
        try:
            # A copy for each attempt: a retry must not see what the first one has set.
            return work.context.copy().run(
                run_envelope,
                work.body,
                attempt=work.attempt,
                deliveries=work.deliveries,
                settings=self._settings,
                stopping=self._is_closing,
            )
        except BaseException as exc:  # noqa: BLE001 - a task that exits must not end the thread
            return crashed(work, exc)

    def _is_closing(self) -> bool:
        return self._closing

    def _settle(self, work: Work, outcome: Outcome) -> None:
        # Outside of the lock: a dead-letter store may take its time.
        after = follow_up(work, outcome, self._letters)
        with self._lock:
            self._running.discard(work)
            if after is None:
                self._keys.discard(work.key)
            elif self._over or (self._closing and outcome.action is Action.RETURN):
                self._given_up += 1
            else:
                work.count(outcome)
                self._push(work, monotonic() + after if after else None)

    # The end.

    def close(self, timeout: float) -> int:
        """Run what is due, at most for `timeout` seconds; then let the rest go.

        A thread of this pool that closes it, from a handler, does not wait for itself.

        Returns:
            How many pieces of work were left undone, those that still run among them.
        """
        until = monotonic() + timeout
        with self._changed:
            self._closing = True
            inside = threading.current_thread() in self._threads
            self._inside += inside
            # A handler that closes the pool takes up a thread, which another replaces meanwhile.
            self._limit += inside
            self._wake_all()
            while len(self._threads) > self._inside and (left := until - monotonic()) > 0:
                self._changed.wait(left)
            return self._end(inside)

    def _wake_all(self) -> None:
        """Have every thread look again; another takes the place of one that is closing."""
        with suppress(RejectedError):
            if self._backlog:
                self._hire()
        for _ in range(len(self._threads)):
            self._tokens.put(None)

    def _end(self, inside: bool) -> int:
        left = len(self._backlog) + self._given_up + len(self._running) - self._inside
        self._over = True
        self._inside -= inside
        self._given_up = 0
        self._backlog.clear()
        self._keys.clear()
        return left

    def abandon(self) -> None:
        """Leave everything to the parent: this is a forked child, on its only thread."""
        self._abandoned = True
