"""`WorkflowClock`: whole executions in the process of a test, in no time."""

from __future__ import annotations

import time
from collections.abc import Callable, Coroutine, Generator, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any, TypeVar

from dispatchers._journal.loading import in_place
from dispatchers._journal.values import Record, Status
from dispatchers._runtime.clock import moved_by_hand
from dispatchers._tasks.task import AnyTask, catalogue
from dispatchers.backends.memory import Delivery, MemoryDispatcher
from dispatchers.testing._install import installed
from dispatchers.workflows import Execution, Signal, UnknownExecutionError, Workflow, sweep
from dispatchers.workflows._cache import live
from dispatchers.workflows._sweep import sweeper

from ._journal import Killed, TestJournal
from ._replays import ReplayError, differences
from ._seed import seed_of
from ._steps import Answers

__all__ = ["WorkflowClock"]

T = TypeVar("T")

TIMEOUT = 5.0
MOST = 100_000
"""Pieces of work after which an execution is taken for endless."""
MOST_DELIVERIES = 3
"""Times that one turn is killed, less one: an execution whose turns die is stuck in the end."""
PATIENCE = 4
"""Times that commands are tried again which their dispatcher does not take."""
ALWAYS = 200
"""Entries up to which an execution is replayed each time; beyond it, once a tenth was added."""
FORGOTTEN = 1 / 4
"""The part of times after which the code that waits is forgotten, as by another worker's turn."""


class WorkflowClock:
    """Runs executions with the real engine, on queue and journal in memory, with time skipped.

    Whatever is due at one instant is done in an order of chance, turns are killed at chance
    commits, and after each turn the execution is replayed from its start and compared. All of it
    follows from the seed. Made by `installed`, or the fixture `workflow_clock`.
    """

    def __init__(self, seed: int, queue: MemoryDispatcher) -> None:
        self.seed = seed
        """The number that `--workflow-seed` repeats."""
        self._chance = Random(seed)  # noqa: S311 - repeatable is the point
        self._queue = queue
        self._journal = TestJournal(self._chance)
        self._answers = Answers()
        self._ready: list[Delivery] = []
        # A whole second: what is added to it stays exact.
        self._began = self._now = float(int(time.time()))
        self._started = 0
        self._replayed: dict[str, int] = {}
        self._refused: tuple[list[str], int] = ([], 0)

    @classmethod
    @contextmanager
    def installed(cls, seed: int | None = None) -> Generator[WorkflowClock]:
        """Use a clock, its queue and its journal in place of what is configured.

        Args:
            seed: Of a run to be repeated; None takes that of `WORKFLOW_SEED`, else one by chance.
        """
        waive = [o for o in OPTIONS if not MemoryDispatcher.capabilities.supports(o)]
        queue = MemoryDispatcher(alias="default", waive=waive)
        clock = cls(seed_of(seed), queue)
        with (
            _no_sweeper(),
            moved_by_hand(lambda: clock._now),
            in_place(clock._journal),
            installed(queue),
        ):
            try:
                yield clock
            finally:
                live.clear()

    # What a test asks for.

    def start(
        self,
        workflow: Workflow[..., Coroutine[Any, Any, T]],
        *args: Any,
        key: str | None = None,
        **kwargs: Any,
    ) -> Execution[T]:
        """Dispatch a workflow. Nothing of it runs before `run`, `advance` or `run_until`.

        Args:
            workflow: The workflow.

            args: Its arguments.

            key: The idempotency key; None takes 1, 2, 3 ...

            kwargs: Its arguments.

        Raises:
            DispatchError: They do not fit.
        """
        self._started += 1
        key = str(self._started) if key is None else key
        workflow.options(idempotency_key=key).dispatch(*args, **kwargs).raise_for_error()
        return _Watched(self, f"{workflow.name}/{key}", workflow.versions)

    def step_fails(
        self, task: AnyTask, exc: Exception | type[Exception], *, times: int | None = None
    ) -> None:
        """Let the next runs of a task raise, instead of running it; each attempt counts.

        Args:
            task: The task, or the workflow of a child.

            exc: What they raise.

            times: How many runs; None is every run from now on.
        """

        def raising() -> Any:
            raise exc

        self._answers.plan(task, raising, times)

    def step_returns(self, task: AnyTask, value: object, *, times: int | None = None) -> None:
        """Let the next runs of a task return a value, instead of running it.

        Args:
            task: The task, or the workflow of a child.

            value: The result.

            times: How many runs; None is every run from now on.

        Raises:
            PayloadError: The value does not fit the task's annotation.
        """
        task.results.encode(value)
        self._answers.plan(task, lambda: value, times)

    def send(self, signal: Signal[T], execution: Execution[Any], value: T) -> None:
        """Send a signal, also to an execution that has not begun.

        Raises:
            DispatchError: The value does not fit.
        """
        flow = _workflow_of(execution.id)
        key = execution.id.removeprefix(f"{flow.name}/")
        signal.send(flow, key, value).raise_for_error()

    @property
    def hint(self) -> str:
        """The way to repeat the run, for a test that fails."""
        return f"--workflow-seed={self.seed} repeats the order of this run"

    # Time.

    @property
    def now(self) -> datetime:
        """The instant, aware UTC."""
        return datetime.fromtimestamp(self._now, UTC)

    @property
    def elapsed(self) -> timedelta:
        """The time that has passed since the clock began."""
        return timedelta(seconds=self._now - self._began)

    def run(self) -> None:
        """Go on until nothing is left to do: all has ended, or waits for a signal.

        Raises:
            ReplayError: An execution does not do again what it did, or is stuck.

            AssertionError: It does not end.
        """
        self._run(lambda: False, float("inf"))

    def advance(self, by: timedelta) -> None:
        """Let time pass, and do what becomes due."""
        until = self._now + by.total_seconds()
        self._run(lambda: False, until)
        self._now = until

    def run_until(self, condition: Callable[[], object]) -> None:
        """Go on until a condition holds; it is asked after each piece of work.

        Raises:
            AssertionError: Nothing is left to do, and it does not hold.
        """
        assert self._run(condition, float("inf")), "nothing is left to do, the condition fails"

    def _run(self, condition: Callable[[], object], until: float) -> bool:
        for _ in range(MOST):
            if _holds(condition):
                return True
            if not self._go_on(until):
                return False
        raise AssertionError(
            f"not at an end after {MOST:,} pieces of work and {self.elapsed}: for a workflow "
            "without end, use advance() or run_until()"
        )

    def _go_on(self, until: float) -> bool:
        """Do one thing: a piece of work, a sweep, or skip to the next instant."""
        while (delivery := self._queue.claim()) is not None:
            self._ready.append(delivery)
        if self._ready:
            self._deliver(self._ready.pop(self._chance.randrange(len(self._ready))))
            return True
        return sweep() > 0 or self._skip(until)

    def _skip(self, until: float) -> bool:
        self._check_refused()
        at = min(self._journal.next_instant, self._queue._queue.next_due())
        if at > until or at == float("inf"):
            return False
        self._now = max(self._now, at)
        return True

    def _check_refused(self) -> None:
        """Refuse to repeat for ever what no dispatcher takes."""
        refused = self._journal.refused
        self._refused = (refused, self._refused[1] + 1 if refused == self._refused[0] else 0)
        if refused and self._refused[1] >= PATIENCE:
            raise AssertionError(f"not taken by its dispatcher, see the log: {', '.join(refused)}")

    # Work.

    def _deliver(self, delivery: Delivery) -> None:
        self._journal.may_kill = delivery.deliveries < MOST_DELIVERIES
        try:
            with self._answers.standing_in(delivery.task):
                self._queue.run(delivery)
        except Killed:
            # With its process goes the code that waits in it, of all executions.
            live.clear()
            self._journal.revive()
        changed, self._journal.changed = self._journal.changed, set()
        for execution in sorted(changed):
            self._check(execution)
        if self._chance.random() < FORGOTTEN:
            live.clear()

    def _check(self, execution: str) -> None:
        record = self._journal.look(execution, timeout=TIMEOUT)
        if record is None or self._journal.wants_turn(execution):
            return
        if record.status is Status.STUCK:
            raise ReplayError(f"execution {record.id} is stuck: {record.why}")
        if self._is_due(record):
            self._replay(record)

    def _is_due(self, record: Record) -> bool:
        if record.head > ALWAYS and record.head < 1.1 * self._replayed.get(record.id, 0):
            return record.status.is_end
        self._replayed[record.id] = record.head
        return True

    def _replay(self, record: Record) -> None:
        entries = self._journal.entries(record.id, timeout=TIMEOUT)
        versions = _workflow_of(record.id).versions
        parked = live.take(record.id, self._journal)
        try:
            replay = parked.replay if parked else None
            problem = next(differences(record, entries, versions, replay), None)
        finally:
            if parked is not None:
                live.put(record.id, parked)
        if problem is not None:
            raise ReplayError(
                f"execution {record.id}, replayed from its start: {problem} (seed {self.seed})"
            )


OPTIONS = ("delay", "priority", "expires", "time_limit", "deduplicate")


class _Watched(Execution[T]):
    """An execution that is run on where its result is asked for."""

    def __init__(self, clock: WorkflowClock, *args: Any) -> None:
        super().__init__(*args)
        self._clock = clock

    def _pauses(self, timeout: float | None) -> Iterator[float]:
        del timeout
        self._clock.run()
        yield 0.0


def _holds(condition: Callable[[], object]) -> bool:
    try:
        return bool(condition())
    except UnknownExecutionError:  # its start is on the way
        return False


def _workflow_of(execution: str) -> Workflow[..., Any]:
    """Return the workflow of an id; names contain no slash, keys may."""
    found = catalogue.find(execution.partition("/")[0])
    assert isinstance(found, Workflow), f"{execution!r} is no execution of a known workflow"
    return found


@contextmanager
def _no_sweeper() -> Generator[None]:
    """Stop the sweep of this process, which knows nothing of a test's time."""
    was_running = sweeper.is_running
    sweeper.stop()
    try:
        yield
    finally:
        if was_running:
            sweeper.start()
