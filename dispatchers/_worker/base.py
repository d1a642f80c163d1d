"""Base class of workers that take work themselves: threads, leases, stopping and settling."""

from __future__ import annotations

import importlib
import logging
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from time import monotonic
from typing import Generic, TypeVar, final

from dispatchers._dispatch.base import BaseDispatcher
from dispatchers._dispatch.error_mapping import type_name
from dispatchers._dispatch.worker_protocol import WorkerOptions
from dispatchers._models.dead_letter import DeadLetter
from dispatchers._models.outcome import Outcome
from dispatchers._runtime.heartbeat import Heartbeat
from dispatchers._runtime.log import say, say_once
from dispatchers._worker.idle import Idle
from dispatchers._worker.runner import run_envelope
from dispatchers._worker.settings import run_settings
from dispatchers._worker.settlement import Delivery, settle
from dispatchers._worker.signals import StopFlag, stopped_by_signals

__all__ = ["BaseWorker", "Work"]

H = TypeVar("H")

LOOK = 1.0
"""Seconds between two looks: a signal that another thread gets does not wake the main one."""
PAUSES = (0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0)
"""Seconds until a backend that has failed so often in a row is asked again; the last is kept to."""


@dataclass(frozen=True, slots=True)
class Work(Generic[H]):
    """One delivery, as `_take` returns it."""

    handle: H
    """The backend's own handle of it: a row, a message, a receipt."""
    body: bytes
    """The envelope."""
    attempt: int = 1
    """The attempt that a run of it is, from 1."""
    deliveries: int = 1
    """How often this attempt was delivered, this time included."""
    id: str = ""
    """The backend's id, for the dead letter of a message that is no envelope."""
    queue: str = ""
    """The queue it came from."""
    early: float = 0.0
    """Seconds until it is due, where the backend cannot hold it so long: it is given back."""


class BaseWorker(ABC, Generic[H]):
    """A worker in threads: you write how work is taken and settled.

    What you write is called from several threads at once, and may raise anything. A call that
    settles returns once the backend has confirmed it, and does nothing where the lease is lost.

    Args:
        dispatcher: The dispatcher whose work it runs.

        options: The options of the command line.
    """

    lease: float = 0.0
    """Seconds that `_take` and `_renew` hold work for; 0 where there is nothing to renew."""
    poll: float = 0.5
    """Seconds that an idle thread waits for work before it looks whether to stop."""

    def __init__(self, dispatcher: BaseDispatcher, options: WorkerOptions) -> None:
        self.dispatcher = dispatcher
        self.options = options
        self._settings = run_settings(dispatcher.options)
        self._stopping = StopFlag()
        self._running: set[_Delivery[H]] = set()
        self._idle = Idle(options.concurrency)

    # What you write.

    @abstractmethod
    def _take(self, wait: float) -> Work[H] | None:
        """Take work that is due from `options.queues`, or from all if none are named.

        Args:
            wait: Seconds in which work may still come. A return before they are over is no
                mistake: the worker waits for the rest.

        Returns:
            The work, held for `lease`; None where nothing is due.
        """

    @abstractmethod
    def _complete(self, work: Work[H]) -> None:
        """Settle it: nothing is left to do."""

    @abstractmethod
    def _retry(self, work: Work[H], after: float, attempt: int) -> None:
        """Let it come again in `after` seconds as attempt `attempt`, not delivered yet."""

    @abstractmethod
    def _give_back(self, work: Work[H], after: float, deliveries: int) -> None:
        """Let the same attempt come again in `after` seconds, as delivered `deliveries` times.

        That is once less than `work.deliveries` where it did not run to an end that counts, and
        `work.deliveries` where its handler has exited.
        """

    @abstractmethod
    def _dead_letter(self, work: Work[H], letter: DeadLetter) -> None:
        """Settle it as failed. A configured store has the letter; without one, keep it."""

    def _renew(self, work: Work[H]) -> bool:
        """Hold it for another `lease`; false if it is lost, so that its run does not count."""
        return True

    def _wake(self) -> None:
        """Have each `_take` that waits return, as the worker stops; else it waits for `poll`."""

    def _is_drained(self) -> bool:
        """Tell whether nothing that is delayed is waited for; asked with `drain`, as none is due.

        True by default: delayed work is left for another worker.
        """
        return True

    # What the base class does.

    @final
    def run(self) -> int:
        """Work until stopped, by `stop`, SIGTERM or SIGINT; with `drain`, until nothing is due.

        Returns:
            0; 1 where handlers were still running after the grace, whose work was given back.
        """
        for module in self.options.modules:
            importlib.import_module(module)
        threads = [
            threading.Thread(target=self._loop, name=f"dispatchers-worker-{n}", daemon=True)
            for n in range(self.options.concurrency)
        ]
        with stopped_by_signals(self.stop):
            try:
                for thread in threads:
                    thread.start()
                while not self._stopping.wait(LOOK):
                    pass
            finally:
                self.stop()
            return self._joined(threads)

    @final
    def stop(self) -> None:
        """Take no more work, finish what runs, then return from `run`. Safe in signal handlers."""
        self._stopping.set()

    @final
    def step(self, wait: float = 0.0) -> Outcome | None:
        """Run the next work in this thread; None where nothing is due within `wait` seconds."""
        work = self._due(wait)
        return None if work is None else self._worked(work)

    def _joined(self, threads: list[threading.Thread]) -> int:
        """Wait for the grace, then give back what still runs."""
        until = monotonic() + self.options.grace
        _tried("threads that wait could not be woken", self._wake)
        for thread in threads:
            thread.join(max(0.0, until - monotonic()))
        left = [each for each in tuple(self._running) if self._is_mine(each)]
        for each in left:
            each.given_back = True
            _tried("work could not be given back", each.give_back, 0.0)
        return int(bool(left))

    def _loop(self) -> None:
        failures = 0
        while not self._stopping.is_set():
            try:
                self._look()
                failures = 0
            except Exception as exc:  # noqa: BLE001 - anything a client raises
                say_once(self, logging.ERROR, "no work could be taken: %s", type_name(exc))
                self._stopping.wait(PAUSES[min(failures, len(PAUSES) - 1)])
                failures += 1

    def _look(self) -> None:
        """Run the next work, or wait for some."""
        since, until = self._idle.since, monotonic() + self.poll
        work = self._due(self.poll)
        if work is not None:
            self._survived(work)
        elif self.options.drain and self._idle.all_are(since) and self._is_drained():
            self.stop()
        else:
            self._stopping.wait(max(0.0, until - monotonic()))

    def _due(self, wait: float) -> Work[H] | None:
        """Take work to run; what is early, or came as the worker stopped, goes back."""
        work = self._take(wait)
        if work is not None and (work.early > 0 or self._stopping.is_set()):
            self._give_back(work, work.early, work.deliveries - 1)
            return None
        return work

    def _survived(self, work: Work[H]) -> None:
        """Run work in a thread that outlives handlers which exit."""
        self._idle.begin()
        try:
            self._worked(work)
        except BaseException as exc:  # noqa: BLE001 - a task that exits must not end the worker
            words = "a run was ended by %s: it is delivered again (message %s)"
            say(logging.ERROR, words, type_name(exc), work.id)
        finally:
            self._idle.end()

    def _worked(self, work: Work[H]) -> Outcome:
        delivery = _Delivery(self, work)
        delivery.heartbeat = self._heartbeat(delivery)
        self._running.add(delivery)
        try:
            outcome = self._outcome(delivery)
        except BaseException:
            if self._is_mine(delivery):
                _tried("work could not be given back", self._give_back, work, 0.0, work.deliveries)
            raise
        if self._is_mine(delivery):
            self._settled(delivery, outcome)
        return outcome

    def _settled(self, delivery: _Delivery[H], outcome: Outcome) -> None:
        # Another worker may have it by now, whose run counts. A claim of the idempotency store that
        # is lost is another matter: the message is still held, and goes back.
        if delivery.is_lost:
            words = "the lease of a run of %s was lost: its result does not count"
            say(logging.WARNING, words, outcome.task, extra={"request_id": outcome.request_id})
        else:
            settle(delivery, outcome, self.dispatcher.letters)

    def _outcome(self, delivery: _Delivery[H]) -> Outcome:
        return run_envelope(
            delivery.body,
            attempt=delivery.attempt,
            deliveries=delivery.deliveries,
            heartbeat=delivery.heartbeat,
            settings=self._settings,
            stopping=self._stopping.is_set,
        )

    def _heartbeat(self, delivery: _Delivery[H]) -> Heartbeat | None:
        if not self.lease:
            return None
        # A third of the lease: two renewals may fail before it runs out.
        return Heartbeat(lambda: self._renewed(delivery), self.lease / 3)

    def _renewed(self, delivery: _Delivery[H]) -> bool:
        return not delivery.given_back and self._renew(delivery.work)

    def _is_mine(self, delivery: _Delivery[H]) -> bool:
        """Take the right to settle: of the run and the end of the grace, the first has it."""
        try:
            self._running.remove(delivery)
        except KeyError:
            return False
        return True


class _Delivery(Delivery, Generic[H]):
    """Work as the core settles it."""

    def __init__(self, worker: BaseWorker[H], work: Work[H]) -> None:
        self.work = work
        # `queue_of` is None for the backend's own queue, and a table may have kept that.
        self.body, self.id, self.queue = work.body, work.id, work.queue or ""
        self.attempt, self.deliveries = work.attempt, work.deliveries
        self.heartbeat: Heartbeat | None = None
        self.given_back = False
        """True once the grace is over: its late run holds it no more."""
        self._worker = worker

    @property
    def is_lost(self) -> bool:
        """Tell whether a renewal has found that the backend holds it for this worker no more."""
        return self.heartbeat is not None and self.heartbeat.lost

    def complete(self, outcome: Outcome) -> None:
        self._worker._complete(self.work)

    def retry(self, outcome: Outcome) -> None:
        self._worker._retry(self.work, outcome.after, outcome.attempt + 1)

    def give_back(self, after: float) -> None:
        self._worker._give_back(self.work, after, self.deliveries - 1)

    def dead_letter(self, outcome: Outcome, letter: DeadLetter) -> None:
        self._worker._dead_letter(self.work, letter)


def _tried(words: str, call: Callable[..., None], *values: object) -> None:
    """Call what the adapter wrote where the worker goes on whatever it raises."""
    try:
        call(*values)
    except Exception as exc:  # noqa: BLE001 - anything a client raises
        say(logging.ERROR, f"{words}: %s", type_name(exc))
