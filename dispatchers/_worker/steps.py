"""Steps: tasks whose result an execution awaits.

Their answer is in the journal before their delivery is settled. The journal decides: a step that
is answered does not run again, the first answer stands, and a message that wakes the execution
may be lost.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol, TypeVar

from dispatchers._errors import ConfigurationError, ErrorCategory
from dispatchers._journal.failure import failure
from dispatchers._journal.loading import journal as current_journal
from dispatchers._journal.protocol import LEASE, Journal
from dispatchers._journal.values import Answer, EntryKind, Record, Status, WakeUp
from dispatchers._models.envelope import EnvelopeError, decode
from dispatchers._models.fields import new_id
from dispatchers._models.outcome import Action, Outcome, Reason
from dispatchers._payload.errors import DeclarationError, PayloadError
from dispatchers._runtime import clock
from dispatchers._runtime.heartbeat import Heartbeat, beater
from dispatchers._runtime.log import say_once
from dispatchers._worker.claim import UNAVAILABLE_DELAY, Hold, claimed, not_run
from dispatchers._worker.decode import skewed
from dispatchers._worker.outcomes import NOT_RUN, permanent, unfit
from dispatchers._worker.run import Run, RunSettings, turn_is_interrupted
from dispatchers._worker.waking import is_awaited, tell_uncounted, woken

__all__ = [
    "PARENT",
    "STEP",
    "AnyHold",
    "Step",
    "StepHold",
    "hold_of",
    "left_undone",
    "wake_of",
]

STEP = "dispatchers-step"
"""The header of a step: its execution and the number of its command, `shop.checkout/order-7/3`."""

PARENT = "dispatchers-parent"
"""The header of a child's start: the execution and the command that await it."""

TIMEOUT = 5.0
"""Seconds for one call of the journal."""

EXPIRED = "expired"
"""The category of steps that came too late to be run; no dispatch fails with it."""

MAX_DIGITS = 9
"""Headers may come from any program; no number of a command is longer."""

T = TypeVar("T")


class AnyHold(Protocol):
    """Lease and claim of a run, settled after it."""

    outcome: Outcome | None
    """The outcome of the run, for `end` to settle."""

    @property
    def blocks(self) -> bool:
        """Tell whether taking it may wait for a store."""
        ...

    def take(self) -> Outcome | None:
        """Claim the work; an outcome says why it may not run."""
        ...

    def begin(self) -> None:
        """Renew lease and claim from now on."""
        ...

    def end(self) -> None:
        """Renew no more, and settle."""
        ...

    def result(self) -> Outcome:
        """The outcome, settled."""
        ...


class Step(NamedTuple):
    """A command of an execution, which a task carries out."""

    execution: str
    number: int

    @classmethod
    def named(cls, headers: Mapping[str, str] | None, header: str = STEP) -> Step | None:
        """Read a header; None where there is none, or one that is not ours."""
        text = headers.get(header, "") if headers else ""
        execution, _, number = text.rpartition("/")
        if not (execution and number.isascii() and number.isdigit() and len(number) <= MAX_DIGITS):
            return None
        return cls(execution, int(number))

    def __str__(self) -> str:
        return f"{self.execution}/{self.number}"


def hold_of(run: Run, heartbeat: Heartbeat | None, settings: RunSettings) -> AnyHold | None:
    """Return what a run has to hold while it lasts: nothing, for most."""
    headers = run.envelope.get("headers")
    if headers and (step := Step.named(headers)) is not None:
        return StepHold(step, run, heartbeat, settings)
    if heartbeat is None and settings.idempotency is None:
        return None
    return Hold(run, heartbeat, settings)


class StepHold:
    """The lease and the claim of a step; after its run, its answer and the wake-up.

    The journal's claims stand in for the idempotency store: what is answered is known there.
    """

    blocks = True

    def __init__(
        self, step: Step, run: Run, heartbeat: Heartbeat | None, settings: RunSettings
    ) -> None:
        self.outcome: Outcome | None = None
        self._step = step
        self._run = run
        self._settings = settings
        self._beats = [] if heartbeat is None else [heartbeat]
        # New for each run: a second delivery of the same request must not pass for the first.
        self._owner = new_id()

    def take(self) -> Outcome | None:
        """Claim the step; an outcome says why it is not run."""
        try:
            self._journal = current_journal()
        except ConfigurationError as exc:
            return self._without_journal(exc)
        key, owner = str(self._step), self._owner
        refused = claimed(self._journal.claims, key, owner, LEASE, tell=_tell_down)
        if refused is not None:
            return not_run(self._run, refused.action, refused.reason, refused.after)
        if (outcome := self._looked()) is None:
            self._beats.append(Heartbeat(self._renewed, LEASE / 3))
        return outcome

    def _looked(self) -> Outcome | None:
        """Return an outcome if it is answered, after which its execution is woken again.

        Asked under the claim: a run that has just ended has recorded its answer.
        """
        step, journal = self._step, self._journal
        answered = _asked(self._is_answered)
        if answered is False:
            return None
        self._release()
        if answered is None or not _asked(lambda: woken(_wake_of(journal, step))):
            return self._unavailable()
        return not_run(self._run, Action.DONE, Reason.DUPLICATE)

    def _is_answered(self) -> bool:
        (execution, number), source = self._step, self._run.envelope["id"]
        return self._journal.is_answered(execution, number, source=source, timeout=TIMEOUT)

    def _renewed(self) -> bool:
        """Renew the claim; false as well once nothing waits for the answer any more."""
        renewed = self._journal.claims.renew(str(self._step), self._owner, LEASE)
        return renewed and not self._is_answered()

    def begin(self) -> None:
        """Renew lease and claim from now on."""
        self._run.lease = tuple(beater.start(beat) for beat in self._beats)

    def end(self) -> None:
        """Record the answer, wake the execution, and give the claim back."""
        for beat in self._beats:
            beater.stop(beat)
        if self.outcome is not None:
            # Also after a lost lease: the handler has run, and the first answer is as good as any.
            self.outcome = self._recorded(self.outcome)
        if self._run.lease_lost:
            self.outcome = not_run(self._run, Action.RETURN, Reason.LEASE_LOST)
        # Released, not completed: the journal knows what is answered, and may forget it to resume.
        self._release()

    def _recorded(self, outcome: Outcome) -> Outcome:
        # A step in the call of its turn, in which the worker has raised: that is no failure of it.
        if turn_is_interrupted():
            return self._unavailable()
        answer, outcome = _answer_to(self._run, outcome, self._settings)
        if answer is None:
            return outcome
        answer = answer._replace(source=self._run.envelope["id"])
        if _is_recorded(self._journal, self._step, answer):
            return outcome
        return self._unavailable()

    def result(self) -> Outcome:
        """The outcome of the run, if its answer was recorded."""
        assert self.outcome is not None, "the run has ended"
        return self.outcome

    def _release(self) -> None:
        _asked(lambda: self._journal.claims.release(str(self._step), self._owner))

    def _unavailable(self) -> Outcome:
        return not_run(self._run, Action.RETURN, Reason.STORE_UNAVAILABLE, UNAVAILABLE_DELAY)

    def _without_journal(self, exc: ConfigurationError) -> Outcome:
        """Hand back what this worker cannot record, for a while (D19, C11)."""
        run = self._run
        words = f"a step of {self._step.execution!r} is not run, as its result would be lost: {exc}"
        skew = skewed(run.body, run.deliveries, self._settings, Reason.NO_JOURNAL, words)
        return unfit(skew, run.attempt, quiet=self._settings.quiet)


def left_undone(body: Any, outcome: Outcome) -> Outcome:
    """Answer for a step or child that will not run any more: its execution would wait for ever.

    Args:
        body: Its envelope.

        outcome: Why it is not run; one that hands it back is no end.

    Returns:
        The outcome, or one that hands it back where the journal did not take the answer.
    """
    if outcome.action in (Action.RETURN, Action.RETRY):
        return outcome
    if not is_awaited(body):
        return outcome
    try:
        request = decode(body)
        step = Step.named(request.headers) or Step.named(request.headers, PARENT)
        # Without a journal the answer has no place: the dead letter says so.
        journal = current_journal() if step is not None else None
    except (EnvelopeError, ConfigurationError):
        return outcome
    if step is None or journal is None:
        return outcome
    if _is_recorded(journal, step, _failed(outcome)._replace(source=request.id)):
        return outcome
    return outcome.model_copy(
        update={
            "action": Action.RETURN,
            "reason": Reason.STORE_UNAVAILABLE,
            "after": UNAVAILABLE_DELAY,
        }
    )


def _answer_to(run: Run, outcome: Outcome, settings: RunSettings) -> tuple[Answer | None, Outcome]:
    """Return the answer that a run gives, if it gives one, and what became of the run."""
    if outcome.action in (Action.RETRY, Action.RETURN):
        return None, outcome
    if outcome.reason is Reason.DISCARDED:
        return _discarded(run, outcome), outcome
    if outcome.reason is not Reason.SUCCEEDED:
        return _failed(outcome), outcome
    try:
        return Answer(EntryKind.DONE, run.task.results.encode(run.result), clock.time()), outcome
    except (PayloadError, DeclarationError) as exc:
        # The same code would return the same again: another attempt would only repeat its effects.
        outcome = permanent(run, exc, settings)
        return _failed(outcome, ErrorCategory.INVALID), outcome


def _discarded(run: Run, outcome: Outcome) -> Answer:
    """Answer with None where the result may be None: a task that discards its work did not fail."""
    try:
        return Answer(EntryKind.DONE, run.task.results.encode(None), clock.time())
    except (PayloadError, DeclarationError):
        return _failed(outcome, message="the task discarded the work, and its result is never None")


def _failed(
    outcome: Outcome, category: ErrorCategory | None = None, *, message: str = ""
) -> Answer:
    error = outcome.error
    # An exception may have no words of its own: its class is told beside them.
    said = error.message if error else f"not run: {outcome.reason.value}"
    body = failure(
        category or _category(outcome.reason),
        message or said,
        exception_type=error.exception_type if error else None,
        attempts=outcome.attempt,
    )
    return Answer(EntryKind.FAILED, body, clock.time())


def _category(reason: Reason) -> str:
    if reason is Reason.EXPIRED:
        return EXPIRED
    return NOT_RUN.get(reason, ErrorCategory.HANDLER)


def _is_recorded(journal: Journal, step: Step, answer: Answer) -> bool:
    """Record an answer and wake the execution; false if that is to be repeated."""
    answered = _asked(lambda: journal.answer(step.execution, step.number, answer, timeout=TIMEOUT))
    if answered is None:
        return False
    if not answered.first:
        tell_uncounted(step.execution, step.number)
    return woken(answered.wake)


def _wake_of(journal: Journal, step: Step) -> WakeUp | None:
    """Return the way to wake an execution that has something to read."""
    record = journal.look(step.execution, timeout=TIMEOUT)
    return None if record is None or not _is_unread(record) else wake_of(record)


def _is_unread(record: Record) -> bool:
    return record.status is Status.RUNNING and record.head > record.seen


def wake_of(record: Record, why: str = "answer") -> WakeUp:
    """Return the way to wake an execution."""
    return WakeUp(record.id, record.workflow, record.dispatcher, record.queue, record.headers, why)


def _asked(call: Callable[[], T]) -> T | None:
    """Call the journal; None where it could not answer."""
    try:
        return call()
    except Exception as exc:  # noqa: BLE001 - anything a journal raises: the work comes back
        _tell_down(f"{type(exc).__name__}: {exc}")
        return None


def _tell_down(why: str) -> None:
    say_once(_tell_down, logging.ERROR, "the journal of executions: %s; steps are handed back", why)
