"""A run of ours: the core runs the envelope, and what follows is one step of the server's."""

from __future__ import annotations

import logging
import signal
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING

from dispatchers import Action, DeadLetter, Heartbeat, Outcome, run_envelope, run_settings

from ._letters import epitaph
from ._message import LETTER, LIMIT, body_of, stamp, why
from ._taken import Leases, Taken

if TYPE_CHECKING:
    from ._dispatcher import RQDispatcher

__all__ = ["RunTimeoutError", "bury_stopped", "run_taken"]

log = logging.getLogger("dispatchers")
PAUSE = 1.0
"""Seconds before work goes back whose dead letter could not be stored: no hot loop."""
LATER = 0.25
"""Seconds beyond the time limit: the core cancels an async run, and is given the time to."""


class RunTimeoutError(TimeoutError):
    """The run took longer than its time limit."""


def run_taken(
    taken: Taken, leases: Leases, dispatcher: RQDispatcher, stopping: Callable[[], bool]
) -> Outcome:
    """Run a job and settle it."""
    body = _body(taken)
    with _limited(_limit(taken)):
        outcome = run_envelope(
            body,
            attempt=taken.attempt,
            deliveries=taken.deliveries,
            heartbeat=Heartbeat(lambda: leases.renew(taken), leases.interval),
            settings=run_settings(dispatcher.options),
            stopping=stopping,
        )
    _follow(outcome, body, taken, leases, dispatcher)
    return outcome


def _body(taken: Taken) -> bytes:
    try:
        return body_of(taken.fields)
    except ValueError:
        return b""  # which is no envelope, as the outcome says


def _follow(
    outcome: Outcome, body: bytes, taken: Taken, leases: Leases, dispatcher: RQDispatcher
) -> None:
    match outcome.action:
        case Action.DONE:
            leases.settle(taken, "done", dispatcher.options.keep, "ended_at", stamp())
        case Action.RETRY:
            leases.settle(taken, "retry", outcome.after)
        case Action.RETURN:
            leases.settle(taken, "return", outcome.after)
        case Action.DEAD:
            _bury(_letter(outcome, body, taken), taken, leases, dispatcher)


def _letter(outcome: Outcome, body: bytes, taken: Taken) -> DeadLetter:
    return DeadLetter.of(
        outcome,
        body,
        id=outcome.request_id or taken.id,
        task=taken.fields.get(b"description", b"").decode(),
        queue=taken.queue,
        deliveries=taken.deliveries,
    )


def _bury(letter: DeadLetter, taken: Taken, leases: Leases, dispatcher: RQDispatcher) -> None:
    """The letter is stored before the job is settled; else the job goes back (C9)."""
    if dispatcher.letters is not None:
        try:
            dispatcher.letters.add(letter)
        except Exception as exc:  # noqa: BLE001 - anything a store raises
            log.error("a dead letter could not be stored: %s", type(exc).__name__)  # noqa: TRY400
            leases.settle(taken, "return", PAUSE)
            return
    words = (why(_words(letter)), "ended_at", stamp(), LETTER, epitaph(letter))
    leases.settle(taken, "dead", dispatcher.options.failure_ttl, *words)


def bury_stopped(taken: Taken, leases: Leases, dispatcher: RQDispatcher) -> None:
    """Keep what somebody has stopped with RQ's own tools among the failed jobs."""
    letter = DeadLetter(
        id=taken.id,
        task=taken.fields.get(b"description", b"").decode(),
        queue=taken.queue,
        reason="stopped",
        attempts=taken.attempt,
        deliveries=taken.deliveries,
        body=_body(taken),
    )
    _bury(letter, taken, leases, dispatcher)


def _words(letter: DeadLetter) -> str:
    """What RQ's tools show: never the exception's own words, which may repeat arguments."""
    error = letter.error
    said = f": {error.exception_type} at {error.where}" if error and error.exception_type else ""
    return f"{letter.reason} in attempt {letter.attempts}{said}"


def _limit(taken: Taken) -> float | None:
    """Seconds after which the run is interrupted; the envelope's own, if it has any."""
    seconds = taken.fields.get(LIMIT.encode())
    return None if seconds is None else float(seconds) + LATER


@contextmanager
def _limited(seconds: float | None) -> Generator[None]:
    """Interrupt what runs in the main thread by an exception, as RQ does."""
    if seconds is None or threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(number: int, frame: FrameType | None) -> None:
        del number, frame
        raise RunTimeoutError(f"longer than {seconds} s")

    before = signal.signal(signal.SIGALRM, interrupt)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
