"""The two tasks of a workflow that workers run: its start, and its turns."""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress

from pydantic_core import to_json

from dispatchers._errors import ConfigurationError, RejectedError
from dispatchers._journal.errors import JournalError, LimitError
from dispatchers._journal.loading import journal as current_journal
from dispatchers._journal.protocol import Journal
from dispatchers._journal.values import Start
from dispatchers._models.outcome import Reason
from dispatchers._runtime import clock
from dispatchers._runtime.log import say, say_once
from dispatchers._worker.claim import UNAVAILABLE_DELAY
from dispatchers._worker.outcomes import HandBack
from dispatchers._worker.run import Run, current_run
from dispatchers._worker.steps import PARENT, STEP, Step
from dispatchers.workflows._events import KINDS, Event
from dispatchers.workflows._known_children import answer_for
from dispatchers.workflows._sweep import sweep_here
from dispatchers.workflows._turn import MissingVersionError, take_turn
from dispatchers.workflows._versions import Versions

__all__ = ["began", "turned"]

TIMEOUT = 5.0
"""Seconds for one call of the journal."""
OTHER_WORKER = 5.0
"""Seconds after which a turn comes again that this worker lacks the version for."""
SKEW = 60.0
"""Seconds for which such a turn is handed back; after that the sweep brings another."""


def began(name: str, versions: Versions, dispatcher: str) -> None:
    """Begin the execution that the running request asks for, and take its first turn.

    Args:
        name: The workflow's registered name.

        versions: The workflow's code, by number.

        dispatcher: The alias through which it is woken.
    """
    run = current_run()
    start = _start(run, name, versions.latest, dispatcher)
    with _Guarded(run) as journal:
        answered = journal.begin(start, timeout=TIMEOUT)
        if not answered.first:
            _repeated(journal, start, run)
        # A redelivery goes on with the turn in which the worker before it has ended.
        if answered.wake is not None or run.deliveries > 1:
            _turn(journal, versions, start.execution, run)


def turned(name: str, versions: Versions, execution: str, event: Event | None) -> None:
    """Record an event, if the message brings one, and take a turn."""
    run = current_run()
    with _Guarded(run) as journal:
        if event is not None:
            _deliver(journal, name, execution, event, run)
        _turn(journal, versions, execution, run)


class _Guarded:
    """Turns errors of the journal into outcomes: the delivery comes back."""

    def __init__(self, run: Run) -> None:
        self._run = run

    def __enter__(self) -> Journal:
        try:
            return current_journal()
        except ConfigurationError as exc:
            words = f"an execution of {self._run.task.name!r} cannot be recorded: {exc}"
            raise HandBack(Reason.NO_JOURNAL, words) from exc

    def __exit__(self, kind: object, exc: BaseException | None, trace: object) -> None:
        if isinstance(exc, LimitError):
            return
        if isinstance(exc, JournalError):
            words = "the journal of executions: %s; turns are handed back"
            say_once(_Guarded, logging.ERROR, words, str(exc))
            after = UNAVAILABLE_DELAY
            raise HandBack(Reason.STORE_UNAVAILABLE, str(exc), after=after) from exc


# Starting.


def _start(run: Run, name: str, number: int, dispatcher: str) -> Start:
    # Of the envelope as the worker has read it: the request would be read from its text once more.
    envelope = run.envelope
    headers = envelope.get("headers") or {}
    parent = Step.named(headers, PARENT)
    return Start(
        execution=f"{name}/{envelope.get('idempotency_key') or envelope['id']}",
        workflow=name,
        version=number,
        dispatcher=dispatcher,
        queue=envelope.get("queue"),
        headers=_passed_on(headers),
        input=run.body,
        at=clock.time(),
        parent=parent.execution if parent else None,
        parent_number=parent.number if parent else None,
    )


def _passed_on(headers: Mapping[str, str]) -> bytes:
    """Return the headers that turns and steps get, too: the trace context among them."""
    return to_json({name: value for name, value in headers.items() if name not in (STEP, PARENT)})


def _repeated(journal: Journal, start: Start, run: Run) -> None:
    """Answer a parent that waits for an execution which is there already."""
    if start.parent is None or start.parent_number is None:
        return
    record = journal.look(start.execution, timeout=TIMEOUT)
    if record is not None:
        answer_for(journal, record, start.parent, start.parent_number, run.request.id)


# Turns.


def _deliver(journal: Journal, name: str, execution: str, event: Event, run: Run) -> None:
    answered = journal.deliver(
        execution,
        name,
        KINDS[event.kind],
        event.name,
        None if event.body is None else event.body.encode(),
        source=run.request.id,
        at=clock.time(),
        timeout=TIMEOUT,
    )
    if not answered.first:
        say(logging.INFO, "%s of %s: it has ended, or knows it already", event.kind, execution)


_nested = threading.local()
"""The turns that are to be taken once the one under way in this thread is over."""


def _turn(journal: Journal, versions: Versions, execution: str, run: Run) -> None:
    """Take a turn, and those that it asks for in this very thread, one after the other.

    Where work runs in the call that hands it over, each answer asks for a turn within the turn:
    one in the other they would fill the stack.
    """
    request_id, deliveries = run.envelope["id"], _lost_workers(run) + 1

    def take() -> None:
        take_turn(journal, versions, execution, request_id, deliveries)

    waiting: deque[Callable[[], None]] | None = getattr(_nested, "waiting", None)
    if waiting is not None:
        waiting.append(take)
        return
    _nested.waiting = waiting = deque([take])
    try:
        while waiting:
            waiting.popleft()()
    except MissingVersionError as exc:
        _hand_back(run, str(exc))
    finally:
        _nested.waiting = None
    with suppress(ConfigurationError, RejectedError):
        sweep_here(run.task.policy.dispatcher)


def _lost_workers(run: Run) -> int:
    """Return how many workers have ended in this very turn, as far as the transport can tell.

    Only where the journal cannot: messages are also lost by workers that have not begun the turn.
    """
    return run.deliveries - 1 if run.attempt == 1 else 0


def _hand_back(run: Run, why: str) -> None:
    age = (clock.now() - run.request.created_at).total_seconds()
    if age < SKEW:
        raise HandBack(Reason.UNKNOWN_TASK, why, after=OTHER_WORKER)
    say_once(_hand_back, logging.WARNING, "a turn is left to other workers: %s", why)
